"""The one adapter between asyncio and `protocol.connection.Connection`.

Owns the transport, the tasks that answer requests, and the waiting: for a slot, for credit, for the peer to read. Decides
nothing about the protocol (the connection does) nor about the answers (the owner does). Made by `peer.links.Links` for
connections of both directions.

Back-pressure, outward: nothing but small control frames is written while the transport asks to pause, and payloads wait for
credit. Inward: at most REQUESTS_IN_FLIGHT_MAX requests are open, and a payload's credit is given back only when it has been dealt with.
A peer that asks and does not read holds a bounded amount of memory, and loses its link.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

from peer.errors import LinkLost, Refused, RequestFailed, StorageFailed
from protocol import limits
from protocol.connection import (
    WAITING_SECONDS,
    AnswerArrived,
    Closed,
    Connection,
    Event,
    PayloadBudget,
    PeerHello,
    RequestArrived,
    RequestCancelled,
)
from protocol.errors import CloseCode, ErrorCode
from protocol.fields import clipped
from protocol.hashing import Buffer
from protocol.identity import NodeId, short
from protocol.messages import Answer, Failure, Hello, LinkKind, Request

Served = Answer | tuple[Answer, Buffer]
"""What a handler returns: an answer, with a payload where the message has one."""

WRITE_BUFFER_BYTES = 1024 * 1024
"""Written and not yet taken by the kernel; beyond it the link waits."""
UNREAD_BYTES_MAX = 64 * 1024
"""Written all the same while the transport asks to pause: control frames and the like. A peer that reads none of so many is cut off."""
PAYLOADS_SERVED_MAX = limits.PAYLOAD_CREDIT_BYTES // limits.CHUNK_BYTES_MAX
"""Requests for a payload that are served at once: what they hold for a peer that does not read is no more than its credit."""
COPIED_BYTES_MAX = 16 * 1024
"""Parts of a frame below this size are joined before they are written."""
CLOSE_SECONDS = 1.0
"""A closing link that cannot write its last frame is cut after so long."""


class LinkOwner(Protocol):
    """Whom a link belongs to (`peer.links.Links`)."""

    def hello(self, kind: LinkKind, peer: NodeId) -> Hello:
        """Return the hello of this process to `peer`."""

    def layout_version(self) -> int:
        """Return the layout version that failures carry."""

    def link_up(self, link: "Link") -> None:
        """The peer's hello has arrived and is right; may close the link."""

    def link_down(self, link: "Link", code: CloseCode, reason: str) -> None:
        """The link has ended. Called once, if `link_up` was."""

    def answer_at_once(self, link: "Link", request: Request) -> Answer | None:
        """Return the answer to a request that waits for nothing, small and without a payload; None: `serve` is asked."""

    async def serve(self, link: "Link", request: Request, payload: memoryview, deadline: float) -> Served:
        """Answer a request; `payload` is valid until this returns.

        Raises: Refused, to answer with a failure.
        """

    def failed(self, error: BaseException) -> None:
        """A handler has a bug, or the storage failed: this process must stop."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. Whoever asked for a payload calls `release` once it is no longer needed."""

    message: Answer
    payload: memoryview
    give_back: Callable[[int], None] | None = None

    def release(self) -> None:
        """Give the payload's credit back to the peer. To be called once."""
        if self.give_back is not None and len(self.payload):
            self.give_back(len(self.payload))


class Link(asyncio.BufferedProtocol):
    """One link to one peer."""

    def __init__(
        self, owner: LinkOwner, kind: LinkKind | None, proven: NodeId, budget: PayloadBudget, *, dialled: bool
    ) -> None:
        """Begin a link to the peer that is proven to be `proven`. `kind` is None where the peer has dialled."""
        self.proven = proven
        self.dialled = dialled
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._connection = Connection(partial(_hello, owner, proven), kind, proven, budget, self._loop.time())
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._cut_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._unread_bytes = 0
        self._up: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._was_up = False
        self._closed: Closed | None = None
        self._writable = True
        self._flush_is_due = False
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._told: dict[int, Callable[[Answer], None]] = {}
        """By request id, who is called when the answer comes, and waits for nothing."""
        self._serving: dict[int, asyncio.Task[None]] = {}
        self._payload_slots = asyncio.Semaphore(PAYLOADS_SERVED_MAX)
        self._room_waiters: list[asyncio.Future[None]] = []

    # -- for the owner -------------------------------------------------------

    @property
    def peer(self) -> Hello:
        """The peer's hello. Only once the link is up."""
        assert self._connection.peer is not None
        return self._connection.peer

    @property
    def kind(self) -> LinkKind:
        """What the link carries. Only once the link is up."""
        assert self._connection.kind is not None
        return self._connection.kind

    async def wait_idle(self) -> None:
        """Wait until nothing is open on this link in either direction, or it has ended."""
        while self._closed is None and (self._connection.open_requests or self._connection.open_answers):
            await self._change()

    async def up(self, timeout_seconds: float) -> None:
        """Wait for the peer's hello.

        Raises: LinkLost.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                await asyncio.shield(self._up)
        except TimeoutError:
            self.close(CloseCode.HELLO_TIMEOUT, "no hello in time")
            raise LinkLost("no hello in time") from None

    async def request(self, message: Request, payload: Buffer = b"", *, timeout_seconds: float) -> Reply:
        """Ask the peer and return its answer. Waits for room in the window within the timeout.

        Raises: LinkLost (the outcome is not known), RequestFailed (the peer says why), TimeoutError (the peer is told to leave it).
        """
        give_up_at = self._loop.time() + timeout_seconds
        if not self._has_room(len(payload)):
            async with asyncio.timeout_at(give_up_at):
                while not self._has_room(len(payload)):
                    await self._room()
        self._refuse_when_closed()
        request_id = self._connection.send_request(message, payload)
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[request_id] = answer
        self._sent_request()
        timer = self._loop.call_at(give_up_at, _expire, answer)
        try:
            reply = await answer
        except asyncio.CancelledError:
            if not answer.cancelled() and answer.exception() is None:
                answer.result().release()  # it came at this very moment, and nobody else will
            raise
        finally:
            timer.cancel()
            if self._waiting.pop(request_id, None) is not None:
                self._connection.cancel(request_id)
                self._flush_soon()
        if isinstance(reply.message, Failure):
            failure = reply.message
            raise RequestFailed(failure.code, failure.reason, failure.layout_version)
        return reply

    def ask(self, message: Request, answered: Callable[[Answer], None]) -> None:
        """Ask the peer what it may leave unanswered; `answered` is called if it says anything but a failure. Neither a task nor a timer.

        Nothing is sent while there is no room: to be silent for a moment is what a peer does that cannot be reached.
        """
        if self._closed is None and self._has_room(0):
            self._told[self._connection.send_request(message)] = answered
            self._sent_request()

    def close(self, code: CloseCode = CloseCode.NORMAL, reason: str = "") -> None:
        """End the link. Requests that are open fail with LinkLost."""
        self._handle(self._connection.close(code, reason))

    async def wait_closed(self) -> None:
        """Wait until the transport is gone."""
        await asyncio.shield(self._ended)

    # -- asyncio.BufferedProtocol --------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._flush()
        if self._closed is None:
            self._arm()
        else:
            self._close_transport()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go."""
        return self._connection.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes."""
        self._handle(self._connection.buffer_updated(nbytes, self._loop.time()))

    def eof_received(self) -> bool:
        """Let the transport close itself."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._handle(self._connection.lost(str(exc) if exc is not None else "the peer closed the connection"))
        for timer in (self._timer, self._cut_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        if not self._ended.done():
            self._ended.set_result(None)

    def pause_writing(self) -> None:
        """Stop sending requests and answers, and give the peer time to read."""
        self._writable = False
        self._unread_timer = self._loop.call_later(limits.FRAME_SECONDS, self._cut_off)

    def resume_writing(self) -> None:
        """Go on sending."""
        self._writable = True
        self._unread_bytes = 0
        if self._unread_timer is not None:
            self._unread_timer.cancel()
        self._tell_room()

    # -- inside --------------------------------------------------------------

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case RequestArrived():
                    answer = self._owner.answer_at_once(self, event.message) if self._writable else None
                    if answer is not None:
                        self._connection.send_answer(event.request_id, answer)
                    else:
                        self._begin_serving(event)
                case AnswerArrived():
                    self._take_answer(event)
                case RequestCancelled():
                    task = self._serving.get(event.request_id)
                    if task is not None and not task.cancelling():
                        task.cancel()
                case PeerHello():
                    self._come_up()
                case Closed():
                    self._end(event)
        self._flush_soon()
        self._tell_room()

    def _come_up(self) -> None:
        self._was_up = True
        self._owner.link_up(self)
        if self._closed is None and not self._up.done():
            self._up.set_result(None)

    def _take_answer(self, event: AnswerArrived) -> None:
        told = self._told.pop(event.request_id, None)
        if told is not None:
            if not isinstance(event.message, Failure):
                told(event.message)
            return
        answer = self._waiting.pop(event.request_id, None)
        if answer is not None and not answer.done():
            answer.set_result(Reply(event.message, event.payload, self._release))
        elif len(event.payload):
            self._release(len(event.payload))

    def _release(self, payload_bytes: int) -> None:
        self._connection.release(payload_bytes)
        self._flush_soon()

    def _begin_serving(self, event: RequestArrived) -> None:
        task = self._loop.create_task(self._serve(event))
        self._serving[event.request_id] = task
        task.add_done_callback(lambda done: self._served(event.request_id, done))

    def _served(self, request_id: int, task: asyncio.Task[None]) -> None:
        del self._serving[request_id]
        if task.cancelled() and self._closed is None:
            self._connection.send_answer(request_id, self._failure(ErrorCode.CANCELLED, "cancelled by its sender"))
            self._flush_soon()

    async def _serve(self, event: RequestArrived) -> None:
        async with self._payload_slots if event.message.ANSWER.PAYLOAD else nullcontext():
            served = await self._served_in_time(event)
            if self._has_room_for_answer(served):
                self._send_answer(event.request_id, served)
                return
            try:
                async with asyncio.timeout_at(event.deadline):
                    await self._answer(event.request_id, served)
                return
            except TimeoutError:
                served = self._failure(ErrorCode.DEADLINE, "the deadline passed before there was room for the answer")
        await self._answer(event.request_id, served)

    async def _served_in_time(self, event: RequestArrived) -> Served:
        try:
            async with asyncio.timeout_at(event.deadline):
                return await self._owner.serve(self, event.message, event.payload, event.deadline)
        except Refused as refused:
            return self._failure(refused.code, refused.reason)
        except TimeoutError:
            return self._failure(ErrorCode.DEADLINE, "the deadline passed")
        except StorageFailed as error:
            self._owner.failed(error)
            return self._failure(ErrorCode.INTERNAL, "the storage of this node failed")
        except Exception as error:  # noqa: BLE001 - the boundary: a handler's bug must reach the node, and the peer an answer
            self._owner.failed(error)
            return self._failure(ErrorCode.INTERNAL, "this node failed")

    async def _answer(self, request_id: int, served: Served) -> None:
        while not self._has_room_for_answer(served):
            await self._room()
        self._send_answer(request_id, served)

    def _has_room_for_answer(self, served: Served) -> bool:
        payload_bytes = len(served[1]) if isinstance(served, tuple) else 0
        return self._closed is not None or (self._writable and self._connection.can_send_payload(payload_bytes))

    def _send_answer(self, request_id: int, served: Served) -> None:
        message, payload = served if isinstance(served, tuple) else (served, b"")
        self._connection.send_answer(request_id, message, payload)
        self._flush_soon()
        self._tell_room()

    def _has_room(self, payload_bytes: int) -> bool:
        return self._writable and self._connection.can_send(payload_bytes)

    def _failure(self, code: ErrorCode, reason: str) -> Failure:
        return Failure(code, clipped(reason), self._owner.layout_version())

    async def _room(self) -> None:
        self._refuse_when_closed()
        await self._change()

    async def _change(self) -> None:
        """Wait until something about this link has changed."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._room_waiters.append(waiter)
        await waiter

    def _tell_room(self) -> None:
        waiters, self._room_waiters = self._room_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _refuse_when_closed(self) -> None:
        if self._closed is not None:
            raise LinkLost(f"the link to {short(self.proven)} has ended: {self._closed.reason or self._closed.code.name}")

    def _flush_soon(self) -> None:
        """Write what is to be sent once everybody who is ready has added to it: one record and one system call for many frames."""
        if self._connection.has_output and not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._transport is not None and not self._transport.is_closing():
            output = _joined(self._connection.take_output())
            if output:
                if not self._writable:
                    self._unread_bytes += sum(len(part) for part in output)
                for portion in _portions(output):
                    self._transport.writelines(portion)
                if self._unread_bytes > UNREAD_BYTES_MAX:
                    self._cut_off()

    def _sent_request(self) -> None:
        self._flush_soon()
        due = self._loop.time() + WAITING_SECONDS
        if self._timer is not None and due < self._due:
            self._timer.cancel()
            self._due, self._timer = due, self._loop.call_at(due, self._tick)

    def _arm(self) -> None:
        deadline = self._connection.next_deadline()
        if deadline is not None:
            self._due, self._timer = deadline, self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._handle(self._connection.tick(self._loop.time()))
        self._arm()

    def _cut_off(self) -> None:
        """End the link to a peer that does not read: what is written cannot reach it."""
        self.close(CloseCode.OVERLOADED, "the peer does not read what it is sent")
        if self._transport is not None:
            self._transport.abort()

    def _close_transport(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
            self._cut_timer = self._loop.call_later(CLOSE_SECONDS, self._transport.abort)

    def _end(self, closed: Closed) -> None:
        self._closed = closed
        self._flush()
        self._close_transport()
        lost = LinkLost(f"the link to {short(self.proven)} has ended: {closed.reason or closed.code.name}")
        if not self._up.done():
            self._up.set_exception(lost)
            self._up.exception()  # nobody may be waiting
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(lost)
        self._waiting.clear()
        self._told.clear()
        for task in list(self._serving.values()):
            task.cancel()
        self._tell_room()
        if self._was_up:
            self._was_up = False
            self._owner.link_down(self, closed.code, closed.reason)


def _hello(owner: LinkOwner, peer: NodeId, kind: LinkKind) -> Hello:
    return owner.hello(kind, peer)


def _expire(answer: "asyncio.Future[Reply]") -> None:
    if not answer.done():
        answer.set_exception(TimeoutError("no answer in time"))


def _portions(parts: list[Buffer]) -> Iterator[list[Buffer]]:
    """Yield the parts in portions of about WRITE_BUFFER_BYTES.

    Under TLS a transport counts only what the one below it has refused, and that one takes whatever comes first, whole: a burst
    written at once would never ask for a pause, however little of it the peer reads.
    """
    portion: list[Buffer] = []
    portion_bytes = 0
    for part in parts:
        portion.append(part)
        portion_bytes += len(part)
        if portion_bytes >= WRITE_BUFFER_BYTES:
            yield portion
            portion, portion_bytes = [], 0
    if portion:
        yield portion


def _joined(parts: list[Buffer]) -> list[Buffer]:
    """Return the same bytes in fewer parts: every part is a record of its own under TLS. Payloads of some size are not copied."""
    joined: list[Buffer] = []
    small: list[Buffer] = []
    for part in parts:
        if len(part) < COPIED_BYTES_MAX:
            small.append(part)
            continue
        if small:
            joined.append(b"".join(small))
            small = []
        joined.append(part)
    if small:
        joined.append(b"".join(small))
    return joined
