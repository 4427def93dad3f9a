"""One machine hears everybody and is heard by nobody, or the other way round.

Its cable works in one direction. The others read, write and remove without it, in time that a person would wait. Nothing that is
acknowledged counts a copy of which nobody could have heard. When the cable works again, the machine has caught up and everybody agrees.
"""

import asyncio

from sims.scenarios._common import NAMES, durable_copies, expect, pairs_between
from sims.world import World

PATIENCE_SECONDS = 20.0


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    await world.found(NAMES)
    victim, entrance = random.sample(NAMES, 2)
    client = await world.client(entrance)
    old, new = random.randbytes(random.randrange(70_000, 500_000)), random.randbytes(random.randrange(70_000, 500_000))
    for path in ("/kept", "/changed", "/removed"):
        await client.put_bytes(path, old)
    is_mute = random.random() < 0.5
    for one, other in pairs_between(world, [victim]):
        world.lan.cut(*((one, other) if is_mute else (other, one)))
    await asyncio.sleep(random.choice((0.0, random.uniform(0.0, 10.0))))
    began_at = world.loop.time()
    assert await client.get_bytes("/kept") == old
    assert (await client.put_bytes("/changed", new)).copies >= 3
    assert durable_copies(world, new) >= 3
    await client.remove("/removed")
    await client.put_bytes("/d/small", b"small")
    assert [entry.name async for entry in client.list("/")] == ["changed", "d", "kept"]
    took = world.loop.time() - began_at
    assert took < PATIENCE_SECONDS, f"five operations took {took:.1f} s because one machine is {'mute' if is_mute else 'deaf'}"
    await asyncio.sleep(random.uniform(0.0, 60.0))
    assert len(world.node(entrance).layout.members) == 5, "a machine that is not heard was removed"
    world.lan.heal()
    for path, contents in {"/kept": [old], "/changed": [new], "/removed": [], "/d/small": [b"small"]}.items():
        await expect(world, path, *contents)
