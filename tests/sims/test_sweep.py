"""Chunks come to their homes by themselves: what is compared is small, what is missing is fetched by whoever lacks it, the rarest first."""

import asyncio
from collections import Counter
from random import Random
from typing import Any

import pytest

from peer.care.fetch import Fetch
from peer.config import SWEEP_SECONDS
from peer.node import Node
from peer.store.chunks import _index_row
from protocol.codec import encode_header
from protocol.hashing import plain_hash
from protocol.identity import ChunkId
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


def chunk(number: int) -> tuple[ChunkId, bytes]:
    data = Random(number).randbytes(1000)
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
        await asyncio.sleep(10 * SWEEP_SECONDS)
        assert {type(request) for request in heard.requests} == {ChunkDigestsGet}
        assert len(heard.requests) <= 10 * 3 * 2
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
        assert sum(world.node(name).sweep.owed_chunks for name in NAMES if name != away) == 1
        await world.restart(away)
        await until_home(world, number, 20.0)

    World(4).run(story)


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
            world.node(name).fetch.run = nothing  # type: ignore[method-assign]  # they stay as they are
        await world.restart("e")
        await until(SWEEP_SECONDS, lambda: len(arrived) == len(mine), "all has come")
        of_id = {chunk(number)[0]: copies[number] for number in mine}
        order = [of_id[chunk_id] for chunk_id in arrived]
        assert order == sorted(order)
        assert set(order) == {1, 2, 3}

    original = Fetch._fetch

    async def fetch(self: Fetch, chunk_id: ChunkId, node: Any) -> bool:
        has_come = await original(self, chunk_id, node)
        arrived.append(chunk_id)
        return has_come

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Fetch, "_fetch", fetch)
        World(5).run(story)


async def nothing(*_: Any) -> bool:
    return False
