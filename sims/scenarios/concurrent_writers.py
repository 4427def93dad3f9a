"""Two or three people put the same file at the same time, and perhaps somebody removes it meanwhile.

Each put has begun before the others ended, so none can have meant to replace another: all are kept, and shown as a conflict with one of
them under the plain name. A put beats a concurrent removal. The next put, which has seen them all, replaces them all.
"""

import asyncio
from contextlib import suppress

from peer.errors import AlreadyThere
from sims.scenarios._common import NAMES, expect
from sims.world import World


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    await world.found(NAMES)
    first = await world.client(random.choice(NAMES))
    is_removed = False
    if random.random() < 0.6:
        await first.put_bytes("/d/f.txt", b"before")
        is_removed = random.random() < 0.5
    contents = [random.randbytes(random.choice((10, 10_000, 200_000))) for _ in range(random.choice((2, 2, 3)))]
    all_have_begun = asyncio.Barrier(len(contents) + 1)  # what a put supersedes is fixed before its source is read

    async def put(content: bytes) -> None:
        client = await world.client(random.choice(NAMES))
        position = 0

        async def read(count: int) -> bytes:
            nonlocal position
            if not position:
                await all_have_begun.wait()
                await asyncio.sleep(random.uniform(0.0, 0.02))
            piece = content[position : position + count]
            position += len(piece)
            return piece

        await client.put("/d/f.txt", read, size=len(content))

    async def remove() -> None:
        await all_have_begun.wait()
        if is_removed:
            with suppress(AlreadyThere):  # who reads behind two puts is told that there are two versions
                await first.remove("/d/f.txt")

    if random.random() < 0.5:
        world.machine(random.choice(NAMES)).clock.offset_milliseconds += random.randrange(-1_000_000_000, 1_000_000_000)
    await asyncio.gather(remove(), *map(put, contents))
    if random.random() < 0.5:
        restarted = random.choice(NAMES)
        world.crash(restarted)
        await world.restart(restarted)
    await expect(world, "/d/f.txt", *contents)
    reader = await world.client(random.choice(NAMES))
    entries = [entry async for entry in reader.list("/d")]
    assert sum(not entry.conflict for entry in entries) == 1, f"{len(entries)} versions, and not one plain name"
    assert len({entry.path for entry in entries}) == len(contents), [entry.path for entry in entries]
    await reader.put_bytes("/d/f.txt", b"resolved")
    await expect(world, "/d/f.txt", b"resolved")
