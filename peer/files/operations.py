"""What a user of the cluster can do: put, get, list, stat, copy, move, remove, make folders, see where things lie.

Owns the order of steps of each operation and what its result means. Works over any `Access`; `peer.Client` gives it a
`peer.session.Session`, a simulation one of its own. Every error is one of the typed exceptions of `peer.errors`, and `Unavailable`
always means that nothing was changed.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial

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
    CHUNKS_AT_ONCE,
    OPERATION_SECONDS,
    PUBLISH_SECONDS,
    RETRY_SECONDS,
    TRY_SECONDS,
    WAIT_SECONDS,
    Access,
    milliseconds,
)
from peer.files.attempts import Attempt, attempt_of
from peer.files.cluster_status import ClusterStatus, cluster_status
from peer.files.entries import ChunkPlace, Entry, PutResult, Stat, base_of_conflict, entry_of, version_text
from peer.files.quorum import collect, read_page, read_row
from peer.files.read_path import ChunkReader, Write
from peer.files.sides import Sides
from peer.files.write_path import Progress, Read, Stored, store_content
from protocol import limits
from protocol.errors import ErrorCode, InvalidPath
from protocol.hashing import Buffer
from protocol.identity import OP_ID_BYTES, ChunkId, NodeId, OpId
from protocol.manifest import NO_CONTENT, Content, chunk_count, chunk_matches, chunk_partition, chunk_span
from protocol.messages import ChunksHave, ChunksHeld, Force, Forced, Forget, Published, RebalanceSet, RowPublish
from protocol.paths import ROOT, ancestors, join, name_of, normalise, parent_of, row_partition
from protocol.versions import Dot, Kind, Row, Version, context_of, find_operation, siblings, winner

ReadLocal = Callable[[int, int], Awaitable[bytes]]
"""Returns the bytes of a local file from an offset on, so many if it has them."""

NOTHING = Stored(NO_CONTENT, 0, frozenset(), None)
"""What a folder and a tombstone contain."""
FILE_MODE = 0o644
FOLDER_MODE = 0o755
ROWS_AT_ONCE = 256
"""Rows, and pages of rows, that one client reads or writes at a time. The others wait: of all at once most would be answered too late."""
FORCE_SECONDS = 10.0
"""The node that is asked what going on by force costs asks all others."""
KNOWN_FOLDERS_MAX = 4096
"""Folders that one client has seen exist: their markers are not read again before each put."""


class Operations:
    """The operations of a user."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._sides = Sides(access)
        self._reader = ChunkReader(access, self._sides)
        self._row_turns = asyncio.Semaphore(ROWS_AT_ONCE)
        self._store_turns = asyncio.Semaphore(CHUNKS_AT_ONCE)
        self._known_folders: dict[str, None] = {}
        self._making_folders = asyncio.Lock()
        self._looks: dict[str, _Looks] = {}
        self.on_wait: Callable[[str], None] = _nobody_watches
        """Is told in one line what is waited for, when something takes more than WAIT_SECONDS for lack of machines that answer."""

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
        op_id: bytes | None = None,
    ) -> PutResult:
        """Store what `read` returns (`size` bytes if that is known) as the file `path`, and its folders where they are missing.

        The put begins now: what it supersedes is what is there now. It is committed when this returns.

        With the `op_id` of an `OutcomeUnknown` it is the put that this was raised for, and supersedes what was there when that one began:
        it takes effect once, whichever try did it, and stays superseded or removed if it was since then.

        Raises: WrongUsage, AlreadyThere, SourceChanged, Unavailable (nothing was changed), OutcomeUnknown (repeat it with its op_id).
        """
        path = _checked(path)
        attempt = attempt_of(op_id, path) if op_id is not None else None
        with _as_unknown_as_before(op_id):
            row = await self._read_row(path)
            attempt = attempt or self._begin(row)
            done = await self._done_before(row, attempt)
            if done is not None:
                return done
            _refuse_folder(row)
            await self._missing_folders(ancestors(path))
            try:
                stored = await store_content(self._access, read, size, on_progress or _no_progress, self._store_turns)
            except Unavailable as error:
                raise Unavailable(f"{path}: {error}") from None
            if modified_milliseconds is None:
                modified_milliseconds = self._access.wall_clock.milliseconds()
            return await self._commit_file(attempt, stored, mode, modified_milliseconds)

    async def put_bytes(self, path: str, data: Buffer, *, op_id: bytes | None = None) -> PutResult:
        """Store `data` as the file `path`.

        Raises: what `put` raises.
        """
        view = memoryview(data).cast("B")
        position = 0

        async def read(count: int) -> bytes:
            nonlocal position
            piece = bytes(view[position : position + count])
            position += len(piece)
            return piece

        return await self.put(path, read, size=len(view), op_id=op_id)

    async def make_directory(self, path: str) -> None:
        """Make a folder and those above it; one that exists is no error.

        Raises: AlreadyThere when a file is in the way, Unavailable, OutcomeUnknown.
        """
        await self._make_again(_checked(path))

    async def copy(self, source: str, target: str, *, op_id: bytes | None = None) -> PutResult:
        """Let the file `target` have what the file `source` has, mode and time included. No content is moved.

        What it supersedes is what `target` is now; a crash leaves either that or the copy. `op_id` is that of `put`.

        Raises: NoSuchPath, WrongUsage, AlreadyThere (`target` is a folder), Unavailable, DataLost (a chunk has no holder), OutcomeUnknown.
        """
        source, target = _two_paths(source, target)
        attempt = attempt_of(op_id, target) if op_id is not None else None
        with _as_unknown_as_before(op_id):
            row = await self._read_row(target)
            attempt = attempt or self._begin(row)
            done = await self._done_before(row, attempt)
            if done is not None:
                return done
            _refuse_folder(row)
            _, version = await self._find_file(source)
            return await self._copy(version, source, attempt)

    async def move(self, source: str, target: str) -> PutResult:
        """Give the file `source` the name `target`. No content is moved.

        The new name is committed before the old one goes: a crash between leaves both, never neither, and the same call again finishes it.
        A version that somebody else puts at `source` meanwhile stays there.

        Raises: what `copy` raises, and AlreadyThere when `source` has concurrent versions.
        """
        source, target = _two_paths(source, target)
        row, version = await self._find_file(source)
        if len(siblings(row)) > 1:
            raise AlreadyThere(f"{row.path} has concurrent versions: put what shall stand there, which supersedes them all, then move it")
        superseded = await self._read_row(target)
        _refuse_folder(superseded)
        result = await self._copy(version, source, self._begin(superseded))
        try:
            await self._tombstone(row)
        except (Unavailable, OutcomeUnknown) as error:
            raise OutcomeUnknown(f"{target} is there, {source} may be there as well ({error}): the same command again is safe") from None
        return result

    async def _copy(self, version: Version, source: str, attempt: Attempt) -> PutResult:
        await self._missing_folders(ancestors(attempt.path))
        stored = await self._held(version.content, version.size, source)
        return await self._commit_file(attempt, stored, version.mode, version.modified_milliseconds)

    async def _held(self, content: Content, size: int, path: str) -> Stored:
        """Return content that is stored, with those who hold its chunks now.

        Raises: DataLost when a chunk has none, Unavailable when one has fewer copies than a put would need.
        """
        if not content.chunks:
            return Stored(content, size, frozenset(), None)
        layout = self._access.layout
        fewest = len(layout.members)
        nodes: set[NodeId] = set()
        async for batch in _batches(_both(self._reader.manifest_ids(content), self._reader.chunk_ids(content))):
            for chunk_id, holders in zip(batch, await self._holders(batch), strict=True):
                if not holders:
                    await self._reader.fetch(chunk_id)  # nobody said that he has it: this tells whether it is lost or cannot be reached
                fewest = min(fewest, len(holders))
                nodes.update(holders)
        if fewest < layout.copies_needed:
            raise Unavailable(f"{path}: a chunk of it has {fewest} copies that can be reached, and {layout.copies_needed} are needed")
        return Stored(content, size, frozenset(nodes), min(fewest, layout.copies_wanted))

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
            await self._tombstone(row)
            return 1
        removed = 0
        try:
            async for entry in self._entries(path, recursive=False):
                if not recursive:
                    raise AlreadyThere(f"{path} is not empty: remove it with all that is in it by -r")
                with suppress(NoSuchPath):  # somebody else removes it as well
                    removed += await self.remove(entry.path, recursive=True)
            self._forget_folders(path)
            await self._tombstone(row)
            removed += 1
            async for _ in self._entries(path, recursive=False):  # a put that came between wins: the folder is there again
                await self._make_again(path)
                raise AlreadyThere(f"{path} is in use: something was put into it at this moment")
        except Unavailable as error:
            if not removed:
                raise
            raise OutcomeUnknown(f"{path}: of what is in it something is removed ({error}): the same command again is safe") from None
        return removed

    # -- reading -------------------------------------------------------------

    async def get(
        self, path: str, write: Write, *, on_progress: Progress | None = None, begin: int = 0, end: int | None = None
    ) -> Entry:
        """Write the bytes of the file `path` from `begin` to `end` (None: all) and return what it was.

        Raises: NoSuchPath, WrongUsage (it is a folder), Unavailable, DataLost.
        """
        content = await self.content(path)
        progress = on_progress or _no_progress

        async def deliver(data: Buffer) -> None:
            await write(data)
            progress(len(data))

        await content.read(begin, content.entry.size if end is None else end, deliver)
        return content.entry

    async def get_bytes(self, path: str, begin: int = 0, end: int | None = None) -> bytes:
        """Return the bytes of the file `path` from `begin` to `end` (None: all).

        Raises: what `get` raises.
        """
        data = bytearray()

        async def write(piece: Buffer) -> None:
            data.extend(piece)

        await self.get(path, write, begin=begin, end=end)
        return bytes(data)

    async def content(self, path: str) -> "FileContent":
        """Return the content of the file `path` as it is now, to be read in any order.

        Raises: NoSuchPath, WrongUsage (it is a folder), Unavailable.
        """
        row, version = await self._find_file(path, alone=True)
        return FileContent(self._reader, entry_of(row, version), version)

    async def verified_prefix(self, path: str, read_local: ReadLocal) -> tuple[Entry, int]:
        """Return what the file `path` is, and how many bytes from the beginning of a local file are its own.

        `read_local(offset, count)` returns local bytes, fewer than `count` at their end. Chunks are compared whole, by their hashes;
        what is known is where a `get` may begin, if it gets the same version.

        Raises: NoSuchPath, WrongUsage (it is a folder), Unavailable, DataLost, and what `read_local` raises.
        """
        row, version = await self._find_file(path, alone=True)
        content, size = version.content, version.size
        entry = entry_of(row, version)
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

    async def entry(self, path: str) -> Entry:
        """Return what there is at `path`, without a look at its chunks.

        Raises: NoSuchPath, Unavailable.
        """
        return entry_of(*await self._find(_checked(path), alone=True))

    async def exists(self, path: str) -> bool:
        """Return whether there is a file or a folder at `path`.

        Raises: WrongUsage, Unavailable.
        """
        path = _checked(path, root=True)
        try:
            if path != ROOT:
                await self._find(path, alone=True)
        except NoSuchPath:
            return False
        return True

    async def stat(self, path: str) -> Stat:
        """Look closely at one path.

        Raises: NoSuchPath, Unavailable, DataLost.
        """
        row, version = await self._find(_checked(path), alone=True)
        conflicts = tuple(entry_of(row, other) for other in siblings(row) if other != version)
        fewest: int | None = None
        count = 0
        if version.content.chunks:
            async for place in self._places(version):
                count += 1
                fewest = len(place.nodes) if fewest is None else min(fewest, len(place.nodes))
        if fewest is None:
            layout = self._access.layout
            fewest = min(len(layout.replicas(row_partition(row.path))), layout.copies_wanted)
        return Stat(entry_of(row, version), count, fewest, conflicts)

    async def list(self, path: str, *, recursive: bool = False) -> AsyncIterator[Entry]:
        """Yield what is in the folder `path` in order of name; a file yields itself. Concurrent versions are entries of their own.

        Raises: NoSuchPath, Unavailable.
        """
        path = _checked(path, root=True)
        if path != ROOT:
            row, version = await self._find(path, alone=True)
            if version.kind is Kind.FILE:
                yield entry_of(row, version)
                return
        async for entry in self._entries(path, recursive=recursive, alone=True):
            yield entry

    async def where(self, path: str) -> AsyncIterator[ChunkPlace]:
        """Yield for each chunk of the file `path` which members hold it now.

        Raises: NoSuchPath, WrongUsage, Unavailable, DataLost.
        """
        _, version = await self._find_file(path, alone=True)
        async for place in self._places(version):
            yield place

    async def status(self) -> ClusterStatus:
        """Ask every member how it is.

        Raises: Unavailable when this side's layout is old and nobody has the new one.
        """
        return await cluster_status(self._access)

    async def forget(self, node_id: NodeId) -> None:
        """Have a member that is dead left out at once; one that is no member is forgotten already.

        The wish is not durable: repeat it until `status` names the member no more.

        Raises: WrongUsage (it is there), Unavailable (nothing can be decided now, or the others could not go on without it).
        """
        message = Forget(milliseconds(TRY_SECONDS), node_id)
        faults: list[str] = []
        for node in self._access.preferred([node for node in self._access.layout.members if node != node_id]):
            try:
                await self._access.request(node, message, timeout_seconds=TRY_SECONDS)
            except RequestFailed as failed:
                if failed.code is ErrorCode.INVALID:
                    raise WrongUsage(failed.reason) from None
                faults.append(failed.reason)
            except (LinkLost, TimeoutError) as error:
                faults.append(str(error) or "no answer in time")
            else:
                return
        raise Unavailable(faults[0] if faults else "there is no other member that could decide it")

    async def force(self, gone: Sequence[NodeId], *, begin: bool) -> Forced:
        """Return what it costs to go on by force, as another cluster, without the members `gone`; with `begin` have a node begin it.

        It is asked of one node, the one that this client came in by if that stays. This client is of no use once it is done: its cluster is
        no more.

        Raises: WrongUsage (one of them is there, or nothing has to be forced), Unavailable (the others could not go on either, or cannot
        be reached), OutcomeUnknown (with `begin`: ask a new client for the `status`).
        """
        staying = [node for node in self._access.layout.members if node not in gone]
        message = Force(milliseconds(FORCE_SECONDS), tuple(gone), begin)
        for node in self._access.preferred(staying)[:1]:
            try:
                reply = await self._access.request(node, message, timeout_seconds=FORCE_SECONDS)
            except RequestFailed as failed:
                raise (WrongUsage if failed.code is ErrorCode.INVALID else Unavailable)(failed.reason) from None
            except (LinkLost, TimeoutError) as error:
                raise (OutcomeUnknown if begin else Unavailable)(str(error) or "no answer in time") from None
            assert isinstance(reply.message, Forced)
            return reply.message
        raise WrongUsage("those are all the members: at least one has to stay")

    async def set_rebalance(self, *, paused: bool) -> tuple[str, ...]:
        """Have all members stop moving copies of which there are enough, or go on with it; return the names of those that did not answer.

        Each remembers it, also when it starts anew. What has fewer copies than wanted is copied all the same.
        """
        message = RebalanceSet(milliseconds(TRY_SECONDS), paused)
        members = self._access.layout.members

        async def tell(node: NodeId) -> None:
            await self._access.request(node, message, timeout_seconds=TRY_SECONDS)

        done, _ = await collect(tuple(members), tell, lambda done: len(done) == len(members), TRY_SECONDS)
        return tuple(sorted(member.name for node, member in members.items() if node not in done))

    # -- inside --------------------------------------------------------------

    async def _read_row(self, path: str, *, alone: bool = False) -> Row:
        """Return the row of `path`; empty if it was never written. `alone` is that of `quorum.read_row`: for whoever only reads.

        Raises: Unavailable.
        """
        async with self._row_turns:
            return await read_row(self._access, self._sides, path, self.on_wait, alone=alone)

    async def _find(self, path: str, *, alone: bool = False) -> tuple[Row, Version]:
        """Return the row and the version that `path` names: the winner, or by its conflict name another one.

        Raises: NoSuchPath, Unavailable.
        """
        if path == ROOT:
            raise WrongUsage("/ is the root of all folders: name something in it")
        row = await self._read_row(path, alone=alone)
        version = winner(row)
        if version is not None:
            return row, version
        base = base_of_conflict(name_of(path))
        if base is not None:
            row = await self._read_row(join(parent_of(path), base), alone=alone)
            for other in siblings(row)[1:]:
                if entry_of(row, other).path == path:
                    return row, other
        raise NoSuchPath(f"{path}: no such file or folder")

    async def _find_file(self, path: str, *, alone: bool = False) -> tuple[Row, Version]:
        row, version = await self._find(_checked(path), alone=alone)
        if version.kind is not Kind.FILE:
            raise WrongUsage(f"{path} is a folder: name a file in it, or fetch it with `shoal get -r`")
        return row, version

    async def _entries(self, folder: str, *, recursive: bool, alone: bool = False) -> AsyncIterator[Entry]:
        """Yield what is in a folder, whether it is marked or not."""
        after = ""
        while True:
            async with self._row_turns:
                rows, after = await read_page(self._access, self._sides, folder, after, self.on_wait, alone=alone)
            for row in rows:
                for version in siblings(row):
                    entry = entry_of(row, version)
                    yield entry
                    if recursive and version.kind is Kind.DIRECTORY:
                        async for inner in self._entries(entry.path, recursive=True, alone=alone):
                            yield inner
            if not after:
                return

    def _begin(self, row: Row) -> Attempt:
        """Return a new attempt to supersede `row`."""
        return Attempt(row.path, OpId(self._access.entropy.token("op id", OP_ID_BYTES)), context_of(row))

    async def _done_before(self, row: Row, attempt: Attempt) -> PutResult | None:
        """Return the result of `attempt` if an earlier one of the same operation has taken effect."""
        dot = find_operation(row, attempt.op_id)
        if dot is None:
            return None
        if any(head.op_id == attempt.op_id for head in row.heads):
            await self._see_to_folder(attempt)
        copies = len(self._access.layout.replicas(row_partition(row.path))) // 2 + 1  # so many have the row now that it was read
        return PutResult(row.path, version_text(dot), attempt.size, min(attempt.copies or copies, copies))

    async def _commit_file(self, attempt: Attempt, stored: Stored, mode: int, modified: int) -> PutResult:
        """Let there be a file whose content is durable."""
        path = attempt.path
        attempt = replace(attempt, size=stored.size, copies=stored.copies or 0)
        try:
            await self._make_folders(ancestors(path))
        except OutcomeUnknown as error:
            raise Unavailable(f"{path}: its folder cannot be made ({error})") from None
        dot, copies = await self._publish(attempt, Kind.FILE, stored, mode, modified)
        await self._see_to_folder(attempt)
        return PutResult(path, version_text(dot), stored.size, min(stored.copies or copies, copies))

    async def _make_folders(self, folders: Sequence[str]) -> None:
        """Mark `folders`, outermost first, where they are not marked. One at a time: many puts share their folders."""
        if all(folder in self._known_folders for folder in folders):
            return
        async with self._making_folders:
            await self._make_missing_folders(folders)

    async def _make_missing_folders(self, folders: Sequence[str]) -> None:
        for folder in folders:
            for row in await self._missing_folders([folder]):
                await self._mark_folder(row)
                self._remember_folder(folder)

    async def _missing_folders(self, folders: Sequence[str]) -> Sequence[Row]:
        """Return the rows of those of `folders` that are not marked.

        Raises: AlreadyThere when one of them is a file, Unavailable.
        """
        missing = []
        for folder in folders:
            if folder in self._known_folders:
                continue
            row = await self._read_row(folder)
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

    async def _mark_folder(self, row: Row) -> None:
        await self._publish(self._begin(row), Kind.DIRECTORY, NOTHING, FOLDER_MODE, self._access.wall_clock.milliseconds())

    async def _tombstone(self, row: Row) -> None:
        await self._publish(self._begin(row), Kind.TOMBSTONE, NOTHING, 0, self._access.wall_clock.milliseconds())

    async def _see_to_folder(self, attempt: Attempt) -> None:
        try:
            await self._recheck_folder(parent_of(attempt.path))
        except (Unavailable, OutcomeUnknown) as error:
            text = f"{attempt.path}: it is stored, but its folder may have been removed meanwhile ({error}): the same command again is safe"
            raise OutcomeUnknown(text, attempt.token()) from None

    async def _recheck_folder(self, folder: str) -> None:
        """After a commit: a folder that was removed meanwhile is there again. Puts that commit during one look share the next."""
        if folder == ROOT:
            return
        looks = self._looks.setdefault(folder, _Looks())
        wanted = looks.begun + 1
        looks.users += 1
        try:
            async with looks.lock:
                if looks.ended < wanted:
                    looks.begun += 1
                    await self._recheck(folder)
                    looks.ended = looks.begun
        finally:
            looks.users -= 1
            if not looks.users:
                del self._looks[folder]

    async def _recheck(self, folder: str) -> None:
        if winner(await self._read_row(folder)) is None:
            self._forget_folders(folder)
            await self._make_again(folder)

    async def _make_again(self, folder: str) -> None:
        """Mark a folder and those above it, whatever is remembered of them: somebody else may have removed them all."""
        folders = [*ancestors(folder), folder]
        async with self._making_folders:  # who marked one before it was removed remembers it when he is done: forget it after that
            for each in folders:
                self._known_folders.pop(each, None)
            await self._make_missing_folders(folders)

    def _forget_folders(self, folder: str) -> None:
        for known in [known for known in self._known_folders if known == folder or known.startswith(f"{folder}/")]:
            del self._known_folders[known]

    async def _publish(self, attempt: Attempt, kind: Kind, stored: Stored, mode: int, modified: int) -> tuple[Dot, int]:
        """Commit one version: the same operation at one replica after another, until one of them says that it stands.

        Raises: AlreadyThere, ShoalError, Unavailable (no replica can have stored it), OutcomeUnknown.
        """
        async with self._row_turns:
            return await self._publish_in_turn(attempt, kind, stored, mode, modified)

    async def _publish_in_turn(self, attempt: Attempt, kind: Kind, stored: Stored, mode: int, modified: int) -> tuple[Dot, int]:
        path = attempt.path
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + OPERATION_SECONDS
        perhaps_stored = attempt.again
        faults: list[str] = []
        is_told = False
        is_stale = False  # what is no member of this layout may be one of a later layout: a replica that knows more has to say no first
        partition = row_partition(path)
        while True:
            for node in self._access.preferred(self._access.layout.replicas(partition)):
                layout = self._access.layout
                if is_stale and not stored.holders <= layout.members.keys():  # somebody has left since: the others may hold it by now
                    try:
                        stored = await self._held(stored.content, stored.size, path)
                    except (Unavailable, DataLost) as error:
                        faults.append(str(error))
                message = RowPublish(
                    deadline_milliseconds=milliseconds(PUBLISH_SECONDS),
                    partition=partition,
                    stamp=layout.cfg(partition),
                    op_id=attempt.op_id,
                    path=path,
                    context=attempt.context,
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
                    is_stale |= failed.code is ErrorCode.STALE
                except (LinkLost, TimeoutError) as error:
                    perhaps_stored = True
                    faults.append(str(error) or "no answer in time")
                else:
                    assert isinstance(reply.message, Published)
                    return reply.message.dot, reply.message.copies
            if loop.time() >= give_up_at:
                break
            if loop.time() >= give_up_at - OPERATION_SECONDS + WAIT_SECONDS and not is_told:
                is_told = True
                self.on_wait(f"waiting for a replica that takes {path}: {faults[-1]}")
            await asyncio.sleep(RETRY_SECONDS)
        reasons = "; ".join(faults[-3:])
        if perhaps_stored:
            op_id = attempt.token() if kind is Kind.FILE else b""
            raise OutcomeUnknown(f"{path}: it may or may not have taken effect ({reasons}): the same command again is safe", op_id)
        raise Unavailable(f"{path}: too few of its replicas can be reached ({reasons}): nothing was changed")

    async def _judge_failure(self, path: str, failed: RequestFailed, perhaps_stored: bool) -> bool:
        """Return whether the replica may have stored it all the same; raise where another try cannot help."""
        match failed.code:
            case ErrorCode.STALE | ErrorCode.NOT_REPLICA | ErrorCode.NO_CLUSTER:
                if failed.layout_version > self._access.layout.version:
                    with suppress(Unavailable):  # the others are asked all the same, and the next round tries it again
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
        total = chunk_count(content, size)
        members = self._access.layout.members
        index = 0
        async for batch in _batches(self._reader.chunk_ids(content)):
            if index + len(batch) > total:
                raise DataLost("a manifest lists more chunks than the file has: it is damaged")
            for chunk_id, holders in zip(batch, await self._holders(batch), strict=True):
                yield ChunkPlace(index, chunk_id, chunk_span(content, size, index)[1], tuple(members[node].name for node in holders))
                index += 1

    async def _holders(self, chunk_ids: Sequence[ChunkId]) -> Sequence[Sequence[NodeId]]:
        """Return for each chunk the members that hold it now: its homes first."""
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
            result.append(held)
        return result


@dataclass(slots=True)
class _Looks:
    """The looks at one folder that puts are waiting for, in order of their beginning."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    begun: int = 0
    ended: int = 0
    users: int = 0


class FileContent:
    """What one version of a file contains. Its bytes stay the same, whatever is put at its path afterwards."""

    def __init__(self, reader: ChunkReader, entry: Entry, version: Version) -> None:
        self.entry = entry
        self.chunk_bytes = version.content.chunk_bytes if version.content.chunks else max(1, version.size)
        """It is fetched in pieces of so many bytes: less costs as much."""
        self._reader = reader
        self._version = version

    async def read(self, begin: int, end: int, write: Write) -> None:
        """Write the bytes from `begin` to `end`, or to the end of the file where that comes first. Neither may be negative.

        Raises: Unavailable, DataLost.
        """
        size = self._version.size
        await self._reader.read(self._version.content, size, begin, min(end, size), write)


async def _both(first: AsyncIterator[ChunkId], second: AsyncIterator[ChunkId]) -> AsyncIterator[ChunkId]:
    async for each in first:
        yield each
    async for each in second:
        yield each


async def _batches(chunk_ids: AsyncIterator[ChunkId]) -> AsyncIterator[Sequence[ChunkId]]:
    """Yield ids in lists that fit one request each."""
    batch: list[ChunkId] = []
    async for chunk_id in chunk_ids:
        batch.append(chunk_id)
        if len(batch) == limits.CHUNKS_PER_REQUEST_MAX:
            yield batch
            batch = []
    if batch:
        yield batch


def _refuse_folder(row: Row) -> None:
    standing = winner(row)
    if standing is not None and standing.kind is Kind.DIRECTORY:
        raise AlreadyThere(f"{row.path} is a folder: give the name that the file should have in it")


def _no_progress(count: int) -> None:
    """Nobody watches."""


def _nobody_watches(text: str) -> None:
    """Nobody is told."""


@contextmanager
def _as_unknown_as_before(op_id: bytes | None) -> Iterator[None]:
    """Let a repeated put that changes nothing leave the outcome of the earlier try as unknown as it was."""
    try:
        yield
    except Unavailable as error:
        if op_id is None:
            raise
        raise OutcomeUnknown(f"{error}; whether an earlier try took effect is not known", op_id) from None


def _two_paths(source: str, target: str) -> tuple[str, str]:
    source, target = _checked(source), _checked(target)
    if target == source:
        raise WrongUsage(f"{target}: source and target are the same file")
    return source, target


def _checked(path: str, *, root: bool = False) -> str:
    if not isinstance(path, str):
        raise TypeError(f"a path is a str, not {path!r}")
    try:
        path = normalise(path)
    except InvalidPath as error:
        raise WrongUsage(str(error)) from None
    if path == ROOT and not root:
        raise WrongUsage("/ is the root of all folders: name something in it")
    return path
