"""Disks fill up: first two of five, then three, then somebody makes room.

A full machine takes no chunk and the next one does: a put has its three copies, none of them counted on a full disk. When too few machines
have room a put is refused as unavailable, and nothing has changed. Reads, small files and removals go on all the time, nothing that was
acknowledged is lost, and no node stops. With room again, puts succeed again.
"""

import asyncio

from peer.errors import Unavailable
from sims.scenarios._common import NAMES, durable_copies, expect
from sims.world import World


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    await world.found(NAMES)
    client = await world.client(random.choice(NAMES))
    old, new = random.randbytes(300_000), random.randbytes(random.randrange(70_000, 900_000))
    await client.put_bytes("/old", old)
    await client.put_bytes("/removed", old[::-1])
    full = random.sample(NAMES, 3)
    for name in full[:2]:
        world.machine(name).storage.fill()
    await asyncio.sleep(random.choice((0.0, 3.0)))  # the store may believe for a second that there is room
    before = {name: world.machine(name).storage.state.chunk_files() for name in full}
    assert (await client.put_bytes("/new", new)).copies >= 3
    assert durable_copies(world, new) >= 3
    for name in full[:2]:
        assert world.machine(name).storage.state.chunk_files() == before[name], f"the full disk of {name} has taken a chunk"
    world.machine(full[2]).storage.fill()
    await asyncio.sleep(random.choice((0.0, 3.0)))
    for path in ("/old", "/more"):
        try:
            await client.put_bytes(path, random.randbytes(400_000))
        except Unavailable:
            continue
        raise AssertionError(f"{path} was acknowledged, and only two machines have room for it")
    assert (await client.put_bytes("/small", b"small")).copies >= 3
    assert await client.remove("/removed") == 1
    for path, contents in {"/old": [old], "/new": [new], "/more": [], "/small": [b"small"], "/removed": []}.items():
        await expect(world, path, *contents)
    assert all(world.machine(name).is_up for name in NAMES), "a full disk has stopped a node"
    for name in full:
        world.machine(name).storage.state.others_bytes = 0
    await asyncio.sleep(2.0)
    assert (await client.put_bytes("/more", old)).copies >= 3
    await expect(world, "/more", old)
