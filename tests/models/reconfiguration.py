"""A random model of how one partition changes its replicas: rules F, J, S, E, read repair, purges of tombstones, lost rows.

One partition with one row. A row is the set of version numbers that it holds or that a version it holds covers, as bits of an int: to
merge is to unite, so that losing any single write shows (a register would hide it behind the next write). Sets of nodes are ints too.

`run(seed, rules)` takes random steps (a message arrives, a node learns the next layout, a layout is decided, ...) in any order and at
any delay: an operation that is not stepped is a paused coordinator, a node that is not stepped is away. At the end every node learns
the last layout, and every read that could then complete is judged, not only one that happened to be made.
"""

from dataclasses import dataclass, field

from tests.models.replicas import Replica, Replicas, Rules, is_quorum, quorum_of
from tests.models.violation import BrokenError, Violation, members, named

STEPS_MAX = 600
OPERATIONS_MAX = 5
RULES = Rules()


@dataclass(slots=True)
class Operation:
    """A coordinator's work: a read, a write, or a purge; `stamp` and sets are what it knew when it began."""

    kind: str
    number: int
    stamp: int
    old: int
    new: int
    reach: int
    settled: int
    row: int = 0
    payload: int = 0
    purges: int = -1
    answers: dict[int, int] = field(default_factory=dict)
    """Node -> its rows, in the phase under way."""
    asked: int = 0
    phase: int = 1
    done: bool = False
    wakes: int = 0
    """The length of the chain at which a paused coordinator goes on."""


class World(Replicas):
    """The replicas, coordinators at work, and what was promised to clients so far."""

    def __init__(self, seed: int, rules: Rules) -> None:
        super().__init__(seed, rules)
        self.operations: list[Operation] = []
        self.covers: list[int] = []
        self.tombstones = 0
        self.last_read = 0
        self.settled = 0
        self.purged = 0

    def visible(self, rows: int) -> int:
        """Return the versions of `rows` that no other covers."""
        covered = 0
        for version in members(rows):
            covered |= self.covers[version]
        return rows & ~covered

    # -- requests -----------------------------------------------------------------------------------------------------------------

    def begin(self, number: int) -> None:
        """Let a node begin an operation with the layout that it knows, however old."""
        if len(self.operations) == OPERATIONS_MAX:
            ended = [operation for operation in self.operations if operation.done]
            if not ended and self.below(10):
                return
            self.operations.remove(self.random.choice(ended or self.operations))
        node, choice = self.nodes[number], self.below(8 if self.deletes else 6)
        layout = self.chain[node.version]
        reach = -1 if self.below(4) == 0 else self.majority(layout.old) | self.majority(layout.new)
        kind = "read" if choice < 3 else "write" if choice < 6 else "purge"
        row = self.below(len(self.rows))
        operation = Operation(kind, len(self.history), node.version, layout.old, layout.new, reach, self.settled & self.rows[row], row)
        if kind != "read" and not self.admits(number, node.version):
            return
        if kind == "write":
            self.begin_write(operation, number)
        elif kind == "purge":
            self.reconcile(number)
            operation.reach, operation.payload = -1, node.rows & self.rows[row]
            if layout.new or not operation.payload or self.visible(operation.payload) & ~self.tombstones:
                return
            self.history.append(("purge", operation.number, "stamp", operation.stamp, "of", named(operation.payload)))
        else:
            self.history.append(("read", operation.number, "stamp", operation.stamp))
        if kind != "purge" and self.below(3) == 0:
            operation.wakes = len(self.chain) + 1 + self.below(2)
        self.operations.append(operation)
        if kind != "read":
            self.ask(operation, number)
        if kind == "purge":
            for _ in range(self.below(12)):
                self.step(operation)

    def begin_write(self, operation: Operation, number: int) -> None:
        """Make a version that covers what the client read before, if it read anything; whole rows are shipped."""
        version, rows = len(self.covers), self.nodes[number].rows & self.rows[operation.row]
        covered = self.last_read & self.rows[operation.row] if self.below(3) else 0
        if self.deletes and self.below(2):
            covered |= rows
            self.tombstones |= 1 << version
        self.covers.append(covered)
        self.rows[operation.row] |= 1 << version
        operation.payload = rows | covered | 1 << version
        kind = "delete" if self.tombstones >> version & 1 else "write"
        self.history.append((kind, operation.number, "stamp", operation.stamp, "version", version, "covers", named(covered)))

    def step(self, operation: Operation) -> None:
        """Deliver one message of an operation, if there is one for the node that the dice name."""
        if operation.wakes > len(self.chain):
            return
        left = (operation.old | operation.new) & operation.reach & ~operation.asked
        if left:
            self.ask(operation, self.one_of(left))
        elif operation in self.operations:
            self.operations.remove(operation)

    def ask(self, operation: Operation, number: int) -> None:
        node = self.nodes[number]
        if not self.admits(number, operation.stamp):
            if operation.stamp > node.version:
                if self.below(3) == 0:
                    self.learn(number)
            elif not node.recovering:
                operation.asked |= 1 << number  # STALE: it will not change its mind
            return
        if operation.purges < 0:
            operation.purges = node.purges  # the first answer says at which generation of purges this operation is
        if self.rules.purge_fence and operation.purges < node.purges:
            return
        if operation.kind == "purge":
            equal = node.rows & self.rows[operation.row] == operation.payload
            if node.purges != operation.purges or (operation.phase == 1 and not equal):
                return
            if self.rules.purge_raises_fence:
                node.min_stamp = max(node.min_stamp, operation.stamp)
            if operation.phase == 2:
                self.purge(operation, node)
        elif operation.kind == "write" or operation.phase == 2:
            node.rows |= operation.payload
        operation.asked |= 1 << number
        operation.answers[number] = node.rows & self.rows[operation.row]
        self.history.append((number, "answers", operation.kind, operation.number, "phase", operation.phase, named(node.rows)))
        if not operation.done:
            self.look(operation)

    def purge(self, operation: Operation, node: Replica) -> None:
        if node.rows & self.rows[operation.row] == operation.payload:
            node.rows &= ~operation.payload
        node.purges += 1
        node.last_purged = operation.payload
        self.purged |= operation.payload

    def look(self, operation: Operation) -> None:
        """Let the coordinator see whether it has the answers that it needs, and act."""
        votes = 0
        for number in operation.answers:
            votes |= 1 << number
        if operation.kind == "write":
            if self.suffices(votes, operation, self.rules.joint_writes):
                self.settle(operation, operation.payload)
        elif operation.kind == "purge":
            enough = not operation.old & ~votes if self.rules.purge_by_all else is_quorum(votes, operation.old, 0)
            if operation.phase == 1 and enough:
                operation.phase, operation.asked, operation.answers = 2, 0, {}
        elif operation.phase == 1:
            if self.may_read(votes, operation):
                self.finish_reading(operation)
        elif self.suffices(votes, operation, self.rules.joint_repair):
            self.complete_read(operation)

    def suffices(self, votes: int, operation: Operation, both: bool) -> bool:
        if both:
            return is_quorum(votes, operation.old, operation.new)
        return is_quorum(votes, operation.old | operation.new, 0)

    def may_read(self, votes: int, operation: Operation) -> bool:
        for replicas in (operation.old, operation.new if self.rules.joint_reads else 0):
            needed = quorum_of(replicas) if self.rules.whole_read_quorum else (replicas.bit_count() + 1) // 2
            if replicas and (votes & replicas).bit_count() < needed:
                return False
        return True

    def finish_reading(self, operation: Operation) -> None:
        """Return what all answers agree on, else begin to write their union back."""
        for rows in operation.answers.values():
            operation.payload |= rows
        agreed = {number: answer for number, answer in operation.answers.items() if answer == operation.payload}
        if len(agreed) == len(operation.answers) or not self.rules.repair_first:
            self.complete_read(operation)
            return
        operation.answers, operation.phase, operation.asked = agreed, 2, 0
        for number in agreed:
            operation.asked |= 1 << number

    # -- promises -----------------------------------------------------------------------------------------------------------------

    def settle(self, operation: Operation, rows: int) -> None:
        """Note that a client was told of `rows`: from now on every read has to know them."""
        operation.done = True
        self.settled |= rows
        self.history.append((operation.kind, operation.number, "is complete with", named(rows)))
        self.judge_every_read()

    def complete_read(self, operation: Operation) -> None:
        self.settle(operation, operation.payload)
        self.last_read |= operation.payload
        self.judge(operation.payload, operation.settled, f"read {operation.number}")

    def judge(self, rows: int, settled: int, who: str) -> None:
        missing = settled & ~rows & ~self.purged
        if missing:
            raise BrokenError(f"{who} misses versions {named(missing)}, which a client had been told of before it began")
        risen = self.visible(rows) & self.dead(settled)
        if risen:
            raise BrokenError(f"{who} shows versions {named(risen)}, which had been deleted or overwritten before it began")

    def dead(self, settled: int) -> int:
        covered = 0
        for version in members(settled):
            covered |= self.covers[version]
        return covered

    def judge_every_read(self) -> None:
        """Judge what any quorum would show if every node learned the last layout now."""
        head = self.chain[-1]
        self.judge_reads_of(head.old)  # as it is, or if the joint layout is aborted now
        if head.new and (self.reported(len(self.chain) - 1) & head.new).bit_count() >= quorum_of(head.new):
            self.judge_reads_of(head.new)

    def judge_reads_of(self, replicas: int) -> None:
        shown = {number: self.rows_at_head(number) for number in members(replicas) if not self.nodes[number].recovering}
        for version in members(self.settled & ~self.purged):
            without = sum(1 << number for number, rows in shown.items() if not rows >> version & 1)
            if is_quorum(without, replicas, 0):
                raise BrokenError(f"a read from {named(without)} would miss version {version}, which a client had been told of")
        for version in members(self.dead(self.settled)):
            covering = sum(1 << other for other, covered in enumerate(self.covers) if covered >> version & 1)
            without = sum(1 << number for number, rows in shown.items() if not rows & covering)
            if is_quorum(without, replicas, 0) and any(shown[number] >> version & 1 for number in members(without)):
                raise BrokenError(f"a read from {named(without)} would show version {version}, which had been deleted or overwritten")


def run(seed: int, rules: Rules = RULES) -> Violation | None:
    """Take random steps; return the promise that was broken, if one was."""
    world = World(seed, rules)
    weights = [weight * world.random.choice((1, 1, 4)) for weight in STEPS.values()]
    for name in [] if world.deletes else ["reconcile"]:
        weights[list(STEPS).index(name)] = 0
    try:
        for name in world.random.choices(list(STEPS), weights, k=30 + world.below(STEPS_MAX)):
            step(world, name)
    except BrokenError as broken:
        return Violation(str(broken), tuple(world.history))
    return None


STEPS = {"message": 18, "learn": 12, "pull": 8, "begin": 6, "decide": 4, "reconcile": 1, "lose": 1}
"""What may happen next, and how often; every run multiplies some of it, so that runs differ in kind (swarm testing, Groce 2012)."""


def step(world: World, name: str) -> None:
    """Take one random step; messages of one operation come in bursts, else few operations would ever end."""
    head = world.chain[-1]
    concerned = head.old | head.new
    if name == "message":
        if world.operations:
            operation = world.operations[world.below(len(world.operations))]
            for _ in range(world.below(7)):
                world.step(operation)
    elif name == "learn":
        number = world.one_of(concerned) if world.below(6) else world.below(world.count)
        if not world.slow >> number & 1 or world.below(6) == 0:
            world.learn(number)
    elif name == "pull":
        lost = [number for number in members(concerned) if world.nodes[number].recovering] if world.lossy else []
        number = lost[0] if lost and world.below(2) else world.one_of(head.new or concerned)
        for _ in range(world.below(5)):
            world.pull(number)
    elif name == "begin":
        world.begin(world.one_of(concerned) if world.below(4) else world.below(world.count))
    elif name == "decide":
        if world.decide():
            world.judge_every_read()
    elif name == "reconcile":
        world.reconcile(world.one_of(concerned))
    elif world.losses:
        world.losses -= 1
        voted = [number for operation in world.operations if not operation.done for number in operation.answers]
        world.lose(world.random.choice(voted) if voted and world.below(2) else world.one_of(concerned))
