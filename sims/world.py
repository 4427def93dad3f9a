"""Machines, nodes and clients on one simulated LAN: the node is the one that ships, only its `Env` is not.

A *machine* has a disk and a clock and outlives its processes; a *host* is one process on it, `name#number`. A crash kills the host and
takes the power from the disk; a restart is a new host on the same disk.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from peer.config import NodeConfig
from peer.files.operations import Operations
from peer.node import Node, NodeEvent
from peer.seams import ClientEnv, Env
from peer.session import Session, connect
from peer.store.home import open_home
from protocol.hashing import plain_hash
from protocol.identity import node_id_of
from sims.clock import SimWallClock
from sims.discovery import Airwaves, SimDiscovery
from sims.entropy import SimEntropy
from sims.faults import SimCompute, SimFaults
from sims.kv import SimStorage
from sims.loop import SimLoop, context_of
from sims.network import Lan, SimNetwork

T = TypeVar("T")

PORT = 7400
SECONDS_MAX = 600.0


@dataclass(slots=True)
class Machine:
    """One machine and the process that runs on it now."""

    name: str
    storage: SimStorage
    clock: SimWallClock
    starts: int = 0
    host: str = ""
    node: Node | None = None
    events: list[NodeEvent] = field(default_factory=list)


class World:
    """One run: everything that is not computed follows from the seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(f"world {seed}")
        self.loop = SimLoop(Random(f"order {seed}"))  # type: ignore[abstract]  # what is missing leads out of the world
        self.lan = Lan(self.loop, Random(f"network {seed}"))
        self.airwaves = Airwaves(Random(f"discovery {seed}"))
        self.machines: dict[str, Machine] = {}
        self._clients = 0

    def run(self, scenario: "Callable[[World], Coroutine[Any, Any, T]]", *, seconds_max: float = SECONDS_MAX) -> T:
        """Run a scenario to its end.

        Raises: what the scenario raised; AssertionError when anything in the world failed unnoticed.
        """
        try:
            result = self.loop.run(scenario(self), seconds_max=seconds_max)
            assert not self.loop.failures, self.loop.failures
            return result
        finally:
            self.loop.close()

    # -- nodes ---------------------------------------------------------------

    async def found(self, names: Sequence[str]) -> None:
        """Start a node on each machine, the first as the founder, and wait until they are one settled cluster."""
        for name in names:
            await self.start(name, found=name == names[0])
        await self.members(len(names))

    async def gather(self, names: Sequence[str]) -> None:
        """Start a node on each machine at once, none of them told to found, and wait until they are one settled cluster."""
        await asyncio.gather(*(self.start(name) for name in names))
        await self.members(len(names))

    async def start(self, name: str, *, found: bool = False) -> Node:
        """Start a node on machine `name`, for the first time or again."""
        machine = self.machines.get(name)
        if machine is None:
            storage = SimStorage(Random(f"disk {self.seed} {name}"))
            machine = self.machines[name] = Machine(name, storage, SimWallClock(self.random.randrange(-5000, 5000)))
        assert machine.node is None, f"{name} runs already"
        machine.starts += 1
        machine.host = f"{name}#{machine.starts}"
        machine.node = await self.on(machine.host, lambda: self._boot(machine, found))
        return machine.node

    def crash(self, name: str) -> None:
        """Take the power from a machine, whether its node runs or is about to: then `start` never returns."""
        machine = self.machines[name]
        assert machine.host, f"{name} was never started"
        self.loop.kill(machine.host)
        self.lan.crash(machine.host)
        self.airwaves.forget(machine.host)
        machine.storage.crash()
        machine.node = None

    async def restart(self, name: str) -> Node:
        """Give a crashed machine its power back."""
        return await self.start(name)

    async def stop(self, name: str) -> None:
        """Stop a node in good order."""
        machine = self.machines[name]
        node, machine.node = machine.node, None
        assert node is not None
        await self.on(machine.host, node.stop)

    def node(self, name: str) -> Node:
        """Return the node that runs on a machine."""
        node = self.machines[name].node
        assert node is not None
        return node

    async def members(self, count: int) -> None:
        """Wait until every node that runs knows a stable layout of `count` members."""
        while not all(self._is_settled(machine.node, count) for machine in self.machines.values() if machine.node):
            await asyncio.sleep(0.1)

    # -- clients -------------------------------------------------------------

    async def client(self, *names: str) -> Operations:
        """Return a client that was given the addresses of the machines `names`, in this order, to enter the cluster by."""
        self._clients += 1
        host = f"client{self._clients}#1"
        entropy = SimEntropy(f"{self.seed} {host}")
        network = SimNetwork(self.lan, host, node_id_of(plain_hash(host.encode())))
        env = ClientEnv(network, self.machines[names[0]].clock, entropy, SimCompute())
        addresses = [f"{name}:{PORT}" for name in names]
        session: Session = await self.on(host, lambda: connect(env, addresses, name=host, timeout_seconds=10.0))
        return Operations(session)

    # -- inside --------------------------------------------------------------

    async def on(self, host: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` as `host` and return its result. Never returns if the host dies meanwhile."""

        async def run() -> T:
            return await work()

        return await self.loop.create_task(run(), context=context_of(host))

    async def _boot(self, machine: Machine, found: bool) -> Node:
        entropy = SimEntropy(f"{self.seed} {machine.host}")
        home = await open_home(machine.storage, entropy)
        env = Env(
            network=SimNetwork(self.lan, machine.host, node_id_of(plain_hash(home.seed))),
            storage=machine.storage,
            wall_clock=machine.clock,
            entropy=entropy,
            discovery=SimDiscovery(self.airwaves, machine.host),
            faults=SimFaults(Random(f"faults {self.seed} {machine.host}"), label_share=0.25, call_share=0.05),
            compute=SimCompute(),
        )
        node = Node(NodeConfig(machine.name, f"{machine.name}:{PORT}", found=found), env, home, machine.events.append)
        await node.start()
        return node

    def _is_settled(self, node: Node, count: int) -> bool:
        layout = node.layouts.current
        return layout is not None and not layout.is_joint and len(layout.members) == count
