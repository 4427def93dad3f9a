"""A machine was away for a month; it comes back, and others go.

Meanwhile files were overwritten, removed and added. Its rows and chunks are of a month ago. Nobody is ever shown one of them: what was
removed stays removed, what was overwritten stays so, also when two of those who know better are gone, so that the returned machine's vote
is needed.
"""

import asyncio

from sims.scenarios._common import NAMES, expect
from sims.world import World

DAY_MILLISECONDS = 86_400_000
AWAY_SECONDS = 200.0
"""Time in which everything happens that happens by itself; the clocks say that it was a month."""


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    await world.found(NAMES)
    victim, entrance, one, two = random.sample(NAMES, 4)
    client = await world.client(entrance)
    old, new = random.randbytes(200_000), random.randbytes(300_000)
    for path in ("/kept", "/changed", "/removed", "/replaced", "/d/inner"):
        await client.put_bytes(path, old)
    await asyncio.sleep(random.choice((0.0, 5.0)))
    world.crash(victim, silent=random.random() < 0.5)
    await client.put_bytes("/changed", new)
    await client.remove("/removed")
    await client.remove("/replaced")
    await client.put_bytes("/replaced", new)
    await client.remove("/d", recursive=True)
    await client.put_bytes("/added", new)
    await asyncio.sleep(AWAY_SECONDS)
    for machine in world.machines.values():
        machine.clock.offset_milliseconds += 30 * DAY_MILLISECONDS
    await world.restart(victim)
    now = {"/kept": [old], "/changed": [new], "/removed": [], "/replaced": [new], "/added": [new], "/d": [], "/d/inner": []}
    if random.random() < 0.5:
        await asyncio.sleep(random.uniform(0.0, 100.0))
    else:
        for path, contents in now.items():
            await expect(world, path, *contents)
    world.crash(one)
    world.crash(two, silent=True)
    for path, contents in now.items():
        await expect(world, path, *contents)
    names = [entry.name async for entry in (await world.client(victim)).list("/", recursive=True)]
    assert names == ["added", "changed", "kept", "replaced"], names
