"""The vocabulary in which messages and stored values state their fields.

A field is annotated with its Python type and one of the bounds below, for example
`Annotated[int, Unsigned(32)]`. The codec reads these annotations; nothing else does.
A wire value is what msgpack has, minus floats, extensions and free-form maps.
"""

from dataclasses import dataclass
from typing import Annotated, Final

from protocol import limits
from protocol.identity import (
    CHUNK_ID_BYTES,
    CLUSTER_ID_BYTES,
    NODE_ID_BYTES,
    OP_ID_BYTES,
    ChunkId,
    ClusterId,
    NodeId,
    OpId,
)


@dataclass(frozen=True, slots=True)
class Unsigned:
    """An integer from 0 to 2**bits - 1, or to `maximum` where that is given."""

    bits: int
    maximum: int | None = None

    @property
    def largest(self) -> int:
        """The largest value that is allowed."""
        return (1 << self.bits) - 1 if self.maximum is None else self.maximum


@dataclass(frozen=True, slots=True)
class Binary:
    """Bytes of a length within bounds, both inclusive; with `or_empty` none at all as well."""

    minimum: int
    maximum: int
    or_empty: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """UTF-8 text of at most `maximum` bytes."""

    maximum: int


@dataclass(frozen=True, slots=True)
class Items:
    """A tuple of at most `maximum` values of the annotated item type."""

    maximum: int


@dataclass(frozen=True, slots=True)
class Entries:
    """A map from text to bytes of at most `maximum` entries: the only map on the wire."""

    maximum: int
    key_bytes_max: int
    value_bytes_max: int


U8 = Annotated[int, Unsigned(8)]
U16 = Annotated[int, Unsigned(16)]
U32 = Annotated[int, Unsigned(32)]
U64 = Annotated[int, Unsigned(64)]
PartitionIndex = Annotated[int, Unsigned(16, limits.PARTITIONS - 1)]
DeadlineMilliseconds = Annotated[int, Unsigned(32, limits.DEADLINE_MILLISECONDS_MAX)]
"""Time left when the request was sent. A duration, never a point in time: two machines share no clock."""

Digest = Annotated[bytes, Binary(16, 16)]
OptionalDigest = Annotated[bytes, Binary(16, 16, or_empty=True)]
"""Empty where the thing does not exist, else 16 bytes."""
ChunkIdField = Annotated[ChunkId, Binary(CHUNK_ID_BYTES, CHUNK_ID_BYTES)]
NodeIdField = Annotated[NodeId, Binary(NODE_ID_BYTES, NODE_ID_BYTES)]
OpIdField = Annotated[OpId, Binary(OP_ID_BYTES, OP_ID_BYTES)]
NO_CLUSTER: Final = ClusterId(b"")
ClusterIdField = Annotated[ClusterId, Binary(CLUSTER_ID_BYTES, CLUSTER_ID_BYTES, or_empty=True)]
"""Empty while the node belongs to no cluster, else 16 bytes."""

NameField = Annotated[str, Text(limits.NAME_BYTES_MAX)]
ReasonField = Annotated[str, Text(limits.REASON_BYTES_MAX)]
"""One line for a person (`clipped`)."""
PathField = Annotated[str, Text(limits.PATH_BYTES_MAX)]
AddressField = Annotated[str, Text(limits.ADDRESS_BYTES_MAX)]
"""`HOST:PORT` with an IP literal; IPv6 in brackets."""
AddressesField = Annotated[tuple[AddressField, ...], Items(limits.ADDRESSES_MAX)]
ChunkIdsField = Annotated[tuple[ChunkIdField, ...], Items(limits.CHUNKS_PER_REQUEST_MAX)]
NodeIdsField = Annotated[tuple[NodeIdField, ...], Items(limits.MEMBERS_MAX)]
PartitionBitmap = Annotated[bytes, Binary(limits.PARTITIONS // 8, limits.PARTITIONS // 8)]
"""A set of partitions: bit `p % 8` (least significant first) of byte `p // 8` stands for partition p."""
Flag = bool
"""msgpack true or false."""


def clipped(reason: str) -> str:
    """Return as much of a line as a `ReasonField` takes."""
    return reason.encode()[: limits.REASON_BYTES_MAX].decode(errors="ignore")
