"""Somebody whose bytes are no protocol: what he sends, and the end of a connection that wants nothing but to send it."""

import asyncio

GARBAGE = (
    b"\x94\xce\x7f\xff\xff\xff\xce\x00\x00\x00\x00",  # a header of 2 GiB
    b"\x94\xce\x00\x00\x00\x10\xce\xff\xff\xff\xff",  # a payload of 4 GiB
    b"GET / HTTP/1.1\r\nHost: shoal\r\n\r\n",
    b"\xc1",
)
"""How it begins: an array of four with lengths that no limit allows, another protocol, noise."""


class GarbageSender(asyncio.BufferedProtocol):
    """One end of such a connection."""

    transport: asyncio.Transport
    is_connected = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.is_connected = True

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return where what comes back goes: nobody looks at it."""
        return bytearray(65_536)

    def buffer_updated(self, nbytes: int) -> None:
        """Take no notice."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        self.is_connected = False
