"""Randomness from the operating system."""

import random
import secrets


class RealEntropy:
    """`peer.seams.Entropy`. The labels matter in a simulation only."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def token(self, label: str, count: int) -> bytes:
        """Return unpredictable bytes."""
        return secrets.token_bytes(count)

    def uniform(self, label: str, low: float, high: float) -> float:
        """Return a number from [low, high)."""
        return self._random.uniform(low, high)
