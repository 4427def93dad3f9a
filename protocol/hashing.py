"""Every hash of the protocol, each in a BLAKE3 context of its own.

Owns the choice of hash and the separation of its uses: a chunk, a manifest and a
row key never share an input space, so bytes of one kind cannot pass for another
(BLAKE3 paper, section 2.3, key derivation mode). Knows nothing of what it hashes.
"""

from blake3 import blake3

DIGEST_BYTES = 32


def chunk_hash(payload: bytes | bytearray | memoryview) -> bytes:
    """Return the address of a chunk: plain BLAKE3 of its bytes, 32 bytes."""
    return blake3(payload).digest()


def derived_hash(context: str, payload: bytes | bytearray | memoryview, length: int = DIGEST_BYTES) -> bytes:
    """Return `length` bytes of BLAKE3 of `payload` in the derive-key context `context`."""
    return blake3(payload, derive_key_context=context).digest(length=length)
