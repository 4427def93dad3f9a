"""A put of unknown outcome is repeated by somebody else, the file removed; then the first try arrives.

The client that began is cut off while it puts, in both directions or so that only answers are lost, and a machine dies. Somebody else
repeats the put by its op id, which takes effect once, and removes the file. Then the cables work again, what was on its way arrives, and
the machine returns: the file stays removed, everywhere, for good.
"""

import asyncio

from peer.errors import OutcomeUnknown, Unavailable
from sims.scenarios._common import NAMES, again, expect, pairs_between, put_for_certain
from sims.world import World


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    await world.found(NAMES)
    victim, entrance, other = random.sample(NAMES, 3)
    first, second = await world.client(entrance), await world.client(other)
    content = random.randbytes(random.choice((1000, 200_000)))
    if random.random() < 0.7:
        await first.put_bytes("/f", b"before")
    putting = asyncio.ensure_future(first.put_bytes("/f", content))
    await asyncio.sleep(random.uniform(0.005, 0.05))
    answers_only = random.random() < 0.5
    for one, two in pairs_between(world, ["client1"]):
        world.lan.cut(two, one)
        if not answers_only:
            world.lan.cut(one, two)
    if random.random() < 0.5:
        world.crash(victim)
    op_id = None
    try:
        await putting
    except OutcomeUnknown as error:
        op_id = error.op_id
    except Unavailable:
        pass
    await put_for_certain(second, "/f", content, op_id)
    await expect(world, "/f", content)
    await again(lambda: second.remove("/f"))
    await expect(world, "/f")
    world.lan.heal()
    if not world.machine(victim).is_up:
        await world.restart(victim)
    await expect(world, "/f")
    if op_id is not None and random.random() < 0.5:
        await put_for_certain(first, "/f", content, op_id)
    await asyncio.sleep(random.uniform(0.0, 150.0))
    await expect(world, "/f")
