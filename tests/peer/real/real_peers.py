"""Peers on 127.0.0.1: honest ones with the cluster key, and strangers that speak TLS, or not, in ways of their own."""

import asyncio
import ssl
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from peer.real.certificates import ALPN, Credentials
from peer.real.keys import ClusterKey
from peer.real.network import RealNetwork

KEY, OTHER_KEY = ClusterKey(b"k" * 32), ClusterKey(b"o" * 32)
ADA, BOB = b"a" * 32, b"b" * 32
"""Seeds of node keys."""


class Link(asyncio.BufferedProtocol):
    """One end of a connection that was let in."""

    def __init__(self, proven):
        self.proven = proven
        self.received = bytearray()
        self.lost = asyncio.Event()
        self._buffer = memoryview(bytearray(1000))

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, sizehint):
        return self._buffer

    def buffer_updated(self, count):
        self.received += self._buffer[:count]

    def connection_lost(self, error):
        self.lost.set()


class Door:
    """A listener of ada, and the links that it let in."""

    def __init__(self):
        self.links = []

    def __call__(self, proven):
        self.links.append(Link(proven))
        return self.links[-1]

    async def open(self, key=KEY):
        self.listener = await RealNetwork(key, ADA).listen("127.0.0.1:0", self)
        self.address = self.listener.addresses[0]
        self.port = int(self.address.rpartition(":")[2])
        return self

    async def until(self, condition):
        while not condition():
            await asyncio.sleep(0.005)


def context_of_stranger(folder: Path, *, shows=KEY, trusts=None, alpn=ALPN, seed=BOB, chain=True) -> ssl.SSLContext:
    """Return the TLS context of a client that shows a certificate of one key and trusts the authority of another, or anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if trusts is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=Credentials(trusts, seed).ca_pem.decode())
    if alpn:
        context.set_alpn_protocols([alpn])
    if chain:
        private = Ed25519PrivateKey.from_private_bytes(seed)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = folder / "stranger.pem"
        path.write_bytes(pem + Credentials(shows, seed).certificate_pem)
        context.load_cert_chain(path)
    return context


async def is_refused(port: int, context: ssl.SSLContext | None, says: bytes = b"hello") -> bool:
    """Connect, say something, and return whether the door closes without a word."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="shoal" if context else None)
    except OSError:
        return True
    try:
        writer.write(says)
        async with asyncio.timeout(5):
            while data := await reader.read(1000):
                if context is not None:
                    return False
                assert data[0] in (21, 22), "an answer that is no TLS record"
        return True
    except OSError:
        return True
    finally:
        writer.transport.abort()
