"""Randomness as streams of the seed: what one part draws never changes what another one sees."""

from random import Random


class SimEntropy:
    """`peer.seams.Entropy` of one simulated host."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._streams: dict[str, Random] = {}

    def token(self, label: str, count: int) -> bytes:
        """Return bytes of the stream `label`."""
        return self._stream(label).randbytes(count)

    def uniform(self, label: str, low: float, high: float) -> float:
        """Return a number of the stream `label`."""
        return self._stream(label).uniform(low, high)

    def _stream(self, label: str) -> Random:
        if label not in self._streams:
            self._streams[label] = Random(f"{self._seed}/{label}")
        return self._streams[label]
