"""Who seems to be there: a failure detector and its gossip, as a machine. No I/O, no clock, no randomness.

**Deadness never decides anything.** What this module says is advice. It may choose whom to ask first, when to hedge a read, when a
fallback copy is written in addition, and when an eviction is *proposed*. It may not enter into a quorum, a needed number of copies, what is
dropped or what is acknowledged: those follow from the layout alone, and a wrong "dead" costs time, never data.

Theory of operation
-------------------
SWIM (Das, Gupta, Motivala, 2002) with the additions of Lifeguard (Dadgar, Phillips, Currey, 2018), over links that exist already. Each
node probes one member per period, round robin in random order. Who does not answer is probed through three others; who still does not is
suspect, is told so before anybody else, and refutes with its next incarnation, or is dead after a while (`protocol.suspicion`). News travel
with probes and acks and, while there are any, to three random members every 200 ms (`protocol.gossip`); who is told something outdated
answers with what stands. Every now and then a node compares digests with a random member, and both fetch what they lack.

A node suspects itself first: missed acks, missing negative acks of helpers, accusations that it had to refute and a late event loop raise
its *health score*, which slows its probing down; and a node that stood still listens for a while before it acts on what it missed.

A process that is killed closes its sockets: whose links broke and whose port then refuses is dead as soon as two members saw it.

Whether a disk was cloned or rolled back is no matter of gossip, where one corrupt record would retire a cluster: only hellos tell, first
hand.

| parameter | value |
|---|---|
| probe period, timeout | 1 s, 0.5 s, both times 1 + health score |
| target | each once per round, random order: within 2N - 1 periods |
| helpers of an indirect probe | 3 |
| suspicion, least | 3 · max(1, log10 N) · 1 s (`suspicion_min_seconds`) |
| suspicion, most | 6 times that; shrinks with confirmations (`suspicion_seconds`) |
| confirmations | 2, below 4 members 0 (`confirmations_wanted`) |
| health score | 0 to 7 (`HEALTH_MAX`) |
| gossip | 3 peers per 200 ms, while there is something (`GOSSIP_SECONDS`) |
| transmissions of one claim | 4 · ceil(log10(N + 1)) (`transmissions_of`) |
| comparing digests | every 30 s, twice that above 32 members, three times above 64, ... (`compare_seconds`) |
| gossip to the dead | for 60 s (`DEAD_HEAR_SECONDS`) |
| dead and gone are forgotten | after 72 h (`FORGET_SECONDS`) |

The caller carries out `take_effects` after each call, and calls `tick` at `next_deadline`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Final

from protocol import limits
from protocol.gossip import GOSSIP_PEERS, GOSSIP_SECONDS, GossipQueue
from protocol.identity import NodeId
from protocol.members import FORGET_SECONDS, Draw, MemberTable, Record, boot_of, incarnation_of
from protocol.messages import (
    Answer,
    MemberClaim,
    Members,
    MembersGet,
    MemberState,
    Probe,
    ProbeAck,
    ProbeIndirect,
    Request,
)
from protocol.suspicion import PERIOD_SECONDS, Suspicion

PROBE_TIMEOUT_SECONDS: Final = 0.5
"""Until helpers are asked. On a LAN an answer takes a millisecond; an event loop that is busy takes most of this."""
HELPERS: Final = 3
HELPER_SHARE: Final = 0.8
"""A helper says no after this share of its deadline, so that the word is there in time."""
HEALTH_MAX: Final = 7
HELPER_SECONDS_MAX: Final = PROBE_TIMEOUT_SECONDS * (1 + HEALTH_MAX)
"""The sickest node gives a helper so long. Whatever else it names as its deadline, no timer outlasts this."""
LAST_QUESTION_SECONDS: Final = 0.5
LAG_SECONDS: Final = 0.25
"""A timer that is later than this says that the own event loop stood still."""
LISTEN_SECONDS: Final = 0.5
"""For so long a node that stood still only listens: what refutes its suspicions lies unread."""
COMPARE_SECONDS: Final = 30.0
COMPARE_PAUSE_SECONDS: Final = 1.0
"""Between two comparisons that this node begins, whatever the reason."""
ANSWER_MILLISECONDS: Final = 2000
"""How long a peer has for gossip and comparisons; nothing depends on the answer."""
RELAYS_MAX: Final = 256
"""Probes on behalf of others under way at once; of more, the oldest is given up."""
_NOTHING: Final[Mapping[NodeId, bool]] = {}


def compare_seconds(members: int) -> float:
    """Return how often a node compares with another: 30 s, and 30 s more for each doubling above 32 members."""
    return COMPARE_SECONDS * (1 + max(0, (members - 1).bit_length() - 5))


@dataclass(frozen=True, slots=True)
class Send:
    """Ask `to`. What it answers within the request's own deadline goes to `Membership.answered`; silence goes nowhere."""

    serial: int
    to: NodeId
    message: Request


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer the request that came with `token`."""

    token: object
    message: Answer


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """A member is held to be something else than before, or lives a new life."""

    node_id: NodeId
    state: MemberState
    boot: int


@dataclass(slots=True)
class Effects:
    """What the machine wants done, each list in order."""

    sends: list[Send] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    changes: list[MemberChanged] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MemberView:
    """What is held of a member, and since when (`now` of the machine)."""

    node_id: NodeId
    state: MemberState
    boot: int
    since: float


@dataclass(slots=True)
class _Probing:
    record: Record
    incarnation: int
    serial: int
    helpers: list[int] = field(default_factory=list)
    """Serials of the requests to helpers."""
    refusals: int = 0
    """Helpers that reached nobody either: they answered, so this node is well."""
    reached: bool = False


class Membership:
    """The view of one node in one life."""

    def __init__(self, node_id: NodeId, boot: int, draw: Draw, now: float) -> None:
        """Begin with nobody else. `draw(n)` returns a random number below n."""
        self.node_id = node_id
        self._draw = draw
        self._table = MemberTable(node_id, draw)
        own = self._table.add(node_id, now)
        assert own is not None
        self._own = own
        self._queue = GossipQueue()
        self._effects = Effects()
        self._timers: list[tuple[float, int, Callable[[float, Any], None], Any]] = []
        """What is due when. Each looks whether it still means something; only helpers that nobody needs any more are taken out early."""
        self._serial = 0
        self._health = 0
        self._listens_until = now
        self._probing: _Probing | None = None
        self._relays: dict[int, object] = {}
        """By the serial of the own probe, whom it is for."""
        self._gossip_is_due = False
        self._gossiped_at = self._compared_at = -math.inf
        self._speak(now, MemberState.ALIVE, incarnation_of(boot))
        phase = draw(1000) / 1000  # nodes that are switched on together need not act together
        self._at(now + phase * PERIOD_SECONDS, self._probe_next)
        self._at(now + phase * COMPARE_SECONDS, self._compare_next)

    # -- the view ------------------------------------------------------------

    def member(self, node_id: NodeId) -> MemberView | None:
        """Return what is held of a member."""
        record = self._table.get(node_id)
        return _view(record) if record is not None else None

    def members(self) -> list[MemberView]:
        """Return all that are known, this node included."""
        return [_view(record) for record in self._table]

    @property
    def health_score(self) -> int:
        """How unwell this node believes itself to be, from 0 to HEALTH_MAX."""
        return self._health

    @property
    def has_news(self) -> bool:
        """Whether there is something to pass on. A node that leaves stays until there is not."""
        return len(self._queue) > 0

    @property
    def digest(self) -> bytes:
        """What comparing compares."""
        return self._table.digest

    # -- input ---------------------------------------------------------------

    def receive(self, now: float, sender: NodeId, request: Request, token: object) -> None:
        """Take a request of a peer. The answer, perhaps a later one, names the `token`."""
        self._wake(now)
        match request:
            case Probe():
                told = {claim.node_id: self._learn(now, claim) for claim in request.claims}
                self._reply(token, ProbeAck(True, self._claims_for(now, self._table.get(sender), told)))
            case ProbeIndirect():
                for claim in request.claims:
                    self._learn(now, claim)
                self._relay(now, request, token)
            case MembersGet():
                same = request.digest == self.digest
                self._reply(token, Members(() if same else tuple(_claim_of(now, record) for record in self._table)))
                if not same:
                    self._compare(now, sender)

    def answered(self, now: float, sent: Send, answer: Answer) -> None:
        """Take the answer to what this node sent."""
        self._wake(now)
        match answer:
            case ProbeAck():
                outdated = [claim for claim in answer.claims if not self._learn(now, claim)]
                if any(claim.node_id == self.node_id for claim in outdated):  # it has missed the refutation, and may act on that
                    self._send(sent.to, Probe(ANSWER_MILLISECONDS, (_claim_of(now, self._own),)))
                self._take_ack(sent.serial, answer)
            case Members():
                for claim in answer.claims:
                    # Who was not known here is news to nobody else: else each newcomer would tell everybody about everybody.
                    self._learn(now, claim, spread=self._table.get(claim.node_id) is not None)

    def link_up(self, now: float, node_id: NodeId, boot: int) -> None:
        """Note that a member has said hello, in its life `boot`, on a link."""
        self._wake(now)
        if node_id == self.node_id:
            return
        self._learn(now, MemberClaim(node_id, MemberState.ALIVE, incarnation_of(boot), NodeId(b""), 0))
        record = self._table.get(node_id)
        if record is not None and not _seems_well(record):
            self._tell(now, record)
        self._compare(now, node_id)

    def link_refused(self, now: float, node_id: NodeId) -> None:
        """Note that the links to a member broke, and that its port then refused to be dialled: nothing but that, no timeout."""
        self._wake(now)
        record = self._table.get(node_id)
        if record is not None and record.is_live and record is not self._own:
            self._learn(now, MemberClaim(node_id, MemberState.REFUSED, record.incarnation, self.node_id, 0))

    def lagged(self, now: float) -> None:
        """Note that the event loop of this node was late by more than LAG_SECONDS. Late ticks are noted anyway."""
        self._worsen(1)
        self._listens_until = now + LISTEN_SECONDS

    def drain(self, now: float) -> None:
        """Say that this node is about to leave."""
        self._speak(now, MemberState.DRAINING)

    def leave(self, now: float) -> None:
        """Say that this node leaves, for good as far as this life goes. To be stopped once `has_news` is false, or after a while."""
        self._speak(now, MemberState.LEFT)

    # -- time ----------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due. To be called at `next_deadline`, or any time."""
        self._wake(now)
        while self._timers and self._timers[0][0] <= now and self._listens_until <= now:
            _, _, action, argument = heappop(self._timers)
            action(now, argument)

    def next_deadline(self) -> float:
        """Return when `tick` is to be called."""
        while self._timers[0][2] == self._probe_indirectly and self._timers[0][3][0].reached:
            heappop(self._timers)  # of nearly every probe: a node at rest wakes up once a period, not twice
        return max(self._timers[0][0], self._listens_until)

    def take_effects(self) -> Effects:
        """Return what is to be done now."""
        effects, self._effects = self._effects, Effects()
        return effects

    # -- what is held of whom ------------------------------------------------

    def _learn(self, now: float, claim: MemberClaim, *, spread: bool = True) -> bool:
        """Take a claim, from wherever; return False if it is outdated. The one place where what is held of another member changes."""
        if claim.node_id == self.node_id:
            return self._refute(now, claim)
        state = MemberState.SUSPECT if claim.state is MemberState.REFUSED else claim.state
        record = self._table.get(claim.node_id)
        if record is None:
            record = self._table.add(claim.node_id, now) if claim.age_seconds < FORGET_SECONDS else None
            if record is None:
                return True
        if claim.incarnation < record.incarnation or (claim.incarnation == record.incarnation and state < record.state):
            return False
        since = now - claim.age_seconds
        if (claim.incarnation, state) == (record.incarnation, record.state):
            record.since = min(record.since, since)
            if record.suspicion is None or not record.suspicion.add(claim.accuser, refused=claim.state is MemberState.REFUSED):
                return True
        else:
            self._change(record, claim.incarnation, state, since)
            if state is MemberState.SUSPECT:
                record.suspicion = Suspicion(now, self._table.live_count)
                record.suspicion.add(claim.accuser, refused=claim.state is MemberState.REFUSED)
        if spread:
            self._spread(now, claim)
        if record.suspicion is not None:
            self._weigh(now, record, record.suspicion)
        return True

    def _change(self, record: Record, incarnation: int, state: MemberState, since: float) -> None:
        is_event = state is not record.state or boot_of(incarnation) != boot_of(record.incarnation)
        self._table.change(record, incarnation, state, since)
        if is_event:
            self._effects.changes.append(MemberChanged(record.node_id, state, boot_of(incarnation)))

    def _weigh(self, now: float, record: Record, suspicion: Suspicion) -> None:
        """Draw the consequences of evidence: dead now, or later."""
        if suspicion.is_refused(self._table.live_count - 1):
            self._bury(now, record)
        else:
            self._at(suspicion.deadline - LAST_QUESTION_SECONDS, self._ask_at_last, (record, suspicion))

    def _ask_at_last(self, now: float, case: tuple[Record, Suspicion]) -> None:
        """Lay a suspicion that runs out before the suspect and a few others: whom gossip has passed by would bury who has refuted."""
        record, suspicion = case
        if record.suspicion is not suspicion or suspicion.is_closed or now < suspicion.deadline - LAST_QUESTION_SECONDS:
            return
        suspicion.is_closed = True
        for other in (record, *self._table.choose(GOSSIP_PEERS, _seems_well)):
            self._send(other.node_id, Probe(ANSWER_MILLISECONDS, (_claim_of(now, record),)))
        self._at(now + LAST_QUESTION_SECONDS, self._suspicion_due, case)

    def _suspicion_due(self, now: float, case: tuple[Record, Suspicion]) -> None:
        record, suspicion = case
        if record.suspicion is suspicion:
            self._bury(now, record)

    def _bury(self, now: float, record: Record) -> None:
        self._learn(now, MemberClaim(record.node_id, MemberState.DEAD, record.incarnation, NodeId(b""), 0))

    def _refute(self, now: float, claim: MemberClaim) -> bool:
        """Answer a claim about this node; return False if there is an answer. What is said of a later life of it has none from this one."""
        own = self._own
        is_accused = (claim.incarnation, claim.state) > (own.incarnation, own.state)
        if is_accused and boot_of(claim.incarnation) == boot_of(own.incarnation) and own.state is not MemberState.LEFT:
            self._worsen(1)
            self._speak(now, own.state, claim.incarnation + 1)
        return (claim.incarnation, claim.state) >= (own.incarnation, own.state)

    def _speak(self, now: float, state: MemberState, incarnation: int | None = None) -> None:
        """Claim something of this node itself, under its next incarnation; one that has no next within its life repeats the last."""
        own = self._own
        wanted = incarnation if incarnation is not None else own.incarnation + 1
        if own.incarnation >= 0:
            wanted = min(wanted, incarnation_of(boot_of(own.incarnation) + 1) - 1)
        self._table.change(own, wanted, state, now)
        self._spread(now, _claim_of(now, own))

    # -- gossip --------------------------------------------------------------

    def _spread(self, now: float, claim: MemberClaim) -> None:
        self._queue.put(claim)
        if not self._gossip_is_due:
            self._gossip_is_due = True
            self._at(max(now, self._gossiped_at + GOSSIP_SECONDS), self._gossip)

    def _gossip(self, now: float, _: None) -> None:
        self._gossip_is_due = False
        self._gossiped_at = now
        peers = self._table.choose(GOSSIP_PEERS, _seems_well)
        for peer in peers:
            claims = self._claims_for(now, peer)
            if claims:
                self._send(peer.node_id, Probe(ANSWER_MILLISECONDS, claims))
        for other in self._table.choose(1, lambda record: True):  # one more, not instead of another: it may be dead indeed
            if not _seems_well(other) and other.hears(now):
                self._tell(now, other)
        if self._queue and peers:
            self._gossip_is_due = True
            self._at(now + GOSSIP_SECONDS, self._gossip)

    def _tell(self, now: float, record: Record) -> None:
        """Tell a member what is held against it, before all others (Lifeguard, buddy system)."""
        self._send(record.node_id, Probe(ANSWER_MILLISECONDS, self._claims_for(now, record)))

    def _claims_for(self, now: float, peer: Record | None, told: Mapping[NodeId, bool] = _NOTHING) -> tuple[MemberClaim, ...]:
        """Return what a message to a member carries: what is held against it; what stands where it was wrong; news, if it is well.

        `told` says of whom it has just spoken, and whether it was right.
        """
        most = limits.CLAIMS_PER_MESSAGE_MAX
        known = (self._table.get(node_id) for node_id, was_right in told.items() if not was_right)
        first = [_claim_of(now, record) for record in known if record is not None and record is not peer]
        if peer is not None and not _seems_well(peer):
            return (_claim_of(now, peer), *first)[:most]
        return (*first, *self._queue.take(most - len(first), self._table.live_count, told))

    # -- probes --------------------------------------------------------------

    def _probe_next(self, now: float, _: None) -> None:
        self._end_probe(now)
        if self._own.state is MemberState.LEFT:
            return
        period, timeout = (seconds * (1 + self._health) for seconds in (PERIOD_SECONDS, PROBE_TIMEOUT_SECONDS))
        self._at(now + period, self._probe_next)
        record = self._table.next_target(now)
        if record is None:
            return
        sent = self._send(record.node_id, Probe(_milliseconds(period), self._claims_for(now, record)))
        probing = self._probing = _Probing(record, record.incarnation, sent.serial)
        self._at(now + timeout, self._probe_indirectly, (probing, period - timeout))

    def _probe_indirectly(self, now: float, probe_and_rest: tuple[_Probing, float]) -> None:
        probing, rest_seconds = probe_and_rest
        if probing is not self._probing or probing.reached:
            return
        target = probing.record
        for helper in self._table.choose(HELPERS, lambda record: _seems_well(record) and record is not target):
            claims = self._claims_for(now, helper)
            sent = self._send(helper.node_id, ProbeIndirect(_milliseconds(rest_seconds), target.node_id, claims))
            probing.helpers.append(sent.serial)

    def _end_probe(self, now: float) -> None:
        probing, self._probing = self._probing, None
        if probing is None or probing.reached:
            return
        self._worsen(len(probing.helpers) - probing.refusals if probing.helpers else 1)
        record = probing.record
        if record.is_live and record.incarnation == probing.incarnation:
            self._learn(now, MemberClaim(record.node_id, MemberState.SUSPECT, record.incarnation, self.node_id, 0))
            self._tell(now, record)

    def _take_ack(self, serial: int, ack: ProbeAck) -> None:
        if serial in self._relays:
            self._reply(self._relays.pop(serial), ProbeAck(True, ()))
            return
        probing = self._probing
        if probing is None or probing.reached:
            return
        if serial == probing.serial or (serial in probing.helpers and ack.reached):
            probing.reached = True
            self._health = max(0, self._health - 1)
        elif serial in probing.helpers:
            probing.refusals += 1

    def _relay(self, now: float, request: ProbeIndirect, token: object) -> None:
        """Probe a member on behalf of another one."""
        patience_seconds = min(request.deadline_milliseconds / 1000, HELPER_SECONDS_MAX) * HELPER_SHARE
        sent = self._send(request.target, Probe(_milliseconds(patience_seconds), self._claims_for(now, self._table.get(request.target))))
        self._relays[sent.serial] = token
        self._at(now + patience_seconds, self._relay_due, (sent.serial, request.target))
        if len(self._relays) > RELAYS_MAX:
            self._reply(self._relays.pop(next(iter(self._relays))), ProbeAck(False, ()))

    def _relay_due(self, now: float, serial_and_target: tuple[int, NodeId]) -> None:
        serial, target = serial_and_target
        if serial in self._relays:
            record = self._table.get(target)
            known = (_claim_of(now, record),) if record is not None and not _seems_well(record) else ()
            self._reply(self._relays.pop(serial), ProbeAck(False, known))

    def _worsen(self, count: int) -> None:
        self._health = min(HEALTH_MAX, self._health + count)

    # -- comparing -----------------------------------------------------------

    def _compare_next(self, now: float, _: None) -> None:
        self._table.forget(now)
        self._at(now + compare_seconds(self._table.live_count), self._compare_next)
        for peer in self._table.choose(1, _seems_well):
            self._compare(now, peer.node_id)

    def _compare(self, now: float, node_id: NodeId) -> None:
        if now >= self._compared_at + COMPARE_PAUSE_SECONDS:
            self._compared_at = now
            self._send(node_id, MembersGet(ANSWER_MILLISECONDS, self.digest))

    # -- inside --------------------------------------------------------------

    def _wake(self, now: float) -> None:
        """Notice that this node stood still: then what lies unread comes first."""
        if now > self.next_deadline() + LAG_SECONDS:
            self.lagged(now)

    def _send(self, to: NodeId, message: Request) -> Send:
        self._serial += 1
        sent = Send(self._serial, to, message)
        self._effects.sends.append(sent)
        return sent

    def _reply(self, token: object, message: Answer) -> None:
        self._effects.replies.append(Reply(token, message))

    def _at(self, when: float, action: Callable[[float, Any], None], argument: Any = None) -> None:
        self._serial += 1
        heappush(self._timers, (when, self._serial, action, argument))


def _seems_well(record: Record) -> bool:
    return record.state in (MemberState.ALIVE, MemberState.DRAINING)


def _claim_of(now: float, record: Record) -> MemberClaim:
    accuser = record.suspicion.accuser if record.suspicion is not None else NodeId(b"")
    age_seconds = 0 if record.is_live else max(0, math.ceil(now - record.since))
    return MemberClaim(record.node_id, record.state, record.incarnation, accuser, age_seconds)


def _view(record: Record) -> MemberView:
    return MemberView(record.node_id, record.state, boot_of(record.incarnation), record.since)


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
