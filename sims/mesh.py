"""A full mesh of failure detectors and nothing else: pure machines of `protocol.membership` on virtual time, a thousand of them if need be.

Owns the clock, the delays and what goes wrong. A message is one object that takes a while: there are no bytes, links or nodes. It goes as
TCP lets it go: in order, and never lost while a link stands; a lost packet is a stall of that direction, of 200 ms, doubled for each
further loss, and after 5 s of that the link breaks and is made anew, with everything lost that was on its way. Used by `sims.detection` and
by tests.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import combinations
from random import Random
from typing import Any, Final, cast

from protocol.codec import encode_header
from protocol.hashing import plain_hash
from protocol.identity import NodeId
from protocol.members import Draw, incarnation_of
from protocol.membership import MemberChanged, Membership, Send
from protocol.messages import Answer, MemberClaim, Members, MembersGet, MemberState, Message

LATENCY_SECONDS: Final = (0.0002, 0.002)
RETRANSMIT_SECONDS: Final = 0.2
"""Least retransmission timeout of Linux; doubled with each loss of the same packet."""
BREAK_SECONDS: Final = 5.0
"""A link that is silent for so long ends (`protocol.connection.KEEPALIVE_SECONDS`)."""
FRAME_OVERHEAD_BYTES: Final = 12
"""Of a frame of a ctl link, besides its header: two lengths, and nil for the payload."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request on its way, and whose it is."""

    asker: NodeId
    boot: int
    sent: Send
    give_up_at: float


class Host:
    """One member: its machine, while it runs, and what holds it up."""

    def __init__(self, node_id: NodeId) -> None:
        self.node_id = node_id
        self.boot = 0
        self.machine: Membership | None = None
        self.paused_until = 0.0
        self.tick_at = float("inf")


class Mesh:
    """Members, the network between them, and the time."""

    def __init__(self, seed: str, *, loss: float = 0.0, count_bytes: bool = False) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.loss = loss
        self.hosts: dict[NodeId, Host] = {}
        self.sent_bytes = 0
        self.changes: list[tuple[float, NodeId, MemberChanged]] = []
        """Who changed its mind about whom, and when."""
        self._count_bytes = count_bytes
        self._due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = 0
        self._arrivals: dict[tuple[NodeId, NodeId], float] = {}
        """When the last message of a direction arrives: none overtakes it."""
        self._cuts: set[tuple[NodeId, NodeId]] = set()

    # -- members -------------------------------------------------------------

    def formed(self, count: int) -> list[NodeId]:
        """Start members that know each other already, and are at rest."""
        nodes = [self._add() for _ in range(count)]
        claims = tuple(MemberClaim(node, MemberState.ALIVE, incarnation_of(1), NodeId(b""), 0) for node in nodes)
        for node in nodes:
            self._start(self.hosts[node])
            machine = self.machine(node)
            machine.answered(self.now, Send(0, node, MembersGet(1000, bytes(16))), Members(claims))
            machine.take_effects()
            self._schedule(self.hosts[node])
        self.changes.clear()
        return nodes

    def join(self, seed_node: NodeId) -> NodeId:
        """Start a member that is linked with one other; of the rest it hears by gossip alone."""
        node = self._add()
        self._start(self.hosts[node])
        self._link(node, seed_node)
        return node

    def restart(self, node: NodeId) -> None:
        """Start a member again, and link it with all that run."""
        self._start(self.hosts[node])
        for other in self.running():
            if other != node:
                self._link(node, other)

    def machine(self, node: NodeId) -> Membership:
        """Return the machine of a member that runs."""
        machine = self.hosts[node].machine
        assert machine is not None
        return machine

    def running(self) -> list[NodeId]:
        """Return who runs."""
        return [node for node, host in self.hosts.items() if host.machine is not None]

    def believers(self, node: NodeId, state: MemberState) -> int:
        """Return how many of those that run hold `node` to be `state`."""
        views = (self.machine(other).member(node) for other in self.running() if other != node)
        return sum(view is not None and view.state is state for view in views)

    # -- what goes wrong -----------------------------------------------------

    def lose_power(self, node: NodeId) -> None:
        """Nothing is heard of a member any more, not even that it is gone."""
        self.hosts[node].machine = None

    def kill(self, node: NodeId) -> None:
        """End a process: its peers see their links break, dial, and are refused."""
        self.lose_power(node)
        for other in self.running():
            if (other, node) not in self._cuts:
                self._later(3 * self._latency(), self._be_refused, other, self.hosts[other].boot, node)

    def pause(self, node: NodeId, seconds: float) -> None:
        """Let a process stand still."""
        host = self.hosts[node]
        host.paused_until = max(host.paused_until, self.now + seconds)

    def stall_now_and_then(self, node: NodeId, seconds: float, every_seconds: float) -> None:
        """Let a process stand still again and again, with pauses of so many seconds on average."""
        self._later(self.random.expovariate(1 / every_seconds), self._stall, node, seconds, every_seconds)

    def cut(self, nodes: Iterable[NodeId], others: Iterable[NodeId]) -> None:
        """Let nothing pass between two groups, in either direction."""
        right = list(others)
        for node in nodes:
            for other in right:
                self._cuts |= {(node, other), (other, node)}

    def deafen(self, node: NodeId) -> None:
        """Let a member hear nobody. It is heard as long as its links stand: they end for want of any word, and none can be made."""
        others = [other for other in self.hosts if other != node]
        self._cuts |= {(other, node) for other in others}
        self._later(BREAK_SECONDS, self.cut, [node], others)

    def heal(self) -> None:
        """Let everything pass; those that were apart dial each other within two seconds."""
        apart, self._cuts = self._cuts, set()
        for one, other in combinations(self.hosts, 2):
            if (one, other) in apart or (other, one) in apart:
                self._later(2 * self.random.random(), self._link, one, other)

    # -- time ----------------------------------------------------------------

    def run(self, seconds: float, *, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass, at most until something is so, which is looked at ten times a second; return whether it is."""
        end = self.now + seconds
        look_at = self.now if until is not None else float("inf")
        while self._due and self._due[0][0] <= end:
            if self._due[0][0] >= look_at:
                assert until is not None
                if until():
                    return True
                look_at = self._due[0][0] + 0.1
            self.now, _, action, arguments = heappop(self._due)
            action(*arguments)
        self.now = end
        return until() if until is not None else True

    # -- inside --------------------------------------------------------------

    def _add(self) -> NodeId:
        node = NodeId(plain_hash(b"member %d" % len(self.hosts), 16))
        self.hosts[node] = Host(node)
        return node

    def _start(self, host: Host) -> None:
        host.boot += 1
        host.paused_until = self.now
        host.tick_at = float("inf")
        host.machine = Membership(host.node_id, host.boot, _draw_of(self.random), self.now)
        self._schedule(host)

    def _link(self, one: NodeId, other: NodeId) -> None:
        for node, peer in ((one, other), (other, one)):
            self._arrivals.pop((node, peer), None)
            if self.hosts[peer].machine is not None:
                self._input(node, None, partial(self._say_hello, peer))

    def _say_hello(self, peer: NodeId, machine: Membership) -> None:
        machine.link_up(self.now, peer, self.hosts[peer].boot)

    def _stall(self, node: NodeId, seconds: float, every_seconds: float) -> None:
        self.pause(node, seconds)
        self._later(seconds, self.stall_now_and_then, node, seconds, every_seconds)

    def _be_refused(self, node: NodeId, boot: int, peer: NodeId) -> None:
        if self.hosts[peer].machine is None:
            self._input(node, boot, lambda machine: machine.link_refused(self.now, peer))

    def _input(self, node: NodeId, boot: int | None, give: Callable[[Membership], None]) -> None:
        """Give something to a machine, when it moves, and carry out what it wants; nothing if it is of another life than `boot`."""
        host = self.hosts[node]
        if host.machine is None or (boot is not None and boot != host.boot):
            return
        if host.paused_until > self.now:
            self._push(host.paused_until, self._input, (node, host.boot, give))
            return
        give(host.machine)
        effects = host.machine.take_effects()
        for reply in effects.replies:
            asked = cast(_Asked, reply.token)
            self._carry(node, asked.asker, asked.boot, reply.message, self._take_answer, (asked, reply.message))
        for sent in effects.sends:
            asked = _Asked(node, host.boot, sent, self.now + sent.message.deadline_milliseconds / 1000)
            self._carry(node, sent.to, None, sent.message, self._take_request, (asked,))
        self.changes += [(self.now, node, change) for change in effects.changes]
        self._schedule(host)

    def _take_request(self, machine: Membership, asked: "_Asked") -> None:
        machine.receive(self.now, asked.asker, asked.sent.message, asked)

    def _take_answer(self, machine: Membership, asked: "_Asked", answer: Answer) -> None:
        if self.now <= asked.give_up_at:
            machine.answered(self.now, asked.sent, answer)

    def _carry(
        self, source: NodeId, target: NodeId, boot: int | None, message: Message, take: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        if self._count_bytes:
            self.sent_bytes += len(encode_header(message, 1000)) + FRAME_OVERHEAD_BYTES
        if (source, target) in self._cuts or self.hosts[target].machine is None:
            return
        delay = self._latency()
        stall = RETRANSMIT_SECONDS
        while self.loss and self.random.random() < self.loss:
            delay += stall
            stall *= 2
        if delay > BREAK_SECONDS:
            self._later(BREAK_SECONDS, self._link, source, target)
            return
        arrives_at = max(self.now + delay, self._arrivals.get((source, target), 0.0))
        if self.loss:
            self._arrivals[source, target] = arrives_at
        self._push(arrives_at, self._input, (target, boot, lambda machine: take(machine, *arguments)))

    def _schedule(self, host: Host) -> None:
        assert host.machine is not None
        due = host.machine.next_deadline()
        if due < host.tick_at:
            host.tick_at = due
            self._push(max(due, self.now), self._tick, (host, due))

    def _tick(self, host: Host, due: float) -> None:
        if due == host.tick_at:
            host.tick_at = float("inf")
            self._input(host.node_id, None, lambda machine: machine.tick(self.now))

    def _latency(self) -> float:
        least, most = LATENCY_SECONDS
        return least + (most - least) * self.random.random()

    def _later(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        self._push(self.now + seconds, action, arguments)

    def _push(self, when: float, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self._serial += 1
        heappush(self._due, (when, self._serial, action, arguments))


def _draw_of(random: Random) -> Draw:
    return lambda bound: int(random.random() * bound)
