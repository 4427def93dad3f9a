"""Rows of the namespace on a `KV`, in the order in which they are listed and pulled.

Owns keys, checksums, the merge of what arrives into what is there, and quarantine. Knows nothing of replicas and
quorums (`peer.files`). A row that fails its checksum is corrupt: never absent, never a vote.

Key: `r`, partition (two bytes), folder, NUL, name: so a partition, and in it a folder, is one range in order of name. The digests of
each partition lie beside its rows and change in the same commit (`peer.store.row_digests`).
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Final, TypeVar

from peer.errors import Refused, StorageFailed, StoreCorrupt
from peer.seams import KV, Delete, Put
from peer.store.formats import ValueCorrupt, unwrap, unwrapped, wrap
from peer.store.locks import KeyLocks
from peer.store.row_digests import Change, RowDigests
from peer.store.tasks import to_the_end
from protocol import limits
from protocol.codec import decode_own
from protocol.digest import PartitionDigest
from protocol.errors import RemoteProtocolError
from protocol.paths import folder_partition, join, name_of, parent_of, row_partition
from protocol.rows import digest_of, range_digest, row_bytes
from protocol.versions import Row, empty_row, merge

T = TypeVar("T")

_LIVE: Final = b"r"
_QUARANTINE: Final = b"q"
_COMMITS: Final = b"commits"
_BATCH: Final = 256


class RowCorrupt(Exception):
    """The stored row of `path` fails its checksum."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


class RowTooLarge(Exception):
    """The row would exceed ROW_BYTES_MAX or HEADS_MAX: too many concurrent versions to keep them all."""


class RowStore:
    """The rows of one node."""

    def __init__(self, kv: KV) -> None:
        self.count = 0
        """Rows that are stored, tombstones included."""
        self.commits = 0
        """Commits of rows, in all lives of this node, as far as they are durable."""
        self.digests = RowDigests()
        self.on_change: Callable[[int, str, bytes], None] = _nobody_watches
        """Told partition, path and new digest of each row that is about to change, before anybody sees the change."""
        self.on_forget: Callable[[int], None] = _nobody_watches
        """Told each partition of which it is not known any more what its rows were."""
        self._called = 0
        self._kv = kv
        self._locks = KeyLocks()
        self._working: set[asyncio.Task[object]] = set()
        self._exclusive: dict[int, asyncio.Task[object]] = {}
        """Partitions that are read or removed as a whole, and by what: changes that would begin meanwhile wait."""

    async def open(self) -> None:
        """Count what is there, and take up its digests.

        Raises: StoreCorrupt.
        """
        self.count = await self._kv.count(_LIVE, _end_of(_LIVE))
        self.commits = self._called = await self._read_commits()
        await self.digests.open(self._kv, await self._populated() if self.count else ())

    async def close(self) -> None:
        """Finish what is read or removed as a whole and release the database."""
        await _until_ended(self._exclusive.values())
        await self._kv.close()

    async def get(self, path: str) -> Row | None:
        """Return the row of `path`.

        Raises: RowCorrupt.
        """
        row, _ = await self._get(_key(path))
        return row

    async def vote(self, path: str, *, full: bool) -> tuple[bytes, Row | None]:
        """Return the digest of the row of `path` (empty when there is none), and with `full` the row.

        Raises: RowCorrupt.
        """
        key = _key(path)
        value = await self._kv.get(key)
        if value is None:
            return b"", None
        return digest_of(_body(key, value)), _row(key, value) if full else None

    async def change(self, path: str, edit: Callable[[Row], Row]) -> Row:
        """Replace the row of `path` by `edit` of it and return the result once it is durable.

        Changes of one path happen one after another. `edit` is called immediately before the commit; what it raises prevents it,
        and when it returns the same row nothing is written.

        Raises: RowCorrupt, RowTooLarge.
        """
        await self._until_shared([path])
        return await self._to_the_end(self._change(path, edit))

    async def merge(self, rows: Sequence[Row], guard: Callable[[], None] = lambda: None) -> list[Row]:
        """Merge `rows` into what is there and return the results, one for each path, once they are durable, all in one commit.

        `guard` is called immediately before the commit; what it raises prevents it.

        Raises: RowCorrupt, RowTooLarge.
        """
        await self._until_shared([row.path for row in rows])
        return await self._to_the_end(self._merge(rows, guard))

    async def replace_damaged(self, row: Row, guard: Callable[[], None]) -> None:
        """Put `row` (an empty one: nothing) in the place of a row that fails its checksum; one that is whole by now stays.

        `guard` is called immediately before the commit; what it raises prevents it.

        Raises: RowTooLarge.
        """
        await self._until_shared([row.path])
        await self._to_the_end(self._replace_damaged(row, guard))

    async def drain(self) -> None:
        """Wait until every change that was under way at the call is durable or has failed. They go on if the caller is cancelled."""
        await _until_ended(self._working)

    async def page(
        self, folder: str, after: str, until: str, *, rows_max: int, bytes_max: int
    ) -> tuple[list[Row], bool]:
        """Return the rows of `folder` with after < name <= until (empty: no bound) in order of name, as many as fit,
        at least one if there is one, and whether there are more.

        Raises: RowCorrupt.
        """
        first, end = _folder_range(folder, after, until)
        return await self._collect(first, end, rows_max, bytes_max)

    async def digest(self, folder: str, after: str, until: str) -> bytes:
        """Return the range digest of the rows of `folder` with after < name <= until.

        Raises: RowCorrupt.
        """
        first, end = _folder_range(folder, after, until)
        digests: list[bytes] = []
        while True:
            pairs = await self._kv.range(first, end, _BATCH)
            digests.extend(digest_of(_body(key, value)) for key, value in pairs)
            if len(pairs) < _BATCH:
                return range_digest(digests)
            first = pairs[-1][0] + b"\0"

    async def pull(
        self,
        partitions: Sequence[int],
        after: tuple[int, str] | None,
        *,
        rows_max: int,
        bytes_max: int,
        report_damage: Callable[[str], None] | None = None,
    ) -> tuple[list[Row], bool]:
        """Return rows of `partitions` (ascending) behind (partition, path) `after`, as many as fit, and whether there are more.

        With `report_damage` damaged rows are reported and left out.

        Raises: RowCorrupt.
        """
        rows: list[Row] = []
        wanted = [partition for partition in partitions if after is None or partition >= after[0]]
        if not wanted:
            return rows, False
        first = _partition_key(_LIVE, wanted[0])
        if after is not None and wanted[0] == after[0]:
            first = _key(after[1]) + b"\0"
        while pairs := await self._kv.range(first, _end_of(_LIVE), _BATCH):
            for key, value in pairs:
                next_wanted = bisect_left(wanted, _partition_of(key))
                if next_wanted == len(wanted):
                    return rows, False
                if not key.startswith(_partition_key(_LIVE, wanted[next_wanted])):
                    first = _partition_key(_LIVE, wanted[next_wanted])  # rows of others lie between: jump over them
                    break
                if len(rows) >= rows_max or (rows and len(value) > bytes_max):
                    return rows, True
                first = key + b"\0"
                try:
                    rows.append(_row(key, value))
                except RowCorrupt as error:
                    if report_damage is None:
                        raise
                    report_damage(error.path)
                    continue
                bytes_max -= len(value)
        return rows, False

    async def row_digests(
        self, partition: int, after: str, until: str, rows_max: int
    ) -> tuple[list[tuple[str, bytes]], bool]:
        """Return paths and digests of the rows of `partition` with after < path <= until (empty: no bound), in order of (folder, name),
        `rows_max` at most, and whether there are more. The digest of a row that fails its checksum is empty.
        """
        first = _key(after) + b"\0" if after else _partition_key(_LIVE, partition)
        end = _key(until) + b"\0" if until else _partition_key(_LIVE, partition + 1)
        found: list[tuple[str, bytes]] = []
        while pairs := await self._kv.range(first, end, min(_BATCH, rows_max + 1 - len(found))):
            for key, value in pairs:
                if len(found) == rows_max:
                    return found, True
                try:
                    found.append((_path_of(key), digest_of(_body(key, value))))
                except RowCorrupt:
                    found.append((_path_of(key), b""))
            first = pairs[-1][0] + b"\0"
        return found, False

    async def rebuild_digests(self) -> list[str]:
        """Read the rows of every partition whose digest is unknown, so that it is known; return the paths of damaged rows. These count
        as if they were not there: their bucket differs from that of other replicas until they are healed.
        """
        damaged: list[str] = []
        for partition in self.digests.unknown():
            damaged += await self._exclusively(partition, self._rebuild_digest)
        return damaged

    async def verify_digest(self, partition: int) -> list[str]:
        """Read all rows of `partition` and let its digest be unknown if it is not theirs; return the paths of damaged rows.

        Changes go on meanwhile: then only the damage counts.
        """
        await self.drain()  # what is in the digest and not yet durable would be missed
        kept = self.digests.of(partition)
        before = kept.total if kept is not None else None
        digest, damaged = await self._read_digest(partition)
        kept = self.digests.of(partition)
        if kept is not None and kept.total == before != digest.total:
            await self._kv.commit(self._forgotten(partition))
        return damaged

    async def quarantine(self, partitions: Sequence[int]) -> None:
        """Set all rows of `partitions` aside: what was kept from an earlier life must not come back as if it were fresh."""
        await self._remove(partitions, lambda partition: True, keep=True)

    async def drop(self, partitions: Sequence[int], may_go: Callable[[int], bool] = lambda partition: True) -> None:
        """Remove all rows of those of `partitions` that `may_go`: it is asked of each when nothing changes rows of that one any more."""
        await self._remove(partitions, may_go, keep=False)

    # -- inside --------------------------------------------------------------

    async def _to_the_end(self, work: Coroutine[object, object, T]) -> T:
        """Await `work`, and have it finish even if the caller is cancelled: a commit cannot be called back, and
        the lock of a row must be held until it is durable, or the next change would not see it.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return await to_the_end(task, RowCorrupt, RowTooLarge, Refused, StorageFailed)

    async def _until_shared(self, paths: Sequence[str]) -> None:
        """Wait until nobody has the partition of any of `paths` for himself."""
        while self._exclusive:
            works = [self._exclusive[p] for p in map(row_partition, paths) if p in self._exclusive]
            if not works:
                return
            await _until_ended(works)

    async def _exclusively(self, partition: int, work: Callable[[int], Coroutine[object, object, T]]) -> T:
        """Return what `work` returns, done while nothing changes rows of `partition`, and finished even if the caller is cancelled."""
        while partition in self._exclusive:
            await _until_ended([self._exclusive[partition]])
        task = asyncio.get_running_loop().create_task(self._once_drained(partition, work))
        self._exclusive[partition] = task
        task.add_done_callback(lambda _: self._exclusive.pop(partition))
        return await to_the_end(task, StorageFailed)

    async def _once_drained(self, partition: int, work: Callable[[int], Coroutine[object, object, T]]) -> T:
        await self.drain()
        return await work(partition)

    async def _change(self, path: str, edit: Callable[[Row], Row]) -> Row:
        key = _key(path)
        async with self._locks.holding(key):
            stored, digest = await self._get(key)
            before = stored if stored is not None else empty_row(path)
            after = edit(before)
            if after != before:
                await self._commit([(_put(key, after), path, digest)])
                self.count += stored is None
            return after

    async def _merge(self, rows: Sequence[Row], guard: Callable[[], None]) -> list[Row]:
        arriving: dict[bytes, Row] = {}
        for row in rows:
            key = _key(row.path)
            arriving[key] = merge(arriving[key], row) if key in arriving else row
        keys = sorted(arriving)
        async with self._locks.holding(*keys):
            results, changes, fresh = [], [], 0
            for key in keys:
                stored, digest = await self._get(key)
                before = stored if stored is not None else empty_row(arriving[key].path)
                after = merge(before, arriving[key])
                results.append(after)
                if after != before:
                    changes.append((_put(key, after), after.path, digest))
                    fresh += stored is None
            guard()
            if changes:
                await self._commit(changes)
                self.count += fresh
            return results

    async def _replace_damaged(self, row: Row, guard: Callable[[], None]) -> None:
        key = _key(row.path)
        async with self._locks.holding(key):
            try:
                await self._get(key)
            except RowCorrupt:
                guard()
                change = _put(key, row) if row.heads else Delete(key)
                await self._kv.commit([change, *self._forgotten(row_partition(row.path))])  # nobody knows what it stood for
                self.count -= not row.heads

    async def _rebuild_digest(self, partition: int) -> list[str]:
        digest, damaged = await self._read_digest(partition)
        await self._kv.commit(self.digests.rebuilt(partition, digest))
        return damaged

    async def _read_digest(self, partition: int) -> tuple[PartitionDigest, list[str]]:
        """Return the digest of a partition as its rows are now, and the paths of those that are damaged and not in it."""
        digest = PartitionDigest()
        damaged: list[str] = []
        after, more = "", True
        while more:
            found, more = await self.row_digests(partition, after, "", _BATCH)
            for path, row in found:
                digest.replace(path, b"", row)
            damaged += [path for path, row in found if not row]
            after = found[-1][0] if found else after
        return digest, damaged

    async def _populated(self) -> list[int]:
        """Return the partitions that have rows."""
        partitions: list[int] = []
        first = _LIVE
        while pairs := await self._kv.range(first, _end_of(_LIVE), 1):
            partitions.append(_partition_of(pairs[0][0]))
            first = _partition_key(_LIVE, partitions[-1] + 1)
        return partitions

    async def _commit(self, changes: Sequence[tuple[Put, str, bytes]]) -> None:
        """Commit rows, each with its path and its digest before, and with them the digests of their partitions.

        Nothing is awaited before the call of the commit (`peer.store.row_digests`).
        """
        replaced: dict[int, list[Change]] = {}
        for put, path, before in changes:
            partition, after = _partition_of(put.key), digest_of(unwrapped(put.value))
            replaced.setdefault(partition, []).append((path, before, after))
            self.on_change(partition, path, after)
        records = [record for partition, each in replaced.items() for record in self.digests.replaced(partition, each)]
        self._called += 1
        number = self._called
        await self._kv.commit([*(put for put, _, _ in changes), *records, Put(_COMMITS, wrap(_COMMITS, number.to_bytes(8, "big")))])
        self.commits = max(self.commits, number)

    def _forgotten(self, partition: int) -> list[Delete]:
        self.on_forget(partition)
        return self.digests.forgotten(partition)

    async def _read_commits(self) -> int:
        value = await self._kv.get(_COMMITS)
        try:
            return int.from_bytes(unwrap(_COMMITS, value), "big") if value is not None else 0
        except ValueCorrupt as error:
            raise StoreCorrupt("ns", str(error)) from None

    async def _get(self, key: bytes) -> tuple[Row | None, bytes]:
        """Return a row and its digest, empty when there is none.

        Raises: RowCorrupt.
        """
        value = await self._kv.get(key)
        if value is None:
            return None, b""
        body = _body(key, value)
        return _decoded(key, body), digest_of(body)

    async def _collect(self, first: bytes, end: bytes, rows_max: int, bytes_max: int) -> tuple[list[Row], bool]:
        rows: list[Row] = []
        while pairs := await self._kv.range(first, end, _BATCH):
            for key, value in pairs:
                if len(rows) >= rows_max or (rows and len(value) > bytes_max):
                    return rows, True
                rows.append(_row(key, value))
                bytes_max -= len(value)
            if len(pairs) < _BATCH:
                break
            first = pairs[-1][0] + b"\0"
        return rows, False

    async def _remove(self, partitions: Sequence[int], may_go: Callable[[int], bool], *, keep: bool) -> None:
        await self.drain()  # what was let in before the fence fell would come back behind the removal
        if not self.count:
            return

        async def remove(partition: int) -> None:
            if not may_go(partition):
                return
            first, end = _partition_key(_LIVE, partition), _partition_key(_LIVE, partition + 1)
            while pairs := await self._kv.range(first, end, _BATCH):
                changes: list[Put | Delete] = [Delete(key) for key, _ in pairs]
                if keep:
                    changes += [Put(_QUARANTINE + key[1:], value) for key, value in pairs]
                await self._kv.commit([*changes, *self._forgotten(partition)])
                self.count -= len(pairs)

        for partition in partitions:
            if await self._kv.range(_partition_key(_LIVE, partition), _partition_key(_LIVE, partition + 1), 1):
                await self._exclusively(partition, remove)


def _nobody_watches(*what: object) -> None:
    """Nobody is told."""


async def _until_ended(tasks: Collection["asyncio.Task[object]"]) -> None:
    """Wait until all `tasks` have ended, in whatever way. They go on if the caller is cancelled."""
    await asyncio.shield(asyncio.gather(*tasks, return_exceptions=True))


def _key(path: str) -> bytes:
    folder = parent_of(path)
    return _partition_key(_LIVE, folder_partition(folder)) + folder.encode() + b"\0" + name_of(path).encode()


def _path_of(key: bytes) -> str:
    folder, _, name = key[3:].decode().partition("\0")
    return join(folder, name)


def _partition_of(key: bytes) -> int:
    return int.from_bytes(key[1:3], "big")


def _partition_key(prefix: bytes, partition: int) -> bytes:
    return prefix + partition.to_bytes(2, "big")


def _end_of(prefix: bytes) -> bytes:
    return bytes([prefix[0] + 1])


def _folder_range(folder: str, after: str, until: str) -> tuple[bytes, bytes]:
    prefix = _partition_key(_LIVE, folder_partition(folder)) + folder.encode()
    first = prefix + b"\0" + (after.encode() + b"\0" if after else b"")
    end = prefix + b"\0" + until.encode() + b"\0" if until else prefix + b"\x01"
    return first, end


def _body(key: bytes, value: bytes) -> bytes:
    try:
        return unwrap(key, value)
    except ValueCorrupt as error:
        raise RowCorrupt(_path_of(key), str(error)) from None


def _row(key: bytes, value: bytes) -> Row:
    return _decoded(key, _body(key, value))


def _decoded(key: bytes, body: bytes) -> Row:
    try:
        return decode_own(Row, body)
    except RemoteProtocolError as error:
        raise RowCorrupt(_path_of(key), error.reason) from None


def _put(key: bytes, row: Row) -> Put:
    body = row_bytes(row)
    if len(body) > limits.ROW_BYTES_MAX or len(row.heads) > limits.HEADS_MAX:
        raise RowTooLarge(f"{row.path}: {len(row.heads)} concurrent versions")
    return Put(key, wrap(key, body))
