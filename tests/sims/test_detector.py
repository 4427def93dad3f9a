"""The failure detector in real nodes: who is held dead, how soon, who is not, and what follows: advice, of which no quorum knows."""

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from peer.config import ADMIT_SECONDS
from protocol.identity import NodeId
from protocol.messages import MemberState
from sims.formed import switch_on
from sims.scenarios._common import NAMES
from sims.world import World

ALIVE, DRAINING, SUSPECT, REFUSED, DEAD, LEFT = MemberState


async def formed(world: World) -> dict[str, NodeId]:
    """Switch five machines on that are a cluster already; return who they are."""
    switch_on(world, NAMES)
    await asyncio.gather(*(world.start(name) for name in NAMES))
    await world.members(len(NAMES))
    ids = {name: world.node(name).node_id for name in NAMES}
    await until(10.0, lambda: all(held_by(world, node_id, ALIVE) == len(NAMES) for node_id in ids.values()))
    return ids


def held_by(world: World, node_id: NodeId, state: MemberState) -> int:
    """Return how many of those that run hold a node to be `state`."""
    nodes = [machine.node for machine in world.machines.values() if machine.node is not None]
    return sum(node.detector.state(node_id) is state for node in nodes)


async def until(seconds: float, is_so: Callable[[], bool]) -> float:
    """Return after how many seconds something is so."""
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    while not is_so():
        assert loop.time() < began_at + seconds
        await asyncio.sleep(0.05)
    return loop.time() - began_at


@pytest.mark.parametrize("seed", range(3))
def test_a_process_that_is_killed_is_dead_within_a_second_and_alive_when_it_is_back(seed: int) -> None:
    async def scenario(world: World) -> None:
        ids = await formed(world)
        victim = Random(seed).choice(NAMES)
        world.kill(victim)
        await until(1.0, lambda: held_by(world, ids[victim], DEAD) == 4)
        assert world.node(next(name for name in NAMES if name != victim)).detector.away_seconds(ids[victim]) < 1.0
        await world.restart(victim)
        await until(2.0, lambda: all(held_by(world, node_id, ALIVE) == 5 for node_id in ids.values()))

    World(seed).run(scenario)


@pytest.mark.parametrize("seed", range(3))
def test_a_machine_without_power_is_dead_within_fifteen_seconds_and_nobody_else_is(seed: int) -> None:
    async def scenario(world: World) -> None:
        ids = await formed(world)
        victim = Random(seed).choice(NAMES)
        world.crash(victim, silent=True)
        await until(15.0, lambda: held_by(world, ids[victim], DEAD) == 4)
        assert all(held_by(world, ids[name], DEAD) == 0 for name in NAMES if name != victim)

    World(seed).run(scenario)


@pytest.mark.parametrize("seed", range(3))
def test_who_stands_still_for_two_seconds_is_not_dead_and_who_was_held_dead_says_that_it_is_not(seed: int) -> None:
    async def scenario(world: World) -> None:
        ids = await formed(world)
        host = world.machines["c"].host
        world.loop.pause(host)
        await asyncio.sleep(2.0)
        world.loop.resume(host)
        for _ in range(100):
            await asyncio.sleep(0.1)
            assert all(held_by(world, node_id, DEAD) == 0 for node_id in ids.values())
        world.loop.pause(host)
        await until(15.0, lambda: held_by(world, ids["c"], DEAD) == 4)
        world.loop.resume(host)
        await until(5.0, lambda: all(held_by(world, node_id, ALIVE) == 5 for node_id in ids.values()))

    World(seed).run(scenario)


def test_who_is_cut_off_from_one_other_alone_is_not_dead_to_it_but_not_asked_first() -> None:
    async def scenario(world: World) -> None:
        ids = await formed(world)
        world.lan.cut("a", "b")
        world.lan.cut("b", "a")
        for _ in range(300):
            await asyncio.sleep(0.1)
            assert all(held_by(world, node_id, DEAD) == 0 for node_id in ids.values())
        node = world.node("a")
        assert node.links.peer(ids["b"]) is None
        assert node.preferred(sorted(ids.values()))[0] == ids["a"]
        assert node.preferred(sorted(ids.values()))[-1] == ids["b"]

    World(1).run(scenario)


@pytest.mark.parametrize("state", [SUSPECT, DEAD])
def test_a_chunk_does_not_wait_for_a_home_that_nobody_is_sure_of(state: MemberState) -> None:
    async def scenario(world: World) -> None:
        ids = await formed(world)
        client = await world.client("a")
        world.crash("e", silent=True)
        await until(15.0, lambda: held_by(world, ids["e"], state) == 4)
        began_at = world.loop.time()
        for number in range(10):
            result = await client.put_bytes(f"/f{number}", Random(number).randbytes(300_000))
            assert result.copies >= 3
        assert world.loop.time() - began_at < 1.0

    World(2).run(scenario)


def test_a_newcomer_is_known_before_a_layout_names_it_and_status_shows_what_everybody_is() -> None:
    async def scenario(world: World) -> None:
        ids = await formed(world)
        client = await world.client("a")
        await client.put_bytes("/f", b"something that is stored")
        node = await world.start("f")
        await until(5.0, lambda: held_by(world, node.node_id, ALIVE) == 6)
        world.crash("e", silent=True)
        await until(10.0, lambda: held_by(world, ids["e"], SUSPECT) == 5)
        states = {member.name: member.state for member in (await client.status()).members}
        assert states == {"a": "alive", "b": "alive", "c": "alive", "d": "alive", "e": "suspect", "f": "joining"}
        await until(15.0, lambda: held_by(world, ids["e"], DEAD) == 5)
        await asyncio.sleep(ADMIT_SECONDS)
        await world.members(6)
        states = {member.name: member.state for member in (await client.status()).members}
        assert states == {"a": "alive", "b": "alive", "c": "alive", "d": "alive", "e": "dead", "f": "alive"}

    World(3).run(scenario)
