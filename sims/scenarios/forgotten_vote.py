"""A replica votes for a write and forgets it; the write reaches another one only after it has made up for its loss from that one.

It loses all its rows, or a bit of this one flips on its disk.
Its coordinator may not know anything of the loss, and has a majority with that vote: itself, the replica that has forgotten, and the
one that got it late. If it says that the write is done, then whoever is asked later knows it, though these two are cut off.
"""

import asyncio

from peer.errors import RequestFailed
from protocol.errors import ErrorCode
from protocol.identity import OpId
from protocol.manifest import inline_content
from protocol.messages import Published, RowPublish
from protocol.paths import row_partition
from protocol.versions import Kind
from sims.formed import switch_on
from sims.oracles.disks import rows_of
from sims.scenarios._common import NAMES, again, cut_off, until, versions
from sims.world import World, look_at

PATH = "/f"
CONTENT = b"what was voted for"
QUIET_SECONDS = 3.0
"""Everybody has met everybody by then."""
PUBLISH_SECONDS = 6.0
LATE_SECONDS = 1.5
"""A coordinator waits two seconds for its replicas."""
ARRIVAL_SECONDS = 0.02
RECOVERY_SECONDS = 30.0


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    switch_on(world, NAMES)
    await asyncio.gather(*(world.start(name) for name in NAMES))
    await world.members(len(NAMES))
    await asyncio.sleep(QUIET_SECONDS)
    coordinator, voter, late, *others = random.sample(NAMES, len(NAMES))
    for name in (late, *others):
        world.lan.cut(coordinator, name)
    reader = await world.client(voter)
    began = world.loop.time()
    writing = asyncio.get_running_loop().create_task(_write(world, coordinator))
    writing.add_done_callback(look_at)
    await until(LATE_SECONDS, lambda: any(rows_of(world.machines[voter])), f"{voter} has not got the row")
    await asyncio.sleep(ARRIVAL_SECONDS)
    for one, other in ((coordinator, voter), (voter, coordinator)):
        world.lan.cut(one, other)
    if random.random() < 0.5:
        world.lose_rows(voter, damaged=random.random() < 0.5)
        await world.start(voter)
    else:
        world.machines[voter].storage.rot_row(PATH, random)
        await again(lambda: versions(reader, PATH))  # somebody has to come across it
    await asyncio.sleep(began + LATE_SECONDS - world.loop.time())
    world.lan.mend(coordinator, late)
    is_done = await writing
    await until(RECOVERY_SECONDS, lambda: _has_recovered(world, voter), f"{voter} has not made up for its loss")
    cut_off(world, (coordinator, late))
    client = await world.client(voter)
    found = await again(lambda: versions(client, PATH))
    assert found == [CONTENT] or not is_done, "a write that was acknowledged is not there"
    world.lan.heal()
    await again(lambda: versions(client, PATH))


def _has_recovered(world: World, name: str) -> bool:
    return not world.node(name).system.lost_at and not world.machines[name].storage.databases["ns"].rotten


async def _write(world: World, name: str) -> bool:
    """Have a node coordinate a write; return whether it says that it is done."""
    node, partition = world.node(name), row_partition(PATH)
    request = RowPublish(
        deadline_milliseconds=int(PUBLISH_SECONDS * 1000),
        partition=partition,
        stamp=node.layout.cfg(partition),
        op_id=OpId(bytes(range(16))),
        path=PATH,
        context=(),
        kind=Kind.FILE,
        size=len(CONTENT),
        mode=0o644,
        modified_milliseconds=0,
        writer="story",
        content=inline_content(CONTENT),
        holders=(),
    )
    try:
        reply = await world.on(world.machines[name].host, lambda: node.request(node.node_id, request, timeout_seconds=PUBLISH_SECONDS))
    except RequestFailed as failed:
        if failed.code is not ErrorCode.OUTCOME_UNKNOWN:
            raise
        return False
    except TimeoutError:
        return False
    assert isinstance(reply.message, Published)
    return True
