"""What a user sees of a row: entries, the results of operations, and the names of concurrent versions."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from protocol.identity import ChunkId, short
from protocol.paths import join, name_of, parent_of
from protocol.versions import Dot, Kind, Row, Version, winner

LATEST_MILLISECONDS = 253_402_300_799_999
"""The end of the year 9999: a clock may be wrong by more."""


@dataclass(frozen=True, slots=True)
class PutResult:
    """A put that is committed."""

    path: str
    version: str
    size: int
    copies: int
    """Machines that hold the row and every chunk durably, as far as it was waited for."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a folder."""

    path: str
    name: str
    type: str
    """`file` or `dir`."""
    size: int
    modified_milliseconds: int
    mode: int
    version: str
    writer: str
    conflict: bool
    """Whether this is a concurrent version beside the one that bears the plain name."""


@dataclass(frozen=True, slots=True)
class Stat:
    """One path, looked at closely."""

    entry: Entry
    chunks: int
    copies: int
    """Copies of the chunk that has the fewest, as counted now; for content without chunks what the layout wants of its row."""
    conflicts: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """Where one chunk lies."""

    index: int
    chunk_id: ChunkId
    size: int
    nodes: tuple[str, ...]


def version_text(dot: Dot) -> str:
    """Return a version as people see it: its coordinator and number."""
    return f"{short(dot.actor)}.{dot.counter}"


def entry_of(row: Row, version: Version) -> Entry:
    """Return what a user sees of one version in a row."""
    conflict = version != winner(row)
    name = name_of(row.path)
    if conflict:
        name = _conflict_name(name, version)
    return Entry(
        path=join(parent_of(row.path), name),
        name=name,
        type="dir" if version.kind is Kind.DIRECTORY else "file",
        size=version.size,
        modified_milliseconds=version.modified_milliseconds,
        mode=version.mode,
        version=version_text(version.dot),
        writer=version.writer,
        conflict=conflict,
    )


_CONFLICT = re.compile(r" \(conflict [^()/]* \d{4}-\d\d-\d\d \d\d\.\d\d\.\d\d\.\d{3} [0-9a-f]{8}\.\d+\)")


def _conflict_name(name: str, version: Version) -> str:
    """Return `name (conflict WRITER TIME VERSION).ext`. The time is that of the clock which ordered the versions.

    Writer and time say to people which it is, and are the same for versions of one millisecond; the version tells these apart.
    """
    milliseconds_utc = min(version.hlc >> 16, LATEST_MILLISECONDS)
    moment = datetime.fromtimestamp(milliseconds_utc // 1000, UTC)
    stamp = f"{moment:%Y-%m-%d %H.%M.%S}.{milliseconds_utc % 1000:03d}"
    writer = re.sub(r"[()/]", "_", version.writer)
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    return f"{stem} (conflict {writer} {stamp} {version_text(version.dot)}){dot}{extension}"


def base_of_conflict(name: str) -> str | None:
    """Return the name that `name` is a concurrent version of, if it has that form."""
    base, count = _CONFLICT.subn("", name)
    return base if count == 1 else None
