"""Which members this machine reaches: said to whoever has to wait or to give up, and reason not to wait in vain.

What members hold of each other is advice (`peer.cluster.detector`). It counts for no quorum: it only tells whether it makes sense to repeat
what was tried in vain a moment ago.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from peer.errors import GoneOver, LinkLost, RequestFailed
from peer.files.access import TRY_SECONDS, Access, milliseconds
from protocol.identity import NodeId
from protocol.messages import MemberState, PeerStatus, Status, StatusGet

NAMED_MAX = 5
LOOK_SECONDS = 1.0
"""How often whoever repeats what fails looks who is there."""
GONE_SECONDS = 6.0
"""Who has been dead for so long is not waited for: a process that was started anew is back sooner, and who only stood still as well."""


@dataclass(frozen=True, slots=True)
class Side:
    """The members as one machine reaches them at one moment."""

    members: int
    away: tuple[str, ...]
    """Names of those that do not answer, in order."""
    gone: frozenset[NodeId]
    """Those of them that everybody who answers has held dead for GONE_SECONDS, and those that have gone over."""
    gone_over: tuple[str, ...] = ()
    """Names of those that have gone over to another cluster, which goes on by force from this one, in order."""
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
        if self.gone_over:
            return f"this machine reaches {self.reached} of {self.members} members; {self.to_do()}"
        if self.reached >= needed:
            means = "the others hold paths of their own, which can be used"
        elif 2 * self.reached < self.members:
            means = f"if the network is split this is its smaller side: nothing is read or written from here until {needed} are reached"
        else:
            means = "from here nobody can tell whether the rest is off or cut off and at work: nothing is written until more are reached"
        return f"this machine reaches {self.reached} of {self.members} members; {means}; {self.to_do()}"

    def to_do(self) -> str:
        """Return what to do about those that are away."""
        if self.gone_over:
            return (
                f"{listed(self.gone_over)} went on by force as another cluster: connect anew, to a machine of that one "
                "(`shoal status` beside each of the two says more)"
            )
        return f"start {listed(self.away)}, or see to the network (`shoal status`, `shoal doctor`)"


class Sides:
    """Looks who is there, for all operations of a client together: they all fail at the same time."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._look: asyncio.Task[Side] | None = None
        self._looked_at = 0.0

    async def look(self, age_seconds: float = LOOK_SECONDS) -> Side:
        """Return who is there: what was asked no longer ago than `age_seconds`, by whomever, or is asked now."""
        loop = asyncio.get_running_loop()
        if self._look is None or loop.time() - self._looked_at >= age_seconds:
            self._look, self._looked_at = loop.create_task(_side(self._access)), loop.time()
        return await asyncio.shield(self._look)


async def _side(access: Access) -> Side:
    """Ask all members how they are, but for those that could not be reached a moment ago."""
    layout = access.layout
    nodes = sorted(layout.members)
    answers = dict(zip(nodes, await asyncio.gather(*(_status(access, node) for node in nodes)), strict=True))
    statuses = [answer for answer in answers.values() if isinstance(answer, Status)]
    away = [node for node, answer in answers.items() if not isinstance(answer, Status)]
    gone_over = [node for node, answer in answers.items() if isinstance(answer, GoneOver)]
    dead = [node for node in away if _is_gone([view for status in statuses for view in status.peers if view.node_id == node])]
    return Side(
        len(nodes),
        tuple(sorted(layout.members[node].name for node in away)),
        frozenset((*dead, *gone_over)),
        tuple(sorted(layout.members[node].name for node in gone_over)),
        max((status.layout_version for status in statuses), default=0),
    )


def _is_gone(views: Sequence[PeerStatus]) -> bool:
    return bool(views) and all(view.state >= MemberState.DEAD and view.away_seconds >= GONE_SECONDS for view in views)


async def _status(access: Access, node: NodeId) -> Status | GoneOver | None:
    if access.recently_refused(node):
        return None
    try:
        reply = await access.request(node, StatusGet(milliseconds(TRY_SECONDS)), timeout_seconds=TRY_SECONDS)
    except GoneOver as error:
        return error
    except (LinkLost, RequestFailed, TimeoutError):
        return None
    assert isinstance(reply.message, Status)
    return reply.message


def listed(names: Sequence[str]) -> str:
    """Return some names as a reader expects them, no more than NAMED_MAX."""
    shown = [*names[:NAMED_MAX], *([f"{len(names) - NAMED_MAX} more"] if len(names) > NAMED_MAX else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
