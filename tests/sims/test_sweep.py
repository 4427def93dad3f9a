"""Chunks come to their homes by themselves: what is compared is small, what is missing is fetched by whoever lacks it, the rarest first."""

import asyncio
from collections import Counter, defaultdict
from random import Random
from typing import Any

import pytest

from peer.care.fetch import Fetch
from peer.care.sweep import SETTLE_SECONDS
from peer.care.throttle import Throttle
from peer.config import SWEEP_SECONDS
from peer.errors import Refused
from peer.files.chunk_service import ChunkService
from peer.node import Node
from peer.store.chunks import _index_row
from protocol.codec import encode_header
from protocol.errors import ErrorCode
from protocol.hashing import plain_hash
from protocol.identity import ChunkId, NodeId
from protocol.layout import Layout
from protocol.manifest import ChunkTag, chunk_id_of, chunk_partition
from protocol.messages import ChunkDigestsGet, ChunkGet, ChunkPut, ChunksHave, ChunksList
from sims.formed import switch_on
from sims.scenarios._common import NAMES, until
from sims.world import World

THREE = NAMES[:3]


class Heard:
    """What nodes ask each other about chunks, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: list[Any] = []
        self.bytes = 0
        original = Node._serve

        async def serve(node: Node, peer: Any, request: Any, payload: Any, deadline: float) -> Any:
            answer = await original(node, peer, request, payload, deadline)
            if isinstance(request, ChunkDigestsGet | ChunksList | ChunksHave | ChunkGet | ChunkPut):
                self.requests.append(request)
                self.bytes += len(encode_header(request, 1)) + len(encode_header(answer[0] if isinstance(answer, tuple) else answer, 1))
            return answer

        monkeypatch.setattr(Node, "_serve", serve)

    def count(self, kind: type) -> int:
        return sum(isinstance(request, kind) for request in self.requests)


LARGE = range(1000, 1100)
LARGE_BYTES = 256 * 1024
LIMIT = 2_000_000


def chunk(number: int) -> tuple[ChunkId, bytes]:
    data = Random(number).randbytes(LARGE_BYTES if number in LARGE else 1000)
    return chunk_id_of(ChunkTag.DATA, data), data


async def formed(world: World, names: tuple[str, ...]) -> None:
    switch_on(world, names)
    await asyncio.gather(*(world.start(name) for name in names))
    await world.members(len(names))


async def give(world: World, name: str, *numbers: int) -> None:
    """Let a machine have chunks of which the others know nothing."""
    for number in numbers:
        await world.on(world.machines[name].host, lambda number=number: world.node(name).chunks.put(*chunk(number)))


async def holders(world: World, number: int) -> set[str]:
    chunk_id, _ = chunk(number)
    nodes = {name: machine.node for name, machine in world.machines.items() if machine.node is not None}
    return {name for name, node in nodes.items() if (await node.chunks.holds([chunk_id]))[0]}


def homes(world: World, number: int) -> set[str]:
    layout = world.node("a").layout
    return {layout.members[home].name for home in layout.homes(chunk_partition(chunk(number)[0]))}


async def until_home(world: World, number: int, seconds: float) -> None:
    """Wait until a chunk lies at its homes and nowhere else."""
    async with asyncio.timeout(seconds):
        while await holders(world, number) != homes(world, number):
            await asyncio.sleep(0.25)


# -- how much -----------------------------------------------------------------


def test_with_twenty_thousand_chunks_in_place_a_sweep_asks_each_member_once(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(monkeypatch)
    ids = [ChunkId(bytes([ChunkTag.DATA]) + plain_hash(number.to_bytes(4, "big"))) for number in range(20_000)]
    rows = [_index_row(chunk_id, 1000) for chunk_id in ids]

    async def story(world: World) -> None:
        switch_on(world, THREE)
        for name in THREE:
            world.machine(name).storage.databases["chunk"].apply(rows)
        await asyncio.gather(*(world.start(name) for name in THREE))
        await world.members(3)
        await asyncio.sleep(3 * SWEEP_SECONDS)
        heard.requests.clear()
        heard.bytes = 0
        await asyncio.sleep(5 * SWEEP_SECONDS)
        assert {type(request) for request in heard.requests} == {ChunkDigestsGet}
        assert len(heard.requests) <= 5 * 3 * 2
        assert heard.bytes <= len(heard.requests) * 1200
        assert all(world.node(name).sweep.owed_chunks == 0 for name in THREE)
        world.crash("c")
        await asyncio.sleep(2 * SWEEP_SECONDS)
        assert sum(world.node(name).sweep.owed_chunks for name in ("a", "b")) == 20_000

    World(1).run(story, seconds_max=2000.0)


# -- what is missing ----------------------------------------------------------


def test_each_home_gets_what_it_lacks_and_what_is_in_place_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(monkeypatch)

    async def story(world: World) -> None:
        await formed(world, THREE)
        for name in THREE:
            await give(world, name, *range(100))
        await give(world, "a", 200)
        await give(world, "b", 201, 202)
        await give(world, "c", 202, 203)
        for number in range(200, 204):
            await until_home(world, number, SWEEP_SECONDS + 10.0)
        fetched = Counter(request.chunk_id for request in heard.requests if isinstance(request, ChunkGet))
        assert fetched == Counter({chunk(number)[0]: 1 if number == 202 else 2 for number in range(200, 204)})
        assert heard.count(ChunkPut) == 0

    World(2).run(story)


@pytest.mark.parametrize("damage", ["rotten", "unreadable", "missing"])
def test_a_damaged_copy_leaves_the_digest_and_comes_anew(damage: str) -> None:
    async def story(world: World) -> None:
        await formed(world, THREE)
        for name in THREE:
            await give(world, name, 1, 2)
        chunk_id, data = chunk(1)
        machine, store = world.machine("b"), world.node("b").chunks
        (path,) = [path for path in machine.storage.state.chunk_files() if path.endswith(chunk_id.hex())]
        if damage == "missing":
            await world.on(machine.host, lambda: machine.storage.disk.remove(path))
        else:
            machine.storage.state.damage(path, Random(1), unreadable=damage == "unreadable")
        before = store.digests.of(chunk_partition(chunk_id))
        with pytest.raises(Exception, match=chunk_id.hex()):
            await world.on(machine.host, lambda: store.get(chunk_id))
        assert store.digests.of(chunk_partition(chunk_id)) != before
        await until_home(world, 1, SWEEP_SECONDS + 10.0)
        assert store.digests.of(chunk_partition(chunk_id)) == before
        assert await world.on(machine.host, lambda: store.get(chunk_id)) == data

    World(3).run(story)


@pytest.mark.parametrize("seed", range(2))
def test_what_only_a_former_home_holds_comes_home_and_is_dropped_there_once_all_have_it(seed: int) -> None:
    async def story(world: World) -> None:
        await formed(world, NAMES)
        strangers = {number: min(set(NAMES) - homes(world, number)) for number in range(20)}
        for number, name in strangers.items():
            await give(world, name, number)
        for number in strangers:
            await until_home(world, number, SWEEP_SECONDS + 10.0)
        await asyncio.sleep(SWEEP_SECONDS)
        assert sum(world.node(name).sweep.owed_chunks for name in NAMES) == 0

    World(seed).run(story)


def test_a_copy_that_is_needed_elsewhere_is_kept_while_a_home_is_away() -> None:
    async def story(world: World) -> None:
        await formed(world, NAMES)
        number = next(number for number in range(100) if {"d", "e"}.isdisjoint(homes(world, number)))
        away = max(homes(world, number))
        world.crash(away)
        await asyncio.sleep(15.0)
        await give(world, "d", number)
        await asyncio.sleep(2 * SWEEP_SECONDS)
        assert await holders(world, number) == homes(world, number) - {away} | {"d"}
        assert sum(world.node(name).sweep.owed_chunks for name in NAMES if name != away) == 0  # three copies are three copies
        assert world.node("d").sweep.surplus_chunks() == 1
        await world.restart(away)
        await until_home(world, number, 20.0)

    World(4).run(story)


def test_who_is_woken_when_a_sweep_is_about_to_begin_sweeps_again_as_soon_as_after_any_other_wake() -> None:
    """What it was woken for may not be there yet in that sweep."""
    swept: list[float] = []

    async def sweep(layout: Layout) -> bool:
        swept.append(asyncio.get_running_loop().time())
        return False

    async def scenario(world: World) -> None:
        await world.found("a")
        sweeps = world.node("a").sweep
        sweeps._sweep = sweep
        await until(60.0, lambda: len(swept) == 4, "nobody sweeps")
        pause = swept[-1] - swept[-2] - SETTLE_SECONDS
        await asyncio.sleep(2 * pause + SETTLE_SECONDS / 2)
        assert len(swept) == 4
        sweeps.wake()
        await asyncio.sleep(SETTLE_SECONDS / 2 + 3 * SETTLE_SECONDS + 0.1)
        assert len(swept) == 6

    World(1).run(scenario)


def test_what_has_the_fewest_copies_comes_first() -> None:
    arrived: list[ChunkId] = []

    async def story(world: World) -> None:
        await formed(world, NAMES)
        world.crash("e")
        await asyncio.sleep(15.0)
        mine = [number for number in range(400) if "e" in homes(world, number)]
        copies = {number: 1 + index % 3 for index, number in enumerate(mine)}
        for number in mine:
            others = sorted(homes(world, number) - {"e"}) + sorted(set(NAMES) - homes(world, number))
            for name in others[: copies[number]]:
                await give(world, name, number)
        for name in NAMES[:4]:
            world.node(name).fetch.run = nothing  # they stay as they are
        await world.restart("e")
        await until(SWEEP_SECONDS, lambda: len(arrived) == len(mine), "all has come")
        of_id = {chunk(number)[0]: copies[number] for number in mine}
        order = [of_id[chunk_id] for chunk_id in arrived]
        assert order == sorted(order)
        assert set(order) == {1, 2, 3}

    original = Fetch._fetch

    async def fetch(self: Fetch, chunk_id: ChunkId, node: Any, purpose: Any) -> bool:
        has_come = await original(self, chunk_id, node, purpose)
        arrived.append(chunk_id)
        return has_come

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Fetch, "_fetch", fetch)
        World(5).run(story)


async def nothing(*_: Any) -> bool:
    return False


@pytest.mark.parametrize("count", [1, 2])
def test_a_holder_that_gives_nothing_keeps_nobody_from_fetching_from_another_one(count: int) -> None:
    async def story(world: World) -> None:
        await formed(world, THREE)
        busy, other, _ = sorted(THREE, key=lambda name: world.node(name).node_id)

        async def refuse(*_: object) -> None:
            raise Refused(ErrorCode.BUSY, "for ever")

        world.node(busy).chunk_service.get = refuse  # type: ignore[method-assign,assignment]  # a link that carries no chunk does the same
        for name in (busy, other):
            await give(world, name, *range(count))
        for number in range(count):
            await until_home(world, number, 3 * SWEEP_SECONDS)

    World(1).run(story, seconds_max=1000.0)


# -- paused and bounded -------------------------------------------------------


def test_a_pause_keeps_copies_where_they_are_but_for_those_that_are_too_few_and_outlives_a_restart() -> None:
    async def story(world: World) -> None:
        await formed(world, NAMES[:4])
        client = await world.client("a")
        assert await client.set_rebalance(paused=True) == ()
        for name in NAMES[:4]:
            world.crash(name)
            await world.restart(name)
        for number in range(60):
            for name in homes(world, number):
                await give(world, name, number)
        rare = next(number for number in range(100, 200) if "d" in homes(world, number))
        await world.start("e")  # nobody has told it of the pause
        await world.members(5)
        await asyncio.sleep(2 * SWEEP_SECONDS)
        mine = [number for number in range(60) if "e" in homes(world, number)]
        assert len(mine) > 20
        assert not [number for number in mine if "e" in await holders(world, number)]
        assert world.node("e").fetch.missing_chunks == len(mine)
        status = await client.status()
        told = {member.name: member.status.is_rebalance_paused for member in status.members if member.status is not None}
        assert told == dict.fromkeys(NAMES[:4], True) | {"e": False}
        assert sum(member.status.surplus_chunks for member in status.members if member.status is not None) == len(mine)
        assert sum(world.node(name).sweep.owed_chunks for name in NAMES) == 0
        await give(world, "d", rare)
        await until_home(world, rare, 2 * SWEEP_SECONDS)
        assert not [number for number in mine if "e" in await holders(world, number)]
        assert await client.set_rebalance(paused=False) == ()
        for number in range(60):
            await until_home(world, number, 2 * SWEEP_SECONDS)
        assert world.node("e").fetch.missing_chunks == sum(world.node(name).sweep.surplus_chunks() for name in NAMES) == 0

    World(6).run(story, seconds_max=1200.0)


def test_copies_that_all_lie_elsewhere_than_they_belong_are_not_called_missing_and_those_that_are_lost_are() -> None:
    async def story(world: World) -> None:
        await formed(world, THREE)
        client = await world.client("a")
        assert await client.set_rebalance(paused=True) == ()
        for number in range(60):
            for name in THREE:
                await give(world, name, number)
        for count, name in enumerate("defg", 4):
            await world.start(name)
            await world.members(count)
        moved = [number for number in range(60) if homes(world, number).isdisjoint(THREE)]
        assert len(moved) > 1
        await asyncio.sleep(2 * SWEEP_SECONDS)
        assert sum(machine.node.sweep.owed_chunks for machine in world.machines.values() if machine.node is not None) == 0
        for name in "defg":
            world.node(name).fetch._fetch = nothing  # they find out, and get nothing
        for name in ("b", "c"):
            await world.on(world.machines[name].host, lambda name=name: world.node(name).chunks.remove(chunk(moved[0])[0]))
        await asyncio.sleep(2 * SWEEP_SECONDS)
        assert [world.node(name).sweep.owed_chunks for name in THREE] == [0, 0, 0]
        assert sum(world.node(name).sweep.owed_chunks for name in "defg") == 1
        for name in homes(world, moved[0]):
            world.crash(name)
        await asyncio.sleep(2 * SWEEP_SECONDS)
        assert world.node("a").sweep.owed_chunks >= 1  # nobody else is there to say it

    World(7).run(story, seconds_max=1200.0)


def most_in_a_second(moves: list[tuple[float, int]]) -> int:
    return max(sum(size for at, size in moves if begin <= at < begin + 1.0) for begin, _ in moves)


def test_in_no_second_more_moves_than_the_limit_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    gone: dict[NodeId, list[tuple[float, int]]] = defaultdict(list)
    come: dict[NodeId, list[tuple[float, int]]] = defaultdict(list)
    begun: dict[Throttle, list[tuple[float, int]]] = defaultdict(list)
    take, get, fetch = Throttle.take, ChunkService.get, Fetch._fetch

    async def taking(self: Throttle, size: int, *until: float) -> bool:
        if may_begin := await take(self, size, *until):
            begun[self].append((asyncio.get_running_loop().time(), size))
        return may_begin


    async def getting(self: ChunkService, request: ChunkGet, deadline: float) -> Any:
        served = await get(self, request, deadline)
        gone[self._access.node_id].append((asyncio.get_running_loop().time(), len(served[1])))
        return served

    async def fetching(self: Fetch, chunk_id: ChunkId, node: Any, purpose: Any) -> bool:
        has_come = await fetch(self, chunk_id, node, purpose)
        come[self._access.node_id].append((asyncio.get_running_loop().time(), await self._chunks.size(chunk_id) if has_come else 0))
        return has_come

    monkeypatch.setattr(Throttle, "take", taking)
    monkeypatch.setattr(ChunkService, "get", getting)
    monkeypatch.setattr(Fetch, "_fetch", fetching)

    async def story(world: World) -> None:
        world.background_bytes_per_second = LIMIT
        await formed(world, NAMES[:4])
        await give(world, "a", *LARGE)  # three fetch from one
        for number in LARGE:
            await until_home(world, number, 200.0)
        is_not_slower_than_it_may(gone[world.node("a").node_id])
        await world.start("e")  # one fetches from four
        await world.members(5)
        for number in LARGE:
            await until_home(world, number, 200.0)
        is_not_slower_than_it_may(come[world.node("e").node_id])

    def is_not_slower_than_it_may(moves: list[tuple[float, int]]) -> None:
        moved, seconds = sum(size for _, size in moves), moves[-1][0] - moves[0][0]
        assert moved > 5 * LIMIT
        assert seconds < 1.3 * moved / LIMIT

    World(7).run(story, seconds_max=1200.0)
    assert max(map(most_in_a_second, begun.values())) <= LIMIT
    assert max(map(most_in_a_second, (*gone.values(), *come.values()))) <= LIMIT + LARGE_BYTES  # one may have been on its way
