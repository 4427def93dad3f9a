"""CPU work beside the loop: hashing releases the interpreter lock, so chunks hash on other cores."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

THREADS_MAX = 4


class RealCompute:
    """`peer.seams.Compute` on a few threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(min(THREADS_MAX, os.cpu_count() or 1), thread_name_prefix="compute")

    async def run(self, work: Callable[[], T]) -> T:
        """Return `work()`."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
