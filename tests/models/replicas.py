"""The replicas of one partition: what they keep, how they learn layouts, sync, purge, recover; no requests of clients.

Rules F, S and E live here, and what is asked of a node that lost its rows. `reconfiguration` adds reads, writes, purges and promises.
"""

from dataclasses import dataclass
from random import Random

from tests.models.violation import Step, members, named


@dataclass(frozen=True, slots=True)
class Rules:
    """Every clause of the rule; one set to False is a mutant."""

    fence: bool = True
    """F: a replica that learned a joint layout refuses what is stamped older."""
    learns_first: bool = True
    """A replica refuses a stamp that it has not learned, until it has."""
    no_version_skipped: bool = True
    """A node learns the records of the chain one by one, and does at each what it asks for."""
    joint_reads: bool = True
    """J: reads need a majority of the old set and one of the new; without: of the old set only."""
    joint_writes: bool = True
    """J: so do writes; without: a majority of the union."""
    joint_repair: bool = True
    """J: so does read repair; without: a majority of the union."""
    repair_first: bool = True
    """A read whose answers differ writes the union back before it returns."""
    whole_read_quorum: bool = True
    """Reads need floor(M/2)+1 of an even set as well; without: M/2."""
    majority_sync: bool = True
    """S: a member of W pulls from a majority of O; without: from one."""
    everybody_syncs: bool = True
    """S: members of O and W too; without: they report synced at once."""
    fenced_sources: bool = True
    """S: what is pulled from has learned the joint layout."""
    this_sync: bool = True
    """Only reports of this joint layout count, none of one that was aborted."""
    entering_quarantined: bool = True
    """E: a member of W that was not in O first sets its own old rows aside."""
    abort_keeps_rows: bool = True
    """An abort leaves the rows of the members of O alone; without: they set them aside ("a node after an abort", taken literally)."""
    purge_keeps_rows: bool = True
    """A replica that takes over a purge keeps its other rows; without: it sets them aside ("before it ever raises purge_gen")."""
    purge_by_all: bool = True
    """A tombstone is purged when all replicas confirmed the row; without: a majority."""
    purge_fence: bool = True
    """A replica refuses requests that began at a lower purge generation than its own."""
    purge_raises_fence: bool = True
    """A replica that confirms a purge refuses from then on what is stamped older than the purge: joint operations of before."""
    renewed_stamp: bool = True
    """A node that lost its rows pulls from those only that refuse every stamp under which it had voted; a record renews the stamp."""
    recovery_quorum: bool = True
    """A node that lost its rows votes after pulling from M-Wq+1 others; without: from one."""


@dataclass(slots=True)
class Layout:
    """One record of the chain for this partition: stable(old) when `new` is 0, else joint(old, new)."""

    old: int
    new: int = 0
    renews: bool = False
    """Whether it changes nothing but the stamp."""


@dataclass(slots=True)
class Replica:
    """What one node has on its disk, and which pulls it has under way."""

    version: int = 0
    min_stamp: int = 0
    rows: int = 0
    purges: int = 0
    last_purged: int = 0
    recovering: bool = False
    lost_at: int = 0
    """Its version when it lost its rows."""
    synced: int = -1
    pulled: int = 0


def quorum_of(members_mask: int) -> int:
    return members_mask.bit_count() // 2 + 1


def is_quorum(votes: int, old: int, new: int) -> bool:
    """Return whether `votes` holds a majority of `old`, and one of `new` if there is one."""
    return (votes & old).bit_count() >= quorum_of(old) and (not new or (votes & new).bit_count() >= quorum_of(new))


class Replicas:
    """All nodes, and the chain as decided."""

    def __init__(self, seed: int, rules: Rules) -> None:
        self.random = Random(seed)
        self.rules = rules
        self.deletes = self.below(5) < 2  # such runs stay among few nodes, so that who left comes back
        self.size = (1, 2, 2, 3, 3, 3, 4, 5)[self.below(8)]  # of most sets in this run
        self.count = self.size + (1 + self.below(2) if self.deletes else self.below(6))
        self.chain = [Layout(self.some_nodes())]
        self.nodes = [Replica() for _ in range(self.count)]
        self.reports: dict[int, int] = {}
        self.rows = [0] * (self.below(3) + 1)  # all versions of each
        self.slow = self.below(1 << self.count) & self.below(1 << self.count)  # nodes that learn late, as they are away or busy
        self.losses = self.below(3 if self.deletes else 5)
        self.lossy = False
        self.history: list[Step] = [("stable", named(self.chain[0].old), "of", self.count, "nodes")]

    def below(self, count: int) -> int:
        return int(self.random.random() * count)

    def one_of(self, mask: int) -> int:
        found = members(mask)
        return found[int(self.random.random() * len(found))]

    def some_nodes(self) -> int:
        """Return a set of 1 to 5 nodes."""
        size = min(self.size if self.below(4) else self.below(5) + 1, self.count)
        mask = 0
        while mask.bit_count() < size:
            mask |= 1 << self.below(self.count)
        return mask

    def majority(self, mask: int) -> int:
        """Return a smallest majority of a set, by the dice: an operation that reaches no more nodes than it must leaves most behind."""
        found = list(members(mask))
        self.random.shuffle(found)
        return sum(1 << number for number in found[: len(found) // 2 + 1]) if mask else 0

    def row_of(self, versions: int) -> int:
        """Return all versions, held anywhere, of the row that these versions are of."""
        return next((row for row in self.rows if row & versions), 0)

    # -- layouts ------------------------------------------------------------------------------------------------------------------

    def decide(self) -> bool:
        """Append the next record to the chain, if one may follow; nobody has learned it yet. Return whether one did."""
        last, head = len(self.chain) - 1, self.chain[-1]
        if not head.new and any(self.nodes[n].recovering and self.nodes[n].lost_at >= self.fence() for n in members(head.old)):
            layout = Layout(head.old, renews=True)
        elif not head.new:
            wanted = self.some_nodes()
            if self.below(2):  # like most changes: some stay
                wanted = (head.old & ~(1 << self.below(self.count))) | 1 << self.below(self.count)
            if wanted == head.old or wanted.bit_count() > 5:
                return False
            layout = Layout(head.old, wanted)
        elif (self.reported(last) & head.new).bit_count() >= quorum_of(head.new):
            layout = Layout(head.new)
        elif self.below(12) == 0:
            layout = Layout(head.old)
        else:
            return False
        self.chain.append(layout)
        kind = f"joint {named(layout.old)} {named(layout.new)}" if layout.new else f"stable {named(layout.old)}"
        kind += " renewed" if layout.renews else ""
        self.history.append(("layout", last + 1, kind))
        return True

    def fence(self) -> int:
        """Return the oldest stamp that is not refused by those who know the last layout."""
        return max((version for version, layout in enumerate(self.chain) if layout.new or layout.renews), default=0)

    def reported(self, joint: int) -> int:
        if self.rules.this_sync:
            return self.reports.get(joint, 0)
        return sum(1 << number for number, node in enumerate(self.nodes) if node.synced >= 0)

    def enters(self, number: int, version: int) -> tuple[int, bool]:
        """Return which layout a node at `version` learns next, and whether it becomes a replica by it."""
        known = self.chain[version]
        version = version + 1 if self.rules.no_version_skipped else len(self.chain) - 1
        layout = self.chain[version]
        before = layout.old if self.rules.no_version_skipped else known.old | known.new
        return version, bool((layout.old | layout.new) & ~before & 1 << number)

    def learn(self, number: int) -> None:
        """Let a node persist the next record and what the record asks for."""
        node, bit = self.nodes[number], 1 << number
        if node.version == len(self.chain) - 1:
            return
        node.version, entering = self.enters(number, node.version)
        layout = self.chain[node.version]
        node.pulled = 0
        self.history.append((number, "learns", node.version))
        if self.chain[node.version - 1].new and layout.old == self.chain[node.version - 1].old and not self.rules.abort_keeps_rows:
            node.rows = 0
        if (layout.new and self.rules.fence) or layout.renews:
            node.min_stamp = node.version
        if entering:
            node.recovering = False  # nothing is expected of a newcomer
            if self.rules.entering_quarantined:
                node.rows = 0
        if layout.new & layout.old & bit and not self.rules.everybody_syncs:
            self.report(number)

    def report(self, number: int) -> None:
        node = self.nodes[number]
        node.synced = node.version
        self.reports[node.version] = self.reports.get(node.version, 0) | 1 << number
        self.history.append((number, "reports synced", node.version))

    def pull(self, number: int) -> None:
        """Let a node pull from one other: what it lost, else what it needs as a member of W."""
        node, bit = self.nodes[number], 1 << number
        layout = self.chain[node.version]
        if not bit & (layout.old | layout.new):
            return
        if node.recovering:
            self.pull_what_was_lost(number)
            return
        if not layout.new & bit or node.synced == node.version:
            return
        source = self.one_of(layout.old)
        other = self.nodes[source]
        if other.recovering:
            return
        ready = other.version == node.version or (not self.rules.fenced_sources and other.version < node.version)
        if not ready or not self.is_replica(source):
            return
        self.copy(number, source)
        node.pulled |= 1 << source | bit & layout.old
        if (node.pulled & layout.old).bit_count() >= (quorum_of(layout.old) if self.rules.majority_sync else 1):
            self.report(number)

    def pull_what_was_lost(self, number: int) -> None:
        node, bit = self.nodes[number], 1 << number
        layout = self.chain[node.version]
        source = self.one_of(layout.old)
        if source == number or not self.admits(source, node.version):
            return
        if self.rules.renewed_stamp and self.nodes[source].min_stamp <= node.lost_at:
            return
        self.copy(number, source)
        node.pulled |= 1 << source
        needed = layout.old.bit_count() - quorum_of(layout.old) + 1 if self.rules.recovery_quorum else 1
        if (node.pulled & ~bit).bit_count() < needed:
            return
        node.recovering, node.pulled = False, 0
        self.history.append((number, "recovered"))

    def copy(self, number: int, source: int) -> None:
        """Take over the rows of another replica, after the purge that it has done and this one has not."""
        node, other = self.nodes[number], self.nodes[source]
        if other.purges > node.purges:
            if not self.rules.purge_keeps_rows:
                node.rows = 0
            elif node.rows & self.row_of(other.last_purged) == other.last_purged:
                node.rows &= ~other.last_purged
            node.purges, node.last_purged = other.purges, other.last_purged
        node.rows |= other.rows
        self.history.append((number, "pulls from", source, "and has", named(node.rows)))

    def reconcile(self, number: int) -> None:
        """Let a replica and each other one of its layout that can be reached take over what they lack from one another."""
        stamp = self.nodes[number].version
        layout = self.chain[stamp]
        if self.admits(number, stamp):
            near = [n for n in members(layout.old | layout.new) if n != number and self.below(4)]
            others = [n for n in near if self.admits(n, stamp) and self.nodes[n].version == stamp]
            for other in others:
                self.copy(number, other)
            for other in others:
                self.copy(other, number)

    def lose(self, number: int) -> None:
        """Let a node lose its rows database: rows, purges, reports; the layout it has learned, and so its fence, is kept elsewhere."""
        node = self.nodes[number]
        if not self.is_replica(number) or node.recovering:
            return
        self.lossy = True
        node.rows = node.purges = node.last_purged = node.pulled = 0
        node.synced = -1
        node.recovering, node.lost_at = True, node.version
        self.history.append((number, "loses its rows"))

    def is_replica(self, number: int) -> bool:
        layout = self.chain[self.nodes[number].version]
        return bool((layout.old | layout.new) >> number & 1)

    def admits(self, number: int, stamp: int) -> bool:
        """Return whether a replica answers a request of this stamp."""
        node = self.nodes[number]
        if node.recovering or stamp < node.min_stamp or (stamp > node.version and self.rules.learns_first):
            return False
        return self.is_replica(number)

    def rows_at_head(self, number: int) -> int:
        """Return the rows that a node will have kept when it has learned the last layout."""
        node, version = self.nodes[number], self.nodes[number].version
        while version < len(self.chain) - 1:
            version, entering = self.enters(number, version)
            if entering and self.rules.entering_quarantined:
                return 0
        return node.rows
