"""Disks that lie, fail or forget, in a cluster of five: what is damaged is never served, never counted, and made whole again."""

import asyncio
import os
from random import Random

import pytest

from peer.errors import ShoalError, StorageFailed
from protocol.manifest import KIB
from protocol.paths import row_partition
from sims.world import World

NAMES = ("a", "b", "c", "d", "e")
SEEDS = range(int(os.environ.get("SHOAL_SEEDS", "3")) // 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_row_that_rotted_is_no_vote_and_is_healed_from_the_others(seed: int) -> None:
    choice = Random(seed)

    async def scenario(world: World) -> None:
        await world.found(NAMES)
        client = await world.client("a")
        await client.put_bytes("/f", b"one")
        layout = world.node("a").layout
        victim = choice.choice([layout.members[node_id].name for node_id in layout.replicas(row_partition("/f"))])
        node = world.node(victim)
        await asyncio.sleep(1.0)  # the acknowledgement needed three of five
        before = await node.rows.get("/f")
        world.machines[victim].storage.rot_row("/f", choice)
        assert await client.get_bytes("/f") == b"one"
        await client.put_bytes("/f", b"two")
        assert await (await world.client(victim)).get_bytes("/f") == b"two"
        await asyncio.sleep(20.0)
        healed = await node.rows.get("/f")
        assert healed is not None
        assert healed != before
        assert healed.heads[0].content.inline == b"two"

    World(seed).run(scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_failed_sync_stops_the_node_and_the_put_goes_on_without_it(seed: int) -> None:
    choice = Random(seed)
    data = choice.randbytes(900 * KIB)
    victim, other = choice.sample(NAMES, 2)

    async def scenario(world: World) -> None:
        await world.found(NAMES)
        client = await world.client(other)
        node = world.node(victim)
        world.machines[victim].storage.fail_next_sync()
        written = 0
        while not node.failed.done():  # sooner or later it is a home
            assert written < 10
            await client.put_bytes(f"/{written}", data[written:])
            written += 1
        assert isinstance(node.failed.exception(), StorageFailed)
        world.crash(victim)
        for index in range(written):
            assert await client.get_bytes(f"/{index}") == data[index:]
        async for place in client.where(f"/{written - 1}"):
            assert len(place.nodes) >= 3
            assert victim not in place.nodes

    World(seed).run(scenario)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("database", ["sys", "ns"])
def test_a_node_that_lost_a_database_returns_as_another_and_votes_for_nothing_it_forgot(seed: int, database: str) -> None:
    choice = Random(seed)
    data = choice.randbytes(300 * KIB)
    victim, other = choice.sample(NAMES[1:], 2)

    async def scenario(world: World) -> None:
        await world.found(NAMES)
        client = await world.client(other)
        await client.put_bytes("/d/f", data)
        before = world.node(victim).node_id
        chunks = world.node(victim).chunks.count
        world.crash(victim)
        world.machines[victim].storage.damage(database)
        await world.restart(victim)
        assert world.node(victim).node_id != before
        assert world.node(victim).chunks.count == chunks
        await world.members(6)
        assert await (await world.client(victim)).get_bytes("/d/f") == data
        try:
            await client.put_bytes("/d/g", data[::-1])
        except ShoalError as error:  # one dead member is no reason
            raise AssertionError from error
        assert await (await world.client(victim)).get_bytes("/d/g") == data[::-1]

    World(seed).run(scenario)
