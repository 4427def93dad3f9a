"""What clients saw: every operation with the moments between which it must have happened, and what came of it.

Times are virtual seconds. A write whose outcome is not known may have taken effect, or may do so at any later time: it ends at `FOREVER`.
Nothing here comes from a node's own books.
"""

from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import Final

FOREVER: Final = float("inf")
ABSENT: Final = "absent"
"""What a read says that found nothing."""
OK, FAILED, UNKNOWN = "ok", "failed", "unknown"


@dataclass(slots=True, eq=False)
class Write:
    """One write of one path: a put, a copy, or a removal; a move is a copy and a removal."""

    number: int
    client: int
    path: str
    digest: str | None
    """Of the content, `ABSENT` for a removal, None for a copy: it may be anything that was put anywhere."""
    began: float
    size: int = 0
    read_by: float = FOREVER
    """By then it had read what it supersedes."""
    ended: float = FOREVER
    outcome: str = UNKNOWN
    version: str = ""
    copies: int = 0
    """As the result says."""
    seen: float = FOREVER
    """Since then it is certainly visible, or superseded by what is: it was acknowledged, or somebody read it."""

    @property
    def is_removal(self) -> bool:
        """Whether it removes the path."""
        return self.digest is ABSENT

    @property
    def may_be_effective(self) -> bool:
        """Whether it did take effect, or may have."""
        return self.outcome != FAILED

    def ends(self, at: float, outcome: str) -> None:
        """Note what came of it."""
        self.outcome = outcome
        if outcome == UNKNOWN:
            return
        self.ended = at
        self.read_by = min(self.read_by, at)
        if outcome == OK:
            self.seen = min(self.seen, at)


@dataclass(frozen=True, slots=True)
class Seen:
    """One read of one path that gave an answer."""

    number: int
    client: int
    path: str
    digest: str
    """Of what was read, or `ABSENT`; empty where only presence was asked for."""
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Listing:
    """One listing of one folder that came to its end."""

    number: int
    client: int
    folder: str
    names: tuple[str, ...]
    """Plain names in the order in which they came; those of concurrent versions are not among them."""
    began: float
    ended: float


@dataclass(slots=True)
class History:
    """All operations of one run."""

    writes: list[Write] = field(default_factory=list)
    folder_removals: list[Write] = field(default_factory=list)
    """Each means that its folder may have been absent at any moment until it ended, whatever came of it."""
    reads: list[Seen] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)
    finals: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """After recovery, for each path the digests of all its versions: none if there is nothing."""
    contents: dict[str, bytes] = field(default_factory=dict)
    """What was put, by digest."""

    def of(self, path: str) -> list[Write]:
        """Return the writes of a path."""
        return [write for write in self.writes if write.path == path]

    def paths(self) -> list[str]:
        """Return every path that was ever written or tried to."""
        return list(dict.fromkeys(write.path for write in self.writes))

    def note_read(self, read: Seen) -> None:
        """Take a read, and what it says of the write that it saw."""
        self.reads.append(read)
        saw = [write for write in self.of(read.path) if write.digest == read.digest or (write.digest is None and read.digest != ABSENT)]
        if read.digest and read.digest != ABSENT and len(saw) == 1:
            saw[0].seen = min(saw[0].seen, read.ended)

    def made(self, seed: int, number: int, size: int) -> tuple[bytes, str]:
        """Return the content of put `number`, and its digest."""
        random = Random(f"content {seed} {number}")
        content = (f"<{number}>".encode() + random.randbytes(size))[:size]
        digest = digest_of(content)
        self.contents[digest] = content
        return content, digest


def digest_of(content: bytes) -> str:
    """Return the name of a content in a history."""
    return blake2b(content, digest_size=8).hexdigest()
