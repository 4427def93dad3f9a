"""The disk of one machine says that it has synced, and has not; then all machines lose their power.

A disk that lies is a failed one, and one failed copy of three is within what is promised. Every acknowledged byte can be read afterwards,
from the others, even while one more machine stays away. The liar, asked for what its index says it has, gives the right bytes or none, and
gets what it has lost from the others: there are three durable copies again.
"""

import asyncio

from sims.scenarios._common import NAMES, durable_copies, expect, serves, start_all
from sims.world import World

HEALED_SECONDS = 150.0


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    await world.found(NAMES)
    liar, entrance, absent = random.sample(NAMES, 3)
    client = await world.client(entrance)
    state = world.machine(liar).storage.state
    written = {"/before": random.randbytes(200_000)}
    await client.put_bytes("/before", written["/before"])
    state.is_lying = True
    for number in range(4):
        content = written[f"/{number}"] = random.randbytes(random.randrange(70_000, 600_000))
        result = await client.put_bytes(f"/{number}", content)
        assert result.copies >= 3
        assert durable_copies(world, content) >= 2, "a copy that no lying disk has is not durable"
    await asyncio.sleep(random.uniform(0.0, 5.0))
    for name in NAMES:
        world.crash(name, silent=random.random() < 0.5)
    state.is_lying = False
    order = random.sample(NAMES, 5)
    order.remove(absent)
    await start_all(world, order)
    for path, content in written.items():
        await expect(world, path, content)
    await world.restart(absent)
    for content in written.values():
        await serves(world, liar, content)
    await asyncio.sleep(HEALED_SECONDS)
    for path, content in written.items():
        assert durable_copies(world, content) >= 3, f"{path} has {durable_copies(world, content)} durable copies at the end"
