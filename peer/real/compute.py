"""CPU work beside the loop: hashing releases the interpreter lock, so chunks hash on other cores."""

import os
from collections.abc import Callable
from typing import TypeVar

from peer.real.threads import Threads

T = TypeVar("T")

THREADS_MAX = 4


class RealCompute:
    """`peer.seams.Compute` on a few threads."""

    def __init__(self) -> None:
        self._threads = Threads(min(THREADS_MAX, os.cpu_count() or 1), "compute")

    async def run(self, work: Callable[[], T]) -> T:
        """Return `work()`."""
        return await self._threads.run(work)
