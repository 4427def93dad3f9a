"""Bytes to frames and back, without copying a payload.

A frame is one msgpack array of four: `[header_length, payload_length, header, payload]`. Its first eleven bytes have a fixed
shape, so both lengths are judged before any memory is taken:

    94  ce LLLLLLLL  ce PPPPPPPP  <L bytes: header>  c0 | c6 PPPPPPPP <P bytes: payload>

The reader hands out where the next bytes belong: a small buffer for everything up to the payload, then the payload's own
memory, so that a chunk goes from the kernel to its final place in one step. Knows nothing of what a header says.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from protocol import limits
from protocol.errors import CloseCode, LocalProtocolError, RemoteProtocolError
from protocol.hashing import Buffer
from protocol.messages import LinkKind

_PREFIX: Final = struct.Struct(">BBIBI")
_PAYLOAD_PREFIX: Final = struct.Struct(">BI")
_ARRAY_OF_FOUR: Final = 0x94
_UINT32: Final = 0xCE
_BIN32: Final = 0xC6
_NIL: Final = b"\xc0"
_NOTHING: Final = memoryview(b"")

READ_BUFFER_BYTES: Final = 64 * 1024
DISCARD_BUFFER_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. The payload lies in memory of its own, which belongs to the receiver of the frame."""

    header: bytes
    payload: memoryview
    discarded_bytes: int = 0
    """Length of a payload that was read and thrown away."""


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """What a link takes."""

    frame_bytes: int
    header_bytes: int
    payload: bool


LIMITS: Final = {
    LinkKind.CTL: FrameLimits(limits.CTL_FRAME_BYTES_MAX, limits.CTL_FRAME_BYTES_MAX, payload=False),
    LinkKind.BULK: FrameLimits(limits.BULK_FRAME_BYTES_MAX, limits.BULK_HEADER_BYTES_MAX, payload=True),
}


def frame_parts(header: bytes, payload: Buffer, kind: LinkKind) -> list[Buffer]:
    """Return the parts of a frame for `writelines`; the payload is passed on, not copied.

    Raises: LocalProtocolError when the frame is over the limits of the link.
    """
    fault = _lengths_fault(len(header), len(payload), LIMITS[kind])
    if fault is not None:
        raise LocalProtocolError(fault)
    prefix = _PREFIX.pack(_ARRAY_OF_FOUR, _UINT32, len(header), _UINT32, len(payload))
    if not payload:
        return [prefix + header + _NIL]
    return [prefix + header + _PAYLOAD_PREFIX.pack(_BIN32, len(payload)), payload]


def _lengths_fault(header_bytes: int, payload_bytes: int, bounds: FrameLimits) -> str | None:
    if header_bytes > bounds.header_bytes:
        return f"a header of {header_bytes} bytes, at most {bounds.header_bytes} fit this link"
    if payload_bytes and not bounds.payload:
        return f"a payload of {payload_bytes} bytes on a ctl link"
    frame_bytes = limits.FRAME_PREFIX_BYTES + header_bytes + limits.PAYLOAD_PREFIX_BYTES + payload_bytes
    if frame_bytes > bounds.frame_bytes:
        return f"a frame of {frame_bytes} bytes, at most {bounds.frame_bytes} fit this link"
    return None


class FrameReader:
    """Incremental reader of one link's frames."""

    def __init__(self, kind: LinkKind, accept_payload: Callable[[bytes, int], bool]) -> None:
        """`accept_payload(header, payload_bytes)` is asked before memory is taken; False has the payload thrown away."""
        self._limits = LIMITS[kind]
        self._accept_payload = accept_payload
        self._buffer = bytearray(READ_BUFFER_BYTES)
        self._start = 0
        self._end = 0
        self._header = b""
        self._payload = _NOTHING
        self._payload_bytes = 0
        self._payload_filled = 0
        self._discard: memoryview | None = None

    def set_kind(self, kind: LinkKind) -> None:
        """Apply the limits of `kind` to the frames that follow: an accepted link learns its kind from the first."""
        self._limits = LIMITS[kind]

    def get_buffer(self, size_hint: int) -> memoryview:
        """Return where the next bytes go: never empty."""
        if self._payload_bytes:
            if self._discard is not None:
                return self._discard[: self._payload_bytes - self._payload_filled]
            return self._payload[self._payload_filled :]
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._buffer) > READ_BUFFER_BYTES:
                self._buffer = bytearray(READ_BUFFER_BYTES)
        elif self._end == len(self._buffer):
            self._make_room()
        return memoryview(self._buffer)[self._end :]

    def buffer_updated(self, count: int) -> Iterator[Frame]:
        """Take `count` bytes that were written to the last buffer and yield the frames they complete.

        Each frame is to be dealt with before the next one is asked for: what comes behind it is not looked at earlier, so
        that `accept_payload` judges a frame in the state that all frames before it have left.

        Raises: RemoteProtocolError.
        """
        if self._payload_bytes:
            self._payload_filled += count
        else:
            self._end += count
        while True:
            if self._payload_bytes:
                if self._payload_filled < self._payload_bytes:
                    return
                yield self._finish_payload()
            frame = self._parse()
            if frame is not None:
                yield frame
            elif not self._payload_bytes:
                return

    def receive(self, data: Buffer) -> list[Frame]:
        """Take bytes from anywhere, as `get_buffer` and `buffer_updated` would."""
        frames: list[Frame] = []
        view = memoryview(data)
        while view:
            target = self.get_buffer(len(view))
            count = min(len(target), len(view))
            target[:count] = view[:count]
            frames.extend(self.buffer_updated(count))
            view = view[count:]
        return frames

    @property
    def is_within_frame(self) -> bool:
        """Whether a frame has begun and is not complete."""
        return self._payload_bytes > 0 or self._start < self._end

    @property
    def buffered_bytes(self) -> int:
        """Memory that the reader holds for unfinished frames."""
        return len(self._buffer) + len(self._payload)

    def _make_room(self) -> None:
        """Shift what is left to the front, and grow to what the judged header needs."""
        needed = limits.FRAME_PREFIX_BYTES
        if self._end - self._start >= needed:
            header_bytes = _PREFIX.unpack_from(self._buffer, self._start)[2]
            needed += header_bytes + limits.PAYLOAD_PREFIX_BYTES
        rest = self._buffer[self._start : self._end]
        if needed > len(self._buffer):
            self._buffer = bytearray(needed)
        self._buffer[: len(rest)] = rest
        self._start, self._end = 0, len(rest)

    def _parse(self) -> Frame | None:
        """Return the next frame; None when more bytes are needed or its payload has begun."""
        available = self._end - self._start
        if available < limits.FRAME_PREFIX_BYTES:
            self._judge_start(available)
            return None
        array, first, header_bytes, second, payload_bytes = _PREFIX.unpack_from(self._buffer, self._start)
        if (array, first, second) != (_ARRAY_OF_FOUR, _UINT32, _UINT32):
            raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "not the beginning of a frame")
        fault = _lengths_fault(header_bytes, payload_bytes, self._limits)
        if fault is not None:
            raise RemoteProtocolError(CloseCode.FRAME_TOO_LARGE, fault)
        tail_bytes = limits.PAYLOAD_PREFIX_BYTES if payload_bytes else len(_NIL)
        whole = limits.FRAME_PREFIX_BYTES + header_bytes + tail_bytes
        if available < whole:
            return None
        at = self._start + limits.FRAME_PREFIX_BYTES
        header = bytes(memoryview(self._buffer)[at : at + header_bytes])
        tail = self._buffer[at + header_bytes : at + header_bytes + tail_bytes]
        self._start += whole
        if not payload_bytes:
            if tail != _NIL:
                raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "an empty payload is nil")
            return Frame(header, _NOTHING)
        if _PAYLOAD_PREFIX.unpack(tail) != (_BIN32, payload_bytes):
            raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "a payload is bin32 of the length that the frame says")
        self._begin_payload(header, payload_bytes)
        return None

    def _judge_start(self, available: int) -> None:
        """Refuse what cannot become a frame at its first byte: a peer that talks another language gets no answer."""
        if available and self._buffer[self._start] != _ARRAY_OF_FOUR:
            raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "not the beginning of a frame")

    def _begin_payload(self, header: bytes, payload_bytes: int) -> None:
        self._header = header
        self._payload_bytes = payload_bytes
        present = min(payload_bytes, self._end - self._start)
        if self._accept_payload(header, payload_bytes):
            self._discard = None
            self._payload = memoryview(bytearray(payload_bytes))
            self._payload[:present] = memoryview(self._buffer)[self._start : self._start + present]
        else:
            self._discard = memoryview(bytearray(DISCARD_BUFFER_BYTES))
        self._payload_filled = present
        self._start += present

    def _finish_payload(self) -> Frame:
        discarded = self._payload_bytes if self._discard is not None else 0
        frame = Frame(self._header, self._payload, discarded)
        self._header, self._payload, self._payload_bytes, self._payload_filled = b"", _NOTHING, 0, 0
        self._discard = None
        return frame
