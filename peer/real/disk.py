"""Files of one folder, by a few threads.

Owns the translation of `OSError`: what is harmless becomes `DiskError`; an input or output error, and any failed sync, becomes
`StorageFailed` for good, because after a failed sync the kernel may call pages clean that were never written
(Rebello et al., "Can applications recover from fsync failures?", USENIX ATC 2020).
"""

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from peer.errors import DiskError, StorageFailed
from peer.real.threads import Threads
from protocol.hashing import Buffer

T = TypeVar("T")

THREADS = 4
_FATAL = frozenset({errno.EIO, errno.EROFS, errno.ENODEV, errno.ENXIO, errno.EUCLEAN})
_UNREADABLE = frozenset({errno.EIO, errno.EUCLEAN, errno.EBADMSG})
"""What a read of a file meets whose place on the disk has gone bad."""
_IOV_MAX = 512


class RealDisk:
    """`peer.seams.Disk` on a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._threads = Threads(THREADS, "disk")
        self._failure: StorageFailed | None = None

    async def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes of a file."""
        return await self._run(path, lambda: self._read(path, offset, length))

    async def write(self, path: str, parts: Sequence[Buffer]) -> None:
        """Create or replace a file."""
        await self._run(path, lambda: self._write(path, parts))

    async def sync(self, path: str) -> None:
        """Make the content of a file durable."""
        await self._run(path, lambda: self._sync(path, os.O_RDWR, os.fdatasync))

    async def rename(self, source: str, target: str) -> None:
        """Rename a file."""
        await self._run(source, lambda: os.replace(self._root / source, self._root / target))

    async def place(self, temporary: str, path: str, parts: Sequence[Buffer]) -> None:
        """Write, sync and rename in one go."""
        await self._run(path, lambda: self._place(temporary, path, parts))

    async def sync_directories(self, paths: Sequence[str]) -> None:
        """Make the names in folders durable."""
        await self._run(paths[0], lambda: self._sync_directories(paths))

    async def remove(self, path: str) -> None:
        """Remove a file."""
        await self._run(path, lambda: (self._root / path).unlink(missing_ok=True))

    async def make_directory(self, path: str) -> None:
        """Create a folder."""
        await self._run(path, lambda: (self._root / path).mkdir(parents=True, exist_ok=True))

    async def names(self, path: str) -> list[str]:
        """Return the names in a folder."""
        return await self._run(path, lambda: self._names(path))

    async def space(self) -> tuple[int, int]:
        """Return (total, free) bytes."""
        usage = await self._run("", lambda: shutil.disk_usage(self._root))
        return usage.total, usage.free

    def close(self) -> None:
        """Finish what is under way."""
        self._threads.close()

    async def _run(self, path: str, work: Callable[[], T]) -> T:
        return await self._threads.run(lambda: self._guarded(path, work))

    def _guarded(self, path: str, work: Callable[[], T]) -> T:
        """Work in a thread. A failure is noted there: whoever asked may have been cancelled, and others wait in the queue."""
        if self._failure is not None:
            raise self._failure
        try:
            return work()
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno in _FATAL:
                raise self._fail(path, reason) from None
            raise DiskError(
                path,
                reason,
                full=error.errno in (errno.ENOSPC, errno.EDQUOT),
                missing=error.errno in (errno.ENOENT, errno.ENOTDIR),
            ) from None

    def _fail(self, path: str, reason: str) -> StorageFailed:
        if self._failure is None:
            self._failure = StorageFailed(f"{self._root / path}: {reason}: this node stops; check the disk, then start it again")
        return self._failure

    def _read(self, path: str, offset: int, length: int | None) -> bytes:
        with (self._root / path).open("rb", buffering=0) as file:
            if offset:
                file.seek(offset)
            try:
                return file.read(-1 if length is None else length) or b""
            except OSError as error:
                if error.errno not in _UNREADABLE:
                    raise
                # One bad place of the disk: nothing that was believed written elsewhere is in doubt.
                raise DiskError(path, error.strerror or str(error), damaged=True) from None

    def _place(self, temporary: str, path: str, parts: Sequence[Buffer]) -> None:
        self._write(temporary, parts, durably=True)
        os.replace(self._root / temporary, self._root / path)

    def _sync_directories(self, paths: Sequence[str]) -> None:
        for path in paths:
            self._sync(path, os.O_RDONLY | os.O_DIRECTORY, os.fsync)

    def _write(self, path: str, parts: Sequence[Buffer], *, durably: bool = False) -> None:
        descriptor = os.open(self._root / path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            left = [memoryview(part) for part in parts if len(part)]
            while left:
                written = os.writev(descriptor, left[:_IOV_MAX])
                while left and written >= len(left[0]):
                    written -= len(left.pop(0))
                if written:
                    left[0] = left[0][written:]
            if durably:
                self._sync_open(path, descriptor, os.fdatasync)
        finally:
            os.close(descriptor)

    def _sync(self, path: str, flags: int, sync: Callable[[int], None]) -> None:
        descriptor = os.open(self._root / path, flags | os.O_CLOEXEC)  # a file that is not there is harmless, a failed sync never
        try:
            self._sync_open(path, descriptor, sync)
        finally:
            os.close(descriptor)

    def _sync_open(self, path: str, descriptor: int, sync: Callable[[int], None]) -> None:
        try:
            sync(descriptor)
        except OSError as error:
            raise self._fail(path, error.strerror or str(error)) from None

    def _names(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(self._root / path))
        except (FileNotFoundError, NotADirectoryError):
            return []
