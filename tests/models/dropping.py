"""A random model of how a node that is no home of a chunk drops its copy, while homes change and nodes know different layouts.

One chunk that a put stored at R nodes, homes or fallbacks. Some nodes hold an older copy of the same bytes that nothing refers to yet: a
round of garbage collection may take it away until it is touched. Homes fetch what they lack, droppers ask homes and unlink, at any delay.

The promise: copies that are durable and touched are never fewer than R again. A crash takes away what is not durable, so nothing else
has to be counted.
"""

from dataclasses import dataclass, field
from random import Random

from tests.models.violation import BrokenError, Step, Violation, members, named

STEPS_MAX = 300


@dataclass(frozen=True, slots=True)
class Rules:
    """Every clause of the rule; one set to False is a mutant."""

    same_version: bool = True
    """A confirmation counts if its sender answers by the layout of the dropper."""
    unlink_rechecks: bool = True
    """The unlink looks whether the node still has the layout that the homes were taken from."""
    durable_confirmations: bool = True
    """A copy is confirmed when it is durable, not when it has arrived."""
    all_homes: bool = True
    """All homes confirm; without: a majority."""
    homes_keep: bool = True
    """A home never drops; without: it does as a fallback would."""
    confirmation_touches: bool = True
    """A confirmation raises the touch epoch, so that the copy outlives the round of garbage collection under way."""


RULES = Rules()


@dataclass(slots=True)
class Copy:
    """A node's copy: on its disk for sure, and touched late enough to outlive the round under way."""

    durable: bool
    touched: bool


@dataclass(slots=True)
class Node:
    """A node: its layout, which is saved as it is learned, its copy, and the dropping that it has under way."""

    version: int = 0
    copy: Copy | None = None
    dropping: int | None = None
    """Version whose homes it asks."""
    confirmed: int = 0


@dataclass(slots=True)
class World:
    """All nodes, and the homes that each layout version names."""

    random: Random
    rules: Rules
    copies: int
    nodes: list[Node]
    homes: list[int]
    history: list[Step] = field(default_factory=list)

    def below(self, count: int) -> int:
        return int(self.random.random() * count)

    def note(self, *words: object) -> None:
        self.history.append(words)

    def is_home(self, number: int) -> bool:
        return bool(self.homes[self.nodes[number].version] >> number & 1)

    def decide(self, _: int) -> None:
        """Append a layout in which some homes differ."""
        homes = self.homes[-1]
        for _ in range(1 + self.below(self.copies)):
            newcomer = self.below(len(self.nodes))
            if not homes >> newcomer & 1:
                homes = homes & ~(1 << self.random.choice(members(homes))) | 1 << newcomer
        if homes != self.homes[-1]:
            self.homes.append(homes)
            self.note("layout", len(self.homes) - 1, "homes", named(homes))

    def learn(self, number: int) -> None:
        """Let a node learn a later layout: the next, or the last."""
        node = self.nodes[number]
        if node.version < len(self.homes) - 1:
            node.version = node.version + 1 if self.below(2) else len(self.homes) - 1
            self.note(number, "learns", node.version)

    def sync(self, number: int) -> None:
        copy = self.nodes[number].copy
        if copy is not None and not copy.durable:
            copy.durable = True
            self.note(number, "has synced its copy")

    def fetch(self, number: int) -> None:
        """Let a home fetch what it lacks from anybody that has it."""
        node, source = self.nodes[number], self.nodes[self.below(len(self.nodes))].copy
        if self.is_home(number) and node.copy is None and source is not None:
            node.copy = Copy(durable=False, touched=source.touched)
            self.note(number, "fetches")

    def crash(self, number: int) -> None:
        node = self.nodes[number]
        node.dropping, node.confirmed = None, 0
        if node.copy is not None and not node.copy.durable:
            node.copy = None
        self.note(number, "crashes")

    def sweep(self, number: int) -> None:
        """Let the round of garbage collection take a copy that was not touched."""
        node = self.nodes[number]
        if node.copy is not None and not node.copy.touched:
            node.copy = None
            self.note(number, "sweeps an untouched copy")

    def drop(self, number: int) -> None:
        """Begin to drop, ask one home, or unlink: whatever is next."""
        node = self.nodes[number]
        if node.copy is None:
            node.dropping = None
            return
        if node.dropping is None:
            if node.copy.touched and not (self.is_home(number) and self.rules.homes_keep):
                node.dropping, node.confirmed = node.version, 0
                self.note(number, "begins to drop by", node.version)
            return
        homes = self.homes[node.dropping]
        if self.suffices(node.confirmed, homes):
            if self.below(4) == 0:  # much may happen between the last confirmation and the unlink
                self.unlink(number)
        else:
            self.ask(number, self.random.choice(members(homes & ~node.confirmed)))

    def suffices(self, confirmed: int, homes: int) -> bool:
        if self.rules.all_homes:
            return not homes & ~confirmed
        return (confirmed & homes).bit_count() > homes.bit_count() // 2

    def ask(self, number: int, home: int) -> None:
        """HAS_CHUNK: the home touches its copy before it says yes, and says by which layout it answers."""
        node, other = self.nodes[number], self.nodes[home]
        if other.copy is None or (self.rules.durable_confirmations and not other.copy.durable):
            return
        if self.rules.confirmation_touches:
            other.copy.touched = True
        if other.version == node.dropping or not self.rules.same_version:
            node.confirmed |= 1 << home
            self.note(home, "confirms to", number, "by", other.version)

    def unlink(self, number: int) -> None:
        node = self.nodes[number]
        if node.version == node.dropping or not self.rules.unlink_rechecks:
            node.copy = None
            self.note(number, "unlinks")
        node.dropping = None

    def judge(self) -> None:
        lasting = [number for number, node in enumerate(self.nodes) if node.copy is not None and node.copy.durable and node.copy.touched]
        if len(lasting) < self.copies:
            raise BrokenError(f"of {self.copies} copies {len(lasting)} are left")


def begin(seed: int, rules: Rules) -> World:
    """Let a put have stored the chunk at R nodes; some others have an old copy."""
    random = Random(seed)
    copies = random.choice((1, 2, 3, 3, 3))
    count = copies + random.randint(1, 3)
    numbers = list(range(count))
    homes = sum(1 << number for number in random.sample(numbers, copies))
    world = World(random, rules, copies, [Node() for _ in numbers], [homes])
    for number in random.sample(numbers, copies):
        world.nodes[number].copy = Copy(durable=True, touched=True)
    stored = [number for number in numbers if world.nodes[number].copy is not None]
    for node in world.nodes:
        if node.copy is None and random.random() < 0.3:
            node.copy = Copy(durable=True, touched=False)
    world.note("layout 0 homes", named(homes), "of", count, "nodes; stored at", stored)
    return world


def run(seed: int, rules: Rules = RULES) -> Violation | None:
    """Take random steps; return the promise that was broken, if one was."""
    world = begin(seed, rules)
    steps = (world.learn, world.drop, world.fetch, world.sync, world.decide, world.crash, world.sweep)
    weights = [weight * world.random.choice((1, 1, 4)) for weight in (4, 20, 8, 6, 2, 1, 1)]
    try:
        for step in world.random.choices(steps, weights, k=40 + world.below(STEPS_MAX)):
            step(world.below(len(world.nodes)))
            world.judge()
    except BrokenError as broken:
        return Violation(str(broken), tuple(world.history))
    return None
