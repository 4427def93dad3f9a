"""What happened in a world, event by event: for the person who reads it, and for the comparison of two runs.

One line per event: seconds with nine digits, host, kind, then `key=value`. Values are numbers and short words, never an address of memory
or a hash that differs between processes, so that the lines of one seed are the same everywhere.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

LAST_EVENTS = 400
"""So many are kept where nobody asked for all."""

KINDS: Final[Mapping[str, str]] = {
    # The run.
    "begin": "the cluster has formed: operations and faults go on from here",
    "mended": "every fault is taken back, but the machines that are gone for good",
    "recovering": "every operation has ended, and the cluster has time to recover",
    "judged": "the judges read every path for the last time",
    "VIOLATION": "a promise was broken",
    # Processes.
    "start": "a process starts on a machine",
    "stop": "a process stops in good order",
    "killed": "a process ends, and its machine goes on",
    "power-cut": "a machine loses its power",
    "paused": "a process stands still",
    "resumed": "a process goes on that stood still",
    "wiped": "a machine gets an empty disk",
    "put-back": "a machine gets the disk of an earlier moment, or of another machine",
    "fault": "a fault of the plan comes true",
    "sometimes": "the node takes a rare path on purpose",
    # The network.
    "connected": "two hosts are connected",
    "refused": "nobody listens where a host connects to",
    "no-answer": "a host connects to nobody who answers",
    "reset": "a connection breaks",
    "bytes": "bytes of another host arrive",
    "cut": "what a machine sends to another one is held from now on",
    "slow": "few bytes per second pass from a machine to another one from now on",
    "whole": "what a machine sends to another one arrives again, and fast",
    # Disks.
    "write": "a file is written",
    "sync": "the content of a file is made durable",
    "rename": "a file gets another name",
    "sync-folder": "the names in a folder are made durable",
    "unlink": "a file is removed",
    "commit": "changes of a database are durable",
    "read-error": "a file cannot be read",
    "sync-error": "a sync fails, and the disk with it",
    "misdirected": "a file was written over another one",
    "rotten": "a bit flips behind the node's back",
    "unreadable": "a file lies on a bad place from now on",
    "torn": "what was not synced of a file is lost with the power, or a part of it",
    # Clients.
    "put": "a client writes a file",
    "get": "a client reads a file",
    "remove": "a client removes a file",
    "list": "a client lists a folder",
    "stat": "a client asks what a path is",
    "copy": "a client copies a file",
    "move": "a client moves a file",
    "mkdir": "a client makes a folder",
    "rmdir": "a client removes a folder that should be empty",
    "done": "an operation of a client has ended, and how",
}
"""Every kind of event, and what it is. There are no others."""


class Event(NamedTuple):
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
        """Note an event of a host, of one of `KINDS`."""
        assert kind in KINDS, f"{kind!r} is not among the kinds of events in sims/trace.py"
        self.counts[kind] += 1
        self.events.append(Event(self.now(), host, kind, fields))
