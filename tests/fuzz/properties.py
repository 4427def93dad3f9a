"""What must hold for any bytes: two properties that a fuzzer tries to break, and the examples from which it starts.

`codec`: bytes decode to a value that encodes to the same bytes, or they are a protocol error; nothing else. `link`: a connection that
gets any bytes in any pieces ends or waits for more, says only what its peer can read, and gives back all memory that it took.
"""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from protocol import limits
from protocol.codec import decode, decode_header, encode, encode_header
from protocol.connection import AnswerArrived, Closed, Connection, Event, PayloadBudget, PeerHello, RequestArrived
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.framing import FrameReader, frame_parts
from protocol.identity import ClusterId
from protocol.layout import Layout, Member, complete, genesis, propose
from protocol.manifest import ChunkTag, chunk_id_of, pack_manifest, unpack_manifest
from protocol.messages import ChunkGet, Failure, Hello, LinkKind, PeersGet
from protocol.testing.pair import some_hello, some_node_id
from protocol.versions import Row, merge

WIRE = Path(__file__).resolve().parent.parent / "data" / "wire"
HELD_BYTES_MAX = limits.BULK_FRAME_BYTES_MAX + limits.CTL_FRAME_BYTES_MAX
BUDGET_BYTES = 1 << 20
ID_OF_THE_VECTORS = 258
"""The request id in the reference vectors: the link has asked something under it."""


# -- codec -------------------------------------------------------------------


def check_codec(data: bytes) -> int:
    """Decode `data[1:]` as the kind of value that `data[0]` says; return 1, the frames that were tried."""
    if data:
        _DECODERS[data[0] % len(_DECODERS)](data[1:])
    return 1


def _header(data: bytes) -> None:
    try:
        message, request_id = decode_header(data)
    except RemoteProtocolError:
        return
    assert encode_header(message, request_id) == data


def _row(data: bytes) -> None:
    try:
        row = decode(Row, data)
    except RemoteProtocolError:
        return
    assert encode(row) == data
    assert merge(row, row) == row


def _layout(data: bytes) -> None:
    """Patch a valid record, for a record has 20 KiB: the first byte says which, then (offset, bytes to replace, new byte) each."""
    record = bytearray(_RECORDS[data[0] % len(_RECORDS)] if data else b"")
    for at in range(1, len(data) - 3, 4):
        offset = int.from_bytes(data[at : at + 2], "big") % (len(record) + 1)
        record[offset : offset + data[at + 2] % 3] = data[at + 3 : at + 4]
    try:
        layout = Layout.from_bytes(record)
    except RemoteProtocolError:
        return
    assert layout.data == record
    assert set(layout.homes(0)) | set(layout.fallbacks(0)) == set(layout.members)
    assert all(layout.partitions_of(node_id) for node_id in layout.members)


def _manifest(data: bytes) -> None:
    try:
        chunks = unpack_manifest(data, 1)
    except ValueError:
        return
    assert pack_manifest(chunks) == data


def _some_records() -> list[bytes]:
    ada, ben = (Member(some_node_id(name), name, "", 1, ("192.0.2.1:7400",)) for name in ("ada", "ben"))
    alone = genesis(ClusterId(bytes(16)), ada)
    joint = propose(alone, [ada, ben])
    assert joint is not None
    return [layout.data for layout in (alone, joint, complete(joint))]


_RECORDS = _some_records()
_DECODERS: list[Callable[[bytes], None]] = [_header, _row, _layout, _manifest]


def codec_seeds() -> Iterator[bytes]:
    """Yield the reference vectors, each behind the number of its decoder."""
    messages = json.loads((WIRE / "messages.json").read_text(encoding="utf-8"))
    for each in messages["frames"]:
        yield b"\x00" + _header_of(bytes.fromhex(each["frame"]))
    for each in messages["refused headers"]:
        yield b"\x00" + bytes.fromhex(each["header"])
    rows = json.loads((WIRE / "rows.json").read_text(encoding="utf-8"))
    for each in rows["row"]:
        yield b"\x01" + bytes.fromhex(each["encoded"])
    for each in rows["merge"]:
        yield b"\x01" + bytes.fromhex(each["left"])
    for which in range(len(_RECORDS)):
        yield bytes([2, which])
        yield bytes([2, which]) + b"\x00\x15\x01\x02" + b"\x10\x00\x01\x01"
    yield b"\x03" + bytes(range(33))


# -- link --------------------------------------------------------------------


def check_link(data: bytes) -> int:
    """Feed a link with what the script `data` makes, whole and in pieces; return how many frames were tried.

    Byte 0: the kind of the link, whether it is up before, whether the rest is a raw stream or headers to be framed, whether requests are
    answered. Byte 1: how the stream is cut.
    """
    if len(data) < 2:
        return 0
    kind = LinkKind.BULK if data[0] & 1 else LinkKind.CTL
    stream, frames = (data[2:], 1) if data[0] & 2 else _framed(data[2:], kind)
    whole = Side(kind, is_up=bool(data[0] & 4), answers=bool(data[0] & 8))
    whole.take(stream)
    pieces = Side(kind, is_up=bool(data[0] & 4), answers=bool(data[0] & 8))
    for piece in _cut(stream, data[1]):
        pieces.take(piece)
    if not data[0] & 8:  # an answer in between frees its id for what follows
        assert whole.seen == pieces.seen
    for side in (whole, pieces):
        side.end()
    return frames


class Side:
    """A link whose peer is the fuzzer."""

    def __init__(self, kind: LinkKind, *, is_up: bool, answers: bool) -> None:
        self.seen: list[str] = []
        """What was reported, in a form that does not depend on how the stream was cut."""
        self._answers = answers
        self._budget = PayloadBudget(BUDGET_BYTES)
        self._connection = Connection(lambda kind: some_hello("b", kind), None, some_node_id("a"), self._budget, 0.0)
        self._peer = FrameReader(LinkKind.CTL, lambda header, payload_bytes: True)
        if is_up:
            self._handle(self._connection.receive(hello_frame(kind), 0.0))
            self._peer.set_kind(kind)
            self._connection._next_request_id = ID_OF_THE_VECTORS
            self._connection.send_request(PeersGet(1000) if kind is LinkKind.CTL else ChunkGet(1000, chunk_id_of(ChunkTag.DATA, b"x")))
            self._flush()

    def take(self, data: bytes) -> None:
        """Receive bytes."""
        self._handle(self._connection.receive(data, 1.0))
        self._flush()
        held = self._connection._reader.buffered_bytes
        assert held <= HELD_BYTES_MAX, held
        assert 0 < len(self._connection.get_buffer(1 << 16)) <= HELD_BYTES_MAX

    def end(self) -> None:
        """Lose the link: nothing may stay taken."""
        self._connection.tick(1000.0)
        self._connection.lost("end of the script")
        assert self._budget.free_bytes == BUDGET_BYTES, self._budget.free_bytes
        assert not self._connection.open_answers

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            assert not self.seen or not self.seen[-1].startswith("Closed"), "an event behind the last one"
            match event:
                case Closed():
                    self.seen.append(f"Closed {event.code.name} {event.reason}")
                case PeerHello(hello):
                    self._peer.set_kind(hello.link)
                    self.seen.append("PeerHello")
                case AnswerArrived():
                    self._connection.release(len(event.payload))
                    self.seen.append(f"{event.request_id} {type(event.message).__name__} {len(event.payload)}")
                case RequestArrived():
                    self.seen.append(f"{event.request_id} {type(event.message).__name__} {len(event.payload)}")
            if self._answers and isinstance(event, RequestArrived):
                self._connection.send_answer(event.request_id, Failure(ErrorCode.UNSUPPORTED, "", 0))

    def _flush(self) -> None:
        for part in self._connection.take_output():
            for frame in self._peer.receive(part):
                message, _ = decode_header(frame.header)
                if isinstance(message, Hello):
                    self._peer.set_kind(message.link)


def hello_frame(kind: LinkKind) -> bytes:
    """Return the hello of the fuzzer's side."""
    return b"".join(frame_parts(encode_header(some_hello("a", kind), 0), b"", LinkKind.CTL))


def _framed(data: bytes, kind: LinkKind) -> tuple[bytes, int]:
    """Make frames of a script of (flags and header length, header): two bytes, then the header. Flag 0x80 adds a payload."""
    stream = b""
    frames = 0
    while len(data) >= 2:
        size = (data[0] & 0x7F) << 8 | data[1]
        header, rest = data[2 : 2 + size], data[2 + size :]
        payload = rest[:100] if data[0] & 0x80 and kind is LinkKind.BULK else b""
        if len(header) <= limits.BULK_HEADER_BYTES_MAX:
            stream += b"".join(bytes(part) for part in frame_parts(header, payload, kind))
            frames += 1
        data = rest
    return stream, frames


def _cut(stream: bytes, seed: int) -> Iterator[bytes]:
    if seed == 0 and len(stream) <= 1000:
        yield from (stream[at : at + 1] for at in range(len(stream)))
        return
    noise = random.Random(seed)
    while stream:
        count = noise.choice((1, 2, 11, 12, 17, 100, 5000))
        yield stream[:count]
        stream = stream[count:]


def link_seeds() -> Iterator[bytes]:
    """Yield scripts with the reference vectors, on links that are up and that are not."""
    messages = json.loads((WIRE / "messages.json").read_text(encoding="utf-8"))
    raw = {"ctl": b"", "bulk": b""}
    for number, each in enumerate(messages["frames"]):
        frame = bytes.fromhex(each["frame"])
        header = _header_of(frame)
        bit = 0 if each["link"] == "ctl" else 1
        payload = b"\x80" if each["message"] in ("ChunkPut", "ChunkData") else b"\x00"
        script = bytes([payload[0] | len(header) >> 8, len(header) & 0xFF]) + header + (bytes(100) if payload[0] else b"")
        yield bytes([bit | 4 | 8, number]) + script * 2
        yield bytes([bit | 2 | 4, number]) + frame
        raw[each["link"]] += frame
    for kind, flag in ((LinkKind.CTL, 0), (LinkKind.BULK, 1)):
        yield bytes([flag | 2, 1]) + hello_frame(kind) + raw["ctl" if kind is LinkKind.CTL else "bulk"][:4000]


def _header_of(frame: bytes) -> bytes:
    size = int.from_bytes(frame[2:6], "big")
    return frame[limits.FRAME_PREFIX_BYTES : limits.FRAME_PREFIX_BYTES + size]


CHECKS: dict[str, tuple[Callable[[bytes], int], Callable[[], Iterator[bytes]]]] = {
    "codec": (check_codec, codec_seeds),
    "link": (check_link, link_seeds),
}
