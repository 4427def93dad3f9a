"""Files of the cluster as streams: a reader that seeks, and a writer whose file appears when it is closed."""

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

from peer.files.entries import PutResult
from peer.files.operations import FileContent, Operations
from protocol.hashing import Buffer
from protocol.identity import OpId

PIPE_BYTES = 4 * 1024 * 1024
"""Kept by a reader for whoever reads on, and by a writer until the cluster takes it."""
BLOCK_BYTES = 1024 * 1024


class RemoteReader:
    """One version of a file, open for reading; it stays what it was, whatever is put at its path meanwhile.

    Every byte that is returned is verified, and comes from whichever members have it: one that dies is passed over.
    Use it as ``async with``, or call `close`. Not for several tasks at once, except for `read_at`.
    """

    def __init__(self, content: FileContent) -> None:
        self.entry = content.entry
        """What the file is: its size, version, mode, time."""
        self._content = content
        self._position = 0
        self._streams_from = -1
        """Where a read has ended: one that begins there is taken for the second of many."""
        self._stream: _Stream | None = None

    async def read(self, count: int = -1) -> bytes:
        """Return the next `count` bytes (negative: all the rest), fewer at the end of the file; empty when there are none.

        Raises: Unavailable, DataLost.
        """
        end = self.entry.size if count < 0 else min(self._position + count, self.entry.size)
        if end <= self._position:
            return b""
        if self._stream is None:
            if self._position != self._streams_from:
                data = await self.read_at(self._position, end - self._position)
                self._position = self._streams_from = end
                return data
            self._stream = _Stream(self._content, self._position)
        data = await self._stream.take(end - self._position)
        self._position += len(data)
        return data

    async def read_at(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset` on, fewer at the end of the file. The position stays.

        Raises: Unavailable, DataLost.
        """
        if offset < 0 or count < 0:
            raise ValueError("offset and count cannot be negative")
        data = bytearray()

        async def write(piece: Buffer) -> None:
            data.extend(piece)

        await self._content.read(offset, offset + count, write)
        return bytes(data)

    async def seek(self, position: int) -> None:
        """Read on from `position`; behind the end there is nothing."""
        if position < 0:
            raise ValueError("a position cannot be negative")
        if position != self._position:
            await self.close()
            self._position = position
            self._streams_from = -1

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._position

    async def close(self) -> None:
        """Stop what is fetched ahead."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await stream.close()

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


class _Stream:
    """The rest of a content, fetched ahead of its reader."""

    def __init__(self, content: FileContent, begin: int) -> None:
        self._pipe = _Pipe()
        self._task = asyncio.get_running_loop().create_task(content.read(begin, content.entry.size, self._pipe.put))
        self._task.add_done_callback(lambda done: self._pipe.end())

    async def take(self, count: int) -> bytes:
        """Return the next `count` bytes, of which there must be so many.

        Raises: Unavailable, DataLost.
        """
        data = bytearray()
        while len(data) < count:
            piece = await self._pipe.take(count - len(data))
            if not piece:
                await self._task  # it has failed: it says why
            data += piece
        return bytes(data)

    async def close(self) -> None:
        """Stop fetching."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class _Pipe:
    """Bytes from one task to another, PIPE_BYTES of them and what was put last."""

    def __init__(self) -> None:
        self._pieces: deque[memoryview] = deque()
        self._bytes = 0
        self._ended = False
        self._changed = asyncio.Event()

    async def put(self, data: Buffer) -> None:
        """Add a copy of `data` once there is room; after the end it is dropped."""
        while self._bytes >= PIPE_BYTES and not self._ended:
            await self._change()
        if len(data) and not self._ended:
            self._pieces.append(memoryview(bytes(data)))
            self._bytes += len(data)
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

    def __init__(self, operations: Operations, path: str, op_id: OpId | None) -> None:
        self._pipe = _Pipe()
        self._closed = False
        self._put = asyncio.get_running_loop().create_task(operations.put(path, self._read, size=None, op_id=op_id))
        self._put.add_done_callback(lambda done: self._pipe.end())

    async def write(self, data: Buffer) -> int:
        """Take `data`, waiting while earlier data is on its way, and return its length in bytes.

        Raises: what `Operations.put` raises, as soon as it fails.
        """
        if self._closed:
            raise ValueError("the file is closed")
        await self._pipe.put(data)
        if self._put.done():
            self._put.result()
        return len(data)

    async def close(self) -> PutResult:
        """Commit the file and return what it is now; a second call says the same.

        Raises: what `Operations.put` raises.
        """
        self._closed = True
        self._pipe.end()
        return await self._put

    async def abort(self) -> None:
        """Leave everything as it was."""
        self._closed = True
        self._put.cancel()
        await asyncio.gather(self._put, return_exceptions=True)

    async def __aenter__(self) -> Self:
        """Return this writer."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Commit the file, or after an exception leave everything as it was."""
        if kind is None:
            await self.close()
        else:
            await self.abort()

    async def _read(self, count: int) -> bytes:
        return bytes(await self._pipe.take(count))
