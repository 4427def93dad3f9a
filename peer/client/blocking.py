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
import concurrent.futures
import io
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from peer.client.asynchronous import Client
from peer.client.streams import RemoteReader, RemoteWriter
from peer.errors import WrongUsage
from peer.files.cluster_status import ClusterStatus
from peer.files.entries import ChunkPlace, Entry, PutResult, Stat
from peer.real.loop import new_runner
from protocol.hashing import Buffer
from protocol.identity import NodeId
from protocol.messages import Forced

T = TypeVar("T")

READ_BUFFER_BYTES = 256 * 1024
LISTED_AT_ONCE = 256
"""Entries of a listing that are fetched from the loop's thread at a time."""


@contextmanager
def connect(
    node: str | Sequence[str] = (), *, home: str | os.PathLike[str] | None = None, key: str | None = None
) -> "Iterator[BlockingClient]":
    """Yield a blocking client of a cluster. Arguments and errors are those of `Client.connect`."""
    loop = LoopThread()
    try:
        stack = AsyncExitStack()
        client = loop.run(stack.enter_async_context(Client.connect(node, home=home, key=key)))
        try:
            yield BlockingClient(client, loop)
        finally:
            loop.run(stack.aclose())
    finally:
        loop.close()


class BlockingClient:
    """A client of one cluster, as `peer.connect` gives it. Each method does, and raises, what that of `Client` does.

    Ctrl-C cancels the call that is under way: a get leaves no file, a put may or may not have taken effect.
    """

    def __init__(self, client: Client, loop: "LoopThread") -> None:
        self._client = client
        self._loop = loop

    @property
    def on_wait(self) -> Callable[[str], None]:
        """Is told in one line what a call waits for, when machines do not answer for two seconds; called in the client's own thread."""
        return self._client.on_wait

    @on_wait.setter
    def on_wait(self, told: Callable[[str], None]) -> None:
        self._client.on_wait = told

    def put_file(
        self,
        local: str | os.PathLike[str],
        path: str,
        *,
        on_progress: Callable[[int], None] | None = None,
        op_id: bytes | None = None,
    ) -> PutResult:
        """Store a file of this machine. `on_progress` is called in the client's own thread."""
        return self._loop.run(self._client.put_file(local, path, on_progress=on_progress, op_id=op_id))

    def get_file(self, path: str, local: str | os.PathLike[str], *, on_progress: Callable[[int], None] | None = None) -> Entry:
        """Fetch a file to this machine. `on_progress` is called in the client's own thread."""
        return self._loop.run(self._client.get_file(path, local, on_progress=on_progress))

    def put_bytes(self, path: str, data: Buffer, *, op_id: bytes | None = None) -> PutResult:
        """Store `data` as a file."""
        return self._loop.run(self._client.put_bytes(path, data, op_id=op_id))

    def get_bytes(self, path: str, begin: int = 0, end: int | None = None) -> bytes:
        """Return the bytes of a file, or a part of them."""
        return self._loop.run(self._client.get_bytes(path, begin, end))

    def open(self, path: str) -> io.BufferedReader:
        """Open a file, as it is now, for reading: a binary file object that seeks, fit for `zipfile`, `csv`, `pandas` and the like."""
        return io.BufferedReader(_RawReader(self._loop.run(self._client.open(path)), self._loop), READ_BUFFER_BYTES)

    def create(self, path: str, *, op_id: bytes | None = None) -> "BlockingWriter":
        """Write a file piece by piece. It appears when the writer is closed."""
        return BlockingWriter(self._loop.call(lambda: self._client.create(path, op_id=op_id)), self._loop)

    def list(self, path: str, *, recursive: bool = False) -> Iterator[Entry]:
        """Yield what is in a folder."""
        return self._each(self._client.list(path, recursive=recursive))

    def entry(self, path: str) -> Entry:
        """Return what there is at a path."""
        return self._loop.run(self._client.entry(path))

    def exists(self, path: str) -> bool:
        """Return whether there is something at a path."""
        return self._loop.run(self._client.exists(path))

    def stat(self, path: str) -> Stat:
        """Look closely at one path."""
        return self._loop.run(self._client.stat(path))

    def where(self, path: str) -> Iterator[ChunkPlace]:
        """Yield which members hold each chunk of a file."""
        return self._each(self._client.where(path))

    def copy(self, source: str, target: str, *, op_id: bytes | None = None) -> PutResult:
        """Copy a file; no content is moved."""
        return self._loop.run(self._client.copy(source, target, op_id=op_id))

    def move(self, source: str, target: str) -> PutResult:
        """Give a file another name."""
        return self._loop.run(self._client.move(source, target))

    def remove(self, path: str, *, recursive: bool = False) -> int:
        """Remove a file or a folder and return how many entries went."""
        return self._loop.run(self._client.remove(path, recursive=recursive))

    def make_directory(self, path: str) -> None:
        """Make a folder and those above it."""
        self._loop.run(self._client.make_directory(path))

    def status(self) -> ClusterStatus:
        """Ask every member how it is."""
        return self._loop.run(self._client.status())

    def forget(self, node_id: NodeId) -> None:
        """Have a member that is dead left out at once."""
        self._loop.run(self._client.forget(node_id))

    def force(self, gone: Sequence[NodeId], *, begin: bool) -> Forced:
        """Go on without members that are gone for good, as another cluster, or tell what that costs."""
        return self._loop.run(self._client.force(gone, begin=begin))

    def set_rebalance(self, *, paused: bool) -> tuple[str, ...]:
        """Have all members stop, or go on, moving copies of which there are enough; return the names of those that did not answer."""
        return self._loop.run(self._client.set_rebalance(paused=paused))

    def _each(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def some() -> list[T]:
            batch: list[T] = []
            async for item in items:
                batch.append(item)
                if len(batch) == LISTED_AT_ONCE:
                    break
            return batch

        while batch := self._loop.run(some()):
            yield from batch


class BlockingWriter:
    """A file that is being written. In a ``with`` block it appears at the end of the block, and nothing does after an exception.

    Fit to be written to by `zipfile`, `tarfile`, `csv` (in an `io.TextIOWrapper`) and the like. What wraps a file closes it also
    after an exception, so within the block `close` only ends the writing.
    """

    def __init__(self, writer: RemoteWriter, loop: "LoopThread") -> None:
        self._writer = writer
        self._loop = loop
        self._position = 0
        self._in_block = False
        self._is_closed = False

    @property
    def closed(self) -> bool:
        """Whether nothing can be written any more."""
        return self._is_closed

    @property
    def result(self) -> PutResult:
        """What the file is, once it has appeared.

        Raises: ValueError before that and after `abort`, and what the put of it raised.
        """
        if not self._writer.closed:
            raise ValueError("the file is not there yet: it appears at the end of the block, or when it is closed")
        return self._loop.run(self._writer.close())

    def write(self, data: Buffer) -> int:
        """Take `data`."""
        if self._is_closed:
            raise ValueError("the file is closed")
        count = self._loop.run(self._writer.write(data))
        self._position += count
        return count

    def writelines(self, lines: Iterable[Buffer]) -> None:
        """Take each of `lines`."""
        for line in lines:
            self.write(line)

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._position

    def flush(self) -> None:
        """Nothing is held back here; what was written becomes durable when the file appears."""

    def readable(self) -> bool:
        """Return that it is not."""
        return False

    def writable(self) -> bool:
        """Return that it is."""
        return True

    def seekable(self) -> bool:
        """Return that it is not."""
        return False

    def close(self) -> None:
        """Let the file appear, in a ``with`` block at the end of that."""
        self._is_closed = True
        if not self._in_block:
            self._loop.run(self._writer.close())

    def abort(self) -> None:
        """Leave everything as it was."""
        self._is_closed = True
        self._loop.run(self._writer.abort())

    def __enter__(self) -> Self:
        """Return this writer."""
        self._in_block = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let the file appear, or after an exception or `abort` leave everything as it was."""
        self._in_block = False
        self._is_closed = True
        self._loop.run(self._writer.__aexit__(kind, error, trace))


class _RawReader(io.RawIOBase):
    """`RemoteReader` as the raw part of a binary file object."""

    def __init__(self, reader: RemoteReader, loop: "LoopThread") -> None:
        self._reader = reader
        self._loop = loop

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._loop.run(self._reader.read(len(view)))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._loop.run(self._reader.read())

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._reader.tell(), io.SEEK_END: self._reader.entry.size}
        if whence not in bases:
            raise ValueError(f"whence cannot be {whence}")
        position = bases[whence] + offset
        self._loop.call(lambda: self._reader.seek(position))
        return position

    def tell(self) -> int:
        return self._reader.tell()

    def close(self) -> None:
        if not self.closed:
            super().close()
            with suppress(WrongUsage):  # with the client its files are closed as well
                self._loop.run(self._reader.close())


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._runner = new_runner()
        self._loop = self._runner.get_loop()
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._body, name="shoal client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns, done in the loop's thread; an interrupt of this thread cancels it.

        Raises: what `work` raises, WrongUsage when the loop is closed before it has ended.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("the client's own thread would wait for itself: a callback cannot use the client")
        with self._lock:  # what is begun before the loop is told to stop is known to it, and cancelled by it
            if self._is_closed:
                work.close()
                raise WrongUsage("this client is closed: connect again")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise WrongUsage("this client was closed meanwhile: connect again") from None
        except BaseException:
            future.cancel()
            raise

    def call(self, work: Callable[[], T]) -> T:
        """Return `work()`, done in the loop's thread."""

        async def body() -> T:
            return work()

        return self.run(body())

    def close(self) -> None:
        """End the loop, what is still under way in it, and its thread."""
        with self._lock:
            self._is_closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _body(self) -> None:
        self._loop.run_forever()
        self._runner.close()
