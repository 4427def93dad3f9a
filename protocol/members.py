"""The members that one node knows: what is held of each, in an order in which they are probed, and a digest of them.

Theory of operation
-------------------
What is held of a member is a pair (incarnation, state), and of two the higher one stands: a join of a semilattice, so nodes that heard
the same claims in any order, any number of times, hold the same. `incarnation = boot << 20 | refutations`: a start outranks all that was
said of an earlier life, and a member that hears itself accused answers with its next incarnation (SWIM, Das, Gupta, Motivala, 2002,
section 4.2).

The digest is the sum, modulo 2^128, of a hash of the id and incarnation of every member that is neither dead nor gone: what has been
forgotten here and is still remembered there, as dead, makes no difference. Nor do suspicions: they end within seconds.

Owns the records, their order and the digest. Knows no time but what is written into it, and judges no claim. Used by
`protocol.membership`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from protocol import limits
from protocol.hashing import CONTEXT_MEMBER, derived_hash
from protocol.identity import NodeId
from protocol.messages import MemberState
from protocol.suspicion import Suspicion

REFUTATION_BITS: Final = 20
FORGET_SECONDS: Final = 72 * 3600
"""Who has been dead or gone for so long is dropped; the layout chain keeps the fact."""
DEAD_HEAR_SECONDS: Final = 60.0
"""For so long the dead are told as well, so that one who is not can refute."""
_MODULUS: Final = 1 << 128

Draw = Callable[[int], int]
"""Returns a random number below its argument: the machine has no randomness of its own."""


def incarnation_of(boot: int) -> int:
    """Return the first incarnation of a start."""
    return boot << REFUTATION_BITS


def boot_of(incarnation: int) -> int:
    """Return which start of the member an incarnation belongs to."""
    return incarnation >> REFUTATION_BITS


def member_hash(node_id: NodeId, incarnation: int) -> int:
    """Return what one member adds to the digest."""
    return int.from_bytes(derived_hash(CONTEXT_MEMBER, node_id + incarnation.to_bytes(8, "big"), 16), "big")


@dataclass(slots=True)
class Record:
    """What is held of one member."""

    node_id: NodeId
    incarnation: int
    state: MemberState
    """Never REFUSED, which is a kind of evidence."""
    since: float
    suspicion: Suspicion | None = None
    is_listed: bool = False
    """Whether it stands in the order of this round."""

    @property
    def is_live(self) -> bool:
        """Return whether it is neither dead nor gone."""
        return self.state < MemberState.DEAD

    def hears(self, now: float) -> bool:
        """Return whether it is told news: the living, and for a while the dead."""
        return self.is_live or (self.state is MemberState.DEAD and now < self.since + DEAD_HEAR_SECONDS)


class MemberTable:
    """All members that a node knows, itself included."""

    def __init__(self, node_id: NodeId, draw: Draw) -> None:
        self._node_id = node_id
        self._draw = draw
        self._records: dict[NodeId, Record] = {}
        self._sum = 0
        self._order: list[Record] = []
        self._position = 0
        self.live_count = 0
        """N of all formulas: who is neither dead nor gone, this node included."""

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records.values())

    def get(self, node_id: NodeId) -> Record | None:
        """Return what is held of a member."""
        return self._records.get(node_id)

    @property
    def digest(self) -> bytes:
        """Equal where the same members are held to live, in the same incarnations."""
        return self._sum.to_bytes(16, "big")

    def add(self, node_id: NodeId, now: float) -> Record | None:
        """Return a record, of somebody who has never been there, or None when there is no room."""
        if len(self._records) >= limits.MEMBERS_KNOWN_MAX:
            others = (record for record in self if not record.is_live and record.node_id != self._node_id)
            gone = min(others, key=lambda record: record.since, default=None)
            if gone is None:
                return None
            del self._records[gone.node_id]
        record = self._records[node_id] = Record(node_id, -1, MemberState.LEFT, now)
        return record

    def change(self, record: Record, incarnation: int, state: MemberState, since: float) -> None:
        """Hold something else of a member."""
        self._count(record, -1)
        record.incarnation, record.state, record.since, record.suspicion = incarnation, state, since, None
        self._count(record, 1)
        if record.is_live and not record.is_listed and record.node_id != self._node_id:
            self._list(record)

    def forget(self, now: float) -> None:
        """Drop whom nobody needs to remember."""
        for record in list(self):
            if not record.is_live and now >= record.since + FORGET_SECONDS:
                del self._records[record.node_id]

    def next_target(self, now: float) -> Record | None:
        """Return whom to probe now: each once per round, in an order drawn anew for each, so within 2N - 1 periods at most."""
        for _ in range(2):
            while self._position < len(self._order):
                record = self._order[self._position]
                self._position += 1
                if record.is_live:
                    return record
            self._begin_round(now)
        return None

    def choose(self, count: int, suits: Callable[[Record], bool]) -> list[Record]:
        """Return up to `count` random members other than this one that suit: neighbours in the order of the round, from anywhere on."""
        order = self._order
        start = self._draw(len(order)) if order else 0
        chosen: list[Record] = []
        for offset in range(len(order)):
            if len(chosen) == count:
                break
            record = order[(start + offset) % len(order)]
            if suits(record):
                chosen.append(record)
        return chosen

    def _count(self, record: Record, sign: int) -> None:
        if record.is_live:
            self.live_count += sign
            self._sum = (self._sum + sign * member_hash(record.node_id, record.incarnation)) % _MODULUS

    def _list(self, record: Record) -> None:
        """Put a member somewhere into what is left of the round."""
        record.is_listed = True
        self._order.append(record)
        self._swap(self._position + self._draw(len(self._order) - self._position), len(self._order) - 1)

    def _begin_round(self, now: float) -> None:
        for record in self._order:
            record.is_listed = record.hears(now)
        self._order = [record for record in self._order if record.is_listed]
        self._position = 0
        for index in range(len(self._order) - 1, 0, -1):
            self._swap(index, self._draw(index + 1))

    def _swap(self, one: int, other: int) -> None:
        order = self._order
        order[one], order[other] = order[other], order[one]
