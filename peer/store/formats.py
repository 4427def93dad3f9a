"""How stored values are wrapped: a version byte of their encoding, then a checksum, then the value.

A database checks its pages at best when they are torn, not when they rot, and a key can point at another key's value:
so each value carries a hash over its key and itself. What does not check out is *corrupt*, which is never the same as absent.
"""

from typing import Final

from protocol.hashing import CONTEXT_STORED, derived_hash

VALUE_VERSION: Final = 1
CHECKSUM_BYTES: Final = 8
_HEADER_BYTES: Final = 1 + CHECKSUM_BYTES


class ValueCorrupt(Exception):
    """A stored value fails its checksum or is of an encoding that this version does not know."""


def wrap(key: bytes, body: bytes) -> bytes:
    """Return `body` as it is stored under `key`."""
    return bytes([VALUE_VERSION]) + _checksum(key, body) + body


def unwrapped(value: bytes) -> bytes:
    """Return the body of a value that was wrapped a moment ago."""
    return value[_HEADER_BYTES:]


def unwrap(key: bytes, value: bytes) -> bytes:
    """Return the body of a value that was stored under `key`.

    Raises: ValueCorrupt.
    """
    if not value or value[0] != VALUE_VERSION:
        raise ValueCorrupt(f"the value of {key[:40]!r} has an unknown version")
    body = value[_HEADER_BYTES:]
    if value[1:_HEADER_BYTES] != _checksum(key, body):
        raise ValueCorrupt(f"the value of {key[:40]!r} fails its checksum")
    return body


def _checksum(key: bytes, body: bytes) -> bytes:
    return derived_hash(CONTEXT_STORED, len(key).to_bytes(4, "big") + key + body, CHECKSUM_BYTES)
