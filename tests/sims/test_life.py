"""The life of a member: gone for good, back again, leaving, and who is not to be taken for gone."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from random import Random

import pytest

from peer.config import ADMIT_SECONDS, SWEEP_SECONDS
from protocol.flapping import CALM_SECONDS
from protocol.manifest import KIB
from sims.formed import switch_on
from sims.scenarios._common import NAMES, chain_judged, durable_copies, expect, start_all, until
from sims.world import World

SEEDS = range(max(1, int(os.environ.get("SHOAL_SEEDS", "3")) // 3))
EVICT_SECONDS = 40.0
SIX = (*NAMES, "f")


def run(seed: int, names: Sequence[str], scenario: Callable[[World], Awaitable[None]], seconds: float = 600.0) -> None:
    """Run a scenario in a cluster of `names` that has formed before, under the eyes of the judge of the chain."""

    async def judged(world: World) -> None:
        world.evict_seconds = EVICT_SECONDS
        switch_on(world, names)
        with chain_judged(world):
            await start_all(world, names)
            await scenario(world)

    World(seed).run(judged, seconds_max=seconds)


def members_of(world: World, name: str) -> set[str]:
    """Return the names of the members in the layout that a node has in force."""
    return {member.name for member in world.node(name).layout.record.members}


@pytest.mark.parametrize(("names", "victim"), [(NAMES, "a"), (SIX, "d")])
@pytest.mark.parametrize("seed", SEEDS)
def test_who_is_dead_for_long_is_left_out_and_its_copies_are_made_elsewhere(seed: int, names: Sequence[str], victim: str) -> None:
    content = Random(seed).randbytes(900 * KIB)

    async def scenario(world: World) -> None:
        client = await world.client("b")
        await client.put_bytes("/f", content)
        world.crash(victim, silent=seed % 2 == 1)
        world.machines.pop(victim)  # its disk counts for nothing
        await asyncio.sleep(EVICT_SECONDS - 1.0)
        assert victim in members_of(world, "b")
        await until(60.0, lambda: all(victim not in members_of(world, name) for name in world.machines), f"{victim} is a member")
        await world.members(len(names) - 1)
        await until(30.0, lambda: durable_copies(world, content) >= 3, "copies are missing")
        assert await client.get_bytes("/f") == content
        assert (await client.put_bytes("/g", content[::-1])).copies == 3
        assert len((await client.status()).members) == len(names) - 1

    run(seed, names, scenario)


@pytest.mark.parametrize(("count", "remain"), [(2, 3), (3, 5)])
def test_two_of_five_are_left_out_when_they_are_gone_and_three_are_not(count: int, remain: int) -> None:
    victims = Random(count).sample(NAMES, count)

    async def scenario(world: World) -> None:
        for name in victims:
            world.crash(name)
        await asyncio.sleep(3 * EVICT_SECONDS)
        staying = next(name for name in NAMES if name not in victims)
        assert len(members_of(world, staying)) == remain

    run(1, NAMES, scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_who_was_left_out_comes_back_as_a_newcomer_and_what_was_removed_meanwhile_stays_removed(seed: int) -> None:
    choice = Random(seed)
    victim = choice.choice(NAMES)
    other = next(name for name in NAMES if name != victim)
    old, new = choice.randbytes(300 * KIB), choice.randbytes(300 * KIB)

    async def scenario(world: World) -> None:
        client = await world.client(other)
        for number in range(6):
            await client.put_bytes(f"/d{number}/removed", old)
            await client.put_bytes(f"/d{number}/changed", old)
        world.crash(victim)
        await until(EVICT_SECONDS + 60.0, lambda: victim not in members_of(world, other), f"{victim} is a member")
        await world.members(4)
        for number in range(6):
            await client.remove(f"/d{number}/removed")
            await client.put_bytes(f"/d{number}/changed", new)
        back = await world.restart(victim)
        await until(ADMIT_SECONDS + 60.0, lambda: victim in members_of(world, other), f"{victim} is not admitted")
        await world.members(5)
        assert back.layout.members[back.node_id].name == victim
        for number in range(6):
            await expect(world, f"/d{number}/removed")
            await expect(world, f"/d{number}/changed", new)

    run(seed, NAMES, scenario)


def test_a_restart_of_fifteen_seconds_changes_no_layout_and_moves_no_chunk() -> None:
    content = Random(1).randbytes(900 * KIB)

    async def scenario(world: World) -> None:
        await asyncio.sleep(5.0)  # all are linked: no home is missed
        client = await world.client("a")
        await client.put_bytes("/f", content)
        await asyncio.sleep(SWEEP_SECONDS + 10.0)
        version = world.node("a").layout.version

        def chunks() -> dict[str, list[str]]:
            machines = world.machines.items()
            return {name: sorted(path for path in machine.storage.state.names if path.startswith("c/")) for name, machine in machines}

        before = chunks()
        world.crash("c", silent=True)
        await asyncio.sleep(15.0)
        await world.restart("c")
        await asyncio.sleep(EVICT_SECONDS + 30.0)
        assert chunks() == before
        assert {world.node(name).layout.version for name in NAMES} == {version}

    run(3, NAMES, scenario)


def test_a_newcomer_that_comes_and_goes_is_admitted_once_it_stays() -> None:
    async def scenario(world: World) -> None:
        await asyncio.sleep(5.0)
        await (await world.client("a")).put_bytes("/f", b"something that is stored")
        await world.start("d")
        for _ in range(2):
            await asyncio.sleep(10.0)
            world.kill("d")
            await asyncio.sleep(10.0)
            await world.restart("d")
        await asyncio.sleep(CALM_SECONDS - 5.0)
        assert "d" not in members_of(world, "a")
        await asyncio.sleep(30.0)
        await world.members(4)

    run(2, NAMES[:3], scenario)
