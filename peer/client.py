"""What a user of the cluster can do: put, get, list, stat, remove, make folders, see where things lie.

Owns the order of steps of each operation and what its result means. Works over any `Access`; the command line gives it a
`peer.session.Session`. Errors are the typed exceptions of `peer.errors`.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from peer.errors import (
    AlreadyThere,
    DataLost,
    LinkLost,
    NoSuchPath,
    OutcomeUnknown,
    RequestFailed,
    ShoalError,
    Unavailable,
    Unreachable,
    WrongUsage,
)
from peer.files.access import (
    OPERATION_SECONDS,
    PUBLISH_SECONDS,
    RETRY_SECONDS,
    TRY_SECONDS,
    Access,
    milliseconds,
)
from peer.files.quorum import collect, read_page, read_row
from peer.files.read_path import ChunkReader, Write
from peer.files.write_path import Progress, Read, Stored, store_content
from protocol import limits
from protocol.errors import ErrorCode, InvalidPath
from protocol.identity import OP_ID_BYTES, ChunkId, NodeId, OpId, short
from protocol.manifest import NO_CONTENT, chunk_count, chunk_matches, chunk_partition, chunk_span
from protocol.messages import ChunksHave, ChunksHeld, Published, RowPublish, Status, StatusGet
from protocol.paths import ROOT, ancestors, join, name_of, normalise, parent_of, row_partition
from protocol.versions import Dot, Kind, Row, Vector, Version, context_of, siblings, winner

ReadLocal = Callable[[int, int], Awaitable[bytes]]
"""Returns the bytes of a local file from an offset on, so many if it has them."""

FILE_MODE = 0o644
FOLDER_MODE = 0o755
LATEST_MILLISECONDS = 253_402_300_799_999
"""The end of the year 9999: a clock may be wrong by more."""
KNOWN_FOLDERS_MAX = 4096
"""Folders that one client has seen exist: their markers are not read again before each put."""


@dataclass(frozen=True, slots=True)
class PutResult:
    """A put that is committed."""

    path: str
    version: str
    size: int
    copies: int
    """Machines that hold the row and every chunk durably, as far as it was waited for."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a folder."""

    path: str
    name: str
    type: str
    """`file` or `dir`."""
    size: int
    modified_milliseconds: int
    mode: int
    version: str
    writer: str
    conflict: bool
    """Whether this is a concurrent version beside the one that bears the plain name."""


@dataclass(frozen=True, slots=True)
class Stat:
    """One path, looked at closely."""

    entry: Entry
    chunks: int
    copies: int
    """Copies of the chunk that has the fewest, as counted now; for content without chunks what the layout wants of its row."""
    conflicts: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """Where one chunk lies."""

    index: int
    chunk_id: ChunkId
    size: int
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """One member, as seen now."""

    name: str
    node_id: NodeId
    address: str
    state: str
    """`alive` or `dead`; `joining` while it is not a member yet."""
    zone: str
    weight: int
    status: Status | None
    """What it says of itself, if it answered."""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """The cluster, as seen now."""

    cluster_id: bytes
    layout_version: int
    moving_partitions: int
    members: tuple[MemberStatus, ...]
    copies_wanted: int
    copies_needed: int


class Client:
    """The operations of a user."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._reader = ChunkReader(access)
        self._known_folders: dict[str, None] = {}
        self._making_folders = asyncio.Lock()

    # -- writing -------------------------------------------------------------

    async def put(
        self,
        path: str,
        read: Read,
        *,
        size: int | None,
        mode: int = FILE_MODE,
        modified_milliseconds: int | None = None,
        on_progress: Progress | None = None,
        op_id: OpId | None = None,
    ) -> PutResult:
        """Store what `read` returns (`size` bytes if that is known) as the file `path`, and its folders where they are missing.

        The put begins now: what it supersedes is what is there now. It is committed when this returns.

        Raises: WrongUsage, AlreadyThere, SourceChanged, Unavailable (nothing was changed), OutcomeUnknown (repeat it with the same op_id).
        """
        path = _checked(path)
        row = await read_row(self._access, path)
        standing = winner(row)
        if standing is not None and standing.kind is Kind.DIRECTORY:
            raise AlreadyThere(f"{path} is a folder: give the name that the file should have in it")
        await self._missing_folders(ancestors(path))
        try:
            stored = await store_content(self._access, read, size, on_progress or _no_progress)
        except Unavailable as error:
            raise Unavailable(f"{path}: {error}") from None
        if modified_milliseconds is None:
            modified_milliseconds = self._access.wall_clock.milliseconds()
        await self._make_folders(ancestors(path))
        dot, copies = await self._publish(
            path, op_id or self._new_op_id(), context_of(row), Kind.FILE, stored, mode, modified_milliseconds
        )
        await self._recheck_folder(parent_of(path))
        if stored.copies is not None:
            copies = min(copies, stored.copies)
        return PutResult(path, version_text(dot), stored.size, copies)

    async def make_directory(self, path: str) -> None:
        """Make a folder and those above it; one that exists is no error.

        Raises: AlreadyThere when a file is in the way, Unavailable, OutcomeUnknown.
        """
        path = _checked(path)
        self._known_folders.pop(path, None)
        await self._make_folders([*ancestors(path), path])

    async def remove(self, path: str, *, recursive: bool = False) -> int:
        """Remove a file, or a folder: an empty one, or with `recursive` one with all that is in it. Returns how many entries went.

        Raises: NoSuchPath, AlreadyThere (the folder is not empty, or there are concurrent versions), Unavailable, OutcomeUnknown.
        """
        path = _checked(path)
        row, version = await self._find(path)
        if len(siblings(row)) > 1:
            # A context that covers one of two versions by the same coordinator would cover both.
            raise AlreadyThere(f"{row.path} has concurrent versions: put what shall stand there, which supersedes them all, then remove it")
        if version.kind is Kind.FILE:
            await self._tombstone(path, context_of(row))
            return 1
        removed = 0
        async for entry in self._entries(path, recursive=False):
            if not recursive:
                raise AlreadyThere(f"{path} is not empty: remove it with all that is in it by -r")
            removed += await self.remove(entry.path, recursive=True)
        self._forget_folders(path)
        await self._tombstone(path, context_of(row))
        async for _ in self._entries(path, recursive=False):  # a put that came between wins: the folder is there again
            await self._make_folders([*ancestors(path), path])
            raise AlreadyThere(f"{path} is in use: something was put into it at this moment")
        return removed + 1

    # -- reading -------------------------------------------------------------

    async def get(
        self, path: str, write: Write, *, on_progress: Progress | None = None, begin: int = 0, end: int | None = None
    ) -> Entry:
        """Write the bytes of the file `path` from `begin` to `end` (None: all) and return what it was.

        Raises: NoSuchPath, WrongUsage (it is a folder), Unavailable, DataLost.
        """
        row, version = await self._find(_checked(path))
        if version.kind is not Kind.FILE:
            raise WrongUsage(f"{path} is a folder: name a file in it, or fetch it with `shoal get -r`")
        progress = on_progress or _no_progress

        async def deliver(data: Any) -> None:
            await write(data)
            progress(len(data))

        stop = version.size if end is None else min(end, version.size)
        await self._reader.read(version.content, version.size, begin, stop, deliver)
        return _entry(row, version)

    async def verified_prefix(self, path: str, read_local: ReadLocal) -> tuple[Entry, int]:
        """Return what the file `path` is, and how many bytes from the beginning of a local file are its own.

        `read_local(offset, count)` returns local bytes, fewer than `count` at their end. Chunks are compared whole, by their hashes;
        what is known is where a `get` may begin, if it gets the same version.

        Raises: NoSuchPath, WrongUsage (it is a folder), Unavailable, DataLost, and what `read_local` raises.
        """
        row, version = await self._find(_checked(path))
        if version.kind is not Kind.FILE:
            raise WrongUsage(f"{path} is a folder: name a file in it, or fetch it with `shoal get -r`")
        content, size = version.content, version.size
        entry = _entry(row, version)
        if not content.chunks:
            local = await read_local(0, size)
            return entry, len(local) if content.inline.startswith(local) else 0
        verified = index = 0
        async for chunk_id in self._reader.chunk_ids(content):
            if verified >= size:
                break
            offset, length = chunk_span(content, size, index)
            local = await read_local(offset, length)
            if len(local) < length or not await self._access.compute.run(partial(chunk_matches, chunk_id, local)):
                break
            verified = offset + length
            index += 1
        return entry, verified

    async def stat(self, path: str) -> Stat:
        """Look closely at one path.

        Raises: NoSuchPath, Unavailable, DataLost.
        """
        row, version = await self._find(_checked(path))
        conflicts = tuple(_entry(row, other) for other in siblings(row) if other != version)
        fewest: int | None = None
        count = 0
        if version.content.chunks:
            async for place in self._places(version):
                count += 1
                fewest = len(place.nodes) if fewest is None else min(fewest, len(place.nodes))
        if fewest is None:
            layout = self._access.layout
            fewest = min(len(layout.replicas(row_partition(row.path))), layout.copies_wanted)
        return Stat(_entry(row, version), count, fewest, conflicts)

    async def list(self, path: str, *, recursive: bool = False) -> AsyncIterator[Entry]:
        """Yield what is in the folder `path` in order of name; a file yields itself. Concurrent versions are entries of their own.

        Raises: NoSuchPath, Unavailable.
        """
        path = _checked(path, root=True)
        if path != ROOT:
            row, version = await self._find(path)
            if version.kind is Kind.FILE:
                yield _entry(row, version)
                return
        async for entry in self._entries(path, recursive=recursive):
            yield entry

    async def where(self, path: str) -> AsyncIterator[ChunkPlace]:
        """Yield for each chunk of the file `path` which members hold it now.

        Raises: NoSuchPath, WrongUsage, Unavailable, DataLost.
        """
        _, version = await self._find(_checked(path))
        if version.kind is not Kind.FILE:
            raise WrongUsage(f"{path} is a folder: name a file")
        async for place in self._places(version):
            yield place

    async def status(self) -> ClusterStatus:
        """Ask every member how it is.

        Raises: nothing for members that do not answer: their state says so.
        """
        layout = self._access.layout
        answers = await self._ask_status(tuple(layout.members))
        seen = {peer.node_id for status in answers.values() for peer in status.peers if peer.alive}
        newest = max((status.layout_version for status in answers.values()), default=0)
        if newest > layout.version:
            await self._access.catch_up(newest)
            layout = self._access.layout
            answers |= await self._ask_status([node for node in layout.members if node not in answers])
        members = []
        for node_id, member in layout.members.items():
            status = answers.get(node_id)
            alive = status is not None or node_id in seen
            address = next(iter([*self._access.addresses_of(node_id), *member.addresses]), "")
            state = "alive" if alive else "dead"
            members.append(MemberStatus(member.name, node_id, address, state, member.zone, member.weight, status))
        members.sort(key=lambda member: (member.name, member.node_id))
        return ClusterStatus(
            layout.cluster_id,
            layout.version,
            len(layout.joint_partitions),
            tuple(members),
            layout.copies_wanted,
            layout.copies_needed,
        )

    # -- inside --------------------------------------------------------------

    def _new_op_id(self) -> OpId:
        return OpId(self._access.entropy.token("op id", OP_ID_BYTES))

    async def _find(self, path: str) -> tuple[Row, Version]:
        """Return the row and the version that `path` names: the winner, or by its conflict name another one.

        Raises: NoSuchPath, Unavailable.
        """
        if path == ROOT:
            raise WrongUsage("/ is the root of all folders: name something in it")
        row = await read_row(self._access, path)
        version = winner(row)
        if version is not None:
            return row, version
        base = _base_of_conflict(name_of(path))
        if base is not None:
            row = await read_row(self._access, join(parent_of(path), base))
            for other in siblings(row)[1:]:
                if _entry(row, other).path == path:
                    return row, other
        raise NoSuchPath(f"{path}: no such file or folder")

    async def _entries(self, folder: str, *, recursive: bool) -> AsyncIterator[Entry]:
        """Yield what is in a folder, whether it is marked or not."""
        after = ""
        while True:
            rows, after = await read_page(self._access, folder, after)
            for row in rows:
                for version in siblings(row):
                    entry = _entry(row, version)
                    yield entry
                    if recursive and version.kind is Kind.DIRECTORY:
                        async for inner in self._entries(entry.path, recursive=True):
                            yield inner
            if not after:
                return

    async def _make_folders(self, folders: Sequence[str]) -> None:
        """Mark `folders`, outermost first, where they are not marked. One at a time: many puts share their folders."""
        if all(folder in self._known_folders for folder in folders):
            return
        async with self._making_folders:
            await self._make_missing_folders(folders)

    async def _make_missing_folders(self, folders: Sequence[str]) -> None:
        for folder in folders:
            for row in await self._missing_folders([folder]):
                await self._mark_folder(folder, context_of(row))
                self._remember_folder(folder)

    async def _missing_folders(self, folders: Sequence[str]) -> Sequence[Row]:
        """Return the rows of those of `folders` that are not marked.

        Raises: AlreadyThere when one of them is a file, Unavailable.
        """
        missing = []
        for folder in folders:
            if folder in self._known_folders:
                continue
            row = await read_row(self._access, folder)
            standing = winner(row)
            if standing is None:
                missing.append(row)
            elif standing.kind is Kind.FILE:
                raise AlreadyThere(f"{folder} is a file: it cannot have anything in it")
            else:
                self._remember_folder(folder)
        return missing

    def _remember_folder(self, folder: str) -> None:
        while len(self._known_folders) >= KNOWN_FOLDERS_MAX:
            del self._known_folders[next(iter(self._known_folders))]
        self._known_folders[folder] = None

    async def _mark_folder(self, folder: str, context: Vector) -> None:
        now = self._access.wall_clock.milliseconds()
        stored = Stored(NO_CONTENT, 0, frozenset(), None)
        await self._publish(folder, self._new_op_id(), context, Kind.DIRECTORY, stored, FOLDER_MODE, now)

    async def _recheck_folder(self, folder: str) -> None:
        """After a commit: a folder that was removed meanwhile is there again."""
        if folder == ROOT:
            return
        if winner(await read_row(self._access, folder)) is None:
            self._forget_folders(folder)
            await self._make_folders([*ancestors(folder), folder])

    def _forget_folders(self, folder: str) -> None:
        for known in [known for known in self._known_folders if known == folder or known.startswith(f"{folder}/")]:
            del self._known_folders[known]

    async def _tombstone(self, path: str, context: Vector) -> None:
        now = self._access.wall_clock.milliseconds()
        stored = Stored(NO_CONTENT, 0, frozenset(), None)
        await self._publish(path, self._new_op_id(), context, Kind.TOMBSTONE, stored, 0, now)

    async def _publish(
        self, path: str, op_id: OpId, context: Vector, kind: Kind, stored: Stored, mode: int, modified: int
    ) -> tuple[Dot, int]:
        """Commit one version: the same operation at one replica after another, until one of them says that it stands.

        Raises: AlreadyThere, WrongUsage, Unavailable (no replica can have stored it), OutcomeUnknown.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + OPERATION_SECONDS
        perhaps_stored = False
        faults: list[str] = []
        partition = row_partition(path)
        while True:
            for node in self._access.preferred(self._access.layout.replicas(partition)):
                layout = self._access.layout
                message = RowPublish(
                    deadline_milliseconds=milliseconds(PUBLISH_SECONDS),
                    partition=partition,
                    stamp=layout.cfg(partition),
                    op_id=op_id,
                    path=path,
                    context=context,
                    kind=kind,
                    size=stored.size,
                    mode=mode,
                    modified_milliseconds=max(0, modified),
                    writer=self._access.name,
                    content=stored.content,
                    holders=tuple(sorted(stored.holders)),
                )
                try:
                    reply = await self._access.request(node, message, timeout_seconds=PUBLISH_SECONDS)
                except Unreachable as error:
                    faults.append(str(error))
                except RequestFailed as failed:
                    faults.append(failed.reason)
                    perhaps_stored |= await self._judge_failure(path, failed, perhaps_stored)
                except (LinkLost, TimeoutError) as error:
                    perhaps_stored = True
                    faults.append(str(error) or "no answer in time")
                else:
                    assert isinstance(reply.message, Published)
                    return reply.message.dot, reply.message.copies
            if loop.time() >= give_up_at:
                break
            await asyncio.sleep(RETRY_SECONDS)
        reasons = "; ".join(faults[-3:])
        if perhaps_stored:
            raise OutcomeUnknown(f"{path}: it may or may not be stored ({reasons}): the same command again is safe")
        raise Unavailable(f"{path}: too few of its replicas can be reached ({reasons}): nothing was changed")

    async def _judge_failure(self, path: str, failed: RequestFailed, perhaps_stored: bool) -> bool:
        """Return whether the replica may have stored it all the same; raise where another try cannot help."""
        match failed.code:
            case ErrorCode.STALE | ErrorCode.NOT_REPLICA | ErrorCode.NO_CLUSTER:
                if failed.layout_version > self._access.layout.version:
                    await self._access.catch_up(failed.layout_version)
                return False
            case ErrorCode.BUSY | ErrorCode.UNAVAILABLE | ErrorCode.CORRUPT:
                return False
            case ErrorCode.EXISTS if not perhaps_stored:
                raise AlreadyThere(f"{failed.reason}: remove it first, or choose another name")
            case ErrorCode.TOO_LARGE | ErrorCode.INVALID | ErrorCode.UNSUPPORTED if not perhaps_stored:
                raise ShoalError(f"{path}: {failed.reason}")
        return True

    async def _places(self, version: Version) -> AsyncIterator[ChunkPlace]:
        content, size = version.content, version.size
        batch: list[ChunkId] = []
        first = 0
        total = chunk_count(content, size)
        async for chunk_id in self._reader.chunk_ids(content):
            batch.append(chunk_id)
            if first + len(batch) > total:
                raise DataLost("a manifest lists more chunks than the file has: it is damaged")
            if len(batch) < limits.CHUNKS_PER_REQUEST_MAX and first + len(batch) < total:
                continue
            holders = await self._holders(batch)
            for offset, each in enumerate(batch):
                index = first + offset
                yield ChunkPlace(index, each, chunk_span(content, size, index)[1], holders[offset])
            first += len(batch)
            batch = []

    async def _holders(self, chunk_ids: Sequence[ChunkId]) -> Sequence[tuple[str, ...]]:
        """Return for each chunk the names of the members that hold it now: its homes first."""
        layout = self._access.layout
        message = ChunksHave(milliseconds(TRY_SECONDS), tuple(chunk_ids))

        async def ask(node: NodeId) -> bytes:
            reply = await self._access.request(node, message, timeout_seconds=TRY_SECONDS)
            assert isinstance(reply.message, ChunksHeld)
            return reply.message.held

        nodes = tuple(layout.members)
        answers, _ = await collect(nodes, ask, lambda done: len(done) == len(nodes), TRY_SECONDS)
        result = []
        for index, chunk_id in enumerate(chunk_ids):
            held = [node for node in nodes if node in answers and answers[node][index >> 3] >> (index & 7) & 1]
            homes = layout.homes(chunk_partition(chunk_id))
            held.sort(key=lambda node: homes.index(node) if node in homes else len(homes))
            result.append(tuple(layout.members[node].name for node in held))
        return result

    async def _ask_status(self, nodes: Sequence[NodeId]) -> dict[NodeId, Status]:
        message = StatusGet(milliseconds(TRY_SECONDS))

        async def ask(node: NodeId) -> Status:
            reply = await self._access.request(node, message, timeout_seconds=TRY_SECONDS)
            assert isinstance(reply.message, Status)
            return reply.message

        answers, _ = await collect(nodes, ask, lambda done: len(done) == len(nodes), TRY_SECONDS)
        return answers


def version_text(dot: Dot) -> str:
    """Return a version as people see it: its coordinator and number."""
    return f"{short(dot.actor)}.{dot.counter}"


def _no_progress(count: int) -> None:
    """Nobody watches."""


def _checked(path: str, *, root: bool = False) -> str:
    try:
        path = normalise(path)
    except InvalidPath as error:
        raise WrongUsage(str(error)) from None
    if path == ROOT and not root:
        raise WrongUsage("/ is the root of all folders: name something in it")
    return path


def _entry(row: Row, version: Version) -> Entry:
    conflict = version != winner(row)
    name = name_of(row.path)
    if conflict:
        name = _conflict_name(name, version)
    return Entry(
        path=join(parent_of(row.path), name),
        name=name,
        type="dir" if version.kind is Kind.DIRECTORY else "file",
        size=version.size,
        modified_milliseconds=version.modified_milliseconds,
        mode=version.mode,
        version=version_text(version.dot),
        writer=version.writer,
        conflict=conflict,
    )


_CONFLICT = re.compile(r" \(conflict [^()/]* \d{4}-\d\d-\d\d \d\d\.\d\d\.\d\d\.\d{3}\)")


def _conflict_name(name: str, version: Version) -> str:
    """Return `name (conflict WRITER TIME).ext`. The time is that of the clock which ordered the versions."""
    milliseconds_utc = min(version.hlc >> 16, LATEST_MILLISECONDS)
    moment = datetime.fromtimestamp(milliseconds_utc // 1000, UTC)
    stamp = f"{moment:%Y-%m-%d %H.%M.%S}.{milliseconds_utc % 1000:03d}"
    writer = re.sub(r"[()/]", "_", version.writer)
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    return f"{stem} (conflict {writer} {stamp}){dot}{extension}"


def _base_of_conflict(name: str) -> str | None:
    base, count = _CONFLICT.subn("", name)
    return base if count == 1 else None
