"""Every hash of the protocol, each in a BLAKE3 context of its own.

Owns the choice of hash and the separation of its uses: a chunk, a manifest and a
row key never share an input space, so bytes of one kind cannot pass for another
(BLAKE3 paper, section 2.3, key derivation mode). Knows nothing of what it hashes.
"""

from typing import Final

from blake3 import blake3

DIGEST_BYTES: Final = 32

Buffer = bytes | bytearray | memoryview

CONTEXT_MANIFEST: Final = "shoal 1 manifest"
CONTEXT_PATH: Final = "shoal 1 path partition"
CONTEXT_PLACEMENT: Final = "shoal 1 placement score"
CONTEXT_ROW: Final = "shoal 1 row state"
CONTEXT_RANGE: Final = "shoal 1 row range"
CONTEXT_DIGEST_PATH: Final = "shoal 1 digest path"
CONTEXT_LAYOUT: Final = "shoal 1 layout record"
CONTEXT_TURN: Final = "shoal 1 proposer turn"
CONTEXT_MEMBER: Final = "shoal 1 member"
CONTEXT_STORED: Final = "shoal 1 stored value"


def plain_hash(data: Buffer, length: int = DIGEST_BYTES) -> bytes:
    """Return `length` bytes of BLAKE3 of `data`, without a context: node ids and chunk addresses."""
    return blake3(data).digest(length=length)


def derived_hash(context: str, data: Buffer, length: int = DIGEST_BYTES) -> bytes:
    """Return `length` bytes of BLAKE3 of `data` in the derive-key context `context`."""
    return blake3(data, derive_key_context=context).digest(length=length)
