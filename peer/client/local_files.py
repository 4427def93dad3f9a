"""Files of this machine to and from the cluster, one at a time.

Owns how a local file is read (and noticed to change meanwhile), and how one is written: beside its target, then renamed; taken up
again where an earlier try has the right bytes. Knows nothing of chunks.
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import stat as stat_bits
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from peer.errors import AlreadyThere, LocalFault, WrongUsage
from peer.files.entries import Entry, PutResult
from peer.files.operations import Operations
from protocol.hashing import Buffer

GET_TRIES = 3
"""So often a file may change between being looked at and being fetched."""
PARTIAL_NAME_BYTES = 200
"""Of the target's name in the name of the partial file, which has to stay under 255 bytes."""
PARTIAL_HASH_DIGITS = 8
STDIN = 0
Progress = Callable[[int], None]
T = TypeVar("T")


def local_fault(path: object, verb: str, error: OSError) -> LocalFault:
    """Return an error of the operating system as one line about `path`."""
    return LocalFault(f"{path}: cannot {verb} it: {error.strerror or error}")


async def put_file(client: Operations, path: Path, remote: str, progress: Progress, op_id: bytes | None = None) -> PutResult:
    """Store the regular file `path`, with its mode and time, as `remote`.

    Raises: LocalFault, and what `Operations.put` raises; when the file changes meanwhile nothing is stored.
    """
    try:
        file = await asyncio.to_thread(open, path, "rb", buffering=0, opener=_open_at_once)
    except OSError as error:
        raise local_fault(path, "read", error) from None
    with file:
        before = os.fstat(file.fileno())
        if not stat_bits.S_ISREG(before.st_mode):
            raise not_regular(path)
        done = 0

        async def read(count: int) -> bytes:
            nonlocal done
            try:
                data: bytes = await asyncio.to_thread(file.read, count)
                done += len(data)
                if not data or done >= before.st_size:
                    check_unchanged(file, before, path)
            except OSError as error:
                raise local_fault(path, "read", error) from None
            return data

        return await client.put(
            remote,
            read,
            size=before.st_size,
            mode=stat_bits.S_IMODE(before.st_mode) & 0o777,
            modified_milliseconds=max(0, before.st_mtime_ns // 1_000_000),
            on_progress=progress,
            op_id=op_id,
        )


def not_regular(path: object) -> WrongUsage:
    """Return why `path` cannot be stored."""
    return WrongUsage(f"{path} is no regular file: use - and a pipe to store what it gives")


def _open_at_once(path: str | Path, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)  # a pipe without a writer would wait for one, also when this process ends


def check_unchanged(file: BinaryIO, before: os.stat_result, path: Path) -> None:
    """Make sure that a file is still what it was.

    Raises: LocalFault.
    """
    now = os.fstat(file.fileno())
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise LocalFault(f"{path} changed while it was read: nothing was stored, put it again")


async def put_stdin(client: Operations, remote: str, progress: Progress) -> PutResult:
    """Store all that standard input gives.

    Raises: LocalFault, and what `Operations.put` raises.
    """

    async def read(count: int) -> bytes:
        try:
            return await in_own_thread(lambda: os.read(STDIN, count))
        except OSError as error:
            raise local_fault("standard input", "read", error) from None

    return await client.put(remote, read, size=None, on_progress=progress)


async def get_pipe(client: Operations, path: str, descriptor: int, progress: Progress, begin: int = 0, end: int | None = None) -> Entry:
    """Write a file, or a part of it, into a pipe.

    Raises: BrokenPipeError when nobody reads it any more, and what `Operations.get` raises.
    """

    async def write(data: Buffer) -> None:
        rest = memoryview(data)
        while rest:
            piece = rest
            rest = rest[await in_own_thread(lambda: os.write(descriptor, piece)) :]  # noqa: B023  # awaited in this round

    return await client.get(path, write, on_progress=progress, begin=begin, end=end)


async def in_own_thread(work: Callable[[], T]) -> T:
    """Return `work()`, done in a thread that does not keep the process alive.

    A pipe may block for ever, and an executor's thread that is blocked would be waited for at exit.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(set_it: Callable[[], None]) -> None:
        if not done.done():
            set_it()

    def body() -> None:
        try:
            result = work()
        except OSError as error:
            fault = error
            loop.call_soon_threadsafe(settle, lambda: done.set_exception(fault))
        else:
            loop.call_soon_threadsafe(settle, lambda: done.set_result(result))

    threading.Thread(target=body, daemon=True).start()
    return await done


async def get_file(client: Operations, entry: Entry, local: Path, progress: Progress, found: Progress | None = None) -> Entry:
    """Fetch the file `entry` into `local`, which shows it whole or not at all. An earlier try of the same version is continued.

    What an earlier get has left there whole is verified and not fetched again. `found` (without it: `progress`) is told the bytes
    that were there already.

    As with `cp`, what a symbolic link points at is replaced, not the link, and a device or pipe is written into.

    Raises: LocalFault, and what `Operations.get` raises.
    """
    try:
        is_stream = await asyncio.to_thread(_is_stream, local)
        if local.is_symlink():
            local = local.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead to each other, before Python 3.13
        fault = error if isinstance(error, OSError) else OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        raise local_fault(local, "write", fault) from None
    if is_stream:
        try:
            return await _get_into_stream(client, entry.path, local, progress)
        except OSError as error:
            raise local_fault(local, "write", error) from None
    found = found or progress
    if await _is_whole(client, entry, local):
        found(entry.size)
        return entry
    for _ in range(GET_TRIES):
        try:
            async with _partial_file(partial_path(local, entry.version), local) as partial:
                fetched = await _get_partial(client, entry, partial, progress, found)
                if fetched.version == entry.version:
                    await asyncio.to_thread(_finish, partial, local, fetched)
                    return fetched
                # Replaced between the look and the fetch: what there is of the old version does not fit.
                partial.path.unlink()
        except OSError as error:
            raise local_fault(local, "write", error) from None
        entry = await client.entry(entry.path)
    raise AlreadyThere(f"{entry.path} is being replaced again and again: get it later")


async def _is_whole(client: Operations, entry: Entry, local: Path) -> bool:
    """Return whether `local` is what a get of `entry` would leave there: by its size, time and mode, and then by every byte."""
    try:
        descriptor = await asyncio.to_thread(_open_at_once, local, os.O_RDONLY)
    except OSError:
        return False
    try:
        here = os.fstat(descriptor)
        looks = (stat_bits.S_IFMT(here.st_mode), here.st_size, round(here.st_mtime * 1000), here.st_mode & 0o777)
        if looks != (stat_bits.S_IFREG, entry.size, entry.modified_milliseconds, entry.mode & 0o777):
            return False

        async def read_local(offset: int, count: int) -> bytes:
            return await asyncio.to_thread(_read_at, descriptor, offset, count)

        now, verified = await client.verified_prefix(entry.path, read_local)
        return now.version == entry.version and verified == entry.size
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _read_at(descriptor: int, offset: int, count: int) -> bytes:
    """Return `count` bytes from `offset` on, fewer at the end."""
    pieces = []
    while count and (piece := os.pread(descriptor, count, offset)):
        pieces.append(piece)
        offset += len(piece)
        count -= len(piece)
    return b"".join(pieces)


def _is_stream(local: Path) -> bool:
    """Return whether `local` takes bytes but is no file.

    Raises: LocalFault when it is a folder, OSError.
    """
    try:
        mode = local.stat().st_mode
    except FileNotFoundError:
        return False
    if stat_bits.S_ISDIR(mode):
        raise LocalFault(f"{local} is a folder: remove it, or choose another target")
    return not stat_bits.S_ISREG(mode)


async def _get_into_stream(client: Operations, path: str, local: Path, progress: Progress) -> Entry:
    # Opening a pipe waits for its reader, and writing into it for as long as that one likes.
    descriptor = await in_own_thread(lambda: os.open(local, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY))
    try:
        return await get_pipe(client, path, descriptor, progress)
    finally:
        os.close(descriptor)


def partial_path(local: Path, version: str) -> Path:
    """Return where a file lies until it is whole."""
    name = local.name.encode(errors="surrogateescape")
    text = name[:PARTIAL_NAME_BYTES].decode(errors="ignore")
    if len(name) > PARTIAL_NAME_BYTES:
        # Versions count in each row anew: two long names in one folder must not meet in one partial file.
        text += "." + hashlib.sha256(name).hexdigest()[:PARTIAL_HASH_DIGITS]
    return local.with_name(f".{text}.{version}.part")


@dataclass(frozen=True, slots=True)
class _Partial:
    """A partial file, open and locked."""

    path: Path
    descriptor: int

    def cut(self, size: int) -> None:
        """Leave the first `size` bytes, and write behind them from now on."""
        os.ftruncate(self.descriptor, size)
        os.lseek(self.descriptor, size, os.SEEK_SET)


@asynccontextmanager
async def _partial_file(path: Path, local: Path) -> AsyncIterator[_Partial]:
    """Yield the partial file `path`, this get's alone until the end of the block.

    Raises: LocalFault when another get has it, OSError.
    """
    descriptor = await asyncio.to_thread(_open_locked, path, local)
    try:
        yield _Partial(path, descriptor)
    finally:
        os.close(descriptor)


def _open_locked(path: Path, local: Path) -> int:
    for _ in range(GET_TRIES):
        # It is the owner's alone until it is whole, and nobody may have laid a link there.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            if not stat_bits.S_ISREG(os.fstat(descriptor).st_mode):
                raise LocalFault(f"{path} is in the way: move it, then get it again")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.lstat()):
                    return descriptor
            # Whoever held the lock has renamed the file into its place meanwhile: it is not ours to write into.
            os.close(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            raise LocalFault(f"{local}: another get is writing it: wait for that one, or choose another target") from None
        except BaseException:
            os.close(descriptor)
            raise
    raise LocalFault(f"{local}: other gets write it again and again: get it later")


async def _get_partial(client: Operations, entry: Entry, partial: _Partial, progress: Progress, found: Progress) -> Entry:
    """Bring the partial file to the whole of `entry`; what is returned is of another version when it was replaced meanwhile."""

    async def read_local(offset: int, count: int) -> bytes:
        return await asyncio.to_thread(_read_at, partial.descriptor, offset, count)

    async def write(data: Buffer) -> None:
        await asyncio.to_thread(write_all, partial.descriptor, data)

    begin = 0
    if os.fstat(partial.descriptor).st_size:
        # It may be torn by a power cut, or be of a file that bore the same name and version in another cluster.
        now, begin = await client.verified_prefix(entry.path, read_local)
        if now.version != entry.version:
            return now
    await asyncio.to_thread(partial.cut, begin)
    found(begin)
    return await client.get(entry.path, write, on_progress=progress, begin=begin)


def write_all(descriptor: int, data: Buffer) -> None:
    """Write all of `data` to a descriptor, which may take it in pieces."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _finish(partial: _Partial, local: Path, entry: Entry) -> None:
    """Let a whole file appear in its place, durably.

    Raises: LocalFault, OSError.
    """
    size = os.fstat(partial.descriptor).st_size
    if size != entry.size:
        raise LocalFault(f"{partial.path} has {size} bytes, not {entry.size}: something else writes to it: get it again")
    mode = entry.mode & 0o777
    os.fchmod(partial.descriptor, mode | stat_bits.S_IRUSR | stat_bits.S_IWUSR)  # if we die before the rename, the next try has to open it
    seconds = entry.modified_milliseconds / 1000
    os.utime(partial.descriptor, (seconds, seconds))
    os.fsync(partial.descriptor)
    partial.path.replace(local)
    os.fchmod(partial.descriptor, mode)
    folder = os.open(local.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # what some network file systems say of a folder
            raise
    finally:
        os.close(folder)
