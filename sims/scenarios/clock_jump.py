"""Clocks jump by up to fifty years, forwards and backwards, and run too fast or too slow.

Meanwhile a file is overwritten, removed and put again. Clocks are for people: which of two writes came later is never taken from one.
Whoever writes after somebody's write was acknowledged replaces it, whatever the clocks of the two say, and there is never a conflict.
"""

import asyncio

from sims.scenarios._common import NAMES, expect, put_for_certain
from sims.world import World

YEAR_MILLISECONDS = 31_557_600_000


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    await world.found(NAMES)
    contents: list[bytes] = []
    for number in range(8):
        for name in random.sample(NAMES, random.randrange(1, 4)):
            clock = world.machine(name).clock
            clock.offset_milliseconds = int(random.choice((1, -1)) * YEAR_MILLISECONDS * 10 ** random.uniform(-6.0, 1.7))
            clock.drift = random.uniform(-0.1, 0.1)
        if random.random() < 0.3:
            restarted = random.choice(NAMES)
            world.crash(restarted)
            await world.restart(restarted)
        client = await world.client(*random.sample(NAMES, 5))
        if contents and random.random() < 0.3:
            await client.remove("/d/f")
            contents = []
        else:
            contents = [f"content {number}".encode() * random.choice((1, 9000))]
            await put_for_certain(client, "/d/f", contents[0])
        reader = await world.client(random.choice(NAMES))
        entries = [entry async for entry in reader.list("/d")]
        assert len(entries) == len(contents), f"{len(entries)} entries after round {number}"
        await expect(world, "/d/f", *contents)
        await asyncio.sleep(random.uniform(0.0, 10.0))
    await world.members(5)
