"""Frames survive any split; lengths are judged before memory is taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from protocol.framing import READ_BUFFER_BYTES, FrameReader, frame_parts
from protocol.messages import LinkKind

frames = st.lists(
    st.tuples(st.binary(min_size=1, max_size=300), st.one_of(st.just(b""), st.binary(max_size=300), st.just(b"p" * 70_000))),
    min_size=1,
    max_size=5,
)


def reader(kind=LinkKind.BULK, accept=lambda header, count: True):
    return FrameReader(kind, accept)


def wire(pairs, kind=LinkKind.BULK):
    return b"".join(bytes(part) for header, payload in pairs for part in frame_parts(header, payload, kind))


def prefix(header_bytes, payload_bytes):
    return b"\x94\xce" + header_bytes.to_bytes(4, "big") + b"\xce" + payload_bytes.to_bytes(4, "big")


def read_all(reader, pieces):
    return [(frame.header, bytes(frame.payload)) for piece in pieces for frame in reader.receive(piece)]


@given(frames, st.data())
def test_any_split_gives_the_same_frames(pairs, data):
    stream = wire(pairs)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read_all(reader(), pieces) == pairs


def test_byte_by_byte_and_whole():
    pairs = [(b"\x91\x01", b""), (b"\x92\x01\x02", b"payload"), (b"\x90", b"")]
    stream = wire(pairs)
    assert read_all(reader(), [stream[i : i + 1] for i in range(len(stream))]) == pairs
    assert read_all(reader(), [stream]) == pairs


@given(frames, st.integers(1, 30))
def test_a_truncated_frame_gives_nothing_yet(pairs, missing):
    stream = wire(pairs)
    cut = stream[: max(0, len(stream) - missing)]
    assert read_all(reader(), [cut]) == pairs[: len(read_all(reader(), [cut]))]
    assert len(read_all(reader(), [cut])) < len(pairs)


def test_a_payload_is_received_into_its_own_memory_and_sent_without_a_copy():
    payload = bytearray(b"x" * 200_000)
    parts = frame_parts(b"\x90", payload, LinkKind.BULK)
    assert parts[-1] is payload
    frame_reader = reader()
    frame_reader.receive(bytes(parts[0]))
    target = frame_reader.get_buffer(0)
    assert len(target) == len(payload)
    target[:] = payload
    (frame,) = frame_reader.buffer_updated(len(payload))
    assert frame.payload.obj is target.obj


@given(frames)
def test_a_payload_that_is_not_accepted_is_read_away_and_counted(pairs):
    frame_reader = reader(accept=lambda header, count: False)
    got = frame_reader.receive(wire(pairs))
    assert [(frame.header, frame.discarded_bytes) for frame in got] == [(header, len(payload)) for header, payload in pairs]
    assert frame_reader.buffered_bytes < 2 * READ_BUFFER_BYTES


def test_memory_is_taken_only_after_the_header_was_judged():
    asked = []
    frame_reader = reader(accept=lambda header, count: bool(asked.append((header, count))) or True)
    frame_reader.receive(prefix(3, 4_000_000))
    assert asked == []
    assert frame_reader.buffered_bytes < 2 * READ_BUFFER_BYTES
    frame_reader.receive(b"abc\xc6" + (4_000_000).to_bytes(4, "big"))
    assert asked == [(b"abc", 4_000_000)]


@pytest.mark.parametrize(
    ("kind", "header_bytes", "payload_bytes", "fits"),
    [
        (LinkKind.CTL, limits.CTL_FRAME_BYTES_MAX - 16, 0, True),
        (LinkKind.CTL, limits.CTL_FRAME_BYTES_MAX - 15, 0, False),
        (LinkKind.CTL, 10, 1, False),
        (LinkKind.BULK, limits.BULK_HEADER_BYTES_MAX, 0, True),
        (LinkKind.BULK, limits.BULK_HEADER_BYTES_MAX + 1, 0, False),
        (LinkKind.BULK, 10, limits.BULK_FRAME_BYTES_MAX - 26, True),
        (LinkKind.BULK, 10, limits.BULK_FRAME_BYTES_MAX - 25, False),
        (LinkKind.BULK, 0xFFFFFFFF, 0xFFFFFFFF, False),
    ],
)
def test_limits_hold_on_both_sides(kind, header_bytes, payload_bytes, fits):
    frame_reader = reader(kind)
    if fits:
        assert frame_reader.receive(prefix(header_bytes, payload_bytes)) == []
    else:
        with pytest.raises(RemoteProtocolError) as caught:
            frame_reader.receive(prefix(header_bytes, payload_bytes))
        assert caught.value.code is CloseCode.FRAME_TOO_LARGE
    if header_bytes < 1 << 20:
        header, payload = bytes(header_bytes), bytes(payload_bytes)
        if fits:
            frame_parts(header, payload, kind)
        else:
            with pytest.raises(LocalProtocolError):
                frame_parts(header, payload, kind)


@pytest.mark.parametrize(
    "stream",
    [
        b"G",
        b"\x94\xcd\x00\x01\xce\x00\x00\x00\x00\x00\x90",
        b"\x93" + prefix(1, 0)[1:],
        prefix(1, 0) + b"\x90\xc6",
        prefix(1, 3) + b"\x90\xc0\x00\x00\x00\x00",
        prefix(1, 3) + b"\x90\xc6\x00\x00\x00\x04",
    ],
)
def test_what_is_no_frame_is_a_protocol_error(stream):
    with pytest.raises(RemoteProtocolError) as caught:
        reader().receive(stream)
    assert caught.value.code is CloseCode.PROTOCOL_ERROR


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_frames_or_a_protocol_error(data):
    frame_reader = reader()
    try:
        frame_reader.receive(data)
    except RemoteProtocolError:
        pass
    assert frame_reader.buffered_bytes <= READ_BUFFER_BYTES + limits.BULK_FRAME_BYTES_MAX
