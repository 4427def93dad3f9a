"""Chunks as files, with an index of what is there.

Owns the file format, the order of steps that makes a chunk durable (write under a temporary name, sync, rename, sync
the folder, commit the index row), and what happens to a copy that does not match its id. Knows nothing of homes.
A chunk file proves itself, so the index may be lost: it is rebuilt from the files.

    c/ab/<chunk id>   header of 64 bytes, then the chunk; ab are the first two digits of the hash
    tmp/              what was being written; emptied at the start
    quarantine/       copies that did not match, kept for a person to look at

Header: magic (12 bytes), version, chunk tag, two zero bytes, length (8 bytes, big-endian), hash (32 bytes), checksum of all this (8 bytes).
"""

import asyncio
import struct
from collections.abc import Coroutine, Sequence
from typing import Final, TypeVar

from peer.errors import DiskError, StorageFailed, StoreCorrupt
from peer.seams import KV, Compute, Delete, Disk, Put, Storage
from peer.store.chunk_digests import ChunkDigests
from peer.store.formats import ValueCorrupt, unwrap, wrap
from peer.store.locks import KeyLocks
from peer.store.tasks import to_the_end
from protocol.hashing import CONTEXT_STORED, Buffer, derived_hash
from protocol.identity import CHUNK_ID_BYTES, ChunkId
from protocol.manifest import ChunkTag, chunk_matches, chunk_range

T = TypeVar("T")

HEADER_BYTES: Final = 64
FULL_SHARE: Final = 0.95
"""Beyond this share of the disk no chunk is taken: rows and deletes need the rest."""
SPACE_CHECK_SECONDS: Final = 1.0

_MAGIC: Final = b"shoal chunk\n"
_VERSION: Final = 1
_HEADER: Final = struct.Struct(">12sBBHQ32s")
_PAGE: Final = 4096
_COMPLETE: Final = b"\xffcomplete"
"""Key, behind all chunk ids, in an index that says all: a lost one, or one whose rebuild was cut short, does not have it."""


class ChunkCorrupt(Exception):
    """The local copy of a chunk did not match its id, and was set aside."""


class StoreFull(Exception):
    """No room for another chunk."""


class ChunkStore:
    """The chunks of one node."""

    def __init__(self, storage: Storage, compute: Compute, capacity_bytes: int = 0) -> None:
        """`capacity_bytes` bounds what is taken; 0: the disk does."""
        self.count = 0
        self.bytes = 0
        self.corrupt = 0
        """Copies set aside since the start."""
        self.digests = ChunkDigests()
        self._storage = storage
        self._disk: Disk = storage.disk
        self._compute = compute
        self._capacity_bytes = capacity_bytes
        self._index: KV
        self._writing: dict[ChunkId, asyncio.Task[None]] = {}
        self._to_sync: dict[str, None] = {}
        self._syncing = asyncio.Lock()
        self._next_sync: asyncio.Task[None] | None = None
        """Syncs the folders of `_to_sync`; None once it has begun."""
        self._removing: dict[ChunkId, None] = {}
        self._finishing: dict[asyncio.Task[object], None] = {}
        """Work of `_finish`."""
        self._locks = KeyLocks()
        self._temporary = 0
        self._arriving = 0
        """Bytes of chunks that are being written."""
        self._space = (0, 0)
        self._space_checked_at: float | None = None

    async def open(self) -> None:
        """Make the folders, remove unfinished files and read or rebuild the index."""
        for folder in ("tmp", "quarantine", *(f"c/{byte:02x}" for byte in range(256))):
            await self._disk.make_directory(folder)
        await self._disk.sync_directories(["c", ""])
        for name in await self._disk.names("tmp"):
            await self._disk.remove(f"tmp/{name}")
        try:
            self._index = await self._storage.open_kv("chunk")
        except StoreCorrupt:
            await self._replace_index()
        else:
            try:
                await self._read_index()
            except StoreCorrupt:
                await self._index.close()
                await self._replace_index()

    async def close(self) -> None:
        """Finish what is under way and release the index."""
        await asyncio.gather(*self._writing.values(), *self._finishing, return_exceptions=True)
        await self._index.close()

    async def put(self, chunk_id: ChunkId, data: Buffer) -> None:
        """Store a chunk that the caller has verified; durable when this returns. Doing it again is harmless.

        Raises: StoreFull.
        """
        task = self._writing.get(chunk_id)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._put(chunk_id, data))
            self._writing[chunk_id] = task
            task.add_done_callback(lambda _: self._writing.pop(chunk_id, None))
        await to_the_end(task, StoreFull, DiskError, StorageFailed)

    async def get(self, chunk_id: ChunkId) -> memoryview | None:
        """Return a chunk, verified, or None when it is not here.

        Raises: ChunkCorrupt.
        """
        try:
            return await self._read(chunk_id)
        except ChunkCorrupt:
            pass
        return await self._finish(self._read_or_set_aside(chunk_id))

    async def holds(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        """Return for each chunk whether it is here, durably, and not being removed."""
        return [await self._index.get(chunk_id) is not None and chunk_id not in self._removing for chunk_id in chunk_ids]

    async def size(self, chunk_id: ChunkId) -> int:
        """Return the bytes of a chunk, 0 when it is not here."""
        value = await self._index.get(chunk_id)
        return _size(chunk_id, value) if value is not None else 0

    async def remove(self, chunk_id: ChunkId) -> None:
        """Remove a chunk; one that is not here is no error. From the call on nobody is told that it is here."""
        self._removing[chunk_id] = None
        await self._finish(self._remove(chunk_id))

    async def page(self, after: ChunkId | None, limit: int) -> list[tuple[ChunkId, int]]:
        """Return up to `limit` chunks behind `after` with their sizes, in order of id."""
        first = after + b"\0" if after is not None else b""
        return [(ChunkId(key), _size(key, value)) for key, value in await self._index.range(first, _COMPLETE, limit)]

    async def of_partition(self, partition: int, after: bytes, limit: int) -> list[tuple[ChunkId, int]]:
        """Return up to `limit` chunks of a partition behind `after` (empty: from the first one on) with their sizes, in order of id."""
        found: list[tuple[ChunkId, int]] = []
        for tag in ChunkTag:
            first, end = chunk_range(tag, partition)
            first = max(first, after + b"\0" if after else first)
            if first < end and len(found) < limit:
                pairs = await self._index.range(first, end, limit - len(found))
                found += [(ChunkId(key), _size(key, value)) for key, value in pairs]
        return found

    # -- inside --------------------------------------------------------------

    async def _finish(self, work: Coroutine[object, object, T]) -> T:
        """Await `work`, and have it finish even if the caller is cancelled: index, digests and figures change together."""
        task = asyncio.get_running_loop().create_task(work)
        self._finishing[task] = None
        task.add_done_callback(self._finishing.pop)
        return await to_the_end(task, ChunkCorrupt, DiskError, StorageFailed)

    async def _read(self, chunk_id: ChunkId) -> memoryview | None:
        if await self._index.get(chunk_id) is None:
            return None
        try:
            raw = await self._disk.read(_path(chunk_id))
        except DiskError as error:
            if not error.missing and not error.damaged:
                raise
            raw = b""
        data = memoryview(raw)[HEADER_BYTES:]
        header = raw[:HEADER_BYTES]
        if header == _header(chunk_id, len(data)) and await self._compute.run(lambda: chunk_matches(chunk_id, data)):
            return data
        raise ChunkCorrupt(chunk_id.hex())

    async def _put(self, chunk_id: ChunkId, data: Buffer) -> None:
        async with self._locks.holding(chunk_id):
            if await self._index.get(chunk_id) is not None:
                return
            await self._check_space(len(data))
            self._arriving += len(data)
            try:
                await self._store(chunk_id, data)
            finally:
                self._arriving -= len(data)
            self._note(chunk_id, len(data))

    def _note(self, chunk_id: ChunkId, size: int) -> None:
        self.digests.add(chunk_id)
        self.count += 1
        self.bytes += size

    async def _store(self, chunk_id: ChunkId, data: Buffer) -> None:
        self._temporary += 1
        temporary, path = f"tmp/{self._temporary}", _path(chunk_id)
        try:
            await self._disk.place(temporary, path, [_header(chunk_id, len(data)), data])
        except DiskError as error:
            await self._disk.remove(temporary)
            if error.full:
                raise StoreFull(error.reason) from None
            raise
        await self._sync_directory(path.rpartition("/")[0])
        await self._index.commit([_index_row(chunk_id, len(data))])

    async def _remove(self, chunk_id: ChunkId) -> None:
        async with self._locks.holding(chunk_id):  # else the file of a put that comes now would be removed
            if await self._forget(chunk_id):
                await self._disk.remove(_path(chunk_id))
            self._removing.pop(chunk_id, None)

    async def _sync_directory(self, folder: str) -> None:
        """Sync a folder, together with others, and with all renames that happen before the sync begins."""
        self._to_sync[folder] = None
        if self._next_sync is None:
            self._next_sync = asyncio.get_running_loop().create_task(self._sync_directories_soon())
        await to_the_end(self._next_sync, DiskError, StorageFailed)

    async def _sync_directories_soon(self) -> None:
        async with self._syncing:  # while one group syncs the next one gathers
            folders, self._to_sync, self._next_sync = list(self._to_sync), {}, None  # whoever comes now needs another sync
            await self._disk.sync_directories(folders)

    async def _check_space(self, size: int) -> None:
        now = asyncio.get_running_loop().time()
        if self._space_checked_at is None or now - self._space_checked_at >= SPACE_CHECK_SECONDS:
            self._space = await self._disk.space()
            self._space_checked_at = now
        total, free = self._space
        size += self._arriving
        if free - size < total * (1 - FULL_SHARE):
            raise StoreFull(f"the disk is {100 * FULL_SHARE:.0f} % full")
        if self._capacity_bytes and self.bytes + size > self._capacity_bytes:
            raise StoreFull("what this node offers is used up")

    async def _read_or_set_aside(self, chunk_id: ChunkId) -> memoryview | None:
        async with self._locks.holding(chunk_id):
            try:
                return await self._read(chunk_id)  # it may have been removed, or replaced, while it was read
            except ChunkCorrupt:
                if await self._forget(chunk_id):
                    await self._quarantine(chunk_id)
                raise

    async def _quarantine(self, chunk_id: ChunkId) -> None:
        self.corrupt += 1
        try:
            await self._disk.rename(_path(chunk_id), f"quarantine/{chunk_id.hex()}")
        except DiskError as error:
            if not error.missing:
                raise

    async def _forget(self, chunk_id: ChunkId) -> bool:
        """Remove a chunk from the index; return whether it was there."""
        value = await self._index.get(chunk_id)
        if value is None:
            return False
        self.digests.remove(chunk_id)
        await self._index.commit([Delete(chunk_id)])
        self.count -= 1
        self.bytes -= _size(chunk_id, value)
        return True

    async def _replace_index(self) -> None:
        await self._storage.set_aside("chunk")
        self._index = await self._storage.open_kv("chunk")
        await self._rebuild_index()

    async def _read_index(self) -> None:
        if await self._index.get(_COMPLETE) is None:
            await self._rebuild_index()
            return
        after: ChunkId | None = None
        while page := await self.page(after, _PAGE):
            for chunk_id, size in page:
                self._note(chunk_id, size)
            after = page[-1][0]

    async def _rebuild_index(self) -> None:
        self.count = self.bytes = 0
        self.digests = ChunkDigests()
        for byte in range(256):
            folder = f"c/{byte:02x}"
            found = []
            for name in await self._disk.names(folder):
                chunk_id = _parse_name(name)
                if chunk_id is None or _path(chunk_id) != f"{folder}/{name}":
                    continue
                header = await self._read_header(chunk_id)
                size = int(_HEADER.unpack_from(header)[4]) if len(header) == HEADER_BYTES else 0
                if header != _header(chunk_id, size):
                    await self._quarantine(chunk_id)
                    continue
                found.append(_index_row(chunk_id, size))
                self._note(chunk_id, size)
            if found:
                await self._disk.sync_directories([folder])  # a process may have died between its rename and its sync
                await self._index.commit(found)
        await self._index.commit([Put(_COMPLETE, wrap(_COMPLETE, b""))])


    async def _read_header(self, chunk_id: ChunkId) -> bytes:
        try:
            return await self._disk.read(_path(chunk_id), 0, HEADER_BYTES)
        except DiskError as error:
            if not error.damaged:
                raise
            return b""


def _path(chunk_id: ChunkId) -> str:
    return f"c/{chunk_id[1]:02x}/{chunk_id.hex()}"


def _parse_name(name: str) -> ChunkId | None:
    try:
        raw = bytes.fromhex(name)
    except ValueError:
        return None
    return ChunkId(raw) if len(raw) == CHUNK_ID_BYTES else None


def _header(chunk_id: ChunkId, size: int) -> bytes:
    head = _HEADER.pack(_MAGIC, _VERSION, chunk_id[0], 0, size, chunk_id[1:])
    return head + derived_hash(CONTEXT_STORED, head, HEADER_BYTES - len(head))


def _index_row(chunk_id: ChunkId, size: int) -> Put:
    return Put(chunk_id, wrap(chunk_id, size.to_bytes(8, "big")))


def _size(key: bytes, value: bytes) -> int:
    try:
        return int.from_bytes(unwrap(key, value), "big")
    except ValueCorrupt as error:
        raise StoreCorrupt("chunk", str(error)) from None
