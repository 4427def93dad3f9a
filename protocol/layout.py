"""Layout records: who owns which partition, and how one record may follow another.

Theory of operation
-------------------
The layout is a chain of records, one per version. Each partition is `stable(S)` or, while it moves, `joint(O, W)`: then every namespace
read, write and repair needs a majority of O *and* a majority of W, never of the union, until the owners in W have synced (rules J and S).
The steps are stable(S) -> joint(S, W), then joint(O, W) -> stable(W), or -> stable(O) when the move is taken back. One record moves all
partitions that change at once: it is joint as a whole, and a partition is joint in it where its row differs between the two tables.

`cfg[p]` is the version at which the state of p last changed or was renewed. Every namespace request carries it as its stamp, and a replica
serves only the stamp that is its own: that is the fence (rule F) that makes arbitrarily stale coordinators harmless. Where a replica has
lost its rows, a record gives its partitions new stamps and changes nothing else: whatever still counts on a vote that it gave before
is refused by everybody who knows that record. That is when it may pull them again (`peer.cluster.sync`).

The voters of a record are those who agree on the next one (`protocol.paxos`). A newcomer has no vote while anything moves: the voters
of a joint record are those of the record before. Else a laptop that is let in and closes its lid would stop a cluster of one for good.

*By force.* Where a majority of the voters, or of the owners of a partition, is gone for good, a person may have those who are left go on
without it: under another cluster id, for what is decided against the majority of a cluster is not that cluster any more, and whoever was
given up and comes back is foreign. The numbers and the digests of the chain go on, and every stamp is new: so nothing that was asked of the
old cluster is served in the new one. In that record every partition has all its owners that are left, and others where they are too few; it
is followed by one that moves nothing once a majority of each partition's owners has what all of them together have.

Owns the record, its validity, the transitions and the choice of voters. Knows nothing of how one is agreed on, nor of time.
"""

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Annotated, Final

from protocol import limits
from protocol.codec import decode, encode
from protocol.errors import CloseCode, RemoteProtocolError
from protocol.fields import U8, U32, AddressesField, Binary, ClusterIdField, Items, NameField, NodeIdField, OptionalDigest
from protocol.hashing import CONTEXT_LAYOUT, derived_hash
from protocol.identity import CLUSTER_ID_BYTES, ClusterId, NodeId
from protocol.placement import Row, next_table, preference
from protocol.quotas import Site

REPLICATION: Final = 3
"""R: copies of a chunk."""
WEIGHT_MAX: Final = 1 << 16
_PARTITIONS: Final = limits.PARTITIONS
_TABLE_BYTES_MAX: Final = _PARTITIONS * limits.REPLICAS_MAX
_GIB: Final = 1024**3
_REMEMBERED: Final = 16
"""Records that are kept ready, a few hundred KiB each: the same one arrives from several peers."""
_BITS: Final = tuple(tuple(bit for bit in range(8) if byte >> bit & 1) for byte in range(256))
"""The bits that are set in each byte, lowest first."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member, as the layout knows it."""

    node_id: NodeIdField
    name: NameField
    zone: NameField
    weight: U32
    """Share of the data relative to the others, from 1 to WEIGHT_MAX."""
    addresses: AddressesField
    """Where it listened when it was admitted: a first hint, not the truth."""


@dataclass(frozen=True, slots=True)
class Former:
    """A cluster that another one goes on from."""

    cluster_id: ClusterIdField
    version: U32
    """The last layout that both have."""


Formers = Annotated[tuple[Former, ...], Items(limits.FORMERS_MAX)]


@dataclass(frozen=True, slots=True)
class LayoutRecord:
    """One version of the layout, as it travels and as it is stored."""

    cluster_id: ClusterIdField
    version: U32
    parent: OptionalDigest
    """Digest of the record before; empty in version 1."""
    part_power: U8
    replication: U8
    voters: Annotated[tuple[NodeIdField, ...], Items(limits.VOTERS_MAX)]
    """Who agrees on the next record. Their order means nothing."""
    members: Annotated[tuple[Member, ...], Items(limits.MEMBERS_MAX)]
    """In ascending order of id; the tables point into it."""
    old_columns: U8
    old_table: Annotated[bytes, Binary(_PARTITIONS, _TABLE_BYTES_MAX)]
    """Row p is bytes p * columns to (p + 1) * columns: indexes into `members`, preferred owner first."""
    new_columns: U8
    """0 while the layout is stable."""
    new_table: Annotated[bytes, Binary(0, _TABLE_BYTES_MAX)]
    cfg: Annotated[bytes, Binary(4 * _PARTITIONS, 4 * _PARTITIONS)]
    """Four bytes, big-endian, per partition."""
    former: Formers
    """The clusters that this one goes on from by force, the first one first; of too many the last."""


class Layout:
    """A valid record, ready to be asked. Immutable."""

    def __init__(self, record: LayoutRecord) -> None:
        """Wrap a record that is known to be valid; from elsewhere use `from_bytes`."""
        self.record = record
        self.version = record.version
        self.cluster_id = ClusterId(record.cluster_id)
        self.is_joint = record.new_columns > 0
        self.founded = record.former[-1].version + 1 if record.former else 1
        """The version with which this cluster began."""
        self.is_gathering = self.version == self.founded > 1
        """Whether it began by force and the owners of a partition do not have yet what all of them together have."""
        self.members: dict[NodeId, Member] = {member.node_id: member for member in record.members}
        self._sites = [Site(member.node_id, member.weight, member.zone) for member in record.members]

    @staticmethod
    def from_bytes(data: bytes) -> "Layout":
        """Return the layout of an encoded record.

        Raises: RemoteProtocolError.
        """
        return _parsed(bytes(data))

    @cached_property
    def data(self) -> bytes:
        """The encoded record."""
        return encode(self.record)

    @cached_property
    def digest(self) -> bytes:
        """What identifies the record."""
        return derived_hash(CONTEXT_LAYOUT, self.data, 16)

    def cfg(self, partition: int) -> int:
        """Return the version at which the state of `partition` last changed: the stamp of its requests."""
        return self.stamps[partition]

    def is_joint_at(self, partition: int) -> bool:
        """Return whether `partition` is moving."""
        return partition in self._moving

    @cached_property
    def joint_partitions(self) -> tuple[int, ...]:
        """The partitions that are moving, ascending."""
        return tuple(sorted(self._moving))

    def old_set(self, partition: int) -> Row:
        """Return S of a stable partition, O of a joint one."""
        return self._old[partition]

    def new_set(self, partition: int) -> Row | None:
        """Return W of a joint partition, None for a stable one."""
        return self._new[partition] if self.is_joint_at(partition) else None

    def replica_sets(self, partition: int) -> tuple[Row, ...]:
        """Return the sets of which a majority *each* is needed: (S,) or (O, W)."""
        new = self.new_set(partition)
        return (self.old_set(partition),) if new is None else (self.old_set(partition), new)

    def gathers(self, partition: int) -> bool:
        """Return whether an owner of `partition` answers for it only once it has what all owners together have."""
        return self.stamps[partition] == self.founded > 1

    @property
    def unsettled_partitions(self) -> Sequence[int]:
        """The partitions of which a majority of the owners to be must have synced before the next layout, ascending."""
        return range(_PARTITIONS) if self.is_gathering else self.joint_partitions

    @property
    def old_rows(self) -> Sequence[Row]:
        """The old sets of all partitions."""
        return self._old

    @property
    def wanted_rows(self) -> Sequence[Row]:
        """The sets of all partitions once no move is under way any more."""
        return self._new if self.is_joint else self._old

    def replicas(self, partition: int) -> Row:
        """Return every replica of `partition` once, those of O first."""
        return tuple(dict.fromkeys(owner for owners in self.replica_sets(partition) for owner in owners))

    def homes(self, partition: int) -> Row:
        """Return where the chunks of `partition` belong: the first R owners, of W where it moves."""
        return self.replica_sets(partition)[-1][: self.record.replication]

    def fallbacks(self, partition: int) -> list[NodeId]:
        """Return every member that is no home, in the order in which `partition` prefers them."""
        homes = self.homes(partition)
        return [node_id for node_id in preference(partition, self._sites) if node_id not in homes]

    def is_replica(self, node_id: NodeId, partition: int) -> bool:
        """Return whether `node_id` is a replica of `partition`, in either set."""
        return node_id in self._old[partition] or (partition in self._moving and node_id in self._new[partition])

    def partitions_of(self, node_id: NodeId) -> tuple[int, ...]:
        """Return the partitions that `node_id` is a replica of, in either set, ascending."""
        owned = self._owned.get(node_id)
        if owned is None:
            owned = self._owned[node_id] = self._find_owned(node_id)
        return owned

    def wanted_partitions_of(self, node_id: NodeId) -> tuple[int, ...]:
        """Return the partitions that `node_id` is a replica of once no move is under way any more, ascending."""
        wanted = self._wanted.get(node_id)
        if wanted is None:
            rows = self.wanted_rows
            wanted = self._wanted[node_id] = tuple(p for p in self.partitions_of(node_id) if node_id in rows[p])
        return wanted

    @property
    def copies_wanted(self) -> int:
        """Copies of a chunk, and machines with a row, that a write aims at: min(R, N)."""
        return min(self.record.replication, len(self.members))

    @property
    def copies_needed(self) -> int:
        """Copies under which nothing is ever acknowledged: min(R, floor(M/2) + 1), from the layout alone."""
        columns = max(self.record.old_columns, self.record.new_columns)
        return min(self.record.replication, columns // 2 + 1)

    @cached_property
    def stamps(self) -> tuple[int, ...]:
        """`cfg` of every partition."""
        return struct.unpack(f">{_PARTITIONS}I", self.record.cfg)

    @cached_property
    def _moving(self) -> frozenset[int]:
        if not self.is_joint:
            return frozenset()
        return frozenset(p for p, (old, new) in enumerate(zip(self._old, self._new, strict=True)) if old != new)

    @cached_property
    def _owned(self) -> dict[NodeId, tuple[int, ...]]:
        return {}

    @cached_property
    def _wanted(self) -> dict[NodeId, tuple[int, ...]]:
        return {}

    @cached_property
    def _old(self) -> list[Row]:
        return _rows(self.record.old_table, self.record.old_columns, tuple(self.members))

    @cached_property
    def _new(self) -> list[Row]:
        return _rows(self.record.new_table, self.record.new_columns, tuple(self.members))

    def _find_owned(self, node_id: NodeId) -> tuple[int, ...]:
        if node_id not in self.members:
            return ()
        new = self._new if self.is_joint else self._old
        return tuple(p for p in range(_PARTITIONS) if node_id in self._old[p] or node_id in new[p])


def _rows(table: bytes, columns: int, ids: tuple[NodeId, ...]) -> list[Row]:
    """Return a table's rows; equal rows are one object, for they are many and the table is small."""
    rows: dict[bytes, Row] = {}
    result = []
    for at in range(0, len(table), columns):
        raw = table[at : at + columns]
        row = rows.get(raw)
        if row is None:
            row = rows[raw] = tuple(ids[index] for index in raw)
        result.append(row)
    return result


@lru_cache(maxsize=_REMEMBERED)
def _parsed(data: bytes) -> Layout:
    record = decode(LayoutRecord, data)
    fault = _record_fault(record)
    if fault is not None:
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"layout record: {fault}")
    return Layout(record)


def weight_of(capacity_bytes: int) -> int:
    """Return the weight of a node that offers so much: GiB, at least 1."""
    return max(1, min(WEIGHT_MAX, capacity_bytes // _GIB))


def refreshed_weight(weight: int, capacity_bytes: int) -> int:
    """Return the weight of a member whose weight was `weight` and that offers so much now.

    A weight that followed every change of free space would move data for nothing: it stays while the capacity is within 5 % of one that
    has that weight.
    """
    within = 0.95 * weight * _GIB <= capacity_bytes < 1.05 * (weight + 1) * _GIB
    return weight if within else weight_of(capacity_bytes)


def genesis(cluster_id: ClusterId, member: Member) -> Layout:
    """Return version 1: everything belongs to the founder, who is the only voter."""
    return Layout(
        LayoutRecord(
            cluster_id=cluster_id,
            version=1,
            parent=b"",
            part_power=limits.PART_POWER,
            replication=REPLICATION,
            voters=(member.node_id,),
            members=(member,),
            old_columns=1,
            old_table=bytes(_PARTITIONS),
            new_columns=0,
            new_table=b"",
            cfg=(1).to_bytes(4, "big") * _PARTITIONS,
            former=(),
        )
    )


def forced(layout: Layout, cluster_id: ClusterId, gone: Collection[NodeId], there: Collection[NodeId]) -> Layout:
    """Return the first layout of the cluster `cluster_id` that goes on from `layout` without the members `gone`.

    Every partition keeps all its owners that are left, of both sets where it moves. Those who are `there` are the first choice for voters.
    """
    members = tuple(member for member in layout.record.members if member.node_id not in gone)
    ids = {member.node_id: index for index, member in enumerate(members)}
    sites = [Site(member.node_id, member.weight, member.zone) for member in members]
    left = [[owner for owner in layout.replicas(partition) if owner in ids] for partition in range(_PARTITIONS)]
    columns = min(limits.REPLICAS_MAX, max(min(2 * layout.record.replication - 1, len(members)), *map(len, left)))
    for partition, owners in enumerate(left):
        if len(owners) < columns:
            owners += [node_id for node_id in preference(partition, sites) if node_id not in owners]
    version = layout.version + 1
    record = replace(
        layout.record,
        cluster_id=cluster_id,
        version=version,
        parent=layout.digest,
        voters=choose_voters(members, sorted(there)),
        members=members,
        old_columns=columns,
        old_table=bytes(ids[owner] for owners in left for owner in owners[:columns]),
        new_columns=0,
        new_table=b"",
        cfg=version.to_bytes(4, "big") * _PARTITIONS,
        former=_formers(layout),
    )
    return Layout(record)


def choose_voters(members: Sequence[Member], before: Sequence[NodeId]) -> tuple[NodeId, ...]:
    """Return who votes among the members of a stable layout: those who did `before` first, in the same order, then others by id.

    An odd number, for a fourth voter lets no more of them be away than three do, and is one more that can be. Two members both vote:
    alone, neither could tell a crash of the other one from a cable between them. The seats go round the zones, so that as few as
    possible are lost with one. Whoever is chosen under the voters of its own choice is chosen again.
    """
    seats = min(len(members), limits.VOTERS_MAX)
    seats -= seats > 2 and seats % 2 == 0
    rank = {node_id: place for place, node_id in enumerate(before)}
    left = sorted(members, key=lambda member: (rank.get(member.node_id, len(rank)), member.node_id))
    taken = dict.fromkeys((member.zone for member in members), 0)
    voters = []
    for _ in range(seats):
        chosen = min(left, key=lambda member: taken[member.zone])
        left.remove(chosen)
        taken[chosen.zone] += 1
        voters.append(chosen.node_id)
    return tuple(voters)


def propose(layout: Layout, members: Sequence[Member]) -> Layout | None:
    """Return the step from a stable layout towards `members`: joint where owners change, stable where only
    names, zones, weights or addresses do, None where nothing does.

    A partition loses one of its old owners per step at most, unless that is no member any more: a large change takes several steps.
    Whoever decides proposes the same members again when a step is complete, until the answer is None.
    """
    assert not layout.is_joint
    assert members
    return _step(layout, tuple(sorted(members, key=lambda member: member.node_id)))


@lru_cache(maxsize=_REMEMBERED)
def _step(layout: Layout, ordered: tuple[Member, ...]) -> Layout | None:
    sites = [Site(member.node_id, member.weight, member.zone) for member in ordered]
    homes = min(layout.record.replication, len(ordered))
    columns = min(2 * layout.record.replication - 1, len(ordered))
    old = [layout.old_set(partition) for partition in range(_PARTITIONS)]
    new = next_table(old, sites, homes, columns)
    if new == old:
        if ordered == layout.record.members:
            return None
        return _successor(layout, ordered, old, None)
    everyone = {member.node_id: member for member in (*layout.record.members, *ordered)}
    return _successor(layout, tuple(everyone[node_id] for node_id in sorted(everyone)), old, new)


def complete(layout: Layout) -> Layout:
    """Return the stable layout of W, or what follows one that gathers.

    The caller knows that a majority of the owners of each of the `unsettled_partitions` has synced.
    """
    return _settle(layout, new=True)


def abort(layout: Layout) -> Layout:
    """Return the stable layout of O: everything acknowledged meanwhile is on a majority of it as well."""
    return _settle(layout, new=False)


def sources_needed(owners: int) -> int:
    """Return from how many others a replica of so many owners pulls what it has lost: one of them at least is in any majority with it."""
    return owners - owners // 2


def renewed(layout: Layout, partitions: Collection[int]) -> Layout:
    """Return the step from a stable layout that gives `partitions` new stamps."""
    assert not layout.is_joint
    return _successor(layout, layout.record.members, layout.old_rows, None, renewed=frozenset(partitions))


@lru_cache(maxsize=_REMEMBERED)
def follows(parent: Layout, child: Layout) -> str | None:
    """Return why `child` is no legal successor of `parent`, or None."""
    if child.cluster_id != parent.cluster_id or child.record.former != parent.record.former:
        return "another cluster"
    if child.version != parent.version + 1 or child.record.parent != parent.digest:
        return "not the next version"
    if (child.record.part_power, child.record.replication) != (parent.record.part_power, parent.record.replication):
        return "partitions or replication changed"
    if parent.is_joint and child.is_joint:
        return "a joint layout is completed or taken back before the next one"
    if parent.is_gathering and child.is_joint:
        return "nothing moves before everything is gathered"
    if child.is_joint and child.record.voters != parent.record.voters:
        return "voters change only when nothing moves"
    if parent.is_joint and child.old_rows not in (parent.old_rows, parent.wanted_rows):
        return "a joint layout becomes stable in all of O or all of W"
    if not parent.is_joint and child.old_rows != parent.old_rows:
        return "the old owners are not those of the layout before"
    changed = frozenset(parent.joint_partitions) | frozenset(child.joint_partitions)
    may_renew = not parent.unsettled_partitions and not child.is_joint
    for partition, (before, after) in enumerate(zip(parent.stamps, child.stamps, strict=True)):
        if after != (child.version if partition in changed else before) and not (may_renew and after == child.version):
            return f"cfg[{partition}] is not the version at which its state last changed"
    return None


@lru_cache(maxsize=_REMEMBERED)
def goes_on_from(parent: Layout, child: Layout) -> str | None:
    """Return why `child` is not the first layout of a cluster that goes on from that of `parent` by force, or None."""
    if child.cluster_id == parent.cluster_id or child.record.former != _formers(parent):
        return "not a cluster that goes on from this one"
    if child.version != parent.version + 1 or child.record.parent != parent.digest:
        return "not the next version"
    if (child.record.part_power, child.record.replication) != (parent.record.part_power, parent.record.replication):
        return "partitions or replication changed"
    if child.is_joint or min(child.stamps) < child.version:
        return "a cluster does not begin with a move"
    if not child.members.keys() <= parent.members.keys():
        return "a cluster that goes on from another one admits nobody"
    for partition, owners in enumerate(child.old_rows):
        left = [owner for owner in parent.replicas(partition) if owner in child.members]
        if not set(owners) >= set(left[: len(owners)]):
            return "an owner who is left is left out"
    return None


def pack_partitions(partitions: Sequence[int]) -> bytes:
    """Return a set of partitions as a bitmap of the wire (`protocol.fields.PartitionBitmap`)."""
    bitmap = bytearray(_PARTITIONS // 8)
    for partition in partitions:
        bitmap[partition >> 3] |= 1 << (partition & 7)
    return bytes(bitmap)


def unpack_partitions(bitmap: bytes) -> list[int]:
    """Return the partitions in a bitmap, ascending."""
    return [8 * index + bit for index, byte in enumerate(bitmap) if byte for bit in _BITS[byte]]


def _formers(layout: Layout) -> tuple[Former, ...]:
    return (*layout.record.former, Former(layout.cluster_id, layout.version))[-limits.FORMERS_MAX :]


def _settle(layout: Layout, *, new: bool) -> Layout:
    assert layout.is_joint or (layout.is_gathering and new)
    table = [layout.replica_sets(partition)[-1 if new else 0] for partition in range(_PARTITIONS)]
    used = {owner for row in table for owner in row}
    members = tuple(member for member in layout.record.members if member.node_id in used)
    return _successor(layout, members, table, None)


def _successor(
    layout: Layout,
    members: tuple[Member, ...],
    old: Sequence[Row],
    new: Sequence[Row] | None,
    renewed: frozenset[int] = frozenset(),
) -> Layout:
    index = {member.node_id: position for position, member in enumerate(members)}
    version = layout.version + 1
    cfg = []
    for partition in range(_PARTITIONS):
        sets: tuple[Row, ...] = (old[partition],)
        if new is not None and new[partition] != old[partition]:
            sets = (old[partition], new[partition])
        cfg.append(version if sets != layout.replica_sets(partition) or partition in renewed else layout.cfg(partition))
    record = replace(
        layout.record,
        version=version,
        parent=layout.digest,
        voters=layout.record.voters if new is not None else choose_voters(members, layout.record.voters),
        members=members,
        old_columns=len(old[0]),
        old_table=bytes(index[owner] for row in old for owner in row),
        new_columns=len(new[0]) if new is not None else 0,
        new_table=bytes(index[owner] for row in new for owner in row) if new is not None else b"",
        cfg=struct.pack(f">{_PARTITIONS}I", *cfg),
    )
    return Layout(record)


def _record_fault(record: LayoutRecord) -> str | None:
    if len(record.cluster_id) != CLUSTER_ID_BYTES:
        return "no cluster id"
    if record.version < 1 or (record.version == 1) != (record.parent == b""):
        return "version 1, and only version 1, has no parent"
    if record.part_power != limits.PART_POWER:
        return f"part power {record.part_power} is not spoken here"
    if not 1 <= record.replication <= (limits.REPLICAS_MAX + 1) // 2:
        return f"replication {record.replication} is out of range"
    ids = [member.node_id for member in record.members]
    if not ids or any(one >= two for one, two in pairwise(ids)):
        return "members are not in ascending order of id"
    if any(not 1 <= member.weight <= WEIGHT_MAX for member in record.members):
        return "a weight is out of range"
    if not record.voters or len(frozenset(record.voters) & frozenset(ids)) < len(record.voters):
        return "the voters are members, each once"
    fault = _table_fault(record.old_columns, record.old_table, len(ids))
    if fault is None and record.new_columns:
        fault = _table_fault(record.new_columns, record.new_table, len(ids))
    if fault is None and not record.new_columns and record.new_table:
        fault = "a stable layout has one table"
    if fault is None and record.new_columns and record.new_table == record.old_table:
        fault = "a joint layout moves something"
    if fault is not None:
        return fault
    used = frozenset(record.old_table) | frozenset(record.new_table)
    if len(used) != len(ids):
        return "a member owns nothing"
    versions = (0, *(former.version for former in record.former), record.version)
    if any(one >= two for one, two in pairwise(versions)):
        return "a cluster goes on from others in ascending order of versions"
    ids_of_clusters = [record.cluster_id, *(former.cluster_id for former in record.former)]
    if any(len(each) != CLUSTER_ID_BYTES for each in ids_of_clusters) or len(frozenset(ids_of_clusters)) < len(ids_of_clusters):
        return "a cluster goes on from others, each once"
    stamps = struct.unpack(f">{_PARTITIONS}I", record.cfg)
    first = record.former[-1].version + 1 if record.former else 1
    return None if min(stamps) >= first and max(stamps) <= record.version else "a stamp is out of range"


def _table_fault(columns: int, table: bytes, members: int) -> str | None:
    if not 1 <= columns <= limits.REPLICAS_MAX or len(table) != columns * _PARTITIONS:
        return "a table has another size than its columns say"
    if max(table) >= members:
        return "a table points beyond the members"
    rows = frozenset(table[at : at + columns] for at in range(0, len(table), columns))
    return None if all(len(frozenset(row)) == columns for row in rows) else "a partition has an owner twice"
