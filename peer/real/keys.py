"""The cluster key: 256 bits in one line of text, and what is derived from it.

    shoal1-XXXX...   RFC 4648 base32, lower case, without padding, of 32 bytes of secret and 4 bytes of checksum

From the secret, by HKDF-SHA256 (RFC 5869) without salt: the seed of the certificate authority (`shoal 1 ca`) and the key of the
discovery tag (`shoal 1 mdns`). Whoever holds the key can join: it is kept in files of mode 0600.
"""

import base64
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocol.hashing import derived_hash

SECRET_BYTES: Final = 32
CHECKSUM_BYTES: Final = 4
PREFIX: Final = "shoal1-"
_CONTEXT_CHECKSUM: Final = "shoal 1 key checksum"


@dataclass(frozen=True, slots=True)
class ClusterKey:
    """The secret that makes a machine a possible member."""

    secret: bytes

    def __repr__(self) -> str:
        return "ClusterKey(...)"

    @property
    def text(self) -> str:
        """The key as one line."""
        body = self.secret + derived_hash(_CONTEXT_CHECKSUM, self.secret, CHECKSUM_BYTES)
        return PREFIX + base64.b32encode(body).decode().rstrip("=").lower()

    @property
    def ca_seed(self) -> bytes:
        """Seed of the Ed25519 key of the cluster's certificate authority."""
        return self._derive(b"shoal 1 ca")

    @property
    def tag(self) -> str:
        """What clusters on one LAN tell each other apart by in discovery: no oracle for guessing the key."""
        return hmac.digest(self._derive(b"shoal 1 mdns"), b"cluster-tag", "sha256")[:8].hex()

    def _derive(self, info: bytes) -> bytes:
        return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(self.secret)


def new_key() -> ClusterKey:
    """Return a fresh random key."""
    return ClusterKey(secrets.token_bytes(SECRET_BYTES))


def parse_key(text: str) -> ClusterKey:
    """Return the key that a line of text states.

    Raises: ValueError, in one line, that never repeats the text.
    """
    line = text.strip().lower()
    if not line.startswith(PREFIX):
        raise ValueError(f"not a cluster key: it begins with {PREFIX}")
    encoded = line[len(PREFIX) :].upper()
    try:
        body = base64.b32decode(encoded + "=" * (-len(encoded) % 8))
    except ValueError:
        raise ValueError("not a cluster key: it has characters that no key has") from None
    if len(body) != SECRET_BYTES + CHECKSUM_BYTES:
        raise ValueError("not a cluster key: it is too short or too long")
    key = ClusterKey(body[:SECRET_BYTES])
    if body[SECRET_BYTES:] != derived_hash(_CONTEXT_CHECKSUM, key.secret, CHECKSUM_BYTES) or key.text != line:
        raise ValueError("not a cluster key: its checksum does not match, a character is mistyped")
    return key
