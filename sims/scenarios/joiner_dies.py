"""A machine joins a cluster of one and dies at some step of that.

Once the layout is joint, everything needs both. The newcomer has no vote yet, so the first machine takes it back by itself: reads and
writes wait for a few seconds, and succeed. Whoever dies a moment later is a member already, and both are needed until it is back.
"""

import asyncio

from sims.scenarios._common import expect, put_for_certain
from sims.world import World, look_at

WAIT_SECONDS = 14.0
"""Silence is noticed within 5 s, what follows it after 3 s more; then a dial that nobody answers and a try may pass."""


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    await world.start("a", found=True)
    client = await world.client("a")
    old, new = random.randbytes(100_000), random.randbytes(200_000)
    await client.put_bytes("/old", old)
    before = world.node("a").layout.version
    joining = asyncio.get_running_loop().create_task(world.start("b"))
    joining.add_done_callback(look_at)
    while world.node("a").layout.version == before:
        await asyncio.sleep(0.001)
    await asyncio.sleep(random.choice((0.0, random.uniform(0.0, 0.3))))
    was_joint = world.node("a").layout.is_joint
    world.crash("b", silent=random.random() < 0.5)
    joining.cancel()
    if was_joint and random.random() < 0.5:
        await asyncio.sleep(random.uniform(0.0, WAIT_SECONDS))
    if was_joint and not _is_complete(world):
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                assert await client.get_bytes("/old") == old
                await client.put_bytes("/new", new)
        except TimeoutError:
            raise AssertionError(f"{WAIT_SECONDS:.0f} s after the death of a newcomer the first machine is of no use") from None
    await world.restart("b")
    await world.members(2)
    await put_for_certain(client, "/new", new)
    await expect(world, "/old", old)
    await expect(world, "/new", new)


def _is_complete(world: World) -> bool:
    layout = world.node("a").layout
    return not layout.is_joint and len(layout.members) == 2
