"""A disk that keeps what was synced, and of the rest what the seed chooses.

Model: a file is content; a folder is names. Content is durable after `sync` of the file, a name (new, replaced, removed) after
`sync_directories` with its folder. At a crash every file whose content was not synced keeps its old content, a torn prefix of the
new, or all of it, and every unsynced name falls either way by itself: no order between them is promised, as on a real file system.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from peer.errors import DiskError, StorageFailed
from protocol.hashing import Buffer

LATENCY_SECONDS = (0.00005, 0.002)
TOTAL_BYTES = 1 << 40


@dataclass(slots=True)
class _File:
    content: bytes = b""
    durable: bytes = b""


class DiskState:
    """What is on one machine's disk: it outlives the processes that use it."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.names: dict[str, _File] = {}
        self.durable_names: dict[str, _File] = {}
        self.folders: dict[str, None] = {"": None}
        self.total_bytes = TOTAL_BYTES
        self.sync_fails = False
        """Whether the next sync meets an input or output error."""
        self.failure: StorageFailed | None = None

    def crash(self) -> None:
        """Lose power."""
        survivors: dict[str, _File] = {}
        for path in sorted({*self.names, *self.durable_names}):
            now, before = self.names.get(path), self.durable_names.get(path)
            file = now if now is before or self.random.random() < 0.5 else before
            if file is not None:
                survivors[path] = file
        for file in {id(file): file for file in survivors.values()}.values():
            if file.content != file.durable:
                file.content = file.durable = self._torn(file)
        self.failure = None
        self.names = dict(survivors)
        self.durable_names = dict(survivors)

    def rot(self, name: str, random: Random) -> None:
        """Flip one bit of the file `name`, in whatever folder it lies."""
        (file,) = [file for path, file in self.names.items() if path.rpartition("/")[2] == name]
        file.content = file.durable = flipped(file.content, random)

    def _torn(self, file: _File) -> bytes:
        choice = self.random.random()
        if choice < 0.4:
            return file.durable
        if choice < 0.6:
            return file.content
        return file.content[: self.random.randrange(len(file.content) + 1)]


class SimDisk:
    """`peer.seams.Disk` of one process."""

    def __init__(self, state: DiskState) -> None:
        self._state = state

    async def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes of a file."""
        await self._take_time()
        content = self._file(path).content
        return content[offset:] if length is None else content[offset : offset + length]

    async def write(self, path: str, parts: Sequence[Buffer]) -> None:
        """Create or replace a file."""
        content = b"".join(parts)
        await self._take_time()
        self._check_folder(path)
        file = self._state.names.get(path)
        if len(content) - (len(file.content) if file is not None else 0) > self._free():
            raise DiskError(path, "no space left", full=True)
        if file is None:
            file = self._state.names[path] = _File()
        file.content = content

    async def sync(self, path: str) -> None:
        """Make content durable."""
        await self._take_time()
        file = self._file(path)
        self._check_sync(path)
        file.durable = file.content

    async def rename(self, source: str, target: str) -> None:
        """Rename a file."""
        await self._take_time()
        self._check_folder(target)
        file = self._file(source)
        del self._state.names[source]
        self._state.names[target] = file

    async def place(self, temporary: str, path: str, parts: Sequence[Buffer]) -> None:
        """Write, sync, rename; power may fail between any two."""
        await self.write(temporary, parts)
        await self.sync(temporary)
        await self.rename(temporary, path)

    async def sync_directories(self, paths: Sequence[str]) -> None:
        """Make names durable, folder by folder."""
        for path in paths:
            await self._sync_directory(path)

    async def _sync_directory(self, path: str) -> None:
        await self._take_time()
        state = self._state
        if path not in state.folders:
            raise DiskError(path, "no such folder", missing=True)
        self._check_sync(path)
        for name in [name for name in state.durable_names if _folder_of(name) == path and name not in state.names]:
            del state.durable_names[name]
        for name, file in state.names.items():
            if _folder_of(name) == path:
                state.durable_names[name] = file

    async def remove(self, path: str) -> None:
        """Remove a file."""
        await self._take_time()
        self._state.names.pop(path, None)

    async def make_directory(self, path: str) -> None:
        """Create a folder; folders are durable at once in this model."""
        self._check_failure()
        parts = path.split("/")
        for count in range(len(parts)):
            self._state.folders["/".join(parts[: count + 1])] = None

    async def names(self, path: str) -> list[str]:
        """Return the names in a folder."""
        await self._take_time()
        state = self._state
        prefix = f"{path}/" if path else ""
        inside = [name.removeprefix(prefix) for name in (*state.names, *state.folders) if name.startswith(prefix)]
        return sorted(name for name in inside if name and "/" not in name)

    async def space(self) -> tuple[int, int]:
        """Return (total, free) bytes."""
        self._check_failure()
        return self._state.total_bytes, self._free()

    async def _take_time(self) -> None:
        self._check_failure()
        await asyncio.sleep(self._state.random.uniform(*LATENCY_SECONDS))
        self._check_failure()

    def _check_failure(self) -> None:
        if self._state.failure is not None:
            raise self._state.failure

    def _check_sync(self, path: str) -> None:
        if self._state.sync_fails:
            self._state.failure = StorageFailed(f"{path}: input/output error")
            raise self._state.failure

    def _free(self) -> int:
        return max(0, self._state.total_bytes - sum(len(file.content) for file in self._state.names.values()))

    def _file(self, path: str) -> _File:
        file = self._state.names.get(path)
        if file is None:
            raise DiskError(path, "no such file", missing=True)
        return file

    def _check_folder(self, path: str) -> None:
        if _folder_of(path) not in self._state.folders:
            raise DiskError(path, "no such folder", missing=True)


def flipped(data: bytes, random: Random) -> bytes:
    """Return `data` with one bit changed."""
    changed = bytearray(data)
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]
