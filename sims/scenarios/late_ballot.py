"""A ballot for a version that was decided long ago arrives at last, with another record.

Its proposer has been away since. Every voter has forgotten how it voted: it must answer with what was decided, and not vote again.
"""

from dataclasses import replace

from protocol.layout import Layout
from protocol.messages import Ballot, LayoutAccept, LayoutPrepare, LayoutVote, Verdict
from sims.scenarios._common import NAMES
from sims.world import World

ROUND = 1000
ASK_SECONDS = 2.0


async def story(world: World) -> None:
    """Live through it."""
    random = world.random
    await world.found(NAMES[:3])
    proposer, *others = random.sample(NAMES[:3], 3)
    if random.random() < 0.5:
        await world.start("d")
        await world.members(4)
    node = world.node(proposer)
    ballot = Ballot(ROUND, node.node_id)
    for version in range(2, node.layout.version + 1):
        decided = await node.system.layout(version)
        assert decided is not None
        rival = Layout.from_bytes(decided).record
        members = tuple(replace(member, name=f"{member.name}2") for member in rival.members)
        for request in (
            LayoutPrepare(int(ASK_SECONDS * 1000), version, ballot),
            LayoutAccept(int(ASK_SECONDS * 1000), version, ballot, Layout(replace(rival, members=members)).data),
        ):
            for other in others:
                reply = await node.request(world.node(other).node_id, request, timeout_seconds=ASK_SECONDS)
                assert isinstance(reply.message, LayoutVote)
                vote = reply.message
                assert (vote.verdict, vote.record) == (Verdict.DECIDED, decided), f"{other} votes on layout {version} again"
