"""Judges: each holds a world to one promise, looking at it from outside.

They see what clients saw (`sims.history`) and what lies on the disks, byte by byte. They may use `protocol`, which says what bytes mean,
and never ask a node what it believes of itself. A judge raises `Violation`.
"""

from sims.oracles.amnesia import LostRowsDoNotVote
from sims.oracles.base import Oracle, Violation
from sims.oracles.bounds import Bounds
from sims.oracles.chain import LayoutsAreOne
from sims.oracles.convergence import RowsConverge
from sims.oracles.durability import AckIsDurable, DotsAreUnique, RowsTravelWhole
from sims.oracles.homes import ChunksAreHome
from sims.oracles.integrity import CorruptionIsContained
from sims.oracles.members import MembersAreSeen
from sims.oracles.memory import NobodyForgets
from sims.oracles.peace import NothingMovesInPeace
from sims.oracles.placement import MovesAreBounded
from sims.oracles.register import (
    AppliedOnce,
    FailedStaysInvisible,
    ListingIsComplete,
    NothingIsLost,
    OnlyWhatWasPut,
    ReadsAreFresh,
)

__all__ = ["Oracle", "Violation", "all_oracles"]


def all_oracles() -> list[Oracle]:
    """Return the judges of a run."""
    return [
        AckIsDurable(),
        DotsAreUnique(),
        RowsTravelWhole(),
        Bounds(),
        LayoutsAreOne(),
        OnlyWhatWasPut(),
        FailedStaysInvisible(),
        ReadsAreFresh(),
        ListingIsComplete(),
        NothingIsLost(),
        AppliedOnce(),
        ChunksAreHome(),
        CorruptionIsContained(),
        MembersAreSeen(),
        LostRowsDoNotVote(),
        MovesAreBounded(),
        NobodyForgets(),
        RowsConverge(),
        NothingMovesInPeace(),
    ]
