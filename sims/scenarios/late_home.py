"""A machine that has a copy to spare does not know yet that the layout counts on it, while another one leaves and drops its own.

Each of the two is a home for the other, and none for itself. As long as they do not have the same layout neither may count the other's
copy: what was acknowledged with three copies has three at every moment.
"""

import asyncio

from protocol.hashing import Buffer
from protocol.layout import Layout, complete, propose
from protocol.manifest import ChunkTag, chunk_id_of, chunk_partition
from protocol.messages import ChunkPut, ChunksHave
from sims.formed import switch_on
from sims.scenarios._common import NAMES, durable_copies, expect, start_all, until
from sims.scenarios._traffic import Traffic
from sims.world import World

PATH = "/f"
BYTES = 100_000
LINK_SECONDS = 5.0
WAIT_SECONDS = 90.0
LOOK_SECONDS = 20.0
COPIES = 3


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    switch_on(world, NAMES)
    await start_all(world, NAMES)
    await asyncio.sleep(LINK_SECONDS)
    traffic = Traffic(world, PATH)
    before = world.node("a").layout
    leaver = random.choice(NAMES)
    staying = propose(before, [member for member in before.record.members if member.name != leaver])
    assert staying is not None
    after = complete(staying)
    while True:
        content = random.randbytes(BYTES)
        homes, later = _homes(before, content), _homes(after, content)
        if leaver in homes and len(set(later) - set(homes)) == 1:
            break
    (late,) = set(later) - set(homes)
    full = random.choice([name for name in homes if name != leaver])
    traffic.only[ChunkPut] = [name for name in (*homes, late) if name != full]
    traffic.askers[ChunksHave] = ()
    client = await world.client(random.choice([name for name in NAMES if name not in (leaver, late)]))
    assert (await client.put_bytes(PATH, content)).copies == COPIES
    traffic.only.clear()
    traffic.held[late] = before.version
    traffic.askers[ChunksHave] = [name for name in NAMES if name != late]
    for name in homes:
        world.node(name).sweep.wake()
    await until(WAIT_SECONDS, lambda: durable_copies(world, content) == COPIES + 1, "a home lacks the chunk")
    traffic.askers[ChunksHave] = ()
    await world.on(world.machines[leaver].host, world.node(leaver).leaver.ask)
    world.loop.pause(world.machines[late].host)
    prompt = [name for name in NAMES if name != late]
    await until(WAIT_SECONDS, lambda: all(world.node(name).layout.version == after.version for name in prompt), "it does not leave")
    world.loop.resume(world.machines[late].host)
    two = [world.node(name) for name in (leaver, late)]
    found = [(one.detector, other.node_id) for one in two for other in two]
    await until(WAIT_SECONDS, lambda: all(detector.is_alive(node_id) for detector, node_id in found), "they do not find each other")
    traffic.slow[ChunksHave] = random.uniform(0.2, 2.0)
    del traffic.askers[ChunksHave]
    for node in two:
        node.sweep.wake()
    (path,) = world.machines[leaver].storage.state.chunk_files()
    for _ in range(int(LOOK_SECONDS / 0.1)):
        copies = sum(path in machine.storage.state.names for machine in world.machines.values())
        assert copies >= COPIES, f"copies were dropped that were needed: {copies} are left"
        await asyncio.sleep(0.1)
    traffic.open()
    await until(WAIT_SECONDS, lambda: world.node(late).layout.version >= after.version, "somebody is late for ever")
    await expect(world, PATH, content)


def _homes(layout: Layout, content: Buffer) -> list[str]:
    chunk_id = chunk_id_of(ChunkTag.DATA, content)
    return [layout.members[home].name for home in layout.homes(chunk_partition(chunk_id))]
