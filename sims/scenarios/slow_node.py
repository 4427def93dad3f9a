"""One machine is slow beyond reason, and never says so.

Its disk takes a hundred times as long, its links carry a kilobyte per second, or its process stands still. Slow is worse than dead,
because nobody says so. The others read and write without waiting for it longer than a person would, every acknowledgement still counts
three durable copies, and once the machine is itself again it has what everybody has.
"""

import asyncio

from sims.scenarios._common import NAMES, durable_copies, expect, pairs_between
from sims.world import World

PUT_SECONDS = 15.0
"""A put waits for a home that stands still until its links are given up, and for another one if it has two chunks."""
GET_SECONDS = 3.0


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    await world.found(NAMES)
    victim, entrance, other = random.sample(NAMES, 3)
    writer, reader = await world.client(entrance), await world.client(other)
    machine = world.machine(victim)
    contents = {"/0": random.randbytes(300_000)}
    await writer.put_bytes("/0", contents["/0"])
    kind = random.choice(("disk", "links", "process"))
    if kind == "disk":
        machine.storage.state.slowness = 100.0
    elif kind == "links":
        for one, two in pairs_between(world, [victim]):
            world.lan.slow(one, two, 1000.0)
            world.lan.slow(two, one, 1000.0)
    else:
        world.loop.pause(machine.host)
    for number in range(1, 5):
        path, content = f"/{number}", random.randbytes(random.choice((1000, 300_000, 700_000)))
        began_at = world.loop.time()
        assert await reader.get_bytes(f"/{number - 1}") == contents[f"/{number - 1}"]
        got_at = world.loop.time()
        assert got_at - began_at < GET_SECONDS, f"with a slow {kind} in {victim} a get took {got_at - began_at:.1f} s"
        assert (await writer.put_bytes(path, content)).copies >= 3
        took = world.loop.time() - got_at
        assert took < PUT_SECONDS, f"with a slow {kind} in {victim} a put took {took:.1f} s"
        assert len(content) < 70_000 or durable_copies(world, content) >= 3
        contents[path] = content
        await asyncio.sleep(random.uniform(0.0, 5.0))
    machine.storage.state.slowness = 1.0
    world.lan.heal()
    world.loop.resume(machine.host)
    for path, content in contents.items():
        await expect(world, path, content)
