"""Peers that have the key and do not keep the rules, and one process that has to live with them."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from peer.link import Served
from peer.links import Links
from peer.real.certificates import Credentials
from peer.real.keys import ClusterKey, new_key
from peer.real.network import RealNetwork, split_address
from protocol.codec import decode_header, encode_header
from protocol.errors import CloseCode
from protocol.framing import FrameReader, frame_parts
from protocol.hashing import Buffer, plain_hash
from protocol.identity import NodeId
from protocol.messages import Answer, Close, Hello, LinkKind, Message, Peers, PeersGet, Request, Role
from protocol.testing.pair import some_hello

SECONDS = 10.0

Handler = Callable[[Request, memoryview], Awaitable[Served]]


async def until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def frame(message: Message, request_id: int = 0, payload: Buffer = b"", kind: LinkKind = LinkKind.CTL) -> bytes:
    """Return the bytes of one frame."""
    return b"".join(bytes(part) for part in frame_parts(encode_header(message, request_id), payload, kind))


class Process:
    """Links on real TLS: the process that is attacked, or an honest client of it."""

    def __init__(self, key: ClusterKey, name: str, handler: Handler) -> None:
        self.name = name
        self.handler = handler
        self.network = RealNetwork(key, plain_hash(name.encode()))
        self.node_id: NodeId = self.network.node_id
        self.links = Links(self.network, self)
        self.bugs: list[BaseException] = []

    def hello(self, kind: LinkKind, peer: NodeId) -> Hello:
        return some_hello(self.name, kind, node_id=self.node_id, addresses=())

    def layout_version(self) -> int:
        return 0

    def admit(self, peer: Hello) -> tuple[CloseCode, str] | None:
        return None

    def peer_up(self, peer: Hello) -> None: ...

    def peer_refuses(self, node_id: NodeId) -> None: ...

    def answer_at_once(self, peer: Hello, request: Request) -> Answer | None:
        return None

    async def serve(self, peer: Hello, request: Request, payload: memoryview, deadline: float) -> Served:
        return await self.handler(request, payload)

    def fail(self, error: BaseException) -> None:
        self.bugs.append(error)


class Scene:
    """The attacked process, its door, and an honest client that asks all the time."""

    def __init__(self, key: ClusterKey, victim: Process, address: str) -> None:
        self.key = key
        self.victim = victim
        self.address = address
        self.answered = 0
        """Requests of the honest client, each answered within the timeout: one that is not fails the test."""

    async def attacker(self, name: str = "mallory", kind: LinkKind | None = LinkKind.CTL) -> "Attacker":
        """Return somebody with the key who has said hello for a link of this kind, or (None) has said nothing yet."""
        attacker = await Attacker.connect(self.key, self.address, name)
        if kind is not None:
            await attacker.say_hello(kind)
        return attacker

    async def ask_on(self) -> None:
        honest = Process(self.key, "honest", nobody_asks)
        honest.links.learn_addresses(self.victim.node_id, [self.address])
        try:
            while True:
                await honest.links.request(self.victim.node_id, PeersGet(10_000), timeout_seconds=SECONDS)
                self.answered += 1
                await asyncio.sleep(0.01)
        finally:
            await honest.links.close()

    async def goes_on(self) -> None:
        """Wait until the honest client was answered twice more."""
        target = self.answered + 2
        await until(lambda: self.answered >= target)


async def nobody_asks(request: Request, payload: memoryview) -> Served:
    raise AssertionError(request)


@asynccontextmanager
async def scene(handler: Handler = nobody_asks) -> AsyncIterator[Scene]:
    """Yield a process under attack that answers `PeersGet` to everybody, and all else by `handler`."""

    async def answer(request: Request, payload: memoryview) -> Served:
        return Peers(()) if isinstance(request, PeersGet) else await handler(request, payload)

    key = new_key()
    victim = Process(key, "victim", answer)
    listener = await victim.network.listen("127.0.0.1:0", victim.links.accept)
    one = Scene(key, victim, listener.addresses[0])
    asking = asyncio.create_task(one.ask_on())
    try:
        await until(lambda: one.answered > 0)
        yield one
        await one.goes_on()
        assert not asking.done()
        assert not victim.bugs
    finally:
        asking.cancel()
        outcomes = await asyncio.gather(asking, return_exceptions=True)
        await victim.links.close()
        await listener.close()
    assert isinstance(outcomes[0], asyncio.CancelledError), outcomes


class Attacker:
    """A TLS connection of somebody with the key, and full power over the bytes on it."""

    def __init__(self, node_id: NodeId, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.node_id = node_id
        self.reader = reader
        self.writer = writer
        self.kind = LinkKind.CTL
        self._frames = FrameReader(LinkKind.CTL, lambda header, payload_bytes: True)
        self._arrived: list[Message] = []

    @classmethod
    async def connect(cls, key: ClusterKey, address: str, name: str) -> "Attacker":
        """Prove an identity made from the name, and say nothing."""
        credentials = Credentials(key, plain_hash(name.encode()))
        host, port = split_address(address)
        # Small buffers: what is not read stays with the sender.
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (host, port))
        streams = await asyncio.open_connection(sock=connection, ssl=credentials.client_context, server_hostname="shoal", limit=1024)
        return cls(credentials.node_id, *streams)

    async def say_hello(self, kind: LinkKind) -> None:
        """Bring the link up as a client."""
        self.kind = kind
        self.send(frame(some_hello("mallory", kind, node_id=self.node_id, role=Role.CLIENT, addresses=())))
        assert isinstance(await self.hear(), Hello)
        self._frames.set_kind(kind)

    def send(self, data: bytes) -> None:
        """Send bytes; a connection that is gone takes no more."""
        if not self.writer.is_closing():
            self.writer.write(data)

    def ask(self, request: Request, request_id: int, payload: Buffer = b"") -> None:
        """Send a request."""
        self.send(frame(request, request_id, payload, self.kind))

    async def hear(self) -> Message:
        """Return the next message."""
        async with asyncio.timeout(SECONDS):
            while not self._arrived:
                data = await self.reader.read(1 << 16)
                if not data:
                    raise EOFError
                self._arrived += [decode_header(each.header)[0] for each in self._frames.receive(data)]
        return self._arrived.pop(0)

    async def hears_close(self) -> Close:
        """Return the close that ends the link, past whatever comes before it."""
        while not isinstance(message := await self.hear(), Close):
            pass
        return message

    async def is_cut_off(self) -> None:
        """Wait, without reading, until the other side has given up."""
        async with asyncio.timeout(SECONDS):
            while not self.writer.is_closing():
                self.send(b"x")
                await asyncio.sleep(0.01)

    def leave(self) -> None:
        """Drop the connection."""
        self.writer.transport.abort()
