"""Files of the cluster as streams: a reader that seeks, and a writer whose file appears when it is closed."""

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar

from peer.files.entries import PutResult
from peer.files.operations import FileContent, Operations
from protocol.hashing import Buffer

T = TypeVar("T")

PIPE_BYTES = 4 * 1024 * 1024
"""Kept by a reader for whoever reads on, and by a writer until the cluster takes it."""
BLOCK_BYTES = 1024 * 1024


class RemoteReader:
    """One version of a file, open for reading; it stays what it was, whatever is put at its path meanwhile.

    Every byte that is returned is verified, and comes from whichever members have it: one that dies is passed over.
    Use it as ``async with``, or call `close`. Not for several tasks at once, except for `read_at`.
    A `read` that fails or is cancelled leaves the position where it was: the next one may be tried there.
    """

    def __init__(self, content: FileContent) -> None:
        self.entry = content.entry
        """What the file is: its size, version, mode, time."""
        self._content = content
        self._position = 0
        self._run_begin = 0
        """From here on everything was read in order. Who has read a chunk so reads on, and the next ones are fetched ahead."""
        self._block_begin, self._block = 0, memoryview(b"")
        """The chunk or two that a small read was the last to touch: they come whole, and small reads come close to each other."""
        self._stream: _Stream | None = None
        self._closed = False

    async def read(self, count: int = -1) -> bytes:
        """Return the next `count` bytes (negative: all the rest), fewer at the end of the file; empty when there are none.

        Raises: Unavailable, DataLost.
        """
        self._refuse_when_closed()
        end = self.entry.size if count < 0 else min(self._position + count, self.entry.size)
        if end <= self._position:
            return b""
        data = b""
        if self._stream is None:
            data = self._at_hand(self._position, end)
            position = self._position + len(data)
            if position < end and position - self._run_begin >= self._content.chunk_bytes:
                self._stream = _Stream(self._content, position)
            else:
                data += await self.read_at(position, end - position)
        if self._stream is not None:
            try:
                data += await self._stream.take(end - self._position - len(data))
            except BaseException:
                self._drop_stream()  # some of its bytes may be gone
                raise
        self._position = end
        return data

    async def read_at(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset` on, fewer at the end of the file. The position stays.

        Raises: Unavailable, DataLost.
        """
        self._refuse_when_closed()
        if offset < 0 or count < 0:
            raise ValueError("offset and count cannot be negative")
        end, unit = min(offset + count, self.entry.size), self._content.chunk_bytes
        if end - offset >= unit:
            return bytes(await self._fetch(offset, end))
        data = self._at_hand(offset, end)
        offset += len(data)
        if offset < end:
            begin = offset - offset % unit
            block = await self._fetch(begin, end + -end % unit)
            self._block_begin, self._block = begin, block
            data += block[offset - begin : end - begin]
        return data

    def seek(self, position: int) -> None:
        """Read on from `position`; behind the end there is nothing."""
        self._refuse_when_closed()
        if position < 0:
            raise ValueError("a position cannot be negative")
        if position != self._position:
            self._drop_stream()
            self._position = self._run_begin = position

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._position

    async def close(self) -> None:
        """Stop what is fetched ahead; a `read` that waits for that ends with ValueError, any other with what it asked for."""
        self._closed = True
        if self._stream is not None:
            await self._stream.close()

    def __aiter__(self) -> Self:
        """Yield the rest of the file in blocks."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next block."""
        block = await self.read(BLOCK_BYTES)
        if not block:
            raise StopAsyncIteration
        return block

    async def __aenter__(self) -> Self:
        """Return this reader."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it."""
        await self.close()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise ValueError(f"{self.entry.path} is closed")

    def _at_hand(self, offset: int, end: int) -> bytes:
        """Return of the bytes from `offset` to `end` the first ones, as far as a small read has left them here."""
        first = offset - self._block_begin
        return bytes(self._block[first : end - self._block_begin]) if first >= 0 else b""

    async def _fetch(self, begin: int, end: int) -> memoryview:
        data = bytearray()

        async def write(piece: Buffer) -> None:
            data.extend(piece)

        await self._content.read(begin, end, write)
        return memoryview(data)

    def _drop_stream(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None


class _Stream:
    """The rest of a content, fetched ahead of its reader."""

    def __init__(self, content: FileContent, begin: int) -> None:
        self._path = content.entry.path
        self._pipe = _Pipe()
        self._task = _background(content.read(begin, content.entry.size, self._pipe.put), self._pipe)

    async def take(self, count: int) -> bytes:
        """Return the next `count` bytes, of which there must be so many.

        Raises: Unavailable, DataLost; ValueError when it was stopped.
        """
        data = bytearray()
        while len(data) < count:
            piece = await self._pipe.take(count - len(data))
            if not piece:
                _result(self._task, f"{self._path} was closed while it was read")
                raise AssertionError("a content that was read to its end was too short")
            data += piece
        return bytes(data)

    def cancel(self) -> None:
        """Stop fetching, without waiting for the end of it."""
        self._task.cancel()

    async def close(self) -> None:
        """Stop fetching."""
        self._task.cancel()
        await asyncio.wait([self._task])

    def __del__(self) -> None:
        """Stop fetching for a reader that was forgotten."""
        _stop_forgotten(self._task)


class _Pipe:
    """Bytes from one task to another, PIPE_BYTES of them and what was put last."""

    def __init__(self) -> None:
        self._pieces: deque[memoryview] = deque()
        self._bytes = 0
        self._ended = False
        self._changed = asyncio.Event()

    async def put(self, data: Buffer) -> None:
        """Add a copy of `data` once there is room; after the end it is dropped."""
        piece = memoryview(bytes(data))
        while self._bytes >= PIPE_BYTES and not self._ended:
            await self._change()
        if len(piece) and not self._ended:
            self._pieces.append(piece)
            self._bytes += len(piece)
            self._changed.set()

    async def take(self, count: int) -> memoryview:
        """Return 1 to `count` bytes once there are any, none at the end."""
        while not self._pieces and not self._ended:
            await self._change()
        if not self._pieces:
            return memoryview(b"")
        first = self._pieces.popleft()
        if len(first) > count:
            self._pieces.appendleft(first[count:])
            first = first[:count]
        self._bytes -= len(first)
        self._changed.set()
        return first

    def end(self) -> None:
        """Say that nothing is put or taken any more; what is there can still be taken."""
        self._ended = True
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class RemoteWriter:
    """A file that is being written; it appears, whole, when `close` returns. Until then readers see what was there before.

    Use it as ``async with``: an exception in the block leaves everything as it was. Not for several tasks at once.
    """

    def __init__(self, operations: Operations, path: str, op_id: bytes | None) -> None:
        self._path = path
        self._pipe = pipe = _Pipe()
        self._closed = self._given_up = False

        async def read(count: int) -> bytes:
            return bytes(await pipe.take(count))  # knows nothing of the writer, which may be forgotten

        self._put = _background(operations.put(path, read, size=None, op_id=op_id), pipe)

    @property
    def closed(self) -> bool:
        """Whether nothing can be written any more."""
        return self._closed

    async def write(self, data: Buffer) -> int:
        """Take `data`, waiting while earlier data is on its way, and return its length in bytes.

        Raises: what `Operations.put` raises, as soon as it fails.
        """
        if self._closed:
            raise ValueError(f"{self._path} is closed")
        view = memoryview(data).cast("B")
        await self._pipe.put(view)
        if self._put.done():
            self._put.result()
        return len(view)

    async def close(self) -> PutResult:
        """Commit the file and return what it is now; a second call says the same.

        Cancelled, it leaves the outcome unknown.

        Raises: what `Operations.put` raises, ValueError after `abort`.
        """
        self._closed = True
        self._pipe.end()
        try:
            await asyncio.wait([self._put])
        except asyncio.CancelledError:
            self._put.cancel()
            raise
        return _result(self._put, f"{self._path}: the writing of it was given up")

    async def abort(self) -> None:
        """Leave everything as it was. After `close` has begun it may be too late for that."""
        self._closed = self._given_up = True
        self._put.cancel()
        await asyncio.wait([self._put])

    async def __aenter__(self) -> Self:
        """Return this writer."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Commit the file, or after an exception or `abort` leave everything as it was."""
        if kind is None and not self._given_up:
            await self.close()
        else:
            await self.abort()

    def __del__(self) -> None:
        """Leave everything as it was when the writer was forgotten."""
        _stop_forgotten(self._put)


def _background(work: Coroutine[None, None, T], pipe: _Pipe) -> asyncio.Task[T]:
    """Begin `work` at one end of `pipe`, and end the pipe with it."""

    def end(task: asyncio.Task[T]) -> None:
        pipe.end()
        if not task.cancelled():
            task.exception()  # whoever is at the other end is told; there may be nobody any more

    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(end)
    return task


def _stop_forgotten(task: asyncio.Task[T]) -> None:
    """Cancel a task at whose pipe nobody is left, from whichever thread collects it: it would wait for ever."""
    if not task.done():
        with suppress(RuntimeError):  # its loop is closed
            task.get_loop().call_soon_threadsafe(task.cancel)


def _result(task: asyncio.Task[T], given_up: str) -> T:
    """Return what a task that has ended returned.

    Raises: what it raised, ValueError when it was cancelled: that must not look as if its caller were.
    """
    if task.cancelled():
        raise ValueError(given_up)
    return task.result()
