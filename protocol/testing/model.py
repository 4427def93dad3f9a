"""A model of one node: what a correct one may answer to a client, and what it then knows.

`NodeModel.answer` *is* a node, in memory and without anything around it: for tests of clients, and to make wrong nodes of.
`NodeModel.judge` follows somebody else's node: it is told every request and the answer that came, raises `WrongAnswer` when no correct
node would have said that, and takes over what the node was free to choose (dots, clocks, where a page ends). It needs no
fresh node: what it meets for the first time it learns, what it knows it checks.

Owns rows, chunks and the fence of a node *that nobody else writes to and that reaches no other member*: a cluster of one, or one
whose other members are not there. Knows nothing of links, time and disks: `protocol.testing.pair` is for links, and durability
is tested by letting the node restart between two questions.
"""

from collections.abc import Callable
from dataclasses import dataclass

from protocol import limits
from protocol.errors import ErrorCode
from protocol.identity import ChunkId
from protocol.layout import Layout
from protocol.manifest import chunk_matches
from protocol.messages import (
    Answer,
    BucketsGet,
    ChunkData,
    ChunkDigestsGet,
    ChunkGet,
    ChunkPut,
    ChunksHave,
    ChunksHeld,
    ChunksList,
    ChunkStored,
    DigestsGet,
    Done,
    Failure,
    Force,
    Forced,
    Forget,
    LayoutAccept,
    LayoutAnnounce,
    LayoutGet,
    LayoutIs,
    LayoutPrepare,
    Leave,
    ListFetch,
    ListPage,
    MembersGet,
    PartitionPull,
    PeerInfo,
    Peers,
    PeersGet,
    Probe,
    ProbeIndirect,
    Published,
    Purpose,
    RebalanceSet,
    Renew,
    Request,
    RowFetch,
    RowIs,
    RowMerge,
    RowPublish,
    RowsCompare,
    Status,
    StatusGet,
    SyncReport,
)
from protocol.paths import folder_partition, name_of, parent_of
from protocol.rows import range_digest, row_bytes, row_digest
from protocol.versions import Dot, Kind, Row, Version, empty_row, find_operation, has_seen, merge, published, row_fault, winner

Ask = Callable[[Request], Answer]
"""Asks the node under test and returns its answer."""


class WrongAnswer(AssertionError):
    """No correct node would have answered that."""


@dataclass(frozen=True, slots=True)
class _Unseen:
    """A write whose clock, and perhaps whose dot, only the row itself tells."""

    request: RowPublish
    dot: Dot | None
    """None when not even that it is stored is known."""


class NodeModel:
    """One node, as far as its answers tell."""

    def __init__(self, info: PeerInfo, layout: Layout) -> None:
        """Begin with a node that has nothing but a layout."""
        self.info = info
        self.node_id = info.node_id
        self.layout = layout
        self.records: dict[int, bytes] = {layout.version: layout.data}
        self.rows: dict[str, Row] = {}
        """The row of every path that was looked at or written; an empty one where there is none."""
        self.chunks: dict[ChunkId, bytes | None] = {}
        """Chunks that are held (b"" while their bytes were not seen), and with None those that are not."""
        self.counter = 0
        """The highest counter of this node's dots."""
        self.milliseconds = 0
        """The clock that `answer` goes by."""
        self.is_rebalance_paused: bool | None = None
        """None while nobody has said."""
        self._hlc = 0
        self._unseen: dict[str, _Unseen] = {}

    @staticmethod
    def meet(ask: Ask) -> "NodeModel":
        """Return the model of a node that belongs to a cluster, by what it says of itself.

        Raises: WrongAnswer.
        """
        request = PeersGet(limits.DEADLINE_MILLISECONDS_MAX)
        peers = ask(request)
        _require(isinstance(peers, Peers) and bool(peers.peers), request, peers, "a node names itself first")
        assert isinstance(peers, Peers)
        question = LayoutGet(limits.DEADLINE_MILLISECONDS_MAX, 0)
        record = ask(question)
        _require(isinstance(record, LayoutIs) and bool(record.record), question, record, "it belongs to a cluster")
        assert isinstance(record, LayoutIs)
        return NodeModel(peers.peers[0], Layout.from_bytes(record.record))

    def adopt(self, layout: Layout) -> None:
        """Follow the node into its next layout, in which it gives up and takes over no partition that has rows."""
        self.layout = layout
        self.records[layout.version] = layout.data

    def row(self, path: str) -> Row:
        """Return what the node knows of `path`."""
        assert path not in self._unseen, f"the model knows the row of {path} only after a full RowFetch"
        return self.rows.get(path) or empty_row(path)

    # -- being a node --------------------------------------------------------

    def answer(self, request: Request, payload: bytes = b"") -> tuple[Answer, bytes]:
        """Answer as a correct node does."""
        refusals = self.refusals(request, payload)
        if refusals:
            return Failure(min(refusals), "refused", self.layout.version), b""
        match request:
            case PeersGet():
                return Peers((self.info,)), b""
            case LayoutGet():
                return LayoutIs(self.records.get(request.version or self.layout.version, b"")), b""
            case StatusGet():
                return self._status(), b""
            case Forget():
                return Done(), b""
            case Force():
                return Forced(0, 0, 0), b""
            case RebalanceSet():
                self.is_rebalance_paused = request.paused
                return Done(), b""
            case RowPublish():
                return self._publish(request), b""
            case RowMerge():
                self._merge(request)
                return Done(), b""
            case RowFetch():
                row = self.row(request.path)
                if row == empty_row(request.path):
                    return RowIs(b"", (), False), b""
                return RowIs(row_digest(row), (row,) if request.full else (), False), b""
            case ListFetch():
                return self._page(request), b""
            case ChunkPut():
                self.chunks[request.chunk_id] = payload
                return ChunkStored((self.node_id,)), b""
            case ChunkGet():
                return ChunkData(), self.chunks[request.chunk_id] or b""
            case ChunksHave():
                held = [self.chunks.get(chunk_id) is not None for chunk_id in request.chunk_ids]
                return ChunksHeld(self.layout.version, _bitmap(held)), b""
        raise AssertionError(f"{type(request).__name__} is refused")

    def refusals(self, request: Request, payload: bytes = b"") -> frozenset[ErrorCode]:
        """Return with which codes the request may be refused: with one of them it must be, if there are any."""
        match request:
            case PeersGet() | LayoutGet() | StatusGet() | ChunksHave() | RebalanceSet():
                return frozenset()
            case RowMerge():
                return self._fence(request.partition, request.stamp) or self._merge_refusals(request)
            case RowFetch():
                return self._fence(request.partition, request.stamp)
            case RowPublish():
                return self._fence(request.partition, request.stamp) or self._publish_refusals(request)
            case ListFetch():
                misplaced = {ErrorCode.INVALID} if folder_partition(request.folder) != request.partition else set()
                return self._fence(request.partition, request.stamp) | misplaced
            case ChunkPut():
                if not 0 < len(payload) <= limits.CHUNK_BYTES_MAX:
                    return frozenset({ErrorCode.INVALID})
                return frozenset() if chunk_matches(request.chunk_id, payload) else frozenset({ErrorCode.WRONG_HASH})
            case Forget():
                known = request.node_id in self.layout.members
                return frozenset({ErrorCode.INVALID, ErrorCode.UNAVAILABLE}) if known else frozenset()
            case Force():
                return frozenset({ErrorCode.INVALID}) if set(request.gone) & self.layout.members.keys() else frozenset()
            case Leave():
                return frozenset({ErrorCode.UNAVAILABLE})  # nobody is there to take over what it holds
            case ChunkGet(purpose=Purpose.REBALANCE) if self.is_rebalance_paused:
                return frozenset({ErrorCode.UNAVAILABLE})
            case ChunkGet():
                return frozenset() if self.chunks.get(request.chunk_id) is not None else frozenset({ErrorCode.NOT_FOUND})
            case (
                LayoutAnnounce() | SyncReport() | Renew() | PartitionPull() | LayoutPrepare() | LayoutAccept()
                | Probe() | ProbeIndirect() | MembersGet() | DigestsGet() | BucketsGet() | RowsCompare()
                | ChunkDigestsGet() | ChunksList()
            ):  # fmt: skip
                return frozenset({ErrorCode.UNSUPPORTED})
        raise AssertionError(f"{type(request).__name__} is not a request")

    # -- judging a node ------------------------------------------------------

    def judge(self, request: Request, answer: Answer, payload: bytes = b"", answer_payload: bytes = b"") -> None:
        """Check what came in answer to `request`, and follow it.

        Behind every `RowPublish` the path is to be fetched in full before anything else is asked that touches it: only the row
        tells the clock, and after OUTCOME_UNKNOWN whether it was written.

        Raises: WrongAnswer.
        """
        if isinstance(request, ChunkGet) and request.chunk_id not in self.chunks:
            self._learn_chunk(request.chunk_id, answer)
        refusals = self.refusals(request, payload)
        if isinstance(answer, Failure):
            self._judge_failure(request, answer, refusals)
            return
        names = ", ".join(sorted(code.name for code in refusals))
        _require(not refusals, request, answer, f"it is refused with {names}")
        _require(type(answer) is request.ANSWER, request, answer, f"it is answered by {request.ANSWER.__name__}")
        match request, answer:
            case PeersGet(), Peers():
                _require(answer.peers[:1] == (self.info,), request, answer, "a node names itself first")
            case LayoutGet(), LayoutIs():
                self._judge_record(request, answer)
            case StatusGet(), Status():
                own = (answer.node_id, answer.cluster_id, answer.layout_version)
                wanted = (self.node_id, self.layout.cluster_id, self.layout.version)
                _require(own == wanted, request, answer, "a node knows who it is and what layout is in force")
                told = self.is_rebalance_paused in (None, answer.is_rebalance_paused)
                _require(told, request, answer, "a node does not forget whether rebalancing is paused")
            case RebalanceSet(), Done():
                self.is_rebalance_paused = request.paused
            case RowPublish(), Published():
                self._judge_published(request, answer)
            case RowMerge(), Done():
                self._merge(request)
            case RowFetch(), RowIs():
                self._judge_row(request, answer)
            case ListFetch(), ListPage():
                self._judge_page(request, answer)
            case ChunkPut(), ChunkStored():
                _require(answer.holders == (self.node_id,), request, answer, "only this node can have it")
                self.chunks[request.chunk_id] = payload
            case ChunkGet(), ChunkData():
                _require(chunk_matches(request.chunk_id, answer_payload), request, answer, "the bytes are those that the id names")
            case ChunksHave(), ChunksHeld():
                self._judge_held(request, answer)

    # -- rows ----------------------------------------------------------------

    def _fence(self, partition: int, stamp: int) -> frozenset[ErrorCode]:
        layout = self.layout
        if stamp > layout.version:
            return frozenset({ErrorCode.UNAVAILABLE})  # there is nobody to catch up from
        if not layout.is_replica(self.node_id, partition):
            return frozenset({ErrorCode.NOT_REPLICA})
        return frozenset() if stamp == layout.cfg(partition) else frozenset({ErrorCode.STALE})

    def _publish_refusals(self, request: RowPublish) -> frozenset[ErrorCode]:
        refusals = set()
        if any(holder not in self.layout.members for holder in request.holders):
            refusals.add(ErrorCode.STALE)
        row = self.row(request.path)
        if find_operation(row, request.op_id) is None:
            standing = winner(row)
            if standing is not None and request.kind not in (Kind.TOMBSTONE, standing.kind):
                refusals.add(ErrorCode.EXISTS if has_seen(row, request.context) else ErrorCode.UNAVAILABLE)
            elif not self._adds_nothing(request) and _too_large(self._written(request, Dot(self.node_id, 2**64 - 1), 2**64 - 1)):
                refusals.add(ErrorCode.TOO_LARGE)
        if not refusals and not self._is_majority(request.partition):
            refusals.add(ErrorCode.OUTCOME_UNKNOWN)
        return frozenset(refusals)

    def _merge_refusals(self, request: RowMerge) -> frozenset[ErrorCode]:
        merged = self._merged(request).values()
        return frozenset({ErrorCode.TOO_LARGE}) if any(map(_too_large, merged)) else frozenset()

    def _is_majority(self, partition: int) -> bool:
        """Return whether this node alone is a majority of each set."""
        return all(owners == (self.node_id,) for owners in self.layout.replica_sets(partition))

    def _adds_nothing(self, request: RowPublish) -> bool:
        """Return whether the row says already what is to be written."""
        row = self.row(request.path)
        standing = winner(row)
        if standing is not None and standing.kind is request.kind is Kind.DIRECTORY and has_seen(row, request.context):
            return True  # the folder is marked; of who has seen what this row has not that mark may be superseded
        return find_operation(row, request.op_id) is not None

    def _standing_dot(self, request: RowPublish) -> Dot | None:
        """Return the dot of what is written already."""
        row = self.row(request.path)
        standing = winner(row)
        return find_operation(row, request.op_id) or (standing.dot if standing is not None else None)

    def _written(self, request: RowPublish, dot: Dot, hlc: int) -> Row:
        version = Version(
            dot, request.context, hlc, request.op_id, request.kind, request.size, request.mode,
            request.modified_milliseconds, request.writer, request.content,
        )  # fmt: skip
        return published(self.row(request.path), version)

    def _publish(self, request: RowPublish) -> Published:
        dot = self._standing_dot(request)
        if not self._adds_nothing(request):
            self.counter += 1
            dot = Dot(self.node_id, self.counter)
            self._hlc = max(self.milliseconds << 16, self._hlc + 1, _lowest_hlc(self.row(request.path)))
            self.rows[request.path] = self._written(request, dot, self._hlc)
        assert dot is not None
        return Published(dot, 1)

    def _merged(self, request: RowMerge) -> dict[str, Row]:
        result: dict[str, Row] = {}
        for row in request.rows:
            result[row.path] = merge(result.get(row.path) or self.row(row.path), row)
        return result

    def _merge(self, request: RowMerge) -> None:
        self.rows.update(self._merged(request))

    def _range(self, request: ListFetch) -> list[Row]:
        """Return the rows that the model knows in the range, in order of name."""
        after, until = request.after.encode(), request.until.encode()
        named = {
            name_of(path).encode(): self.row(path)
            for path in self.rows
            if parent_of(path) == request.folder and self.row(path) != empty_row(path)
        }
        return [named[name] for name in sorted(named) if name > after and (not until or name <= until)]

    def _page(self, request: ListFetch) -> ListPage:
        rows = self._range(request)
        if not request.full:
            return ListPage(range_digest(map(row_digest, rows)), request.until, (), False)
        page: list[Row] = []
        size = 0
        for row in rows:
            size += len(row_bytes(row))
            if len(page) >= limits.ROWS_PER_MESSAGE_MAX or (page and size > limits.PAGE_BYTES_MAX):
                break
            page.append(row)
        last = request.until if len(page) == len(rows) else name_of(page[-1].path)
        return ListPage(range_digest(map(row_digest, page)), last, tuple(page), False)

    # -- judging -------------------------------------------------------------

    def _judge_failure(self, request: Request, answer: Failure, refusals: frozenset[ErrorCode]) -> None:
        names = ", ".join(sorted(code.name for code in refusals))
        _require(answer.code in refusals, request, answer, f"it is refused with {names}" if names else "it is served")
        _require(answer.layout_version == self.layout.version, request, answer, "a failure says the layout version in force")
        if isinstance(request, RowPublish) and answer.code is ErrorCode.OUTCOME_UNKNOWN and not self._adds_nothing(request):
            self._unseen[request.path] = _Unseen(request, None)

    def _judge_record(self, request: LayoutGet, answer: LayoutIs) -> None:
        version = request.version or self.layout.version
        if version < self.layout.version and version not in self.records and answer.record:
            self.records[version] = answer.record
            _require(Layout.from_bytes(answer.record).version == version, request, answer, "the record is of the asked version")
        _require(answer.record == self.records.get(version, b""), request, answer, "a record never changes, and none comes from nothing")

    def _judge_published(self, request: RowPublish, answer: Published) -> None:
        _require(answer.copies == 1, request, answer, "only this node can have it")
        if self._adds_nothing(request):
            _require(answer.dot == self._standing_dot(request), request, answer, "it stands already, under its dot")
            return
        _require(answer.dot.actor == self.node_id, request, answer, "the coordinator writes under a dot of its own")
        _require(answer.dot.counter > self.counter, request, answer, f"dots only grow: the last one was {self.counter}")
        self.counter = answer.dot.counter
        self._unseen[request.path] = _Unseen(request, answer.dot)

    def _judge_row(self, request: RowFetch, answer: RowIs) -> None:
        found = answer.rows[0] if answer.rows else None
        if request.full and answer.digest:
            _require(found is not None, request, answer, "the whole row was asked for")
        _require(found is None or request.full, request, answer, "only the digest was asked for")
        if found is not None:
            _require(found.path == request.path, request, answer, "the row is that of the path")
            _require(row_digest(found) == answer.digest, request, answer, "the digest is that of the row")
            _require(row_fault(found) is None, request, answer, str(row_fault(found)))
        if not request.full:
            assert request.path in self.rows, "what is met for the first time is to be fetched in full"
        elif request.path in self._unseen:
            self._see(request, answer, found)
        elif request.path not in self.rows:
            self._learn_row(request.path, found)
        self._judge_confirmed(request, answer)
        row = self.row(request.path)
        wanted = row_digest(row) if row != empty_row(request.path) else b""
        _require(answer.digest == wanted, request, answer, f"the node knows of this path {row}")

    def _learn_row(self, path: str, found: Row | None) -> None:
        row = found or empty_row(path)
        self.rows[path] = row
        dots = [*(head.dot for head in row.heads), *(dot for operation in row.operations for dot in operation.dots)]
        self.counter = max([self.counter, *(dot.counter for dot in dots if dot.actor == self.node_id)])

    def _see(self, request: RowFetch, answer: RowIs, found: Row | None) -> None:
        """Take from the row what the answer to its write had left open."""
        unseen = self._unseen.pop(request.path)
        before = self.row(request.path)
        operation = next((each for each in found.operations if each.op_id == unseen.request.op_id), None) if found else None
        if operation is None:
            _require(unseen.dot is None, request, answer, "what was acknowledged is there")
            return
        _require(len(operation.dots) == 1, request, answer, "a new write has one dot")
        dot = operation.dots[0]
        _require(dot.actor == self.node_id, request, answer, "the coordinator writes under a dot of its own")
        if unseen.dot is not None:
            _require(dot == unseen.dot, request, answer, f"the answer said {unseen.dot}")
        else:
            _require(dot.counter > self.counter, request, answer, f"dots only grow: the last one was {self.counter}")
        self.counter = dot.counter
        _require(operation.hlc >= _lowest_hlc(before), request, answer, "the clock of a write is above those of all heads")
        self.rows[request.path] = self._written(unseen.request, dot, operation.hlc)

    def _judge_confirmed(self, request: RowFetch | ListFetch, answer: RowIs | ListPage) -> None:
        sets = self.layout.replica_sets(request.partition)
        is_pair = len(sets) == 1 and len(sets[0]) == 2
        _require(is_pair or not answer.confirmed, request, answer, "only of two replicas one may answer alone")

    def _judge_page(self, request: ListFetch, answer: ListPage) -> None:
        self._judge_confirmed(request, answer)
        known = self._range(request)
        if not request.full:
            _require(not answer.rows, request, answer, "only the digest was asked for")
            _require(answer.last == request.until, request, answer, "a digest is of the whole range")
            _require(answer.digest == range_digest(map(row_digest, known)), request, answer, f"the rows of the range are {known}")
            return
        for row in answer.rows:
            if row.path not in self.rows:
                _require(parent_of(row.path) == request.folder and row_fault(row) is None, request, answer, f"{row.path} is listed")
                self._learn_row(row.path, row)
        known = self._range(request)
        whole = answer.last == request.until
        _require(bool(answer.rows) or whole, request, answer, "a page has at least one row if there is any")
        if not whole:
            _require(answer.last == name_of(answer.rows[-1].path), request, answer, "a page that ends early ends with its last row")
        wanted = known if whole else known[: len(answer.rows)]
        _require(list(answer.rows) == wanted, request, answer, f"the rows of the range are {known}")
        _require(answer.digest == range_digest(map(row_digest, wanted)), request, answer, "the digest is that of the rows")

    # -- chunks --------------------------------------------------------------

    def _learn_chunk(self, chunk_id: ChunkId, answer: Answer) -> None:
        self.chunks[chunk_id] = b"" if isinstance(answer, ChunkData) else None

    def _judge_held(self, request: ChunksHave, answer: ChunksHeld) -> None:
        _require(answer.layout_version == self.layout.version, request, answer, "it is said under the layout in force")
        count = len(request.chunk_ids)
        _require(len(answer.held) == (count + 7) // 8, request, answer, "one bit for each chunk")
        held = [bool(answer.held[index >> 3] >> (index & 7) & 1) for index in range(count)]
        for chunk_id, present in zip(request.chunk_ids, held, strict=True):
            if chunk_id not in self.chunks:
                self.chunks[chunk_id] = b"" if present else None
        wanted = [self.chunks[chunk_id] is not None for chunk_id in request.chunk_ids]
        _require(answer.held == _bitmap(wanted), request, answer, f"held are {wanted}")

    def _status(self) -> Status:
        chunks = [data for data in self.chunks.values() if data is not None]
        rows = [path for path, row in self.rows.items() if row != empty_row(path)]
        return Status(
            node_id=self.node_id, name=self.info.name, cluster_id=self.layout.cluster_id, layout_version=self.layout.version,
            uptime_seconds=0, chunks=len(chunks), chunk_bytes=sum(map(len, chunks)), rows=len(rows), capacity_bytes=0, free_bytes=0,
            corrupt_chunks=0, owed_chunks=0, unsynced_partitions=0, lost_partitions=0, evict_seconds=600, peers=(), notices=(),
            is_rebalance_paused=bool(self.is_rebalance_paused),
        )  # fmt: skip


def _require(condition: bool, request: Request, answer: Answer, rule: str) -> None:
    if not condition:
        raise WrongAnswer(f"{rule}; but {request} was answered by {answer}")


def _lowest_hlc(row: Row) -> int:
    """Return the lowest clock that a write may have that follows `row`."""
    return max((head.hlc + 1 for head in row.heads), default=0)


def _too_large(row: Row) -> bool:
    return len(row.heads) > limits.HEADS_MAX or len(row_bytes(row)) > limits.ROW_BYTES_MAX


def _bitmap(bits: list[bool]) -> bytes:
    result = bytearray((len(bits) + 7) // 8)
    for index, bit in enumerate(bits):
        result[index >> 3] |= bit << (index & 7)
    return bytes(result)
