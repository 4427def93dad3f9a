"""News of members, each passed on so many times that all have heard it: a bounded queue.

One claim per member, for a newer one replaces the older: so there are never more than members known. What was sent least goes first,
and of those the newest, so that fresh news do not wait behind what most have heard (memberlist, TransmitLimitedQueue). Knows nothing of
time and of peers. Used by `protocol.membership`.
"""

from collections.abc import Container
from typing import Final

from protocol.identity import NodeId
from protocol.messages import MemberClaim

GOSSIP_PEERS: Final = 3
GOSSIP_SECONDS: Final = 0.2
"""Three random peers are told every 200 ms while there is something to tell, and nobody otherwise."""
RETRANSMIT_FACTOR: Final = 4


def transmissions_of(members: int) -> int:
    """Return 4 · ceil(log10(N + 1)), how often each news is sent: 4 below 10 members, 8 below 100, 12 below 1,000."""
    return RETRANSMIT_FACTOR * len(str(max(members, 1)))


class GossipQueue:
    """What one node passes on."""

    def __init__(self) -> None:
        self._by_count: list[dict[NodeId, MemberClaim]] = []
        """By how often they were sent; within one count the newest is last."""
        self._counts: dict[NodeId, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def put(self, claim: MemberClaim) -> None:
        """Pass a claim on, in place of what was passed on of that member."""
        self._drop(claim.node_id)
        self._place(claim, 0)

    def take(self, count: int, members: int, known: Container[NodeId] = ()) -> tuple[MemberClaim, ...]:
        """Return up to `count` claims for one peer, of a cluster of so many members; none about whom it has just spoken itself."""
        if not self._counts:
            return ()
        taken: list[tuple[MemberClaim, int]] = []
        kept: list[tuple[MemberClaim, int]] = []
        for sent, claims in enumerate(self._by_count):
            while claims and len(taken) < count:
                node_id, claim = claims.popitem()
                del self._counts[node_id]
                if node_id in known:
                    kept.append((claim, sent))
                else:
                    taken.append((claim, sent + 1))
        for claim, sent in (*reversed(kept), *reversed(taken)):
            if sent < transmissions_of(members):
                self._place(claim, sent)
        return tuple(claim for claim, _ in taken)

    def _place(self, claim: MemberClaim, sent: int) -> None:
        while len(self._by_count) <= sent:
            self._by_count.append({})
        self._by_count[sent][claim.node_id] = claim
        self._counts[claim.node_id] = sent

    def _drop(self, node_id: NodeId) -> None:
        sent = self._counts.pop(node_id, None)
        if sent is not None:
            del self._by_count[sent][node_id]
