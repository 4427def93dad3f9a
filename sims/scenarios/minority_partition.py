"""The network splits: one or two of five machines are cut off, with a client on either side.

The minority refuses every read and every write as unavailable, and nothing changes on its disks; the majority goes on. A put that was
under way on the wrong side is not acknowledged. After the healing everybody sees what the majority did, and nothing else.
"""

import asyncio
from collections.abc import Awaitable, Callable

from peer.errors import OutcomeUnknown, Unavailable
from sims.scenarios._common import NAMES, again, cut_off, expect, put_for_certain
from sims.world import World


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    await world.found(NAMES)
    few = random.sample(NAMES, random.choice((1, 2)))
    many = [name for name in NAMES if name not in few]
    inside, outside = await world.client(random.choice(many)), await world.client(few[0])
    old, new = random.randbytes(100_000), random.randbytes(200_000)
    for path in ("/changed", "/removed", "/kept"):
        await outside.put_bytes(path, old)
    await asyncio.sleep(5.0)  # an acknowledgement leaves some replicas to what comes after it

    async def read(count: int) -> bytes:
        if not world.lan.has_cuts(few[0]):
            cut_off(world, [*few, "client2"])
            return b"under way"
        return b""

    op_id = b""
    try:
        await outside.put("/under-way", read, size=None)
    except Unavailable:
        pass
    except OutcomeUnknown as error:
        op_id = error.op_id
    else:
        raise AssertionError("the minority has acknowledged a put")
    await asyncio.sleep(random.choice((0.0, random.uniform(0.0, 10.0))))  # perhaps nobody has noticed yet
    before = [_on_disk(world, name) for name in few]
    refused: dict[str, Callable[[], Awaitable[object]]] = {
        "overwrite": lambda: outside.put_bytes("/changed", b"minority"),
        "put": lambda: outside.put_bytes("/minority", random.randbytes(100_000)),
        "remove": lambda: outside.remove("/kept"),
        "move": lambda: outside.move("/kept", "/minority"),
        "make a folder": lambda: outside.make_directory("/minority"),
        "read": lambda: outside.get_bytes("/kept"),
    }
    for what in random.sample(list(refused), 3):
        try:
            await refused[what]()
        except Unavailable:
            continue
        raise AssertionError(f"the minority did {what}")
    assert (await inside.put_bytes("/changed", new)).copies >= 3
    await inside.put_bytes("/majority", new[::-1])
    await inside.remove("/removed")
    assert await inside.get_bytes("/kept") == old
    assert [_on_disk(world, name) for name in few] == before, "something has changed on a disk of the minority"
    world.lan.heal()
    for path, contents in {"/changed": [new], "/majority": [new[::-1]], "/removed": [], "/kept": [old], "/minority": []}.items():
        await expect(world, path, *contents)
    if op_id:  # nobody knows, until the same put is tried again
        await put_for_certain(inside, "/under-way", b"under way", op_id)
    await expect(world, "/under-way", *([b"under way"] if op_id else []))
    assert await again(lambda: outside.get_bytes("/majority")) == new[::-1]
    await world.members(5)


def _on_disk(world: World, name: str) -> object:
    storage = world.machine(name).storage
    return dict(storage.databases["ns"].values), storage.state.chunk_files()
