"""What happened in a world, event by event: for the person who reads it, and for the comparison of two runs.

One line per event: seconds with nine digits, host, kind, then `key=value`. Values are numbers and short words, never an address of memory
or a hash that differs between processes, so that the lines of one seed are the same everywhere.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

LAST_EVENTS = 400
"""So many are kept where nobody asked for all."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event."""

    nanoseconds: int
    host: str
    kind: str
    fields: dict[str, int | str]

    def line(self) -> str:
        """Return the event as one line."""
        values = "".join(f" {key}={value}" for key, value in self.fields.items())
        return f"{self.nanoseconds / 1e9:14.9f} {self.host:<10} {self.kind}{values}"


class Trace:
    """The events of one run."""

    def __init__(self, *, is_full: bool = False) -> None:
        """`is_full` keeps every event, else the last ones are kept."""
        self.events: deque[Event] = deque(maxlen=None if is_full else LAST_EVENTS)
        self.counts: Counter[str] = Counter()
        """How often each kind occurred."""
        self.labels: Counter[str] = Counter()
        """How often each rare path was taken (`Faults.sometimes`)."""
        self.now: Callable[[], int] = lambda: 0
        """Virtual nanoseconds."""

    def note(self, host: str, kind: str, /, **fields: int | str) -> None:
        """Note an event of a host."""
        self.counts[kind] += 1
        self.events.append(Event(self.now(), host, kind, fields))
