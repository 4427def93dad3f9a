"""Disks that lie, fail or forget, in a cluster of five: what is damaged is never served, never counted, and made whole again."""

import asyncio
import os
from random import Random

import pytest

from peer.errors import RequestFailed, ShoalError, StorageFailed
from peer.files.operations import Operations
from peer.node import Node
from protocol import limits
from protocol.errors import ErrorCode
from protocol.manifest import KIB
from protocol.messages import RowFetch, RowIs
from protocol.paths import row_partition
from sims.formed import switch_on
from sims.scenarios._common import again
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
def test_a_node_that_lost_what_it_promised_returns_as_another_and_votes_for_nothing_it_forgot(seed: int) -> None:
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
        world.machines[victim].storage.damage("sys")
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


# -- rows that are lost --------------------------------------------------------


async def formed(world: World) -> Operations:
    switch_on(world, NAMES)
    await asyncio.gather(*(world.start(name) for name in NAMES))
    await world.members(5)
    return await world.client("a")


async def lose_rows(world: World, name: str) -> Node:
    """Have a node begin again without its rows."""
    node_id = world.node(name).node_id
    world.crash(name)
    world.machines[name].storage.damage("ns")
    node = await world.start(name)
    assert node.node_id == node_id
    assert node.rows.count == 0
    return node


async def until_recovered(*nodes: Node, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while any(node.system.lost_at for node in nodes):
            await asyncio.sleep(0.05)


async def vote(world: World, name: str, path: str) -> RowIs | ErrorCode:
    """Ask one node for its vote on a row."""
    session = await world.session(f"asker{len(world.clients)}#1", name)
    world.clients.append("")
    layout, partition = world.node(name).layout, row_partition(path)
    request = RowFetch(2000, partition, layout.cfg(partition), path, True)
    try:
        reply = await session.request(world.node(name).node_id, request, timeout_seconds=2.0)
    except RequestFailed as failed:
        return failed.code
    assert isinstance(reply.message, RowIs)
    return reply.message


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_that_two_machines_lose_one_after_another_are_fetched_again_under_the_same_names(seed: int) -> None:
    choice = Random(seed)
    data = choice.randbytes(300 * KIB)
    victims = choice.sample(NAMES, 2)

    async def scenario(world: World) -> None:
        client = await formed(world)
        await client.put_bytes("/d/f", data)
        for victim in victims:
            await again(lambda: client.put_bytes("/d/g", data[::-1]))
            chunks = world.node(victim).chunks.count
            node = await lose_rows(world, victim)
            await until_recovered(node)
            assert node.rows.count >= 3
            assert node.chunks.count >= chunks
        bystander = next(name for name in NAMES if name not in victims)
        world.crash(bystander, silent=True)  # every quorum counts one of the two at least
        for victim in victims:
            client = await world.client(victim)
            assert await again(lambda client=client: client.get_bytes("/d/f")) == data
            assert await again(lambda client=client: client.get_bytes("/d/g")) == data[::-1]
            await again(lambda client=client, victim=victim: client.put_bytes(f"/by-{victim}", data))

    World(seed).run(scenario)


def test_who_has_lost_its_rows_votes_on_nothing_while_it_cannot_fetch_them_and_says_so() -> None:
    async def scenario(world: World) -> None:
        client = await formed(world)
        await client.put_bytes("/f", b"one")
        for name in ("c", "d"):
            world.crash(name)
        await again(lambda: client.put_bytes("/f", b"two"))  # on a, b and e: all of them are needed
        node = await lose_rows(world, "e")
        await asyncio.sleep(10.0)
        assert await vote(world, "e", "/f") is ErrorCode.UNAVAILABLE
        with pytest.raises(ShoalError):
            await client.get_bytes("/f")
        seen = {member.name: member for member in (await client.status()).members}
        assert seen["e"].state == "recovering"
        assert seen["e"].status is not None
        assert seen["e"].status.lost_partitions == limits.PARTITIONS
        await world.start("c")
        await until_recovered(node, seconds=30.0)
        assert await again(lambda: client.get_bytes("/f")) == b"two"
        assert {member.state for member in (await client.status()).members if member.name != "d"} == {"alive"}

    World(1).run(scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_that_are_lost_while_partitions_move_or_again_while_they_are_fetched_are_there_at_the_end(seed: int) -> None:
    choice = Random(seed)
    victim = choice.choice(NAMES[1:])

    async def scenario(world: World) -> None:
        client = await formed(world)
        for number in range(20):
            await client.put_bytes(f"/{number}", b"%d" % number)
        await world.start("f")
        while not world.node("a").layout.is_joint:
            await asyncio.sleep(0.001)
        for _ in range(3):
            await asyncio.sleep(choice.uniform(0.0, 0.3))
            node = await lose_rows(world, victim)
        await until_recovered(node, seconds=90.0)
        await world.members(6)
        assert world.node("f").node_id in world.node("a").layout.members
        client = await world.client(victim)
        for number in range(20):
            assert await again(lambda number=number: client.get_bytes(f"/{number}")) == b"%d" % number

    World(seed).run(scenario)


@pytest.mark.parametrize("name", ["a", "b"])
def test_of_two_machines_one_fetches_from_the_other_what_it_has_lost(name: str) -> None:
    async def scenario(world: World) -> None:
        await world.found("ab")
        client = await world.client("a")
        await client.put_bytes("/f", b"one")
        await until_recovered(await lose_rows(world, name))
        assert await again(lambda: client.get_bytes("/f")) == b"one"
        await again(lambda: client.put_bytes("/f", b"two"))

    World(3).run(scenario)
