"""All machines lose their power at the moment at which one of them has the next layout, and that one stays away.

The two voters that are left have voted for that layout, and know it. A machine that they have never heard of comes along meanwhile; who was
to be admitted does not. What they decide is what was decided: when the others return, all have one chain.
"""

import asyncio

from sims.oracles.disks import latest_layout
from sims.scenarios._common import NAMES, chain_judged, expect, put_for_certain
from sims.world import World

QUIET_SECONDS = 3.0
WAIT_SECONDS = 60.0
"""The machine that was to be admitted is given up first."""


async def story(world: World) -> None:
    """Live through it."""
    with chain_judged(world):
        await _live(world)


async def _live(world: World) -> None:
    random = world.random
    voters = NAMES[:3]
    await world.found(voters)
    await asyncio.sleep(QUIET_SECONDS)
    before = world.node("a").layout.version
    joining = asyncio.get_running_loop().create_task(world.start("d"))
    while not (holders := [name for name in voters if latest_layout([world.machines[name]]).version > before]):
        await asyncio.sleep(0.0001)
    joining.cancel()
    for name in (*voters, "d"):
        world.crash(name, silent=random.random() < 0.5)
    holder = random.choice(holders)
    late = [name for name in voters if name != holder]
    for name in random.sample(late, 2):
        await world.start(name)
    newcomer = (await world.start("e")).node_id
    give_up_at = world.loop.time() + WAIT_SECONDS
    while newcomer not in world.node(late[0]).layout.members:
        assert world.loop.time() < give_up_at, "two of three voters admit nobody"
        await asyncio.sleep(0.1)
    for name in random.sample((holder, "d"), 2):
        await world.start(name)
    await world.members(5)
    await put_for_certain(await world.client(holder), "/f", b"x")
    await expect(world, "/f", b"x")
