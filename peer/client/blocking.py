"""The blocking client, for scripts: the same operations as `peer.client.asynchronous.Client`, each done when it returns.

    import peer

    with peer.connect() as client:
        client.put_file("film.mp4", "/films/film.mp4")
        with client.open("/films/film.mp4") as film:
            film.seek(1024)
            head = film.read(1024)

Owns one event loop in a thread of its own. May be used by several threads.
"""

import asyncio
import io
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from peer.client.asynchronous import Client
from peer.client.streams import RemoteReader, RemoteWriter
from peer.files.cluster_status import ClusterStatus
from peer.files.entries import ChunkPlace, Entry, PutResult, Stat
from peer.real.loop import new_runner
from protocol.hashing import Buffer
from protocol.identity import OpId

T = TypeVar("T")

READ_BUFFER_BYTES = 256 * 1024
LISTED_AT_ONCE = 256
"""Entries of a listing that are fetched from the loop's thread at a time."""


@contextmanager
def connect(
    node: str | Sequence[str] = (), *, home: str | os.PathLike[str] | None = None, key: str | None = None
) -> "Iterator[BlockingClient]":
    """Yield a blocking client of a cluster. Arguments and errors are those of `Client.connect`."""
    loop = _LoopThread()
    try:
        stack = AsyncExitStack()
        client = loop.run(stack.enter_async_context(Client.connect(node, home=home, key=key)))
        try:
            yield BlockingClient(client, loop.run)
        finally:
            loop.run(stack.aclose())
    finally:
        loop.close()


Run = Callable[[Coroutine[Any, Any, Any]], Any]


class BlockingClient:
    """A client of one cluster, as `peer.connect` gives it. Each method does, and raises, what that of `Client` does."""

    def __init__(self, client: Client, run: Run) -> None:
        self._client = client
        self._run = run

    def put_file(
        self,
        local: str | os.PathLike[str],
        path: str,
        *,
        on_progress: Callable[[int], None] | None = None,
        op_id: OpId | None = None,
    ) -> PutResult:
        """Store a file of this machine. `on_progress` is called in the client's own thread."""
        result: PutResult = self._run(self._client.put_file(local, path, on_progress=on_progress, op_id=op_id))
        return result

    def get_file(self, path: str, local: str | os.PathLike[str], *, on_progress: Callable[[int], None] | None = None) -> Entry:
        """Fetch a file to this machine. `on_progress` is called in the client's own thread."""
        entry: Entry = self._run(self._client.get_file(path, local, on_progress=on_progress))
        return entry

    def put_bytes(self, path: str, data: Buffer, *, op_id: OpId | None = None) -> PutResult:
        """Store `data` as a file."""
        result: PutResult = self._run(self._client.put_bytes(path, data, op_id=op_id))
        return result

    def get_bytes(self, path: str, begin: int = 0, end: int | None = None) -> bytes:
        """Return the bytes of a file, or a part of them."""
        data: bytes = self._run(self._client.get_bytes(path, begin, end))
        return data

    def open(self, path: str) -> io.BufferedReader:
        """Open a file, as it is now, for reading: a binary file object that seeks, fit for `zipfile`, `csv`, `pandas` and the like."""
        return io.BufferedReader(_RawReader(self._run(self._client.open(path)), self._run), READ_BUFFER_BYTES)

    def create(self, path: str, *, op_id: OpId | None = None) -> "BlockingWriter":
        """Write a file piece by piece. It appears when the writer is closed."""

        async def begin() -> RemoteWriter:
            return self._client.create(path, op_id=op_id)

        return BlockingWriter(self._run(begin()), self._run)

    def list(self, path: str, *, recursive: bool = False) -> Iterator[Entry]:
        """Yield what is in a folder."""
        return self._each(self._client.list(path, recursive=recursive))

    def entry(self, path: str) -> Entry:
        """Return what there is at a path."""
        entry: Entry = self._run(self._client.entry(path))
        return entry

    def exists(self, path: str) -> bool:
        """Return whether there is something at a path."""
        return bool(self._run(self._client.exists(path)))

    def stat(self, path: str) -> Stat:
        """Look closely at one path."""
        stat: Stat = self._run(self._client.stat(path))
        return stat

    def where(self, path: str) -> Iterator[ChunkPlace]:
        """Yield which members hold each chunk of a file."""
        return self._each(self._client.where(path))

    def copy(self, source: str, target: str, *, op_id: OpId | None = None) -> PutResult:
        """Copy a file; no content is moved."""
        result: PutResult = self._run(self._client.copy(source, target, op_id=op_id))
        return result

    def move(self, source: str, target: str) -> PutResult:
        """Give a file another name."""
        result: PutResult = self._run(self._client.move(source, target))
        return result

    def remove(self, path: str, *, recursive: bool = False) -> int:
        """Remove a file or a folder and return how many entries went."""
        return int(self._run(self._client.remove(path, recursive=recursive)))

    def make_directory(self, path: str) -> None:
        """Make a folder and those above it."""
        self._run(self._client.make_directory(path))

    def status(self) -> ClusterStatus:
        """Ask every member how it is."""
        status: ClusterStatus = self._run(self._client.status())
        return status

    def _each(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def some() -> list[T]:
            batch: list[T] = []
            async for item in items:
                batch.append(item)
                if len(batch) == LISTED_AT_ONCE:
                    break
            return batch

        while batch := self._run(some()):
            yield from batch


class BlockingWriter:
    """A file that is being written. As a context manager it commits at the end of the block, or nothing after an exception."""

    def __init__(self, writer: RemoteWriter, run: Run) -> None:
        self._writer = writer
        self._run = run

    def write(self, data: Buffer) -> int:
        """Take `data`."""
        return int(self._run(self._writer.write(data)))

    def close(self) -> PutResult:
        """Commit the file."""
        result: PutResult = self._run(self._writer.close())
        return result

    def abort(self) -> None:
        """Leave everything as it was."""
        self._run(self._writer.abort())

    def __enter__(self) -> Self:
        """Return this writer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Commit or abort."""
        if kind is None:
            self.close()
        else:
            self.abort()


class _RawReader(io.RawIOBase):
    """`RemoteReader` as the raw part of a binary file object."""

    def __init__(self, reader: RemoteReader, run: Run) -> None:
        self._reader = reader
        self._run = run

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data: bytes = self._run(self._reader.read(len(view)))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        data: bytes = self._run(self._reader.read())
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._reader.tell(), io.SEEK_END: self._reader.entry.size}[whence]
        self._run(self._reader.seek(base + offset))
        return base + offset

    def tell(self) -> int:
        return self._reader.tell()

    def close(self) -> None:
        if not self.closed:
            self._run(self._reader.close())
        super().close()


class _LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=self._body, name="shoal client", daemon=True)
        self._thread.start()
        self._started.wait()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns, done in the loop's thread; an interrupt of this thread cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the loop and its thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _body(self) -> None:
        with new_runner() as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._started.set()
        await self._stop.wait()
