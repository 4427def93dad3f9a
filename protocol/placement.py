"""The partition table: consistent hashing with bounded loads.

Every partition has an ordered row of distinct owners. Owners are preferred by weighted rendezvous hash (Thaler and Ravishankar,
"Using name-based mappings to increase hit rates", 1998; weights as in Schindelhauer and Schomaker, SPAA 2005), no owner
exceeds its quota (Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded loads", SODA 2018, with a bound of one plus
rounding), and a change of members moves only what it must.

Owns quotas, scores and `next_table`. The result is *agreed* as an explicit table in a layout record, never computed twice by two
machines: so the scores may be floating point. Columns fall into two groups with quotas of their own: the chunk
homes (bytes lie there) and the replicas that hold rows only.
"""

import math
import struct
from array import array
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from protocol import limits
from protocol.hashing import CONTEXT_PLACEMENT, derived_hash
from protocol.identity import NodeId

PARTITIONS: Final = limits.PARTITIONS
WORTH_MOVING: Final = 1.02
"""Where no slot is empty, data moves only if a load misses its quota by more than this."""

Row = tuple[NodeId, ...]
Table = list[Row]


@dataclass(frozen=True, slots=True)
class Site:
    """A member, as far as placement is concerned."""

    node_id: NodeId
    weight: int
    zone: str = ""


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


def quotas(
    sites: Sequence[Site], slots: int, most: Mapping[NodeId, int], loads: Mapping[NodeId, int]
) -> dict[NodeId, int]:
    """Share `slots` (at most the sum of `most`) among `sites` by weight, nobody above `most`.

    Water-filling; what rounding leaves over goes first to those that hold it already (`loads`), then by largest
    remainder, ties by id. Every quota is its exact share rounded down or up.
    """
    shares: dict[NodeId, float] = {}
    left, weight = float(slots), float(sum(site.weight for site in sites))
    for site in sorted(sites, key=lambda site: (most[site.node_id] / site.weight, site.node_id)):
        share = min(float(most[site.node_id]), left * site.weight / weight)
        shares[site.node_id] = share
        left -= share
        weight -= site.weight
    result = {node_id: min(most[node_id], math.floor(share + 1e-6)) for node_id, share in shares.items()}
    rest = slots - sum(result.values())
    order = sorted(
        (node_id for node_id in shares if result[node_id] < most[node_id]),
        key=lambda node_id: (loads[node_id] <= result[node_id], result[node_id] - shares[node_id], node_id),
    )
    assert rest <= len(order)
    for node_id in order[:rest]:
        result[node_id] += 1
    return result


def next_table(old: Sequence[Row], sites: Sequence[Site], homes: int, columns: int) -> Table:
    """Return the table for `sites`, close to `old` (empty at genesis).

    `homes` columns hold chunks and rows, `columns` in all hold rows; both at most the number of sites. A partition rarely loses more than
    one owner that is still a member per call, unless the table shrinks.
    """
    assert 0 < homes <= columns <= len(sites)
    return _Filling(old, sites, homes, columns).run()


class _Filling:
    """One computation of a table: first who owns a partition at all, then which of its owners are homes.

    Either step releases what exceeds a quota, fills the holes, and has slots handed on where that was not enough. Sets of
    partitions are integers, bit p standing for partition p: that makes the search for a hand-over cheap.
    """

    def __init__(self, old: Sequence[Row], sites: Sequence[Site], homes: int, columns: int) -> None:
        self.sites = {site.node_id: site for site in sorted(sites, key=lambda site: site.node_id)}
        self.zones = len({site.zone for site in sites})
        self.homes, self.columns = homes, columns
        self.owners = _Slots(self.sites)
        self.old = _Slots(self.sites)
        self.old_homes = _Slots(self.sites)
        for partition, row in enumerate(old):
            for column, owner in enumerate(row):
                if owner in self.sites:
                    self.old.put(partition, owner)
                    if column < homes:
                        self.old_homes.put(partition, owner)
                    if column < columns:
                        self.owners.put(partition, owner)

    def run(self) -> Table:
        everywhere = dict.fromkeys(self.sites, PARTITIONS)
        home_quota = self._quota(self.homes, everywhere, self.old_homes.loads)
        rest = {node_id: PARTITIONS - home_quota[node_id] for node_id in self.sites}
        row_loads = {node_id: self.owners.loads[node_id] - self.old_homes.loads[node_id] for node_id in self.sites}
        row_quota = self._quota(self.columns - self.homes, rest, row_loads)
        quota = {node_id: home_quota[node_id] + row_quota[node_id] for node_id in self.sites}
        if self._is_worth_moving(self.owners, self.columns, quota):
            self._release_owners(quota, home_quota)
            self._settle(_Step(self.owners, self.columns, quota, self.old, None))
            self._return_homes(home_quota)
        homes = _Slots(self.sites)
        for partition, row in enumerate(self.old_homes.rows):
            for owner in row:
                if self.owners.has(partition, owner):
                    homes.put(partition, owner)
        if self._is_worth_moving(homes, self.homes, home_quota):
            self._settle(_Step(homes, self.homes, home_quota, self.old_homes, self.owners))
        return [
            (*homes.rows[p], *(owner for owner in self.owners.rows[p] if owner not in homes.rows[p]))
            for p in range(PARTITIONS)
        ]

    def _quota(self, columns: int, most: Mapping[NodeId, int], loads: Mapping[NodeId, int]) -> dict[NodeId, int]:
        if columns == 0:
            return dict.fromkeys(self.sites, 0)
        return quotas(list(self.sites.values()), columns * PARTITIONS, most, loads)

    def _is_worth_moving(self, slots: "_Slots", columns: int, quota: Mapping[NodeId, int]) -> bool:
        return any(len(row) < columns for row in slots.rows) or any(
            load > quota[node_id] * WORTH_MOVING + 1 or load * WORTH_MOVING + 1 < quota[node_id]
            for node_id, load in slots.loads.items()
        )

    def _release_owners(self, quota: Mapping[NodeId, int], home_quota: Mapping[NodeId, int]) -> None:
        """Take from each owner above its quota the slots that it was liked least for: homes and others each as far as they exceed
        their own share, and from each partition one owner at most.
        """
        lost = 0
        for node_id, site in self.sites.items():
            excess = self.owners.loads[node_id] - quota[node_id]
            at_home = self.old_homes.held[node_id]
            of_homes = min(excess, self.old_homes.loads[node_id] - home_quota[node_id])
            for among, count in ((at_home, of_homes), (~at_home, excess - max(0, of_homes)), (-1, excess)):
                left = self.owners.loads[node_id] - quota[node_id]
                for partition in self.owners.least_liked(site, min(count, left), among & ~lost):
                    self.owners.take(partition, node_id)
                    lost |= 1 << partition

    def _return_homes(self, home_quota: Mapping[NodeId, int]) -> None:
        """Where an owner lost more homes than it should, have it return to some in exchange with owners that were no homes there:
        both return to partitions in which they were before, so no row moves and fewer chunks do.
        """
        for node_id in self.sites:
            here, home_here, old_here = self.owners.held, self.old_homes.held, self.old.held
            for other in self.sites:
                missing = home_quota[node_id] - (home_here[node_id] & here[node_id]).bit_count()
                if missing <= 0 or other == node_id:
                    continue
                back = home_here[node_id] & ~here[node_id] & here[other] & ~home_here[other]
                away = here[node_id] & ~home_here[node_id] & old_here[other] & ~here[other]
                for partition, exchanged in list(zip(_partitions(back), _partitions(away), strict=False))[:missing]:
                    self._hand_on_owner(partition, other, node_id)
                    self._hand_on_owner(exchanged, node_id, other)

    def _hand_on_owner(self, partition: int, giver: NodeId, taker: NodeId) -> None:
        self.owners.take(partition, giver)
        self.owners.put(partition, taker)

    def _settle(self, step: "_Step") -> None:
        """Fill every hole of a step and bring everybody down to the quota."""
        holes = [p for p in range(PARTITIONS) for _ in range(step.columns - len(step.slots.rows[p]))]
        for partition in holes:
            step.slots.put(partition, self._best(step, partition) or self._freed(step, partition))
        for node_id in self.sites:
            while step.slots.loads[node_id] > step.quota[node_id] and (chain := self._chain(step, [node_id])):
                self._hand_on(step, chain)

    def _best(self, step: "_Step", partition: int) -> NodeId | None:
        """Return the owner below its quota that suits best: another zone, nothing to move, lowest cost."""
        row, quota, loads = step.slots.rows[partition], step.quota, step.slots.loads
        zones = [self.sites[owner].zone for owner in row]
        spread = len(frozenset(zones)) < min(step.columns, self.zones)
        best: tuple[bool, bool, float, NodeId] | None = None
        for node_id in self.sites if step.within is None else step.within.rows[partition]:
            if loads[node_id] >= quota[node_id] or node_id in row:
                continue
            site = self.sites[node_id]
            key = (spread and site.zone in zones, not step.before.has(partition, node_id), cost(site, partition), node_id)
            if best is None or key < best:
                best = key
        return best[3] if best is not None else None

    def _freed(self, step: "_Step", partition: int) -> NodeId:
        """Return an owner for a hole that nobody below its quota can take, having it leave another slot first."""
        able = [node_id for node_id in self.sites if step.able(node_id) >> partition & 1]
        chain = self._chain(step, able)
        if chain:
            self._hand_on(step, chain)
            return chain[0][0]
        return min(able, key=lambda node_id: (step.slots.loads[node_id] / self.sites[node_id].weight, node_id))

    def _hand_on(self, step: "_Step", chain: list["_HandOver"]) -> None:
        for giver, partition, taker in reversed(chain):
            step.slots.take(partition, giver)
            step.slots.put(partition, taker)

    def _chain(self, step: "_Step", givers: Sequence[NodeId]) -> list["_HandOver"]:
        """Return the shortest chain of hand-overs from one of `givers` to an owner below its quota; empty if there is none.

        Slots that are new to their owner are given first, for nothing moves then.
        """
        for fresh_only in (True, False):
            reached: dict[NodeId, list[_HandOver]] = {node_id: [] for node_id in givers}
            queue = deque(givers)
            while queue:
                giver = queue.popleft()
                held = step.slots.held[giver] & (~step.before.held[giver] if fresh_only else -1)
                for taker in self.sites:
                    slots = held & step.able(taker) if taker not in reached else 0
                    if not slots:
                        continue
                    reached[taker] = [*reached[giver], (giver, (slots & -slots).bit_length() - 1, taker)]
                    if step.slots.loads[taker] < step.quota[taker]:
                        return reached[taker]
                    queue.append(taker)
        return []


def _partitions(bits: int) -> list[int]:
    """Return the members of a set of partitions, ascending."""
    digits = f"{bits:0{PARTITIONS}b}"
    return [p for p, digit in enumerate(reversed(digits)) if digit == "1"]


_HandOver = tuple[NodeId, int, NodeId]
"""Giver, partition, taker."""


class _Slots:
    """Who holds a slot of which partition."""

    def __init__(self, node_ids: Iterable[NodeId]) -> None:
        self.rows: list[list[NodeId]] = [[] for _ in range(PARTITIONS)]
        self.loads = dict.fromkeys(node_ids, 0)
        self.held = dict.fromkeys(self.loads, 0)

    def put(self, partition: int, node_id: NodeId) -> None:
        self.rows[partition].append(node_id)
        self.loads[node_id] += 1
        self.held[node_id] |= 1 << partition

    def take(self, partition: int, node_id: NodeId) -> None:
        self.rows[partition].remove(node_id)
        self.loads[node_id] -= 1
        self.held[node_id] ^= 1 << partition

    def has(self, partition: int, node_id: NodeId) -> bool:
        return bool(self.held[node_id] >> partition & 1)

    def least_liked(self, site: Site, count: int, among: int = -1) -> list[int]:
        """Return up to `count` of the partitions that `site` holds and that are in `among`, the costliest first."""
        if count <= 0:
            return []
        held = self.held[site.node_id] & among
        return sorted(_partitions(held), key=lambda p: (-cost(site, p), p))[:count]


@dataclass(frozen=True, slots=True)
class _Step:
    """What is being settled."""

    slots: _Slots
    columns: int
    quota: Mapping[NodeId, int]
    before: _Slots
    """Who holds such a slot in the old table: for them nothing moves."""
    within: _Slots | None
    """Whoever takes a slot of a partition has one here; None: anybody may."""

    def able(self, node_id: NodeId) -> int:
        """Return the partitions in which a node may take a slot."""
        return (self.within.held[node_id] if self.within is not None else -1) & ~self.slots.held[node_id]
