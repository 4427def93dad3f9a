"""The reference vectors in tests/data/wire are what the code does, and what every other implementation has to do.

`python tests/protocol/test_vectors.py --write` makes them anew, which is right only when the protocol was changed on purpose.
"""

import dataclasses
import hashlib
import json
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from peer.real.certificates import Credentials, proven_node_id
from peer.real.keys import ClusterKey, parse_key
from protocol.codec import decode, decode_header, encode, encode_header
from protocol.connection import AnswerArrived, Closed, Connection, Event, PayloadBudget, RequestArrived
from protocol.digest import NOTHING, PartitionDigest, bucket_of, digest_of_total, pack_buckets, path_hash
from protocol.errors import CloseCode, ErrorCode, RemoteProtocolError
from protocol.framing import FrameReader, frame_parts
from protocol.identity import ChunkId, ClusterId, NodeId, OpId, node_id_of
from protocol.layout import Former, Layout, LayoutRecord, Member, complete, follows, forced, genesis, goes_on_from, pack_partitions, propose
from protocol.limits import PARTITIONS
from protocol.manifest import (
    NO_CONTENT,
    ChunkTag,
    Content,
    chunk_id_of,
    chunk_matches,
    chunk_partition,
    content_fault,
    inline_content,
    pack_manifest,
    unpack_manifest,
)
from protocol.messages import (
    MESSAGES,
    Answer,
    Ballot,
    BucketsAre,
    BucketsGet,
    Cancel,
    Carrier,
    ChunkData,
    ChunkDigestsGet,
    ChunkGet,
    ChunkPut,
    ChunksHave,
    ChunksHeld,
    ChunksList,
    ChunksListed,
    ChunkStored,
    Close,
    Control,
    Credit,
    DigestsAre,
    DigestsGet,
    Done,
    Failure,
    Force,
    Forced,
    Forget,
    Hello,
    LayoutAccept,
    LayoutAnnounce,
    LayoutGet,
    LayoutIs,
    LayoutPrepare,
    LayoutVote,
    Leave,
    Leaving,
    LinkKind,
    ListedChunk,
    ListFetch,
    ListPage,
    MemberClaim,
    Members,
    MembersGet,
    MemberState,
    Message,
    PartitionPull,
    PeerInfo,
    Peers,
    PeersGet,
    PeerStatus,
    Ping,
    Pong,
    Probe,
    ProbeAck,
    ProbeIndirect,
    Published,
    PulledRows,
    Purpose,
    RebalanceSet,
    Renew,
    Request,
    Role,
    RowFetch,
    RowIs,
    RowMerge,
    RowPublish,
    RowsCompare,
    RowsDiffer,
    Status,
    StatusGet,
    SyncReport,
    Verdict,
)
from protocol.paths import folder_partition, is_canonical, row_partition
from protocol.rows import range_digest, row_digest
from protocol.versions import Dot, Kind, Operation, Row, Vector, Version, context_of, empty_row, merge, published, winner

FOLDER = Path(__file__).parents[1] / "data" / "wire"

A, B, C = (NodeId(bytes([number]) * 16) for number in (0xA1, 0xB2, 0xC3))
CLUSTER = ClusterId(bytes(range(16)))
OTHER_CLUSTER = ClusterId(bytes(range(32, 48)))
DIGEST = bytes(range(0x10, 0x20))
CHUNK = chunk_id_of(ChunkTag.DATA, b"a chunk\n")
PATH = "/films/été.mp4"
NOW = 1_700_000_000_000


def op(number: int) -> OpId:
    return OpId(bytes([number]) * 16)


def version(
    actor: NodeId, counter: int, operation: int, context: Vector = (), *, kind: Kind = Kind.FILE, text: bytes = b"one", tick: int = 0
) -> Version:
    content, size = (inline_content(text), len(text)) if kind is Kind.FILE else (NO_CONTENT, 0)
    return Version(Dot(actor, counter), context, NOW << 16 | tick, op(operation), kind, size, 0o644, NOW, "ada", content)


def row_of(*versions: Version) -> Row:
    row = empty_row(PATH)
    for each in versions:
        row = published(row, each)
    return row


ROW = row_of(version(A, 7, 1))
CHUNKED = Content(1, 262_144, 0, (CHUNK, CHUNK), b"")
PARTITION = row_partition(PATH)
NEIGHBOUR = replace(ROW, path="/films/second.mp4")
BUCKETS = (NOTHING,) * bucket_of(path_hash(PATH)) + (row_digest(ROW),)


# -- one message of each type ------------------------------------------------

EXAMPLES: tuple[Message, ...] = (
    Hello(
        1, 1, 0, LinkKind.CTL, Role.MEMBER, A, 3, CLUSTER, 5, DIGEST, "ada", "attic", 1 << 40, ("192.0.2.1:7400", "[2001:db8::1]:7400"),
        {"later": b"\x01"},
    ),
    Ping(7),
    Pong(7),
    Credit(1_048_576),
    Cancel(),
    Close(CloseCode.NORMAL, "stopping"),
    Failure(ErrorCode.STALE, "stamp 4 is not 5", 6),
    Done(),
    PeersGet(5000),
    Peers((PeerInfo(A, "ada", ("192.0.2.1:7400",)), PeerInfo(B, "ben", ()))),
    LayoutGet(5000, 0),
    LayoutIs(b""),
    LayoutAnnounce(5000, CLUSTER, 6, DIGEST),
    SyncReport(10_000, 6, pack_partitions([0, 9, 4095])),
    StatusGet(2000),
    Status(
        A, "ada", CLUSTER, 6, 3600, 12, 1 << 20, 4, 1 << 40, 1 << 39, 0, 1, 4, 3, 600, (PeerStatus(B, MemberState.DEAD, 40),), ("hello",),
        5, 6, True,
    ),
    Leave(5000),
    Leaving(4096, 12, 3_145_728, False, "what this node holds has to be confirmed by ben as well: away"),
    Forget(5000, B),
    Force(5000, (B, C), False),
    Forced(4096, 12, 410),
    RowPublish(6000, PARTITION, 5, op(1), PATH, (Dot(B, 2),), Kind.FILE, 300_000, 0o644, NOW, "ada", CHUNKED, (A, B, C)),
    Published(Dot(A, 7), 3),
    RowMerge(2000, PARTITION, 5, (ROW,)),
    RowFetch(2000, PARTITION, 5, PATH, True),
    RowIs(row_digest(ROW), (ROW,), False),
    ListFetch(2000, folder_partition("/films"), 5, "/films", "", "z", False),
    ListPage(range_digest([row_digest(ROW)]), "z", (), True),
    PartitionPull(10_000, 5, pack_partitions([PARTITION]), 0, ""),
    PulledRows((ROW,), False),
    ChunkPut(12_000, CHUNK, True),
    ChunkStored((A, B, C)),
    ChunkGet(10_000, CHUNK, Purpose.TOP_UP),
    ChunkData(),
    ChunksHave(2000, (CHUNK, chunk_id_of(ChunkTag.MANIFEST, CHUNK))),
    ChunksHeld(6, b"\x01"),
    LayoutPrepare(2000, 7, Ballot(2, B)),
    LayoutVote(Verdict.OUTBID, 6, Ballot(3, A), b""),
    LayoutAccept(2000, 7, Ballot(4, B), b"a record"),
    Renew(2000, 6, pack_partitions([0, 9, 4095])),
    Probe(1000, (MemberClaim(B, MemberState.SUSPECT, 3 << 20 | 1, A, 0),)),
    ProbeAck(True, (MemberClaim(B, MemberState.ALIVE, 3 << 20 | 2, NodeId(b""), 0),)),
    ProbeIndirect(500, C, ()),
    MembersGet(2000, DIGEST),
    Members((MemberClaim(B, MemberState.DRAINING, 3 << 20, NodeId(b""), 0), MemberClaim(C, MemberState.DEAD, 1 << 20, NodeId(b""), 90))),
    DigestsGet(2000, 6, pack_partitions([PARTITION, 9]), row_digest(ROW)),
    DigestsAre(pack_partitions([PARTITION]), (row_digest(ROW),)),
    BucketsGet(2000, PARTITION, 5),
    BucketsAre(BUCKETS),
    RowsCompare(2000, PARTITION, 5, pack_buckets([bucket_of(path_hash(PATH))]), "", PATH, (path_hash(PATH) + DIGEST,)),
    RowsDiffer((ROW,), b"\x01", PATH),
    ChunkDigestsGet(2000, pack_partitions([chunk_partition(CHUNK), 9]), CHUNK[-16:]),
    ChunksList(2000, chunk_partition(CHUNK), b""),
    ChunksListed((ListedChunk(CHUNK, 8),)),
    RebalanceSet(5000, True),
)  # fmt: skip


def header(message: Message, request_id: int) -> str:
    return encode_header(message, request_id).hex()


HELLO, PUBLISH, PULL, COMPARE = (
    next(each for each in EXAMPLES if isinstance(each, kind)) for kind in (Hello, RowPublish, PartitionPull, RowsCompare)
)
TWO_KEYS = replace(HELLO, optional={"a": b"", "b": b""})
REFUSED: tuple[tuple[str, str], ...] = (
    ("a Ping whose nonce is not in its shortest form", "930200cd0007"),
    ("a Ping whose type is not in its shortest form", "93cc020007"),
    ("a Ping with a field too many", "9402000700"),
    ("a Ping with a field too few", "920200"),
    ("a Ping with a negative nonce", "930200ff"),
    ("a Ping with a float for a nonce", "930200cb401c000000000000"),
    ("a Ping with a request id", "93020107"),
    ("a PeersGet without a request id", "931000cd1388"),
    ("a PeersGet with a deadline beyond the limit", "931001ce000927c1"),
    ("a type that does not exist", "92ccc800"),
    ("a byte behind the header", "9302000700"),
    ("a Ping with nil for a nonce", "930200c0"),
    ("a Ping with a timestamp for a nonce", "930200d6ff00000007"),
    ("a Close with a code that is not listed", "94060063a0"),
    ("a Close with binary for a reason", "94060000c400"),
    ("a Close with a reason that is no UTF-8", "94060000a1ff"),
    ("a Close with a reason of 513 bytes in 512 letters", header(Close(CloseCode.NORMAL, "é" + 511 * "x"), 0)),
    ("a ChunkPut with 1 for a flag", header(ChunkPut(12_000, CHUNK, True), 9)[:-2] + "01"),
    ("a ChunkGet with an id of 32 bytes", header(ChunkGet(10_000, ChunkId(CHUNK[:-1])), 9)),
    ("a Hello with 17 addresses", header(replace(HELLO, addresses=17 * ("[::1]:7400",)), 0)),
    ("a LayoutAnnounce with a cluster id of 15 bytes", header(LayoutAnnounce(5000, ClusterId(CLUSTER[:-1]), 6, DIGEST), 9)),
    ("a Hello whose map has its keys out of order", header(TWO_KEYS, 0)[:-16] + "a162c400a161c400"),
    ("a Hello whose map has a key twice", header(TWO_KEYS, 0)[:-8] + "a161c400"),
    ("a RowPublish of another partition", header(replace(PUBLISH, partition=PARTITION ^ 1), 9)),
    ("a RowPublish of a path that is not canonical", header(replace(PUBLISH, path=PATH + "/"), 9)),
    ("a RowPublish with a context out of order", header(replace(PUBLISH, context=(Dot(B, 2), Dot(A, 1))), 9)),
    ("a RowPublish with a zero in its context", header(replace(PUBLISH, context=(Dot(B, 0),)), 9)),
    ("a RowPublish of a folder with a size", header(replace(PUBLISH, kind=Kind.DIRECTORY, content=NO_CONTENT), 9)),
    ("a RowPublish with content of another size", header(replace(PUBLISH, size=600_000), 9)),
    ("a RowMerge with a row of another partition", header(RowMerge(2000, PARTITION ^ 1, 5, (ROW,)), 9)),
    ("a ListFetch of a folder that ends with a slash", header(ListFetch(2000, PARTITION, 5, "/films/", "", "", True), 9)),
    ("a PartitionPull behind a partition, without a path", header(replace(PULL, after_partition=PARTITION), 9)),
    ("a RowsCompare up to a path of another partition", header(replace(COMPARE, partition=PARTITION ^ 1), 9)),
    ("a RowsCompare with a mark of 31 bytes", header(replace(COMPARE, rows=(bytes(31),)), 9)),
    ("a PartitionPull behind a path of another partition", header(replace(PULL, after_partition=PARTITION ^ 1, after_path=PATH), 9)),
    ("a Probe with 65 claims", header(Probe(1000, 65 * (MemberClaim(B, MemberState.ALIVE, 3 << 20, NodeId(b""), 0),)), 9)),
)


def frame(message: Message, request_id: int, payload: bytes = b"") -> bytes:
    return b"".join(bytes(part) for part in frame_parts(encode_header(message, request_id), payload, LinkKind.BULK))


def prefix(header_bytes: int, payload_bytes: int) -> bytes:
    return struct.pack(">BBIBI", 0x94, 0xCE, header_bytes, 0xCE, payload_bytes)


_PING = encode_header(Ping(7), 0)
_PUT = encode_header(ChunkPut(12_000, CHUNK, True), 9)
FRAMES_REFUSED: tuple[tuple[str, LinkKind, bytes, CloseCode], ...] = (
    ("another language", LinkKind.CTL, b"GET / HTTP/1.1\r\n", CloseCode.PROTOCOL_ERROR),
    ("an array of three", LinkKind.CTL, b"\x93" + prefix(4, 0)[1:] + _PING + b"\xc0", CloseCode.PROTOCOL_ERROR),
    ("lengths in their shortest form", LinkKind.CTL, b"\x94\x03\x00" + _PING + b"\xc0" + bytes(8), CloseCode.PROTOCOL_ERROR),
    ("a ctl frame of 512 KiB and a byte, by its prefix alone", LinkKind.CTL, prefix(512 * 1024 - 15, 0), CloseCode.FRAME_TOO_LARGE),
    ("a payload on ctl, by its prefix alone", LinkKind.CTL, prefix(len(_PUT), 1), CloseCode.FRAME_TOO_LARGE),
    ("a bulk header of 4097 bytes, by its prefix alone", LinkKind.BULK, prefix(4097, 0), CloseCode.FRAME_TOO_LARGE),
    ("a bulk frame of 8 MiB and a byte, by its prefix alone", LinkKind.BULK, prefix(100, 8 * 1024 * 1024 - 115), CloseCode.FRAME_TOO_LARGE),
    ("an empty payload that is not nil", LinkKind.BULK, prefix(len(_PING), 0) + _PING + b"\xc4\x00", CloseCode.PROTOCOL_ERROR),
    ("nil where a payload should be", LinkKind.BULK, prefix(len(_PUT), 8) + _PUT + b"\xc0" + bytes(12), CloseCode.PROTOCOL_ERROR),
    (
        "a payload of another length than the prefix says",
        LinkKind.BULK,
        prefix(len(_PUT), 8) + _PUT + b"\xc6\0\0\0\x07" + bytes(8),
        CloseCode.PROTOCOL_ERROR,
    ),
    ("a payload in its shortest form", LinkKind.BULK, prefix(len(_PUT), 8) + _PUT + b"\xc4\x08" + bytes(8), CloseCode.PROTOCOL_ERROR),
    ("an empty header", LinkKind.CTL, prefix(0, 0) + b"\xc0", CloseCode.PROTOCOL_ERROR),
    ("a payload behind a message that has none", LinkKind.BULK, frame(ChunkGet(10_000, CHUNK), 9, b"a chunk\n"), CloseCode.PROTOCOL_ERROR),
    ("a message of bulk on ctl", LinkKind.CTL, frame(ChunkGet(10_000, CHUNK), 9), CloseCode.PROTOCOL_ERROR),
    ("a message of ctl on bulk", LinkKind.BULK, frame(StatusGet(2000), 9), CloseCode.PROTOCOL_ERROR),
    ("an answer to nothing", LinkKind.CTL, frame(Done(), 9), CloseCode.PROTOCOL_ERROR),
    ("more credit than payload was sent", LinkKind.BULK, frame(Credit(1), 0), CloseCode.PROTOCOL_ERROR),
    (
        "the root where a row is asked for",
        LinkKind.CTL,
        frame(RowFetch(2000, folder_partition("/"), 5, "/", True), 9),
        CloseCode.PROTOCOL_ERROR,
    ),
    ("a row of another partition", LinkKind.CTL, frame(RowFetch(2000, 0, 5, PATH, True), 9), CloseCode.PROTOCOL_ERROR),
    ("a second hello", LinkKind.CTL, frame(HELLO, 0), CloseCode.PROTOCOL_ERROR),
    ("seventeen pings at once", LinkKind.CTL, 17 * frame(Ping(7), 0), CloseCode.PROTOCOL_ERROR),
)
"""What a dialler sends behind its hello, and the code of the close that answers it."""


def plain(value: Any) -> Any:
    """Return a value as JSON has it: bytes in hexadecimal, nested values by the names of their fields."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Dot):
        return [value.actor.hex(), value.counter]
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def link_of(message: Message) -> LinkKind:
    return LinkKind.BULK if message.CARRIER is Carrier.BULK else LinkKind.CTL


def messages_document() -> dict[str, Any]:
    examples = []
    for message in EXAMPLES:
        request_id = 0 if isinstance(message, Control) and not isinstance(message, Cancel) else 258
        payload = b"a chunk\n" if message.PAYLOAD else b""
        frame = b"".join(bytes(part) for part in frame_parts(encode_header(message, request_id), payload, link_of(message)))
        examples.append(
            {
                "message": type(message).__name__,
                "link": link_of(message).name.lower(),
                "request_id": request_id,
                "fields": plain(message),
                "payload": payload.hex(),
                "frame": frame.hex(),
            }
        )
    return {
        "frames": examples,
        "refused headers": [{"why": why, "header": header} for why, header in REFUSED],
        "refused frames": [
            {"why": why, "link": kind.name.lower(), "frame": data.hex(), "close": code.name} for why, kind, data, code in FRAMES_REFUSED
        ],
    }


# -- rows --------------------------------------------------------------------


def merges() -> list[tuple[str, Row, Row]]:
    """Return examples of rows that meet."""
    first = version(A, 7, 1)
    second = version(B, 3, 2, context_of(row_of(first)), text=b"two", tick=1)
    retried = version(B, 4, 1, tick=2)
    deleted = version(C, 9, 4, ((Dot(A, 7)),), kind=Kind.TOMBSTONE, tick=5)
    both_dots = merge(row_of(first), row_of(retried))
    return [
        ("a write supersedes what its writer had read", row_of(first), row_of(first, second)),
        ("concurrent writes are both kept; the higher hlc bears the name", row_of(first), row_of(version(B, 3, 3, text=b"three", tick=1))),
        ("a retry at another replica is the same write: the lowest dot stays", row_of(first), row_of(retried)),
        ("a delete that had read one dot of a write ends it under its other dot as well", both_dots, row_of(deleted)),
        ("a retried dot covers no concurrent write of its actor", both_dots, row_of(version(B, 2, 5, text=b"five", tick=3))),
        ("a put beats a concurrent delete, whatever the clocks say", row_of(first), row_of(version(C, 9, 4, kind=Kind.TOMBSTONE, tick=9))),
    ]


MANIFEST = chunk_id_of(ChunkTag.MANIFEST, CHUNK)
CONTENTS: tuple[tuple[str, int, Content], ...] = (
    ("an empty file", 0, NO_CONTENT),
    ("the largest that is inline", 4096, inline_content(bytes(4096))),
    ("one chunk, which is shorter than a chunk", 4097, Content(1, 262_144, 0, (CHUNK,), b"")),
    ("the most chunks that a row lists", 64 * 262_144, Content(1, 262_144, 0, (CHUNK,) * 64, b"")),
    ("one manifest", 64 * 262_144 + 1, Content(1, 262_144, 1, (MANIFEST,), b"")),
    ("the largest of one manifest", 4096 * 262_144, Content(1, 262_144, 1, (MANIFEST,), b"")),
    ("a manifest of manifests", 4096 * 262_144 + 1, Content(1, 262_144, 2, (MANIFEST,), b"")),
)
CONTENTS_REFUSED: tuple[tuple[str, int, Content], ...] = (
    ("inline bytes of another length than the size", 2, inline_content(b"one")),
    ("chunks for what fits inline", 4096, Content(1, 1024, 0, (CHUNK,) * 4, b"")),
    ("chunks and inline bytes", 5000, Content(1, 8192, 0, (CHUNK,), b"one")),
    ("no chunks, but a strategy", 0, Content(1, 0, 0, (), b"")),
    ("an unknown strategy", 5000, Content(2, 8192, 0, (CHUNK,), b"")),
    ("a chunk size of 0", 5000, Content(1, 0, 0, (CHUNK,), b"")),
    ("chunks beyond 4 MiB", 5000, Content(1, 4_194_305, 0, (CHUNK,), b"")),
    ("a chunk too many", 5000, Content(1, 8192, 0, (CHUNK,) * 2, b"")),
    ("a manifest where data chunks are listed", 5000, Content(1, 8192, 0, (MANIFEST,), b"")),
    ("a data chunk as the root", 65 * 8192, Content(1, 8192, 1, (CHUNK,), b"")),
    ("two roots", 65 * 8192, Content(1, 8192, 1, (MANIFEST,) * 2, b"")),
    ("a manifest for what a row lists", 64 * 8192, Content(1, 8192, 1, (MANIFEST,), b"")),
    ("two levels for what one manifest lists", 4096 * 8192, Content(1, 8192, 2, (MANIFEST,), b"")),
    ("three levels", 4097 * 8192, Content(1, 8192, 3, (MANIFEST,), b"")),
)


def operation(number: int, *dots: Dot, hlc: int = NOW << 16) -> Operation:
    return Operation(op(number), hlc, dots)


_FIRST, _SECOND = version(A, 7, 1), version(B, 3, 2, text=b"two", tick=1)
_OF_FIRST, _OF_SECOND = operation(1, Dot(A, 7)), operation(2, Dot(B, 3), hlc=NOW << 16 | 1)
ROWS: tuple[tuple[str, Row], ...] = (
    ("one version", ROW),
    ("text that begins with U+FEFF keeps it", row_of(replace(_FIRST, writer="\ufeffada"))),
    (
        "the hlc of an operation is not judged, nor a zero in a dot of it that no head has",
        Row(PATH, (_FIRST,), (operation(1, Dot(A, 7), Dot(B, 0), hlc=0),)),
    ),
)
ROWS_REFUSED: tuple[tuple[str, Row], ...] = (
    ("the root", Row("/", (_FIRST,), (_OF_FIRST,))),
    ("a path that is not canonical", Row("/films/", (_FIRST,), (_OF_FIRST,))),
    ("heads out of order", Row(PATH, (_SECOND, _FIRST), (_OF_FIRST, _OF_SECOND))),
    ("a head twice", Row(PATH, (_FIRST, _FIRST), (_OF_FIRST,))),
    ("operations out of order", Row(PATH, (_FIRST, _SECOND), (_OF_SECOND, _OF_FIRST))),
    ("a head without its operation", Row(PATH, (_FIRST, _SECOND), (_OF_FIRST,))),
    ("a head whose dot its operation does not list", Row(PATH, (_FIRST,), (operation(1, Dot(A, 6)),))),
    ("an operation without dots", Row(PATH, (_FIRST,), (_OF_FIRST, operation(2)))),
    ("dots of an operation out of order", Row(PATH, (_FIRST,), (operation(1, Dot(B, 1), Dot(A, 7)),))),
    ("a dot of a head that counts from 0", Row(PATH, (version(A, 0, 1),), (operation(1, Dot(A, 0)),))),
    ("a context with a zero", row_of(version(A, 7, 1, (Dot(B, 0),)))),
    ("a context out of order", row_of(version(A, 7, 1, (Dot(C, 1), Dot(B, 1))))),
    ("a context with an actor twice", row_of(version(A, 7, 1, (Dot(B, 1), Dot(B, 2))))),
    ("a folder with a size", row_of(replace(version(A, 7, 1, kind=Kind.DIRECTORY), size=1))),
    ("inline bytes of another length than the size", row_of(replace(_FIRST, size=4))),
    ("a head that another head supersedes", Row(PATH, (_FIRST, version(B, 3, 2, (Dot(A, 7),))), (_OF_FIRST, operation(2, Dot(B, 3))))),
    ("two heads of one operation", Row(PATH, (_FIRST, version(B, 3, 1)), (operation(1, Dot(A, 7), Dot(B, 3)),))),
    ("65 operations without a head", Row(PATH, (), tuple(operation(number, Dot(A, number)) for number in range(1, 66)))),
)
MANIFESTS: tuple[tuple[str, int, bytes], ...] = (
    ("one that lists two data chunks", 1, pack_manifest([CHUNK, CHUNK])),
    ("one that lists a manifest", 2, pack_manifest([MANIFEST])),
)
MANIFESTS_REFUSED: tuple[tuple[str, int, bytes], ...] = (
    ("an empty blob", 1, b""),
    ("a byte less than an id", 1, CHUNK[:-1]),
    ("a byte more than an id", 1, CHUNK + b"\1"),
    ("a manifest where data chunks are listed", 1, pack_manifest([CHUNK, MANIFEST])),
    ("a data chunk where manifests are listed", 2, pack_manifest([CHUNK])),
)
"""Blobs whose hash is right, and which name no content all the same; the number is how many levels they are above the data."""


def manifest_examples(manifests: Sequence[tuple[str, int, bytes]]) -> list[dict[str, Any]]:
    return [
        {"why": why, "depth": depth, "blob": blob.hex(), "id": chunk_id_of(ChunkTag.MANIFEST, blob).hex()} for why, depth, blob in manifests
    ]


def digest_example(rows: Sequence[Row]) -> dict[str, Any]:
    digest = PartitionDigest()
    for row in rows:
        digest.replace(row.path, b"", row_digest(row))
    buckets = digest.buckets()
    return {
        "rows": [encode(row).hex() for row in rows],
        "path hashes": [path_hash(row.path).hex() for row in rows],
        "buckets": {str(bucket): buckets[bucket].hex() for bucket in sorted({bucket_of(path_hash(row.path)) for row in rows})},
        "partition": digest_of_total(digest.total).hex(),
    }


def rows_document() -> dict[str, Any]:
    examples = []
    for why, left, right in merges():
        merged = merge(left, right)
        standing = winner(merged)
        examples.append(
            {
                "why": why,
                "left": encode(left).hex(),
                "right": encode(right).hex(),
                "merged": encode(merged).hex(),
                "digest": row_digest(merged).hex(),
                "winner": plain(standing.dot) if standing is not None else None,
            }
        )
    digests = [row_digest(ROW), DIGEST]
    return {
        "row": [
            {"why": why, "fields": plain(row), "encoded": encode(row).hex(), "digest": row_digest(row).hex()} for why, row in ROWS
        ],
        "refused rows": [{"why": why, "encoded": encode(row).hex()} for why, row in ROWS_REFUSED],
        "range": [{"digests": plain(tuple(each)), "digest": range_digest(each).hex()} for each in ([], digests)],
        "digests": [digest_example(rows) for rows in ((), (ROW,), (ROW, NEIGHBOUR))],
        "merge": examples,
        "contents": [{"why": why, "size": size, "encoded": encode(content).hex()} for why, size, content in CONTENTS],
        "refused contents": [{"why": why, "size": size, "encoded": encode(content).hex()} for why, size, content in CONTENTS_REFUSED],
        "manifests": manifest_examples(MANIFESTS),
        "refused manifests": manifest_examples(MANIFESTS_REFUSED),
    }


# -- addresses ---------------------------------------------------------------

PATHS_REFUSED: tuple[tuple[str, str], ...] = (
    ("not absolute", "a"),
    ("empty", ""),
    ("a / at the end", "/a/"),
    ("an empty component", "/a//b"),
    ("a component .", "/a/."),
    ("a component ..", "/a/../b"),
    ("a NUL", "/a\0b"),
    ("not NFC: e and a combining accent", "/e\u0301"),
    ("a component of 256 bytes", "/" + "é" * 128),
    ("4097 bytes", "/aaaaaaaaaaaaaaa" * 256 + "a"),
)


def layouts() -> tuple[Layout, Layout, Layout, Layout]:
    """Return the first record of a cluster, the one that brings a second member in, its completion, and one that goes on by force."""
    members = tuple(
        Member(node, name, "", 1, (f"192.0.2.{number}:7400",)) for number, (node, name) in enumerate([(A, "ada"), (B, "ben")], 1)
    )
    alone = genesis(CLUSTER, members[0])
    joint = Layout(
        replace(
            alone.record,
            version=2,
            parent=alone.digest,
            members=members,
            new_columns=2,
            new_table=b"\x00\x01" * PARTITIONS,
            cfg=stamps(2),
        )
    )
    settled = complete(joint)
    return alone, joint, settled, forced(settled, OTHER_CLUSTER, [B], [A])


def stamps(stamp: int) -> bytes:
    return stamp.to_bytes(4, "big") * PARTITIONS


LAYOUTS = layouts()
_ALONE, _JOINT, _SETTLED, _FORCED = LAYOUTS
_one, _two, _three, _four = (layout.record for layout in LAYOUTS)
_ADA, _BEN = _three.members
LAYOUTS_REFUSED: tuple[tuple[str, LayoutRecord], ...] = (
    ("no cluster id", replace(_one, cluster_id=b"")),
    ("version 0", replace(_one, version=0)),
    ("a first version with a parent", replace(_one, parent=DIGEST)),
    ("a later version without one", replace(_two, parent=b"")),
    ("another number of partitions", replace(_one, part_power=11)),
    ("no copies", replace(_one, replication=0)),
    ("more copies than a table has columns for", replace(_one, replication=6)),
    ("no members", replace(_one, members=())),
    ("members out of order", replace(_three, members=(_BEN, _ADA))),
    ("a member twice", replace(_three, members=(_ADA, _ADA))),
    ("no voters", replace(_one, voters=())),
    ("a voter twice", replace(_one, voters=(A, A))),
    ("a voter that is no member", replace(_one, voters=(B,))),
    ("a weight of 0", replace(_one, members=(replace(_ADA, weight=0),))),
    ("a weight beyond 65536", replace(_one, members=(replace(_ADA, weight=65_537),))),
    ("a table without columns", replace(_one, old_columns=0)),
    ("a table of another length than its columns say", replace(_three, old_columns=1)),
    ("an index beyond the members", replace(_one, old_table=b"\x01" * PARTITIONS)),
    ("an owner twice in a row", replace(_three, old_table=b"\x00\x00" * PARTITIONS)),
    ("a second table in a stable record", replace(_two, new_columns=0)),
    ("a second table that is the first", replace(_two, members=(_ADA,), new_columns=1, new_table=_two.old_table)),
    ("a member that owns nothing", replace(_one, members=(_ADA, _BEN))),
    ("a stamp of 0", replace(_one, cfg=stamps(0))),
    ("a stamp beyond the version", replace(_one, cfg=stamps(2))),
    ("a former cluster that ended later", replace(_four, former=(Former(CLUSTER, 4),))),
    ("a former cluster that is this one", replace(_four, cluster_id=CLUSTER)),
    ("a stamp of a former cluster", replace(_four, cfg=stamps(3))),
)
SUCCESSORS_REFUSED: tuple[tuple[str, Layout, LayoutRecord], ...] = (
    ("another cluster", _ALONE, replace(_two, cluster_id=bytes(16))),
    ("a version left out", _ALONE, replace(_two, version=3)),
    ("another parent", _ALONE, replace(_two, parent=DIGEST)),
    ("another number of copies", _ALONE, replace(_two, replication=2)),
    ("a newcomer that votes while something moves", _ALONE, replace(_two, voters=(A, B))),
    ("other owners without a joint record", _ALONE, replace(_three, version=2, parent=_ALONE.digest, cfg=stamps(2))),
    ("joint behind joint", _JOINT, replace(_two, version=3, parent=_JOINT.digest)),
    ("neither completed nor taken back", _JOINT, replace(_three, old_table=b"\x01\x00" * PARTITIONS)),
    ("stamps that did not change with the owners", _ALONE, replace(_two, cfg=stamps(1))),
    ("stamps that go back", _SETTLED, replace(_three, version=4, parent=_SETTLED.digest, cfg=stamps(2))),
    ("a cluster that goes on from this one", _SETTLED, _four),
    ("another past", _FORCED, replace(_four, version=5, parent=_FORCED.digest, former=())),
    (
        "a move before all is gathered",
        _FORCED,
        replace(_two, cluster_id=OTHER_CLUSTER, version=5, parent=_FORCED.digest, cfg=stamps(5), former=_four.former),
    ),
)
"""Records that are valid, and may not follow the one before."""


def addresses_document() -> dict[str, Any]:
    paths = ["/a", "/films", PATH, "/films/2024/b", "/日本/語"]
    chunks: Sequence[tuple[ChunkTag, bytes]] = (
        (ChunkTag.DATA, b""), (ChunkTag.DATA, b"a chunk\n"), (ChunkTag.MANIFEST, b""), (ChunkTag.MANIFEST, pack_manifest([CHUNK, CHUNK])),
    )  # fmt: skip
    alone, joint, settled, by_force = LAYOUTS
    assert follows(alone, Layout.from_bytes(joint.data)) is None
    assert follows(joint, Layout.from_bytes(settled.data)) is None
    assert goes_on_from(settled, Layout.from_bytes(by_force.data)) is None
    return {
        "paths": [{"path": path, "partition": row_partition(path)} for path in paths],
        "refused paths": [{"why": why, "path": path} for why, path in PATHS_REFUSED],
        "folders": [{"folder": folder, "partition": folder_partition(folder)} for folder in ("/", "/films", "/films/2024")],
        "chunks": [
            {"tag": int(tag), "data": data.hex(), "id": chunk_id_of(tag, data).hex(), "partition": chunk_partition(chunk_id_of(tag, data))}
            for tag, data in chunks
        ],
        "partition sets": [{"partitions": [0, 9, 4095], "bitmap": pack_partitions([0, 9, 4095]).hex()}],
        "layouts": [layout_example(layout.record) for layout in LAYOUTS],
        "refused layouts": [{"why": why, **layout_example(record)} for why, record in LAYOUTS_REFUSED],
        "refused successors": [
            {"why": why, "parent": parent.version, **layout_example(record)} for why, parent, record in SUCCESSORS_REFUSED
        ],
    }


def layout_example(record: LayoutRecord) -> dict[str, Any]:
    """Return a record. Its tables and stamps repeat one value for every partition: that value stands for them."""
    fields = plain(record)
    for name in ("old_table", "new_table", "cfg"):
        whole: bytes = getattr(record, name)
        width = len(whole) // PARTITIONS
        assert whole == whole[:width] * PARTITIONS
        fields[name] = {"of each partition": whole[:width].hex()}
    layout = Layout(record)
    return {"fields": fields, "bytes": len(layout.data), "digest": layout.digest.hex()}


# -- the key -----------------------------------------------------------------


def security_document() -> dict[str, Any]:
    examples = []
    for secret, seed in ((bytes(range(32)), bytes(range(32, 64))), (bytes(32), b"\xff" * 32)):
        key = ClusterKey(secret)
        credentials = Credentials(key, seed)
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        authority, certificate = (
            load_pem_x509_certificate(pem).public_bytes(Encoding.DER) for pem in (credentials.ca_pem, credentials.certificate_pem)
        )
        assert proven_node_id(certificate) == node_id_of(public) == credentials.node_id
        examples.append(
            {
                "secret": secret.hex(),
                "text": key.text,
                "ca_seed": key.ca_seed.hex(),
                "ca_certificate": authority.hex(),
                "tag": key.tag,
                "node_seed": seed.hex(),
                "node_public_key": public.hex(),
                "node_id": credentials.node_id.hex(),
                "node_certificate": certificate.hex(),
            }
        )
    return {"keys": examples}


# -- a session ---------------------------------------------------------------


class Recorder:
    """Plays one link between a client and a node, each a `Connection`, and keeps every frame that passes."""

    def __init__(self, frames: list[dict[str, Any]], number: int, kind: LinkKind, client: NodeId, node: Member, layout: Layout) -> None:
        self._frames = frames
        self._number = number
        self._node = node.name
        self._kind = kind
        asks = Hello(1, 1, 0, kind, Role.CLIENT, client, 0, b"", 0, b"", "reader", "", 0, (), {})
        serves = Hello(
            1, 1, 0, kind, Role.MEMBER, node.node_id, 1, layout.cluster_id, layout.version, layout.digest, node.name, node.zone,
            1 << 40, node.addresses, {},
        )  # fmt: skip
        self._client = Connection(lambda _: asks, kind, node.node_id, PayloadBudget(1 << 30), 0.0)
        self._server = Connection(lambda _: serves, None, client, PayloadBudget(1 << 30), 0.0)
        self._pass(self._client, self._server)
        self._pass(self._server, self._client)

    def ask(self, request: Request, answer: Answer, payload: bytes = b"", answer_payload: bytes = b"") -> None:
        """Have the client ask and the node answer."""
        self._client.send_request(request, payload)
        (arrived,) = self._pass(self._client, self._server)
        assert isinstance(arrived, RequestArrived)
        self._server.send_answer(arrived.request_id, answer, answer_payload)
        (answered,) = self._pass(self._server, self._client)
        assert isinstance(answered, AnswerArrived)
        assert (answered.message, bytes(answered.payload)) == (answer, answer_payload)
        self._client.release(len(answered.payload))
        self._pass(self._client, self._server)

    def close(self) -> None:
        """Have the client say goodbye."""
        self._client.close(CloseCode.NORMAL, "done")
        self._pass(self._client, self._server)

    def _pass(self, sender: Connection, receiver: Connection) -> list[Event]:
        data = b"".join(bytes(part) for part in sender.take_output())
        reader = FrameReader(self._kind, lambda header, size: True)
        for frame in reader.receive(data):
            message, request_id = decode_header(frame.header)
            link = LinkKind.CTL if isinstance(message, Hello) else self._kind
            self._frames.append(
                {
                    "link": self._number,
                    "kind": self._kind.name.lower(),
                    "node": self._node,
                    "from": "client" if sender is self._client else "node",
                    "message": type(message).__name__,
                    "request_id": request_id,
                    "frame": b"".join(map(bytes, frame_parts(frame.header, bytes(frame.payload), link))).hex(),
                }
            )
        return receiver.receive(data, 0.0)


def session_document() -> dict[str, Any]:
    """Return all that passes when a client reads one small and one larger file from a cluster of three, and puts one."""
    key = ClusterKey(bytes(range(32)))
    seeds = {name: bytes([number]) * 32 for number, name in enumerate(("ada", "ben", "cyd"), 1)}
    client = Credentials(key, bytes(range(32, 64))).node_id
    members = {
        name: Member(Credentials(key, seed).node_id, name, "", 1024, (f"192.0.2.{number}:7400",))
        for number, (name, seed) in enumerate(seeds.items(), 1)
    }
    ada, ben = members["ada"], members["ben"]
    joint = propose(genesis(CLUSTER, ada), list(members.values()))
    assert joint is not None
    layout = complete(joint)
    stamp = layout.cfg(folder_partition("/films"))
    peers = Peers(tuple(PeerInfo(member.node_id, member.name, member.addresses) for member in members.values()))

    notes, clip, fresh = "/films/notes.txt", "/films/clip.bin", "/films/fresh.bin"
    texts = {notes: b"three machines, one file\n", clip: bytes(index * index % 251 for index in range(5000)), fresh: b"fresh\n" * 700}
    rows, cuts = {}, {}
    for counter, (path, text) in enumerate(texts.items(), 1):
        pieces = [text[at : at + 4096] for at in range(0, len(text), 4096)] if len(text) > 4096 else []
        cuts[path] = [(chunk_id_of(ChunkTag.DATA, piece), piece) for piece in pieces]
        content = Content(1, 4096, 0, tuple(chunk_id for chunk_id, _ in cuts[path]), b"") if pieces else inline_content(text)
        written = Version(
            Dot(ada.node_id, counter), (), NOW << 16 | counter, op(counter), Kind.FILE, len(text), 0o644, NOW, "ada", content
        )
        rows[path] = published(empty_row(path), written)

    frames: list[dict[str, Any]] = []
    first = Recorder(frames, 1, LinkKind.CTL, client, ada, layout)
    first.ask(LayoutGet(5000, 0), LayoutIs(layout.data))
    first.ask(PeersGet(5000), peers)
    second = Recorder(frames, 2, LinkKind.CTL, client, ben, layout)
    partition = folder_partition("/films")

    def read(path: str, row: Row | None) -> None:
        digest, whole = (row_digest(row), (row,)) if row is not None else (b"", ())
        first.ask(RowFetch(2000, partition, stamp, path, True), RowIs(digest, whole, False))
        second.ask(RowFetch(2000, partition, stamp, path, False), RowIs(digest, (), False))

    read(notes, rows[notes])
    read(clip, rows[clip])
    bulk = Recorder(frames, 3, LinkKind.BULK, client, ada, layout)
    for chunk_id, piece in cuts[clip]:
        bulk.ask(ChunkGet(10_000, chunk_id), ChunkData(), b"", piece)
    read(fresh, None)
    holders = tuple(sorted(member.node_id for member in members.values()))
    for chunk_id, piece in cuts[fresh]:
        bulk.ask(ChunkPut(12_000, chunk_id, True), ChunkStored(holders), piece)
    (head,) = rows[fresh].heads
    first.ask(
        RowPublish(
            6000, partition, stamp, head.op_id, fresh, (), Kind.FILE, head.size, head.mode, head.modified_milliseconds, head.writer,
            head.content, holders,
        ),
        Published(head.dot, 3),
    )  # fmt: skip
    for recorder in (first, second, bulk):
        recorder.close()

    names = {member.node_id: member.name for member in members.values()}
    chunk_ids = [chunk_id for cut in cuts.values() for chunk_id, _ in cut]
    return {
        "cluster": [{"key": key.text, "client_seed": bytes(range(32, 64)).hex(), "client_id": client.hex()}],
        "members": [
            {"name": member.name, "node_seed": seeds[member.name].hex(), "node_id": member.node_id.hex(), "address": member.addresses[0]}
            for member in members.values()
        ],
        "layout": [
            {
                "version": layout.version,
                "digest": layout.digest.hex(),
                "bytes": len(layout.data),
                "copies_wanted": layout.copies_wanted,
                "copies_needed": layout.copies_needed,
            }
        ],
        "folders": [
            {"folder": "/films", "partition": partition, "stamp": stamp, "replicas": [names[node] for node in layout.replicas(partition)]}
        ],
        "chunks": [
            {"chunk_id": chunk_id.hex(), "partition": chunk_partition(chunk_id), "homes": [names[n] for n in homes_of(layout, chunk_id)]}
            for chunk_id in chunk_ids
        ],
        "files": [{"path": path, "size": len(text), "sha256": hashlib.sha256(text).hexdigest()} for path, text in texts.items()],
        "frames": frames,
    }


def homes_of(layout: Layout, chunk_id: ChunkId) -> Sequence[NodeId]:
    return layout.homes(chunk_partition(chunk_id))


DOCUMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "messages.json": messages_document,
    "rows.json": rows_document,
    "addresses.json": addresses_document,
    "security.json": security_document,
    "session.json": session_document,
}


def text_of(document: dict[str, Any]) -> str:
    """Return a document with one example per line."""
    parts = []
    for name, examples in document.items():
        lines = ",\n  ".join(json.dumps(example, ensure_ascii=False) for example in examples)
        parts.append(f" {json.dumps(name)}: [\n  {lines}\n ]")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def load(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def examples(name: str, section: str) -> Any:
    """Return a list of examples; one that is not written yet is empty, so that `--write` can write it."""
    return load(name).get(section, ())


def why(example: dict[str, Any]) -> str:
    return str(example["why"])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_vectors_are_what_the_code_does(name):
    assert load(name) == json.loads(text_of(DOCUMENTS[name]()))


def test_there_is_an_example_of_every_message():
    assert [type(example) for example in EXAMPLES] == sorted(MESSAGES, key=lambda cls: cls.TYPE)


@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=lambda number: type(EXAMPLES[number]).__name__)
def test_a_frame_of_the_vectors_is_read_as_its_message(number):
    example = load("messages.json")["frames"][number]
    reader = FrameReader(LinkKind[example["link"].upper()], lambda header, size: True)
    (frame,) = reader.receive(bytes.fromhex(example["frame"]))
    assert bytes(frame.payload).hex() == example["payload"]
    assert decode_header(frame.header) == (EXAMPLES[number], example["request_id"])


@pytest.mark.parametrize("example", load("messages.json")["refused headers"], ids=lambda example: example["why"])
def test_a_header_that_is_to_be_refused_is_refused(example):
    with pytest.raises(RemoteProtocolError):
        decode_header(bytes.fromhex(example["header"]))


@pytest.mark.parametrize("example", examples("messages.json", "refused frames"), ids=why)
def test_a_frame_that_is_to_be_refused_closes_the_link(example):
    kind = LinkKind[example["link"].upper()]
    client, server = (
        Hello(1, 1, 0, kind, role, node, 0, b"", 0, b"", "", "", 0, (), {}) for role, node in ((Role.CLIENT, A), (Role.MEMBER, B))
    )
    connection = Connection(lambda _: server, None, A, PayloadBudget(1 << 30), 0.0)
    connection.receive(frame(client, 0), 0.0)
    assert connection.peer == client
    (closed,) = connection.receive(bytes.fromhex(example["frame"]), 0.0)
    assert isinstance(closed, Closed)
    assert (closed.code.name, closed.by_peer) == (example["close"], False)


@pytest.mark.parametrize("example", examples("rows.json", "row"), ids=why)
def test_a_row_of_the_vectors_is_taken_as_it_is(example):
    row = decode(Row, bytes.fromhex(example["encoded"]))
    assert plain(row) == example["fields"]
    assert merge(row, row) == row


@pytest.mark.parametrize("example", examples("rows.json", "refused rows"), ids=why)
def test_a_row_that_is_to_be_refused_is_refused(example):
    with pytest.raises(RemoteProtocolError):
        decode(Row, bytes.fromhex(example["encoded"]))


@pytest.mark.parametrize("example", examples("rows.json", "manifests"), ids=why)
def test_a_manifest_of_the_vectors_is_read(example):
    blob = bytes.fromhex(example["blob"])
    assert chunk_matches(bytes.fromhex(example["id"]), blob)
    assert b"".join(unpack_manifest(blob, example["depth"])) == blob


@pytest.mark.parametrize("example", examples("rows.json", "refused manifests"), ids=why)
def test_a_manifest_that_is_to_be_refused_is_refused_though_its_hash_is_right(example):
    blob = bytes.fromhex(example["blob"])
    assert chunk_matches(bytes.fromhex(example["id"]), blob)
    with pytest.raises(ValueError, match="manifest"):
        unpack_manifest(blob, example["depth"])


def record_of(example: dict[str, Any]) -> bytes:
    """Return the encoded record that an example describes."""

    def unhexed(value: Any) -> Any:
        return bytes.fromhex(value["of each partition"]) * PARTITIONS

    fields = example["fields"]
    members = tuple(
        Member(NodeId(bytes.fromhex(each["node_id"])), each["name"], each["zone"], each["weight"], tuple(each["addresses"]))
        for each in fields["members"]
    )
    return encode(
        LayoutRecord(
            cluster_id=bytes.fromhex(fields["cluster_id"]),
            version=fields["version"],
            parent=bytes.fromhex(fields["parent"]),
            part_power=fields["part_power"],
            replication=fields["replication"],
            voters=tuple(NodeId(bytes.fromhex(each)) for each in fields["voters"]),
            members=members,
            old_columns=fields["old_columns"],
            old_table=unhexed(fields["old_table"]),
            new_columns=fields["new_columns"],
            new_table=unhexed(fields["new_table"]),
            cfg=unhexed(fields["cfg"]),
            former=tuple(Former(ClusterId(bytes.fromhex(each["cluster_id"])), each["version"]) for each in fields["former"]),
        )
    )


@pytest.mark.parametrize("example", examples("addresses.json", "refused layouts"), ids=why)
def test_a_record_that_is_to_be_refused_is_no_layout(example):
    with pytest.raises(RemoteProtocolError):
        Layout.from_bytes(record_of(example))


@pytest.mark.parametrize("example", examples("addresses.json", "refused successors"), ids=why)
def test_a_record_that_may_not_follow_is_valid_by_itself(example):
    (parent,) = (each for each in load("addresses.json")["layouts"] if each["fields"]["version"] == example["parent"])
    assert follows(Layout.from_bytes(record_of(parent)), Layout.from_bytes(record_of(example))) is not None


@pytest.mark.parametrize("example", load("rows.json")["merge"], ids=lambda example: example["why"])
def test_rows_of_the_vectors_merge_either_way(example):
    left, right, merged = (decode(Row, bytes.fromhex(example[side])) for side in ("left", "right", "merged"))
    assert merge(left, right) == merge(right, left) == merged
    assert merge(merged, left) == merged


@pytest.mark.parametrize(("size", "content"), [each[1:] for each in CONTENTS], ids=[each[0] for each in CONTENTS])
def test_content_that_is_right_is_taken(size, content):
    assert content_fault(content, size) is None


@pytest.mark.parametrize(("size", "content"), [each[1:] for each in CONTENTS_REFUSED], ids=[each[0] for each in CONTENTS_REFUSED])
def test_content_that_contradicts_itself_is_refused(size, content):
    assert content_fault(content, size) is not None


@pytest.mark.parametrize(("why", "path"), PATHS_REFUSED, ids=[why for why, _ in PATHS_REFUSED])
def test_a_path_that_is_to_be_refused_is_not_canonical(why, path):
    assert not is_canonical(path)


@pytest.mark.parametrize("example", load("security.json")["keys"], ids=lambda example: example["tag"])
def test_a_key_is_read_from_its_text(example):
    assert parse_key(example["text"]).secret.hex() == example["secret"]


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: test_vectors.py --write")
    for file_name, build in DOCUMENTS.items():
        (FOLDER / file_name).write_text(text_of(build()), encoding="utf-8")
