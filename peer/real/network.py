"""TCP and TLS: connections whose peer is proven before a frame is parsed.

Owns listening with bounds on strangers, dialling, and the moment between handshake and protocol, in which the peer's
certificate becomes a node id. Translates `OSError` and `ssl.SSLError` into `ConnectFailed`.
"""

import asyncio
import errno
import functools
import ipaddress
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Sequence
from typing import cast

from peer.errors import ConnectFailed
from peer.real.certificates import ALPN, Credentials, proven_node_id
from peer.real.interfaces import lan_addresses
from peer.real.keys import ClusterKey
from peer.seams import Endpoint
from protocol import limits
from protocol.identity import NodeId

BACKLOG = 128
STRANGER_LOG_SECONDS = 60.0
STRANGERS_MAX = 1024
ACCEPT_PAUSE_SECONDS = 0.1
_SERVER_NAME = "shoal"

log = logging.getLogger(__name__)


class _Gate(asyncio.Protocol):
    """Stands between handshake and link: takes the peer's proven identity and makes way for the real protocol."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.protocol: asyncio.BufferedProtocol | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True)
        try:
            proven = proven_node_id(certificate)
        except ValueError:
            proven = None
        if proven is None or tls.selected_alpn_protocol() != ALPN:
            transport.abort()
            return
        self.protocol = self._endpoint(proven)
        transport.set_protocol(self.protocol)
        self.protocol.connection_made(transport)


class RealNetwork:
    """`peer.seams.Network` of this machine, under one cluster key."""

    def __init__(self, key: ClusterKey, seed: bytes) -> None:
        self._credentials = Credentials(key, seed)

    @property
    def node_id(self) -> NodeId:
        """Who this side proves to be."""
        return self._credentials.node_id

    async def listen(self, address: str, endpoint: Endpoint) -> "RealListener":
        """Accept connections at an address."""
        host, port = split_address(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except (OSError, OverflowError) as error:
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            reason = "already in use" if taken else str(getattr(error, "strerror", None) or error).partition(" (while")[0]
            raise ConnectFailed(address, reason, refused=taken) from None
        listening.setblocking(False)
        return RealListener(listening, self._credentials.server_context, endpoint)

    async def connect(self, address: str, endpoint: Endpoint, *, timeout_seconds: float) -> asyncio.BufferedProtocol:
        """Connect to an address."""
        host, port = split_address(address)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_seconds):
                _, gate = await loop.create_connection(
                    lambda: _Gate(endpoint),
                    host,
                    port,
                    ssl=self._credentials.client_context,
                    server_hostname=_SERVER_NAME,
                )
        except TimeoutError:
            raise ConnectFailed(address, f"no answer within {timeout_seconds:.1f} s") from None
        except ssl.SSLError as error:
            wrong_key = isinstance(error, ssl.SSLCertVerificationError)
            reason = "it has another key" if wrong_key else f"it does not speak our TLS ({error.reason})"
            raise ConnectFailed(address, reason, wrong_key=wrong_key) from None
        except ConnectionRefusedError:
            raise ConnectFailed(address, "nobody listens there", refused=True) from None
        except (OSError, UnicodeError) as error:
            raise ConnectFailed(address, str(getattr(error, "strerror", None) or error)) from None
        if gate.protocol is None:
            raise ConnectFailed(address, "it proves no node identity")
        return gate.protocol


class RealListener:
    """An open port."""

    def __init__(self, listening: socket.socket, context: ssl.SSLContext, endpoint: Endpoint) -> None:
        self._socket = listening
        self._host, self._port = listening.getsockname()[:2]
        self._context = context
        self._endpoint = endpoint
        self._half_open: Counter[str] = Counter()
        self._handshakes: dict[asyncio.Task[None], _Gate] = {}
        self._logged_at: dict[str, float] = {}
        self.strangers = 0
        """Connections that were refused or failed to prove themselves."""
        self._loop = asyncio.get_running_loop()
        self._accepting = self._loop.create_task(self._accept())

    @property
    def addresses(self) -> Sequence[str]:
        """Where others can reach this port, by the addresses that this machine has now."""
        hosts = lan_addresses() if ipaddress.ip_address(self._host).is_unspecified else [self._host]
        return tuple(join_address(each, self._port) for each in hosts)

    async def close(self) -> None:
        """Stop accepting."""
        unproven = [task for task, gate in self._handshakes.items() if gate.protocol is None]
        tasks = [self._accepting, *unproven]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._socket.close()

    async def _accept(self) -> None:
        while True:
            try:
                connection, peer = await self._loop.sock_accept(self._socket)
            except OSError as error:  # out of file descriptors, or the peer has gone already
                log.debug("accept: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            host = peer[0]
            if (
                self._half_open.total() >= limits.HALF_OPEN_MAX
                or self._half_open[host] >= limits.HALF_OPEN_PER_ADDRESS_MAX
            ):
                connection.close()
                self._note_stranger(host, "too many connections that prove nothing")
                continue
            self._half_open[host] += 1
            gate = _Gate(self._endpoint)
            task = self._loop.create_task(self._shake_hands(connection, host, gate))
            self._handshakes[task] = gate
            task.add_done_callback(functools.partial(self._handshake_over, connection, host))

    async def _shake_hands(self, connection: socket.socket, host: str, gate: _Gate) -> None:
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(limits.HANDSHAKE_SECONDS):
                await self._loop.connect_accepted_socket(lambda: gate, connection, ssl=self._context)
            if gate.protocol is None:
                self._note_stranger(host, "it proves no node identity")
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            self._note_stranger(host, getattr(error, "reason", None) or str(error) or "no handshake in time")

    def _handshake_over(self, connection: socket.socket, host: str, task: asyncio.Task[None]) -> None:
        """Forget a handshake, also one that was cancelled before its first step."""
        if self._handshakes.pop(task).protocol is None:
            connection.close()
        self._half_open[host] -= 1
        if not self._half_open[host]:
            del self._half_open[host]

    def _note_stranger(self, host: str, reason: str) -> None:
        """Count, and log each address once a minute at most."""
        self.strangers += 1
        now = self._loop.time()
        logged_at = self._logged_at.get(host)
        if logged_at is not None and now - logged_at < STRANGER_LOG_SECONDS:
            return
        if len(self._logged_at) >= STRANGERS_MAX:
            self._logged_at.clear()
        self._logged_at[host] = now
        log.warning("a connection from %s was refused: %s", host, reason)


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` (an IPv6 address in brackets).

    Raises: ConnectFailed.
    """
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ConnectFailed(address, "not an address: it has the form HOST:PORT")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """Return `HOST:PORT`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
