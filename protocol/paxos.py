"""Agreement on the next layout: single-decree Paxos for each version of the chain, without a leader.

Theory of operation
-------------------
The voters of layout v agree on layout v+1 (Lamport, "Paxos Made Simple", 2001, section 2). Any member may propose. A proposer takes a
ballot higher than all that it has heard of and asks the voters to *prepare*; when a majority has promised, it asks them to *accept* the
record of the highest ballot that one of these has accepted, and its own only if none has accepted any. A record that a majority has
accepted under one ballot is decided, and no other one ever will be. That takes two round trips, once per change of the layout: nothing
here is worth a leader.

A chain of such decisions needs two rules more:

- Who votes on v+1 stands in layout v. So a voter judges a ballot for v+1 only with v in force, that is, persisted. It never votes ahead.
- A voter keeps the state of one version. With v+1 in force it forgets how it voted on v+1, and so must never vote on that again: it
  answers with the record. Otherwise an old proposer could collect a majority of voters that have forgotten, and decide v+1 twice.

A promise that a crash takes back is none: `judge` returns what to persist *before* the vote leaves. A proposer keeps nothing. When it is
made anew it may use a ballot again that it has used already. That is harmless, because no voter promises a ballot twice: so at most one
of those who use it gets a majority of promises. (And so a repeated prepare is outbid by itself.)

Two proposers may outbid each other for as long as their steps interleave. Against that, the r-th live voter, in an order that is another
one for each version, waits r turns before it begins, which mostly leaves one; and after a ballot that failed everybody waits for a part,
drawn by lot, of a growing span.

Owns the state of a voter, the machine of a proposer, and their order. Knows nothing of what a record says, except that it must follow its
parent, nor of when a change is due, who is alive, or how voters are reached.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, assert_never

from protocol.errors import CloseCode, RemoteProtocolError
from protocol.fields import U32
from protocol.hashing import CONTEXT_TURN, derived_hash
from protocol.identity import NodeId
from protocol.layout import Layout, follows
from protocol.messages import NO_BALLOT, Ballot, LayoutAccept, LayoutBytes, LayoutPrepare, LayoutVote, Verdict

TURN_SECONDS: Final = 2.0
"""How long a proposer leaves the field to each live voter whose turn comes before its own: many times what a ballot takes."""
ANSWER_SECONDS: Final = 2.0
"""How long it waits for a majority. An answer costs a round trip with a record of some 45 KB and one sync."""
BACKOFF_SECONDS: Final = 0.25
"""The span out of which the pause after a first failed ballot is drawn; it doubles with each further one."""
BACKOFF_SECONDS_MAX: Final = 8.0

LayoutRequest = LayoutPrepare | LayoutAccept


# -- the voter ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AcceptorState:
    """What a voter must not forget. It says nothing about any other version than its own."""

    version: U32
    """The version that is voted on."""
    promised: Ballot
    """Nothing is accepted under a lower ballot."""
    accepted: Ballot
    record: LayoutBytes
    """What was accepted under it; empty while nothing was."""


def judge(
    state: AcceptorState | None, latest: Layout, decided: bytes, request: LayoutRequest
) -> tuple[AcceptorState | None, LayoutVote]:
    """Return the state that must be durable before the vote may leave (None: what there is stays), and the vote.

    `latest` is the layout in force, hence persisted; `decided` the record of the asked version where that is not above it, else empty.
    One request at a time: the next one is judged by the state that this one left, when that is durable.

    Raises: RemoteProtocolError for a record that may not follow.
    """
    if request.version <= latest.version:
        assert decided, "a chain has no gaps"
        return None, LayoutVote(Verdict.DECIDED, latest.version, NO_BALLOT, decided)
    if request.version > latest.version + 1:
        return None, LayoutVote(Verdict.BEHIND, latest.version, NO_BALLOT, b"")
    if state is None or state.version < request.version:
        state = AcceptorState(request.version, NO_BALLOT, NO_BALLOT, b"")
    assert state.version == request.version, "a voter votes with the version before in force, and that is never taken back"
    outbid = LayoutVote(Verdict.OUTBID, latest.version, state.promised, b"")
    match request:
        case LayoutPrepare():
            if request.ballot <= state.promised:
                return None, outbid
            granted = LayoutVote(Verdict.GRANTED, latest.version, state.accepted, state.record)
            return replace(state, promised=request.ballot), granted
        case LayoutAccept():
            if request.ballot < state.promised:
                return None, outbid
            _successor(latest, request.record)
            granted = LayoutVote(Verdict.GRANTED, latest.version, NO_BALLOT, b"")
            return AcceptorState(request.version, request.ballot, request.ballot, request.record), granted
        case _:
            assert_never(request)


def _successor(parent: Layout, record: bytes) -> Layout:
    """Return the layout of a record that came from elsewhere. Raises: RemoteProtocolError unless it may follow `parent`."""
    layout = Layout.from_bytes(record)
    fault = follows(parent, layout)
    if fault is not None:
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"layout record: {fault}")
    return layout


# -- the proposer ------------------------------------------------------------


def turn_seconds(node_id: NodeId, parent: Layout, live: Collection[NodeId]) -> float:
    """Return how long `node_id` leaves the field to others once it wishes for a successor of `parent`.

    `live` are the members that seem alive: advice, on which only the waiting depends. A member without a vote waits for all live voters.
    """
    others = [voter for voter in parent.record.voters if voter in live and voter != node_id]
    before = len(others)
    if node_id in parent.record.voters:
        version = parent.version + 1
        before = sum(_lot(voter, version, 0) < _lot(node_id, version, 0) for voter in others)
    return before * TURN_SECONDS


class Phase(Enum):
    """What a proposer is at."""

    WAITING = "waiting"
    """To begin, or after a ballot that failed."""
    PREPARING = "preparing"
    ACCEPTING = "accepting"
    DECIDED = "decided"


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask `voter` (which may be this node itself), and hand its vote to `Proposer.receive`."""

    voter: NodeId
    request: LayoutRequest


class Proposer:
    """One node's attempt to have one version decided: its own record, or whatever the voters have accepted by then.

    It goes on until the version is decided; whoever learns of that in another way throws it away. What it holds is one record of
    its own, one of others, and at most one answer of each voter.
    """

    def __init__(self, node_id: NodeId, parent: Layout, wanted: Layout, now: float) -> None:
        """Begin at once: whose turn it is (`turn_seconds`) the caller has seen to."""
        fault = follows(parent, wanted)
        assert fault is None, fault
        self.phase = Phase.WAITING
        self.decided: Layout | None = None
        """What was agreed on: to be persisted, then acted on and announced. Not necessarily what was wanted."""
        self._node_id = node_id
        self._parent = parent
        self._wanted = wanted
        self._value = wanted
        self._ballot = NO_BALLOT
        self._highest_round = 0
        self._failed_ballots = 0
        self._asked: LayoutRequest | None = None
        self._seen = NO_BALLOT
        self._granted: set[NodeId] = set()
        self._refused: set[NodeId] = set()
        self._asks: list[Ask] = []
        self._deadline = now

    def next_deadline(self) -> float | None:
        """Return when to `tick`, if nothing else happens."""
        return None if self.phase is Phase.DECIDED else self._deadline

    def take_effects(self) -> list[Ask]:
        """Return what is to be asked now, once."""
        asks, self._asks = self._asks, []
        return asks

    def tick(self, now: float) -> None:
        """Go on where the time has come: begin a ballot, or give up one that got no majority in time."""
        if self.phase is Phase.DECIDED or now < self._deadline:
            return
        if self.phase is Phase.WAITING:
            self._prepare(now)
        else:
            self._back_off(now)

    def receive(self, voter: NodeId, asked: LayoutRequest, vote: LayoutVote, now: float) -> None:
        """Take the vote of `voter` on what this proposer asked it (the object that was in `Ask`). Late and repeated ones do no harm.

        Raises: RemoteProtocolError for a record that may not follow; the vote does not count.
        """
        if self.phase is Phase.DECIDED or voter not in self._parent.record.voters:
            return
        if vote.verdict is Verdict.DECIDED:
            self._decide(_successor(self._parent, vote.record))
        elif asked is not self._asked:
            return
        elif vote.verdict is Verdict.GRANTED:
            self._take_grant(voter, vote, now)
        elif voter not in self._granted:
            self._highest_round = max(self._highest_round, vote.ballot.round)
            self._refused.add(voter)
            voters = len(self._parent.record.voters)
            if voters - len(self._refused) < _majority(voters):
                self._back_off(now)

    # -- inside --------------------------------------------------------------

    def _prepare(self, now: float) -> None:
        self._highest_round += 1
        self._ballot = Ballot(self._highest_round, self._node_id)
        self._value, self._seen = self._wanted, NO_BALLOT
        self._ask(Phase.PREPARING, LayoutPrepare(_ANSWER_MILLISECONDS, self._parent.version + 1, self._ballot), now)

    def _take_grant(self, voter: NodeId, vote: LayoutVote, now: float) -> None:
        if self.phase is Phase.PREPARING and vote.ballot > self._seen:
            self._value, self._seen = _successor(self._parent, vote.record), vote.ballot
        self._granted.add(voter)
        if len(self._granted) < _majority(len(self._parent.record.voters)):
            return
        if self.phase is Phase.ACCEPTING:
            self._decide(self._value)
            return
        request = LayoutAccept(_ANSWER_MILLISECONDS, self._parent.version + 1, self._ballot, self._value.data)
        self._ask(Phase.ACCEPTING, request, now)

    def _ask(self, phase: Phase, request: LayoutRequest, now: float) -> None:
        self.phase = phase
        self._asked = request
        self._granted.clear()
        self._refused.clear()
        self._asks = [Ask(voter, request) for voter in self._parent.record.voters]
        self._deadline = now + ANSWER_SECONDS

    def _back_off(self, now: float) -> None:
        self.phase = Phase.WAITING
        self._asked = None
        span = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS * 2.0 ** min(self._failed_ballots, 16))
        self._failed_ballots += 1
        self._deadline = now + span * _lot(self._node_id, self._parent.version + 1, self._failed_ballots)

    def _decide(self, layout: Layout) -> None:
        self.phase = Phase.DECIDED
        self.decided = layout
        self._asked = None
        self._asks = []


_ANSWER_MILLISECONDS: Final = int(ANSWER_SECONDS * 1000)


def _majority(voters: int) -> int:
    return voters // 2 + 1


def _lot(node_id: NodeId, version: int, number: int) -> float:
    """Return a number from [0, 1) that is drawn anew, and for each node differently, for every version and failed ballot (0: for the turn).

    It takes the place of randomness, of which it needs only this: that nobody's lots depend on anybody else's.
    """
    data = node_id + version.to_bytes(4, "big") + number.to_bytes(4, "big")
    return int.from_bytes(derived_hash(CONTEXT_TURN, data, 8), "big") / 2.0**64
