"""A machine becomes an owner of rows, while two old owners that have missed the last write serve it first, and then stand still.

The move ends without the two, once a majority of the new owners has synced. They come back, and are all that answers besides the newcomer:
what was acknowledged is read nevertheless, for it has asked a majority of the old owners.
"""

import asyncio

from sims.formed import switch_on
from sims.scenarios._common import NAMES, expect, put_for_certain, start_all, until
from sims.scenarios._traffic import Register, Traffic
from sims.world import World

PATH = "/register"
SIX = (*NAMES, "f")
SETTLE_SECONDS = 5.0
WAIT_SECONDS = 90.0


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    switch_on(world, SIX)
    await start_all(world, SIX)
    await asyncio.sleep(SETTLE_SECONDS)
    traffic = Traffic(world, PATH)
    register = Register(world, traffic, PATH)
    before = world.node("a").layout
    old = [member.name for member in before.record.members if before.is_replica(member.node_id, register.partition)]
    (newcomer,) = set(SIX) - set(old)
    leaver, *others = random.sample(old, len(old))
    behind, informed = others[:2], others[2:]
    client = await world.client(leaver)
    await register.write(client, SIX)
    traffic.sources = {newcomer: behind[: random.choice((1, 2))]} | dict.fromkeys(behind, ())
    await register.write(client, [leaver, *informed])
    await world.on(world.machines[leaver].host, world.node(leaver).leaver.ask)
    await until(WAIT_SECONDS, lambda: all(world.node(name).layout.is_joint for name in SIX), "nobody begins to move")
    await asyncio.sleep(SETTLE_SECONDS)
    for name in behind:
        world.loop.pause(world.machines[name].host)
    del traffic.sources[newcomer]
    await until(WAIT_SECONDS, lambda: not world.node(newcomer).layout.is_joint, "the move does not end without two of five")
    for name in behind:
        world.loop.resume(world.machines[name].host)
    version = world.node(newcomer).layout.version
    await until(WAIT_SECONDS, lambda: all(world.node(name).layout.version >= version for name in behind), "somebody is late for ever")
    await register.read(await world.client(newcomer), [newcomer, *behind])
    traffic.open()
    await put_for_certain(await world.client(newcomer), "/after", b"after")
    await expect(world, PATH, register.value)
