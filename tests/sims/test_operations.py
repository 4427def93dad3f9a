"""A client of the simulated cluster when things go wrong: nodes that die under it, answers that are lost, others who write as well."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from io import BytesIO
from random import Random

import pytest

from peer.client.streams import RemoteReader, RemoteWriter
from peer.errors import (
    AlreadyThere,
    DataLost,
    LinkLost,
    NoSuchPath,
    OutcomeUnknown,
    Refused,
    ShoalError,
    Unavailable,
    Unreachable,
    WrongUsage,
)
from peer.files.attempts import Attempt
from peer.files.operations import Operations
from peer.link import Reply
from peer.session import Session
from protocol.errors import ErrorCode
from protocol.hashing import Buffer
from protocol.identity import ChunkId, NodeId, OpId
from protocol.manifest import KIB, NO_CONTENT
from protocol.messages import ChunkGet, Request, RowPublish
from protocol.paths import row_partition
from protocol.versions import Kind, Vector, winner
from protocol.versions import context_of as versions_of
from sims.loop import context_of
from sims.world import World

NAMES = ("a", "b", "c", "d", "e")
THREE = NAMES[:3]
SEEDS = range(6)
FEW_SEEDS = range(2)
READ_BYTES = 1100 * KIB
NOTICED_SECONDS = 6.0
"""A machine that lost its power is noticed after five seconds; who dies with his process, at once."""


def cut_off(world: World, name: str, *others: str) -> None:
    """Let nothing through between a machine and others any more, without a word to either."""
    for other in others:
        world.lan.cut(name, other)
        world.lan.cut(other, name)


def publication(path: str, stamp: int, op_id: OpId, context: Vector, kind: Kind) -> RowPublish:
    """Return the request of a client to write an empty version."""
    return RowPublish(
        deadline_milliseconds=20_000, partition=row_partition(path), stamp=stamp, op_id=op_id, path=path, context=context, kind=kind,
        size=0, mode=0o755, modified_milliseconds=0, writer="tester", content=NO_CONTENT, holders=(),
    )  # fmt: skip


async def collected(reader: RemoteReader, block_bytes: int) -> bytes:
    async with reader:
        pieces = []
        while piece := await reader.read(block_bytes):
            pieces.append(piece)
        return b"".join(pieces)


async def contents(client: Operations, folder: str = "/") -> dict[str, bytes]:
    """Return what the files of a folder contain, concurrent versions included."""
    return {entry.name: await client.get_bytes(entry.path) async for entry in client.list(folder) if entry.type == "file"}


async def outcome(work: Awaitable[object]) -> object:
    """Return what `work` returns, or the error of the cluster that it raises."""
    try:
        return await work
    except ShoalError as error:
        return error


# -- failover ----------------------------------------------------------------


@pytest.mark.parametrize("silent", [False, True])
def test_a_client_gets_in_by_the_next_address_when_the_first_is_dead(silent: bool) -> None:
    async def scenario(world: World) -> None:
        await world.found(NAMES)
        if silent:
            cut_off(world, "a", "client1")
            cut_off(world, "b", "client1")
        else:
            world.crash("a")
            world.crash("b")
        began_at = asyncio.get_running_loop().time()
        client = await world.client("a", "b", "c")
        assert asyncio.get_running_loop().time() - began_at < 1.0
        await client.put_bytes("/f", b"data")
        assert await client.get_bytes("/f") == b"data"

    World(1).run(scenario)


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_everything_under_way_goes_on_when_the_node_that_let_the_client_in_dies(seed: int, silent: bool) -> None:
    choice = Random(seed)
    data, new = choice.randbytes(1200 * KIB), choice.randbytes(500 * KIB)
    victim = choice.choice(NAMES)
    folders = [f"/many/{index}" for index in range(6)]

    async def scenario(world: World) -> None:
        await world.found(NAMES)
        client = await world.client(victim)
        await client.put_bytes("/data", data)
        for folder in folders:
            await client.put_bytes(f"{folder}/f", b"x")

        async def ranged() -> list[bytes]:
            reader = RemoteReader(await client.content("/data"))
            return [await reader.read_at(offset, 1000) for offset in range(0, len(data), 150 * KIB)]

        async def listed() -> list[str]:
            return [entry.path async for entry in client.list("/many", recursive=True) if entry.type == "file"]

        async def read() -> bytes:
            return await collected(RemoteReader(await client.content("/data")), 70 * KIB)

        loop = asyncio.get_running_loop()
        work = [client.get_bytes("/data"), read(), ranged(), listed(), client.put_bytes("/new", new)]
        tasks = [loop.create_task(each) for each in work]
        await asyncio.sleep(choice.uniform(0.0, 0.06))
        if silent:
            cut_off(world, victim, "client1", *(name for name in NAMES if name != victim))
        else:
            world.crash(victim)
        died_at = loop.time()
        got, was_read, ranges, paths, put = await asyncio.gather(*tasks)
        assert got == was_read == data
        assert ranges == [data[offset : offset + 1000] for offset in range(0, len(data), 150 * KIB)]
        assert paths == [f"{folder}/f" for folder in folders]
        assert put.copies == 3
        assert await client.get_bytes("/new") == new
        assert loop.time() - died_at < (4 * NOTICED_SECONDS if silent else NOTICED_SECONDS)

    World(seed).run(scenario)


def test_a_client_reaches_members_that_joined_after_it_came_in() -> None:
    data = Random(1).randbytes(300 * KIB)

    async def scenario(world: World) -> None:
        await world.found(THREE)
        client = await world.client("a")
        await client.put_bytes("/before", data)
        await asyncio.gather(world.start("d"), world.start("e"))
        await world.members(5)
        await client.put_bytes("/after", data)
        await asyncio.sleep(60.0)
        world.crash("a")
        world.crash("b")
        for path in ("/before", "/after"):
            assert await client.get_bytes(path) == data
        assert (await client.put_bytes("/then", data)).copies == 3

    World(1).run(scenario)


def test_a_client_finds_a_member_again_whose_address_has_changed() -> None:
    async def scenario(world: World) -> None:
        await world.found(THREE)
        client = await world.client("a")
        await client.put_bytes("/f", b"data")
        world.crash("b")
        node_id = (await world.restart("b")).node_id
        client._access.links.learn_addresses(node_id, ["b:1"])  # where it was before
        await client.put_bytes("/g", b"data")
        await asyncio.sleep(5.0)
        await client.get_bytes("/g")
        world.crash("a")
        assert await client.get_bytes("/f") == b"data"
        assert (await client.put_bytes("/f", b"new")).copies == 2

    World(1).run(scenario)


# -- one operation, however often it is tried --------------------------------


class LossyAccess:
    """The session of a client to whom nobody's answer to a write comes back, until `is_lossy` is taken from it."""

    def __init__(self, session: Session, coordinator: NodeId | None) -> None:
        self.is_lossy = True
        self._session = session
        self._coordinator = coordinator
        """Who hears of the write; None is nobody."""

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)

    async def request(self, node_id: NodeId, message: Request, payload: Buffer = b"", *, timeout_seconds: float) -> Reply:
        if not (self.is_lossy and isinstance(message, RowPublish) and message.kind is Kind.FILE):
            return await self._session.request(node_id, message, payload, timeout_seconds=timeout_seconds)
        if node_id == self._coordinator:
            with suppress(Exception):
                await self._session.request(node_id, message, payload, timeout_seconds=timeout_seconds)
        raise LinkLost("the answer is lost")


async def put_with_unknown_outcome(world: World, path: str, data: bytes, coordinator: str | None) -> bytes:
    """Put, and return the op id of what is not known."""
    client = await world.client("a")
    node_id = world.node(coordinator).node_id if coordinator is not None else None
    with pytest.raises(OutcomeUnknown) as unknown:
        await Operations(LossyAccess(client._access, node_id)).put_bytes(path, data)
    return unknown.value.op_id


@pytest.mark.parametrize("coordinator", [None, "b"])
@pytest.mark.parametrize("seed", FEW_SEEDS)
def test_a_put_whose_outcome_is_unknown_takes_effect_once_when_it_is_repeated(seed: int, coordinator: str | None) -> None:
    async def scenario(world: World) -> None:
        await world.found(THREE)
        other = await world.client("c")
        await other.put_bytes("/d/f", b"before")
        op_id = await put_with_unknown_outcome(world, "/d/f", b"mine", coordinator)
        for _ in range(2):
            result = await other.put_bytes("/d/f", b"mine", op_id=op_id)
            assert (result.path, result.size) == ("/d/f", 4)
            assert result.copies >= 2
            assert result.version == (await other.entry("/d/f")).version
            assert await contents(other, "/d") == {"f": b"mine"}

    World(seed).run(scenario)


@pytest.mark.parametrize("seed", FEW_SEEDS)
def test_a_put_that_was_superseded_before_it_is_repeated_stays_superseded(seed: int) -> None:
    async def scenario(world: World) -> None:
        await world.found(THREE)
        other = await world.client("c")
        overwritten, removed = [await put_with_unknown_outcome(world, path, b"mine", "b") for path in ("/f", "/d/g")]
        newer = await other.put_bytes("/f", b"newer")
        await other.remove("/d", recursive=True)
        third = await world.client("b")
        assert (await third.put_bytes("/f", b"mine", op_id=overwritten)).version != newer.version
        await third.put_bytes("/d/g", b"mine", op_id=removed)
        for client in (other, third):
            assert await contents(client) == {"f": b"newer"}
            assert [entry.path async for entry in client.list("/", recursive=True)] == ["/f"]

    World(seed).run(scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_put_that_only_a_cut_off_replica_has_seen_is_concurrent_with_what_came_meanwhile(seed: int) -> None:
    choice = Random(seed)
    is_repeated_first = choice.random() < 0.5

    async def scenario(world: World) -> None:
        await world.found(THREE)
        other = await world.client("c")
        await other.put_bytes("/f", b"before")
        cut_off(world, "b", "a", "c")
        op_id = await put_with_unknown_outcome(world, "/f", b"mine", "b")
        cut_off(world, "b", "client1", "client2")
        await other.put_bytes("/f", b"newer")
        if not is_repeated_first:
            world.lan.heal()
            await asyncio.sleep(choice.uniform(0.0, 10.0))
        await other.put_bytes("/f", b"mine", op_id=op_id)
        world.lan.heal()
        for name in THREE:
            assert sorted((await contents(await world.client(name))).values()) == [b"mine", b"newer"]
        await other.put_bytes("/f", b"resolved")
        await other.put_bytes("/f", b"mine", op_id=op_id)
        assert await contents(other) == {"f": b"resolved"}

    World(seed).run(scenario)


def test_a_repeated_put_that_reaches_nobody_is_as_unknown_as_before() -> None:
    async def scenario(world: World) -> None:
        await world.found(THREE)
        op_id = await put_with_unknown_outcome(world, "/f", b"mine", "b")
        other = await world.client("c")
        cut_off(world, "client2", *THREE)
        with pytest.raises(OutcomeUnknown) as unknown:
            await other.put_bytes("/f", b"mine", op_id=op_id)
        world.lan.heal()
        await other.put_bytes("/f", b"mine", op_id=unknown.value.op_id)
        assert await contents(other) == {"f": b"mine"}

    World(1).run(scenario)


@pytest.mark.parametrize("size", [None, 900 * KIB])
def test_a_source_that_gives_more_than_it_is_asked_for_is_refused(size: int | None) -> None:
    async def scenario(world: World) -> None:
        await world.found(["a"])
        client = await world.client("a")

        async def read(count: int) -> bytes:
            return bytes(900 * KIB)

        with pytest.raises(ValueError, match="asked for"):
            await client.put("/f", read, size=size)
        with pytest.raises(ValueError, match="from 0"):
            await client.get_bytes((await client.put_bytes("/f", b"x")).path, -1)

    World(1).run(scenario)


def test_the_op_id_of_another_path_is_refused() -> None:
    async def scenario(world: World) -> None:
        await world.found(THREE)
        op_id = await put_with_unknown_outcome(world, "/f", b"mine", "b")
        client = await world.client("c")
        for path, wrong in (("/g", op_id), ("/f", op_id[:-1]), ("/f", b""), ("/f", bytes(16)), ("/f", bytes(100))):
            with pytest.raises(WrongUsage, match="op_id"):
                await client.put_bytes(path, b"mine", op_id=wrong)

    World(1).run(scenario)


def test_a_repeated_copy_needs_its_source_no_more() -> None:
    async def scenario(world: World) -> None:
        await world.found(THREE)
        client = await world.client("a")
        await client.put_bytes("/from", b"data")
        with pytest.raises(OutcomeUnknown) as unknown:
            await Operations(LossyAccess(client._access, world.node("b").node_id)).copy("/from", "/to")
        await client.remove("/from")
        await client.copy("/from", "/to", op_id=unknown.value.op_id)
        assert await contents(client) == {"to": b"data"}

    World(1).run(scenario)


# -- copy and move -----------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_move_that_dies_half_way_leaves_one_name_or_both_and_is_finished_by_the_next(seed: int) -> None:
    choice = Random(seed)
    data = choice.randbytes(300 * KIB)

    async def scenario(world: World) -> None:
        await world.found(THREE)
        mover = await world.client("a")
        await mover.put_bytes("/from/f", data)
        world.loop.create_task(mover.move("/from/f", "/to/g"), context=context_of("client1#1"))
        await asyncio.sleep(choice.uniform(0.0, 0.1))
        world.loop.kill("client1#1")
        other = await world.client("b")
        names = {path: await other.get_bytes(path) for path in ("/from/f", "/to/g") if await is_there(other, path)}
        assert names
        assert set(names.values()) == {data}
        if "/from/f" in names:
            await other.move("/from/f", "/to/g")
        assert not await is_there(other, "/from/f")
        assert await contents(other, "/to") == {"g": data}

    World(seed).run(scenario)


async def is_there(client: Operations, path: str) -> bool:
    try:
        await client.entry(path)
    except NoSuchPath:
        return False
    return True


@pytest.mark.parametrize("seed", FEW_SEEDS)
def test_a_copy_moves_no_content_and_keeps_mode_and_time(seed: int) -> None:
    data = Random(seed).randbytes(700 * KIB)

    async def scenario(world: World) -> None:
        await world.found(NAMES)
        client = await world.client("a")
        source = BytesIO(data)

        async def read(count: int) -> bytes:
            return source.read(count)

        await client.put("/f", read, size=len(data), mode=0o600, modified_milliseconds=12345)
        await asyncio.sleep(10.0)
        chunks = [world.node(name).chunks.count for name in NAMES]
        assert (await client.copy("/f", "/deep/g")).copies == 3
        entry = await client.entry("/deep/g")
        assert (entry.size, entry.mode, entry.modified_milliseconds) == (len(data), 0o600, 12345)
        await client.remove("/f")
        assert await client.get_bytes("/deep/g") == data
        assert [world.node(name).chunks.count for name in NAMES] == chunks

    World(seed).run(scenario)


def test_nothing_is_lost_when_source_and_target_of_a_move_are_written_meanwhile() -> None:
    async def scenario(world: World) -> None:
        await world.found(THREE)
        mover, one, two = [await world.client(name) for name in THREE]
        await mover.put_bytes("/from", b"moved")
        have_begun = asyncio.Barrier(3)
        is_moved = asyncio.Event()

        async def put(client: Operations, path: str, data: bytes) -> None:
            source = BytesIO(data)

            async def read(count: int) -> bytes:
                if not source.tell():
                    await have_begun.wait()  # what it supersedes is settled by now
                    await is_moved.wait()
                return source.read(count)

            await client.put(path, read, size=len(data))

        async def move() -> None:
            await have_begun.wait()
            await mover.move("/from", "/to")
            is_moved.set()

        await asyncio.gather(put(one, "/from", b"new source"), put(two, "/to", b"new target"), move())
        found = await contents(one)
        assert found["from"] == b"new source"
        assert sorted(found.values()) == [b"moved", b"new source", b"new target"]

    World(1).run(scenario)


def test_what_has_concurrent_versions_is_copied_but_not_moved() -> None:
    async def scenario(world: World) -> None:
        await world.found(THREE)
        one, two = [await world.client(name) for name in ("a", "b")]
        both_have_begun = asyncio.Barrier(2)

        async def put(client: Operations, data: bytes) -> None:
            pieces = [data]

            async def read(count: int) -> bytes:
                if pieces:
                    await both_have_begun.wait()
                return pieces.pop() if pieces else b""

            await client.put("/f", read, size=len(data))

        await asyncio.gather(put(one, b"one"), put(two, b"two"))
        before = await contents(one)
        (conflict,) = [entry.path async for entry in one.list("/") if entry.conflict]
        for path in ("/f", conflict):
            with pytest.raises(AlreadyThere, match="concurrent"):
                await one.move(path, "/g")
        await one.copy("/f", "/winner")
        await one.copy(conflict, "/other")
        assert await contents(one) == before | {"winner": before["f"], "other": before[conflict.removeprefix("/")]}

    World(1).run(scenario)


def test_what_has_too_few_copies_is_not_copied_and_what_is_lost_is_called_so() -> None:
    data = Random(1).randbytes(100 * KIB)

    async def scenario(world: World) -> None:
        await world.found(NAMES)
        client = await world.client("a")
        await client.put_bytes("/f", data)
        (place,) = [place async for place in client.where("/f")]
        layout = client._access.layout
        for name in place.nodes:
            world.machines[name].storage.rot(place.chunk_id.hex(), Random(1))
        for name in place.nodes:  # that it is damaged is found out by who reads it
            with suppress(Exception):
                await world.node(name).chunks.get(place.chunk_id)
        with pytest.raises(DataLost):
            await client.get_bytes("/f")
        with pytest.raises(DataLost):
            await client.copy("/f", "/g")
        world.crash(place.nodes[0])
        with pytest.raises(Unavailable):
            await client.copy("/f", "/g")
        assert layout.copies_needed == 3
        assert not await is_there(client, "/g")

    World(1).run(scenario)


# -- folders -----------------------------------------------------------------


def test_a_put_into_folders_that_somebody_else_has_removed_makes_all_of_them_again() -> None:
    async def scenario(world: World) -> None:
        await world.found(THREE)
        one, two = await world.client("a"), await world.client("b")
        await one.put_bytes("/a/b/c/f", b"1")
        await two.remove("/a", recursive=True)
        await one.put_bytes("/a/b/c/f", b"2")
        assert [entry.path async for entry in two.list("/", recursive=True)] == ["/a", "/a/b", "/a/b/c", "/a/b/c/f"]
        await two.remove("/a", recursive=True)
        await one.make_directory("/a/b")
        assert [entry.path async for entry in two.list("/", recursive=True)] == ["/a", "/a/b"]

    World(1).run(scenario)


def test_a_folder_that_is_removed_while_it_is_being_marked_is_made_again() -> None:
    async def scenario(world: World) -> None:
        await world.found(THREE)
        client, other = await world.client("a"), await world.client("b")
        marked, seen, go, release = asyncio.Event(), asyncio.Event(), asyncio.Event(), asyncio.Event()
        publish = client._publish

        async def slow_to_hear(attempt: Attempt, kind: Kind, *arguments: object) -> object:
            result = await publish(attempt, kind, *arguments)
            if kind is Kind.DIRECTORY and not marked.is_set():
                marked.set()
                await release.wait()
            return result

        async def read(count: int) -> bytes:
            seen.set()
            await go.wait()
            return b""

        client._publish = slow_to_hear
        making = asyncio.create_task(client.make_directory("/d"))
        await marked.wait()
        putting = asyncio.create_task(client.put("/d/f", read, size=0))
        await seen.wait()
        await other.remove("/d")
        go.set()
        await asyncio.sleep(1.0)
        release.set()
        await asyncio.gather(making, putting)
        assert [entry.name async for entry in other.list("/")] == ["d"]

    World(1).run(scenario)


def test_a_folder_is_made_again_through_a_replica_that_has_missed_its_removal() -> None:
    async def scenario(world: World) -> None:
        await world.found(THREE)
        client = await world.client("a")
        await client.make_directory("/d")
        await asyncio.sleep(1.0)
        cut_off(world, "c", "a", "b")
        await client.remove("/d")
        removed = await client._read_row("/d")
        assert removed.heads[0].kind is Kind.TOMBSTONE
        world.lan.heal()
        replica = world.node("c")
        standing = await replica.rows.get("/d")
        assert standing is not None
        assert standing.heads[0].kind is Kind.DIRECTORY  # reconciling takes longer than a moment
        message = publication("/d", replica.layout.cfg(row_partition("/d")), OpId(bytes(16)), versions_of(removed), Kind.DIRECTORY)
        published = await world.on(world.machines["c"].host, lambda: replica.row_service.publish(message, world.loop.time() + 20.0))
        assert published.dot != standing.heads[0].dot
        assert [entry.name async for entry in client.list("/")] == ["d"]

    World(1).run(scenario)


@pytest.mark.parametrize("kind", [Kind.DIRECTORY, Kind.FILE])
def test_a_marker_that_is_dead_elsewhere_stops_nobody_who_has_seen_the_folder_removed(kind: Kind) -> None:
    """A replica commits a marker and ships it to nobody; tried again elsewhere the same operation gets another dot, which is removed."""

    async def scenario(world: World) -> None:
        await world.found(THREE)
        client = await world.client("a")
        partition = row_partition("/d")
        replica = world.node("c")
        stamp = replica.layout.cfg(partition)
        mark = publication("/d", stamp, OpId(b"m" * 16), (), Kind.DIRECTORY)
        cut_off(world, "c", "a", "b")
        with suppress(Refused):
            await world.on(world.machines["c"].host, lambda: replica.row_service.publish(mark, world.loop.time() + 3.0))
        node = world.node("a")
        await world.on(world.machines["a"].host, lambda: node.row_service.publish(mark, world.loop.time() + 20.0))
        await client.remove("/d")
        removed = await client._read_row("/d")
        world.lan.heal()
        row = await replica.rows.get("/d")
        assert row is not None
        assert winner(row) is not None
        again = publication("/d", stamp, OpId(bytes(16)), versions_of(removed), kind)
        at_c = world.on(world.machines["c"].host, lambda: replica.row_service.publish(again, world.loop.time() + 20.0))
        if kind is Kind.FILE:
            with pytest.raises(Refused) as caught:
                await at_c
            assert caught.value.code is ErrorCode.UNAVAILABLE  # whoever writes tries another one
            await client.put_bytes("/d", b"x")
        else:
            await at_c
        assert [entry.name async for entry in client.list("/")] == ["d"]

    World(1).run(scenario)


def test_a_folder_whose_files_somebody_else_removes_meanwhile_is_removed_all_the_same() -> None:
    async def scenario(world: World) -> None:
        await world.found(THREE)
        one, two = await world.client("a"), await world.client("b")
        for number in range(10, 22):
            await one.put_bytes(f"/d/{number}", b"x")

        async def remove_from_the_end() -> int:
            return sum([await two.remove(f"/d/{number}") for number in range(21, 15, -1)])

        assert await asyncio.gather(one.remove("/d", recursive=True), remove_from_the_end()) == [7, 6]
        assert [entry async for entry in one.list("/")] == []

    World(1).run(scenario)


def test_what_was_done_in_part_is_not_called_unchanged() -> None:
    async def scenario(world: World) -> None:
        await world.found(THREE)
        client = await world.client("a")
        for path in ("/d/1", "/d/2", "/from"):
            await client.put_bytes(path, b"x")

        class Unreached(LossyAccess):
            """No write but the first `spared` of its kind finds anybody."""

            spared = 0

            async def request(self, node_id: NodeId, message: Request, payload: Buffer = b"", *, timeout_seconds: float) -> Reply:
                if isinstance(message, RowPublish) and message.kind is Kind.TOMBSTONE:
                    self.spared -= 1
                    if self.spared < 0:
                        raise Unreachable("nobody is there")
                return await self._session.request(node_id, message, payload, timeout_seconds=timeout_seconds)

        access = Unreached(client._access, None)
        operations = Operations(access)
        with pytest.raises(Unavailable, match="nothing was changed"):
            await operations.remove("/d", recursive=True)
        access.spared = 1
        with pytest.raises(OutcomeUnknown, match="something is removed"):
            await operations.remove("/d", recursive=True)
        access.spared = 0
        with pytest.raises(OutcomeUnknown, match="may be there as well"):
            await operations.move("/from", "/to")
        assert [entry.path async for entry in client.list("/", recursive=True)] == ["/d", "/d/2", "/from", "/to"]
        await client.move("/from", "/to")
        assert await client.remove("/d", recursive=True) == 2
        assert await contents(client) == {"to": b"x"}

    World(1).run(scenario)


# -- streams -----------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_reader_returns_the_right_bytes_wherever_it_is_sent_and_whenever_it_is_interrupted(seed: int) -> None:
    choice = Random(seed)
    data = choice.randbytes(900 * KIB + seed)

    async def scenario(world: World) -> None:
        await world.found(["a"])
        client = await world.client("a")
        await client.put_bytes("/f", data)
        reader = RemoteReader(await client.content("/f"))
        position = 0
        for _ in range(60):
            match choice.randrange(5):
                case 0:
                    position = choice.randrange(len(data) + 2000)
                    reader.seek(position)
                case 1:
                    offset = choice.randrange(len(data))
                    assert await reader.read_at(offset, 5000) == data[offset : offset + 5000]
                case 2:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(choice.uniform(0.0, 0.01)):
                            count = choice.randrange(400 * KIB)
                            assert await reader.read(count) == data[position : position + count]
                            position = min(position + count, max(position, len(data)))
                case _:
                    count = choice.randrange(100 * KIB)
                    assert await reader.read(count) == data[position : position + count]
                    position = min(position + count, max(position, len(data)))
            assert reader.tell() == position
        assert await reader.read() == data[position:]
        await reader.close()
        await asyncio.sleep(1.0)  # what was fetched ahead in vain ends

    World(seed).run(scenario)


def test_small_reads_fetch_no_chunk_twice_and_few_ahead() -> None:
    data = Random(1).randbytes(4000 * KIB)

    async def scenario(world: World) -> None:
        await world.found(["a"])
        client = await world.client("a")
        await client.put_bytes("/f", data)
        fetched: list[ChunkId] = []

        class CountingAccess(LossyAccess):
            async def request(self, node_id: NodeId, message: Request, payload: Buffer = b"", *, timeout_seconds: float) -> Reply:
                if isinstance(message, ChunkGet):
                    fetched.append(message.chunk_id)
                return await self._session.request(node_id, message, payload, timeout_seconds=timeout_seconds)

        operations = Operations(CountingAccess(client._access, None))
        chunks = (await client.stat("/f")).chunks
        assert await collected(RemoteReader(await operations.content("/f")), 30 * KIB) == data
        assert len(fetched) == len(set(fetched)) == chunks
        fetched.clear()
        async with RemoteReader(await operations.content("/f")) as reader:
            for offset in range(1000 * KIB, 1200 * KIB, 7 * KIB):
                reader.seek(offset)
                assert await reader.read(100) + await reader.read(5000) == data[offset : offset + 5100]
        assert len(fetched) <= 3 < chunks

    World(1).run(scenario)


def test_readers_that_pause_or_are_dropped_keep_nobody_from_reading() -> None:
    data = Random(1).randbytes(6 * 1024 * KIB)

    async def read_into(reader: RemoteReader) -> bytes:
        """Read on to where it is fetched ahead."""
        return await reader.read(READ_BYTES - 10) + await reader.read(10)

    async def scenario(world: World) -> None:
        await world.found(["a"])
        client = await world.client("a")
        await client.put_bytes("/f", data)
        for _ in range(2):
            for _ in range(4):
                async with RemoteReader(await client.content("/f")) as dropped:
                    assert await read_into(dropped) == data[:READ_BYTES]
        paused = [RemoteReader(await client.content("/f")) for _ in range(5)]
        for reader in paused:
            assert await read_into(reader) == data[:READ_BYTES]
        await asyncio.sleep(1.0)
        assert await client.get_bytes("/f") == data
        for reader in paused:
            assert await reader.read() == data[READ_BYTES:]

    World(1).run(scenario)


def test_a_reader_that_is_closed_during_a_read_says_so_and_one_after_an_outage_reads_on() -> None:
    data = Random(1).randbytes(2000 * KIB)

    async def scenario(world: World) -> None:
        await world.found(["a"])
        client = await world.client("a")
        await client.put_bytes("/f", data)
        reader = RemoteReader(await client.content("/f"))
        assert await reader.read(1000 * KIB) == data[: 1000 * KIB]
        cut_off(world, "a", "client1")
        with pytest.raises(Unavailable):
            await reader.read()
        world.lan.heal()
        assert await reader.read(1000) == data[1000 * KIB : 1000 * KIB + 1000]
        await reader.close()
        reader = RemoteReader(await client.content("/f"))
        assert await reader.read(1000 * KIB) == data[: 1000 * KIB]
        cut_off(world, "a", "client1")
        reading = asyncio.get_running_loop().create_task(reader.read())
        await asyncio.sleep(0.1)
        await reader.close()
        with pytest.raises(ValueError, match="closed"):
            await reading
        for use in (reader.read(1), reader.read_at(0, 1)):
            with pytest.raises(ValueError, match="closed"):
                await use

    World(1).run(scenario)


def test_what_is_written_appears_when_the_writer_is_closed_and_not_if_it_is_aborted() -> None:
    data = Random(1).randbytes(900 * KIB)

    async def scenario(world: World) -> None:
        await world.found(THREE)
        client, reader = await world.client("a"), await world.client("b")
        await client.put_bytes("/f", b"before")
        writer = RemoteWriter(client, "/f", None)
        with suppress(KeyError):
            async with writer:
                await writer.write(data)
                raise KeyError
        with pytest.raises(ValueError, match="closed"):
            await writer.write(b"more")
        with pytest.raises(ValueError, match="given up"):
            await writer.close()
        assert await contents(reader) == {"f": b"before"}
        async with RemoteWriter(client, "/f", None) as writer:
            for begin in range(0, len(data), 50 * KIB):
                assert await writer.write(data[begin : begin + 50 * KIB]) > 0
            assert await contents(reader) == {"f": b"before"}
        assert (await writer.close()).size == len(data)
        assert await contents(reader) == {"f": data}

    World(1).run(scenario)


def test_a_writer_says_that_its_put_has_failed_as_soon_as_it_has() -> None:
    async def scenario(world: World) -> None:
        await world.found(THREE)
        client = await world.client("a")
        await client.put_bytes("/file", b"x")
        writer = RemoteWriter(client, "/file/below", None)

        async def write_on() -> None:
            while True:
                await writer.write(bytes(100 * KIB))

        with pytest.raises(AlreadyThere):
            await write_on()
        with pytest.raises(AlreadyThere):
            await writer.close()

    World(1).run(scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_put_or_get_that_is_cancelled_at_any_moment_is_whole_or_absent_and_leaves_nothing_open(seed: int) -> None:
    choice = Random(seed)
    old, new = choice.randbytes(300 * KIB), choice.randbytes(500 * KIB)

    async def scenario(world: World) -> None:
        await world.found(THREE)
        client = await world.client("a")
        await client.put_bytes("/f", old)
        for _ in range(6):
            task = asyncio.get_running_loop().create_task(client.put_bytes("/f", new) if choice.random() < 0.5 else client.get_bytes("/f"))
            await asyncio.sleep(choice.uniform(0.0, 0.05))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await client.get_bytes("/f") in (old, new)
        gc.collect()
        assert (await client.put_bytes("/f", new)).copies >= 2
        assert await client.get_bytes("/f") == new

    World(seed).run(scenario)


# -- errors ------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_to_the_cluster_a_user_sees_typed_errors_of_one_line_only(seed: int) -> None:
    choice = Random(seed)

    async def scenario(world: World) -> None:
        await world.found(THREE)
        client = await world.client(*THREE)
        paths = ("/f", "/d/f", "/d/e/g", "/d", "/f/below", "/d/../f", "", "/", "/\ud800", "/" + "x" * 300, "relative")

        def some() -> Awaitable[object]:
            path, other = choice.choice(paths), choice.choice(paths)
            data = choice.randbytes(choice.choice([10, 200 * KIB]))
            works: list[Callable[[], Awaitable[object]]] = [
                lambda: client.put_bytes(path, data),
                lambda: client.put_bytes(path, data),
                lambda: client.get_bytes(path),
                lambda: client.entry(path),
                lambda: client.stat(path),
                lambda: client.copy(path, other),
                lambda: client.move(path, other),
                lambda: client.remove(path, recursive=choice.random() < 0.5),
                lambda: client.make_directory(path),
                lambda: listed(path),
                client.status,
            ]
            return choice.choice(works)()

        async def listed(path: str) -> list[object]:
            return [entry async for entry in client.list(path, recursive=True)] + [place async for place in client.where(path)]

        async def user() -> None:
            for _ in range(25):
                result = await outcome(some())
                assert not isinstance(result, ShoalError) or (str(result) and "\n" not in str(result)), result

        async def trouble() -> None:
            while True:
                await asyncio.sleep(choice.uniform(0.0, 2.0))
                name = choice.choice(THREE)
                match choice.randrange(3):
                    case 0 if world.machines[name].node:
                        world.crash(name)
                        await asyncio.sleep(choice.uniform(0.0, 5.0))
                        await world.restart(name)
                    case 1:
                        cut_off(world, name, *(other for other in (*THREE, "client1") if other != name))
                        await asyncio.sleep(choice.uniform(0.0, 12.0))
                        world.lan.heal()
                    case _:
                        cut_off(world, "client1", *THREE)
                        await asyncio.sleep(choice.uniform(0.0, 40.0))
                        world.lan.heal()

        troubling = asyncio.get_running_loop().create_task(trouble())
        await asyncio.gather(*(user() for _ in range(4)))
        troubling.cancel()
        gc.collect()

    World(seed).run(scenario, seconds_max=6000.0)


def test_a_client_that_is_closed_ends_what_is_under_way_and_says_so() -> None:
    async def scenario(world: World) -> None:
        await world.found(THREE)
        client = await world.client("a")
        assert isinstance(client._access, Session)
        await client.put_bytes("/f", bytes(900 * KIB))
        loop = asyncio.get_running_loop()
        works = [client.put_bytes("/g", bytes(900 * KIB)), client.get_bytes("/f"), client.remove("/f")]
        tasks = [loop.create_task(outcome(work)) for work in works]
        await asyncio.sleep(0.004)
        closed_at = loop.time()
        await client._access.close()
        results = await asyncio.gather(*tasks)
        assert all(isinstance(result, ShoalError) for result in results), results
        with pytest.raises(WrongUsage, match="closed"):
            await client.get_bytes("/f")
        assert loop.time() - closed_at < NOTICED_SECONDS

    World(1).run(scenario)
