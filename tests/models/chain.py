"""A random model of the layout chain: L(v+1) is decided by one decree of Paxos among the voters of L(v), one acceptor state for all slots.

Messages are reordered, repeated, lost; nodes crash at any step and come back with what they had saved; proposers run at the same time, as
any node may propose. A record names its voters and, while a join is under way, the newcomer. At the end the newcomers close their lids,
and everybody else must still be able to decide the next version.

Source of the algorithm: Lamport, Paxos Made Simple (2001), section 2.
"""

from dataclasses import dataclass, field
from random import Random

from tests.models.violation import BrokenError, Step, Violation, members, named

STEPS_MAX = 260
MESSAGES_MAX = 60
VOTERS_MAX = 7
NOBODY = -1

Ballot = tuple[int, int, int]
"""Round, proposer, and which start of that proposer: no two attempts are alike, whatever was forgotten in a crash."""
FIRST: Ballot = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Rules:
    """Every clause of the rule; one set to False is a mutant."""

    persist_before_acting: bool = True
    """A node saves a layout before it sends or answers anything by it."""
    learns_before_accepting: bool = True
    """An acceptor learns L(v+1) before it takes part in slot v+2."""
    decided_stays: bool = True
    """An acceptor answers older slots with the decided record; without: it opens them anew."""
    promise_saved: bool = True
    """A promise is on disk before it is sent."""
    accepted_saved: bool = True
    """So is what was accepted."""
    accepted_values_kept: bool = True
    """A proposer adopts the accepted value of the highest ballot that it is told of."""
    majority_decides: bool = True
    """More than half of the voters; without: half."""
    voters_of_the_last: bool = True
    """The voters of L(v) decide L(v+1); without: those of the record that is proposed."""
    ballot_of_this_start: bool = True
    """A ballot says which start of its proposer made it."""
    newcomer_waits: bool = True
    """A newcomer votes only after the version that ends its join; without: at once."""


RULES = Rules()


@dataclass(frozen=True, slots=True)
class Record:
    """One layout: its version, who votes on the next, who is about to join, and a number that tells proposals apart."""

    version: int
    voters: int
    newcomer: int
    number: int

    def __str__(self) -> str:
        joining = "" if self.newcomer == NOBODY else f" joining {self.newcomer}"
        return f"L{self.version}#{self.number} voters {named(self.voters)}{joining}"


@dataclass(frozen=True, slots=True)
class Acceptor:
    """What an acceptor keeps, for one slot at a time."""

    slot: int = 0
    promised: Ballot = FIRST
    accepted: Ballot = FIRST
    value: Record | None = None


@dataclass(slots=True)
class Attempt:
    """What a proposer knows of its attempt; gone in a crash."""

    slot: int
    ballot: Ballot
    value: Record
    accepting: bool = False
    promises: int = 0
    highest: Ballot = FIRST
    accepts: int = 0


@dataclass(slots=True)
class Node:
    """A node: what it acts by, and what it will find on its disk after a crash."""

    chain: list[Record]
    acceptor: Acceptor = Acceptor()
    saved_length: int = 1
    saved_acceptor: Acceptor = Acceptor()
    starts: int = 0
    round: int = 0
    attempt: Attempt | None = None
    acted: int = 0
    """The highest version by which it sent or answered anything."""


@dataclass(frozen=True, slots=True)
class Message:
    """What travels; `previous` is the record that makes the slot known to one who lags by one."""

    kind: str
    source: int
    target: int
    slot: int
    ballot: Ballot
    previous: Record | None = None
    value: Record | None = None
    accepted: Ballot = FIRST


@dataclass(slots=True)
class World:
    """All nodes, what is on its way, and what was decided."""

    random: Random
    rules: Rules
    nodes: list[Node]
    messages: list[Message] = field(default_factory=list)
    decided: dict[int, Record] = field(default_factory=dict)
    accepts: dict[tuple[int, Ballot, Record], int] = field(default_factory=dict)
    proposals: int = 0
    history: list[Step] = field(default_factory=list)

    def below(self, count: int) -> int:
        return int(self.random.random() * count)

    def send(self, message: Message) -> None:
        """Put a message on its way; the newest push out some older one, which is lost."""
        self.nodes[message.source].acted = max(self.nodes[message.source].acted, len(self.nodes[message.source].chain) - 1)
        if len(self.messages) < MESSAGES_MAX:
            self.messages.append(message)
        else:
            self.messages[self.below(MESSAGES_MAX)] = message

    def is_enough(self, votes: int, voters: int) -> bool:
        twice = 2 * (votes & voters).bit_count()
        return twice > voters.bit_count() or (twice == voters.bit_count() and not self.rules.majority_decides)

    # -- learning -----------------------------------------------------------------------------------------------------------------

    def learn(self, number: int, record: Record) -> None:
        """Append a decided record to a node's chain, if it is the next one."""
        node = self.nodes[number]
        self.agree(record)
        if record.version != len(node.chain):
            return
        node.chain.append(record)
        if self.rules.persist_before_acting:
            node.saved_length = len(node.chain)
        self.history.append((number, "learns", record))

    def agree(self, record: Record) -> None:
        """Note that a record was decided; there is one per version."""
        if self.decided.setdefault(record.version, record) != record:
            raise BrokenError(f"{self.decided[record.version]} and {record} were both decided")

    def gossip(self, number: int) -> None:
        """Let a node pull the next record from another."""
        other, node = self.nodes[self.below(len(self.nodes))], self.nodes[number]
        if len(other.chain) > len(node.chain):
            self.learn(number, other.chain[len(node.chain)])

    def crash(self, number: int) -> None:
        """Let a node start again from its disk; then whatever it acted by must be there."""
        node = self.nodes[number]
        del node.chain[node.saved_length :]
        node.acceptor, node.attempt, node.round = node.saved_acceptor, None, 0
        node.starts += 1
        self.history.append((number, "crashes"))
        if len(node.chain) <= node.acted and self.below(2):  # half of the time we look on, to see what comes of it
            raise BrokenError(f"{number} had acted by version {node.acted} and restarts at version {len(node.chain) - 1}")

    # -- proposing ----------------------------------------------------------------------------------------------------------------

    def propose(self, number: int) -> None:
        node = self.nodes[number]
        node.round += 1
        ballot = (node.round, number, node.starts if self.rules.ballot_of_this_start else 0)
        self.proposals += 1
        value = self.successor(node.chain[-1])
        attempt = node.attempt = Attempt(len(node.chain), ballot, value)
        self.history.append((number, "proposes", value, "ballot", ballot))
        self.ask("prepare", number, attempt)

    def successor(self, last: Record) -> Record:
        """Return what might follow: a join begins, ends or is aborted, or a voter is dropped."""
        version, voters, newcomer = last.version + 1, last.voters, NOBODY
        if last.newcomer != NOBODY:
            newcomer_bit = 1 << last.newcomer
            voters = voters | newcomer_bit if self.below(3) else voters & ~newcomer_bit or voters
        elif self.below(2):
            candidate = self.below(len(self.nodes))
            if not voters >> candidate & 1 and voters.bit_count() < VOTERS_MAX:
                newcomer = candidate
                voters |= 0 if self.rules.newcomer_waits else 1 << candidate
        elif voters.bit_count() > 1:
            voters &= ~(1 << self.random.choice(members(voters)))
        return Record(version, voters, newcomer, self.proposals)

    def ask(self, kind: str, number: int, attempt: Attempt) -> None:
        previous = self.nodes[number].chain[attempt.slot - 1]
        for voter in members(self.voters(previous, attempt.value)):
            value = attempt.value if kind == "accept" else None
            self.send(Message(kind, number, voter, attempt.slot, attempt.ballot, previous, value))

    def voters(self, previous: Record, value: Record) -> int:
        return previous.voters if self.rules.voters_of_the_last else value.voters

    def hear(self, message: Message) -> None:
        """Let a proposer count a promise or an acceptance of the attempt under way."""
        number = message.target
        node, attempt = self.nodes[number], self.nodes[number].attempt
        if attempt is None or message.ballot != attempt.ballot or message.slot != attempt.slot or attempt.slot != len(node.chain):
            return
        bit = 1 << message.source
        if message.kind == "promise" and not attempt.accepting:
            attempt.promises |= bit
            if message.value is not None and message.accepted > attempt.highest and self.rules.accepted_values_kept:
                attempt.highest, attempt.value = message.accepted, message.value
            if self.is_enough(attempt.promises, self.voters(node.chain[-1], attempt.value)):
                attempt.accepting = True
                self.ask("accept", number, attempt)
        elif message.kind == "accepted" and attempt.accepting:
            attempt.accepts |= bit
            if self.is_enough(attempt.accepts, self.voters(node.chain[-1], attempt.value)):
                self.learn(number, attempt.value)
                for target in range(len(self.nodes)):
                    self.send(Message("decided", number, target, attempt.slot, attempt.ballot, None, attempt.value))

    # -- accepting ----------------------------------------------------------------------------------------------------------------

    def deliver(self, message: Message) -> None:
        number, node = message.target, self.nodes[message.target]
        node.round = max(node.round, message.ballot[0])
        if message.kind == "decided":
            assert message.value is not None
            self.learn(number, message.value)
        elif message.kind in ("promise", "accepted"):
            self.hear(message)
        elif message.slot < len(node.chain) and self.rules.decided_stays:
            self.answer(message, "decided", node.chain[message.slot])
        else:
            self.vote(message)

    def vote(self, message: Message) -> None:
        """Answer a prepare or an accept as an acceptor."""
        number, node = message.target, self.nodes[message.target]
        assert message.previous is not None
        if message.slot == len(node.chain) + 1 and self.rules.learns_before_accepting:
            self.learn(number, message.previous)
        if message.slot > len(node.chain) + (not self.rules.learns_before_accepting):
            return
        state = node.acceptor
        if state.slot != message.slot:
            state = Acceptor(message.slot)
        if message.ballot < state.promised:
            return
        if message.kind == "prepare":
            if message.ballot > state.promised or not self.rules.ballot_of_this_start:
                node.acceptor = Acceptor(message.slot, message.ballot, state.accepted, state.value)
                if self.rules.promise_saved:
                    node.saved_acceptor = node.acceptor
                self.history.append((number, "promises slot", message.slot, "ballot", message.ballot, "has", state.value))
                self.answer(message, "promise", state.value, state.accepted)
            return
        assert message.value is not None
        node.acceptor = Acceptor(message.slot, message.ballot, message.ballot, message.value)
        if self.rules.accepted_saved:
            node.saved_acceptor = node.acceptor
        self.history.append((number, "accepts", message.value, "ballot", message.ballot))
        self.answer(message, "accepted", message.value)
        self.count(message, message.value)

    def answer(self, message: Message, kind: str, value: Record | None, accepted: Ballot = FIRST) -> None:
        self.send(Message(kind, message.target, message.source, message.slot, message.ballot, None, value, accepted))

    def count(self, message: Message, value: Record) -> None:
        """Note what is decided by what acceptors did, whether or not anybody has counted their answers yet."""
        key = (message.slot, message.ballot, value)
        votes = self.accepts[key] = self.accepts.get(key, 0) | 1 << message.target
        last = self.decided.get(message.slot - 1)
        if last is not None and 2 * (votes & last.voters).bit_count() > last.voters.bit_count():
            self.agree(value)

    # -- the end ------------------------------------------------------------------------------------------------------------------

    def decide_without_newcomer(self, number: int) -> None:
        """Let the newcomer of a node's last record stay away, and all others answer at once: this node must get a decision."""
        node = self.nodes[number]
        last = node.chain[-1]
        if last.newcomer in (NOBODY, number):
            return
        node.round = max(other.acceptor.promised[0] for other in self.nodes)
        self.messages.clear()
        self.propose(number)
        while self.messages and node.chain[-1] is last:
            message = self.messages.pop(0)
            if last.newcomer not in (message.source, message.target):
                self.deliver(message)
        if node.chain[-1] is last:
            raise BrokenError(f"{number} can decide nothing after {last}, as long as the newcomer {last.newcomer} is away")


def begin(seed: int, rules: Rules) -> World:
    random = Random(seed)
    count = random.randint(2, 6)
    voters = 1 if random.random() < 0.3 else (1 << random.randint(1, count)) - 1
    first = Record(0, voters, NOBODY, 0)
    return World(random, rules, [Node([first]) for _ in range(count)], decided={0: first})


def run(seed: int, rules: Rules = RULES) -> Violation | None:
    """Take random steps; return the promise that was broken, if one was."""
    world = begin(seed, rules)
    world.history.append((world.decided[0], "of", len(world.nodes), "nodes"))
    weights = [weight * world.random.choice((1, 1, 5)) for weight in STEPS.values()]
    try:
        for name in world.random.choices(list(STEPS), weights, k=40 + world.below(STEPS_MAX)):
            step(world, name)
        for number in range(len(world.nodes)):
            world.decide_without_newcomer(number)
    except BrokenError as broken:
        return Violation(str(broken), tuple(world.history))
    return None


STEPS = {"deliver": 40, "repeat": 3, "lose": 2, "propose": 4, "gossip": 1, "crash": 2, "save": 1}
"""What may happen next, and how often; every run multiplies some of it, so that runs differ in kind (swarm testing, Groce 2012)."""


def step(world: World, name: str) -> None:
    number = world.below(len(world.nodes))
    if name in ("deliver", "repeat", "lose"):
        if world.messages:
            chosen = world.below(len(world.messages))
            message = world.messages[chosen]
            if name != "repeat":
                world.messages[chosen] = world.messages[-1]
                world.messages.pop()
            if name != "lose":
                world.deliver(message)
    elif name == "propose":
        world.propose(number)
    elif name == "gossip":
        world.gossip(number)
    elif name == "crash":
        world.crash(number)
        if world.below(2):
            world.propose(number)
    else:
        world.nodes[number].saved_length = len(world.nodes[number].chain)
