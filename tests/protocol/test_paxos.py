"""Agreement on the layout chain: the real voters and proposers in a world that loses, repeats and delays messages and crashes nodes.

Whatever happens, each version has one record; and when the world is quiet again the chain goes on. Each rule has a mutant that is found.
"""

import dataclasses
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from itertools import count

import pytest

from protocol import layout as layout_module
from protocol import limits, paxos
from protocol.codec import decode, encode
from protocol.errors import RemoteProtocolError
from protocol.hashing import plain_hash
from protocol.identity import ClusterId, NodeId
from protocol.layout import Layout, Member, genesis
from protocol.messages import NO_BALLOT, Ballot, LayoutAccept, LayoutPrepare, LayoutVote, Verdict
from protocol.paxos import AcceptorState, Ask, LayoutRequest, Phase, Proposer, judge, turn_seconds

LAST_VERSION = 7
QUIET_SECONDS_MAX = 30.0
"""Within this time a quiet world has agreed on all versions that are left, six at most, and everybody has them."""
DUEL_SECONDS_MAX = 1.0
STEPS = 1000
SEATS = (3, 5, 1, 4, 2)
"""How many vote, in turn."""
SEEDS = 100
SEEDS_OF_MUTANTS = 300

Kept = AcceptorState | None
Judged = tuple[Kept, LayoutVote]
Judge = Callable[[Kept, Layout, bytes, LayoutRequest], Judged]


# -- layouts -----------------------------------------------------------------


def node(index: int) -> NodeId:
    return NodeId(plain_hash(b"node %d" % index, 16))


@cache
def first(count: int, voters: int) -> Layout:
    """Return version 1 of a cluster that has grown already."""
    members = tuple(Member(node_id, "", "", 1, ()) for node_id in sorted(node(index) for index in range(count)))
    record = genesis(ClusterId(b"c" * 16), members[0]).record
    table = bytes(partition % count for partition in range(limits.PARTITIONS))
    voting = tuple(member.node_id for member in members[:voters])
    return Layout.from_bytes(Layout(dataclasses.replace(record, members=members, old_table=table, voters=voting)).data)


@cache
def successor(parent: Layout, choice: int) -> Layout:
    """Return one of the records that may follow: each has other voters, sometimes none of those before."""
    turn = parent.version + choice
    ids = list(parent.members)
    voters = tuple(ids[(turn + seat) % len(ids)] for seat in range(SEATS[turn % len(SEATS)]))
    members = tuple(dataclasses.replace(member, name=f"choice {choice}") for member in parent.record.members)
    record = dataclasses.replace(parent.record, version=parent.version + 1, parent=parent.digest, members=members, voters=voters)
    layout = Layout.from_bytes(Layout(record).data)
    PARENTS[layout.digest] = parent
    return layout


PARENTS: dict[bytes, Layout] = {}


@pytest.fixture(autouse=True, scope="module")
def _many_records() -> None:
    """Keep every record of these tests ready; a node keeps a few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout_module, "_parsed", lru_cache(maxsize=None)(layout_module._parsed.__wrapped__))
        patch.setattr(paxos, "follows", lru_cache(maxsize=None)(layout_module.follows.__wrapped__))
        yield
    first.cache_clear()
    successor.cache_clear()


# -- the world ---------------------------------------------------------------


class Forked(Exception):
    """Two records of one version."""


@dataclass
class World:
    """Nodes, the time, and what is on its way. Each seed has its own sort of trouble."""

    seed: int
    members: int = 5
    voters: int = 3
    goal: int = LAST_VERSION
    judge: Judge = judge
    proposer: type[Proposer] = Proposer
    answers_first: bool = False
    """Whether a voter answers before it has persisted: a mutant."""
    now: float = 0.0
    records: dict[int, Layout] = field(default_factory=dict)
    ballots: int = 0
    """How many were begun."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.lost = self.random.choice([0.05, 0.2])
        self.news_lost = 0.9
        """What would tell others of a new version is lost more often: else nobody stays behind for long."""
        self.repeated = 0.1
        self.crashes = self.random.choice([0.0, 0.02, 0.1])
        """How likely a node crashes before what it writes is durable, and how likely right behind that."""
        self.hurry = self.random.choice([0.01, 0.03, 0.1])
        """How likely a timer comes before all messages."""
        known = first(self.members, self.voters)
        self.nodes = {node_id: Node(self, node_id, known) for node_id in known.members}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def after(self, seconds: float, step: Callable[[], None], *, timer: bool = False) -> None:
        (self._timers if timer else self._events).append((self.now + seconds, next(self._numbers), step))

    def send(self, receiver: NodeId, step: Callable[["Node"], None]) -> None:
        """Have `step` done at the receiver, if it is up then: perhaps never, perhaps twice, and in any order."""
        for _ in range(1 + (self.random.random() < self.repeated)):
            if self.random.random() >= self.lost:
                self.after(self.random.uniform(0.0005, 0.02), partial(self.nodes[receiver].take, step))

    def run_in_any_order(self, steps: int) -> None:
        """Do what is due some time, whenever it pleases."""
        for _ in range(steps):
            pool = self._events if self._events and self.random.random() >= self.hurry else self._timers
            if pool:
                index = self.random.randrange(len(pool))
                pool[index], pool[-1] = pool[-1], pool[index]
                time, _, step = pool.pop()
                self.now = max(self.now, time)
                step()

    def run(self, seconds: float, until: Callable[[], bool]) -> None:
        """Do what is due when it is due."""
        end = self.now + seconds
        self._events += self._timers
        self._timers = self._events
        while self._events and not until():
            event = min(self._events)
            self._events.remove(event)
            self.now = max(self.now, event[0])
            if self.now > end:
                return
            event[2]()

    def agreed(self, layout: Layout) -> None:
        """Note that somebody takes this record for the one of its version."""
        if self.records.setdefault(layout.version, layout).digest != layout.digest:
            raise Forked(f"version {layout.version}, seed {self.seed}")

    def calm(self) -> None:
        """End all trouble."""
        self.lost = self.repeated = self.crashes = self.news_lost = 0.0

    def start(self, count: int) -> None:
        """Start the first `count` nodes, as far as they are down."""
        for each in list(self.nodes.values())[:count]:
            each.start()

    def live(self) -> list[NodeId]:
        """Return whom somebody thinks alive."""
        return [node_id for node_id in self.nodes if self.random.random() < 0.3]


class Node:
    """One member: a chain and a vote on its disk, and a proposer as long as there is something to agree on."""

    def __init__(self, world: World, node_id: NodeId, known: Layout) -> None:
        self.world = world
        self.node_id = node_id
        self.chain = [known]
        self.state: AcceptorState | None = None
        self.disk: tuple[tuple[Layout, ...], bytes] = ((known,), b"")
        self.is_up = False
        self.life = 0
        self.writing = False
        self.jobs: deque[Callable[[], None]] = deque()
        self.waits_for: Layout | None = None
        """Of which it wishes for a successor."""
        self.proposer: Proposer | None = None
        self.timer: float | None = None

    @property
    def latest(self) -> Layout:
        return self.chain[-1]

    # -- life and disk

    def start(self) -> None:
        if self.is_up:
            return
        self.is_up = True
        self.chain = list(self.disk[0])
        self.state = decode(AcceptorState, self.disk[1]) if self.disk[1] else None
        self.propose()
        for other in self.world.nodes:
            self.world.send(other, partial(Node.announce, to=self.node_id))

    def crash(self) -> None:
        self.is_up = self.writing = False
        self.life += 1
        self.waits_for = self.proposer = None
        self.jobs.clear()
        self.timer = None
        self.world.after(self.world.random.choice([0.001, 0.1, 4.0]), self.start)

    def take(self, step: Callable[["Node"], None]) -> None:
        if self.is_up:
            step(self)

    def in_this_life(self, seconds: float, step: Callable[[], None], *, timer: bool = False) -> None:
        life = self.life
        self.world.after(seconds, lambda: step() if self.life == life else None, timer=timer)

    def one_at_a_time(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)
        while self.jobs and not self.writing:
            self.jobs.popleft()()

    def persist(self, chain: list[Layout], state: AcceptorState | None, then: Callable[[], None]) -> None:
        """Write, then go on; a crash on the way loses what was to be written, and what was to be done."""
        self.writing = True

        def written() -> None:
            self.disk = (tuple(chain), encode(state) if state is not None else b"")
            self.chain, self.state = chain, state
            self.writing = False
            if self.world.random.random() < self.world.crashes:
                self.crash()
                return
            then()
            while self.jobs and not self.writing:
                self.jobs.popleft()()

        self.in_this_life(self.world.random.uniform(0.001, 0.02), written)
        if self.world.random.random() < self.world.crashes:
            self.in_this_life(0.0005, self.crash)

    # -- voting

    def serve(self, asker: NodeId, proposer: Proposer, request: LayoutRequest) -> None:
        self.one_at_a_time(partial(self._vote, asker, proposer, request))

    def _vote(self, asker: NodeId, proposer: Proposer, request: LayoutRequest) -> None:
        decided = self.chain[request.version - 1].data if request.version <= self.latest.version else b""
        state, vote = self.world.judge(self.state, self.latest, decided, request)
        answer = partial(self.world.send, asker, partial(Node.receive, voter=self.node_id, proposer=proposer, asked=request, vote=vote))
        if vote.verdict is Verdict.BEHIND:
            self.world.send(asker, partial(Node.announce, to=self.node_id))
        if state is None:
            answer()
        elif self.world.answers_first:
            answer()
            self.persist(self.chain, state, lambda: None)
        else:
            self.persist(self.chain, state, answer)

    # -- proposing

    def propose(self) -> None:
        if not self.is_up or self.waits_for is self.latest or self.latest.version >= self.world.goal:
            return
        self.waits_for = self.latest
        seconds = turn_seconds(self.node_id, self.latest, self.world.live())
        self.in_this_life(seconds, partial(self.begin, self.latest), timer=True)

    def begin(self, parent: Layout) -> None:
        if self.proposer is not None or self.latest is not parent:
            return
        wanted = successor(parent, self.world.random.randrange(3))
        self.proposer = self.world.proposer(self.node_id, parent, wanted, self.world.now)
        self.drive(self.proposer)

    def drive(self, proposer: Proposer) -> None:
        """Do what a proposer wants done."""
        asks = proposer.take_effects()
        self.world.ballots += any(isinstance(ask.request, LayoutPrepare) for ask in asks)
        for ask in asks:
            self.world.send(ask.voter, partial(Node.serve, asker=self.node_id, proposer=proposer, request=ask.request))
        deadline = proposer.next_deadline()
        if deadline is not None and deadline != self.timer:
            self.timer = deadline
            self.in_this_life(max(0.0, deadline - self.world.now), partial(self.tick, proposer), timer=True)
        if proposer.decided is not None:
            self.world.agreed(proposer.decided)
            self.one_at_a_time(partial(self.adopt, proposer.decided))

    def tick(self, proposer: Proposer) -> None:
        deadline = proposer.next_deadline()
        if proposer is self.proposer and deadline is not None and deadline <= self.world.now:
            proposer.tick(self.world.now)
            self.drive(proposer)

    def receive(self, voter: NodeId, proposer: Proposer, asked: LayoutRequest, vote: LayoutVote) -> None:
        if proposer is self.proposer:
            proposer.receive(voter, asked, vote, self.world.now)
            self.drive(proposer)

    # -- learning

    def announce(self, to: NodeId) -> None:
        if self.world.random.random() >= self.world.news_lost:
            self.world.send(to, partial(Node.catch_up, chain=tuple(self.chain)))

    def catch_up(self, chain: tuple[Layout, ...]) -> None:
        for layout in chain:
            self.one_at_a_time(partial(self.adopt, layout))

    def adopt(self, layout: Layout) -> None:
        self.world.agreed(layout)
        if layout.version == self.latest.version + 1:
            self.persist([*self.chain, layout], self.state, self.adopted)

    def adopted(self) -> None:
        self.proposer = self.timer = None
        for other in self.world.nodes:
            self.announce(other)
        self.in_this_life(self.world.random.uniform(0.0, 0.5), self.propose)


def trouble(seed: int, **mutant: object) -> World:
    """Run a world through trouble, then in peace until everybody has the last version."""
    world = World(seed, **mutant)
    world.start(world.members)
    world.run_in_any_order(STEPS)
    world.calm()
    world.start(world.members)
    world.run(QUIET_SECONDS_MAX, lambda: all(each.latest.version == world.goal for each in world.nodes.values()))
    lagging = [each.latest.version for each in world.nodes.values() if each.latest.version < world.goal]
    assert not lagging, f"seed {seed}: {lagging} after {QUIET_SECONDS_MAX} quiet seconds"
    return world


@pytest.mark.parametrize("seed", range(SEEDS))
def test_each_version_has_one_record_and_the_chain_goes_on(seed: int) -> None:
    world = trouble(seed)
    assert sorted(world.records) == list(range(1, LAST_VERSION + 1))
    assert all(layout_module.follows(world.records[version], world.records[version + 1]) is None for version in range(1, LAST_VERSION))


# -- mutants -----------------------------------------------------------------


def granted(latest: Layout, ballot: Ballot = NO_BALLOT, record: bytes = b"") -> LayoutVote:
    return LayoutVote(Verdict.GRANTED, latest.version, ballot, record)


def judge_again(state: Kept, latest: Layout, decided: bytes, request: LayoutRequest) -> Judged:
    """Vote on a version that is in force as on any other."""
    if not decided:
        return judge(state, latest, decided, request)
    same = state if state is not None and state.version == request.version else None
    return judge(same, PARENTS[Layout.from_bytes(decided).digest], b"", request)


def judge_ahead(state: Kept, latest: Layout, decided: bytes, request: LayoutRequest) -> Judged:
    """Vote on a version whose parent is not in force, and forget for it how one voted on the parent."""
    if state is not None and state.version > request.version:
        state = None
    if request.version <= latest.version + 1:
        return judge(state, latest, decided, request)
    if state is None or state.version < request.version:
        state = AcceptorState(request.version, NO_BALLOT, NO_BALLOT, b"")
    if request.ballot < state.promised or (isinstance(request, LayoutPrepare) and request.ballot == state.promised):
        return None, LayoutVote(Verdict.OUTBID, latest.version, state.promised, b"")
    if isinstance(request, LayoutPrepare):
        return dataclasses.replace(state, promised=request.ballot), granted(latest, state.accepted, state.record)
    return AcceptorState(request.version, request.ballot, request.ballot, request.record), granted(latest)


def promise_twice(state: Kept, latest: Layout, decided: bytes, request: LayoutRequest) -> Judged:
    """Promise a ballot again to whoever comes with it."""
    if state is not None and isinstance(request, LayoutPrepare) and (request.version, request.ballot) == (state.version, state.promised):
        return None, granted(latest, state.accepted, state.record)
    return judge(state, latest, decided, request)


def accept_anything(state: Kept, latest: Layout, decided: bytes, request: LayoutRequest) -> Judged:
    """Accept under a ballot that is lower than the promised one."""
    if state is not None and isinstance(request, LayoutAccept) and request.version == state.version == latest.version + 1:
        return AcceptorState(request.version, max(state.promised, request.ballot), request.ballot, request.record), granted(latest)
    return judge(state, latest, decided, request)


class Headstrong(Proposer):
    """Proposes its own record, whatever was accepted before."""

    def _take_grant(self, voter: NodeId, vote: LayoutVote, now: float) -> None:
        super()._take_grant(voter, dataclasses.replace(vote, ballot=NO_BALLOT), now)


class Hasty(Proposer):
    """Takes the first accepted record that it hears of, not that of the highest ballot."""

    def _take_grant(self, voter: NodeId, vote: LayoutVote, now: float) -> None:
        if self.phase is Phase.PREPARING and self._seen > NO_BALLOT:
            vote = dataclasses.replace(vote, ballot=NO_BALLOT)
        super()._take_grant(voter, vote, now)


def run_until_forked(**mutant: object) -> None:
    for seed in range(SEEDS_OF_MUTANTS):
        trouble(seed, **mutant)


@pytest.mark.parametrize("mutant", [judge_again, judge_ahead, accept_anything])
def test_a_voter_that_breaks_a_rule_forks_the_chain(mutant: Judge) -> None:
    with pytest.raises(Forked):
        run_until_forked(judge=mutant)


def test_a_proposer_that_ignores_what_was_accepted_forks_the_chain() -> None:
    with pytest.raises(Forked):
        run_until_forked(proposer=Headstrong)


def test_half_of_the_voters_fork_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paxos, "_majority", lambda voters: max(1, voters // 2))
    with pytest.raises(Forked):
        run_until_forked()


# -- incidents that chance is too slow to find -------------------------------


class Table:
    """Three voters who are asked by hand, and a proposer that is driven by hand."""

    def __init__(self, judge: Judge = judge) -> None:
        self.judge = judge
        self.parent = first(5, 3)
        self.voters = self.parent.record.voters
        self.kept: dict[NodeId, Kept] = dict.fromkeys(self.voters)

    def proposer(self, number: int, choice: int, kind: type[Proposer] = Proposer) -> Proposer:
        return kind(self.voters[number], self.parent, successor(self.parent, choice), 0.0)

    def begin(self, proposer: Proposer) -> list[Ask]:
        """Begin a ballot, at once."""
        while proposer.phase is not Phase.PREPARING or not (asks := proposer.take_effects()):
            proposer.tick(proposer.next_deadline() or 0.0)
        return asks

    def ask(self, proposer: Proposer, asks: list[Ask], *numbers: int, forgets: int | None = None) -> list[Ask]:
        """Have the voters with these numbers vote, in this order, of which one forgets it at once; return what is to be asked next."""
        for number in numbers:
            (request,) = (ask.request for ask in asks if ask.voter == self.voters[number])
            state, vote = self.judge(self.kept[self.voters[number]], self.parent, b"", request)
            if state is not None and number != forgets:
                self.kept[self.voters[number]] = state
            proposer.receive(self.voters[number], request, vote, 0.0)
        return proposer.take_effects()

    def decide(self, number: int, choice: int, *voters: int, kind: type[Proposer] = Proposer) -> Proposer:
        """Propose until it is decided, by these voters."""
        proposer = self.proposer(number, choice, kind)
        while proposer.decided is None:
            accepts = self.ask(proposer, self.begin(proposer), *voters)
            if proposer.phase is Phase.ACCEPTING:
                self.ask(proposer, accepts, *voters)
        return proposer


@pytest.mark.parametrize("answers_first", [False, True])
def test_a_vote_that_a_crash_took_back_was_not_told(answers_first: bool) -> None:
    table = Table()
    one = table.proposer(0, 0)
    accepts = table.ask(one, table.begin(one), 0, 1)
    if answers_first:
        table.ask(one, accepts, 0, 1, forgets=1)
    else:
        table.ask(one, accepts, 0)  # voter 1 crashed before its acceptance was durable: so there is no answer
    two = table.decide(2, 1, 1, 2)
    assert two.decided is not None
    assert (one.decided in (None, two.decided)) == (not answers_first)


@pytest.mark.parametrize("mutant", [judge, promise_twice])
def test_a_proposer_that_comes_back_under_the_same_ballot_does_not_get_it_twice(mutant: Judge) -> None:
    table = Table(mutant)
    before = table.proposer(0, 0)
    accepts = table.ask(before, table.begin(before), 0, 1)
    again = table.proposer(0, 1)  # it crashed, and wants something else now
    table.ask(again, table.ask(again, table.begin(again), 1, 2), *((1, 2) if again.phase is Phase.ACCEPTING else ()))
    table.ask(before, accepts, 0, 1)  # what was under way arrives all the same
    last = table.decide(2, 2, 0, 1)
    assert last.decided is not None
    assert (again.decided in (None, last.decided)) == (mutant is judge)


@pytest.mark.parametrize("kind", [Proposer, Hasty])
def test_of_two_accepted_records_that_of_the_higher_ballot_is_proposed(kind: type[Proposer]) -> None:
    table = Table()
    one = table.proposer(0, 0)
    table.ask(one, table.ask(one, table.begin(one), 0, 1), 0)
    two = table.decide(2, 1, 1, 2)
    three = table.decide(1, 2, 0, 1, kind=kind)
    assert three.decided is not None
    assert (three.decided == two.decided) == (kind is Proposer)


# -- a voter -----------------------------------------------------------------


def prepare(version: int, ballot: Ballot) -> LayoutPrepare:
    return LayoutPrepare(1000, version, ballot)


def test_a_voter_promises_only_what_is_higher_and_accepts_what_is_not_lower():
    parent = first(5, 3)
    record = successor(parent, 0).data
    low, high = Ballot(1, node(1)), Ballot(2, node(0))
    state, vote = judge(None, parent, b"", prepare(2, high))
    assert state == AcceptorState(2, high, NO_BALLOT, b"")
    assert vote == granted(parent)
    for ballot in (low, high):
        assert judge(state, parent, b"", prepare(2, ballot)) == (None, LayoutVote(Verdict.OUTBID, 1, high, b""))
    assert judge(state, parent, b"", LayoutAccept(1000, 2, low, record)) == (None, LayoutVote(Verdict.OUTBID, 1, high, b""))
    state, vote = judge(state, parent, b"", LayoutAccept(1000, 2, high, record))
    assert state == AcceptorState(2, high, high, record)
    assert vote == granted(parent)
    assert decode(AcceptorState, encode(state)) == state
    third = Ballot(3, node(1))
    assert judge(state, parent, b"", prepare(2, third)) == (AcceptorState(2, third, high, record), granted(parent, high, record))


def test_a_voter_answers_for_older_versions_with_the_record_and_for_later_ones_that_it_is_behind():
    parent = first(5, 3)
    latest = successor(parent, 0)
    for request in (prepare(2, Ballot(9, node(1))), LayoutAccept(1000, 2, Ballot(9, node(1)), successor(parent, 1).data)):
        assert judge(None, latest, latest.data, request) == (None, LayoutVote(Verdict.DECIDED, 2, NO_BALLOT, latest.data))
    assert judge(None, latest, b"", prepare(4, Ballot(9, node(1)))) == (None, LayoutVote(Verdict.BEHIND, 2, NO_BALLOT, b""))


def test_a_voter_forgets_a_version_when_the_next_one_is_voted_on():
    parent = first(5, 3)
    latest = successor(parent, 0)
    before = AcceptorState(2, Ballot(7, node(3)), Ballot(7, node(3)), latest.data)
    state, vote = judge(before, latest, b"", prepare(3, Ballot(1, node(1))))
    assert state == AcceptorState(3, Ballot(1, node(1)), NO_BALLOT, b"")
    assert vote == granted(latest)


def test_a_record_that_may_not_follow_is_neither_accepted_nor_taken_over_nor_believed():
    parent = first(5, 3)
    stranger = successor(successor(parent, 0), 0).data
    ballot = Ballot(1, node(1))
    for record in (stranger, b"junk", b""):
        with pytest.raises(RemoteProtocolError):
            judge(None, parent, b"", LayoutAccept(1000, 2, ballot, record))
        proposer = Table().proposer(0, 0)
        (ask, *_) = Table().begin(proposer)
        for vote in (granted(parent, ballot, record), LayoutVote(Verdict.DECIDED, 2, NO_BALLOT, record)):
            with pytest.raises(RemoteProtocolError):
                proposer.receive(ask.voter, ask.request, vote, 0.0)
        assert proposer.phase is Phase.PREPARING


# -- a proposer --------------------------------------------------------------


def test_a_proposer_takes_what_was_decided_in_the_place_of_its_own():
    table = Table()
    proposer, decided = table.proposer(0, 0), successor(table.parent, 1)
    (ask, *_) = table.begin(proposer)
    proposer.receive(ask.voter, ask.request, LayoutVote(Verdict.DECIDED, 2, NO_BALLOT, decided.data), 0.0)
    assert proposer.decided == decided
    assert proposer.next_deadline() is None
    assert proposer.take_effects() == []


def test_only_voters_count_and_each_once():
    table = Table()
    proposer = table.proposer(0, 0)
    (ask, *_) = table.begin(proposer)
    stranger = next(node_id for node_id in table.parent.members if node_id not in table.voters)
    for voter in (ask.voter, ask.voter, stranger):
        proposer.receive(voter, ask.request, granted(table.parent), 0.0)
    assert proposer.phase is Phase.PREPARING
    assert proposer.take_effects() == []


def test_a_proposer_outbids_what_outbid_it_after_a_pause_and_counts_no_late_answers():
    table = Table()
    proposer = table.proposer(0, 0)
    first_asks = table.begin(proposer)
    outbid = LayoutVote(Verdict.OUTBID, 1, Ballot(41, node(3)), b"")
    for ask in first_asks[:2]:
        proposer.receive(ask.voter, ask.request, outbid, 0.0)
    deadline = proposer.next_deadline()
    assert deadline is not None
    assert 0.0 < deadline <= paxos.BACKOFF_SECONDS
    asks = table.begin(proposer)
    assert {ask.request.ballot for ask in asks} == {Ballot(42, table.voters[0])}
    for ask in first_asks:
        proposer.receive(ask.voter, ask.request, granted(table.parent), 0.0)
    assert proposer.phase is Phase.PREPARING


def test_the_first_live_voter_begins_at_once_and_the_others_when_they_have_left_it_time():
    parent = first(7, 5)
    live = parent.record.voters[:4]

    def waits(node_id: NodeId, parent: Layout = parent) -> float:
        return turn_seconds(node_id, parent, live)

    seconds = paxos.TURN_SECONDS
    assert sorted(waits(voter) for voter in live) == [0.0, seconds, 2 * seconds, 3 * seconds]
    assert waits(list(parent.members)[-1]) == 4 * seconds
    later = successor(parent, 1)
    assert sorted(live, key=waits) != sorted(live, key=lambda voter: waits(voter, later))


# -- how long it takes -------------------------------------------------------


def seconds_to_agree(seed: int, up: int, live: int) -> tuple[float, int]:
    """Return how long seven voters need when all who are up propose at once, and how many ballots; each takes `live` of them for alive."""
    world = World(seed, members=7, voters=7, goal=2)
    world.calm()
    world.live = lambda: list(world.nodes)[:live]
    world.start(up)
    world.run(60.0, lambda: 2 in world.records)
    return world.now, world.ballots


@pytest.mark.parametrize("up", [4, 7])
def test_proposers_that_do_not_know_of_each_other_agree_soon_all_the_same(up: int) -> None:
    assert max(seconds_to_agree(seed, up, 0)[0] for seed in range(40)) < DUEL_SECONDS_MAX


def test_proposers_that_do_not_pause_outbid_each_other_many_times(monkeypatch: pytest.MonkeyPatch) -> None:
    pausing = sum(seconds_to_agree(seed, 7, 0)[1] for seed in range(5))
    monkeypatch.setattr(paxos, "BACKOFF_SECONDS", 0.0)
    assert sum(seconds_to_agree(seed, 7, 0)[1] for seed in range(5)) > 5 * pausing


def test_whose_turn_it_is_has_its_way_with_one_ballot() -> None:
    for seed in range(10):
        seconds, ballots = seconds_to_agree(seed, 7, 7)
        assert seconds < 0.2
        assert ballots == 1
