"""The power of a machine fails while it writes a chunk, again and again.

What is on its disk is old, new, a beginning, or garbage by the sector. Three machines, so each is a home of every chunk. One loses its
power again and again within its next few disk operations, while files are put, and comes back each time. No node ever serves a torn chunk
or counts it, what was acknowledged can be read everywhere, half-written files are gone after the start, and the store that was hit works:
soon it has its copy of everything again.
"""

import asyncio

from sims.scenarios._common import NAMES, durable_copies, expect, put_for_certain, serves
from sims.world import World

ROUNDS = 4
HEALED_SECONDS = 200.0


async def story(world: World) -> None:
    """Live through it."""
    random, names = world.random, NAMES[:3]
    await world.found(names)
    victim, entrance = random.sample(names, 2)
    client = await world.client(entrance)
    state = world.machine(victim).storage.state
    written: dict[str, bytes] = {}
    for number in range(ROUNDS):
        path, content = f"/{number}", random.randbytes(random.choice((70_000, 300_000, 700_000)))
        state.steps_left = random.randrange(1, 12)
        result = await put_for_certain(client, path, content)
        copies = durable_copies(world, content)
        assert copies >= result.copies, f"{path}: {result.copies} copies were acknowledged, {copies} are durable"
        written[path] = content
        if world.machine(victim).is_up:
            await asyncio.sleep(random.uniform(0.0, 0.02))
        if world.machine(victim).is_up:
            world.crash(victim)
        await world.restart(victim)
        left = [name for name in state.names if name.startswith("tmp/")]
        assert not left, f"half-written files are left: {left}"
        for content in written.values():
            await serves(world, victim, content)
    for path, content in written.items():
        await expect(world, path, content)
    await asyncio.sleep(HEALED_SECONDS)
    for path, content in written.items():
        assert await serves(world, victim, content), f"{victim} has no copy of {path}, {HEALED_SECONDS:.0f} s after its return"
        assert durable_copies(world, content) == 3
