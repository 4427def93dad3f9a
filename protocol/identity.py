"""Who a node is: the hash of the key that its certificate proves.

Addresses are reused on a network with DHCP and names are chosen by people; neither
identifies anything. Owns the derivation and the text form of ids.
"""

from typing import NewType

from protocol.hashing import plain_hash

NODE_ID_BYTES = 16
PUBLIC_KEY_BYTES = 32
OP_ID_BYTES = 16
CLUSTER_ID_BYTES = 16
CHUNK_ID_BYTES = 33

NodeId = NewType("NodeId", bytes)
"""16 bytes: BLAKE3 of the raw Ed25519 public key, truncated."""
OpId = NewType("OpId", bytes)
"""16 random bytes, drawn once per intended change and repeated with every retry."""
ClusterId = NewType("ClusterId", bytes)
"""16 random bytes, drawn at genesis."""
ChunkId = NewType("ChunkId", bytes)
"""33 bytes: one byte that says what was hashed and how (`protocol.manifest.ChunkTag`), then 32 bytes of BLAKE3."""


def node_id_of(public_key: bytes) -> NodeId:
    """Return the id of the node that holds the private half of `public_key` (32 raw bytes)."""
    assert len(public_key) == PUBLIC_KEY_BYTES
    return NodeId(plain_hash(public_key, NODE_ID_BYTES))


def short(identifier: bytes) -> str:
    """Return the eight hexadecimal digits by which people tell ids apart. Not unique: for display only."""
    return identifier.hex()[:8]
