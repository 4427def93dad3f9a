"""A database that is consistent after any crash: a prefix of its commits survives, with all that were acknowledged in it."""

import asyncio
from bisect import bisect_left, insort
from collections.abc import Sequence
from random import Random

from peer.errors import StoreCorrupt
from peer.seams import Delete, Put
from protocol.paths import name_of
from sims.disk import DiskState, SimDisk, flipped

COMMIT_SECONDS = (0.0002, 0.004)
READ_SECONDS = (0.0, 0.0002)


class KVState:
    """What is in one database: it outlives the processes that use it."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.values: dict[bytes, bytes] = {}
        self.keys: list[bytes] = []
        self.pending: list[tuple[Sequence[Put | Delete], asyncio.Future[None]]] = []

    def apply(self, changes: Sequence[Put | Delete]) -> None:
        """Make one commit part of the durable state."""
        for change in changes:
            if isinstance(change, Put):
                if change.key not in self.values:
                    insort(self.keys, change.key)
                self.values[change.key] = bytes(change.value)
            elif change.key in self.values:
                del self.values[change.key]
                del self.keys[bisect_left(self.keys, change.key)]

    def crash(self) -> None:
        """Lose power: of the commits under way a prefix may have reached the disk."""
        for changes, _ in self.pending[: self.random.randrange(len(self.pending) + 1)]:
            self.apply(changes)
        self.pending = []


class SimKV:
    """`peer.seams.KV` of one process."""

    def __init__(self, state: KVState) -> None:
        self._state = state
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
        state = self._state
        while state.pending:
            group = len(state.pending)
            await asyncio.sleep(state.random.uniform(*COMMIT_SECONDS))
            done, state.pending = state.pending[:group], state.pending[group:]
            for changes, future in done:
                state.apply(changes)
                if not future.done():
                    future.set_result(None)
        self._flusher = None

    async def _take_time(self) -> None:
        await asyncio.sleep(self._state.random.uniform(*READ_SECONDS))


class SimStorage:
    """`peer.seams.Storage` of one machine: reopened by each process in turn."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._disk_state = DiskState(random)
        self._databases: dict[str, KVState] = {}
        self._corrupt: dict[str, None] = {}
        self.disk = SimDisk(self._disk_state)

    async def open_kv(self, name: str) -> SimKV:
        """Open a database."""
        if name in self._corrupt:
            raise StoreCorrupt(name, "it was damaged")
        if name not in self._databases:
            self._databases[name] = KVState(self._random)
        return SimKV(self._databases[name])

    async def set_aside(self, name: str) -> None:
        """Put a database away."""
        self._databases.pop(name, None)
        self._corrupt.pop(name, None)

    def damage(self, name: str) -> None:
        """Let a database be unreadable from its next opening on."""
        self._corrupt[name] = None

    def rot(self, name: str, random: Random) -> None:
        """Flip one bit of the file `name`, wherever it lies: nobody notices before it is read."""
        self._disk_state.rot(name, random)

    def rot_row(self, path: str, random: Random) -> None:
        """Flip one bit of what `ns.db` has under the key that ends in the name of `path`."""
        values = self._databases["ns"].values
        (key,) = [key for key in values if key.endswith(b"\0" + name_of(path).encode())]
        values[key] = flipped(values[key], random)

    def fail_next_sync(self) -> None:
        """Have the next sync of a file meet an input or output error."""
        self._disk_state.sync_fails = True

    def fill(self) -> None:
        """Leave nothing of the disk free: its databases live on what they reserved."""
        self._disk_state.total_bytes = 1

    async def close(self) -> None:
        """Nothing is locked in this world."""

    def crash(self) -> None:
        """Lose power."""
        self._disk_state.crash()
        for database in self._databases.values():
            database.crash()
