"""What systemd is told of a node, if it started it: the protocol of sd_notify(3), one datagram a message.

Owns that nothing of it can harm the node: a service manager that has gone is not told.
"""

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress

from peer.node import MembersChanged, NodeEvent, Notice, Ready

SOCKET_VARIABLE = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE = "WATCHDOG_USEC"
WATCHDOG_PID_VARIABLE = "WATCHDOG_PID"


class ServiceManager:
    """The service manager of this process, or none."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get(SOCKET_VARIABLE, "")
        self._address = "\0" + address[1:] if address.startswith("@") else address  # @: in the abstract namespace
        self._alive_every_seconds = 0.0
        microseconds = environment.get(WATCHDOG_VARIABLE, "")
        is_meant = environment.get(WATCHDOG_PID_VARIABLE, str(os.getpid())) == str(os.getpid())
        if is_meant and microseconds.isascii() and microseconds.isdigit():
            self._alive_every_seconds = int(microseconds) / 2_000_000  # twice as often as it asks for

    def tell(self, event: NodeEvent) -> None:
        """Tell what has happened to the node."""
        match event:
            case Ready(_, _, address, members):
                self._send("READY=1", f"STATUS=serving at {address}, members={members}")
            case MembersChanged(_, after):
                self._send(f"STATUS=serving, members={after}")
            case Notice(text):
                self._send(f"STATUS={' '.join(text.split())}")

    def tell_stopping(self) -> None:
        """Tell that the node ends."""
        self._send("STOPPING=1")

    async def keep_telling_alive(self) -> None:
        """Tell that the event loop turns, as often as the service manager wants to hear it; return at once if it does not."""
        while self._address and self._alive_every_seconds:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self._alive_every_seconds)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
            datagrams.setblocking(False)
            datagrams.sendto("\n".join(lines).encode(errors="replace"), self._address)
