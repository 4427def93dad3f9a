"""Machines whose storage can be watched, damaged, lost and crashed: simulated ones, and folders of this one."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from peer.errors import DiskError
from peer.real.storage import RealStorage
from peer.seams import KV, Delete, Put
from protocol.hashing import plain_hash
from protocol.identity import ChunkId, NodeId, OpId
from protocol.manifest import ChunkTag, chunk_id_of, inline_content
from protocol.versions import Dot, Kind, Row, Version, empty_row, published
from sims.entropy import SimEntropy
from sims.faults import SimCompute
from sims.kv import SimStorage
from sims.loop import SimLoop, context_of

SECONDS_MAX = 600.0


def run(story: Callable[[], Coroutine[Any, Any, Any]], seed: int = 0) -> Any:
    """Run a story in virtual time; nothing may fail unnoticed in it."""
    loop = SimLoop(Random(seed))
    try:
        result = loop.run(story(), seconds_max=SECONDS_MAX)
        assert not loop.failures, loop.failures
        return result
    finally:
        loop.close()


class Machine:
    """A machine with a disk, simulated or a folder of this one."""

    compute = SimCompute()

    def __init__(self, seed: int, folder: Path | None = None) -> None:
        self.entropy = SimEntropy(f"machine {seed}")
        self._folder = folder
        self.storage: Any = SimStorage(Random(seed)) if folder is None else RealStorage(folder)

    async def restart(self) -> None:
        """Begin anew on the same disk; whoever had databases open has closed them."""
        await self.storage.close()
        if self._folder is not None:
            self.storage = RealStorage(self._folder)

    async def stored(self, name: str) -> list[tuple[bytes, bytes]]:
        """Return all that is in a closed database."""
        kv = await self.storage.open_kv(name)
        pairs = await kv.range(b"", None, 100_000)
        await kv.close()
        return pairs

    async def put_raw(self, name: str, key: bytes, value: bytes) -> None:
        """Overwrite a value of a closed database."""
        kv = await self.storage.open_kv(name)
        await kv.commit([Put(key, value)])
        await kv.close()

    async def lose(self, name: str) -> None:
        """Remove a closed database."""
        if self._folder is None:
            await self.storage.set_aside(name)
            return
        for path in self._folder.glob(f"{name}.db*"):
            path.unlink()

    def damage(self, name: str) -> None:
        """Make a closed database unreadable."""
        if self._folder is None:
            self.storage.damage(name)
        else:
            (self._folder / f"{name}.db").write_bytes(b"no database" * 1000)

    async def damage_file(self, path: str, edit: Callable[[bytes], bytes]) -> None:
        """Replace a file by `edit` of it."""
        await self.storage.disk.write(path, [edit(await self.storage.disk.read(path))])


def on_both(story: Callable[[Machine], Awaitable[None]]) -> Callable[..., None]:
    """Make a test of a story: on a folder of this machine, and on some simulated machines."""

    @pytest.mark.parametrize("side", ["real", "sim"])
    def test(side: str, tmp_path: Path) -> None:
        if side == "real":

            async def real() -> None:
                machine = Machine(0, tmp_path)
                await story(machine)
                await machine.storage.close()

            asyncio.run(real())
            return
        for seed in range(4):
            run(lambda seed=seed: story(Machine(seed)), seed)

    assert inspect.iscoroutinefunction(story)
    test.__name__, test.__doc__ = story.__name__, story.__doc__
    return test


def until_crash(seed: int, machine: Machine, life: Callable[[], Awaitable[Any]], seconds: float) -> Callable[[], Awaitable[None]]:
    """Return a story in which a host leads `life` for `seconds`, then loses its power."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        host = f"node{loop.steps}#{seed}"

        async def run_life() -> None:
            await life()

        task = loop.create_task(run_life(), context=context_of(host))
        await asyncio.sleep(seconds)
        loop.kill(host)
        if task.done():
            task.result()
        machine.storage.power_cut()

    return story


class Watched:
    """A storage that writes down in which order what is asked of it was done."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.done: list[tuple[str, str]] = []
        self.disk = WatchedDisk(storage.disk, self.done)

    async def open_kv(self, name: str) -> Any:
        return WatchedKV(await self._storage.open_kv(name), name, self.done)

    async def set_aside(self, name: str) -> None:
        await self._storage.set_aside(name)


SUBJECT = {"rename": 1, "place": 1}
"""Which argument of a step says what it was done to, where that is not the first."""


class WatchedDisk:
    """Notes every step once it is done; may say that it is full."""

    def __init__(self, disk: Any, done: list[tuple[str, str]]) -> None:
        self._disk = disk
        self._done = done
        self.full_at = ""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._disk, name)

        async def watched(*arguments: Any) -> Any:
            if self.full_at == name:
                raise DiskError(arguments[0], "no space left", full=True)
            result = await method(*arguments)
            self._done.append((name, str(arguments[SUBJECT.get(name, 0)] if arguments else "")))
            return result

        return watched


class WatchedKV:
    """Notes every commit once it is done."""

    def __init__(self, kv: KV, name: str, done: list[tuple[str, str]]) -> None:
        self._kv = kv
        self._name = name
        self._done = done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kv, name)

    async def commit(self, changes: Sequence[Put | Delete]) -> None:
        await self._kv.commit(changes)
        self._done.append(("commit", self._name))


def chunk(text: str, size: int = 100) -> tuple[ChunkId, bytes]:
    """Return an imagined chunk and its id."""
    data = (text.encode() * size)[:size]
    return chunk_id_of(ChunkTag.DATA, data), data


def node_id(name: str) -> NodeId:
    """Return the id of an imagined node."""
    return NodeId(plain_hash(name.encode(), 16))


def row_of(path: str, text: str = "content", actor: str = "ada", counter: int = 1, before: Row | None = None) -> Row:
    """Return the row of a path to which one writer put a text."""
    op_id = OpId(plain_hash(f"{path} {text} {actor} {counter}".encode(), 16))
    content = inline_content(text.encode())
    version = Version(Dot(node_id(actor), counter), (), 1 << 16, op_id, Kind.FILE, len(text), 0o644, 0, actor, content)
    return published(before if before is not None else empty_row(path), version)
