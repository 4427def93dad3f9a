"""One question by multicast DNS, to see whether it leaves an interface and whether this machine hears it.

Knows nothing of nodes: what goes out asks for a name that nobody has, so nobody answers. The kernel gives a multicast packet to the
listeners of its own machine as well, through the same firewall as one from the wire.
"""

import asyncio
import secrets
import socket
import struct
from dataclasses import dataclass
from typing import Final

GROUP: Final = "224.0.0.251"
PORT: Final = 5353
DOMAIN: Final = ("_shoal", "_tcp", "local")
ECHO_SECONDS: Final = 1.0
PACKET_BYTES_MAX: Final = 9000
_HEADER: Final = struct.pack("!6H", 0, 0, 1, 0, 0, 0)  # RFC 1035, section 4.1.1: one question, nothing else
_SERVICE_IN: Final = struct.pack("!2H", 33, 1)


@dataclass(frozen=True, slots=True)
class Echo:
    """What became of one question that was sent on the interface of an address."""

    address: str
    fault: str
    """Why it could not be sent; empty when it was."""
    heard: bool
    """Whether this machine has received it."""


async def echo(address: str) -> Echo:
    """Send a question on the interface of `address`, and listen for it for ECHO_SECONDS."""
    question = _question(secrets.token_hex(8))
    try:
        with _joined(address) as group:
            group.sendto(question, (GROUP, PORT))
            return Echo(address, "", await _hears(group, question))
    except OSError as error:
        return Echo(address, error.strerror or str(error), heard=False)


def _question(name: str) -> bytes:
    labels = (label.encode() for label in (name, *DOMAIN))
    return _HEADER + b"".join(bytes([len(label)]) + label for label in labels) + b"\0" + _SERVICE_IN


def _joined(address: str) -> socket.socket:
    """Return a socket that has joined the group on the interface of `address`, beside whoever else has the port."""
    group = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        group.setblocking(False)
        group.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        group.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        group.bind(("", PORT))
        interface = socket.inet_aton(address)
        group.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + interface)
        group.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
    except OSError:
        group.close()
        raise
    return group


async def _hears(group: socket.socket, question: bytes) -> bool:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(ECHO_SECONDS):
            while await loop.sock_recv(group, PACKET_BYTES_MAX) != question:
                pass
    except TimeoutError:
        return False
    return True
