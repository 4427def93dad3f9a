"""The partition table: consistent hashing with bounded loads.

Every partition has an ordered row of distinct owners. Owners are preferred by weighted rendezvous hash (Thaler and Ravishankar,
"Using name-based mappings to increase hit rates", 1998; weights as in Schindelhauer and Schomaker, SPAA 2005), no owner
exceeds its quota (Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded loads", SODA 2018, with a bound of one plus
rounding), and a change of members moves only what it must. Where nobody below its quota can take a slot, slots are handed on along the
cheapest chain of owners that ends at one who can: an augmenting path of a minimum-cost flow (Ahuja, Magnanti, Orlin, "Network Flows",
1993, chapter 9), with cost 1 for a slot that moves.

Owns scores and `next_table`; `protocol.quotas` has the quotas. The result is *agreed* as an explicit table in a layout record, never
computed twice by two machines: so the scores may be floating point. Columns fall into two groups with quotas of their own: the chunk
homes, settled first because bytes lie there, and the replicas that hold rows only.
"""

import math
import struct
from array import array
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import Final

from protocol import limits
from protocol.hashing import CONTEXT_PLACEMENT, derived_hash
from protocol.identity import NodeId
from protocol.quotas import Site, quotas

PARTITIONS: Final = limits.PARTITIONS
WORTH_MOVING: Final = 1.02
"""Where no slot is empty and no zone missing, data moves only if a load misses its quota by more than this."""
_STRIDE: Final = 1597
"""Coprime to PARTITIONS and near its golden section: chains take their partitions from all over the table."""

Row = tuple[NodeId, ...]
Table = list[Row]


@lru_cache(maxsize=2 * limits.MEMBERS_MAX)
def _uniform(node_id: NodeId) -> "array[float]":
    """Return for each partition the negated logarithm of a number from (0, 1) that depends on node and partition alone."""
    raw = derived_hash(CONTEXT_PLACEMENT, node_id, 8 * PARTITIONS)
    words = struct.unpack(f">{PARTITIONS}Q", raw)
    return array("d", (-math.log(((word >> 11) + 0.5) / (1 << 53)) for word in words))


def cost(site: Site, partition: int) -> float:
    """Return how much `partition` dislikes `site`: the lowest cost is the rendezvous winner."""
    return _uniform(site.node_id)[partition] / site.weight


def preference(partition: int, sites: Sequence[Site]) -> list[NodeId]:
    """Return the ids of `sites` in the order in which `partition` prefers them."""
    return [site.node_id for site in sorted(sites, key=lambda site: (cost(site, partition), site.node_id))]


def next_table(old: Sequence[Row], sites: Sequence[Site], homes: int, columns: int) -> Table:
    """Return the table for `sites`, close to `old` (empty at genesis) and equal to it where nothing is worth moving.

    `homes` columns hold chunks and rows, `columns` in all hold rows; both at most the number of sites. A partition loses at most one
    owner that is still a member, so it may take several tables, each from the one before, until every quota is met.
    """
    assert 0 < homes <= columns <= len(sites)
    sites = sorted(sites, key=lambda site: site.node_id)
    index = {site.node_id: position for position, site in enumerate(sites)}
    old = old or [()] * PARTITIONS
    before_homes, before_others = (
        [[index[owner] for owner in row[part] if owner in index] for row in old] for part in (slice(homes), slice(homes, None))
    )
    before = [one + other for one, other in zip(before_homes, before_others, strict=True)]

    at_home = _Slots(sites, homes, before_homes, before_homes, None)
    quota = quotas(sites, homes, at_home.loads, [0] * len(sites))
    at_home.settle(quota)
    stay = [other + one for one, other in zip(before_homes, before_others, strict=True)]
    kept = [[owner for owner in row if owner not in at_home.rows[p]][: columns - homes] for p, row in enumerate(stay)]
    replicas = _Slots(sites, columns - homes, kept, before, at_home)
    replicas.settle(quotas(sites, columns - homes, replicas.loads, quota))
    return [
        tuple(sites[owner].node_id for slots in (at_home, replicas) for owner in _in_order(slots.rows[p], before[p]))
        for p in range(PARTITIONS)
    ]


def _in_order(owners: Sequence[int], before: Sequence[int]) -> list[int]:
    """Return `owners`, those of `before` first and in its order: a row of the same owners stays the same row."""
    return [*(owner for owner in before if owner in owners), *(owner for owner in owners if owner not in before)]


_HandOver = tuple[int, int, int]
"""Giver, partition, taker."""


class _Slots:
    """Who holds a slot of which partition, in one group of columns, and how that is brought to the quotas.

    Sites are their positions in ascending order of id. Sets of partitions are integers, bit p standing for partition p: that makes
    the search for a chain of hand-overs cheap.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        columns: int,
        rows: Sequence[Sequence[int]],
        before: Sequence[Sequence[int]],
        beside: "_Slots | None",
    ) -> None:
        """Begin with `rows`. `before` are those for whom nothing has to move; who holds a slot `beside`, in the other columns, can hold
        none here.
        """
        zones = sorted({site.zone for site in sites})
        self.rows = [list(row) for row in rows]
        self.held = _held(rows, len(sites))
        self.loads = [held.bit_count() for held in self.held]
        self._sites, self._everyone, self._columns = sites, range(len(sites)), columns
        self._zones = [zones.index(site.zone) for site in sites]
        self._zones_wanted = min(columns + (beside._columns if beside is not None else 0), len(zones))
        self._before_sets, self._before = [frozenset(row) for row in before], _held(before, len(sites))
        self._beside = beside
        self._quota: Sequence[int] = self.loads
        self._once, self._twice = [0] * len(zones), [0] * len(zones)
        self._lost = 0
        self._at = 0
        for partition in range(PARTITIONS):
            self._note(partition)

    def settle(self, quota: Sequence[int]) -> None:
        """Fill every hole, reach as many zones as there can be, and bring everybody to the quota."""
        self._quota = quota
        if not self._is_worth_moving():
            return
        for partition in range(PARTITIONS):
            while len(self.rows[partition]) < self._columns:
                self._fill(partition)
        for partition in range(PARTITIONS):
            self._reach_zones(partition)
        for giver in self._everyone:
            self._unload(giver)

    def _is_worth_moving(self) -> bool:
        return any(len(row) < self._columns or self._lacks_zone(partition) for partition, row in enumerate(self.rows)) or any(
            load > quota * WORTH_MOVING + 1 or load * WORTH_MOVING + (load > 0) < quota
            for load, quota in zip(self.loads, self._quota, strict=True)
        )

    def _owners(self, partition: int) -> list[int]:
        return self.rows[partition] if self._beside is None else self.rows[partition] + self._beside.rows[partition]

    def _lacks_zone(self, partition: int) -> bool:
        return len({self._zones[owner] for owner in self._owners(partition)}) < self._zones_wanted

    def _put(self, partition: int, owner: int) -> None:
        self.rows[partition].append(owner)
        self.loads[owner] += 1
        self.held[owner] |= 1 << partition
        self._note(partition)

    def _take(self, partition: int, owner: int) -> None:
        self.rows[partition].remove(owner)
        self.loads[owner] -= 1
        self.held[owner] ^= 1 << partition
        self._note(partition)

    def _note(self, partition: int) -> None:
        """Note which zones have an owner of a partition, which have several, and whether one was lost that could have stayed."""
        bit, owners = 1 << partition, self._owners(partition)
        if len(self._once) > 1:
            zones = [self._zones[owner] for owner in owners]
            for zone in range(len(self._once)):
                count = zones.count(zone)
                self._once[zone] = self._once[zone] | bit if count else self._once[zone] & ~bit
                self._twice[zone] = self._twice[zone] | bit if count > 1 else self._twice[zone] & ~bit
        stayed = self._before_sets[partition].issubset(owners)
        self._lost = self._lost & ~bit if stayed else self._lost | bit

    def _is_new(self, partition: int, owner: int) -> bool:
        return not self._before[owner] >> partition & 1

    def _may_go(self, partition: int, owner: int) -> bool:
        """Return whether an owner may leave a partition: one of those before, at most, does so at a time."""
        return self._is_new(partition, owner) or not self._lost >> partition & 1

    def _best(self, partition: int, takers: Iterable[int]) -> int | None:
        """Return who of `takers` is below its quota and suits best: nothing to move, then lowest cost."""
        return min(
            (taker for taker in takers if self.loads[taker] < self._quota[taker]),
            key=lambda taker: (self._is_new(partition, taker), cost(self._sites[taker], partition), taker),
            default=None,
        )

    def _fill(self, partition: int) -> None:
        owners = self._owners(partition)
        able = [site for site in self._everyone if site not in owners]
        if not (self._place(partition, self._new_zones(partition, able)) or self._place(partition, able)):
            self._put(partition, min(able, key=lambda site: (self.loads[site] - self._quota[site], site)))

    def _new_zones(self, partition: int, sites: Iterable[int]) -> list[int]:
        """Return those of `sites` with whom the partition would reach a zone that it lacks."""
        if not self._lacks_zone(partition):
            return []
        zones = {self._zones[owner] for owner in self._owners(partition)}
        return [site for site in sites if self._zones[site] not in zones]

    def _place(self, partition: int, able: Collection[int]) -> bool:
        """Give a slot to one of `able`, who may have to hand on another first; return whether anybody could take it."""
        taker = self._best(partition, able)
        if taker is None:
            chain = self._chain(able, 1 << partition)
            if not chain:
                return False
            self._hand_on(chain)
            taker = chain[0][0]
        self._put(partition, taker)
        return True

    def _reach_zones(self, partition: int) -> None:
        """Replace an owner whose zone has another one by an owner in a zone that the partition lacks."""
        able = self._new_zones(partition, self._everyone)
        if not able:
            return
        doubled = [giver for giver in self.rows[partition] if self._twice[self._zones[giver]] >> partition & 1]
        givers = [giver for giver in doubled if self._may_go(partition, giver)]
        for giver in sorted(givers, key=lambda giver: (self._quota[giver] - self.loads[giver], giver)):
            self._take(partition, giver)
            if self._place(partition, able):
                return
            self._put(partition, giver)

    def _unload(self, giver: int) -> None:
        """Bring an owner down to its quota: straight to those below theirs, what it is liked least for first, then by chains."""
        for partition in sorted(
            _partitions(self.held[giver]) if self.loads[giver] > self._quota[giver] else (),
            key=lambda p: (not self._is_new(p, giver), -cost(self._sites[giver], p), p),
        ):
            if self.loads[giver] <= self._quota[giver]:
                return
            if not self._may_go(partition, giver):
                continue
            taker = self._best(partition, (site for site in self._everyone if self._able(giver, site) >> partition & 1))
            if taker is not None:
                self._hand_on([(giver, partition, taker)])
        while self.loads[giver] > self._quota[giver] and (chain := self._chain([giver], 0)):
            self._hand_on(chain)

    def _hand_on(self, chain: Iterable[_HandOver]) -> None:
        for giver, partition, taker in chain:
            self._take(partition, giver)
            self._put(partition, taker)

    def _chain(self, givers: Collection[int], avoided: int) -> list[_HandOver]:
        """Return the cheapest chain of hand-overs from one of `givers` to an owner below its quota; empty if there is none.

        No partition is in it twice, nor any of `avoided`, and none has fewer zones afterwards.
        """
        chains: dict[int, list[_HandOver]] = {giver: [] for giver in givers}
        used = dict.fromkeys(givers, avoided)
        layer = list(givers)
        while layer:
            costly: list[tuple[int, int, int]] = []
            for giver in layer:
                for taker in self._everyone:
                    if taker in chains:
                        continue
                    slots = self._able(giver, taker) & ~used[giver]
                    free = slots & (self._before[taker] | ~self._before[giver])
                    if free:
                        self._extend(chains, used, giver, taker, free)
                        if self.loads[taker] < self._quota[taker]:
                            return chains[taker]
                        layer.append(taker)
                    elif slots & ~self._lost:
                        costly.append((giver, taker, slots & ~self._lost))
            layer = []
            for giver, taker, slots in costly:
                if taker not in chains:
                    self._extend(chains, used, giver, taker, slots)
                    if self.loads[taker] < self._quota[taker]:
                        return chains[taker]
                    layer.append(taker)
        return []

    def _able(self, giver: int, taker: int) -> int:
        """Return the partitions in which `taker` could replace `giver`."""
        slots = self.held[giver] & ~self.held[taker]
        if self._beside is not None:
            slots &= ~self._beside.held[taker]
        left, reached = self._zones[giver], self._zones[taker]
        return slots if left == reached else slots & (self._twice[left] | ~self._once[reached])

    def _extend(self, chains: dict[int, list[_HandOver]], used: dict[int, int], giver: int, taker: int, slots: int) -> None:
        """Have the chain to `giver` go on to `taker` by one of `slots`."""
        self._at = (self._at + _STRIDE) % PARTITIONS
        slots = slots >> self._at << self._at or slots
        bit = slots & -slots
        chains[taker] = [*chains[giver], (giver, bit.bit_length() - 1, taker)]
        used[taker] = used[giver] | bit


def _held(rows: Sequence[Sequence[int]], count: int) -> list[int]:
    """Return for each of `count` owners the set of the partitions that `rows` give it."""
    held = [0] * count
    for partition, row in enumerate(rows):
        for owner in row:
            held[owner] |= 1 << partition
    return held


def _partitions(bits: int) -> list[int]:
    """Return the members of a set of partitions, ascending."""
    digits = f"{bits:0{PARTITIONS}b}"
    return [p for p, digit in enumerate(reversed(digits)) if digit == "1"]
