"""Rare paths made common, and CPU work done at once."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from sims.loop import current_host
from sims.trace import Trace

T = TypeVar("T")

SHARES = (1.0, 1.0, 5.0)
"""How a label's share of the cases compares with that of its run."""


@dataclass(slots=True)
class RarePaths:
    """How often the nodes of one world take their rare paths."""

    label_share: float
    """This share of the places that ask is active on a machine,"""
    call_share: float
    """and says yes in this share of the cases, or in a few times as many: each label by itself."""


class SimFaults:
    """`peer.seams.Faults`: a share of the labels is active in a run, and then now and then."""

    def __init__(self, random: Random, trace: Trace, rare_paths: RarePaths) -> None:
        self._random = random
        self._trace = trace
        self._rare_paths = rare_paths
        self._share: dict[str, float] = {}

    def sometimes(self, label: str) -> bool:
        """Return True rarely, and only for labels that this run has drawn."""
        if label not in self._share:
            is_active = self._random.random() < self._rare_paths.label_share
            self._share[label] = self._random.choice(SHARES) if is_active else 0.0
        if self._random.random() >= self._share[label] * self._rare_paths.call_share:
            return False
        self._trace.labels[label] += 1
        self._trace.note(current_host(), "sometimes", label=label)
        return True


class SimCompute:
    """`peer.seams.Compute` without threads: others may run before and after, never meanwhile."""

    async def run(self, work: Callable[[], T]) -> T:
        """Return `work()`."""
        await asyncio.sleep(0)
        return work()
