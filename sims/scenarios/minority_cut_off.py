"""Two of five machines are cut off for longer than a dead member is waited for, and hear each other all the while.

The three that are left go on without them. The two leave nobody out, whatever they hold of the others: when the network is whole again
there is one chain, both are let in as newcomers, and what was removed meanwhile stays removed.
"""

import asyncio

from sims.formed import switch_on
from sims.scenarios._common import NAMES, chain_judged, cut_off, expect, put_for_certain, start_all, until
from sims.world import World

EVICT_SECONDS = 20.0
WAIT_SECONDS = 90.0


async def story(world: World) -> None:
    """Live through it."""
    world.evict_seconds = EVICT_SECONDS
    switch_on(world, NAMES)
    with chain_judged(world):
        await start_all(world, NAMES)
        await _live(world)


async def _live(world: World) -> None:
    random = world.random
    minority = random.sample(NAMES, 2)
    majority = [name for name in NAMES if name not in minority]
    client = await world.client(majority[0])
    content = random.randbytes(100_000)
    await put_for_certain(client, "/stays", content)
    await put_for_certain(client, "/goes", content)
    before = world.node(minority[0]).layout
    cut_off(world, minority)
    await until(WAIT_SECONDS, lambda: _members(world, majority[0]) == 3, "the majority still counts on those that are cut off")
    await client.remove("/goes")
    await asyncio.sleep(random.uniform(0.0, 3 * EVICT_SECONDS))
    for name in minority:
        assert world.node(name).layout.digest == before.digest, f"{name} has changed the layout without a majority"
    world.lan.heal()
    await until(WAIT_SECONDS, lambda: all(_members(world, name) == 5 for name in NAMES), "those that were cut off are not members again")
    await expect(world, "/stays", content)
    await expect(world, "/goes")


def _members(world: World, name: str) -> int:
    layout = world.node(name).layout
    return 0 if layout.is_joint else len(layout.members)
