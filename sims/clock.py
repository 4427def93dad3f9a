"""Wall clocks: for people, so they may say anything."""

import asyncio

EPOCH_MILLISECONDS = 1_700_000_000_000


class SimWallClock:
    """`peer.seams.WallClock` of one simulated host."""

    def __init__(self, offset_milliseconds: int = 0) -> None:
        self.offset_milliseconds = offset_milliseconds

    def milliseconds(self) -> int:
        """Virtual time, off by the host's own error."""
        return EPOCH_MILLISECONDS + self.offset_milliseconds + int(asyncio.get_running_loop().time() * 1000)
