"""Wall clocks: for people, so they may say anything, run fast or slow, and jump."""

import asyncio

EPOCH_MILLISECONDS = 1_700_000_000_000


class SimWallClock:
    """`peer.seams.WallClock` of one simulated host."""

    def __init__(self, offset_milliseconds: int = 0, drift: float = 0.0) -> None:
        self.offset_milliseconds = offset_milliseconds
        self.drift = drift
        """By so much it runs faster: 0.1 is six seconds per minute."""

    def milliseconds(self) -> int:
        """Virtual time, off by the host's own error."""
        elapsed = asyncio.get_running_loop().time() * 1000 * (1 + self.drift)
        return max(0, EPOCH_MILLISECONDS + self.offset_milliseconds + int(elapsed))
