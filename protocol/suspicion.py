"""How long a member stays suspect, and who says so: the evidence against one incarnation of it.

Lifeguard (Dadgar, Phillips, Currey, 2018, section IV-B): whoever suspects alone may be the one who is sick, so it waits long; each other
member that comes to suspect the same shortens the wait, logarithmically. Owns the formulas and the evidence. Knows nothing of
timers and of what follows. Used by `protocol.membership`.
"""

import math
from typing import Final

from protocol.identity import NodeId

SUSPICION_PERIODS: Final = 3
"""Least length of a suspicion in probe periods, below ten members: short, for writes go to fallback nodes meanwhile and a wrong "dead"
costs little (memberlist: 4)."""
SUSPICION_MAX_FACTOR: Final = 6
PERIOD_SECONDS: Final = 1.0
REFUSERS: Final = 2
"""So many that were refused prove that nobody listens there. One alone may have a firewall of its own before its eyes."""


def suspicion_min_seconds(members: int) -> float:
    """Return 3 · max(1, log10 N) · 1 s: 3 s up to 10 members, 6 s at 100, 9 s at 1,000. News take log N rounds to reach all."""
    return SUSPICION_PERIODS * max(1.0, math.log10(max(members, 1))) * PERIOD_SECONDS


def suspicion_max_seconds(members: int) -> float:
    """Return 6 times the least: for who suspects alone."""
    return SUSPICION_MAX_FACTOR * suspicion_min_seconds(members)


def confirmations_wanted(members: int) -> int:
    """Return how many others have to confirm before the least wait is enough: 2, and 0 below 4 members, where nobody could."""
    return 2 if members >= 4 else 0


def suspicion_seconds(members: int, confirmations: int) -> float:
    """Return how long a member stays suspect, from the beginning, when `confirmations` others suspect it as well."""
    least, most = suspicion_min_seconds(members), suspicion_max_seconds(members)
    wanted = confirmations_wanted(members)
    if confirmations >= wanted:
        return least
    return max(least, most - (most - least) * math.log(confirmations + 1) / math.log(wanted + 1))


class Suspicion:
    """What is held against one incarnation of a member."""

    def __init__(self, now: float, members: int) -> None:
        self._began_at = now
        self._members = members
        self._accusers: dict[NodeId, None] = {}
        self._refused: dict[NodeId, None] = {}
        self.is_closed = False
        """Whether it runs out now, whoever else confirms it."""

    def add(self, accuser: NodeId, *, refused: bool) -> bool:
        """Take evidence; return whether it is worth being passed on."""
        news = refused and accuser not in self._refused and len(self._refused) < REFUSERS
        if news:
            self._refused[accuser] = None
        if accuser not in self._accusers and len(self._accusers) <= confirmations_wanted(self._members):
            self._accusers[accuser] = None
            news = True
        return news

    @property
    def accuser(self) -> NodeId:
        """Who was the first."""
        return next(iter(self._accusers))

    @property
    def deadline(self) -> float:
        """When the member is to be held dead, unless it refutes."""
        return self._began_at + suspicion_seconds(self._members, len(self._accusers) - 1)

    def is_refused(self, observers: int) -> bool:
        """Return whether so many were refused that the member is dead at once; of `observers` that are there, no more can be."""
        return len(self._refused) >= max(1, min(REFUSERS, observers))
