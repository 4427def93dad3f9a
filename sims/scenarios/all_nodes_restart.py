"""Every machine restarts, again and again: in good order, killed, or by a power cut.

The cluster forms again by itself, with the same members, from whatever order they come back in. Everything is there, and what is put
afterwards replaces what was there before: no number of a version is ever given twice.
"""

import asyncio

from sims.scenarios._common import NAMES, expect, put_for_certain, start_all
from sims.world import World

ROUNDS = 3


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    await world.found(NAMES)
    given: dict[str, str] = {}
    contents: dict[str, bytes] = {}
    for number in range(ROUNDS):
        for path in ("/same", f"/{number}"):
            contents[path] = random.randbytes(random.choice((100, 100_000)))
            result = await put_for_certain(await world.client(random.choice(NAMES)), path, contents[path])
            assert result.version not in given, f"{path} and {given[result.version]} have the same version {result.version}"
            given[result.version] = path
        ends = random.choice(("stop", "kill", "power", "mixed"))
        if random.random() < 0.5:
            for name in NAMES:
                await _end(world, name, ends)
            await start_all(world, random.sample(NAMES, 5))
        else:
            for name in random.sample(NAMES, 5):
                await _end(world, name, ends)
                await asyncio.sleep(random.uniform(0.0, 3.0))
                await world.restart(name)
        for path, content in contents.items():
            await expect(world, path, content)
    await world.members(5)


async def _end(world: World, name: str, how: str) -> None:
    how = world.random.choice(("stop", "kill", "power")) if how == "mixed" else how
    if how == "stop":
        await world.stop(name)
    elif how == "kill":
        world.kill(name)
    else:
        world.crash(name, silent=world.random.random() < 0.5)
