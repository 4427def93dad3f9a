"""Both sides of every seam, and the loops on which they run.

A contract is an async function that is given one *bench*: an implementation, and what the world around it can do. `on_every_side`
makes a test of it that runs on the real part (on both event loops) and on the simulated one.
"""

import asyncio
import inspect
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import uvloop

from peer.real.disk import RealDisk
from peer.real.keys import ClusterKey
from peer.real.network import RealNetwork
from peer.real.storage import RealStorage
from peer.seams import KV, Disk, Network
from protocol.hashing import plain_hash
from protocol.identity import node_id_of
from sims.disk import DiskState, SimDisk
from sims.kv import SimStorage
from sims.loop import SimLoop, context_of
from sims.network import Lan, SimNetwork

LOOPS = {"real-asyncio": asyncio.new_event_loop, "real-uvloop": uvloop.new_event_loop}
SIDES = (*LOOPS, "sim")
SECONDS_MAX = 60.0
REAL_SECONDS_MAX = 8.0


def run_on(side: str, story: Callable[[], Coroutine[Any, Any, Any]], *, seed: int = 0) -> Any:
    """Run a story to its end on the loop of a side; nothing may fail unnoticed in it."""
    if side != "sim":
        with asyncio.Runner(loop_factory=LOOPS[side]) as runner:
            failures: list[dict[str, Any]] = []
            runner.get_loop().set_exception_handler(lambda loop, context: failures.append(context))
            result = runner.run(asyncio.wait_for(story(), REAL_SECONDS_MAX))
            assert not failures, failures
            return result
    loop = SimLoop(Random(seed))
    try:
        result = loop.run(story(), seconds_max=SECONDS_MAX)
        assert not loop.failures, loop.failures
        return result
    finally:
        loop.close()


def on_every_side(bench: Callable[..., Any], *, seeds: int = 5) -> Callable[..., Any]:
    """Make a test of a contract: once on each real loop, on `seeds` simulated worlds."""

    def decorate(contract: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        async def story(side: str, folder: Path, seed: int) -> None:
            async with bench(side, folder, seed) as opened:
                await contract(opened)

        @pytest.mark.parametrize("side", SIDES)
        def test(side: str, tmp_path: Path) -> None:
            for seed in range(seeds if side == "sim" else 1):
                run_on(side, lambda seed=seed: story(side, tmp_path, seed), seed=seed)

        assert inspect.iscoroutinefunction(contract)
        test.__name__, test.__doc__ = contract.__name__, contract.__doc__
        return test

    return decorate


@asynccontextmanager
async def disk_bench(side: str, folder: Path, seed: int) -> AsyncIterator[Disk]:
    """An empty folder."""
    if side == "sim":
        yield SimDisk(DiskState(Random(seed)))
        return
    disk = RealDisk(folder)
    yield disk
    disk.close()


class KVBench:
    """Databases of one data folder, opened and closed."""

    def __init__(self, storage: RealStorage | SimStorage) -> None:
        self._storage = storage
        self.kv: KV

    async def open(self) -> KV:
        """Open the database, for the first time or again."""
        self.kv = await self._storage.open_kv("test")
        return self.kv

    async def reopen(self) -> KV:
        """Close the database and open it again."""
        await self.kv.close()
        return await self.open()

    async def set_aside(self) -> KV:
        """Close the database, put it away, and open what is in its place."""
        await self.kv.close()
        await self._storage.set_aside("test")
        return await self.open()


@asynccontextmanager
async def kv_bench(side: str, folder: Path, seed: int) -> AsyncIterator[KVBench]:
    """An empty database."""
    storage = SimStorage(Random(seed)) if side == "sim" else RealStorage(folder)
    bench = KVBench(storage)
    await bench.open()
    yield bench
    await bench.kv.close()
    await storage.close()


class Peer(asyncio.BufferedProtocol):
    """One end of a connection, which notes all that happens to it."""

    def __init__(self, proven: bytes) -> None:
        self.proven = proven
        self.transport: asyncio.Transport
        self.made = self.lost = False
        self.error: Exception | None = None
        self.received = bytearray()
        self.pauses: list[str] = []
        self.greeting = b""
        self.buffer = bytearray(1000)
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert not self.made
        self.transport = transport
        self.made = True
        if self.greeting:
            self.transport.write(self.greeting)
        self._news.set()

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self.buffer)  # the standard library's TLS loses bytes with a bytearray: it slices, and fills the copy

    def buffer_updated(self, nbytes: int) -> None:
        assert self.made
        assert not self.lost
        self.received += self.buffer[:nbytes]
        self._news.set()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.pauses.append("pause")
        self._news.set()

    def resume_writing(self) -> None:
        self.pauses.append("resume")
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        assert self.made
        assert not self.lost
        self.lost, self.error = True, exc
        self._news.set()

    async def until(self, condition: Callable[["Peer"], bool]) -> "Peer":
        """Wait for something to have happened."""
        while not condition(self):
            self._news.clear()
            await self._news.wait()
        return self

    async def until_received(self, count: int) -> bytes:
        """Wait for so many bytes."""
        await self.until(lambda peer: len(peer.received) >= count)
        return bytes(self.received)

    async def until_lost(self) -> "Peer":
        """Wait for the end."""
        return await self.until(lambda peer: peer.lost)


class Accepting:
    """An endpoint that keeps what it made."""

    def __init__(self, *, greeting: bytes = b"") -> None:
        self.peers: list[Peer] = []
        self._greeting = greeting
        self._arrived = asyncio.Event()

    def __call__(self, proven: bytes) -> Peer:
        peer = Peer(proven)
        peer.greeting = self._greeting
        self.peers.append(peer)
        self._arrived.set()
        return peer

    async def peer(self) -> Peer:
        """Return the next one that arrives, once it is connected."""
        while not self.peers:
            self._arrived.clear()
            await self._arrived.wait()
        peer = self.peers.pop(0)
        return await peer.until(lambda each: each.made)


class NetworkBench:
    """Two hosts, `ada` and `bob`, on one network."""

    def __init__(self, ada: Network, bob: Network, any_address: str, lan: Lan | None) -> None:
        self.ada, self.bob = ada, bob
        self.any_address = any_address
        """Where ada may listen, port 0."""
        self._lan = lan
        self._sockets: list[socket.socket] = []

    def as_ada(self, work: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
        """Do `work` as ada: in a simulation a host is a property of whoever calls."""
        return self._as("ada#1", work)

    def as_bob(self, work: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
        """Do `work` as bob."""
        return self._as("bob#1", work)

    async def connected(self) -> tuple[Peer, Peer]:
        """Return both ends of a fresh connection: of ada who listened, of bob who dialled."""
        accepting = Accepting()
        listener = await self.ada.listen(self.any_address, accepting)
        here = await self.bob.connect(listener.addresses[0], Peer, timeout_seconds=10.0)
        there = await accepting.peer()
        await listener.close()
        assert isinstance(here, Peer)
        return there, here

    async def silent_address(self) -> str:
        """Return an address from which no answer comes."""
        if self._lan is not None:
            self._lan.cut("bob", "eve")
            return "eve:7400"
        listening = socket.create_server(("127.0.0.1", 0))
        self._sockets.append(listening)
        return f"127.0.0.1:{listening.getsockname()[1]}"

    def close(self) -> None:
        """Release what was opened."""
        for each in self._sockets:
            each.close()

    async def _as(self, host: str, work: Callable[[], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            return await work()

        return await asyncio.get_running_loop().create_task(run(), context=context_of(host))


KEY = ClusterKey(bytes(range(32)))


@asynccontextmanager
async def network_bench(side: str, folder: Path, seed: int) -> AsyncIterator[NetworkBench]:
    """Two hosts with the same cluster key."""
    if side == "sim":
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        lan = Lan(loop, Random(seed))
        ada, bob = (SimNetwork(lan, f"{name}#1", node_id_of(plain_hash(name.encode()))) for name in ("ada", "bob"))
        yield NetworkBench(ada, bob, "ada:0", lan)
        return
    real_ada, real_bob = (RealNetwork(KEY, plain_hash(name.encode())) for name in ("ada", "bob"))
    bench = NetworkBench(real_ada, real_bob, "127.0.0.1:0", None)
    yield bench
    bench.close()
