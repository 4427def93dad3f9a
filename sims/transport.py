"""One direction-pair of a simulated TCP connection, with the contract of `asyncio.Transport`.

Bytes arrive in order, in pieces that have nothing to do with how they were written, after a delay that the seed chooses. A writer
that is faster than its reader is asked to pause. A cut stalls bytes (TCP would send them again); a reset loses what has not arrived.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Protocol

from sims.loop import SimLoop, context_of
from sims.trace import Trace

HIGH_WATER_BYTES = 64 * 1024
SEGMENT_BYTES_MAX = 256 * 1024
SMALL_SHARE = 0.25
SMALL_BYTES_MAX = 64
"""A share of the pieces is so small that frames are cut within their headers."""


class Wire(Protocol):
    """What lies between two hosts."""

    trace: Trace

    def latency(self, source: str, target: str) -> float:
        """Return the delay of the next piece."""

    def rate(self, source: str, target: str) -> float | None:
        """Return the bytes per second, None for any number."""

    def is_cut(self, source: str, target: str) -> bool:
        """Return whether bytes are stalled."""

    def when_mended(self, source: str, target: str, callback: Callable[[], None]) -> None:
        """Call back once bytes are stalled no more."""


class SimTransport(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, loop: SimLoop, random: Random, host: str, peer_host: str, wire: Wire) -> None:
        super().__init__()
        self._loop = loop
        self._random = random
        self._wire = wire
        self._context = context_of(host)
        self.host = host
        self.peer_host = peer_host
        self.peer: SimTransport
        self._is_forgotten = False
        """Whether the peer's machine has begun a new life, and answers what is sent here with a reset."""
        self._protocol: asyncio.BufferedProtocol
        self._outgoing: deque[memoryview] = deque()
        self._buffered = 0
        self._high, self._low = HIGH_WATER_BYTES, HIGH_WATER_BYTES // 4
        self._writing_paused = self._reading_paused = False
        self._closing = self._lost = False
        self._pumping = False

    def begin(self, protocol: asyncio.BufferedProtocol) -> None:
        """Give this end its protocol."""
        self._protocol = protocol
        protocol.connection_made(self)

    # -- asyncio.Transport ---------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes."""
        if self._closing or not len(data):
            return
        self._outgoing.append(memoryview(bytes(data)))
        self._buffered += len(data)
        if self._buffered > self._high and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()
        self._pump()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send bytes."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Return False: a link ends as a whole."""
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when the protocol is asked to pause and to resume."""
        self._high = HIGH_WATER_BYTES if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the peer has not received."""
        return self._buffered

    def pause_reading(self) -> None:
        """Deliver nothing for now."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """Deliver again."""
        self._reading_paused = False
        self.peer._pump()

    def is_reading(self) -> bool:
        """Return whether bytes are delivered."""
        return not self._reading_paused and not self._closing

    @property
    def is_lost(self) -> bool:
        """Whether the end has come: `connection_lost` was called or is about to be."""
        return self._lost

    def is_closing(self) -> bool:
        """Return whether the end has begun."""
        return self._closing

    def close(self) -> None:
        """Send what is left, then end."""
        if not self._closing:
            self._closing = True
            self._pump()

    def abort(self) -> None:
        """End at once; the peer sees a reset."""
        if not self._lost:
            self._closing = True
            self._lose(None)
            self._later(self.reset_peer)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Replace the protocol."""
        assert isinstance(protocol, asyncio.BufferedProtocol)
        self._protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the default: there is nothing behind this transport."""
        return default

    # -- the wire ------------------------------------------------------------

    def reset(self) -> None:
        """The other host is gone: this end notices."""
        self._lose(ConnectionResetError("reset by the peer"))

    def reset_peer(self) -> None:
        """This host ends the connection, or has died: the peer notices, once it can hear of it."""
        if self._wire.is_cut(self.host, self.peer_host):
            self._wire.when_mended(self.host, self.peer_host, lambda: self._later(self.reset_peer))
        else:
            self.peer.reset()

    def be_forgotten(self) -> None:
        """The peer's machine has lost its power and has it again: the next piece that goes there is answered by a reset."""
        self._is_forgotten = True
        if self._outgoing or self._closing:
            self._expect_reset()

    def _expect_reset(self) -> None:
        for source, target in ((self.host, self.peer_host), (self.peer_host, self.host)):
            if self._wire.is_cut(source, target):
                self._wire.when_mended(source, target, self._expect_reset)
                return
        delay = self._wire.latency(self.host, self.peer_host) + self._wire.latency(self.peer_host, self.host)
        self._loop.call_later(delay, self.reset, context=self._context)

    def _later(self, callback: Any, *arguments: Any) -> None:
        """Call after the delay of a piece, as the other host."""
        delay = self._wire.latency(self.host, self.peer_host)
        self._loop.call_later(delay, callback, *arguments, context=self.peer._context)

    def _pump(self) -> None:
        """Have the next piece travel, one at a time per direction so that order is kept."""
        if self._pumping or self._lost or (not self._outgoing and not self._closing):
            return
        if self._is_forgotten:
            self._expect_reset()
            return
        self._pumping = True
        random = self._random.random
        budget = 1 + int(random() * (SEGMENT_BYTES_MAX if random() > SMALL_SHARE else SMALL_BYTES_MAX))
        delay = self._wire.latency(self.host, self.peer_host)
        rate = self._wire.rate(self.host, self.peer_host)
        if rate is not None:
            budget = min(budget, max(1, int(rate / 4)))
            delay += min(budget, self._buffered) / rate
        self._loop.call_later(delay, self._travel, budget, context=self.peer._context)

    def _travel(self, budget: int) -> None:
        self._pumping = False
        if self._lost:
            return
        if self._wire.is_cut(self.host, self.peer_host):
            self._pumping = True
            self._wire.when_mended(self.host, self.peer_host, lambda: self._later(self._travel, budget))
            return
        if self.peer._lost:
            self._pumping = True  # nobody takes it, and the reset that says so is on its way
            return
        if self._outgoing:
            if self.peer._reading_paused:
                return
            self._deliver(budget)
        if self._outgoing:
            self._pump()
        elif self._closing:
            self.peer._lose(None)
            self._loop.call_soon(self._lose, None, context=self._context)

    def _deliver(self, budget: int) -> None:
        """Give the peer so many bytes at most of what has arrived."""
        delivered = 0
        while self._outgoing and budget > 0 and not self.peer._lost and not self.peer._reading_paused:
            target = memoryview(self.peer._protocol.get_buffer(min(self._buffered - delivered, budget)))[:budget]
            count = self._fill(target)
            budget -= count
            delivered += count
            self.peer._protocol.buffer_updated(count)
        self._buffered -= delivered
        self._wire.trace.note(self.peer_host, "bytes", frm=self.host, count=delivered)
        if self._writing_paused and self._buffered <= self._low:
            self._writing_paused = False
            self._loop.call_soon(self._resume, context=self._context)

    def _fill(self, target: memoryview) -> int:
        """Move bytes into `target`, across the bounds between writes, and return how many."""
        filled = 0
        while self._outgoing and filled < len(target):
            piece = self._outgoing.popleft()
            count = min(len(piece), len(target) - filled)
            target[filled : filled + count] = piece[:count]
            if count < len(piece):
                self._outgoing.appendleft(piece[count:])
            filled += count
        return filled

    def _resume(self) -> None:
        if not self._lost:
            self._protocol.resume_writing()

    def _lose(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._outgoing.clear()
        self._buffered = 0
        if error is not None:
            self._wire.trace.note(self.host, "reset", by=self.peer_host)
        self._loop.call_soon(self._protocol.connection_lost, error, context=self._context)
