"""A database that is consistent after any crash: a prefix of its commits survives, with all that were acknowledged in it."""

import asyncio
from bisect import bisect_left, insort
from collections.abc import Sequence
from random import Random

from peer.errors import StorageFailed, StoreCorrupt
from peer.seams import Delete, Put
from protocol.paths import name_of
from sims.disk import DiskState, SimDisk, flipped
from sims.loop import current_host
from sims.trace import Trace

COMMIT_SECONDS = (0.0002, 0.004)
READ_SECONDS = 0.0002
CACHED_SHARE = 0.7
"""Of the reads, which take no time worth a mention."""


class KVState:
    """What is in one database: it outlives the processes that use it. Every value is durable: a commit is, or is not."""

    def __init__(self, name: str, disk: DiskState) -> None:
        self.name = name
        self.disk = disk
        self.values: dict[bytes, bytes] = {}
        self.keys: list[bytes] = []
        self.rotten: dict[bytes, None] = {}
        """Keys whose values were changed behind the node's back."""
        self.pending: list[tuple[Sequence[Put | Delete], asyncio.Future[None]]] = []

    def apply(self, changes: Sequence[Put | Delete]) -> None:
        """Make one commit part of the durable state."""
        for change in changes:
            self.rotten.pop(change.key, None)
            if isinstance(change, Put):
                if change.key not in self.values:
                    insort(self.keys, change.key)
                self.values[change.key] = bytes(change.value)
            elif change.key in self.values:
                del self.values[change.key]
                del self.keys[bisect_left(self.keys, change.key)]

    def end(self) -> None:
        """The process has died, with its machine or alone: of the commits under way a prefix may have reached the disk."""
        for changes, _ in self.pending[: self.disk.random.randrange(len(self.pending) + 1)]:
            self.apply(changes)
        self.pending = []

    def copied(self, disk: DiskState) -> "KVState":
        """Return the same database on another disk."""
        copied = KVState(self.name, disk)
        copied.values, copied.keys, copied.rotten = dict(self.values), list(self.keys), dict(self.rotten)
        return copied

    def rot(self, key: bytes, random: Random) -> None:
        """Flip one bit of a value."""
        self.values[key] = flipped(self.values[key], random)
        self.rotten[key] = None
        self.disk.note("rotten", f"{self.name}.db")


class SimKV:
    """`peer.seams.KV` of one process."""

    def __init__(self, state: KVState) -> None:
        self._state = state
        self._disk = state.disk
        self._flusher: asyncio.Task[None] | None = None

    async def get(self, key: bytes) -> bytes | None:
        """Return a value."""
        await self._take_time()
        return self._state.values.get(key)

    async def range(self, first: bytes, end: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
        """Return pairs in order."""
        await self._take_time()
        keys = self._state.keys
        start = bisect_left(keys, first)
        stop = len(keys) if end is None else bisect_left(keys, end)
        return [(key, self._state.values[key]) for key in keys[start : min(stop, start + limit)]]

    async def count(self, first: bytes, end: bytes | None) -> int:
        """Return the number of keys in a range."""
        await self._take_time()
        keys = self._state.keys
        return max(0, (len(keys) if end is None else bisect_left(keys, end)) - bisect_left(keys, first))

    async def commit(self, changes: Sequence[Put | Delete]) -> None:
        """Apply changes durably, together with whatever else waits when the group begins."""
        self._check_failure()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._state.pending.append((tuple(changes), done))
        if self._flusher is None:
            self._flusher = loop.create_task(self._flush())
        await done

    async def close(self) -> None:
        """Finish what is under way."""
        while self._flusher is not None:
            await asyncio.shield(self._flusher)

    async def _flush(self) -> None:
        state, disk = self._state, self._disk
        while state.pending:
            group = len(state.pending)
            if disk.take_step():
                await asyncio.get_running_loop().create_future()  # power is gone
            await asyncio.sleep(disk.random.uniform(*COMMIT_SECONDS) * disk.slowness)
            if disk.sync_fails and disk.failure is None:
                disk.failure = StorageFailed(f"{state.name}.db: input/output error")
                disk.trace.note(current_host(), "sync-error", path=f"{state.name}.db")
            if disk.failure is not None:
                for _, future in state.pending:
                    if not future.done():
                        future.set_exception(disk.failure)
                        future.exception()  # whoever waited may have gone
                break
            done, state.pending = state.pending[:group], state.pending[group:]
            for changes, future in done:
                state.apply(changes)
                if not future.done():
                    future.set_result(None)
            disk.trace.note(current_host(), "commit", db=state.name, count=len(done))
        self._flusher = None

    async def _take_time(self) -> None:
        self._check_failure()
        disk = self._disk
        if disk.slowness == 1.0 and disk.random.random() < CACHED_SHARE:
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(disk.random.random() * READ_SECONDS * disk.slowness)

    def _check_failure(self) -> None:
        if self._disk.failure is not None:
            raise self._disk.failure


class SimStorage:
    """`peer.seams.Storage` of one machine: reopened by each process in turn."""

    def __init__(self, random: Random, trace: Trace | None = None) -> None:
        self.state = DiskState(random, trace)
        self.databases: dict[str, KVState] = {}
        self._corrupt: dict[str, None] = {}
        self.disk = SimDisk(self.state)

    async def open_kv(self, name: str) -> SimKV:
        """Open a database."""
        if name in self._corrupt:
            raise StoreCorrupt(name, "it was damaged")
        if name not in self.databases:
            self.databases[name] = KVState(name, self.state)
        return SimKV(self.databases[name])

    async def set_aside(self, name: str) -> None:
        """Put a database away."""
        self.databases.pop(name, None)
        self._corrupt.pop(name, None)

    async def close(self) -> None:
        """Nothing is locked in this world."""

    # -- copies --------------------------------------------------------------

    def take_over(self, other: "SimStorage") -> None:
        """Have what is durable on another disk, its damage included, and nothing else. No process runs on this one."""
        self.state.take_over(other.state)
        self._corrupt = dict(other._corrupt)
        self.databases = {name: database.copied(self.state) for name, database in other.databases.items()}

    # -- faults --------------------------------------------------------------

    def power_cut(self) -> None:
        """Lose power."""
        self.state.power_cut()
        self.process_ended()

    def process_ended(self) -> None:
        """Be left by a process, its machine running on: what it wrote to files stays, synced or not."""
        for database in self.databases.values():
            database.end()
        self.state.restart()

    def damage(self, name: str) -> None:
        """Let a database be unreadable from its next opening on."""
        self._corrupt[name] = None

    def lose(self, name: str) -> None:
        """Let a database that nobody uses be gone."""
        self.databases.pop(name, None)

    def rot(self, name: str, random: Random) -> None:
        """Flip one bit of the file `name`, wherever it lies: nobody notices before it is read."""
        (path,) = [path for path in self.state.names if path.rpartition("/")[2] == name]
        self.state.damage(path, random)

    def rot_row(self, path: str, random: Random) -> None:
        """Flip one bit of what `ns.db` has under the key that ends in the name of `path`."""
        (key,) = [key for key in self.databases["ns"].values if key.endswith(b"\0" + name_of(path).encode())]
        self.databases["ns"].rot(key, random)

    def fail_next_sync(self) -> None:
        """Have the next sync of a file, or the next commit, meet an input or output error."""
        self.state.sync_fails = True

    def fill(self) -> None:
        """Leave nothing of the disk free: its databases live on what they reserved."""
        self.state.others_bytes = self.state.total_bytes
