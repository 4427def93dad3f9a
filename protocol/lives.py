"""Whether a node is still what it was: what it tells of its life in a hello, what its peers remember, and what follows. Pure.

Quorums rest on members that do not forget. A disk that was put back to an earlier state (a snapshot of a virtual machine, a backup), or
that was copied and runs twice, forgets under a name that others trust. So each start is a *life*: its number (`boot`), a random token, and
how many commits of what it promises the disk has seen, in all lives. A life tells only what is durable; peers remember the highest of what
a node has told them itself, on links on which it has proved who it is, and tell it in their hellos. Gossip is no source: one corrupt record
would retire a cluster.

| a peer has seen | of a node that now is | so |
|---|---|---|
| a later boot | | its disk was put back, or another copy of it runs |
| the same boot | of another token | as well: a boot is made durable before its first packet, and never used twice |
| the same life | with more commits | the machine was put back while it ran, memory and all |
| an earlier boot | with more commits than the disk had when this life began | the disk was put back to a moment within that life |

A node that finds one of these *retires*: it gives its id up for good. Owns the judgement and the bytes. Knows neither links nor disks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Final

from protocol.codec import decode, encode
from protocol.fields import U32, U64, Binary

TOKEN_BYTES: Final = 16
LIFE: Final = "life"
"""Key in `Hello.optional`: the sender's own life."""
SEEN: Final = "seen"
"""Key in `Hello.optional`: the highest life of the receiver that the sender remembers; left out if there is none."""


@dataclass(frozen=True, slots=True)
class Life:
    """What is known of one life of a node."""

    boot: U32
    token: Annotated[bytes, Binary(TOKEN_BYTES, TOKEN_BYTES)]
    commits: U64
    """Of all lives of the node so far; each is durable before it is told."""

    def is_of(self, other: "Life") -> bool:
        """Return whether both are the same life, earlier and later."""
        return (self.boot, self.token) == (other.boot, other.token)


def told(own: Life, seen: Life | None) -> dict[str, bytes]:
    """Return what a hello carries of the own life, and of what was seen of the receiver."""
    return {LIFE: encode(own)} | ({SEEN: encode(seen)} if seen is not None else {})


def heard(optional: Mapping[str, bytes]) -> tuple[Life | None, Life | None]:
    """Return the life of the sender of a hello, and what it has seen of the receiver's, as far as it tells.

    Raises: RemoteProtocolError.
    """
    life, seen = (decode(Life, optional[key]) if key in optional else None for key in (LIFE, SEEN))
    return life, seen


def reason_to_retire(own: Life, began_with: int, seen: Life) -> str:
    """Return why a node must retire of which a peer has seen `seen`; empty if it need not. It began this life with `began_with` commits."""
    if seen.boot > own.boot:
        return f"this is start {own.boot} of it, and a peer has seen start {seen.boot}"
    if seen.boot == own.boot and seen.token != own.token:
        return f"a peer has seen another process that was start {own.boot} of it"
    if seen.commits > (own.commits if seen.is_of(own) else began_with):
        return "a peer has seen it promise what the disk knows nothing of"
    return ""


def may_follow(said: Life, seen: Life | None) -> bool:
    """Return whether what a node says may come after what was seen of it: else it will retire, and what it says counts no more.

    Within one life a hello may have overtaken another.
    """
    return seen is None or said.is_of(seen) or (said.boot > seen.boot and said.commits >= seen.commits)


def later(said: Life, seen: Life | None) -> Life:
    """Return what to remember once a node has said what may follow."""
    return replace(said, commits=max(said.commits, seen.commits)) if seen is not None else said
