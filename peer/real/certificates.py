"""From the cluster key to mutual TLS 1.3.

Every holder of the key derives the same certificate authority, byte for byte, and signs a certificate for its own random node key.
There is nothing to exchange, and nothing to expire: clock skew must not break a join. A node is who its certificate proves: the
node id is the hash of the raw public key in it.
"""

import datetime
import os
import ssl
import tempfile
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from peer.real.keys import ClusterKey
from protocol.hashing import plain_hash
from protocol.identity import NodeId, node_id_of

ALPN: Final = "shoal/1"
_NOT_BEFORE: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER: Final = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
_CA_NAME: Final = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shoal cluster")])
_CA_SERIAL: Final = 1


class Credentials:
    """What one node or client shows and demands on a connection."""

    def __init__(self, key: ClusterKey, seed: bytes) -> None:
        """Make the certificate of the node whose Ed25519 key has `seed` (32 bytes)."""
        authority = Ed25519PrivateKey.from_private_bytes(key.ca_seed)
        private = Ed25519PrivateKey.from_private_bytes(seed)
        self.node_id = _node_id(private.public_key())
        self.ca_pem = ca_certificate(authority).public_bytes(Encoding.PEM)
        self.certificate_pem = _node_certificate(authority, private.public_key()).public_bytes(Encoding.PEM)
        private_pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.server_context = self._context(ssl.PROTOCOL_TLS_SERVER, private_pem)
        self.client_context = self._context(ssl.PROTOCOL_TLS_CLIENT, private_pem)

    def _context(self, protocol: int, private_pem: bytes) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols([ALPN])
        context.load_verify_locations(cadata=self.ca_pem.decode())
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0  # every link proves itself anew
        # The standard library loads a certificate chain from a file only: a private one that is gone when this returns.
        descriptor, path = tempfile.mkstemp(prefix="shoal-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(private_pem + self.certificate_pem)
            context.load_cert_chain(path)
        finally:
            os.unlink(path)
        return context


def ca_certificate(authority: Ed25519PrivateKey) -> x509.Certificate:
    """Return the certificate of the authority: the same bytes on every machine (Ed25519 signs deterministically)."""
    return (
        x509.CertificateBuilder()
        .subject_name(_CA_NAME)
        .issuer_name(_CA_NAME)
        .public_key(authority.public_key())
        .serial_number(_CA_SERIAL)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority, None)
    )


def proven_node_id(certificate: bytes) -> NodeId:
    """Return the node id that a DER certificate proves.

    Raises: ValueError when its key is no Ed25519 key.
    """
    public = x509.load_der_x509_certificate(certificate).public_key()
    if not isinstance(public, Ed25519PublicKey):
        raise ValueError("the certificate has no Ed25519 key")
    return _node_id(public)


def _node_certificate(authority: Ed25519PrivateKey, public: Ed25519PublicKey) -> x509.Certificate:
    node_id = _node_id(public)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node_id.hex())])
    serial = int.from_bytes(plain_hash(node_id, 8), "big") >> 1 | 1
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(_CA_NAME)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(authority, None)
    )


def _node_id(public: Ed25519PublicKey) -> NodeId:
    return node_id_of(public.public_bytes(Encoding.Raw, PublicFormat.Raw))
