"""Bits flip on two of the three disks that hold a chunk, and in rows of files on one or two of five.

Nobody is told. No node serves what rotted, and none lets it vote: who reaches only rotten rows and machines that were away during the put
is told that the file cannot be read now, not that it does not exist. The others read it everywhere. What was found to be damaged is made
whole from the others: three durable copies, and rows that know the content.
"""

import asyncio

from peer.errors import Unavailable
from sims.scenarios._common import NAMES, durable_copies, expect, serves
from sims.world import World

HEALED_SECONDS = 150.0


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    await world.found(NAMES)
    away, entrance = random.sample(NAMES, 2) if random.random() < 0.5 else [], random.choice(NAMES)
    client = await world.client(entrance)
    for name in away:
        world.crash(name, silent=True)
    content, small = random.randbytes(random.randrange(70_000, 250_000)), random.randbytes(1000)
    await client.put_bytes("/d/big", content)
    await client.put_bytes("/d/small", small)
    await asyncio.sleep(5.0)  # the acknowledgement needed three rows of five: one that does not exist cannot rot
    for name in away:
        await world.restart(name)
    (place,) = [place async for place in client.where("/d/big")]
    damaged = random.sample(place.nodes, len(place.nodes) - 1)
    for name in damaged:
        storage = world.machine(name).storage
        (path,) = [path for path in storage.state.chunk_files() if path.endswith(place.chunk_id.hex())]
        storage.state.damage(path, random, unreadable=random.random() < 0.3)
    rotten = random.sample([name for name in NAMES if name not in away], 1 if away else 2)
    for name in rotten:
        world.machine(name).storage.rot_row("/d/small", random)
    if random.random() < 0.5:
        restarted = random.choice((*damaged, *rotten))
        world.crash(restarted)
        await world.restart(restarted)
    if away:
        unlucky = await world.client(rotten[0])
        sound = [name for name in NAMES if name not in (*away, *rotten)]
        for name in sound:
            world.lan.cut(world.clients[-1].partition("#")[0], name)
        try:
            assert await unlucky.get_bytes("/d/small") == small
        except Unavailable:
            pass
        world.lan.heal()
    for name in random.sample(NAMES, 5):
        await serves(world, name, content)
    await expect(world, "/d/big", content)
    await expect(world, "/d/small", small)
    await asyncio.sleep(HEALED_SECONDS)
    assert durable_copies(world, content) >= 3, f"{durable_copies(world, content)} good copies at the end"
    for name in rotten:
        left = list(world.machine(name).storage.databases["ns"].rotten)
        assert not left, f"{name} still has the rotten rows {left}"
