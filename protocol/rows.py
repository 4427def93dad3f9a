"""Digests of rows: what two replicas compare instead of the rows themselves."""

from collections.abc import Iterable
from typing import Final

from protocol.codec import encode
from protocol.hashing import CONTEXT_RANGE, CONTEXT_ROW, derived_hash
from protocol.versions import Row

ROW_DIGEST_BYTES: Final = 16


def row_bytes(row: Row) -> bytes:
    """Return a row encoded, as it travels and as it is stored."""
    return encode(row)


def digest_of(encoded: bytes) -> bytes:
    """Return the digest of an encoded row: equal exactly when two replicas know the same of its path."""
    return derived_hash(CONTEXT_ROW, encoded, ROW_DIGEST_BYTES)


def row_digest(row: Row) -> bytes:
    """Return the digest of a row."""
    return digest_of(row_bytes(row))


def range_digest(digests: Iterable[bytes]) -> bytes:
    """Return the digest of a range of rows, given theirs in order of name."""
    return derived_hash(CONTEXT_RANGE, b"".join(digests), ROW_DIGEST_BYTES)
