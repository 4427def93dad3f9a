"""What a model hands back when a promise was broken: the promise, and every step that led there."""

from dataclasses import dataclass
from functools import lru_cache

Step = tuple[object, ...]
"""What happened, as words and numbers; it becomes text only when somebody has to read it."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise."""

    promise: str
    history: tuple[Step, ...]

    def __str__(self) -> str:
        lines = [" ".join(str(word) for word in step) for step in self.history]
        return "\n".join([*lines, f"BROKEN: {self.promise}"])


class BrokenError(Exception):
    """Raised inside a model to end a run; `run` turns it into a Violation."""


@lru_cache(1 << 16)
def members(mask: int) -> tuple[int, ...]:
    """Return the positions of the set bits of `mask`, lowest first."""
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return tuple(found)


@lru_cache(1 << 16)
def named(mask: int) -> str:
    """Return a set of nodes for people: {0,3,4}."""
    return "{" + ",".join(str(number) for number in members(mask)) + "}"
