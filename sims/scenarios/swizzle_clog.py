"""Machines lose their links one after the other, or single links fail; they return in another order.

FoundationDB's best finder of deep bugs. Each file has one writer, who tries again until he is told that it is done, and two readers.
Nobody ever sees something older than what was acknowledged, or seen by anybody, before he looked. With all links back everybody sees the
last contents.
"""

import asyncio
from collections.abc import Sequence

from peer.errors import NoSuchPath, Unavailable
from peer.files.operations import Operations
from sims.scenarios._common import NAMES, expect, pairs_between, put_for_certain
from sims.world import World


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    await world.found(NAMES)
    seconds = random.uniform(5.0, 40.0)
    end_at = world.loop.time() + seconds
    acked = {"/f": 0, "/g": 0}
    newest = dict(acked)
    """What was acknowledged or read so far: no read that begins now returns less."""

    def content_of(path: str, number: int) -> bytes:
        return f"{path} {number:6} ".encode() * (9000 if (number + len(path)) % 3 == 0 else 1)

    async def write(client: Operations, path: str) -> None:
        while world.loop.time() < end_at:
            await put_for_certain(client, path, content_of(path, acked[path] + 1))
            acked[path] += 1
            newest[path] = max(newest[path], acked[path])
            await asyncio.sleep(random.uniform(0.0, 1.0))

    async def read(client: Operations, path: str) -> None:
        while world.loop.time() < end_at:
            before = newest[path]
            try:
                seen = int((await client.get_bytes(path)).split()[1])
            except Unavailable:
                continue
            except NoSuchPath:
                seen = 0
            assert seen >= before, f"{path}: {seen} was read, and {before} had been acknowledged or read before"
            newest[path] = max(newest[path], seen)
            await asyncio.sleep(random.uniform(0.0, 0.5))

    async def clog(links: Sequence[tuple[str, str]]) -> None:
        begin, end = random.uniform(0.1, seconds / 2), random.uniform(seconds / 2, seconds)
        await asyncio.sleep(begin)
        pairs = [pair for one, other in links for pair in ((one, other), (other, one))]
        for pair in pairs:
            world.lan.cut(*pair)
        await asyncio.sleep(end - begin)
        for pair in pairs:
            world.lan.mend(*pair)

    working = [work(await world.client(random.choice(NAMES)), path) for path in acked for work in (write, read, read)]
    single = random.random() < 0.5
    for name in NAMES:
        links = pairs_between(world, [name])
        for clogged in [[link] for link in links] if single else [links]:
            if random.random() < 0.5:
                working.append(clog(clogged))
    await asyncio.gather(*working)
    for path, number in acked.items():
        await expect(world, path, content_of(path, number))
