"""Which members this machine reaches: said to whoever has to wait or to give up, and reason not to wait in vain.

What members hold of each other is advice (`peer.cluster.detector`). It counts for no quorum: it only tells whether it makes sense to repeat
what was tried in vain a moment ago.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from peer.errors import LinkLost, RequestFailed
from peer.files.access import TRY_SECONDS, Access, milliseconds
from protocol.identity import NodeId
from protocol.messages import MemberState, PeerStatus, Status, StatusGet

NAMED_MAX = 5
GONE_SECONDS = 6.0
"""Who has been dead for so long is not waited for: a process that was started anew is back sooner, and who only stood still as well."""


@dataclass(frozen=True, slots=True)
class Side:
    """The members as one machine reaches them at one moment."""

    members: int
    away: tuple[str, ...]
    """Names of those that do not answer, in order."""
    gone: frozenset[NodeId]
    """Those of them that everybody who answers has held dead for GONE_SECONDS."""
    layout_version: int = 0
    """The newest that is in force anywhere, as far as is answered."""

    @property
    def reached(self) -> int:
        """How many answer."""
        return self.members - len(self.away)

    def waiting(self, *, is_joint: bool) -> str:
        """Return what is waited for, in one line."""
        whom = f"{listed(self.away)} to answer" if self.away else "a majority to answer"
        return f"waiting for {whom}" + (", or for the layout that is changing to be taken back" if is_joint else "")

    def meaning(self) -> str:
        """Return what it means for a path whose replicas do not answer, and what to do."""
        if not self.away:
            return "all members can be reached by now: try again; if it stays so, `shoal status` says why"
        needed = self.members // 2 + 1
        if self.reached >= needed:
            means = "the others hold paths of their own, which can be used"
        elif 2 * self.reached < self.members:
            means = f"if the network is split this is its smaller side: nothing is read or written from here until {needed} are reached"
        else:
            means = "from here nobody can tell whether the rest is off or cut off and at work: nothing is written until more are reached"
        return (
            f"this machine reaches {self.reached} of {self.members} members; {means}; "
            f"start {listed(self.away)}, or see to the network (`shoal status`, `shoal doctor`)"
        )


async def side_of(access: Access) -> Side:
    """Ask all members how they are, but for those that could not be reached a moment ago."""
    layout = access.layout
    nodes = sorted(layout.members)
    answers = await asyncio.gather(*(_status(access, node) for node in nodes))
    statuses = [status for status in answers if status is not None]
    away = [node for node, status in zip(nodes, answers, strict=True) if status is None]
    return Side(
        len(nodes),
        tuple(sorted(layout.members[node].name for node in away)),
        frozenset(node for node in away if _is_gone([view for status in statuses for view in status.peers if view.node_id == node])),
        max((status.layout_version for status in statuses), default=0),
    )


def _is_gone(views: Sequence[PeerStatus]) -> bool:
    return bool(views) and all(view.state >= MemberState.DEAD and view.away_seconds >= GONE_SECONDS for view in views)


async def _status(access: Access, node: NodeId) -> Status | None:
    if access.recently_refused(node):
        return None
    try:
        reply = await access.request(node, StatusGet(milliseconds(TRY_SECONDS)), timeout_seconds=TRY_SECONDS)
    except (LinkLost, RequestFailed, TimeoutError):
        return None
    assert isinstance(reply.message, Status)
    return reply.message


def listed(names: Sequence[str]) -> str:
    """Return some names as a reader expects them, no more than NAMED_MAX."""
    shown = [*names[:NAMED_MAX], *([f"{len(names) - NAMED_MAX} more"] if len(names) > NAMED_MAX else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
