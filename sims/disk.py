"""A disk that keeps what was synced, and of the rest what the seed chooses; and that can fail in the ways of real ones.

Model: a file is content; a folder is names. Content is durable after `sync` of the file, a name (new, replaced, removed) after
`sync_directories` with its folder. When power fails, every file whose content was not synced keeps its old content, the new one, a
beginning of the new one, or of each sector of 512 bytes the old, the new or garbage; and every unsynced name falls either way by itself: no
order between them is promised, as on a real file system. When only the process dies, everything written stays.

Faults: a sync that fails (what was pending is dropped, and the disk fails until the next start), a disk that lies (syncs do nothing), that
is slow, that is full, that puts what it writes in another place, a file whose bits flip or that cannot be read. `DiskState` knows what
was damaged, so that a judge can tell damage from a bug.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from peer.errors import DiskError, StorageFailed
from protocol.hashing import Buffer
from sims.loop import WORLD, current_host
from sims.trace import Trace

LATENCY_SECONDS = (0.00005, 0.002)
TOTAL_BYTES = 1 << 40
SECTOR_BYTES = 512


@dataclass(slots=True)
class SimFile:
    """One file: what a read returns, and what survives the loss of power."""

    content: bytes = b""
    durable: bytes = b""


class DiskState:
    """What is on one machine's disk: it outlives the processes that use it."""

    def __init__(self, random: Random, trace: Trace | None = None) -> None:
        self.random = random
        self.trace = trace if trace is not None else Trace()
        self.machine = WORLD
        self.names: dict[str, SimFile] = {}
        self.durable_names: dict[str, SimFile] = {}
        self.folders: dict[str, None] = {"": None}
        self.total_bytes = TOTAL_BYTES
        self.others_bytes = 0
        """What other programs keep on it."""
        self.slowness = 1.0
        """Every operation takes so many times as long."""
        self.sync_fails = False
        """Whether the next sync meets an input or output error."""
        self.is_lying = False
        """Whether syncs return without having done anything."""
        self.has_lied = False
        """Whether one has, since power last failed."""
        self.misdirects = 0
        """So many of the next files of chunks are written over another one."""
        self.misdirected = 0
        """So many were."""
        self.unreadable: dict[int, SimFile] = {}
        """Files that cannot be read, by identity."""
        self.damaged: dict[int, SimFile] = {}
        """Files that were changed behind the node's back."""
        self.failure: StorageFailed | None = None
        self.steps_left: int | None = None
        """After so many operations power fails; None: not by itself."""
        self.cuts_at_step = 0
        """So often it did."""
        self.on_power_cut: Callable[[], None] = lambda: None

    def take_over(self, other: "DiskState") -> None:
        """Have the durable files of another disk, its damage included, and nothing else."""
        copies = {path: SimFile(file.durable, file.durable) for path, file in other.durable_names.items()}
        self.names, self.durable_names, self.folders = copies, dict(copies), dict(other.folders)
        for path, file in other.durable_names.items():
            if id(file) in other.damaged:
                self.damaged[id(copies[path])] = copies[path]
            if id(file) in other.unreadable:
                self.unreadable[id(copies[path])] = copies[path]

    def power_cut(self) -> None:
        """Lose what was not synced, or a part of it."""
        survivors: dict[str, SimFile] = {}
        for path in sorted({*self.names, *self.durable_names}):
            now, before = self.names.get(path), self.durable_names.get(path)
            file = now if now is before or self.random.random() < 0.5 else before
            if file is not None:
                survivors[path] = file
        for file in {id(file): file for file in survivors.values()}.values():
            if file.content != file.durable:
                written = file.content
                file.content = file.durable = self._torn(file)
                if self.has_lied:
                    self.damaged[id(file)] = file
                if file.content != written:
                    (path, *_) = (path for path, survivor in survivors.items() if survivor is file)
                    self.note("torn", path)
        self.names = dict(survivors)
        self.durable_names = dict(survivors)
        self.has_lied = False
        self.restart()

    def restart(self) -> None:
        """Be used by another process."""
        self.failure = None
        self.sync_fails = False
        self.steps_left = None

    def damage(self, path: str, random: Random, *, unreadable: bool = False) -> None:
        """Flip one bit of a file, or let it be unreadable."""
        file = self.names[path]
        self.damaged[id(file)] = file
        if unreadable:
            self.unreadable[id(file)] = file
        elif file.content:
            file.content = file.durable = flipped(file.content, random)
        self.note("unreadable" if unreadable else "rotten", path)

    def note(self, kind: str, path: str) -> None:
        """Note what has happened to a file behind the node's back."""
        self.trace.note(self.machine, kind, path=short_path(path))

    def chunk_files(self) -> list[str]:
        """Return the paths of all files of chunks, sorted."""
        return sorted(path for path in self.names if path.startswith("c/"))

    def take_step(self) -> bool:
        """Count an operation; return whether power fails before it."""
        if self.steps_left is None:
            return False
        self.steps_left -= 1
        if self.steps_left > 0:
            return False
        self.steps_left = None
        self.cuts_at_step += 1
        self.on_power_cut()
        return True

    def _torn(self, file: SimFile) -> bytes:
        choice = self.random.random()
        if choice < 0.3:
            return file.durable
        if choice < 0.45:
            return file.content
        if choice < 0.6:
            return file.content[: self.random.randrange(len(file.content) + 1)]
        sectors = []
        for begin in range(0, len(file.content), SECTOR_BYTES):
            fate = self.random.random()
            new = file.content[begin : begin + SECTOR_BYTES]
            if fate < 0.4:
                sectors.append(new)
            elif fate < 0.8:
                sectors.append(file.durable[begin : begin + len(new)].ljust(len(new), b"\0"))
            else:
                sectors.append(self.random.randbytes(len(new)))
        return b"".join(sectors)


class SimDisk:
    """`peer.seams.Disk` of one machine."""

    def __init__(self, state: DiskState) -> None:
        self._state = state

    async def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes of a file."""
        await self._take_time()
        file = self._file(path)
        if id(file) in self._state.unreadable:
            self._note("read-error", path)
            raise DiskError(path, "input/output error", damaged=True)
        return file.content[offset:] if length is None else file.content[offset : offset + length]

    async def write(self, path: str, parts: Sequence[Buffer]) -> None:
        """Create or replace a file."""
        content = b"".join(parts)
        await self._take_time()
        self._check_folder(path)
        state = self._state
        file = state.names.get(path)
        if len(content) - (len(file.content) if file is not None else 0) > self._free():
            raise DiskError(path, "no space left", full=True)
        if file is None:
            file = state.names[path] = SimFile()
        file.content = content
        state.unreadable.pop(id(file), None)
        state.damaged.pop(id(file), None)
        self._note("write", path, bytes=len(content))

    async def sync(self, path: str) -> None:
        """Make content durable."""
        await self._take_time()
        file = self._file(path)
        self._check_sync(path, file)
        if self._state.is_lying:
            self._state.has_lied = True
        else:
            file.durable = file.content
        self._note("sync", path)

    async def rename(self, source: str, target: str) -> None:
        """Rename a file."""
        await self._take_time()
        self._check_folder(target)
        file = self._file(source)
        del self._state.names[source]
        self._state.names[target] = file
        self._misdirect(target, file)
        self._note("rename", target)

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
        self._check_sync(path, None)
        if state.is_lying:
            state.has_lied = True
            return
        for name in [name for name in state.durable_names if _folder_of(name) == path and name not in state.names]:
            del state.durable_names[name]
        for name, file in state.names.items():
            if _folder_of(name) == path:
                state.durable_names[name] = file
        self._note("sync-folder", path)

    async def remove(self, path: str) -> None:
        """Remove a file."""
        await self._take_time()
        if self._state.names.pop(path, None) is not None:
            self._note("unlink", path)

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
        state = self._state
        self._check_failure()
        if state.take_step():
            await asyncio.get_running_loop().create_future()  # power is gone
        await asyncio.sleep(state.random.uniform(*LATENCY_SECONDS) * state.slowness)
        self._check_failure()

    def _check_failure(self) -> None:
        if self._state.failure is not None:
            raise self._state.failure

    def _check_sync(self, path: str, file: SimFile | None) -> None:
        state = self._state
        if state.sync_fails:
            if file is not None:
                file.content = file.durable  # the kernel marks the pages clean and forgets them
            state.failure = StorageFailed(f"{path}: input/output error")
            self._note("sync-error", path)
            raise state.failure

    def _misdirect(self, path: str, file: SimFile) -> None:
        """Let what was written for one chunk lie in the place of another one."""
        state = self._state
        if not state.misdirects or not path.startswith("c/"):
            return
        others = [other for other in state.chunk_files() if other != path]
        if not others:
            return
        state.misdirects -= 1
        state.misdirected += 1
        victim = state.names[others[state.random.randrange(len(others))]]
        victim.content = victim.durable = file.content
        file.content = file.durable = state.random.randbytes(len(file.content))
        for damaged in (victim, file):
            state.damaged[id(damaged)] = damaged
        self._note("misdirected", path)

    def _free(self) -> int:
        state = self._state
        return max(0, state.total_bytes - state.others_bytes - sum(len(file.content) for file in state.names.values()))

    def _file(self, path: str) -> SimFile:
        file = self._state.names.get(path)
        if file is None:
            raise DiskError(path, "no such file", missing=True)
        return file

    def _check_folder(self, path: str) -> None:
        if _folder_of(path) not in self._state.folders:
            raise DiskError(path, "no such folder", missing=True)

    def _note(self, kind: str, path: str, **fields: int | str) -> None:
        self._state.trace.note(current_host(), kind, path=short_path(path), **fields)


def flipped(data: bytes, random: Random) -> bytes:
    """Return `data` with one bit changed."""
    changed = bytearray(data)
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def short_path(path: str) -> str:
    """Return a path as a trace has it: ids of chunks are long."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name[:12]}" if folder else name[:24]


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]
