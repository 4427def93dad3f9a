"""Replicas bring their rows together by themselves: nobody reads here after the fault. What is compared is what lies on the disks."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from peer.care.reconcile import Reconcile
from peer.node import Node
from peer.seams import Delete
from peer.store.rows import _key
from protocol.codec import encode_header
from protocol.hashing import plain_hash
from protocol.identity import NodeId, OpId
from protocol.manifest import inline_content
from protocol.messages import BucketsGet, DigestsGet, RowMerge, RowsCompare, RowsDiffer
from protocol.paths import row_partition
from protocol.versions import Dot, Kind, Row, Version, empty_row, published
from sims.formed import switch_on
from sims.oracles.disks import is_rotten, rows_of
from sims.scenarios._common import NAMES, again
from sims.world import World

THREE = NAMES[:3]
FOLDER = "/many"


def row_of(number: int, counter: int = 1, folder: str = FOLDER) -> Row:
    """Return a row that some coordinator has written."""
    path = f"{folder}/{number:05}"
    op_id = OpId(plain_hash(f"{path} {counter}".encode(), 16))
    dot = Dot(NodeId(plain_hash(b"a coordinator", 16)), counter)
    return published(empty_row(path), Version(dot, (), 1 << 16, op_id, Kind.FILE, 4, 0o644, 0, "ada", inline_content(b"text")))


def on_disk(world: World, name: str) -> dict[bytes, bytes]:
    return {key: value for key, value in world.machines[name].storage.databases["ns"].values.items() if key.startswith(b"r")}


def is_one(world: World, names: tuple[str, ...]) -> bool:
    first, *others = (on_disk(world, name) for name in names)
    return all(other == first for other in others) and not world.machines[names[0]].storage.databases["ns"].rotten


async def until_one(world: World, names: tuple[str, ...], seconds: float) -> None:
    """Wait until all disks have the same rows, none of them damaged."""
    try:
        async with asyncio.timeout(seconds):
            while not is_one(world, names):
                await asyncio.sleep(0.25)
    except TimeoutError:
        rows = {name: len(on_disk(world, name)) for name in names}
        raise AssertionError(f"after {seconds} s the disks still differ: {rows}") from None


async def formed(world: World, names: tuple[str, ...]) -> None:
    """Switch on machines that have been a cluster before."""
    switch_on(world, names)
    await asyncio.gather(*(world.start(name) for name in names))
    await world.members(len(names))


async def give(world: World, name: str, rows: list[Row]) -> None:
    """Let a machine have rows of which the others may know nothing."""
    await world.on(world.machines[name].host, lambda: world.node(name).rows.merge(rows))


def of_id(world: World, highest: bool) -> str:
    choose = max if highest else min
    return choose(THREE, key=lambda name: world.node(name).node_id)


class Heard:
    """What nodes have answered each other about digests and rows, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.messages: list[Any] = []
        self.bytes = 0
        original = Node._serve

        async def serve(node: Node, peer: Any, request: Any, payload: Any, deadline: float) -> Any:
            answer = await original(node, peer, request, payload, deadline)
            if isinstance(request, DigestsGet | BucketsGet | RowsCompare | RowMerge):
                self.messages += [request, answer]
                self.bytes += len(encode_header(request, 1)) + len(encode_header(answer, 1))
            return answer

        monkeypatch.setattr(Node, "_serve", serve)

    @property
    def rows(self) -> list[str]:
        """Paths of the rows that travelled."""
        return [row.path for message in self.messages if isinstance(message, RowMerge | RowsDiffer) for row in message.rows]


# -- who was away -------------------------------------------------------------


async def away_and_back(world: World, highest: bool) -> None:
    """One machine misses writes of all kinds, comes back, and has them a moment later."""
    await formed(world, THREE)
    victim = of_id(world, highest)
    client = await world.client(*(name for name in THREE if name != victim))
    for number in range(6):
        await client.put_bytes(f"/d{number % 3}/{number}", b"before")
    world.crash(victim)
    await again(lambda: client.put_bytes("/d0/0", b"overwritten"))
    await again(lambda: client.remove("/d1/1"))
    for number in range(6, 16):
        await again(lambda: client.put_bytes(f"/d{number % 4}/{number}", b"new"))  # noqa: B023  # awaited in this round
    await world.restart(victim)
    await until_one(world, THREE, 6.0)
    assert len(on_disk(world, victim)) == 20  # files, the removed one, and four folders


@pytest.mark.parametrize("highest", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_a_node_that_was_away_gets_what_it_missed_and_nobody_reads(seed: int, highest: bool) -> None:
    World(seed).run(lambda world: away_and_back(world, highest))


async def only_here(self: Reconcile, *_: Any) -> None:
    """Push nothing, or pull nothing."""


async def removed_here(self: Reconcile, node: Any, partition: int, stamp: int, paths: Any, theirs: Any) -> None:
    """Take what the other side lacks for removed."""
    for path in paths:
        if path not in theirs:
            await self._rows._kv.commit([Delete(_key(path))])


@pytest.mark.parametrize(("method", "mutant"), [("_give", only_here), ("_take", only_here), ("_give", removed_here)])
def test_a_reconciliation_that_only_pulls_or_only_pushes_or_infers_removals_is_caught(
    method: str, mutant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reconcile, method, mutant)
    with pytest.raises(AssertionError):
        in_both_roles(away_and_back)


def in_both_roles(story: Callable[[World, bool], Coroutine[Any, Any, None]]) -> None:
    for highest in (True, False):
        World(0).run(lambda world, highest=highest: story(world, highest))


@pytest.mark.parametrize("seed", range(1))
def test_two_sides_of_a_split_have_the_same_when_it_ends(seed: int) -> None:
    async def story(world: World) -> None:
        await formed(world, NAMES)
        client = await world.client("a")
        await client.put_bytes("/d/first", b"1")
        for name in ("d", "e"):
            for other in ("a", "b", "c"):
                world.lan.cut(name, other)
                world.lan.cut(other, name)
        await asyncio.sleep(6.0)
        for number in range(10):
            await again(lambda: client.put_bytes(f"/d/{number}", b"2"))  # noqa: B023  # awaited in this round
        await give(world, "e", [row_of(1)])  # what a coordinator has committed and could bring to nobody
        world.lan.heal()
        await until_one(world, NAMES, 15.0)

    World(seed).run(story)


# -- how much -----------------------------------------------------------------


def test_of_two_thousand_rows_only_the_three_that_differ_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(monkeypatch)

    async def story(world: World) -> None:
        await formed(world, THREE)
        rows = [row_of(number) for number in range(2000)]
        for name in THREE:
            await give(world, name, rows)
        await give(world, "b", [row_of(2001), row_of(7, 2)])
        await give(world, "c", [row_of(2002)])
        heard.messages.clear()
        await until_one(world, THREE, 60.0)
        await asyncio.sleep(60.0)
        assert Counter(heard.rows).keys() == {row.path for row in (row_of(7), row_of(2001), row_of(2002))}
        assert len(heard.rows) <= 3 * 2 * 2  # each to two machines, and once more where it is already on its way
        marks = [len(message.rows) for message in heard.messages if isinstance(message, RowsCompare)]
        assert 0 < max(marks) < 2000 * 5 / 64  # the rows of the differing buckets, not of the partition

    World(3).run(story)


def test_a_quiet_cluster_exchanges_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(monkeypatch)

    async def story(world: World) -> None:
        await formed(world, NAMES)
        for name in NAMES:
            await give(world, name, [row_of(number, folder=f"/d{number % 20}") for number in range(400)])
        await asyncio.sleep(30.0)
        heard.messages.clear()
        heard.bytes = 0
        await asyncio.sleep(200.0)
        assert {type(message) for message in heard.messages[::2]} == {DigestsGet}
        assert 80 <= len(heard.messages) / 2 <= 5 * 20 + 5
        assert heard.bytes / 200 / 5 < 150  # bytes per second and node

    World(1).run(story)


def test_every_pair_meets_within_the_time_that_one_round_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[frozenset[NodeId]] = []
    original = Reconcile._exchange

    async def exchange(self: Reconcile, node: NodeId, *, at_once: bool) -> None:
        met.append(frozenset((self._access.node_id, node)))
        await original(self, node, at_once=at_once)

    monkeypatch.setattr(Reconcile, "_exchange", exchange)

    async def story(world: World) -> None:
        await formed(world, NAMES)
        await asyncio.sleep(20.0)
        met.clear()
        await asyncio.sleep(40.0)
        assert len(set(met)) == 10

    World(2).run(story)


def test_a_folder_that_is_written_to_all_the_time_is_not_read_through_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(monkeypatch)

    async def story(world: World) -> None:
        await formed(world, THREE)
        await asyncio.sleep(15.0)
        heard.messages.clear()
        for number in range(60):  # each row for a moment on one machine only
            for name in THREE:
                await give(world, name, [row_of(number)])
                await asyncio.sleep(0.1)
        assert sum(isinstance(message, DigestsGet) for message in heard.messages) > 4
        assert not any(isinstance(message, RowsCompare) for message in heard.messages)
        await until_one(world, THREE, 1.0)

    World(4).run(story)


@pytest.mark.parametrize("short_page", [False, True])
def test_a_partition_that_one_side_lacks_entirely_comes_page_by_page(short_page: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(monkeypatch)

    async def story(world: World) -> None:
        await formed(world, THREE)
        victim = of_id(world, highest=True)
        if short_page:
            for name in THREE:
                monkeypatch.setattr(world.node(name).digest_service, "_faults", _Always())
        world.crash(victim)
        count = 40 if short_page else 1500
        for name in THREE:
            if name != victim:
                await give(world, name, [row_of(number) for number in range(count)])
        await world.restart(victim)
        await until_one(world, THREE, 30.0)
        assert len(on_disk(world, victim)) == count
        assert max(len(message.rows) for message in heard.messages if isinstance(message, RowMerge | RowsDiffer)) <= 1000

    World(5).run(story)


class _Always:
    def sometimes(self, label: str) -> bool:
        return True


# -- meanwhile ----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_rows_that_are_written_meanwhile_are_neither_lost_nor_torn(seed: int) -> None:
    async def story(world: World) -> None:
        await formed(world, THREE)
        victim = of_id(world, highest=bool(seed % 2))
        client = await world.client(*(name for name in THREE if name != victim))
        world.crash(victim)
        for name in THREE:
            if name != victim:
                await give(world, name, [row_of(number) for number in range(900)])
        await world.restart(victim)
        for number in range(40):  # some of these rows are on their way
            await again(lambda: client.put_bytes(f"{FOLDER}/{number * 22:05}", b"while it went on"))  # noqa: B023  # awaited in this round
        await until_one(world, THREE, 30.0)
        kept = [row for _, row in rows_of(world.machines[victim]) if row is not None and row.path.startswith(FOLDER + "/")]
        assert len(kept) == 900
        assert sum(head.writer != "ada" for row in kept for head in row.heads) == 40

    World(seed).run(story)


@pytest.mark.parametrize("seed", range(3))
def test_a_crash_at_any_moment_costs_nothing_but_time(seed: int) -> None:
    choice = Random(seed)

    async def story(world: World) -> None:
        await formed(world, THREE)
        rows = [row_of(number) for number in range(600)]
        for index, name in enumerate(THREE):
            await give(world, name, rows[index * 200 : index * 200 + 200])
        for _ in range(4):
            name = choice.choice(THREE)
            world.crash(name)
            await world.restart(name)
            await asyncio.sleep(choice.uniform(0.9, 1.6))  # in the middle of the comparison that this has caused
        await until_one(world, THREE, 90.0)
        assert len(on_disk(world, "a")) == 600

    World(seed).run(story)


@pytest.mark.parametrize("seed", range(1))
def test_a_node_that_is_about_to_join_gets_everything_and_is_no_source_before(seed: int) -> None:
    async def story(world: World) -> None:
        await formed(world, THREE)
        client = await world.client("a")
        for number in range(20):
            await client.put_bytes(f"/d{number % 4}/{number}", b"text")
        await world.start("d")
        while not world.node("d").layouts.version:
            await asyncio.sleep(0.1)
        bitmap = world.node("d").digest_service.comparable(world.node("a").node_id)
        assert sum(bitmap) == 0 or world.node("d").sync.unsynced() == []
        await world.members(4)
        await until_one(world, (*THREE, "d"), 60.0)

    World(seed).run(story)


# -- damage -------------------------------------------------------------------


@pytest.mark.parametrize("where", ["the one that asks", "the one that answers"])
def test_a_damaged_row_is_found_on_the_way_and_healed_and_keeps_no_other_back(where: str) -> None:
    async def story(world: World) -> None:
        await formed(world, THREE)
        rows = [row_of(number) for number in range(50)]
        for name in THREE:
            await give(world, name, rows)
        victim = of_id(world, highest=where == "the one that answers")
        world.crash(victim)
        for name in THREE:
            if name != victim:
                await give(world, name, [row_of(number, 2) for number in range(50)])
        storage = world.machines[victim].storage
        storage.rot_row(rows[20].path, Random(1))
        await world.restart(victim)
        await until_one(world, THREE, 20.0)
        assert not any(is_rotten(world.machines[victim], key) for key in on_disk(world, victim))
        (partition,) = {row_partition(row.path) for row in rows}
        await asyncio.sleep(11.0)
        digests = [world.node(name).rows.digests.of(partition) for name in THREE]
        assert len({digest.total if digest is not None else None for digest in digests}) == 1

    World(6).run(story)


def test_a_row_that_rots_is_found_and_healed_though_nothing_differs_and_nobody_reads() -> None:
    async def story(world: World) -> None:
        await formed(world, THREE)
        rows = [row_of(number, folder=f"/d{number % 4}") for number in range(40)]
        for name in THREE:
            await give(world, name, rows)
        world.machines["b"].storage.rot_row(rows[20].path, Random(1))
        await until_one(world, THREE, 60.0)  # a disk that is damaged is not the same
        assert not world.machines["b"].storage.databases["ns"].rotten

    World(7).run(story)
