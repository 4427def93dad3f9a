"""Additive digests of rows: by what two replicas find out where they differ without reading everything.

Theory of operation
-------------------
The digest of a set of rows is the sum of their row digests modulo 2^128 (Bellare, Micciancio, "A new paradigm for collision-free hashing:
incrementality at reduced cost", EUROCRYPT 1997, with addition as the group operation). A row digest is a hash, in a context of its own,
of the path and all that is known of it (`protocol.rows`), so equal sums mean equal sets unless somebody searches for a collision, and
members do not. A sum does not depend on order, is kept up by one subtraction and one addition when a row changes, and the digest of
a partition is the sum of those of its buckets. That of no rows is 0.

A row lies in one of DIGEST_BUCKETS buckets of its partition, by the first bits of the hash of its path. Where two replicas differ they
compare the *marks* of the rows of the differing buckets: path hash and row digest.

Owns the arithmetic. Knows nothing of who compares with whom (`peer.care.reconcile`), nor of how digests are
kept (`peer.store.row_digests`).
"""

from collections.abc import Iterable, Sequence
from typing import Final

from protocol.hashing import CONTEXT_DIGEST_PATH, Buffer, derived_hash
from protocol.limits import DIGEST_BUCKETS
from protocol.rows import ROW_DIGEST_BYTES

PATH_HASH_BYTES: Final = 16
MARK_BYTES: Final = PATH_HASH_BYTES + ROW_DIGEST_BYTES
NOTHING: Final = bytes(ROW_DIGEST_BYTES)
"""The digest of no rows."""
_MODULUS: Final = 1 << 8 * ROW_DIGEST_BYTES
_BUCKET_SHIFT: Final = 8 - (DIGEST_BUCKETS - 1).bit_length()


def path_hash(path: str) -> bytes:
    """Return what stands for `path` in a mark."""
    return derived_hash(CONTEXT_DIGEST_PATH, path.encode(), PATH_HASH_BYTES)


def bucket_of(hashed: bytes) -> int:
    """Return the bucket of the path with that hash."""
    return hashed[0] >> _BUCKET_SHIFT


class PartitionDigest:
    """The digests of the buckets of one partition, as they are kept and updated."""

    __slots__ = ("_buckets", "total")

    def __init__(self, data: bytes = b"") -> None:
        """Take up `data` as it was packed; without it there are no rows.

        Raises: ValueError when that is no packed digest.
        """
        self._buckets = bytearray(data or DIGEST_BUCKETS * NOTHING)
        if len(self._buckets) != DIGEST_BUCKETS * ROW_DIGEST_BYTES:
            raise ValueError(f"{len(data)} bytes are no digests of {DIGEST_BUCKETS} buckets")
        self.total = sum(map(_number, self.buckets())) % _MODULUS
        """Digest of the whole partition, as a number."""

    def replace(self, path: str, before: bytes, after: bytes) -> None:
        """Note that the digest of the row of `path` is `after` and no longer `before`; empty where there is no row."""
        change = _number(after) - _number(before)
        at = bucket_of(path_hash(path)) * ROW_DIGEST_BYTES
        bucket = (_number(self._buckets[at : at + ROW_DIGEST_BYTES]) + change) % _MODULUS
        self._buckets[at : at + ROW_DIGEST_BYTES] = bucket.to_bytes(ROW_DIGEST_BYTES, "big")
        self.total = (self.total + change) % _MODULUS

    def pack(self) -> bytes:
        """Return the digests of all buckets, one behind the other."""
        return bytes(self._buckets)

    def buckets(self) -> tuple[bytes, ...]:
        """Return the digest of each bucket."""
        data = bytes(self._buckets)
        return tuple(data[at : at + ROW_DIGEST_BYTES] for at in range(0, len(data), ROW_DIGEST_BYTES))


def digest_of_total(total: int) -> bytes:
    """Return a total, or a sum of several, as it travels."""
    return (total % _MODULUS).to_bytes(ROW_DIGEST_BYTES, "big")


def differing_buckets(left: Sequence[bytes], right: Sequence[bytes]) -> list[int]:
    """Return the buckets whose digests differ, ascending; a list that is too short has nothing behind its end."""
    padded = [tuple(digests) + (NOTHING,) * (DIGEST_BUCKETS - len(digests)) for digests in (left, right)]
    return [bucket for bucket in range(DIGEST_BUCKETS) if padded[0][bucket] != padded[1][bucket]]


def pack_buckets(buckets: Iterable[int]) -> bytes:
    """Return a set of buckets as a bitmap of the wire (`protocol.messages.BucketBitmap`)."""
    return sum(1 << bucket for bucket in buckets).to_bytes(DIGEST_BUCKETS // 8, "little")


def unpack_buckets(bitmap: bytes) -> list[int]:
    """Return the buckets in a bitmap, ascending."""
    return [bucket for bucket in range(DIGEST_BUCKETS) if bitmap[bucket >> 3] >> (bucket & 7) & 1]


def _number(digest: Buffer) -> int:
    return int.from_bytes(digest, "big")
