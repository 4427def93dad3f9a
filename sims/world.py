"""Machines, nodes and clients on one simulated LAN: the node is the one that ships, only its `Env` is not.

A *machine* has a disk and a clock and outlives its processes; a *host* is one process on it, `name#number`. A crash takes the power from a
machine: its host is gone, and of its disk what was not synced. A kill ends the process alone. A restart is a new host on the same disk.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, TypeVar

from peer.config import BACKGROUND_BYTES_PER_SECOND, EVICT_SECONDS, NodeConfig
from peer.errors import DiskError, StorageFailed
from peer.files.operations import Operations
from peer.node import Node, NodeEvent
from peer.seams import ClientEnv, Env
from peer.session import Session, connect
from peer.store.home import open_home
from protocol.hashing import plain_hash
from protocol.identity import NodeId, node_id_of
from sims.clock import SimWallClock
from sims.discovery import Airwaves, SimDiscovery
from sims.entropy import SimEntropy
from sims.faults import RarePaths, SimCompute, SimFaults
from sims.kv import SimStorage
from sims.loop import WORLD, SimLoop, context_of
from sims.network import Lan, SimNetwork
from sims.noted import noted_operations
from sims.seal import sealed
from sims.trace import Trace

T = TypeVar("T")

PORT = 7400
SECONDS_MAX = 600.0
CONNECT_SECONDS = 10.0


@dataclass(slots=True)
class Machine:
    """One machine and the process that runs on it now."""

    name: str
    storage: SimStorage
    clock: SimWallClock
    starts: int = 0
    host: str = ""
    """The process that runs, or that ran last."""
    node: Node | None = None
    is_up: bool = False
    """Whether a process runs, also one that has not come as far as to be a node."""
    stopping: asyncio.Task[None] | None = None
    """The end of the process that runs, if it is to end in good order."""
    lossy_at: float = -1.0
    """When its disk last did worse than to lose power, or lost power after it had lied."""
    events: list[NodeEvent] = field(default_factory=list)


class World:
    """One run: everything that is not computed follows from the seed."""

    def __init__(self, seed: int, trace: Trace | None = None, rare_paths: RarePaths | None = None) -> None:
        self.seed = seed
        self.rare_paths = rare_paths if rare_paths is not None else RarePaths(0.0, 0.0)
        self.random = Random(f"world {seed}")
        self.loop = SimLoop(Random(f"order {seed}"))  # type: ignore[abstract]  # what is missing leads out of the world
        self.trace = trace if trace is not None else Trace()
        self.trace.now = lambda: self.loop.nanoseconds
        self.loop.on_paused = lambda host, is_paused: self.trace.note(host, "paused" if is_paused else "resumed")
        self.lan = Lan(self.loop, Random(f"network {seed}"), self.trace)
        self.airwaves = Airwaves(Random(f"discovery {seed}"))
        self.machines: dict[str, Machine] = {}
        self.evict_seconds = EVICT_SECONDS
        """How long nodes that start from now on wait for a dead member."""
        self.background_bytes_per_second = BACKGROUND_BYTES_PER_SECOND
        """What each of them moves at most, each way, for nobody who waits for it."""
        self.clients: list[str] = []
        """Hosts of the clients that were made."""
        self._numbers = count()
        self.on_stopped: Callable[[str], None] = lambda name: None
        """Told the machine whose node has stopped because its storage failed."""
        self.on_rows_lost: Callable[[Machine, NodeId], None] = lambda machine, node_id: None
        """Told the machine that has lost its rows, and the id of its node."""

    def run(self, scenario: "Callable[[World], Coroutine[Any, Any, T]]", *, seconds_max: float = SECONDS_MAX) -> T:
        """Run a scenario to its end.

        Raises: what the scenario raised; AssertionError when anything in the world failed unnoticed; EscapedSimulation when
        something in it asked for the real one.
        """
        try:
            with sealed():
                result = self.loop.run(scenario(self), seconds_max=seconds_max)
            self.loop.settle()
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

    def machine(self, name: str) -> Machine:
        """Return the machine `name`, which is there from the moment somebody asks for it."""
        machine = self.machines.get(name)
        if machine is None:
            storage = SimStorage(Random(f"disk {self.seed} {name}"), self.trace)
            storage.state.machine = name
            storage.state.on_power_cut = lambda: self.crash(name)
            machine = self.machines[name] = Machine(name, storage, SimWallClock(self.random.randrange(-5000, 5000)))
        return machine

    async def start(self, name: str, *, found: bool = False) -> Node:
        """Start a node on machine `name`, for the first time or again. Never returns if the machine loses its power meanwhile.

        Raises: StorageFailed, DiskError (the disk is full).
        """
        machine = self.machine(name)
        assert not machine.is_up, f"{name} runs already"
        machine.starts += 1
        machine.host = f"{name}#{machine.starts}"
        machine.is_up, machine.stopping = True, None
        self.lan.power_on(name)
        self.trace.note(machine.host, "start")
        try:
            machine.node = await self.on(machine.host, lambda: self._boot(machine, found))
        except (StorageFailed, DiskError):
            self.kill(name)
            raise
        return machine.node

    def crash(self, name: str, *, silent: bool = False) -> None:
        """Take the power from a machine, whether its node runs or is about to: then `start` never returns.

        Whoever is connected sees a reset, or with `silent` nothing at all.
        """
        machine = self._end(name, "power-cut")
        if machine.storage.state.has_lied:
            machine.lossy_at = self.loop.time()
        self.lan.crash(machine.host, silent=silent)
        machine.storage.power_cut()

    def kill(self, name: str) -> None:
        """End the process of a machine: what it wrote is there, synced or not, and its connections are reset."""
        machine = self._end(name, "killed")
        self.lan.crash(machine.host)
        machine.storage.process_ended()

    async def restart(self, name: str) -> Node:
        """Give a crashed machine its power back, or a killed process its successor."""
        return await self.start(name)

    async def stop(self, name: str) -> None:
        """Stop a node in good order, to the end even if the caller is cancelled. Never returns if the machine loses its power meanwhile."""
        machine = self.machines[name]
        node, machine.node = machine.node, None
        assert node is not None
        self.trace.note(machine.host, "stop")
        machine.stopping = self.loop.create_task(self._stop(machine, node))
        machine.stopping.add_done_callback(self._stopped)
        await asyncio.shield(machine.stopping)

    def lose_rows(self, name: str, *, damaged: bool) -> None:
        """End the process of a machine, and have its rows lost or, with `damaged`, unreadable."""
        machine, node_id = self.machines[name], self.node(name).node_id
        self.kill(name)
        if damaged:
            machine.storage.damage("ns")
        else:
            machine.storage.lose("ns")
        self.on_rows_lost(machine, node_id)

    def wipe(self, name: str) -> None:
        """Give a machine that does not run an empty disk."""
        machine = self.machines[name]
        assert not machine.is_up, f"{name} runs"
        self.trace.note(machine.host, "wiped")
        machine.storage = SimStorage(Random(f"disk {self.seed} {name} {machine.starts}"), self.trace)
        machine.storage.state.machine = name
        machine.storage.state.on_power_cut = lambda: self.crash(name)

    def snapshot(self, name: str) -> SimStorage:
        """Return a copy of what is durable on the disk of a machine, running or not."""
        copy = SimStorage(Random(f"snapshot {self.seed} {name}"), self.trace)
        copy.take_over(self.machines[name].storage)
        return copy

    def put_back(self, name: str, snapshot: SimStorage) -> None:
        """Give a machine that does not run the disk that a snapshot has."""
        machine = self.machine(name)
        assert not machine.is_up, f"{name} runs"
        self.trace.note(machine.host or name, "put-back")
        machine.storage.take_over(snapshot)

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
        host = f"client{len(self.clients) + 1}#1"
        self.clients.append(host)
        return noted_operations(await self.session(host, *names), self.trace, host, self._numbers)

    async def session(self, host: str, *names: str) -> Session:
        """Return the session of a process `host` of its own with the cluster of the machines `names`.

        Raises: Unavailable.
        """
        entropy = SimEntropy(f"{self.seed} {host}")
        network = SimNetwork(self.lan, host, node_id_of(plain_hash(host.encode())))
        faults = SimFaults(Random(f"faults {self.seed} {host}"), self.trace, self.rare_paths)
        env = ClientEnv(network, self.machines[names[0]].clock, entropy, faults, SimCompute())
        addresses = [f"{name}:{PORT}" for name in names]
        return await self.on(host, lambda: connect(env, addresses, name=host, timeout_seconds=CONNECT_SECONDS))

    def kill_client(self, host: str) -> None:
        """End the process of a client, whatever it was about to do."""
        self.trace.note(host, "killed")
        self.loop.kill(host)
        self.lan.crash(host)

    # -- inside --------------------------------------------------------------

    async def on(self, host: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` as `host` and return its result. Never returns if the host dies meanwhile."""

        async def run() -> T:
            return await work()

        task = self.loop.create_task(run(), context=context_of(host))
        task.add_done_callback(look_at)  # who waits for it may have died meanwhile
        return await task

    def _end(self, name: str, kind: str) -> Machine:
        machine = self.machines[name]
        assert machine.host, f"{name} was never started"
        self.trace.note(machine.host, kind)
        self.loop.kill(machine.host)
        self.airwaves.forget(machine.host)
        machine.node = None
        machine.is_up = False
        return machine

    async def _stop(self, machine: Machine, node: Node) -> None:
        await self.on(machine.host, node.stop)
        machine.storage.process_ended()
        machine.is_up = False

    def _stopped(self, stopping: "asyncio.Task[None]") -> None:
        """Note what went wrong: whoever had the node stopped may be cancelled by now, and nobody else looks."""
        if not stopping.cancelled() and stopping.exception() is not None:
            self.loop.failures.append({"message": "a node could not be stopped", "exception": stopping.exception()})

    async def _boot(self, machine: Machine, found: bool) -> Node:
        entropy = SimEntropy(f"{self.seed} {machine.host}")
        home = await open_home(machine.storage, entropy)
        env = Env(
            network=SimNetwork(self.lan, machine.host, node_id_of(plain_hash(home.seed))),
            storage=machine.storage,
            wall_clock=machine.clock,
            entropy=entropy,
            discovery=SimDiscovery(self.airwaves, machine.host),
            faults=SimFaults(Random(f"faults {self.seed} {machine.host}"), self.trace, self.rare_paths),
            compute=SimCompute(),
        )
        config = NodeConfig(
            machine.name,
            f"{machine.name}:{PORT}",
            found=found,
            evict_seconds=self.evict_seconds,
            background_bytes_per_second=self.background_bytes_per_second,
        )
        node = Node(config, env, home, machine.events.append)
        await node.start()
        node.failed.add_done_callback(lambda failed: self._failed(machine, failed), context=context_of(WORLD))
        return node

    def _failed(self, machine: Machine, failed: "asyncio.Future[None]") -> None:
        """The node cannot go on. A process would end now, with the exit code of a failed storage; anything else is a bug."""
        error = failed.exception()
        if not isinstance(error, StorageFailed):
            self.loop.call_exception_handler({"message": f"the node of {machine.name} failed", "exception": error})
            return
        if not self.loop.is_dead(machine.host):
            self.kill(machine.name)
            self.on_stopped(machine.name)

    def _is_settled(self, node: Node, count: int) -> bool:
        layout = node.layouts.current
        return layout is not None and not layout.is_joint and len(layout.members) == count


def look_at(task: "asyncio.Task[T]") -> None:
    """Look at how a task ended that nobody may be waiting for: the loop would say that nobody did."""
    if not task.cancelled():
        task.exception()
