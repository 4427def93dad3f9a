"""A client that tries a node out: rules for Hypothesis over `protocol.testing.model`.

`NodeMachine` asks whatever a client may ask, about few enough paths and chunks that they meet again: writes, retries of them, rows as other
replicas would ship them, stamps that are not in force, chunks that are not what they are called, lists from anywhere. Every answer goes
through a `NodeModel`. A subclass says how the node is asked; `protocol/testing/README.md` has one for a node behind a socket.
"""

from dataclasses import dataclass
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, precondition, rule

from protocol import limits
from protocol.digest import NOTHING, pack_buckets
from protocol.hashing import plain_hash
from protocol.identity import NodeId, OpId
from protocol.layout import pack_partitions
from protocol.manifest import NO_CONTENT, ChunkTag, Content, chunk_id_of, inline_content
from protocol.messages import (
    Answer,
    Ballot,
    BucketsGet,
    ChunkDigestsGet,
    ChunkGet,
    ChunkPut,
    ChunksHave,
    ChunksList,
    DigestsGet,
    Force,
    Forget,
    LayoutAccept,
    LayoutAnnounce,
    LayoutGet,
    LayoutPrepare,
    Leave,
    ListFetch,
    ListPage,
    MembersGet,
    PartitionPull,
    PeersGet,
    Probe,
    ProbeIndirect,
    Purpose,
    RebalanceSet,
    Renew,
    Request,
    RowFetch,
    RowIs,
    RowMerge,
    RowPublish,
    RowsCompare,
    StatusGet,
    SyncReport,
)
from protocol.paths import folder_partition, parent_of, row_partition
from protocol.rows import row_bytes
from protocol.testing.model import NodeModel
from protocol.versions import Dot, Kind, Row, Vector, Version, context_of, empty_row, find_operation, merge, published

FOLDERS: Final = ("/model", "/model/deep")
"""What lies in these folders belongs to the machine."""
PATHS: Final = ("/model/a", "/model/z", "/model/é", "/model/deep/a")
DATA: Final = (b"", b"\0", b"shoal", bytes(range(256)) * 300)
DATA_NUMBERS: Final = tuple(range(len(DATA)))
CHUNKS: Final = tuple((chunk_id_of(tag, data), data) for data in DATA[1:] for tag in ChunkTag)
OTHERS: Final = tuple(NodeId(plain_hash(name, 16)) for name in (b"another replica", b"a third replica"))
"""Replicas that exist only in the rows that they are said to have written."""
DEADLINE_MILLISECONDS: Final = 20_000
chunk_numbers = st.sampled_from(range(len(CHUNKS)))
clocks = st.integers(0, 2**47).map(lambda milliseconds: milliseconds << 16)

paths = st.sampled_from(PATHS)
folders = st.sampled_from(FOLDERS)
readers = st.sampled_from(["node", "elsewhere", ""])
"""Where a writer reads before it begins."""
places = st.sampled_from([None, None, None, *OTHERS])
"""Where a write is coordinated: None is the node under test."""
kinds = st.sampled_from(Kind)
bounds = st.sampled_from(["", "", "", "a", "b", "z", "é"])
stamps_off = st.sampled_from([0, 0, 0, 0, -1, 1])
"""How far a stamp is from the one in force."""


@dataclass(frozen=True, slots=True)
class Write:
    """What a writer fixed when it began: the same in every retry."""

    op_id: OpId
    path: str
    context: Vector
    kind: Kind
    content: Content
    size: int


class NodeMachine(RuleBasedStateMachine):
    """Tries out the node that `ask` asks. The node may have a past, but nobody else may write to it meanwhile."""

    writes = Bundle("writes")

    def ask(self, request: Request, payload: bytes = b"") -> tuple[Answer, bytes]:
        """Ask the node under test; return its answer and the payload of that."""
        raise NotImplementedError

    def restart(self) -> None:
        """Take the power from the node and give it back, where the test can: what was acknowledged must be there."""

    @initialize()
    def learn(self) -> None:
        """Get to know the node, and delete what stands in the machine's folders."""
        self.model = NodeModel.meet(lambda request: self.ask(request)[0])
        self.elsewhere: dict[str, Row] = {}
        """The rows of one other replica."""
        self.begun = 0
        for folder in FOLDERS:
            self._list(folder, "", "", full=True)
        for path in PATHS:
            self._fetch(path)
        known = [self.model.row(path) for path in PATHS if path in self.model.rows]
        self.past = plain_hash(b"".join(row_bytes(row) for row in known))
        self.counters = {actor: max([0, *(dot.counter for row in known for dot in _dots(row) if dot.actor == actor)]) for actor in OTHERS}
        for row in known:
            if row.heads:
                self._write(self._begin(row.path, Kind.TOMBSTONE, b"", reader="node"), None, 0)

    # -- rows ----------------------------------------------------------------

    @rule(target=writes, path=paths, kind=kinds, text=st.binary(max_size=4), reader=readers, place=places, hlc=clocks)
    def write(self, path: str, kind: Kind, text: bytes, reader: str, place: NodeId | None, hlc: int) -> Write:
        """A writer reads the row somewhere or nowhere, fixes what it will write, and has it written."""
        write = self._begin(path, kind, text, reader)
        self._write(write, place, hlc)
        return write

    @rule(write=writes, place=places, hlc=clocks, off=stamps_off, member=st.sampled_from([True, True, True, False]))
    def write_again(self, write: Write, place: NodeId | None, hlc: int, off: int, member: bool) -> None:
        """A writer that had no answer, or a refusal, has the same written again, at the same replica or at another one."""
        self._write(write, place, hlc, off=off, member=member)

    @precondition(lambda self: self.elsewhere)
    @rule(path=paths, off=stamps_off)
    def ship(self, path: str, off: int) -> None:
        """Another replica ships its rows of a folder."""
        folder = parent_of(path)
        rows = tuple(row for path, row in sorted(self.elsewhere.items()) if parent_of(path) == folder)
        partition = folder_partition(folder)
        self._ask(RowMerge(DEADLINE_MILLISECONDS, partition, self._stamp(partition, off), rows))
        self._list(folder, "", "", full=True)

    @rule(path=paths)
    def take(self, path: str) -> None:
        """The other replicas take over what the node has."""
        answer = self._fetch(path)
        if isinstance(answer, RowIs) and answer.rows:
            self.elsewhere[path] = merge(self.elsewhere.get(path, empty_row(path)), answer.rows[0])

    @rule(path=paths, full=st.booleans(), off=stamps_off)
    def fetch(self, path: str, full: bool, off: int) -> None:
        """A reader asks for one row."""
        self._fetch(path, full=full or path not in self.model.rows, off=off)

    @rule(folder=folders, after=bounds, until=bounds, off=stamps_off, misplaced=st.sampled_from([0, 0, 0, 1]))
    def list_folder(self, folder: str, after: str, until: str, off: int, misplaced: int) -> None:
        """A reader asks for a range of a folder and for its digest, rarely in a partition that is not its own."""
        for full in (True, False):
            self._list(folder, after, until, full=full, off=off, misplaced=misplaced)

    # -- chunks --------------------------------------------------------------

    @rule(number=chunk_numbers, other=st.sampled_from([None, None, None, *DATA_NUMBERS]), forward=st.booleans())
    def put_chunk(self, number: int, other: int | None, forward: bool) -> None:
        """A chunk is put, or under its name something else, or nothing."""
        chunk_id, data = CHUNKS[number]
        self._ask(ChunkPut(DEADLINE_MILLISECONDS, chunk_id, forward), data if other is None else DATA[other])

    @rule(numbers=st.lists(chunk_numbers, max_size=20))
    def ask_for_chunks(self, numbers: list[int]) -> None:
        """Some chunks are asked about, one perhaps twice, and one is fetched."""
        self._ask(ChunksHave(DEADLINE_MILLISECONDS, tuple(CHUNKS[number][0] for number in numbers)))
        for number in numbers[:1]:
            self._ask(ChunkGet(DEADLINE_MILLISECONDS, CHUNKS[number][0]))

    # -- the node itself -----------------------------------------------------

    @rule(paused=st.booleans(), number=chunk_numbers, purpose=st.sampled_from(Purpose))
    def pause_rebalance(self, paused: bool, number: int, purpose: Purpose) -> None:
        """Somebody has copies stay where they are, or move on; and somebody else asks for one and fetches it."""
        chunk_id, _ = CHUNKS[number]
        self._ask(RebalanceSet(DEADLINE_MILLISECONDS, paused))
        self._ask(ChunksHave(DEADLINE_MILLISECONDS, (chunk_id,)))
        self._ask(ChunkGet(DEADLINE_MILLISECONDS, chunk_id, purpose))
        self._ask(StatusGet(DEADLINE_MILLISECONDS))

    @rule(version=st.integers(0, 5))
    def identify(self, version: int) -> None:
        """Somebody asks who the node is, whom it knows and what layout it has; and a client what only members may ask."""
        self._ask(PeersGet(DEADLINE_MILLISECONDS))
        self._ask(LayoutGet(DEADLINE_MILLISECONDS, version))
        self._ask(StatusGet(DEADLINE_MILLISECONDS))
        self._ask(Leave(DEADLINE_MILLISECONDS))
        self._ask(Forget(DEADLINE_MILLISECONDS, self.model.node_id))
        self._ask(Force(DEADLINE_MILLISECONDS, (self.model.node_id,), begin=True))
        layout, some = self.model.layout, pack_partitions([0])
        self._ask(LayoutAnnounce(DEADLINE_MILLISECONDS, layout.cluster_id, layout.version, layout.digest))
        self._ask(SyncReport(DEADLINE_MILLISECONDS, layout.version, some))
        self._ask(Renew(DEADLINE_MILLISECONDS, layout.version, some))
        self._ask(PartitionPull(DEADLINE_MILLISECONDS, layout.cfg(0), some, 0, ""))
        ballot = Ballot(1, self.model.node_id)
        self._ask(LayoutPrepare(DEADLINE_MILLISECONDS, layout.version + 1, ballot))
        self._ask(LayoutAccept(DEADLINE_MILLISECONDS, layout.version + 1, ballot, layout.data))
        self._ask(Probe(DEADLINE_MILLISECONDS, ()))
        self._ask(ProbeIndirect(DEADLINE_MILLISECONDS, self.model.node_id, ()))
        self._ask(MembersGet(DEADLINE_MILLISECONDS, bytes(16)))
        self._ask(DigestsGet(DEADLINE_MILLISECONDS, layout.version, some, NOTHING))
        self._ask(BucketsGet(DEADLINE_MILLISECONDS, 0, layout.cfg(0)))
        self._ask(RowsCompare(DEADLINE_MILLISECONDS, 0, layout.cfg(0), pack_buckets([0]), "", "", ()))
        self._ask(ChunkDigestsGet(DEADLINE_MILLISECONDS, some, NOTHING))
        self._ask(ChunksList(DEADLINE_MILLISECONDS, 0, b""))

    @rule()
    def lose_power(self) -> None:
        """The node begins a new life with what it had on disk."""
        self.restart()
        for folder in FOLDERS:
            self._list(folder, "", "", full=True)

    # -- inside --------------------------------------------------------------

    def _begin(self, path: str, kind: Kind, text: bytes, reader: str) -> Write:
        row = empty_row(path)
        if reader == "elsewhere":
            row = self.elsewhere.get(path, row)
        elif reader == "node" and path in self.model.rows:
            row = self.model.row(path)
        self.begun += 1
        op_id = OpId(plain_hash(self.past + self.begun.to_bytes(4, "big"), 16))
        content, size = (inline_content(text), len(text)) if kind is Kind.FILE else (NO_CONTENT, 0)
        return Write(op_id, path, context_of(row), kind, content, size)

    def _write(self, write: Write, place: NodeId | None, hlc: int, *, off: int = 0, member: bool = True) -> None:
        """Have `write` coordinated by the node (None) or, out of its sight, by another replica at the time `hlc`."""
        if place is None:
            partition = row_partition(write.path)
            holder = self.model.node_id if member else OTHERS[0]
            request = RowPublish(
                DEADLINE_MILLISECONDS, partition, self._stamp(partition, off), write.op_id, write.path, write.context, write.kind,
                write.size, 0o644, 1, "machine", write.content, (holder,),
            )  # fmt: skip
            self._ask(request)
            self._fetch(write.path)
            return
        row = self.elsewhere.get(write.path, empty_row(write.path))
        if find_operation(row, write.op_id) is None:
            self.counters[place] += 1
            dot = Dot(place, self.counters[place])
            version = Version(dot, write.context, hlc, write.op_id, write.kind, write.size, 0o644, 1, "machine", write.content)
            self.elsewhere[write.path] = published(row, version)

    def _ask(self, request: Request, payload: bytes = b"") -> Answer:
        answer, data = self.ask(request, payload)
        self.model.judge(request, answer, payload, data)
        return answer

    def _stamp(self, partition: int, off: int) -> int:
        return max(0, self.model.layout.cfg(partition) + off)

    def _fetch(self, path: str, *, full: bool = True, off: int = 0) -> Answer:
        partition = row_partition(path)
        return self._ask(RowFetch(DEADLINE_MILLISECONDS, partition, self._stamp(partition, off), path, full))

    def _list(self, folder: str, after: str, until: str, *, full: bool, off: int = 0, misplaced: int = 0) -> None:
        partition = (folder_partition(folder) + misplaced) % limits.PARTITIONS
        while True:
            answer = self._ask(ListFetch(DEADLINE_MILLISECONDS, partition, self._stamp(partition, off), folder, after, until, full))
            if not isinstance(answer, ListPage) or answer.last == until:
                return
            after = answer.last


def _dots(row: Row) -> tuple[Dot, ...]:
    """Return every dot that a row tells of."""
    standing = [dot for head in row.heads for dot in (head.dot, *head.context)]
    return (*standing, *(dot for operation in row.operations for dot in operation.dots))
