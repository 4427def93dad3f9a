"""A node's port under garbage, while clients work: `python -m tests.fuzz.port [CONNECTIONS]`.

Three nodes as processes of this machine. Clients put files, read them back and compare, all the time, over old and new connections. To one
of the nodes come connections of strangers and of peers that have the key and do not keep the rules. It holds when no process has
ended, no log has a traceback, no request of a client failed and the node's memory is what it was.
"""

import asyncio
import random
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from peer import Client
from peer.cli.local_nodes import LocalNode, LocalNodes
from peer.errors import ShoalError
from peer.real import loop
from peer.real.certificates import Credentials
from peer.real.keys import ClusterKey
from peer.real.network import split_address
from protocol import limits
from protocol.codec import encode_header
from protocol.framing import frame_parts
from protocol.hashing import plain_hash
from protocol.identity import NodeId
from protocol.manifest import ChunkTag, chunk_id_of
from protocol.messages import ChunkPut, Credit, LayoutGet, LinkKind, Message, Ping, Role, StatusGet
from protocol.testing.pair import some_hello
from tests.fuzz.properties import link_seeds

MIB = 1 << 20
ATTACKERS = 20
"""Connections at one time: fewer than may be half open, so that most are heard out and clients find room."""
ADDRESSES = tuple(f"127.0.1.{number}" for number in range(1, 5))
IDENTITIES = 20
CLIENTS = 2
REQUESTS_PER_CLIENT = 40
FILE_BYTES = (100, 6_000, 70_000)
WHOLE_FILE_BYTES = 24 * MIB
"""More than payload memory holds at once, three times over: what the attack took of it must be given back."""
ANSWER_SECONDS = 0.3
"""How long an attacker listens to whoever lets it."""
REST_SECONDS = limits.HANDSHAKE_SECONDS + 2.0
START_SECONDS = 60.0
GROWTH_BYTES_MAX = 48 * MIB
"""What the node may have more at the end than after the first tenth of the attack."""


@dataclass
class Report:
    """What was done and what became of it."""

    kinds: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    """Connections that were closed on as they came."""
    requests: int = 0
    failures: list[str] = field(default_factory=list)
    """Requests of clients that failed."""
    crashes: list[str] = field(default_factory=list)
    """Nodes that ended, and lines of their logs that no node should write."""
    memory: list[int] = field(default_factory=list)
    """Resident bytes of the attacked node: before, after each tenth of the attack, and after a rest."""
    peak: int = 0
    descriptors: tuple[int, int] = (0, 0)
    """Open files of the attacked node, before and after."""
    log_lines: int = 0
    """What the attacked node wrote to its log."""
    seconds: float = 0.0

    @property
    def faults(self) -> list[str]:
        """What should not have been."""
        grown = self.memory[-1] - self.memory[1]
        faults = [*self.failures, *self.crashes]
        if grown > GROWTH_BYTES_MAX:
            faults.append(f"the node's memory has grown by {grown // MIB} MiB")
        return faults


# -- the attack --------------------------------------------------------------


class Attack:
    """Whoever comes to the port of one node."""

    def __init__(self, key: ClusterKey, address: str, seed: int) -> None:
        self.report = Report()
        self._host, self._port = split_address(address)
        self._noise = random.Random(seed)
        self._identities = [Credentials(key, plain_hash(b"mallory %d" % number)) for number in range(IDENTITIES)]
        self._contexts = [each.client_context for each in self._identities]
        self._examples = list(link_seeds())
        self._session = b""
        self._kinds: dict[str, tuple[int, Callable[[], Awaitable[None]]]] = {
            "stranger: garbage": (200, self._garbage),
            "stranger: a TLS handshake cut off": (120, self._cut_handshake),
            "stranger: a whole session replayed": (100, self._replayed_session),
            "stranger: a byte now and then": (30, self._slow_handshake),
            "stranger: silence": (2, self._silence),
            "with key: garbage": (80, self._garbage_inside),
            "with key: malformed frames": (200, self._malformed),
            "with key: oversized frames": (80, self._oversized),
            "with key: a frame cut off": (80, self._cut_frame),
            "with key: replayed frames": (60, self._replayed_frames),
            "with key: a byte now and then": (30, self._slow_frame),
            "with key: asks and does not read": (10, self._does_not_read),
            "with key: silence": (8, self._silence_inside),
        }

    async def run(self, connections: int, tenth: Callable[[], None]) -> None:
        """Make so many connections, and call `tenth` ten times on the way."""
        await self._record_session()
        names = list(self._kinds)
        drawn = names + self._noise.choices(names, [self._kinds[name][0] for name in names], k=max(0, connections - len(names)))
        self._noise.shuffle(drawn)
        waiting = list(enumerate(drawn, start=1))
        waiting.reverse()

        async def work() -> None:
            while waiting:
                number, name = waiting.pop()
                with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                    await self._kinds[name][1]()
                self.report.kinds[name] += 1
                if number % max(1, connections // 10) == 0:
                    tenth()

        await asyncio.gather(*(work() for _ in range(ATTACKERS)))

    async def _connect(self, context: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(limits.HANDSHAKE_SECONDS):
            return await asyncio.open_connection(
                self._host,
                self._port,
                ssl=context,
                server_hostname="shoal" if context is not None else None,
                local_addr=(self._noise.choice(ADDRESSES), 0),
            )

    async def _send(self, data: bytes, *, listen: float = ANSWER_SECONDS) -> None:
        reader, writer = await self._connect()
        await _say(reader, writer, data, listen)

    async def _inside(
        self, kind: LinkKind | None
    ) -> tuple[NodeId, asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect with the key; say hello for a link of this kind, unless it is None."""
        index = self._noise.randrange(IDENTITIES)
        node_id = self._identities[index].node_id
        try:
            reader, writer = await self._connect(self._contexts[index])
        except OSError:
            self.report.refused += 1
            raise
        if kind is not None:
            writer.write(hello_of(node_id, kind))
        return node_id, reader, writer

    # strangers

    async def _garbage(self) -> None:
        await self._send(self._noise.randbytes(self._noise.choice((1, 5, 200, 20_000))))

    async def _cut_handshake(self) -> None:
        await self._send(self._session[: self._noise.randrange(1, len(self._session))], listen=0.01)

    async def _replayed_session(self) -> None:
        await self._send(self._session)

    async def _slow_handshake(self) -> None:
        reader, writer = await self._connect()
        for at in range(self._noise.randrange(20, 60)):
            writer.write(self._session[at : at + 1])
            await asyncio.sleep(0.01)
        await _say(reader, writer, b"", 0.0)

    async def _silence(self) -> None:
        await self._send(b"", listen=limits.HANDSHAKE_SECONDS + 1.0)

    # with the key

    async def _garbage_inside(self) -> None:
        _, reader, writer = await self._inside(self._noise.choice((None, LinkKind.CTL, LinkKind.BULK)))
        await _say(reader, writer, self._noise.randbytes(self._noise.choice((1, 12, 300, 70_000))), ANSWER_SECONDS)

    async def _malformed(self) -> None:
        kind = self._noise.choice((LinkKind.CTL, LinkKind.BULK))
        _, reader, writer = await self._inside(kind)
        data = bytearray(self._noise.choice(self._examples)[2:])
        for _ in range(self._noise.randrange(1, 4)):
            at = self._noise.randrange(len(data))
            data[at : at + self._noise.randrange(3)] = self._noise.randbytes(self._noise.randrange(3))
        whole = bytes(data)
        if self._noise.random() < 0.7:  # a header that does not fit the message, in a frame that fits the header
            whole = b"".join(bytes(part) for part in frame_parts(whole[13:200], b"", kind))
        await _say(reader, writer, whole, ANSWER_SECONDS)

    async def _oversized(self) -> None:
        _, reader, writer = await self._inside(self._noise.choice((None, LinkKind.CTL, LinkKind.BULK)))
        lengths = self._noise.choice(((1 << 30, 0), (0xFFFFFFFF, 0xFFFFFFFF), (20, 9 * MIB), (limits.CTL_FRAME_BYTES_MAX, 0)))
        prefix = b"\x94\xce" + lengths[0].to_bytes(4, "big") + b"\xce" + lengths[1].to_bytes(4, "big")
        await _say(reader, writer, prefix + bytes(self._noise.choice((0, 100, 70_000))), ANSWER_SECONDS)

    async def _cut_frame(self) -> None:
        _, reader, writer = await self._inside(LinkKind.BULK)
        put = ChunkPut(60_000, chunk_id_of(ChunkTag.DATA, b"x"), forward=False)
        data = frame(put, 1, bytes(self._noise.choice((1000, 70_000, 4 * MIB))), LinkKind.BULK)
        await _say(reader, writer, data[: self._noise.randrange(1, min(len(data), 70_000))], 0.02)

    async def _replayed_frames(self) -> None:
        node_id, reader, writer = await self._inside(LinkKind.CTL)
        again = self._noise.choice((hello_of(node_id, LinkKind.CTL), frame(StatusGet(1000), 7), frame(Ping(1)), frame(Credit(0))))
        await _say(reader, writer, again * self._noise.randrange(2, 200), ANSWER_SECONDS)

    async def _slow_frame(self) -> None:
        _, reader, writer = await self._inside(LinkKind.CTL)
        data = frame(StatusGet(1000), 1)
        for at in range(len(data)):
            writer.write(data[at : at + 1])
            await asyncio.sleep(0.02)
        await _say(reader, writer, b"", 0.05)

    async def _does_not_read(self) -> None:
        _, _, writer = await self._inside(LinkKind.CTL)
        writer.transport.pause_reading()
        for first in range(1, 3000, limits.REQUESTS_IN_FLIGHT_MAX):
            if writer.is_closing():
                break
            ids = range(first, first + limits.REQUESTS_IN_FLIGHT_MAX)
            writer.write(b"".join(frame(LayoutGet(1000, 0), request_id) for request_id in ids))
            await asyncio.sleep(0.02)
        writer.transport.abort()

    async def _silence_inside(self) -> None:
        _, reader, writer = await self._inside(None)
        await _say(reader, writer, b"", limits.HANDSHAKE_SECONDS + 1.0)

    async def _record_session(self) -> None:
        """Keep what a peer with the key sends in a whole session, as somebody on the wire sees it."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._contexts[0].wrap_bio(incoming, outgoing, server_hostname="shoal")
        reader, writer = await self._connect()
        is_done = False
        while not is_done:
            try:
                tls.do_handshake()
                is_done = True
            except ssl.SSLWantReadError:
                pass
            self._flush(outgoing, writer)
            if not is_done:
                incoming.write(await reader.read(65536))
        tls.write(hello_of(self._identities[0].node_id, LinkKind.CTL) + frame(StatusGet(1000), 1))
        self._flush(outgoing, writer)
        await _say(reader, writer, b"", ANSWER_SECONDS)

    def _flush(self, outgoing: ssl.MemoryBIO, writer: asyncio.StreamWriter) -> None:
        data = outgoing.read()
        self._session += data
        writer.write(data)


async def _say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes, listen: float) -> None:
    """Send, listen until the other side closes or time is up, and be gone."""
    try:
        writer.write(data)
        with suppress(TimeoutError):
            async with asyncio.timeout(listen):
                while await reader.read(65536):
                    pass
    finally:
        writer.transport.abort()


def frame(message: Message, request_id: int = 0, payload: bytes = b"", kind: LinkKind = LinkKind.CTL) -> bytes:
    """Return the bytes of one frame."""
    return b"".join(bytes(part) for part in frame_parts(encode_header(message, request_id), payload, kind))


def hello_of(node_id: NodeId, kind: LinkKind) -> bytes:
    """Return the hello of a client."""
    return frame(some_hello("mallory", kind, node_id=node_id, role=Role.CLIENT, addresses=()))


# -- the clients -------------------------------------------------------------


async def work(name: str, key: ClusterKey, address: str, report: Report) -> None:
    """Put, get and compare until cancelled, with a new client now and then."""
    noise = random.Random(name)
    while True:
        try:
            async with Client.connect(address, key=key.text) as client:
                report.requests += 1
                for number in range(REQUESTS_PER_CLIENT):
                    path, data = f"/{name}/{number}", noise.randbytes(noise.choice(FILE_BYTES))
                    await client.put_bytes(path, data)
                    report.requests += 1
                    if await client.get_bytes(path) != data:
                        report.failures.append(f"{path} came back as something else")
                    report.requests += 1
                    await asyncio.sleep(0.02)
        except ShoalError as error:
            report.failures.append(f"{type(error).__name__}: {error}")


async def whole_file(key: ClusterKey, address: str, report: Report) -> None:
    """Put and get a file that needs the memory that the attack has asked for."""
    data = random.Random(0).randbytes(WHOLE_FILE_BYTES)
    try:
        async with Client.connect(address, key=key.text) as client:
            await asyncio.gather(*(client.put_bytes(f"/whole/{number}", data) for number in range(3)))
            if await client.get_bytes("/whole/0") != data:
                report.failures.append("a whole file came back as something else")
            status = await client.status()
            report.failures += [f"{member.name} is {member.state}" for member in status.members if member.state != "alive"]
    except ShoalError as error:
        report.failures.append(f"after the attack: {error}")


# -- the run -----------------------------------------------------------------


async def attack(connections: int, seed: int = 1) -> Report:
    """Start the nodes, attack one of them under load, and return what became of it."""
    with tempfile.TemporaryDirectory(prefix="shoal-port-") as name:
        nodes = LocalNodes(Path(name), ["ada", "ben", "cleo"])
        try:
            await nodes.start(START_SECONDS)
            return await _attack(nodes, nodes.nodes[1], connections, seed)
        finally:
            await nodes.stop()


async def _attack(nodes: LocalNodes, victim: LocalNode, connections: int, seed: int) -> Report:
    one = Attack(nodes.key, victim.address, seed)
    report = one.report
    clients = [asyncio.create_task(work(f"client{number}", nodes.key, victim.address, report)) for number in range(CLIENTS)]
    await asyncio.sleep(2.0)
    report.memory.append(resident(victim))
    descriptors = open_files(victim)
    began_at = time.monotonic()

    def tenth() -> None:
        report.memory.append(resident(victim))
        if connections >= 10_000:
            made = report.kinds.total()
            print(f"  {made:,} connections, {report.requests:,} requests, {report.memory[-1] // MIB} MiB", flush=True)

    await one.run(connections, tenth)
    report.seconds = time.monotonic() - began_at
    for client in clients:
        client.cancel()
    outcomes = await asyncio.gather(*clients, return_exceptions=True)
    report.failures += [repr(each) for each in outcomes if not isinstance(each, asyncio.CancelledError)]
    await asyncio.sleep(REST_SECONDS)
    if has_ended(victim):
        report.crashes += faults_of(victim)
        return report
    report.descriptors = descriptors, open_files(victim)
    report.memory.append(resident(victim))
    report.peak = resident(victim, "VmHWM")
    await whole_file(nodes.key, victim.address, report)
    report.log_lines = len(victim.log.read_text(errors="replace").splitlines())
    for node in nodes.nodes:
        report.crashes += faults_of(node)
    return report


def has_ended(node: LocalNode) -> bool:
    """Return whether the process of a node is gone."""
    return not Path(f"/proc/{node.pid}/status").exists()


def faults_of(node: LocalNode) -> list[str]:
    """Return what a node did that no input may make it do."""
    if has_ended(node):
        return [f"{node.name} has ended: {node.last_words()}"]
    lines = node.log.read_text(errors="replace").splitlines() if node.log.exists() else []
    return [f"{node.name} logged: {line}" for line in lines if "Traceback" in line or "never retrieved" in line or "rror:" in line]


def resident(node: LocalNode, what: str = "VmRSS") -> int:
    """Return a node's resident bytes, or (VmHWM) the most it ever had."""
    status = Path(f"/proc/{node.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{what}:"))


def open_files(node: LocalNode) -> int:
    """Return how many files and connections a node has open."""
    return len(list(Path(f"/proc/{node.pid}/fd").iterdir()))


def run(connections: int) -> int:
    """Attack, print what became of it, and return the exit code."""
    if not connections:
        return 0
    print(f"port: {connections:,} connections to a node of three, beside {CLIENTS} clients", flush=True)
    report = loop.run(attack(connections))
    for kind, count in sorted(report.kinds.items()):
        print(f"  {count:7,}  {kind}")
    steps = " ".join(str(each // MIB) for each in report.memory)
    print(
        f"port: {report.kinds.total():,} connections in {report.seconds:.0f} s ({report.refused:,} with key refused as they came), "
        f"{len(report.crashes)} crashes; {report.requests:,} requests of clients, {len(report.failures)} failed\n"
        f"port: memory of the node, MiB: {steps}, {report.peak // MIB} at most; "
        f"open files {report.descriptors[0]} before, {report.descriptors[1]} after; {report.log_lines} lines in its log"
    )
    for fault in report.faults[:20]:
        print(f"port: {fault}", file=sys.stderr)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
