"""The verbs of a user: put, get, cat, ls, stat, rm, mkdir, where. Parsing and rendering only; `peer.client` does the work."""

from collections.abc import Coroutine
from pathlib import Path

import click

from peer.cli.output import Output
from peer.cli.settings import Settings, Verb, pass_settings
from peer.cli.text import mode_text, printable, range_of, size_text, time_text
from peer.cli.transfer import (
    OF_ONE_FILE,
    Download,
    Upload,
    for_each,
    is_remote_folder,
    plan_downloads,
    plan_uploads,
)
from peer.cli.world import client_of
from peer.client.local_files import get_file, get_pipe, put_file, put_pipe
from peer.errors import AlreadyThere, WrongUsage
from peer.files.entries import ChunkPlace, Entry, PutResult, Stat
from peer.real.loop import run
from protocol.paths import ROOT, normalise

STDIN = 0
STDOUT = 1
SHORT_HASH_DIGITS = 16


def finish(work: Coroutine[object, object, int | None]) -> None:
    """Run the work of a verb; a code that is not 0 becomes the exit code, after all was said."""
    code = run(work)
    if code:
        raise click.exceptions.Exit(code)


def check_operands(verb: str, sources: tuple[str, ...], last: str, *, target: str) -> None:
    """Make sure that there is something to move, and a place for it; click itself would take the only operand for the place.

    Raises: WrongUsage.
    """
    if not last:
        raise WrongUsage(f"name what to {verb}, and a {target} target: see `shoal {verb} --help`")
    if not sources:
        raise WrongUsage(f"{last} to where? name a {target} target as well: see `shoal {verb} --help`")


@click.command(cls=Verb, short_help="Store files or folders.")
@click.option("-r", "recursive", is_flag=True, help="Folders with all that is in them.")
@click.argument("local", nargs=-1, metavar="LOCAL...")
@click.argument("remote", default="", metavar="REMOTE")
@pass_settings
def put(settings: Settings, recursive: bool, local: tuple[str, ...], remote: str) -> None:
    """Store LOCAL files (- is standard input) as REMOTE, or in it if it is a folder or ends in /.

    A single folder becomes REMOTE itself, so the same command again does the same again.
    Symbolic links and devices in a folder are left out.
    """
    check_operands("put", local, remote, target="remote")

    async def work() -> int:
        output = Output(settings)
        async with client_of(settings) as client:
            plan = plan_uploads(client, local, remote, recursive=recursive, warn=output.warn)
            with output.transfer("put", total_size(local)) as bar:

                async def store(upload: Upload) -> None:
                    if upload.local == "-":
                        result = await put_pipe(client, STDIN, upload.remote, bar)
                    else:
                        result = await put_file(client, Path(upload.local), upload.remote, bar)
                    output.result(put_document(result), put_text(result))

                return await for_each(plan, store, output.error)

    normalise(remote)
    finish(work())


@click.command(cls=Verb, short_help="Fetch files or folders.")
@click.option("-r", "recursive", is_flag=True, help="Folders with all that is in them.")
@click.argument("remote", nargs=-1, metavar="REMOTE...")
@click.argument("local", default="", metavar="LOCAL")
@pass_settings
def get(settings: Settings, recursive: bool, remote: tuple[str, ...], local: str) -> None:
    """Fetch REMOTE files to LOCAL (- is standard output), or into it if it is a folder or ends in /.

    Every byte is verified. What an interrupted get has already is not fetched again.
    """
    check_operands("get", remote, local, target="local")
    paths = [normalise(path) for path in remote]

    async def work() -> int | None:
        output = Output(settings)
        async with client_of(settings) as client:
            if local == "-":
                for path in paths:
                    with output.transfer(path, None) as bar:
                        await get_pipe(client, path, STDOUT, bar)
                return None
            single = None
            if len(paths) == 1 and paths[0] != ROOT:
                single = await client.entry(paths[0])
            size = single.size if single is not None and single.type == "file" else None
            with output.transfer("get", size) as bar:

                async def fetch(download: Download) -> None:
                    entry = await get_file(client, download.entry, download.local, bar)
                    document = {**entry_document(entry), "local": str(download.local)}
                    output.result(document, f"{printable(f'{entry.path} -> {download.local}')}  {size_text(entry.size)}  verified")

                return await for_each(plan_downloads(client, paths, local, recursive=recursive), fetch, output.error)

    if local == "-" and recursive:
        raise WrongUsage("a folder does not fit into standard output: name a local folder")
    finish(work())


@click.command(cls=Verb)
@click.option("--range", "span", default="", metavar="A-B", help="Bytes A to B only, both included and counted from 0; A- to the end.")
@click.argument("remote")
@pass_settings
def cat(settings: Settings, span: str, remote: str) -> None:
    """Write a file to standard output."""
    try:
        begin, end = range_of(span) if span else (0, None)
    except ValueError as error:
        raise WrongUsage(f"--range {error}") from None
    path = normalise(remote)

    async def work() -> None:
        output = Output(settings)
        async with client_of(settings) as client:
            with output.transfer(path, None) as bar:
                await get_pipe(client, path, STDOUT, bar, begin, end)

    finish(work())


@click.command(cls=Verb)
@click.option("-l", "long", is_flag=True, help="Mode, size, time, version as well.")
@click.option("-R", "recursive", is_flag=True, help="What is in the folders as well.")
@click.argument("remote", default=ROOT)
@pass_settings
def ls(settings: Settings, long: bool, recursive: bool, remote: str) -> None:
    """List a folder. Concurrent versions of one file are entries of their own."""
    path = normalise(remote)

    async def work() -> None:
        output = Output(settings)
        async with client_of(settings) as client:
            async for entry in client.list(path, recursive=recursive):
                output.result(entry_document(entry), entry_text(entry, long=long, whole_path=recursive))

    finish(work())


@click.command(cls=Verb)
@click.argument("remote")
@pass_settings
def stat(settings: Settings, remote: str) -> None:
    """Show everything about one path."""
    path = normalise(remote)

    async def work() -> None:
        async with client_of(settings) as client:
            found = await client.stat(path)
        Output(settings).result(stat_document(found), stat_text(found))

    finish(work())


@click.command(cls=Verb)
@click.option("-r", "recursive", is_flag=True, help="Folders with all that is in them.")
@click.argument("remote", nargs=-1, required=True)
@pass_settings
def rm(settings: Settings, recursive: bool, remote: tuple[str, ...]) -> None:
    """Remove files, or empty folders.

    A path with concurrent versions is removed only after a put has resolved them.
    """
    paths = [normalise(path) for path in remote]

    async def work() -> int:
        output = Output(settings)
        code = 0
        async with client_of(settings) as client:
            for path in paths:
                try:
                    count = await client.remove(path, recursive=recursive)
                except OF_ONE_FILE as error:
                    output.error(error)
                    code = code or error.exit_code
                    continue
                text = f"removed {printable(path)}" + (f" ({count} entries)" if count > 1 else "")
                output.result({"path": path, "removed": count}, text)
        return code

    finish(work())


@click.command(cls=Verb)
@click.argument("remote")
@pass_settings
def mkdir(settings: Settings, remote: str) -> None:
    """Make a folder, and those above it."""
    path = normalise(remote)

    async def work() -> None:
        async with client_of(settings) as client:
            if path == ROOT or await is_remote_folder(client, path):
                raise AlreadyThere(f"{path} is there already")
            await client.make_directory(path)
        Output(settings).result({"path": path, "type": "dir"}, f"made {printable(path)}")

    finish(work())


@click.command(cls=Verb)
@click.argument("remote")
@pass_settings
def where(settings: Settings, remote: str) -> None:
    """Show which machines hold which chunk of a file."""
    path = normalise(remote)

    async def work() -> None:
        output = Output(settings)
        async with client_of(settings) as client:
            count = 0
            async for place in client.where(path):
                count += 1
                output.result(place_document(place), place_text(place))
        if not count:
            output.note(f"{path} has no chunks: its content lies in its row, on the machines that keep the name")

    finish(work())


# -- rendering ---------------------------------------------------------------


def total_size(sources: tuple[str, ...]) -> int | None:
    """Return how many bytes a put of these moves, where that is known without a walk."""
    paths = [Path(source) for source in sources]
    if not all(path.is_file() for path in paths):
        return None
    return sum(path.stat().st_size for path in paths)


def put_document(result: PutResult) -> dict[str, object]:
    """Return the JSON shape of a put."""
    return {"path": result.path, "version": result.version, "size": result.size, "copies": result.copies}


def put_text(result: PutResult) -> str:
    """Return a put as one line."""
    return f"{printable(result.path)}  version {result.version}  {size_text(result.size)}  copies={result.copies}"


def entry_document(entry: Entry) -> dict[str, object]:
    """Return the JSON shape of an entry of a folder; times are seconds since 1970, UTC."""
    return {
        "path": entry.path,
        "name": entry.name,
        "type": entry.type,
        "size": entry.size,
        "modified": entry.modified_milliseconds / 1000,
        "version": entry.version,
        "mode": entry.mode,
        "writer": entry.writer,
        "conflict": entry.conflict,
    }


def entry_text(entry: Entry, *, long: bool, whole_path: bool) -> str:
    """Return an entry as `ls` shows it; a folder ends in /."""
    name = printable(entry.path if whole_path else entry.name) + ("/" if entry.type == "dir" else "")
    if not long:
        return name
    size = size_text(entry.size) if entry.type == "file" else "-"
    return f"{mode_text(entry.mode, entry.type)}  {size:>10}  {time_text(entry.modified_milliseconds)}  {entry.version:<16}  {name}"


def stat_document(found: Stat) -> dict[str, object]:
    """Return the JSON shape of a stat."""
    conflicts = [entry_document(entry) for entry in found.conflicts]
    return {**entry_document(found.entry), "chunks": found.chunks, "copies": found.copies, "conflicts": conflicts}


def stat_text(found: Stat) -> str:
    """Return a stat as lines of `name: value`."""
    entry = found.entry
    rows = [
        ("path", entry.path),
        ("type", entry.type),
        ("size", f"{entry.size} ({size_text(entry.size)})"),
        ("mode", mode_text(entry.mode, entry.type)),
        ("modified", time_text(entry.modified_milliseconds)),
        ("version", entry.version),
        ("writer", entry.writer),
        ("chunks", str(found.chunks)),
        ("copies", str(found.copies)),
        *(("conflict", other.path) for other in found.conflicts),
    ]
    return "\n".join(f"{name + ':':<10}{printable(value)}" for name, value in rows)


def place_document(place: ChunkPlace) -> dict[str, object]:
    """Return the JSON shape of a chunk's place."""
    return {"index": place.index, "hash": place.chunk_id.hex(), "size": place.size, "nodes": list(place.nodes)}


def place_text(place: ChunkPlace) -> str:
    """Return a chunk's place as one line."""
    nodes = printable(" ".join(place.nodes)) or "nobody"
    return f"{place.index:>6}  {place.chunk_id.hex()[:SHORT_HASH_DIGITS]}  {size_text(place.size):>10}  {nodes}"
