"""Every message of the protocol: one frozen dataclass each.

Owns which messages exist, their numbers, fields and bounds. The codec reads the annotations; the connection
machine reads `ANSWER`, `CARRIER` and `PAYLOAD`; nothing here encodes or decides anything.

A header on the wire is `[type, request_id, *fields]` in the order of the fields below. Control messages
concern the link itself and have request id 0 (`Cancel` apart). A *request* has an even number from 16 on and is
answered by its `ANSWER` (the next odd number, one that it shares, or `Done`) or by `Failure`.

`deadline_milliseconds` is the time that the sender is still willing to wait when it sends: a duration, since two
machines share no clock. `stamp` is the sender's `cfg[partition]` (`protocol.layout`). Each request is safe to repeat.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Annotated, ClassVar, Final, NamedTuple

from protocol import limits
from protocol.errors import CloseCode, ErrorCode
from protocol.fields import (
    U8,
    U16,
    U32,
    U64,
    AddressesField,
    Binary,
    ChunkIdField,
    ChunkIdsField,
    ClusterIdField,
    DeadlineMilliseconds,
    Digest,
    Entries,
    Flag,
    Items,
    NameField,
    NodeIdField,
    NodeIdsField,
    OpIdField,
    OptionalDigest,
    PartitionBitmap,
    PartitionIndex,
    PathField,
    ReasonField,
    Text,
    Unsigned,
)
from protocol.identity import CHUNK_ID_BYTES, CLUSTER_ID_BYTES, NODE_ID_BYTES, NodeId
from protocol.manifest import Content
from protocol.versions import Dot, Kind, Row, Vector


class LinkKind(IntEnum):
    """What a link carries: probes and rows never stand behind a chunk."""

    CTL = 1
    BULK = 2


class Role(IntEnum):
    """Members are placed and counted; clients only ask."""

    MEMBER = 1
    CLIENT = 2


class Carrier(Enum):
    """On which kind of link a message may travel."""

    EITHER = "either"
    CTL = "ctl"
    BULK = "bulk"


class Message:
    """Base of all messages, for types alone."""

    __slots__ = ()
    TYPE: ClassVar[int]
    CARRIER: ClassVar[Carrier] = Carrier.CTL
    PAYLOAD: ClassVar[bool] = False
    """Whether the frame may carry a payload."""


class Control(Message):
    """A message about the link itself."""

    __slots__ = ()
    CARRIER: ClassVar[Carrier] = Carrier.EITHER


class Answer(Message):
    """What ends a request."""

    __slots__ = ()


class Request(Message):
    """What the peer is asked to do."""

    __slots__ = ()
    ANSWER: ClassVar[type[Answer]]
    deadline_milliseconds: int


# -- control -----------------------------------------------------------------

CLOCK: Final = "clock"
CLOCK_BYTES: Final = 8
CLUSTER: Final = "cluster"


@dataclass(frozen=True, slots=True)
class Hello(Control):
    """First message of each side of a link. Nothing else is sent or accepted before it."""

    TYPE: ClassVar[int] = 1
    version_lowest: U16
    version_highest: U16
    """The highest version that both ranges contain is spoken."""
    features: U64
    """Bit set; none is defined in version 1. Unknown bits are ignored."""
    link: LinkKind
    role: Role
    node_id: NodeIdField
    """Must be what the certificate proves."""
    boot: U32
    """Starts of this node so far; 0 for clients."""
    cluster_id: ClusterIdField
    layout_version: U32
    """0 while the node has no layout."""
    layout_digest: OptionalDigest
    name: NameField
    zone: NameField
    capacity_bytes: U64
    """What the node offers; its weight in a layout follows from it."""
    addresses: AddressesField
    """Where the sender listens, most likely first; empty for clients."""
    optional: Annotated[dict[str, bytes], Entries(limits.OPTIONAL_ENTRIES_MAX, 64, 1024)]
    """`life` and `seen` of members (`protocol.lives`), `cluster`, `former` (`protocol.succession`), `clock` for people, and
    additions of later versions. Unknown keys are ignored: here and nowhere else.
    """

    @property
    def known_cluster(self) -> bytes:
        """The cluster that the sender belongs to, or, while it belongs to none, one of its key that it knows of; empty if it knows none."""
        known = self.optional.get(CLUSTER, b"")
        return self.cluster_id or (known if len(known) == CLUSTER_ID_BYTES else b"")

    @property
    def clock_milliseconds(self) -> int | None:
        """The sender's wall clock when it said hello, since 1970, UTC; None if it does not say. Nothing is ever ordered by it."""
        clock = self.optional.get(CLOCK, b"")
        return int.from_bytes(clock, "big", signed=True) if len(clock) == CLOCK_BYTES else None


def cluster_entry(known_cluster: bytes) -> dict[str, bytes]:
    """Return the entry of `Hello.optional` by which a node that belongs to no cluster says which one it knows of; none if it knows none."""
    return {CLUSTER: known_cluster} if known_cluster else {}


def clock_entry(milliseconds: int) -> dict[str, bytes]:
    """Return the entry of `Hello.optional` that says what the sender's wall clock shows: milliseconds since 1970, UTC."""
    return {CLOCK: milliseconds.to_bytes(CLOCK_BYTES, "big", signed=True)}


@dataclass(frozen=True, slots=True)
class Ping(Control):
    """Asks for a `Pong` with the same nonce."""

    TYPE: ClassVar[int] = 2
    nonce: U32


@dataclass(frozen=True, slots=True)
class Pong(Control):
    """Answers a `Ping`."""

    TYPE: ClassVar[int] = 3
    nonce: U32


@dataclass(frozen=True, slots=True)
class Credit(Control):
    """Gives back payload credit: the sender of this has released that many received payload bytes."""

    TYPE: ClassVar[int] = 4
    payload_bytes: U32


@dataclass(frozen=True, slots=True)
class Cancel(Control):
    """The request with this request id is no longer wanted. It is still answered, once."""

    TYPE: ClassVar[int] = 5


@dataclass(frozen=True, slots=True)
class Close(Control):
    """Last message of its sender on this link."""

    TYPE: ClassVar[int] = 6
    code: CloseCode
    reason: ReasonField


# -- answers of every request ------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failure(Answer):
    """The request was not done, or its outcome is not known; `code` tells."""

    TYPE: ClassVar[int] = 8
    CARRIER: ClassVar[Carrier] = Carrier.EITHER
    code: ErrorCode
    reason: ReasonField
    layout_version: U32
    """The answering node's layout version; what a STALE sender has to catch up to."""


@dataclass(frozen=True, slots=True)
class Done(Answer):
    """It is done, durably where it changes something."""

    TYPE: ClassVar[int] = 9


# -- cluster -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """Somebody that the answering node has met."""

    node_id: NodeIdField
    name: NameField
    addresses: AddressesField


@dataclass(frozen=True, slots=True)
class Peers(Answer):
    """The answering node itself first, then whom it knows."""

    TYPE: ClassVar[int] = 17
    peers: Annotated[tuple[PeerInfo, ...], Items(2 * limits.MEMBERS_MAX)]


@dataclass(frozen=True, slots=True)
class PeersGet(Request):
    """Peer exchange: whom do you know?"""

    TYPE: ClassVar[int] = 16
    ANSWER: ClassVar[type[Answer]] = Peers
    deadline_milliseconds: DeadlineMilliseconds


LayoutBytes = Annotated[bytes, Binary(0, limits.LAYOUT_BYTES_MAX)]
"""A whole encoded layout record; empty when the sender has none that fits the question."""


@dataclass(frozen=True, slots=True)
class LayoutIs(Answer):
    """One layout record."""

    TYPE: ClassVar[int] = 19
    record: LayoutBytes


@dataclass(frozen=True, slots=True)
class LayoutGet(Request):
    """The layout record of `version`; version 0 asks for the latest."""

    TYPE: ClassVar[int] = 18
    ANSWER: ClassVar[type[Answer]] = LayoutIs
    deadline_milliseconds: DeadlineMilliseconds
    version: U32


@dataclass(frozen=True, slots=True)
class LayoutAnnounce(Request):
    """I have persisted this layout version; catch up by `LayoutGet` if it is news."""

    TYPE: ClassVar[int] = 20
    ANSWER: ClassVar[type[Answer]] = Done
    deadline_milliseconds: DeadlineMilliseconds
    cluster_id: ClusterIdField
    version: U32
    digest: Digest


@dataclass(frozen=True, slots=True)
class SyncReport(Request):
    """The sender, an owner in W, has synced these joint partitions under layout `version`."""

    TYPE: ClassVar[int] = 22
    ANSWER: ClassVar[type[Answer]] = Done
    deadline_milliseconds: DeadlineMilliseconds
    version: U32
    partitions: PartitionBitmap


class MemberState(IntEnum):
    """What is held of a member. Of two claims about one incarnation the one with the higher number stands."""

    ALIVE = 1
    DRAINING = 2
    """Alive, and about to leave."""
    SUSPECT = 3
    REFUSED = 4
    """In claims only: suspect, and its port refuses whoever dials it."""
    DEAD = 5
    LEFT = 6


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """How the answering node sees another one."""

    node_id: NodeIdField
    state: MemberState
    """DEAD as well for a member that it has never heard of."""
    away_seconds: U32
    """For how long the answering node has held it dead, at most since it started; 0 when it is there."""


@dataclass(frozen=True, slots=True)
class Status(Answer):
    """The answering node on itself and its view."""

    TYPE: ClassVar[int] = 25
    node_id: NodeIdField
    name: NameField
    cluster_id: ClusterIdField
    layout_version: U32
    uptime_seconds: U64
    chunks: U64
    chunk_bytes: U64
    rows: U64
    capacity_bytes: U64
    free_bytes: U64
    corrupt_chunks: U64
    """Copies that failed their checksum and were set aside since the node started."""
    owed_chunks: U64
    """Chunks of which the node last found fewer than R copies, each counted by the lowest id among the homes that hold it, or that answer
    if none does, and by whoever holds it if no home answers.
    """
    unsynced_partitions: U32
    """Partitions that this node is a replica of and has not synced yet."""
    lost_partitions: U32
    """Those of them on which it does not vote, since it has lost its rows."""
    evict_seconds: U32
    """For so long a member has to be held dead until this node wants it left out."""
    peers: Annotated[tuple[PeerStatus, ...], Items(2 * limits.MEMBERS_MAX)]
    """All members of its layout but itself, then the others that it knows and that are there, each in order of id."""
    notices: Annotated[tuple[ReasonField, ...], Items(16)]
    """What a person should know: another cluster of the same key was met, the node waits for a cluster, ..."""
    missing_chunks: U64 = 0
    """Chunks that the node, a home of theirs, last found at others and has yet to fetch."""
    surplus_chunks: U64 = 0
    """Chunks that it holds and is no home of: each is given up once all homes have it."""
    is_rebalance_paused: Flag = False


@dataclass(frozen=True, slots=True)
class StatusGet(Request):
    """How are you?"""

    TYPE: ClassVar[int] = 24
    ANSWER: ClassVar[type[Answer]] = Status
    deadline_milliseconds: DeadlineMilliseconds


@dataclass(frozen=True, slots=True)
class Leaving(Answer):
    """How far the answering node is with leaving."""

    TYPE: ClassVar[int] = 27
    partitions: U32
    """Partitions that it is a replica of, in either set, in its layout."""
    chunks: U64
    """Chunks that it still holds."""
    chunk_bytes: U64
    has_left: Flag
    """It holds nothing that anybody needs, has noted durably that it has left, and is about to stop."""
    waits_for: ReasonField
    """What keeps it from going on; empty when nothing does."""


@dataclass(frozen=True, slots=True)
class Leave(Request):
    """Leave the cluster, for good. Durable when answered. Asked again, it tells how far that is, and does nothing more.

    Refused with UNAVAILABLE, and a reason, while the others could not go on without the node.
    """

    TYPE: ClassVar[int] = 26
    ANSWER: ClassVar[type[Answer]] = Leaving
    deadline_milliseconds: DeadlineMilliseconds


@dataclass(frozen=True, slots=True)
class Forget(Request):
    """Leave a member that is dead out of the layout as soon as that is decided, however short it has been dead.

    Passed on to a voter by a node that has no vote. The wish is kept in the voter's memory: who wants to be sure repeats it until a layout
    does not name the member any more. Refused with INVALID while the member is there, with UNAVAILABLE while it cannot be decided or the
    others could not go on.
    """

    TYPE: ClassVar[int] = 28
    ANSWER: ClassVar[type[Answer]] = Done
    deadline_milliseconds: DeadlineMilliseconds
    node_id: NodeIdField


@dataclass(frozen=True, slots=True)
class Forced(Answer):
    """What it costs, in partitions of the layout in force, to go on by force without some members."""

    TYPE: ClassVar[int] = 31
    short: U32
    """Partitions with fewer owners left than a majority: what was written to them last may be missing."""
    lost: U32
    """Those of them with no owner left: their rows are lost."""
    homeless: U32
    """Partitions with no home left: chunks that lay at their homes alone are lost, and the files that they belong to."""


@dataclass(frozen=True, slots=True)
class Force(Request):
    """Go on without the members `gone`, who are gone for good, as another cluster; unless `begin`, only tell what that costs.

    Begun, not done, when answered: the links of the node end when it is done. Who is named and no member is done with. Refused with INVALID
    while one of `gone` is there, or while those who are there can go on as the cluster that they are (`Forget`); with UNAVAILABLE while the
    others could not go on either, or one of them does not answer.
    """

    TYPE: ClassVar[int] = 30
    ANSWER: ClassVar[type[Answer]] = Forced
    deadline_milliseconds: DeadlineMilliseconds
    gone: NodeIdsField
    begin: Flag


# -- agreement on the layout -------------------------------------------------


class Ballot(NamedTuple):
    """One attempt at having a layout version agreed on. The higher round wins, of equal ones the higher id."""

    round: U64
    """From 1; in a ballot that stands for none 0, with an id of zeros."""
    node_id: NodeIdField


NO_BALLOT: Final = Ballot(0, NodeId(bytes(NODE_ID_BYTES)))


class Verdict(IntEnum):
    """What a voter says to a ballot."""

    GRANTED = 1
    OUTBID = 2
    DECIDED = 3
    BEHIND = 4


@dataclass(frozen=True, slots=True)
class LayoutVote(Answer):
    """A voter's answer; whatever it promises is durable.

    GRANTED: it is done. OUTBID: a ballot that is not lower was promised before. DECIDED: that version is in force here.
    BEHIND: the version before is not in force here yet; the voter goes to fetch it.
    """

    TYPE: ClassVar[int] = 65
    verdict: Verdict
    layout_version: U32
    """What the voter has in force."""
    ballot: Ballot
    """GRANTED to a `LayoutPrepare`: that of the record it has accepted. OUTBID: the one that it has promised. Else none."""
    record: LayoutBytes
    """GRANTED to a `LayoutPrepare`: what it has accepted, if anything. DECIDED: the record of the asked version. Else empty."""


@dataclass(frozen=True, slots=True)
class LayoutPrepare(Request):
    """Promise to accept nothing for layout `version` under a lower ballot, and tell what you have accepted."""

    TYPE: ClassVar[int] = 64
    ANSWER: ClassVar[type[Answer]] = LayoutVote
    deadline_milliseconds: DeadlineMilliseconds
    version: U32
    ballot: Ballot


@dataclass(frozen=True, slots=True)
class LayoutAccept(Request):
    """Accept `record` for layout `version`."""

    TYPE: ClassVar[int] = 66
    ANSWER: ClassVar[type[Answer]] = LayoutVote
    deadline_milliseconds: DeadlineMilliseconds
    version: U32
    ballot: Ballot
    record: LayoutBytes


@dataclass(frozen=True, slots=True)
class Renew(Request):
    """The sender has forgotten how it voted on these partitions under stamps up to `version`: they are to have new ones.

    To voters, who keep it in memory: repeated until a layout has them.
    """

    TYPE: ClassVar[int] = 68
    ANSWER: ClassVar[type[Answer]] = Done
    deadline_milliseconds: DeadlineMilliseconds
    version: U32
    partitions: PartitionBitmap


# -- namespace ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Published(Answer):
    """The version stands, durably, on a majority of each set and on `copies` machines."""

    TYPE: ClassVar[int] = 33
    dot: Dot
    copies: U8


@dataclass(frozen=True, slots=True)
class RowPublish(Request):
    """Write one version of `path`; the asked replica coordinates.

    `op_id` and `context` were fixed when the write began and are the same in every retry.
    """

    TYPE: ClassVar[int] = 32
    ANSWER: ClassVar[type[Answer]] = Published
    deadline_milliseconds: DeadlineMilliseconds
    partition: PartitionIndex
    stamp: U32
    op_id: OpIdField
    path: PathField
    context: Vector
    kind: Kind
    size: U64
    mode: U32
    modified_milliseconds: U64
    writer: NameField
    content: Content
    holders: NodeIdsField
    """Every node that was counted as a holder of a chunk; one that is no member makes the replica refuse."""


@dataclass(frozen=True, slots=True)
class RowMerge(Request):
    """Merge these whole rows, all of one partition, into what you have; done when durable."""

    TYPE: ClassVar[int] = 34
    ANSWER: ClassVar[type[Answer]] = Done
    deadline_milliseconds: DeadlineMilliseconds
    partition: PartitionIndex
    stamp: U32
    rows: Annotated[tuple[Row, ...], Items(limits.ROWS_PER_MESSAGE_MAX)]


@dataclass(frozen=True, slots=True)
class RowIs(Answer):
    """One replica's row: one vote of a quorum."""

    TYPE: ClassVar[int] = 37
    digest: OptionalDigest
    """Empty when this replica has no row of that path."""
    rows: Annotated[tuple[Row, ...], Items(1)]
    """The row, if it exists and was asked for in full."""
    confirmed: Flag
    """There is one other replica, and it is known to have stored just this: this vote is enough where the other one cannot be asked."""


@dataclass(frozen=True, slots=True)
class RowFetch(Request):
    """This replica's row of `path`, in full or only its digest."""

    TYPE: ClassVar[int] = 36
    ANSWER: ClassVar[type[Answer]] = RowIs
    deadline_milliseconds: DeadlineMilliseconds
    partition: PartitionIndex
    stamp: U32
    path: PathField
    full: Flag


NameBound = Annotated[str, Text(limits.COMPONENT_BYTES_MAX)]
"""The name of an entry of a folder; empty for no bound. Names are ordered by their UTF-8 bytes."""


@dataclass(frozen=True, slots=True)
class ListPage(Answer):
    """One replica's rows of a range of a folder."""

    TYPE: ClassVar[int] = 39
    digest: Digest
    """Over the digests of all rows of the range, in order (`protocol.rows.range_digest`)."""
    last: NameBound
    """Where the range that was looked at ends, inclusive; empty when it reaches the end of the folder."""
    rows: Annotated[tuple[Row, ...], Items(limits.ROWS_PER_MESSAGE_MAX)]
    """The rows, if they were asked for in full."""
    confirmed: Flag
    """As in `RowIs`, of the whole range."""


@dataclass(frozen=True, slots=True)
class ListFetch(Request):
    """This replica's rows of `folder` with `after` < name <= `until`, in order of name.

    In full: as many as fit one page. As digest only: the whole range, which therefore has an `until` or reaches the end.
    """

    TYPE: ClassVar[int] = 38
    ANSWER: ClassVar[type[Answer]] = ListPage
    deadline_milliseconds: DeadlineMilliseconds
    partition: PartitionIndex
    stamp: U32
    folder: PathField
    after: NameBound
    until: NameBound
    full: Flag


@dataclass(frozen=True, slots=True)
class PulledRows(Answer):
    """A page of a sync."""

    TYPE: ClassVar[int] = 41
    rows: Annotated[tuple[Row, ...], Items(limits.ROWS_PER_MESSAGE_MAX)]
    more: Flag
    """Whether to ask again from behind the last of `rows`."""


@dataclass(frozen=True, slots=True)
class PartitionPull(Request):
    """All rows of these partitions, in order of (partition, path), from behind the cursor on.

    Answered only when the source's own `cfg[p]` is `stamp` for each of them: then it is fenced (rule F).
    """

    TYPE: ClassVar[int] = 40
    ANSWER: ClassVar[type[Answer]] = PulledRows
    deadline_milliseconds: DeadlineMilliseconds
    stamp: U32
    partitions: PartitionBitmap
    after_partition: PartitionIndex
    after_path: PathField
    """Empty at the beginning, where `after_partition` is 0; else a path of that partition."""


# -- chunks ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChunkStored(Answer):
    """The chunk is durable on `holders`, each after file sync, rename and directory sync."""

    TYPE: ClassVar[int] = 49
    CARRIER: ClassVar[Carrier] = Carrier.BULK
    holders: NodeIdsField


@dataclass(frozen=True, slots=True)
class ChunkPut(Request):
    """Store the payload under `chunk_id`; with `forward`, see to it that all homes, or fallbacks for them, have it too.

    With `forward` the answer comes when the wanted number of copies is durable, or when every
    member that could have taken one was tried and refused or missed its deadline.
    """

    TYPE: ClassVar[int] = 48
    ANSWER: ClassVar[type[Answer]] = ChunkStored
    CARRIER: ClassVar[Carrier] = Carrier.BULK
    PAYLOAD: ClassVar[bool] = True
    deadline_milliseconds: DeadlineMilliseconds
    chunk_id: ChunkIdField
    forward: Flag


@dataclass(frozen=True, slots=True)
class ChunkData(Answer):
    """The payload is the chunk."""

    TYPE: ClassVar[int] = 51
    CARRIER: ClassVar[Carrier] = Carrier.BULK
    PAYLOAD: ClassVar[bool] = True


class Purpose(IntEnum):
    """What a chunk is fetched for. What is not read for somebody is bounded by the holder, too."""

    READ = 1
    TOP_UP = 2
    """There are fewer copies than wanted, or one lies at a node that is no member."""
    REBALANCE = 3
    """There are copies enough, and one belongs elsewhere."""


@dataclass(frozen=True, slots=True)
class ChunkGet(Request):
    """The bytes of a chunk, verified by the holder and again by the reader."""

    TYPE: ClassVar[int] = 50
    ANSWER: ClassVar[type[Answer]] = ChunkData
    CARRIER: ClassVar[Carrier] = Carrier.BULK
    deadline_milliseconds: DeadlineMilliseconds
    chunk_id: ChunkIdField
    purpose: Purpose = Purpose.READ


@dataclass(frozen=True, slots=True)
class ChunksHeld(Answer):
    """Which of the asked chunks this node holds durably."""

    TYPE: ClassVar[int] = 53
    layout_version: U32
    """A confirmation counts for dropping a copy only under this version."""
    held: Annotated[bytes, Binary(0, limits.CHUNKS_PER_REQUEST_MAX // 8)]
    """Bit `i % 8` (least significant first) of byte `i // 8` stands for chunk i of the request."""


@dataclass(frozen=True, slots=True)
class ChunksHave(Request):
    """Which of these chunks do you hold?"""

    TYPE: ClassVar[int] = 52
    ANSWER: ClassVar[type[Answer]] = ChunksHeld
    deadline_milliseconds: DeadlineMilliseconds
    chunk_ids: ChunkIdsField


# -- reconciliation ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DigestsAre(Answer):
    """The digests of those of the asked partitions that can be compared: of rows, that the answering node has synced; of chunks, of which
    it holds any.
    """

    TYPE: ClassVar[int] = 97
    partitions: PartitionBitmap
    """Which of the asked partitions are compared; when the digest over all of them is the asked one, all of those."""
    digests: Annotated[tuple[Digest, ...], Items(limits.PARTITIONS)]
    """One for each of `partitions`, ascending; none when the digest over all of them is the asked one."""


@dataclass(frozen=True, slots=True)
class DigestsGet(Request):
    """Do we have the same rows? A digest over all partitions that the sender has synced and both are replicas of.

    Answered only when both have the same layout version, hence the same stamp for each of the partitions; else by STALE.
    """

    TYPE: ClassVar[int] = 96
    ANSWER: ClassVar[type[Answer]] = DigestsAre
    deadline_milliseconds: DeadlineMilliseconds
    layout_version: U32
    partitions: PartitionBitmap
    digest: Digest
    """Sum of the digests of all of `partitions` (`protocol.digest`)."""


@dataclass(frozen=True, slots=True)
class BucketsAre(Answer):
    """The digests of the buckets of a partition."""

    TYPE: ClassVar[int] = 99
    digests: Annotated[tuple[Digest, ...], Items(limits.DIGEST_BUCKETS)]
    """One for each bucket, ascending; those that are left out at the end have no rows."""


@dataclass(frozen=True, slots=True)
class BucketsGet(Request):
    """The digests of the buckets of one partition."""

    TYPE: ClassVar[int] = 98
    ANSWER: ClassVar[type[Answer]] = BucketsAre
    deadline_milliseconds: DeadlineMilliseconds
    partition: PartitionIndex
    stamp: U32


BucketBitmap = Annotated[bytes, Binary(limits.DIGEST_BUCKETS // 8, limits.DIGEST_BUCKETS // 8)]
"""A set of buckets: bit `b % 8` (least significant first) of byte `b // 8` stands for bucket b."""
RowMark = Annotated[bytes, Binary(32, 32)]
"""Path hash (16 bytes) and row digest of one row."""


@dataclass(frozen=True, slots=True)
class RowsDiffer(Answer):
    """What the answering node has otherwise, in the range that it looked at."""

    TYPE: ClassVar[int] = 101
    rows: Annotated[tuple[Row, ...], Items(limits.ROWS_PER_MESSAGE_MAX)]
    """Rows that the sender lacks or has otherwise, in the order of the range."""
    wanted: Annotated[bytes, Binary(0, limits.MARKS_MAX // 8)]
    """Bit `i % 8` (least significant first) of byte `i // 8`: the answering node lacks row i of the request, or has it otherwise.
    Says nothing of rows behind `last`."""
    last: PathField
    """Where the range that was looked at ends, inclusive; the `until` of the request when all of it was."""


@dataclass(frozen=True, slots=True)
class RowsCompare(Request):
    """All rows that the sender has in these buckets of a partition, from behind path `after` to path `until`, by their marks.

    Paths are in the order of (folder, name). A row that fails its checksum, at either side, is in no list and is not wanted.
    """

    TYPE: ClassVar[int] = 100
    ANSWER: ClassVar[type[Answer]] = RowsDiffer
    deadline_milliseconds: DeadlineMilliseconds
    partition: PartitionIndex
    stamp: U32
    buckets: BucketBitmap
    after: PathField
    """Empty at the beginning of the partition."""
    until: PathField
    """Empty: to the end of the partition."""
    rows: Annotated[tuple[RowMark, ...], Items(limits.MARKS_MAX)]


@dataclass(frozen=True, slots=True)
class ChunkDigestsGet(Request):
    """Do you hold what I expect of these partitions, and nothing else? The sender is a home of each of them."""

    TYPE: ClassVar[int] = 102
    ANSWER: ClassVar[type[Answer]] = DigestsAre
    deadline_milliseconds: DeadlineMilliseconds
    partitions: PartitionBitmap
    digest: Digest
    """Sum of the digests of the chunks that the sender holds in those of `partitions` of which both are homes."""


class ListedChunk(NamedTuple):
    """One chunk that the answering node holds."""

    chunk_id: ChunkIdField
    size: U32
    """Bytes."""


@dataclass(frozen=True, slots=True)
class ChunksListed(Answer):
    """A page of chunks, in order of id. One that has fewer than CHUNKS_LISTED_MAX is the last."""

    TYPE: ClassVar[int] = 105
    chunks: Annotated[tuple[ListedChunk, ...], Items(limits.CHUNKS_LISTED_MAX)]


@dataclass(frozen=True, slots=True)
class ChunksList(Request):
    """Which chunks of this partition do you hold, home or not?"""

    TYPE: ClassVar[int] = 104
    ANSWER: ClassVar[type[Answer]] = ChunksListed
    deadline_milliseconds: DeadlineMilliseconds
    partition: PartitionIndex
    after: Annotated[bytes, Binary(CHUNK_ID_BYTES, CHUNK_ID_BYTES, or_empty=True)]
    """Only those behind this id; empty at the beginning."""


@dataclass(frozen=True, slots=True)
class RebalanceSet(Request):
    """Stop moving copies of which there are enough, either way, or go on with it. Durable when answered."""

    TYPE: ClassVar[int] = 106
    ANSWER: ClassVar[type[Answer]] = Done
    deadline_milliseconds: DeadlineMilliseconds
    paused: Flag


# -- membership --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MemberClaim:
    """What is claimed of one member. Only the member itself claims ALIVE, DRAINING and LEFT, each time with a higher incarnation."""

    node_id: NodeIdField
    state: MemberState
    incarnation: Annotated[int, Unsigned(52)]
    """`boot << 20 | refutations` of the member."""
    accuser: Annotated[NodeId, Binary(NODE_ID_BYTES, NODE_ID_BYTES, or_empty=True)]
    """Who saw that the member does not answer, or refuses; empty but for SUSPECT and REFUSED."""
    age_seconds: U32
    """Of DEAD and LEFT: for how long the sender has known it, rounded up. 0 for all else."""


MemberClaims = Annotated[tuple[MemberClaim, ...], Items(limits.CLAIMS_PER_MESSAGE_MAX)]
"""News to pass on; what the sender holds against the receiver comes first."""


@dataclass(frozen=True, slots=True)
class ProbeAck(Answer):
    """Here I am; or whether the target of a `ProbeIndirect` is there. Where a claim of the request is outdated, it names what stands."""

    TYPE: ClassVar[int] = 81
    reached: Flag
    """False only in the answer to a `ProbeIndirect`: the target was silent, but the answering node is well."""
    claims: MemberClaims
    commits: U64 = 0
    """In an answer to a `Probe`: the commits of the answering node's life by now (`protocol.lives`); else 0."""


@dataclass(frozen=True, slots=True)
class Probe(Request):
    """Are you there? And here are news: gossip is a probe that nobody waits for."""

    TYPE: ClassVar[int] = 80
    ANSWER: ClassVar[type[Answer]] = ProbeAck
    deadline_milliseconds: DeadlineMilliseconds
    claims: MemberClaims
    commits: U64 = 0
    """Of the sender's life by now (`protocol.lives`)."""


@dataclass(frozen=True, slots=True)
class ProbeIndirect(Request):
    """Is `target` there? Answered once it has answered, or when four fifths of the deadline have passed."""

    TYPE: ClassVar[int] = 82
    ANSWER: ClassVar[type[Answer]] = ProbeAck
    deadline_milliseconds: DeadlineMilliseconds
    target: NodeIdField
    claims: MemberClaims


@dataclass(frozen=True, slots=True)
class Members(Answer):
    """All that the answering node holds of all members, itself included; nothing when the digests are equal."""

    TYPE: ClassVar[int] = 85
    claims: Annotated[tuple[MemberClaim, ...], Items(limits.MEMBERS_KNOWN_MAX)]


@dataclass(frozen=True, slots=True)
class MembersGet(Request):
    """Whom do you know? I hold members of this digest (`protocol.members.member_hash`)."""

    TYPE: ClassVar[int] = 84
    ANSWER: ClassVar[type[Answer]] = Members
    deadline_milliseconds: DeadlineMilliseconds
    digest: Digest


MESSAGES: tuple[type[Message], ...] = (
    Hello, Ping, Pong, Credit, Cancel, Close, Failure, Done,
    PeersGet, Peers, LayoutGet, LayoutIs, LayoutAnnounce, SyncReport, StatusGet, Status, Leave, Leaving, Forget,
    Force, Forced,
    RowPublish, Published, RowMerge, RowFetch, RowIs, ListFetch, ListPage, PartitionPull, PulledRows,
    ChunkPut, ChunkStored, ChunkGet, ChunkData, ChunksHave, ChunksHeld,
    LayoutPrepare, LayoutVote, LayoutAccept, Renew, Probe, ProbeAck, ProbeIndirect, MembersGet, Members,
    DigestsGet, DigestsAre, BucketsGet, BucketsAre, RowsCompare, RowsDiffer,
    ChunkDigestsGet, ChunksList, ChunksListed, RebalanceSet,
)  # fmt: skip
"""Every message type."""

BY_TYPE: dict[int, type[Message]] = {message.TYPE: message for message in MESSAGES}
