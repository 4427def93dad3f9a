"""Disks that are put back to an earlier moment, or copied: the node gives its id up before it has promised anything under it."""

import asyncio
from random import Random

import pytest

from peer.errors import RequestFailed
from peer.node import Node
from protocol.errors import ErrorCode
from protocol.identity import NodeId
from protocol.messages import RowFetch
from protocol.paths import row_partition
from sims.formed import switch_on
from sims.scenarios._common import NAMES, again
from sims.world import World

TELL_SECONDS = 5.0
"""Everybody has probed everybody by then."""


async def formed(world: World) -> dict[str, NodeId]:
    """Switch five machines on that are a cluster already; return who they are."""
    switch_on(world, NAMES)
    await asyncio.gather(*(world.start(name) for name in NAMES))
    await world.members(len(NAMES))
    await asyncio.sleep(TELL_SECONDS)
    return {name: world.node(name).node_id for name in NAMES}


async def until_retired(world: World, name: str) -> Node:
    """Wait until the node of a machine has given its id up; start it again, and return who it is now."""
    async with asyncio.timeout(10.0):
        while world.machines[name].is_up:
            await asyncio.sleep(0.05)
    return await world.start(name)


async def put(world: World, entry: str, *paths: str) -> None:
    client = await world.client(entry)
    for path in paths:
        await client.put_bytes(path, path.encode() * 1000)


async def assert_reads_back(world: World, entry: str, *paths: str) -> None:
    client = await world.client(entry)
    for path in paths:
        assert await again(lambda path=path: client.get_bytes(path)) == path.encode() * 1000


@pytest.mark.parametrize("times_started", [0, 1, 2])
def test_a_disk_that_is_put_back_gives_its_id_up_however_often_it_was_started_since(times_started: int) -> None:
    async def scenario(world: World) -> None:
        ids = await formed(world)
        await put(world, "a", "/early")
        snapshot = world.snapshot("c")
        for _ in range(times_started):
            await world.stop("c")
            await world.restart("c")
        await put(world, "a", "/late")
        await asyncio.sleep(TELL_SECONDS)
        world.crash("c")
        world.put_back("c", snapshot)
        await world.start("c")
        node = await until_retired(world, "c")
        assert node.node_id != ids["c"]
        assert node.rows.count == 0
        assert node.chunks.count > 0
        await assert_reads_back(world, "a", "/early", "/late")
        for name in ("a", "b", "d", "e"):
            assert world.node(name).node_id == ids[name]

    World(times_started).run(scenario)


def test_of_a_machine_and_its_copy_that_run_at_once_one_id_has_one_at_most() -> None:
    async def scenario(world: World) -> None:
        ids = await formed(world)
        await put(world, "a", "/before")
        world.machine("f")
        world.put_back("f", world.snapshot("c"))
        await world.stop("c")
        await asyncio.gather(world.start("c"), world.start("f"))
        await asyncio.sleep(10.0)
        those = [machine.node for machine in world.machines.values() if machine.node is not None and machine.node.node_id == ids["c"]]
        assert len(those) <= 1
        await put(world, "a", "/after")
        await assert_reads_back(world, "b", "/before", "/after")
        for name in ("c", "f"):
            if not world.machines[name].is_up:
                assert (await world.start(name)).node_id != ids["c"]

    for seed in range(5):
        World(seed).run(scenario)


def test_an_old_copy_that_is_started_while_the_machine_runs_gives_up_and_the_machine_goes_on() -> None:
    async def scenario(world: World) -> None:
        ids = await formed(world)
        snapshot = world.snapshot("c")
        await world.stop("c")
        await world.restart("c")
        await asyncio.sleep(TELL_SECONDS)
        world.machine("f")
        world.put_back("f", snapshot)
        await world.start("f")
        assert (await until_retired(world, "f")).node_id not in ids.values()
        assert world.node("c").node_id == ids["c"]
        await put(world, "c", "/f")

    World(3).run(scenario)


def test_who_has_met_nobody_since_its_start_votes_for_nothing() -> None:
    async def scenario(world: World) -> None:
        ids = await formed(world)
        await put(world, "a", "/early")
        snapshot = world.snapshot("c")
        client = await world.session("client#1", "c", "a")
        world.crash("c")
        world.put_back("c", snapshot)
        for other in ("a", "b", "d", "e"):
            world.lan.cut("c", other)
            world.lan.cut(other, "c")
        await world.start("c")
        asked = RowFetch(2000, row_partition("/early"), 1, "/early", True)
        with pytest.raises(RequestFailed) as refused:
            await world.on("client#1", lambda: client.request(ids["c"], asked, timeout_seconds=2.0))
        assert refused.value.code is ErrorCode.UNAVAILABLE

    World(4).run(scenario)


@pytest.mark.parametrize("seed", range(3))
def test_starts_of_every_kind_give_nothing_up(seed: int) -> None:
    async def scenario(world: World) -> None:
        ids = await formed(world)
        random = Random(seed)
        for number in range(20):
            name = random.choice(NAMES)
            await put(world, next(each for each in NAMES if each != name), f"/f{number}")
            random.choice((world.kill, world.crash, lambda name: world.crash(name, silent=True)))(name)
            await asyncio.sleep(random.uniform(0.0, 2.0))
            await world.start(name)
            await asyncio.sleep(random.uniform(0.5, 3.0))
        await asyncio.sleep(TELL_SECONDS)
        assert {name: world.node(name).node_id for name in NAMES} == ids

    World(seed).run(scenario)
