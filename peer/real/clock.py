"""The wall clock of this machine."""

import time


class RealWallClock:
    """`peer.seams.WallClock`."""

    def milliseconds(self) -> int:
        """Milliseconds since 1970, UTC."""
        return time.time_ns() // 1_000_000
