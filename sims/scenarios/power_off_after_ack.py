"""All machines lose their power at the very moment at which a put is acknowledged.

Other puts are under way. What was not synced is lost or torn, on every disk by itself. After the restart, in any order, every acknowledged
byte is there, on three machines; of what was not acknowledged there is all or nothing, and the same puts again succeed.
"""

import asyncio

from protocol.paths import name_of
from sims.scenarios._common import NAMES, again, durable_copies, expect, put_for_certain, start_all, versions
from sims.world import World


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    await world.found(NAMES)
    contents = {f"/{number}": random.randbytes(random.choice((100, 10_000, 70_000, 400_000))) for number in range(6)}
    acked: list[str] = []
    enough = random.randrange(1, len(contents) + 1)
    power_is_off = asyncio.Event()

    async def put(path: str) -> None:
        client = await world.client(random.choice(NAMES))
        await client.put_bytes(path, contents[path])
        if power_is_off.is_set():
            return
        assert _rows(world, path) >= 3, f"{path} was acknowledged with its row on {_rows(world, path)} disks"
        acked.append(path)
        if len(acked) == enough:
            for name in NAMES:
                world.crash(name, silent=True)
            power_is_off.set()

    putting = [asyncio.ensure_future(put(path)) for path in contents]
    while not power_is_off.is_set():
        for task in putting:
            assert not task.done() or task.exception() is None, task.exception()
        await asyncio.sleep(0.01)
    for task in putting:
        task.cancel()
    for path in acked:
        if len(contents[path]) >= 70_000:
            copies = durable_copies(world, contents[path])
            assert copies >= 3, f"{path} was acknowledged, and {copies} copies have survived"
    await start_all(world, random.sample(NAMES, 5))
    reader = await world.client(random.choice(NAMES))
    for path, content in contents.items():
        if path in acked:
            await expect(world, path, content)
        else:
            seen = await again(lambda: versions(reader, path))  # noqa: B023  # awaited in this round
            assert seen in ([], [content]), f"{path} was not acknowledged, and is torn"
            assert (await put_for_certain(reader, path, content)).copies >= 3


def _rows(world: World, path: str) -> int:
    """Return on how many disks a path that was put once has its row."""
    databases = [machine.storage.databases["ns"] for machine in world.machines.values()]
    return sum(any(key.endswith(b"\0" + name_of(path).encode()) for key in database.keys) for database in databases)
