"""Files as chunks: how content is cut, addressed and listed.

Owns the choice of chunk size, the address of a chunk, the shape of content in a row
and the format of manifest blobs. Knows nothing of where chunks lie.

Content takes one of three shapes, by size alone, so that equal bytes have equal chunks:

- up to INLINE_BYTES_MAX: the bytes themselves, in the row;
- up to INLINE_CHUNKS_MAX chunks: the list of chunk ids, in the row;
- above: one manifest blob (`depth` 1) that lists chunk ids, or a blob of blobs (`depth` 2).

A manifest blob is the concatenation of at most MANIFEST_FANOUT chunk ids, nothing else: its
length is a multiple of 33 and it is stored like a chunk, under an id of its own tag, so that a file which
happens to look like a manifest can never be taken for one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final

from protocol import limits
from protocol.fields import U8, U32, Binary, ChunkIdField, Items
from protocol.hashing import CONTEXT_MANIFEST, Buffer, derived_hash, plain_hash
from protocol.identity import CHUNK_ID_BYTES, ChunkId

STRATEGY_FIXED: Final = 1
"""Chunks of one fixed size, the last one shorter."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


class ChunkTag(IntEnum):
    """First byte of a chunk id: what the hash was taken of, and in which BLAKE3 context."""

    DATA = 1
    """Plain BLAKE3 of a chunk's bytes."""
    MANIFEST = 2
    """BLAKE3 of a manifest blob in the context of manifests."""


def chunk_id_of(tag: ChunkTag, data: Buffer) -> ChunkId:
    """Return the id of `data` as a chunk of kind `tag`."""
    if tag is ChunkTag.DATA:
        return ChunkId(bytes([tag]) + plain_hash(data))
    return ChunkId(bytes([tag]) + derived_hash(CONTEXT_MANIFEST, data))


def chunk_matches(chunk_id: ChunkId, data: Buffer) -> bool:
    """Return whether `data` is what `chunk_id` names; False as well for a tag that nobody knows."""
    try:
        tag = ChunkTag(chunk_id[0])
    except ValueError:
        return False
    return chunk_id_of(tag, data) == chunk_id


def chunk_partition(chunk_id: ChunkId) -> int:
    """Return the partition of a chunk: the top PART_POWER bits of its hash."""
    return int.from_bytes(chunk_id[1:3], "big") >> (16 - limits.PART_POWER)


def chunk_range(tag: ChunkTag, partition: int) -> tuple[bytes, bytes]:
    """Return the least bytes that are not below any id of a chunk of kind `tag` in `partition`, and the least that are above all."""
    first = tag << 16 | partition << 16 - limits.PART_POWER
    return first.to_bytes(3, "big"), (first + (1 << 16 - limits.PART_POWER)).to_bytes(3, "big")


def chunk_bytes_for(size: int | None) -> int:
    """Return the chunk size for content of `size` bytes; None stands for a stream of unknown size."""
    if size is None:
        return MIB
    if size < 16 * MIB:
        return 256 * KIB
    return MIB if size <= 4 * GIB else 4 * MIB


@dataclass(frozen=True, slots=True, order=True)
class Content:
    """Where the bytes of a version are. `protocol.manifest.content_fault` says what makes one invalid."""

    strategy: U8
    """How the content was cut: STRATEGY_FIXED, or 0 when there are no chunks."""
    chunk_bytes: U32
    """Size of every chunk but the last; 0 when there are no chunks."""
    depth: U8
    """0: `chunks` are the data chunks in order. 1 or 2: `chunks` is the one root blob of a tree that deep."""
    chunks: Annotated[tuple[ChunkIdField, ...], Items(limits.INLINE_CHUNKS_MAX)]
    inline: Annotated[bytes, Binary(0, limits.INLINE_BYTES_MAX)]
    """The bytes themselves; empty when there are chunks."""


NO_CONTENT: Final = Content(0, 0, 0, (), b"")
"""Content of folders, of tombstones and of empty files."""


def inline_content(data: bytes) -> Content:
    """Return content that carries `data` (at most INLINE_BYTES_MAX bytes) itself."""
    assert len(data) <= limits.INLINE_BYTES_MAX
    return Content(0, 0, 0, (), data)


def chunk_count(content: Content, size: int) -> int:
    """Return the number of data chunks of `size` bytes of content."""
    return -(-size // content.chunk_bytes) if content.chunk_bytes else 0


def content_fault(content: Content, size: int) -> str | None:
    """Return what contradicts itself in `content` of `size` bytes, or None."""
    if not content.chunks:
        if content.strategy or content.chunk_bytes or content.depth:
            return "content without chunks has a strategy, chunk size or depth"
        return None if len(content.inline) == size else "inline content has another length than the size says"
    if content.inline or size <= limits.INLINE_BYTES_MAX:
        return "content that fits inline is in chunks"
    if content.strategy != STRATEGY_FIXED:
        return f"unknown chunking strategy {content.strategy}"
    if not 0 < content.chunk_bytes <= limits.CHUNK_BYTES_MAX:
        return f"chunk size {content.chunk_bytes} is out of range"
    wanted_tag = ChunkTag.DATA if content.depth == 0 else ChunkTag.MANIFEST
    if any(chunk[0] != wanted_tag for chunk in content.chunks):
        return "a chunk id has the wrong tag"
    count = chunk_count(content, size)
    if content.depth == 0:
        return None if len(content.chunks) == count else "the chunk list does not fit the size"
    if content.depth > limits.MANIFEST_DEPTH_MAX or len(content.chunks) != 1:
        return "a manifest tree has one root and at most two levels"
    fewest = limits.INLINE_CHUNKS_MAX if content.depth == 1 else limits.MANIFEST_FANOUT
    return None if fewest < count <= limits.MANIFEST_FANOUT**content.depth else "the depth does not fit the number of chunks"


def pack_manifest(chunks: Sequence[ChunkId]) -> bytes:
    """Return the manifest blob that lists `chunks` (1 to MANIFEST_FANOUT ids)."""
    assert 0 < len(chunks) <= limits.MANIFEST_FANOUT
    return b"".join(chunks)


def unpack_manifest(blob: Buffer, depth: int) -> tuple[ChunkId, ...]:
    """Return the chunk ids that a verified manifest blob lists, `depth` levels above the data.

    Raises: ValueError when the blob is empty, too long or not a whole number of ids, or an id has the tag of another level.
    """
    data = bytes(blob)
    count, rest = divmod(len(data), CHUNK_ID_BYTES)
    if rest or not 0 < count <= limits.MANIFEST_FANOUT:
        raise ValueError(f"a manifest blob of {len(data)} bytes")
    tag = ChunkTag.DATA if depth == 1 else ChunkTag.MANIFEST
    if any(each != tag for each in data[::CHUNK_ID_BYTES]):
        raise ValueError("a manifest blob that lists an id of another level")
    return tuple(ChunkId(data[at : at + CHUNK_ID_BYTES]) for at in range(0, len(data), CHUNK_ID_BYTES))


def chunk_span(content: Content, size: int, index: int) -> tuple[int, int]:
    """Return (offset, length) of data chunk `index`."""
    offset = index * content.chunk_bytes
    assert 0 <= offset < size
    return offset, min(content.chunk_bytes, size - offset)
