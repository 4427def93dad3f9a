"""Somebody sends garbage to every port, and a member of another cluster of the same key turns up.

Garbage ends the connection that brought it, soon, and nothing else. The other cluster's member stays what it is: neither of the two takes
the other in, and neither shows a file of the other. All the while reads and writes go on.
"""

import asyncio

from protocol.hashing import plain_hash
from protocol.identity import node_id_of
from sims.garbage import GARBAGE, GarbageSender
from sims.network import SimNetwork
from sims.scenarios._common import NAMES, cut_off
from sims.world import PORT, World

PATIENCE_SECONDS = 4.0
"""Whoever believed a length would wait for the rest, and for a hello at least."""


async def story(world: World) -> None:
    """Live through it."""
    random, names = world.random, NAMES[:3]
    await world.found(names)
    client = await world.client(random.choice(names))
    content = random.randbytes(200_000)
    await client.put_bytes("/ours", content)
    world.machine("x")
    cut_off(world, ["x", "client2"])
    await world.start("x", found=True)
    theirs = await world.client("x")
    await theirs.put_bytes("/theirs", content[::-1])
    world.lan.heal()

    async def send(number: int) -> None:
        await asyncio.sleep(random.uniform(0.0, 10.0))
        host, sender, name = f"garbage{number}#1", GarbageSender(), random.choice(names)
        network = SimNetwork(world.lan, host, node_id_of(plain_hash(host.encode())))
        await world.on(host, lambda: network.connect(f"{name}:{PORT}", lambda _: sender, timeout_seconds=5.0))
        garbage = random.choice(GARBAGE) + random.randbytes(random.randrange(16, 64))
        while garbage and sender.is_connected:
            count = random.randrange(1, len(garbage) + 1)
            sender.transport.write(garbage[:count])
            garbage = garbage[count:]
            await asyncio.sleep(random.uniform(0.0, 0.2))
        await client.put_bytes(f"/{number}", content[number:])
        await asyncio.sleep(PATIENCE_SECONDS)
        assert not sender.is_connected, f"{name} keeps a link that began with garbage"

    await asyncio.gather(*map(send, range(6)))
    assert [len(world.node(name).layout.members) for name in (*names, "x")] == [3, 3, 3, 1], "a stranger was taken in"
    assert [entry.name async for entry in theirs.list("/")] == ["theirs"]
    assert [entry.name async for entry in client.list("/")] == [*map(str, range(6)), "ours"]
    assert await client.get_bytes("/ours") == content
