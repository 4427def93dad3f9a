"""Many files of one command: sources, targets, whole folders.

Owns where each file of a folder goes, what is left out, and how many are under way.
"""

import asyncio
import os
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from peer.cli.progress import Transfer
from peer.client.local_files import local_fault, not_regular
from peer.errors import AlreadyThere, DataLost, LocalFault, NoSuchPath, ShoalError, SourceChanged, WrongUsage
from peer.files.entries import Entry
from peer.files.operations import Operations
from protocol.errors import InvalidPath
from protocol.paths import ROOT, join, name_of, normalise

FILES_AT_ONCE = 8
"""Files of one command under way at a time: enough to fill the wire with small ones."""
FILES_AHEAD = 10_000
"""So many are looked for ahead, so that what is to come is known."""
LEFT_OUT = {"link": "a symbolic link", "other": "neither file nor folder"}
"""What `put -r` does not store."""
T = TypeVar("T")
Moved = TypeVar("Moved", "Upload", "Download")


@dataclass(frozen=True, slots=True)
class Upload:
    """A local file (`-`: standard input) and where it goes."""

    local: str
    remote: str
    size: int | None
    """When it was looked for; None for what has no size."""


@dataclass(frozen=True, slots=True)
class Download:
    """A remote file and where it goes."""

    entry: Entry
    local: Path

    @property
    def size(self) -> int:
        """What will come."""
        return self.entry.size


@dataclass(frozen=True, slots=True)
class Naming:
    """A remote file and the remote path that it gets."""

    source: str
    target: str


OF_ONE_FILE = (LocalFault, SourceChanged, WrongUsage, NoSuchPath, AlreadyThere, DataLost)
"""What is wrong with one file only: the others of the same command are still tried."""


# -- where files go ----------------------------------------------------------


async def is_remote_folder(client: Operations, path: str) -> bool:
    """Return whether `path` is a folder of the cluster."""
    if path == ROOT:
        return True
    try:
        return (await client.entry(path)).type == "dir"
    except NoSuchPath:
        return False


async def plan_uploads(
    client: Operations, sources: Sequence[str], remote: str, *, recursive: bool, left_out: Callable[[str], None]
) -> AsyncIterator[Upload | ShoalError]:
    """Yield each file that `put` stores, and where, or what is wrong with one of them. Empty folders are made on the way.

    One file goes to `remote`, or into it if that is a folder; one folder becomes `remote` itself; several, and any to a
    `remote` that ends in /, go into it. So a `put -r` that is repeated does the same again.

    Raises: NoSuchPath, WrongUsage (both before the first file), and what stops everything.
    """
    target = normalise(remote)
    into = remote.endswith("/") or len(sources) > 1
    for source in sources:
        check_source(source, into=into, recursive=recursive)
    refuse_twins([(source, _own_name(Path(source))) for source in sources], remote)
    for source in sources:
        path = Path(source)
        if source == "-":
            yield Upload(source, target, None)
        elif path.is_dir():
            base = _remote_place(path, target, _own_name(path)) if into else target
            if isinstance(base, ShoalError):
                yield base
                continue
            async for found in _walk(client, path, base, left_out):
                yield found
        else:
            inside = into or await is_remote_folder(client, target)
            place = _remote_place(path, target, path.name) if inside else target
            yield place if isinstance(place, ShoalError) else Upload(source, place, _size_of(path))


def _own_name(path: Path) -> str:
    """Return the name that a local file or folder has: a link its own, `.` and `..` those of the folders that they are."""
    return path.resolve().name if path.name in ("", "..") else path.name


def _size_of(path: Path | os.DirEntry[str]) -> int:
    """Return the size of a file now; 0 if it has gone, which is said when it is put."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def refuse_twins(names: Sequence[tuple[str, str]], target: str) -> None:
    """Make sure that no two sources, each given with its name, become one thing in `target`: one of them would be lost.

    Raises: WrongUsage.
    """
    first: dict[str, str] = {}
    for source, name in names:
        one = unicodedata.normalize("NFC", name)
        if one in first:
            raise WrongUsage(f"{first[one]} and {source} would both become {one} in {target}: give one of them a name of its own")
        first[one] = source


def _remote_place(local: Path, remote: str, name: str) -> str | WrongUsage:
    """Return the path of `name` in `remote`, or why `local` cannot be there."""
    try:
        return normalise(join(remote, name))
    except InvalidPath as error:
        return WrongUsage(f"{local}: {error.reason}: give it another name")


def check_source(source: str, *, into: bool, recursive: bool) -> None:
    """Make sure that `put` can do something with `source`.

    Raises: NoSuchPath, WrongUsage.
    """
    path = Path(source)
    if not source:
        raise NoSuchPath("'': no such local file")  # and not the folder that one is in
    if source == "-":
        if into:
            raise WrongUsage("- has no name of its own: name the file that it becomes, not a folder")
    elif not path.exists():
        raise NoSuchPath(f"{source}: no such local file")
    elif path.is_dir():
        if not recursive:
            raise WrongUsage(f"{source} is a folder: put it with -r")
    elif not path.is_file():
        raise not_regular(source)


async def _walk(client: Operations, root: Path, base: str, left_out: Callable[[str], None]) -> AsyncIterator[Upload | ShoalError]:
    folders = [(root, base)]
    while folders:
        folder, remote = folders.pop()
        try:
            found = await asyncio.to_thread(_scan, folder)
            if not found and remote != ROOT:
                await client.make_directory(remote)
        except OSError as error:
            yield local_fault(folder, "read", error)
            continue
        except OF_ONE_FILE as error:
            yield error
            continue
        places: dict[str, str] = {}
        for name, kind, size in found:
            path = _remote_place(folder / name, remote, name)
            if kind in LEFT_OUT:
                left_out(f"{folder / name} is {LEFT_OUT[kind]}: left out")
            elif isinstance(path, ShoalError):
                yield path
            elif places.setdefault(path, name) != name:  # letters that are written in two ways are one in the cluster
                twins = f"{folder / places[path]} and {folder / name}"
                yield WrongUsage(f"{twins} would both become {path} (they differ in how a letter is written): rename one")
            elif kind == "dir":
                folders.append((folder / name, path))
            else:
                yield Upload(str(folder / name), path, size)


def _scan(folder: Path) -> list[tuple[str, str, int]]:
    """Return (name, kind, size) of what is in a local folder."""
    with os.scandir(folder) as entries:
        found = []
        for entry in entries:
            size = 0
            if entry.is_symlink():
                kind = "link"
            elif entry.is_dir(follow_symlinks=False):
                kind = "dir"
            elif entry.is_file(follow_symlinks=False):
                kind, size = "file", _size_of(entry)
            else:
                kind = "other"
            found.append((entry.name, kind, size))
    return sorted(found)


async def plan_downloads(
    client: Operations, remotes: Sequence[str], local: str, *, recursive: bool
) -> AsyncIterator[Download | ShoalError]:
    """Yield each file that `get` fetches, and where it goes, or what is wrong with one; local folders are made on the way.

    The rules are those of `plan_uploads`.

    Raises: LocalFault, NoSuchPath, WrongUsage (all before the first file), and what stops everything.
    """
    target = Path(local)
    into = local.endswith("/") or len(remotes) > 1
    operands = [(path, None if path == ROOT else await client.entry(path)) for path in map(normalise, remotes)]
    for path, entry in operands:
        if not recursive and (entry is None or entry.type == "dir"):
            raise WrongUsage(f"{path} is a folder: get it with -r")
    refuse_twins([(path, entry.name) for path, entry in operands if entry is not None], local)
    for path, entry in operands:
        if entry is not None and entry.type == "file":
            inside = into or target.is_dir()
            _make_local_folder(target if inside else target.parent)
            yield Download(entry, target / entry.name if inside else target)
            continue
        base = target / name_of(path) if into and path != ROOT else target
        _make_local_folder(base)
        prefix = path if path == ROOT else path + "/"
        missing = ""
        async for found in client.list(path, recursive=True):
            place = base / found.path.removeprefix(prefix)
            if missing and found.path.startswith(missing):
                continue  # one line for a folder that cannot be made, not one for each file in it
            if found.type == "file":
                yield Download(found, place)
                continue
            try:
                _make_local_folder(place)
            except LocalFault as error:
                missing = found.path + "/"
                yield error


def _make_local_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise local_fault(path, "make", error) from None


async def plan_namings(client: Operations, sources: Sequence[str], target: str) -> AsyncIterator[Naming | ShoalError]:
    """Yield each file that `cp` or `mv` gives a path, and which, or what is wrong with one.

    One goes to `target`, or into it if that is a folder; several, and any to a `target` that ends in /, go into it.

    Raises: WrongUsage (before the first), and what stops everything.
    """
    place = normalise(target)
    paths = [normalise(source) for source in sources]
    into = target.endswith("/") or len(paths) > 1 or await is_remote_folder(client, place)
    if into:
        refuse_twins([(path, name_of(path)) for path in paths], target)
    for path in paths:
        try:
            if await is_remote_folder(client, path):
                raise WrongUsage(f"{path} is a folder: cp and mv take single files for now")
        except OF_ONE_FILE as error:
            yield error
            continue
        yield Naming(path, join(place, name_of(path)) if into else place)


# -- many files --------------------------------------------------------------


async def announced(plan: AsyncIterator[Moved | ShoalError], transfer: Transfer) -> AsyncIterator[Moved | ShoalError]:
    """Yield what `plan` does, and let `transfer` know what is to come."""
    async for item in plan:
        if not isinstance(item, ShoalError):
            transfer.expect(item.size)
        yield item
    transfer.all_is_expected = True


async def for_each(
    items: AsyncIterator[T | ShoalError], do: Callable[[T], Awaitable[None]], report: Callable[[ShoalError], None]
) -> int:
    """Do each item, FILES_AT_ONCE at a time; return 0, or the exit code of the first fault.

    A fault of one file, or one among the items, is reported and the others go on; what stops them all (no node can be reached) is raised.

    Raises: ShoalError.
    """
    code = 0
    queue: asyncio.Queue[T | ShoalError | None] = asyncio.Queue(FILES_AHEAD)

    async def work() -> None:
        nonlocal code
        while (item := await queue.get()) is not None:
            try:
                if isinstance(item, ShoalError):
                    raise item
                await do(item)
            except OF_ONE_FILE as error:
                report(error)
                code = code or error.exit_code

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(FILES_AT_ONCE):
                group.create_task(work())
            async for item in items:
                await queue.put(item)
            for _ in range(FILES_AT_ONCE):
                await queue.put(None)
    except* ShoalError as errors:
        raise errors.exceptions[0] from None
    return code
