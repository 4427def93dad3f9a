"""What several stories do: a person who tries again, looks at everything through every node, and reads the disks from outside."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from peer.errors import LinkLost, NoSuchPath, OutcomeUnknown, RequestFailed, Unavailable
from peer.files.entries import PutResult
from peer.files.operations import Operations
from protocol.hashing import Buffer
from protocol.identity import ChunkId
from protocol.manifest import ChunkTag, chunk_id_of
from protocol.messages import ChunkGet
from sims.history import History
from sims.network import machine_of
from sims.oracles.chain import LayoutsAreOne
from sims.oracles.disks import CHUNK_HEADER_BYTES, chunks_of
from sims.plan import Plan
from sims.world import World

T = TypeVar("T")

NAMES = ("a", "b", "c", "d", "e")
PATIENCE_SECONDS = 60.0
ASK_SECONDS = 10.0
CHAIN_SECONDS = 0.05


async def again(work: Callable[[], Awaitable[T]]) -> T:
    """Do what a person does who is told that the cluster is not available now: try again, for a minute."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + PATIENCE_SECONDS
    while True:
        try:
            return await work()
        except (Unavailable, OutcomeUnknown):
            if loop.time() >= give_up_at:
                raise
            await asyncio.sleep(0.5)


async def put_for_certain(client: Operations, path: str, content: bytes, op_id: bytes | None = None) -> PutResult:
    """Put until it is acknowledged: as one operation, however often it is tried."""

    async def put() -> PutResult:
        nonlocal op_id
        try:
            return await client.put_bytes(path, content, op_id=op_id)
        except OutcomeUnknown as error:
            op_id = error.op_id
            raise

    return await again(put)


async def versions(client: Operations, path: str) -> list[bytes]:
    """Return the contents of all versions of a path, sorted; none when it does not exist."""
    try:
        stat = await client.stat(path)
        return sorted([await client.get_bytes(each.path) for each in (stat.entry, *stat.conflicts)])
    except NoSuchPath:
        return []


async def expect(world: World, path: str, *contents: bytes) -> None:
    """Look at a path through every node that runs: it has exactly these contents, or without any does not exist."""
    for machine in list(world.machines.values()):
        if machine.node is not None:
            client = await world.client(machine.name)
            seen = await again(lambda: versions(client, path))  # noqa: B023  # awaited in this round
            sizes, wanted = [[len(content) for content in each] for each in (seen, sorted(contents))]
            assert seen == sorted(contents), f"{path} has versions of {sizes} bytes through {machine.name}, and should have {wanted}"


async def start_all(world: World, names: Sequence[str]) -> None:
    """Switch machines on in this order, and wait until everybody who runs knows all members again."""
    for name in names:
        await world.start(name)
    await world.members(len(world.machines))


@contextmanager
def chain_judged(world: World) -> Iterator[None]:
    """Compare the layouts on all disks again and again until the end of the block, which is ended by what does not fit.

    Raises: Violation.
    """
    story = asyncio.current_task()
    assert story is not None
    oracle = LayoutsAreOne()
    oracle.begin(world, Plan(world.seed), History())

    async def look() -> None:
        while True:
            oracle.tick()
            await asyncio.sleep(CHAIN_SECONDS)

    def end(_: "asyncio.Task[None]") -> None:
        story.cancel()

    looking = asyncio.get_running_loop().create_task(look())
    looking.add_done_callback(end)
    try:
        yield
    finally:
        if looking.done():
            looking.result()
        looking.remove_done_callback(end)
        looking.cancel()


async def until(seconds: float, is_so: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + seconds
    while not is_so():
        assert loop.time() < give_up_at, f"after {seconds:.0f} s {what}"
        await asyncio.sleep(0.1)


def durable_copies(world: World, content: bytes) -> int:
    """Return on how many machines each chunk of `content` would survive if all lost their power now: the fewest of all chunks."""
    return min(sum(_is_durable(world, name, chunk_id, chunk) for name in world.machines) for chunk_id, chunk in _chunks(content))


async def serves(world: World, name: str, content: bytes) -> bool:
    """Ask one node for each chunk of `content`; return whether it gave all. What it gives is right, or it gives nothing."""
    host = f"asker{len(world.clients) + 1}#1"
    world.clients.append(host)
    session = await world.session(host, name)
    node_id = world.node(name).node_id
    is_complete = True
    for chunk_id, chunk in _chunks(content):
        request = ChunkGet(int(ASK_SECONDS * 1000), chunk_id)
        try:
            reply = await session.request(node_id, request, timeout_seconds=ASK_SECONDS)
        except (RequestFailed, LinkLost, TimeoutError):
            is_complete = False
            continue
        assert reply.payload == chunk, f"{name} served other bytes than those of chunk {chunk_id.hex()[:12]}"
        reply.release()
    return is_complete


def cut_off(world: World, names: Sequence[str]) -> None:
    """Let nothing through any more between some machines (clients are machines as well) and all others."""
    for one, other in pairs_between(world, names):
        world.lan.cut(one, other)
        world.lan.cut(other, one)


def pairs_between(world: World, names: Sequence[str]) -> list[tuple[str, str]]:
    """Return each of `names` with each machine and client that is none of them."""
    others = [name for name in (*world.machines, *map(machine_of, world.clients)) if name not in names]
    return [(one, other) for one in names for other in others]


def _chunks(content: bytes) -> list[tuple[ChunkId, Buffer]]:
    chunks: list[tuple[ChunkId, Buffer]] = [(chunk_id_of(ChunkTag.DATA, chunk), chunk) for chunk in chunks_of(content)]
    assert chunks, "what is so small lies in its row"
    return chunks


def _is_durable(world: World, name: str, chunk_id: ChunkId, chunk: Buffer) -> bool:
    file = world.machines[name].storage.state.durable_names.get(f"c/{chunk_id[1]:02x}/{chunk_id.hex()}")
    return file is not None and file.durable[CHUNK_HEADER_BYTES:] == chunk
