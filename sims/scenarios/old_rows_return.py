"""A machine that was left out enters again with the rows of its earlier life, before it has learned that it was left out.

Among them is the first try of a put that was repeated elsewhere, removed, and followed by so many others that no row remembers it. What
was removed stays removed: who enters sets aside what he kept.
"""

import asyncio

from peer.errors import OutcomeUnknown
from protocol import limits
from protocol.messages import RowMerge, RowPublish
from sims.formed import switch_on
from sims.scenarios._common import NAMES, expect, put_for_certain, start_all, until
from sims.scenarios._traffic import Traffic
from sims.world import World

PATH = "/removed"
EVICT_SECONDS = 10.0
SETTLE_SECONDS = 5.0
WAIT_SECONDS = 120.0


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    world.evict_seconds = EVICT_SECONDS
    switch_on(world, NAMES)
    await start_all(world, NAMES)
    await asyncio.sleep(SETTLE_SECONDS)
    victim, *others = random.sample(NAMES, len(NAMES))
    traffic = Traffic(world, PATH)
    client = await world.client(*others)
    first = world.node(victim).layout.version
    traffic.only = traffic.only | {RowPublish: [victim], RowMerge: ()}
    try:
        await client.put_bytes(PATH, b"first try")
    except OutcomeUnknown as error:
        op_id = error.op_id
    else:
        raise AssertionError("a put was acknowledged that one machine has")
    traffic.held[victim] = first
    world.loop.pause(world.machines[victim].host)
    traffic.only[RowPublish] = traffic.only[RowMerge] = others
    await put_for_certain(client, PATH, b"first try", op_id)
    for _ in range(limits.OPERATIONS_MAX // 2 + 1):
        await client.remove(PATH)
        await client.put_bytes(PATH, b"another")
    await client.remove(PATH)
    await until(WAIT_SECONDS, lambda: world.node(others[0]).layout.version >= first + 2, "nobody is left out")
    world.loop.resume(world.machines[victim].host)
    await until(WAIT_SECONDS, lambda: world.node(others[0]).layout.version >= first + 3, "nobody comes back")
    traffic.open()
    await world.members(len(NAMES))
    await expect(world, PATH)
