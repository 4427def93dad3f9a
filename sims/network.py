"""The simulated LAN: who listens where, which links are cut, what dies with a host."""

import asyncio
from collections.abc import Sequence
from random import Random

from peer.errors import ConnectFailed
from peer.seams import Endpoint
from protocol.identity import NodeId
from sims.loop import SimLoop, context_of
from sims.transport import SimTransport

LATENCY_SECONDS = (0.0001, 0.002)
"""Bounds of the delay of one piece."""
WILDCARD = "0.0.0.0"
"""Stands for the machine itself, in the address to listen on."""
ANY_PORTS = range(40_000, 65_536)
"""Where port 0 looks for a free one."""


class Lan:
    """All hosts of one world."""

    def __init__(self, loop: SimLoop, random: Random) -> None:
        self.loop = loop
        self.random = random
        self._listening: dict[str, tuple[str, NodeId, Endpoint]] = {}
        self._ends: list[SimTransport] = []
        self._cuts: dict[tuple[str, str], None] = {}

    def latency(self) -> float:
        """Return the delay of one piece."""
        return self.random.uniform(*LATENCY_SECONDS)

    def cut(self, source: str, target: str) -> None:
        """Stall everything from machine `source` to machine `target`."""
        self._cuts[source, target] = None

    def heal(self) -> None:
        """Make all links whole."""
        self._cuts.clear()

    def is_cut(self, source: str, target: str) -> bool:
        """Return whether bytes of host `source` reach host `target`."""
        return (machine_of(source), machine_of(target)) in self._cuts

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
        await asyncio.sleep(self.latency())
        try:
            async with asyncio.timeout(timeout_seconds):
                while self.is_cut(host, target) or self.is_cut(target, host):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise ConnectFailed(address, f"no answer within {timeout_seconds:.1f} s") from None
        listening = self._listening.get(address)
        if listening is None:
            raise ConnectFailed(address, "nobody listens there", refused=True)
        other_host, other_id, other_endpoint = listening
        here = SimTransport(self.loop, self.random, host, self.latency)
        there = SimTransport(self.loop, self.random, other_host, self.latency)
        here.peer, there.peer = there, here
        here.is_cut = lambda: self.is_cut(host, other_host)
        there.is_cut = lambda: self.is_cut(other_host, host)
        self._ends = [end for end in self._ends if not end.is_lost] + [here, there]
        protocol = endpoint(other_id)
        here.begin(protocol)
        self.loop.call_soon(lambda: there.begin(other_endpoint(node_id)), context=context_of(other_host))
        return protocol

    def crash(self, host: str) -> None:
        """Forget the ports of a dead host and reset what was connected to it."""
        for address in [address for address, (owner, _, _) in self._listening.items() if owner == host]:
            del self._listening[address]
        for end in self._ends:
            if end.host == host and not end.peer.is_lost:
                self.loop.call_later(self.latency(), end.peer.reset, context=context_of(end.peer.host))


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
