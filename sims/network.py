"""The simulated LAN: who listens where, how long bytes travel, which links are cut or slow, what dies with a host."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from random import Random

from peer.errors import ConnectFailed
from peer.seams import Endpoint
from protocol.identity import NodeId
from sims.loop import SimLoop, context_of
from sims.trace import Trace
from sims.transport import SimTransport

BASE_SECONDS = (0.0001, 0.001)
"""Bounds of the delay that each pair of machines has for good."""
JITTER_SECONDS = 0.001
TAIL_SHARE = 0.001
TAIL_SECONDS = (0.02, 0.3)
"""One piece in a thousand is late."""
WILDCARD = "0.0.0.0"
"""Stands for the machine itself, in the address to listen on."""
ANY_PORTS = range(40_000, 65_536)
"""Where port 0 looks for a free one."""


class Lan:
    """All hosts of one world."""

    def __init__(self, loop: SimLoop, random: Random, trace: Trace | None = None) -> None:
        self.loop = loop
        self.random = random
        self.trace = trace if trace is not None else Trace()
        self._listening: dict[str, tuple[str, NodeId, Endpoint]] = {}
        self._ends: list[SimTransport] = []
        self._cuts: dict[tuple[str, str], int] = {}
        self._stalled: dict[tuple[str, str], list[Callable[[], None]]] = {}
        self._silent: dict[str, None] = {}
        """Machines without power: they answer nothing, not even that nobody listens."""
        self._base: dict[tuple[str, str], float] = {}
        self._rates: dict[tuple[str, str], float] = {}

    # -- faults --------------------------------------------------------------

    def cut(self, source: str, target: str) -> None:
        """Stall everything from machine `source` to machine `target`. What is cut twice has to be healed twice."""
        if (source, target) not in self._cuts:
            self.trace.note(source, "cut", to=target)
        self._cuts[source, target] = self._cuts.get((source, target), 0) + 1

    def mend(self, source: str, target: str) -> None:
        """Take back one `cut`."""
        count = self._cuts.pop((source, target), 0)
        if count > 1:
            self._cuts[source, target] = count - 1
            return
        if count:
            self.trace.note(source, "whole", to=target)
        for callback in self._stalled.pop((source, target), ()):
            callback()

    def heal(self) -> None:
        """Make all links whole and fast."""
        for source, target in list(self._cuts):
            self._cuts[source, target] = 1
            self.mend(source, target)
        for source, target in list(self._rates):
            self.slow(source, target, None)

    def when_mended(self, source: str, target: str, callback: Callable[[], None]) -> None:
        """Call back once bytes of host `source` reach host `target` again."""
        self._stalled.setdefault((machine_of(source), machine_of(target)), []).append(callback)

    def is_cut(self, source: str, target: str) -> bool:
        """Return whether bytes of host `source` do not reach host `target`."""
        return bool(self._cuts) and (machine_of(source), machine_of(target)) in self._cuts

    def has_cuts(self, machine: str) -> bool:
        """Return whether anything from or to a machine is cut or slow."""
        return any(machine in pair for pair in (*self._cuts, *self._rates))

    def slow(self, source: str, target: str, bytes_per_second: float | None) -> None:
        """Let no more than so many bytes pass from machine `source` to machine `target`; None: as many as there are."""
        if bytes_per_second is None:
            if self._rates.pop((source, target), None) is not None:
                self.trace.note(source, "whole", to=target)
        else:
            self._rates[source, target] = bytes_per_second
            self.trace.note(source, "slow", to=target, rate=int(bytes_per_second))

    def reset(self, one: str, other: str) -> int:
        """Break every connection between two machines, what is on its way included. Returns how many there were."""
        broken = 0
        for end in self._ends:
            if machine_of(end.host) == one and machine_of(end.peer.host) == other and not end.is_lost:
                broken += 1
                for side in (end, end.peer):
                    self.loop.call_soon(side.reset, context=context_of(side.host))
        return broken

    # -- delays --------------------------------------------------------------

    def rate(self, source: str, target: str) -> float | None:
        """Return the bytes per second from host to host, None when they are not limited."""
        return self._rates.get((machine_of(source), machine_of(target))) if self._rates else None

    def latency(self, source: str, target: str) -> float:
        """Return the delay of the next piece from host to host."""
        pair = machine_of(source), machine_of(target)
        base = self._base.get(pair)
        random = self.random.random
        if base is None:
            base = self._base[pair] = BASE_SECONDS[0] + random() * (BASE_SECONDS[1] - BASE_SECONDS[0])
        if random() < TAIL_SHARE:
            return base + TAIL_SECONDS[0] + random() * (TAIL_SECONDS[1] - TAIL_SECONDS[0])
        return base + random() * JITTER_SECONDS

    # -- connections ---------------------------------------------------------

    def listen(self, address: str, host: str, node_id: NodeId, endpoint: Endpoint) -> str:
        """Open a port (0: any) of `host` and return its address.

        Raises: ConnectFailed when it is open already, or is not of this host.
        """
        machine, port = split_address(address)
        if machine not in (machine_of(host), WILDCARD):
            raise ConnectFailed(address, "it is no address of this machine")
        if not port:
            port = next(port for port in ANY_PORTS if f"{machine_of(host)}:{port}" not in self._listening)
        address = f"{machine_of(host)}:{port}"
        if address in self._listening:
            raise ConnectFailed(address, "already in use", refused=True)
        self._listening[address] = (host, node_id, endpoint)
        return address

    def unlisten(self, address: str) -> None:
        """Close a port."""
        self._listening.pop(address, None)

    async def connect(
        self, host: str, node_id: NodeId, address: str, endpoint: Endpoint, timeout_seconds: float
    ) -> asyncio.BufferedProtocol:
        """Connect two hosts.

        Raises: ConnectFailed.
        """
        target, _ = split_address(address)
        await asyncio.sleep(self.latency(host, target))
        try:
            async with asyncio.timeout(timeout_seconds):
                while self.is_cut(host, target) or self.is_cut(target, host) or target in self._silent:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            self.trace.note(host, "no-answer", address=address)
            raise ConnectFailed(address, f"no answer within {timeout_seconds:.1f} s") from None
        listening = self._listening.get(address)
        if listening is None:
            self.trace.note(host, "refused", address=address)
            raise ConnectFailed(address, "nobody listens there", refused=True)
        other_host, other_id, other_endpoint = listening
        here = SimTransport(self.loop, self.random, host, other_host, self)
        there = SimTransport(self.loop, self.random, other_host, host, self)
        here.peer, there.peer = there, here
        self._ends = [end for end in self._ends if not end.is_lost] + [here, there]
        self.trace.note(host, "connected", to=other_host)
        protocol = endpoint(other_id)
        here.begin(protocol)
        self.loop.call_soon(lambda: there.begin(other_endpoint(node_id)), context=context_of(other_host))
        return protocol

    def crash(self, host: str, *, silent: bool = False) -> None:
        """Forget the ports of a dead host. Those connected to it see a reset, once they can hear of it, or with `silent` nothing."""
        for address in [address for address, (owner, _, _) in self._listening.items() if owner == host]:
            del self._listening[address]
        if silent:
            self._silent[machine_of(host)] = None
            return
        for end in self._ends:
            if end.host == host and not end.peer.is_lost:
                self.loop.call_later(self.latency(host, end.peer.host), end.reset_peer, context=context_of(end.peer.host))

    def power_on(self, machine: str) -> None:
        """Let a machine answer again: it knows nothing of the connections of its last life, and says so to whoever uses one."""
        self._silent.pop(machine, None)
        for end in self._ends:
            if machine_of(end.host) == machine and not end.peer.is_lost and self.loop.is_dead(end.host):
                end.peer.be_forgotten()

    def buffered(self, host: str) -> int:
        """Return the most bytes that one connection of `host` keeps for its peer."""
        return max((end.get_write_buffer_size() for end in self._ends if end.host == host and not end.is_lost), default=0)

    def open_ends(self, hosts: Iterable[str]) -> int:
        """Return how many connections of `hosts` are open."""
        wanted = set(hosts)
        return sum(end.host in wanted and not end.is_lost for end in self._ends)


class SimNetwork:
    """`peer.seams.Network` of one incarnation of one machine."""

    def __init__(self, lan: Lan, host: str, node_id: NodeId) -> None:
        self._lan = lan
        self._host = host
        self._node_id = node_id

    @property
    def node_id(self) -> NodeId:
        """Who this side proves to be."""
        return self._node_id

    async def listen(self, address: str, endpoint: Endpoint) -> "SimListener":
        """Accept connections."""
        return SimListener(self._lan, self._lan.listen(address, self._host, self._node_id, endpoint))

    async def connect(self, address: str, endpoint: Endpoint, *, timeout_seconds: float) -> asyncio.BufferedProtocol:
        """Connect."""
        return await self._lan.connect(self._host, self._node_id, address, endpoint, timeout_seconds)


class SimListener:
    """An open port."""

    def __init__(self, lan: Lan, address: str) -> None:
        self._lan = lan
        self._address = address

    @property
    def addresses(self) -> Sequence[str]:
        """Where it is."""
        return (self._address,)

    async def close(self) -> None:
        """Close it."""
        self._lan.unlisten(self._address)


def machine_of(host: str) -> str:
    """Return the machine of a host label `machine#incarnation`."""
    return host.partition("#")[0]


def split_address(address: str) -> tuple[str, int]:
    """Return machine and port: simulated addresses are `MACHINE:PORT`.

    Raises: ConnectFailed.
    """
    machine, _, port = address.rpartition(":")
    if not machine or not port.isdecimal() or int(port) > 65_535:
        raise ConnectFailed(address, "not an address: it has the form HOST:PORT")
    return machine, int(port)
