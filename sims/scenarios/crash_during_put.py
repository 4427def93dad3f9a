"""A machine, or the client, dies in the middle of a put that overwrites a file.

A machine loses its power at the n-th thing that it does with its disk after the put has begun, or the client's process ends at some moment
of it. Whatever the client was told holds: acknowledged means three durable copies. Everybody sees the old content or the new one, whole;
once somebody has seen the new one it stays. The same put again, by somebody else, takes effect once.
"""

import asyncio

from peer.errors import OutcomeUnknown, Unavailable
from sims.scenarios._common import NAMES, again, durable_copies, expect, put_for_certain, versions
from sims.world import World


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    await world.found(NAMES)
    old, new = random.randbytes(random.choice((1_000, 300_000))), random.randbytes(random.randrange(70_000, 900_000))
    victim, entrance, other = random.sample(NAMES, 3)
    client = await world.client(entrance)
    await client.put_bytes("/f", old)
    client_dies = random.random() < 0.3
    if not client_dies:
        world.machine(victim).storage.state.steps_left = random.randrange(1, 15)
    putting = asyncio.ensure_future(world.on(world.clients[0], lambda: client.put_bytes("/f", new)))
    if client_dies:
        await asyncio.sleep(random.uniform(0.0, 0.1))
        world.kill_client(world.clients[0])
    until = world.loop.time() + (10.0 if client_dies else 90.0)
    while not putting.done() and world.loop.time() < until:
        await asyncio.sleep(0.1)
    allowed, op_id, is_acked = [[old], [new]], None, False
    if putting.done():
        try:
            putting.result()
            allowed, is_acked = [[new]], True
        except Unavailable:
            allowed = [[old]]
        except OutcomeUnknown as error:
            op_id = error.op_id
    if world.machine(victim).is_up and not client_dies:
        world.crash(victim)
    assert not is_acked or durable_copies(world, new) >= 3, f"acknowledged, and {durable_copies(world, new)} copies are durable"
    reader = await world.client(other)
    seen = await again(lambda: versions(reader, "/f"))
    assert seen in allowed, f"/f is neither old nor new, but {[len(each) for each in seen]} bytes"
    if not client_dies:
        await world.restart(victim)
    if seen == [new]:
        await expect(world, "/f", new)
    await put_for_certain(reader, "/f", new, op_id)
    await expect(world, "/f", new)
