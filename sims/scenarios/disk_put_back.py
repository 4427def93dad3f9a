"""The disk of a machine is put back to an earlier moment, of the same start of it or of the one before, and who knows better is away.

What was acknowledged in between it has forgotten, though it promised it. The others remember how far it had come: it gives its id up and
votes for nothing, so a read waits for those who are away rather than to miss what was written.
"""

import asyncio

from sims.formed import switch_on
from sims.scenarios._common import NAMES, expect, start_all
from sims.scenarios._traffic import Register, Traffic
from sims.world import World

PATH = "/register"
TELL_SECONDS = 6.0
"""Everybody has probed everybody by then."""
START_SECONDS = 10.0


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    switch_on(world, NAMES)
    await start_all(world, NAMES)
    await asyncio.sleep(TELL_SECONDS)
    victim, *others = random.sample(NAMES, len(NAMES))
    traffic = Traffic(world, PATH)
    register = Register(world, traffic, PATH)
    client = await world.client(others[-1])
    await register.write(client, NAMES)
    snapshot = world.snapshot(victim)
    if random.random() < 0.3:
        await world.stop(victim)
        await world.restart(victim)
        traffic.watch(victim)
    await asyncio.sleep(random.choice((0.0, TELL_SECONDS)))
    await register.write(client, register.quorum(client, [victim, *others]))
    await asyncio.sleep(TELL_SECONDS)
    away = [name for name in register.holders() if name != victim]
    for name in (victim, *away):
        world.crash(name, silent=random.random() < 0.5)
    world.put_back(victim, snapshot)
    await world.start(victim)
    await asyncio.sleep(START_SECONDS)
    await register.read(client, NAMES)
    traffic.open()
    for name in random.sample(NAMES, len(NAMES)):
        if not world.machines[name].is_up:
            await world.start(name)
    await world.members(len(NAMES) + 1)  # the victim is another one now
    await expect(world, PATH, register.value)
