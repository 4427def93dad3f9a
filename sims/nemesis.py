"""Carries out the faults of a plan, and takes them back at the end.

Whoever is hit twice is hit once: a fault that finds its machine down, or its disk empty, does nothing. What it did is counted by kind.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from random import Random

from peer.errors import ConnectFailed, DiskError, LinkLost, RequestFailed, StorageFailed, Unavailable
from peer.node import Left
from protocol.hashing import plain_hash
from protocol.identity import NodeId, node_id_of
from protocol.messages import Leave
from sims.garbage import GARBAGE, GarbageSender
from sims.network import SimNetwork
from sims.oracles import Violation
from sims.plan import DAMAGING, RETURNS, Fault, Plan
from sims.world import PORT, Machine, World

SLOW_DISK = 100.0
STORM_UP_SECONDS = 0.3
GARBAGE_SECONDS = 2.0
"""A node says no to what cannot be a frame as soon as it sees it, long before it misses a hello."""
ASK_SECONDS = 5.0
ASK_AGAIN_SECONDS = 3.0
LEAVE_SECONDS = 90.0
"""Who leaves has left by then, once everything is mended and nobody is dead whom the others would have to ask."""


class Nemesis:
    """What goes wrong in one world."""

    def __init__(self, world: World, plan: Plan, clients: list[str]) -> None:
        self.injected: Counter[str] = Counter()
        self._world = world
        self._plan = plan
        self._clients = clients
        self._tasks: list[asyncio.Task[None]] = []
        self._leaving: dict[str, asyncio.Task[None]] = {}
        """Who was asked to leave, until he has: also when nothing else goes wrong any more."""
        self._agreed: set[str] = set()
        """Who has said that he leaves."""
        self._away: set[str] = set()
        """Who has left, and is not switched on."""
        self._is_over = False
        world.on_stopped = self._stopped

    def check(self) -> None:
        """Raise what a fault has raised that has ended."""
        for task in (*self._tasks, *self._leaving.values()):
            if task.done() and not task.cancelled():
                task.result()

    def begin(self) -> None:
        """Let the clock of the plan run from now."""
        for number, fault in enumerate(self._plan.faults):
            self._later(fault.at, partial(self._inject, fault, Random(f"fault {self._plan.seed} {number}")))

    async def end(self) -> None:
        """Mend everything: links, disks, clocks; give every machine its power but those that are gone for good."""
        self._is_over = True
        world = self._world
        for task in self._tasks:
            task.cancel()
        world.rare_paths.call_share = 0.0
        world.lan.heal()
        for machine in world.machines.values():
            state = machine.storage.state
            state.slowness, state.is_lying, state.sync_fails, state.misdirects, state.steps_left = 1.0, False, False, 0, None
            state.others_bytes = 0
            world.loop.resume(machine.host)
        for name in self._plan.gone:
            if world.machines[name].is_up:
                world.crash(name, silent=True)
        world.trace.note("world", "mended", gone=",".join(self._plan.gone) or "nobody")
        await asyncio.gather(*(self._start(name) for name in world.machines if name not in self._plan.gone))

    async def until_left(self) -> None:
        """Wait until who is leaving has left.

        Raises: Violation (I27) when that does not come to an end, and nobody is dead who would have to confirm what the leaver held.
        """
        give_up_at = self._world.loop.time() + LEAVE_SECONDS
        while leaving := sorted(self._agreed & set(self._leaving)):
            if self._world.loop.time() >= give_up_at:
                if not (self._plan.gone or self._plan.fragile):
                    raise Violation("I27", f"{', '.join(leaving)} cannot leave, though everything is mended", self._world.loop.time())
                return
            await asyncio.sleep(0.5)

    # -- one fault -----------------------------------------------------------

    async def _inject(self, fault: Fault, random: Random) -> None:
        """Carry out a fault: the method has its name."""
        await getattr(self, "_" + fault.kind.replace("-", "_"))(fault, random)

    # -- power and processes -------------------------------------------------

    async def _power_cut(self, fault: Fault, random: Random) -> None:
        await self._end_node(fault, self._world.crash)

    async def _silent_power_cut(self, fault: Fault, random: Random) -> None:
        await self._end_node(fault, partial(self._world.crash, silent=True))

    async def _kill(self, fault: Fault, random: Random) -> None:
        await self._end_node(fault, self._world.kill)

    async def _end_node(self, fault: Fault, end: Callable[[str], None]) -> None:
        machine = self._machine(fault)
        if machine.node is not None:
            self._count(fault)
            end(machine.name)
            await self._start_again(machine.name, fault.seconds)

    async def _join(self, fault: Fault, random: Random) -> None:
        self._count(fault)
        await self._start(self._world.machine(fault.machines[0]).name)

    async def _leave(self, fault: Fault, random: Random) -> None:
        name = fault.machines[0]
        while (machine := self._world.machines.get(name)) is None or machine.node is None:
            await asyncio.sleep(ASK_AGAIN_SECONDS)
        if name in self._leaving:
            return
        node_id = machine.node.node_id
        self._leaving[name] = asyncio.get_running_loop().create_task(self._leave_taken(machine, node_id, fault))
        while name in self._leaving and not await self._asked_to_leave(machine, node_id):
            await asyncio.sleep(ASK_AGAIN_SECONDS)
        self._count(fault)
        self._agreed.add(name)

    async def _asked_to_leave(self, machine: Machine, node_id: NodeId) -> bool:
        """Ask a node to leave, as `shoal leave` beside it does; return whether it has agreed."""
        try:
            session = await self._world.session(f"owner-{machine.name}#1", machine.name)
            try:
                await session.request(node_id, Leave(int(ASK_SECONDS * 1000)), timeout_seconds=ASK_SECONDS)
            finally:
                await session.close()
        except (Unavailable, RequestFailed, LinkLost, TimeoutError):
            return False
        return True

    async def _leave_taken(self, machine: Machine, node_id: NodeId, fault: Fault) -> None:
        """Stop a node once it has left, as `shoal up` does. Where it loses its power just then its next start is that of another node."""
        while machine.node is None or (Left() not in machine.events and machine.node.node_id == node_id):
            await asyncio.sleep(0.2)
        has_left = Left() in machine.events
        if has_left:
            machine.events.remove(Left())
            self._away.add(machine.name)
            stopping = asyncio.get_running_loop().create_task(self._world.stop(machine.name))
            while machine.is_up and not stopping.done():  # it may lose its power meanwhile
                await asyncio.sleep(0.2)
        del self._leaving[machine.name]
        if has_left and fault.number == RETURNS and not self._is_over:
            self._later(fault.seconds, partial(self._come_back, machine.name))

    async def _come_back(self, name: str) -> None:
        self._away.discard(name)
        await self._start(name)

    async def _stop(self, fault: Fault, random: Random) -> None:
        machine = self._machine(fault)
        if machine.node is not None and not self._world.loop.is_paused(machine.host):  # who stands still cannot
            self._count(fault)
            await self._world.stop(machine.name)
            await self._start_again(machine.name, fault.seconds)

    async def _crash_at_step(self, fault: Fault, random: Random) -> None:
        machine = self._machine(fault)
        if not machine.is_up:
            return
        state, host = machine.storage.state, machine.host
        state.steps_left, before = fault.number, state.cuts_at_step
        while self._is_up(machine.name) and machine.host == host:
            await asyncio.sleep(0.05)
        if state.cuts_at_step > before:
            self._count(fault)
            await self._start_again(machine.name, fault.seconds)

    async def _restart_storm(self, fault: Fault, random: Random) -> None:
        machine = self._machine(fault)
        if machine.is_up:
            self._count(fault)
        for _ in range(fault.number):
            if machine.is_up:
                self._world.kill(machine.name)
            await self._start_again(machine.name, fault.seconds)
            await asyncio.sleep(random.uniform(0, STORM_UP_SECONDS))

    async def _blackout(self, fault: Fault, random: Random) -> None:
        self._count(fault)
        for name in fault.machines:
            if self._is_up(name):
                self._world.crash(name, silent=True)
        for name in fault.machines:
            self._later(random.uniform(0.1, max(0.2, fault.seconds)), partial(self._start, name))

    async def _pause(self, fault: Fault, random: Random) -> None:
        machine = self._machine(fault)
        if machine.is_up:
            host = machine.host
            self._count(fault)
            self._world.loop.pause(host)
            await asyncio.sleep(fault.seconds)
            self._world.loop.resume(host)

    async def _client_death(self, fault: Fault, random: Random) -> None:
        self._count(fault)
        host = self._clients[fault.number]
        machine, _, life = host.partition("#")
        self._world.kill_client(host)
        self._clients[fault.number] = f"{machine}#{int(life) + 1}"

    async def _clock_jump(self, fault: Fault, random: Random) -> None:
        machine = self._machine(fault)
        self._count(fault)
        machine.clock.offset_milliseconds += fault.number
        machine.clock.drift = random.uniform(-0.1, 0.1)

    # -- disks ---------------------------------------------------------------

    async def _wipe(self, fault: Fault, random: Random) -> None:
        machine = self._machine(fault)
        self._count(fault)
        if machine.is_up:
            self._world.crash(machine.name)
        self._world.wipe(machine.name)
        await self._start_again(machine.name, fault.seconds)

    async def _rollback(self, fault: Fault, random: Random) -> None:
        machine = self._machine(fault)
        snapshot = self._world.snapshot(machine.name)
        await asyncio.sleep(fault.seconds)
        self._count(fault)
        if machine.is_up:
            self._world.crash(machine.name)
        self._world.put_back(machine.name, snapshot)
        await self._start_again(machine.name, 0.0)

    async def _clone(self, fault: Fault, random: Random) -> None:
        name, copy = fault.machines
        machine = self._machine(fault)
        is_instead = fault.number % 2 == 1
        if is_instead and machine.is_up:
            self._world.crash(name)
        self._world.machine(copy)
        self._world.put_back(copy, self._world.snapshot(name))
        if not is_instead:
            await asyncio.sleep(fault.seconds)
        self._count(fault)
        await self._start(copy)
        if is_instead:
            await asyncio.sleep(fault.seconds)
            self._count(fault)
            await self._start(name)

    async def _lost_index(self, fault: Fault, random: Random) -> None:
        machine = self._machine(fault)
        if machine.is_up:
            self._count(fault)
            self._world.kill(machine.name)
            machine.storage.damage("chunk")
            await self._start_again(machine.name, fault.seconds)

    async def _lost_rows(self, fault: Fault, random: Random) -> None:
        machine = self._machine(fault)
        if machine.node is not None:
            self._count(fault)
            self._world.lose_rows(machine.name, damaged=fault.number % 2 == 0)
            await self._start_again(machine.name, fault.seconds)

    async def _sync_error(self, fault: Fault, random: Random) -> None:
        self._count(fault)
        self._machine(fault).storage.fail_next_sync()

    async def _rot_chunk(self, fault: Fault, random: Random, *, unreadable: bool = False) -> None:
        state = self._machine(fault).storage.state
        files = state.chunk_files()
        if files:
            self._count(fault)
            state.damage(files[fault.number % len(files)], random, unreadable=unreadable)

    async def _unreadable(self, fault: Fault, random: Random) -> None:
        await self._rot_chunk(fault, random, unreadable=True)

    async def _rot_row(self, fault: Fault, random: Random) -> None:
        database = self._machine(fault).storage.databases.get("ns")
        keys = [key for key in database.keys if key.startswith(b"r")] if database is not None else []
        if database is not None and keys:
            self._count(fault)
            database.rot(keys[fault.number % len(keys)], random)

    async def _misdirect(self, fault: Fault, random: Random) -> None:
        state = self._machine(fault).storage.state
        before = state.misdirected
        state.misdirects += 1
        while state.misdirected == before:
            await asyncio.sleep(0.05)
        self._count(fault)

    async def _slow_disk(self, fault: Fault, random: Random) -> None:
        state = self._machine(fault).storage.state
        self._count(fault)
        state.slowness = SLOW_DISK
        await asyncio.sleep(fault.seconds)
        state.slowness = 1.0

    async def _full_disk(self, fault: Fault, random: Random) -> None:
        storage = self._machine(fault).storage
        self._count(fault)
        storage.fill()
        await asyncio.sleep(fault.seconds)
        storage.state.others_bytes = 0

    async def _lying_disk(self, fault: Fault, random: Random) -> None:
        state = self._machine(fault).storage.state
        self._count(fault)
        state.is_lying = True
        await asyncio.sleep(fault.seconds)
        state.is_lying = False

    # -- network -------------------------------------------------------------

    async def _reset(self, fault: Fault, random: Random) -> None:
        if self._world.lan.reset(*fault.machines[:2]):
            self._count(fault)

    async def _slow_link(self, fault: Fault, random: Random) -> None:
        lan = self._world.lan
        self._count(fault)
        one, other = fault.machines[:2]
        for source, target in ((one, other), (other, one)):
            lan.slow(source, target, float(fault.number))
        await asyncio.sleep(fault.seconds)
        for source, target in ((one, other), (other, one)):
            lan.slow(source, target, None)

    async def _swizzle(self, fault: Fault, random: Random) -> None:
        self._count(fault)
        half = fault.seconds / 2
        for name in fault.machines:
            begin, end = random.uniform(0, half), half + random.uniform(0, half)
            self._later(begin, partial(self._cut, list(self._around(name)), end - begin))

    async def _partition(self, fault: Fault, random: Random) -> None:
        self._count(fault)
        await self._cut(self._cuts(fault, random), fault.seconds)

    _bridge = _one_way = _partition

    def _cuts(self, fault: Fault, random: Random) -> list[tuple[str, str]]:
        group = set(fault.machines)
        others = [name for name in self._world.machines if name not in group]
        if fault.kind == "one-way":
            return [(fault.machines[0], name) for name in (*self._world.machines, *self._client_machines()) if name != fault.machines[0]]
        if fault.kind == "bridge" and others:
            others.remove(random.choice(others))
        # A client stands on one side or the other as well.
        sides = {name: random.random() < 0.5 for name in self._client_machines()}
        here = [*fault.machines, *(name for name, side in sides.items() if side)]
        there = [*others, *(name for name, side in sides.items() if not side)]
        return [pair for one in here for other in there for pair in ((one, other), (other, one))]

    def _around(self, name: str) -> Iterator[tuple[str, str]]:
        for other in (*self._world.machines, *self._client_machines()):
            if other != name:
                yield name, other
                yield other, name

    def _client_machines(self) -> list[str]:
        return [host.partition("#")[0] for host in self._clients]

    async def _cut(self, pairs: list[tuple[str, str]], seconds: float) -> None:
        for pair in pairs:
            self._world.lan.cut(*pair)
        await asyncio.sleep(seconds)
        for pair in pairs:
            self._world.lan.mend(*pair)

    async def _garbage(self, fault: Fault, random: Random) -> None:
        machine = self._machine(fault)
        if machine.node is not None:
            self._count(fault)
            await self._send_garbage(machine, fault.number, random)

    async def _send_garbage(self, machine: Machine, number: int, random: Random) -> None:
        """Send bytes that no node would send. Whoever took them for a frame would wait for more of it, and keep the connection."""
        host = f"garbage{number}#1"
        network = SimNetwork(self._world.lan, host, node_id_of(plain_hash(host.encode())))
        sender = GarbageSender()

        async def send() -> None:
            try:
                await network.connect(f"{machine.name}:{PORT}", lambda node_id: sender, timeout_seconds=5.0)
            except ConnectFailed:
                return
            sender.transport.write(random.choice(GARBAGE) + random.randbytes(random.randrange(64)))

        await self._world.on(host, send)
        life, until = machine.host, self._world.loop.time() + GARBAGE_SECONDS
        while sender.is_connected and machine.host == life and machine.is_up and not self._is_disturbed(machine.name):
            if self._world.loop.time() >= until:
                text = f"{machine.name} has kept a link for {GARBAGE_SECONDS:.0f} s that began with garbage"
                raise Violation("I26", text, self._world.loop.time())
            await asyncio.sleep(0.05)
        self._world.loop.kill(host)
        self._world.lan.crash(host)

    def _is_disturbed(self, name: str) -> bool:
        """Return whether a machine may not have seen yet what it was sent."""
        return self._world.loop.is_paused(self._world.machines[name].host) or self._world.lan.has_cuts(name)

    # -- inside --------------------------------------------------------------

    def _count(self, fault: Fault) -> None:
        self.injected[fault.kind] += 1
        if fault.kind in DAMAGING:
            for name in fault.machines:
                self._world.machine(name).lossy_at = self._world.loop.time()
        number = {"n": fault.number} if fault.number else {}
        self._world.trace.note(",".join(fault.machines) or "world", "fault", what=fault.kind, seconds=f"{fault.seconds:g}", **number)

    def _later(self, delay: float, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            await asyncio.sleep(delay)
            await work()

        self._tasks.append(asyncio.get_running_loop().create_task(run()))

    def _stopped(self, name: str) -> None:
        """A node has stopped because its storage failed; a person comes and starts it again."""
        if not self._is_over:
            self._later(1.0, partial(self._start, name))

    async def _start_again(self, name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._start(name)

    async def _start(self, name: str) -> None:
        """Start a node unless one runs. It begins in a task of its own: a start during which power fails never ends."""
        while self._is_up(name) and self._is_stopping(name):
            await asyncio.sleep(0.01)
        if self._is_up(name) or name in self._away:
            return
        task = asyncio.get_running_loop().create_task(self._boot(name))
        await asyncio.sleep(0)
        while not task.done() and self._is_up(name):
            await asyncio.sleep(0.01)

    def _machine(self, fault: Fault) -> Machine:
        return self._world.machines[fault.machines[0]]

    def _is_up(self, name: str) -> bool:
        return self._world.machines[name].is_up

    def _is_stopping(self, name: str) -> bool:
        stopping = self._world.machines[name].stopping
        return stopping is not None and not stopping.done()

    async def _boot(self, name: str) -> None:
        try:
            await self._world.start(name)
        except (StorageFailed, DiskError):
            self._stopped(name)
