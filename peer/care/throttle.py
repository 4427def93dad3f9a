"""Evens out what goes over the network for nobody who waits for it: chunks that are fetched to be held.

One throttle for each direction of a node. It is asked before a chunk moves and spaces chunks so that in any second no more than the limit
begins to move, even if chunks differ in size: of those that begin within one second all but the last take their share of the rest of
the limit, (limit - largest), before the next one begins, and the last one has room in what is left. (The generic cell rate algorithm,
ITU-T I.371, without bursts.) Only where the limit is less than twice the largest chunk a single one can exceed it.

Knows nothing of what moves.
"""

import asyncio


class Throttle:
    """What one node moves in one direction."""

    def __init__(self, bytes_per_second: int) -> None:
        self._limit = bytes_per_second
        self._largest = 0
        self._free_at = 0.0

    async def take(self, size: int, until: float = float("inf")) -> bool:
        """Wait until `size` bytes may begin to move, in the order of the calls; return False, at once, if that is later than `until`."""
        now = asyncio.get_running_loop().time()
        growth = max(0, size - self._largest)
        rate = max(self._limit - self._largest - growth, self._limit / 2)
        start = max(now, self._free_at) + growth / rate
        if start > until:
            return False
        self._largest += growth
        self._free_at = start + size / rate
        await asyncio.sleep(start - now)
        return True
