"""Bugs that are planted in the node to see whether the simulator finds them: the only evidence that it tests anything.

Each is a fault of one or a few lines that a careless change could bring. A bug is planted by replacing code of the node from here, for
one run: nothing of the node knows of it. `python -m sims --planted all` finds each anew; `tests/data/plans/planted/` has a plan of each.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Final

import peer.cluster.decider
import peer.cluster.layouts
import peer.cluster.lives
import peer.cluster.voter
import peer.files.quorum
import peer.files.row_service
import peer.store.chunks
import peer.store.rows
import protocol.framing
import protocol.layout
import protocol.lives
import protocol.paxos
from peer.care.fetch import Fetch
from peer.care.reconcile import Reconcile
from peer.care.row_repair import RowRepair
from peer.care.sweep import Sweep
from peer.cluster.decider import Decider
from peer.cluster.layouts import Layouts
from peer.cluster.sync import Sync
from peer.errors import Refused
from peer.files.chunk_service import ChunkService
from peer.files.confirmed import Confirmed
from peer.files.operations import Operations
from peer.files.quorum import read_row
from peer.files.row_service import RowService
from peer.link import Link
from peer.store.chunks import ChunkStore
from peer.store.rows import RowCorrupt, RowStore
from peer.store.system import SystemStore
from protocol.errors import ErrorCode
from protocol.identity import OP_ID_BYTES, OpId
from protocol.layout import Layout, choose_voters
from protocol.lives import Life
from protocol.membership import Membership
from protocol.messages import NO_BALLOT, LayoutVote, Verdict
from protocol.paths import folder_partition, row_partition
from protocol.versions import Operation, Row, context_of, merge
from sims.disk import SimDisk
from sims.kv import SimKV

Patch = tuple[Any, str, Any]
"""Owner, attribute, what stands there while the bug is planted."""


@dataclass(frozen=True, slots=True)
class Bug:
    """One bug."""

    name: str
    text: str
    patches: Callable[[], list[Patch]]
    machines: int = 5
    """So many does a cluster need to show it."""
    case: str = ""
    """The failure case that shows it, where plans do so too rarely; empty if a plan does."""


def _chunk_not_synced() -> list[Patch]:
    async def place(self: SimDisk, temporary: str, path: str, parts: Any) -> None:
        await self.write(temporary, parts)
        await self.rename(temporary, path)

    return [(SimDisk, "place", place)]


def _folder_not_synced() -> list[Patch]:
    async def sync_directory(self: ChunkStore, folder: str) -> None:
        return

    return [(ChunkStore, "_sync_directory", sync_directory)]


def _row_acked_before_commit() -> list[Patch]:
    original = SimKV.commit

    async def commit(self: SimKV, changes: Any) -> None:
        asyncio.get_running_loop().create_task(original(self, changes))
        await asyncio.sleep(0.0005)

    return [(SimKV, "commit", commit)]


def _retry_applied_twice() -> list[Patch]:
    original = RowService._version

    def version(self: RowService, request: Any, dot: Any, row: Row) -> Any:
        own = OpId((dot.counter.to_bytes(8, "big") + dot.actor)[:OP_ID_BYTES])
        return replace(original(self, request, dot, row), op_id=own)

    return [(RowService, "_version", version), (peer.files.row_service, "find_operation", lambda row, op_id: None)]


def _copies_believed() -> list[Patch]:
    original = ChunkService._send_to

    async def send_to(self: ChunkService, nodes: Any, chunk_id: Any, payload: Any, wanted: int) -> Any:
        await original(self, nodes, chunk_id, payload, wanted)
        return sorted(node for node in nodes if not self._access.recently_refused(node))

    return [(ChunkService, "_send_to", send_to)]


def _fallback_in_row_quorum() -> list[Patch]:
    def is_majority(sets: Any, voters: Any) -> bool:
        return all(len(voters) >= len(owners) // 2 + 1 for owners in sets)

    def check(self: RowService, partition: int, stamp: int) -> Any:
        return self._access.layout

    async def ship(self: RowService, layout: Any, request: Any, row: Row, deadline: float) -> int:
        own = self._access.node_id

        async def send(node: Any) -> None:
            await self._shipper.ship(node, request.partition, request.stamp, row)

        others = [node for node in self._access.preferred(sorted(layout.members)) if node != own]
        needed = len(layout.replicas(request.partition)) // 2
        done, _ = await peer.files.quorum.collect(others, send, lambda done: len(done) >= needed, 2.0, finish=True)
        return len(done) + 1

    return [(RowService, "_ship", ship), (RowService, "_check", check), (peer.files.row_service, "has_majority", is_majority)]


def _corrupt_chunk_served() -> list[Patch]:
    return [(peer.store.chunks, "chunk_matches", lambda chunk_id, data: True)]


def _damaged_row_absent() -> list[Patch]:
    original_vote, original_get = RowStore.vote, RowStore._get

    async def vote(self: RowStore, path: str, *, full: bool) -> Any:
        try:
            return await original_vote(self, path, full=full)
        except RowCorrupt:
            return b"", None

    async def get(self: RowStore, key: bytes) -> Any:
        try:
            return await original_get(self, key)
        except RowCorrupt:
            return None, b""

    return [(RowStore, "vote", vote), (RowStore, "_get", get)]


def _delta_shipped() -> list[Patch]:
    original = RowService._ship

    async def ship(self: RowService, layout: Any, request: Any, row: Row, deadline: float) -> int:
        mine = [head for head in row.heads if head.op_id == request.op_id]
        if mine:
            row = Row(row.path, (mine[0],), (Operation(mine[0].op_id, mine[0].hlc, (mine[0].dot,)),))
        copies: int = await original(self, layout, request, row, deadline)
        return copies

    return [(RowService, "_ship", ship)]


def _context_at_commit() -> list[Patch]:
    original = Operations._commit_file

    async def commit_file(self: Operations, attempt: Any, stored: Any, mode: int, modified: int) -> Any:
        row = await read_row(self._access, self._sides, attempt.path)
        return await original(self, replace(attempt, context=context_of(row)), stored, mode, modified)

    return [(Operations, "_commit_file", commit_file)]


def _repair_after_answer() -> list[Patch]:
    original = peer.files.quorum._write_back

    async def write_back(*arguments: Any) -> None:
        async def later() -> None:
            await asyncio.sleep(3.0)
            try:
                await original(*arguments)
            except Exception:  # noqa: BLE001  # nobody waits for it: that is the bug
                return

        asyncio.get_running_loop().create_task(later())

    return [(peer.files.quorum, "_write_back", write_back)]


def _half_read_quorum() -> list[Patch]:
    def is_half(sets: Any, voters: Any) -> bool:
        return all(sum(node in voters for node in owners) >= len(owners) // 2 for owners in sets)

    return [(peer.files.quorum, "has_majority", is_half)]


def _half_write_quorum() -> list[Patch]:
    def is_half(sets: Any, voters: Any) -> bool:
        return all(sum(node in voters for node in owners) >= len(owners) // 2 for owners in sets)

    return [(peer.files.row_service, "has_majority", is_half)]


def _timer_left() -> list[Patch]:
    def connection_lost(self: Link, exc: Exception | None) -> None:
        self._handle(self._connection.lost("lost"))
        if not self._ended.done():
            self._ended.set_result(None)
        self._loop.call_later(1.0, self._tick)

    def tick(self: Link) -> None:
        self._timer = self._loop.call_later(1.0, self._tick)
        self._handle(self._connection.tick(self._loop.time()))

    return [(Link, "connection_lost", connection_lost), (Link, "_tick", tick)]


def _length_unchecked() -> list[Patch]:
    return [(protocol.framing, "_lengths_fault", lambda *arguments: None)]


def _dots_reissued() -> list[Patch]:
    async def next_counter(self: SystemStore) -> int:
        self._next_counter += 1
        return self._next_counter

    return [(SystemStore, "next_counter", next_counter)]


def _last_writer_wins() -> list[Patch]:
    def latest(left: Row, right: Row) -> Row:
        merged = merge(left, right)
        if len(merged.heads) < 2:
            return merged
        head = max(merged.heads, key=lambda each: (each.hlc, each.dot))
        return replace(merged, heads=(head,))

    return [(peer.store.rows, "merge", latest), (peer.files.quorum, "merge", latest)]


def _top_up_left() -> list[Patch]:
    async def fetch(self: Fetch, chunk_id: Any, node: Any, purpose: Any) -> bool:
        return True

    return [(Fetch, "_fetch", fetch)]


def _removed_folder_left() -> list[Patch]:
    async def recheck(self: Operations, folder: str) -> None:
        return

    return [(Operations, "_recheck_folder", recheck)]


def _remover_looks_away() -> list[Patch]:
    async def make_again(self: Operations, folder: str) -> None:
        return

    return [(Operations, "_make_again", make_again)]


def _reconcile_one_way() -> list[Patch]:
    original = Reconcile._members

    def members(self: Reconcile) -> Any:
        return [node for node in original(self) if node > self._access.node_id]

    async def give(self: Reconcile, *arguments: Any) -> None:
        return

    return [(Reconcile, "_members", members), (Reconcile, "_give", give)]


def _death_not_refuted() -> list[Patch]:
    return [(Membership, "_refute", lambda self, now, claim: True)]


def _vote_before_durable() -> list[Patch]:
    original = SystemStore.save_acceptor

    async def save_acceptor(self: SystemStore, state: Any) -> None:
        self.acceptor = state
        _later(lambda: original(self, state))

    return [(SystemStore, "save_acceptor", save_acceptor)]


def _act_before_persist() -> list[Patch]:
    save, read = SystemStore.save_layout, SystemStore.layout

    async def save_layout(self: SystemStore, version: int, data: bytes, synced: Any = ()) -> None:
        vars(self).setdefault("_unsaved", {})[version] = data
        self._latest = version
        self._synced = self._mark(synced, version)
        _later(lambda: save(self, version, data, synced))

    async def layout(self: SystemStore, version: int) -> Any:
        return vars(self).get("_unsaved", {}).get(version) or await read(self, version)

    return [(SystemStore, "save_layout", save_layout), (SystemStore, "layout", layout)]


def _later(work: Callable[[], Awaitable[None]]) -> None:
    async def do() -> None:
        await asyncio.sleep(1.0)
        await work()

    asyncio.get_running_loop().create_task(do())


def _old_slot_reopened() -> list[Patch]:
    original = protocol.paxos.judge

    def judge(state: Any, latest: Any, decided: bytes, request: Any) -> Any:
        if request.version > latest.version:
            return original(state, latest, decided, request)
        return None, LayoutVote(Verdict.GRANTED, latest.version, NO_BALLOT, b"")

    return [(peer.cluster.voter, "judge", judge)]


def _joiner_votes_at_once() -> list[Patch]:
    make, check = protocol.layout._successor, protocol.layout.follows

    def successor(layout: Any, members: Any, old: Any, new: Any) -> Layout:
        made = make(layout, members, old, new)
        return Layout(replace(made.record, voters=choose_voters(members, layout.record.voters)))

    def follows(parent: Any, child: Any) -> Any:
        fault = check(parent, child)
        return None if fault == "voters change only when nothing moves" else fault

    patched = [(module, "follows", follows) for module in (protocol.paxos, peer.cluster.layouts)]
    return [(protocol.layout, "_successor", successor), *patched]


def _rollback_unnoticed() -> list[Patch]:
    lives = peer.cluster.lives
    return [(lives, "reason_to_retire", lambda own, began_with, seen: ""), (lives, "may_follow", lambda said, seen: True)]


def _unconfirmed_read_alone() -> list[Patch]:
    def row(self: Confirmed, path: str) -> bool:
        return self._is_agreed(row_partition(path))

    def range_(self: Confirmed, folder: str, after: str, until: str) -> bool:
        return self._is_agreed(folder_partition(folder))

    return [(Confirmed, "row", row), (Confirmed, "range", range_)]


def _minority_evicts() -> list[Patch]:
    def evicted(away: Any, members: int, replication: int, after_seconds: float) -> Any:
        return frozenset(node_id for node_id, seconds in away.items() if seconds >= after_seconds)

    original = Decider._agree

    async def agree(self: Decider, layout: Layout, wish: Any, wanted: Layout) -> None:
        live = sum(self._detector.is_alive(voter) for voter in layout.record.voters)
        if live > len(layout.record.voters) // 2:
            await original(self, layout, wish, wanted)
        else:
            await self._layouts.adopt(wanted)

    return [(peer.cluster.decider, "evicted", evicted), (Decider, "_agree", agree), (Decider, "_lacks_sources", lambda self, layout: False)]


def _lost_rows_absent() -> list[Patch]:
    return [(SystemStore, "is_lost", lambda self, partition: False)]


def _vote_of_an_older_generation() -> list[Patch]:
    async def pull_missing(self: Sync, layout: Layout, missing: list[int]) -> None:
        for stamp in sorted({layout.cfg(partition) for partition in missing}):
            await self._pull_group(layout, stamp, [partition for partition in missing if layout.cfg(partition) == stamp])

    def is_lost(self: SystemStore, partition: int) -> bool:
        return bool(self.lost_at) and not self.synced(partition)

    def report(self: RowRepair, path: str) -> None:
        self._damaged.setdefault(path, -1)
        self.wake()

    async def renew(self: Layouts, version: int, partitions: Any) -> None:
        return

    return [
        (Sync, "_pull_missing", pull_missing),
        (SystemStore, "is_lost", is_lost),
        (Layouts, "renew", renew),
        (RowRepair, "report", report),
    ]


def _no_fence() -> list[Patch]:
    def check(self: RowService, partition: int, stamp: int) -> Layout:
        layout = self._access.layout
        if not layout.is_replica(self._access.node_id, partition):
            raise Refused(ErrorCode.NOT_REPLICA, "this node is no replica of the partition")
        return layout

    return [(RowService, "_check", check)]


def _entering_not_quarantined() -> list[Patch]:
    """Rows that were left are dropped as well, once a node is synced: one of the two is enough, so both are missing here."""

    async def keep(*arguments: Any) -> None:
        return

    return [(RowStore, "quarantine", keep), (Sync, "_drop_foreign", keep)]


def _one_source_sync() -> list[Patch]:
    original = Sync._pull_group

    async def pull_group(self: Sync, layout: Layout, stamp: int, partitions: list[int]) -> None:
        left = partitions
        for other in self._peers.peers():
            entered = [p for p in left if other.node_id in layout.old_set(p) and self._node_id not in layout.old_set(p)]
            if entered and await self._pull_from(other.node_id, stamp, entered, gathers=False):
                await self._system.mark_synced(entered, stamp)
                left = [partition for partition in left if partition not in entered]
        if left:
            await original(self, layout, stamp, left)

    return [(Sync, "_pull_group", pull_group)]


def _overlap_not_synced() -> list[Patch]:
    original = Sync._is_synced

    def is_synced(self: Sync, layout: Layout, partition: int) -> bool:
        return self._node_id in layout.old_set(partition) or original(self, layout, partition)

    return [(Sync, "_is_synced", is_synced)]


def _joint_read_of_old() -> list[Patch]:
    original = peer.files.quorum.has_majority
    return [(peer.files.quorum, "has_majority", lambda sets, voters: original(sets[:1], voters))]


def _repair_to_union() -> list[Patch]:
    original = peer.files.quorum._write_back

    async def write_back(access: Any, layout: Layout, partition: int, rows: Any, confirmed: Any) -> None:
        united = copy(layout)
        vars(united)["replica_sets"] = lambda partition: (layout.replicas(partition),)
        await original(access, united, partition, rows, confirmed)

    return [(peer.files.quorum, "_write_back", write_back)]


def _rollback_within_boot() -> list[Patch]:
    reason, follows = protocol.lives.reason_to_retire, protocol.lives.may_follow

    def reason_to_retire(own: Life, began_with: int, seen: Life) -> str:
        return reason(own, began_with, replace(seen, commits=0))

    def may_follow(said: Life, seen: Life | None) -> bool:
        return follows(said, seen and replace(seen, commits=0))

    return [(peer.cluster.lives, "reason_to_retire", reason_to_retire), (peer.cluster.lives, "may_follow", may_follow)]


class _AnyVersion(int):
    def __ne__(self, other: object) -> bool:
        return False


def _drop_at_any_version() -> list[Patch]:
    original = Sweep._ask

    async def ask(self: Sweep, layout: Layout, home: Any, chunk_ids: Any) -> Any:
        lax = copy(layout)
        lax.version = _AnyVersion(layout.version)
        return await original(self, lax, home, chunk_ids)

    return [(Sweep, "_ask", ask)]


BUGS: Final = {
    bug.name: bug
    for bug in (
        Bug("chunk-not-synced", "a chunk is acknowledged before its file is synced", _chunk_not_synced),
        Bug("folder-not-synced", "the folder of a chunk is not synced", _folder_not_synced),
        Bug("row-acked-before-commit", "a row is acknowledged before its commit is durable", _row_acked_before_commit),
        Bug("retry-applied-twice", "a put that is repeated elsewhere is a second write", _retry_applied_twice),
        Bug("copies-believed", "a copy counts when its holder seems to be alive", _copies_believed),
        Bug("fallback-in-row-quorum", "a node that is no replica counts in the quorum of a row", _fallback_in_row_quorum, 7),
        Bug("corrupt-chunk-served", "a chunk is served without a look at its hash", _corrupt_chunk_served),
        Bug("damaged-row-absent", "a row that fails its checksum votes as if it did not exist", _damaged_row_absent),
        Bug("top-up-left", "a home that lacks a chunk believes that it has fetched it", _top_up_left),
        Bug("removed-folder-left", "a put does not look whether its folder was removed meanwhile", _removed_folder_left),
        Bug("remover-looks-away", "who finds that a folder should be there again does not make it", _remover_looks_away),
        Bug("delta-shipped", "replicas get the new version alone, not the whole row", _delta_shipped),
        Bug("context-at-commit", "a put supersedes what is there when it ends, not when it began", _context_at_commit),
        Bug("repair-after-answer", "a read answers before what it saw is on a majority", _repair_after_answer),
        Bug("half-read-quorum", "a read is content with half of the replicas", _half_read_quorum),
        Bug("half-write-quorum", "a write is content with half of the replicas", _half_write_quorum),
        Bug("timer-left", "the timer of a link goes on after the link has ended", _timer_left),
        Bug("length-unchecked", "the length that a frame announces is believed", _length_unchecked),
        Bug("dots-reissued", "the counter of versions is not stored", _dots_reissued),
        Bug("last-writer-wins", "of two concurrent versions the one with the later clock is kept", _last_writer_wins),
        Bug("reconcile-one-way", "of two replicas only the one with the lower id gets what it lacks", _reconcile_one_way),
        Bug("death-not-refuted", "a node that hears that it is held dead does not say that it is not", _death_not_refuted),
        Bug("vote-before-durable", "a vote is given before it is durable", _vote_before_durable, case="voters-lose-power"),
        Bug("act-before-persist", "a layout is acted on before it is durable", _act_before_persist, case="voters-lose-power"),
        Bug("old-slot-reopened", "a version that was decided is voted on again", _old_slot_reopened, case="late-ballot"),
        Bug("joiner-votes-at-once", "a newcomer votes while its partitions still move", _joiner_votes_at_once, case="joiner-dies"),
        Bug("rollback-unnoticed", "a node whose disk was put back goes on under its id", _rollback_unnoticed),
        Bug("lost-rows-absent", "a replica that has lost its rows votes as if there had never been any", _lost_rows_absent),
        Bug(
            "vote-of-an-older-generation",
            "a replica that has lost rows fetches them while votes that it has forgotten still count",
            _vote_of_an_older_generation,
            case="forgotten-vote",
        ),
        Bug("unconfirmed-read-alone", "one of two replicas shows alone what the other may lack", _unconfirmed_read_alone, case="two-apart"),
        Bug("minority-evicts", "who has no majority leaves those out that he does not hear", _minority_evicts, case="minority-cut-off"),
        Bug("no-fence", "a replica serves requests of an older layout", _no_fence, case="two-leave-at-once"),
        Bug("one-source-sync", "a new owner of a partition syncs from one of the old ones", _one_source_sync, 6, case="new-owner"),
        Bug(
            "entering-not-quarantined", "rows of a partition that was left are neither dropped nor set aside on entering it again",
            _entering_not_quarantined, case="old-rows-return",
        ),
        Bug("overlap-not-synced", "who owned a partition before counts as synced at once", _overlap_not_synced, case="two-leave-at-once"),
        Bug("joint-read-of-old", "a read of a moving partition asks its old owners only", _joint_read_of_old, case="two-leave-at-once"),
        Bug("repair-to-union", "what was read is written back to a majority of all owners", _repair_to_union, case="two-leave-at-once"),
        Bug("drop-at-any-version", "a copy is dropped on the word of homes with another layout", _drop_at_any_version, case="late-home"),
        Bug(
            "rollback-within-boot", "a disk that was put back to a moment of its last start goes unnoticed", _rollback_within_boot,
            case="disk-put-back",
        ),
    )
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Plant a bug until the end of the block."""
    patches = BUGS[name].patches()
    originals = [(owner, attribute, owner.__dict__[attribute]) for owner, attribute, _ in patches]
    for owner, attribute, replacement in patches:
        setattr(owner, attribute, replacement)
    try:
        yield
    finally:
        for owner, attribute, original in originals:
            setattr(owner, attribute, original)
