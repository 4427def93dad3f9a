"""One link as a state machine: bytes in, events out; calls in, bytes out. No I/O, no clock, no tasks.

Owns the hello and its rules, request ids, the window of open requests, payload credit, keepalive and the close. Time comes in as
`now` (seconds of any monotone clock) and goes out as `next_deadline`. Called by `peer.link.Link`, and by tests and other
implementations through `protocol.testing.ConnectionPair`.

A peer that breaks a rule ends the link at one place, `_fail`: a `Close` is sent, one `Closed` event is returned, and
from then on input is ignored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from protocol import limits
from protocol.codec import decode_header, encode_header
from protocol.errors import CloseCode, ErrorCode, LocalProtocolError, RemoteProtocolError
from protocol.fields import clipped
from protocol.framing import Frame, FrameReader, frame_parts
from protocol.hashing import Buffer
from protocol.identity import NodeId
from protocol.messages import (
    Answer,
    Cancel,
    Carrier,
    Close,
    Credit,
    Failure,
    Hello,
    LinkKind,
    Message,
    Ping,
    Pong,
    Request,
)
from protocol.states import SUCCESSOR, Phase, message_class

WAITING_SECONDS: Final = 1.0
"""A side that waits for an answer and has heard nothing for so long pings."""
IDLE_SECONDS: Final = 15.0
"""So does a side that waits for nothing: it has time, and there may be a hundred such links."""
KEEPALIVE_SECONDS: Final = 4.0
"""A side that has pinged and hears nothing for so long closes."""
STALL_SECONDS: Final = 1.0
"""A tick that comes later than it should by so much proves that *this* side stood still: what was sent
meanwhile lies unread in the kernel, and silence proves nothing."""
CREDIT_BATCH_BYTES: Final = 1024 * 1024
"""Released payload is given back in portions of this size, or as soon as all of it is released."""


class PayloadBudget:
    """Payload memory of requests, shared by all links of one node. Taken or refused, never waited for."""

    def __init__(self, total_bytes: int) -> None:
        self.free_bytes = total_bytes

    def take(self, count: int) -> bool:
        """Reserve `count` bytes if they are free."""
        if count > self.free_bytes:
            return False
        self.free_bytes -= count
        return True

    def give(self, count: int) -> None:
        """Give reserved bytes back."""
        self.free_bytes += count


@dataclass(frozen=True, slots=True)
class PeerHello:
    """The link is up. First event of every link that comes up."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """The peer asks. To be answered once by `send_answer`; the payload belongs to the caller until then."""

    request_id: int
    message: Request
    payload: memoryview
    deadline: float


@dataclass(frozen=True, slots=True)
class RequestCancelled:
    """The peer no longer wants the answer; it still has to be answered."""

    request_id: int


@dataclass(frozen=True, slots=True)
class AnswerArrived:
    """The peer has answered. When there is a payload, its length is to be given back by `release`."""

    request_id: int
    message: Answer
    payload: memoryview


@dataclass(frozen=True, slots=True)
class Closed:
    """The link has ended. Last event. `by_peer` tells whose close it was."""

    code: CloseCode
    reason: str
    by_peer: bool


Event = PeerHello | RequestArrived | RequestCancelled | AnswerArrived | Closed


@dataclass(slots=True)
class _Incoming:
    payload_bytes: int = 0


@dataclass(slots=True)
class _Outgoing:
    message: Request
    cancelled: bool = False


@dataclass(slots=True)
class _Window:
    """Payload bytes that one direction has sent and the other has not given back."""

    out_bytes: int = 0
    released_bytes: int = 0


class Connection:
    """One side of one link, on top of an authenticated byte stream."""

    def __init__(
        self,
        hello: Callable[[LinkKind], Hello],
        kind: LinkKind | None,
        proven: NodeId,
        budget: PayloadBudget,
        now: float,
    ) -> None:
        """Begin a link with the peer that the certificate proved to be `proven`.

        `hello` makes this side's hello. `kind` is what the dialler wants; None on the accepting side, which takes
        the kind, and sends its own hello, when the peer's arrives.
        """
        self.kind = kind
        self.peer: Hello | None = None
        self._make_hello = hello
        self._proven = proven
        self._budget = budget
        self._reader = FrameReader(LinkKind.CTL, self._accept_payload)  # until the hello is known
        self._received, self._sent = Phase.CONNECTED, Phase.CONNECTED
        self._early: tuple[Message, int] | None = None
        self._incoming: dict[int, _Incoming] = {}
        self._outgoing: dict[int, _Outgoing] = {}
        self._next_request_id = 1
        self._window_in, self._window_out = _Window(), _Window()
        self._output: list[Buffer] = []
        self._hello_deadline = now + limits.HANDSHAKE_SECONDS
        self._heard_at = now
        self._frame_began_at: float | None = None
        self._arriving_bytes = 0
        self._ping_sent_at: float | None = None
        self._ping_nonce = 0
        self._pings_heard = 0
        self._pings_since = now
        self._closed = False
        if kind is not None:
            self._send(hello(kind), 0)

    # -- input ---------------------------------------------------------------

    def get_buffer(self, size_hint: int) -> memoryview:
        """Return where the next bytes of the peer go."""
        return self._reader.get_buffer(size_hint)

    def buffer_updated(self, count: int, now: float) -> list[Event]:
        """Take `count` bytes that were written to the last buffer."""
        if self._closed:
            return []
        self._heard_at = now
        self._ping_sent_at = None
        if self._frame_began_at is None:
            self._frame_began_at = now
        events: list[Event] = []
        try:
            for frame in self._reader.buffer_updated(count):
                self._frame_began_at = now  # of what follows it
                self._take_frame(frame, now, events)
                if events and isinstance(events[-1], Closed):
                    break
        except RemoteProtocolError as error:
            self._fail(error.code, error.reason, events)
        if not self._reader.is_within_frame:
            self._frame_began_at = None
        return events

    def receive(self, data: Buffer, now: float) -> list[Event]:
        """Take bytes from anywhere, as `get_buffer` and `buffer_updated` would."""
        events: list[Event] = []
        view = memoryview(data)
        while view and not self._closed:
            target = self.get_buffer(len(view))
            count = min(len(target), len(view))
            target[:count] = view[:count]
            events.extend(self.buffer_updated(count, now))
            view = view[count:]
        return events

    def tick(self, now: float) -> list[Event]:
        """Do what is due. To be called at `next_deadline`, or any time."""
        events: list[Event] = []
        if self._closed:
            return events
        if self.peer is None:
            if now >= self._hello_deadline:
                self._fail(CloseCode.HELLO_TIMEOUT, f"no hello within {limits.HANDSHAKE_SECONDS:.0f} s", events)
            return events
        due = self.next_deadline()
        if due is not None and now - due >= STALL_SECONDS:
            self._heard_at = now - self._patience
            self._ping_sent_at = None
            if self._frame_began_at is not None:
                self._frame_began_at = now
        # Compared as `next_deadline` computes them: by differences, rounding could make a tick at its own deadline do nothing, for ever.
        if self._ping_sent_at is not None and now >= self._ping_sent_at + KEEPALIVE_SECONDS:
            self._fail(CloseCode.KEEPALIVE_TIMEOUT, f"nothing heard for {KEEPALIVE_SECONDS:.0f} s after a ping", events)
        elif self._frame_began_at is not None and now >= self._frame_began_at + limits.FRAME_SECONDS:
            self._fail(CloseCode.KEEPALIVE_TIMEOUT, f"a frame took longer than {limits.FRAME_SECONDS:.0f} s", events)
        elif self._ping_sent_at is None and now >= self._heard_at + self._patience:
            self._ping_nonce = (self._ping_nonce + 1) & 0xFFFFFFFF
            self._ping_sent_at = now
            self._send(Ping(self._ping_nonce), 0)
        return events

    def next_deadline(self) -> float | None:
        """Return when `tick` is to be called, or None once the link has ended. A request that is sent may bring it forward, to
        WAITING_SECONDS from then at the earliest.
        """
        if self._closed:
            return None
        if self.peer is None:
            return self._hello_deadline
        due = self._heard_at + self._patience if self._ping_sent_at is None else self._ping_sent_at + KEEPALIVE_SECONDS
        return due if self._frame_began_at is None else min(due, self._frame_began_at + limits.FRAME_SECONDS)

    @property
    def _patience(self) -> float:
        """How long a silence may be before it is asked about."""
        return WAITING_SECONDS if self._outgoing else IDLE_SECONDS

    # -- output --------------------------------------------------------------

    @property
    def has_output(self) -> bool:
        """Whether there is something to be written."""
        return bool(self._output)

    def take_output(self) -> list[Buffer]:
        """Return what is to be written now, in order. Payloads are the very objects that were given to send."""
        output, self._output = self._output, []
        return output

    @property
    def open_requests(self) -> int:
        """Requests of this side that are not answered."""
        return len(self._outgoing)

    @property
    def open_answers(self) -> int:
        """Requests of the peer that are not answered."""
        return len(self._incoming)

    def can_send(self, payload_bytes: int) -> bool:
        """Return whether the window has room for one more request with that payload."""
        return len(self._outgoing) < limits.REQUESTS_IN_FLIGHT_MAX and self.can_send_payload(payload_bytes)

    def can_send_payload(self, payload_bytes: int) -> bool:
        """Return whether the credit suffices for that payload."""
        return payload_bytes == 0 or self._window_out.out_bytes + payload_bytes <= limits.PAYLOAD_CREDIT_BYTES

    def send_request(self, message: Request, payload: Buffer = b"") -> int:
        """Ask the peer; return the request id. `can_send` must be true."""
        if not self.can_send(len(payload)):
            raise LocalProtocolError("the window of this link is full")
        request_id = self._take_request_id()
        self._send(message, request_id, payload)
        self._outgoing[request_id] = _Outgoing(message)
        return request_id

    def cancel(self, request_id: int) -> None:
        """Tell the peer that an answer is no longer wanted; its answer will not be reported."""
        outgoing = self._outgoing.get(request_id)
        if outgoing is not None and not outgoing.cancelled and not self._closed:
            outgoing.cancelled = True
            self._send(Cancel(), request_id)

    def send_answer(self, request_id: int, message: Answer, payload: Buffer = b"") -> None:
        """Answer a request of the peer and give its payload back. `can_send_payload` must be true."""
        if self._closed:
            return
        if request_id not in self._incoming:
            raise LocalProtocolError(f"request {request_id} is not open")
        if not self.can_send_payload(len(payload)):
            raise LocalProtocolError("the payload credit of this link is used up")
        self._send(message, request_id, payload)
        incoming = self._incoming.pop(request_id)
        if incoming.payload_bytes:
            self._budget.give(incoming.payload_bytes)
            self.release(incoming.payload_bytes)

    def release(self, payload_bytes: int) -> None:
        """Give credit back for payload that is not needed any more."""
        window = self._window_in
        window.released_bytes += payload_bytes
        assert window.released_bytes <= window.out_bytes
        if self._closed or not window.released_bytes:
            return
        if window.released_bytes >= CREDIT_BATCH_BYTES or window.released_bytes == window.out_bytes:
            self._send(Credit(window.released_bytes), 0)
            window.out_bytes -= window.released_bytes
            window.released_bytes = 0

    def close(self, code: CloseCode, reason: str) -> list[Event]:
        """End the link from this side."""
        events: list[Event] = []
        if not self._closed:
            self._fail(code, reason, events)
        return events

    def lost(self, reason: str) -> list[Event]:
        """Note that the byte stream has ended without a close."""
        if self._closed:
            return []
        self._end()
        return [Closed(CloseCode.NORMAL, reason, by_peer=True)]

    # -- inside --------------------------------------------------------------

    def _take_request_id(self) -> int:
        while self._next_request_id in self._outgoing:
            self._next_request_id = self._next_request_id % 0xFFFFFFFF + 1
        request_id = self._next_request_id
        self._next_request_id = request_id % 0xFFFFFFFF + 1
        return request_id

    def _send(self, message: Message, request_id: int, payload: Buffer = b"") -> None:
        successor = SUCCESSOR.get((self._sent, message_class(message)))
        if successor is None:
            raise LocalProtocolError(f"{type(message).__name__} while {self._sent.name}")
        kind = self.kind if self.kind is not None else LinkKind.CTL
        if not _fits(message, kind, len(payload)):
            raise LocalProtocolError(f"{type(message).__name__} does not travel on a {kind.name} link")
        frame_kind = LinkKind.CTL if isinstance(message, Hello) else kind
        self._output.extend(frame_parts(encode_header(message, request_id), payload, frame_kind))
        self._sent = successor
        self._window_out.out_bytes += len(payload)

    def _fail(self, code: CloseCode, reason: str, events: list[Event]) -> None:
        if self._sent is not Phase.CLOSED:
            self._send(Close(code, clipped(reason)), 0)
        self._end()
        events.append(Closed(code, reason, by_peer=False))

    def _end(self) -> None:
        self._closed = True
        for incoming in self._incoming.values():
            self._budget.give(incoming.payload_bytes)
        self._budget.give(self._arriving_bytes)
        self._incoming.clear()
        self._outgoing.clear()
        # Bytes that still come are written somewhere and never looked at; lengths of a refused frame must not be trusted by `get_buffer`.
        self._reader = FrameReader(LinkKind.CTL, self._accept_payload)

    def _accept_payload(self, header: bytes, payload_bytes: int) -> bool:
        """Judge a frame with a payload before memory is taken for it."""
        message, request_id = decode_header(header)
        self._early = message, request_id
        if not message.PAYLOAD:
            raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"{type(message).__name__} carries no payload")
        if self._window_in.out_bytes + payload_bytes > limits.PAYLOAD_CREDIT_BYTES:
            raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "more payload than the credit allows")
        self._check_expected(message, request_id)
        self._window_in.out_bytes += payload_bytes
        if isinstance(message, Answer):
            return True
        if not self._budget.take(payload_bytes):
            return False
        self._arriving_bytes = payload_bytes
        return True

    def _take_frame(self, frame: Frame, now: float, events: list[Event]) -> None:
        message, request_id = self._early if self._early is not None else decode_header(frame.header)
        self._early = None
        successor = SUCCESSOR.get((self._received, message_class(message)))
        if successor is None:
            raise RemoteProtocolError(
                CloseCode.PROTOCOL_ERROR, f"{type(message).__name__} while {self._received.name}"
            )
        kind = self.kind if self.kind is not None else LinkKind.CTL
        if not _fits(message, kind, len(frame.payload)):
            raise RemoteProtocolError(
                CloseCode.PROTOCOL_ERROR, f"{type(message).__name__} does not travel on a {kind.name} link"
            )
        self._received = successor
        match message:
            case Hello():
                self._take_hello(message, events)
            case Request():
                self._take_request(message, request_id, frame, now, events)
            case Answer():
                self._take_answer(message, request_id, frame, events)
            case Ping():
                self._take_ping(message, now)
            case Credit():
                self._take_credit(message.payload_bytes)
            case Cancel():
                if request_id in self._incoming:
                    events.append(RequestCancelled(request_id))
            case Close():
                self._end()
                events.append(Closed(message.code, message.reason, by_peer=True))

    def _take_hello(self, hello: Hello, events: list[Event]) -> None:
        if hello.node_id != self._proven:
            raise RemoteProtocolError(CloseCode.IDENTITY_MISMATCH, "the hello names another node than the certificate")
        if self.kind is None:
            self.kind = hello.link
            self._send(self._make_hello(hello.link), 0)
        elif hello.link is not self.kind:
            raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "the two sides want different kinds of link")
        own = self._make_hello(self.kind)
        if hello.node_id == own.node_id:
            raise RemoteProtocolError(CloseCode.SELF, "this node reached itself")
        highest = min(own.version_highest, hello.version_highest)
        if highest < max(own.version_lowest, hello.version_lowest):
            raise RemoteProtocolError(
                CloseCode.VERSION_MISMATCH,
                f"this side speaks versions {own.version_lowest} to {own.version_highest}, "
                f"the peer {hello.version_lowest} to {hello.version_highest}",
            )
        self._reader.set_kind(self.kind)
        self.peer = hello
        events.append(PeerHello(hello))

    def _take_ping(self, ping: Ping, now: float) -> None:
        if now - self._pings_since >= 1.0:
            self._pings_since, self._pings_heard = now, 0
        self._pings_heard += 1
        if self._pings_heard > limits.PINGS_PER_SECOND_MAX:
            raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"more than {limits.PINGS_PER_SECOND_MAX} pings within a second")
        self._send(Pong(ping.nonce), 0)

    def _check_expected(self, message: Message, request_id: int) -> None:
        if isinstance(message, Request):
            if request_id in self._incoming:
                raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"request id {request_id} is open already")
            if len(self._incoming) >= limits.REQUESTS_IN_FLIGHT_MAX:
                raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "more open requests than the limit")
        elif isinstance(message, Answer):
            outgoing = self._outgoing.get(request_id)
            if outgoing is None:
                raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"an answer to request {request_id}, which is not open")
            if not isinstance(message, Failure) and type(message) is not outgoing.message.ANSWER:
                raise RemoteProtocolError(
                    CloseCode.PROTOCOL_ERROR,
                    f"{type(message).__name__} is no answer to {type(outgoing.message).__name__}",
                )

    def _take_request(
        self, message: Request, request_id: int, frame: Frame, now: float, events: list[Event]
    ) -> None:
        self._check_expected(message, request_id)
        if frame.discarded_bytes:
            self._incoming[request_id] = _Incoming()
            self.release(frame.discarded_bytes)
            self.send_answer(request_id, Failure(ErrorCode.BUSY, "out of payload memory", 0))
            return
        self._incoming[request_id] = _Incoming(self._arriving_bytes)
        self._arriving_bytes = 0
        deadline = now + message.deadline_milliseconds / 1000
        events.append(RequestArrived(request_id, message, frame.payload, deadline))

    def _take_answer(self, message: Answer, request_id: int, frame: Frame, events: list[Event]) -> None:
        self._check_expected(message, request_id)
        outgoing = self._outgoing.pop(request_id)
        if outgoing.cancelled:
            self.release(len(frame.payload))
        else:
            events.append(AnswerArrived(request_id, message, frame.payload))

    def _take_credit(self, payload_bytes: int) -> None:
        if payload_bytes > self._window_out.out_bytes:
            raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "more credit than payload was sent")
        self._window_out.out_bytes -= payload_bytes


def _fits(message: Message, kind: LinkKind, payload_bytes: int) -> bool:
    if payload_bytes and not message.PAYLOAD:
        return False
    carrier = message.CARRIER
    return carrier is Carrier.EITHER or (carrier is Carrier.CTL) == (kind is LinkKind.CTL)
