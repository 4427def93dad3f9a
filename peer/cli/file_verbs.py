"""The verbs of a user: put, get, cat, ls, stat, rm, mkdir, cp, mv, where. Parsing only; `peer.client` does the work."""

from pathlib import Path

import click

from peer.cli.completion import local_paths, remote_paths, sources_of_get, sources_of_put
from peer.cli.output import Output, on_stdout
from peer.cli.rendering import (
    entry_document,
    entry_text,
    place_document,
    place_text,
    put_document,
    put_text,
    stat_document,
    stat_text,
)
from peer.cli.settings import Settings, Verb, pass_settings
from peer.cli.text import printable, range_of, size_text
from peer.cli.transfer import (
    OF_ONE_FILE,
    Download,
    Naming,
    Upload,
    announced,
    for_each,
    is_remote_folder,
    plan_downloads,
    plan_namings,
    plan_uploads,
)
from peer.cli.world import client_of, finish
from peer.client.local_files import get_file, get_pipe, put_file, put_stdin
from peer.errors import AlreadyThere, WrongUsage
from protocol.paths import ROOT, normalise

STDOUT = 1


def check_operands(verb: str, sources: tuple[str, ...], last: str, *, target: str) -> None:
    """Make sure that there is something to move, and a place for it; click itself would take the only operand for the place.

    Raises: WrongUsage.
    """
    if not last:
        raise WrongUsage(f"name what to {verb}, and a {target} target: see `shoal {verb} --help`")
    if not sources:
        raise WrongUsage(f"{last} to where? name a {target} target as well: see `shoal {verb} --help`")


@click.command(
    cls=Verb,
    short_help="Store files or folders.",
    examples=(
        "shoal put film.mp4 /films/          # as /films/film.mp4",
        "shoal put -r photos /photos         # the folder; again after an interrupt",
        "tar c work | shoal put - /work.tar  # what a pipe gives",
    ),
)
@click.option("-r", "recursive", is_flag=True, help="Folders with all that is in them.")
@click.argument("local", nargs=-1, metavar="LOCAL...", shell_complete=sources_of_put)
@click.argument("remote", default="", metavar="REMOTE", shell_complete=remote_paths)
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
            plan = plan_uploads(client, local, remote, recursive=recursive, left_out=output.left_out)
            with output.transfer("put") as transfer:

                async def store(upload: Upload) -> None:
                    with transfer.file(upload.size) as progress:
                        if upload.local == "-":
                            result = await put_stdin(client, upload.remote, progress)
                        else:
                            result = await put_file(client, Path(upload.local), upload.remote, progress)
                    output.done(put_document(result), put_text(result))

                return await for_each(announced(plan, transfer), store, output.error)

    normalise(remote)
    finish(work())


@click.command(
    cls=Verb,
    short_help="Fetch files or folders.",
    examples=(
        "shoal get /films/film.mp4 .         # again after an interrupt: it goes on",
        "shoal get -r /photos photos",
        "shoal get /work.tar - | tar x",
    ),
)
@click.option("-r", "recursive", is_flag=True, help="Folders with all that is in them.")
@click.argument("remote", nargs=-1, metavar="REMOTE...", shell_complete=sources_of_get)
@click.argument("local", default="", metavar="LOCAL", shell_complete=local_paths)
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
                    with output.transfer(path, writes_stdout=True) as transfer, transfer.only_file(None) as progress, on_stdout():
                        await get_pipe(client, path, STDOUT, progress)
                return None
            plan = plan_downloads(client, paths, local, recursive=recursive)
            with output.transfer("get") as transfer:

                async def fetch(download: Download) -> None:
                    with transfer.file(download.size) as progress:
                        entry = await get_file(client, download.entry, download.local, progress, progress.found)
                    document = {**entry_document(entry), "local": str(download.local)}
                    output.done(document, f"{printable(f'{entry.path} -> {download.local}')}  {size_text(entry.size)}  verified")

                return await for_each(announced(plan, transfer), fetch, output.error)

    if local == "-" and recursive:
        raise WrongUsage("a folder does not fit into standard output: name a local folder")
    finish(work())


@click.command(
    cls=Verb,
    examples=(
        "shoal cat /notes.txt",
        "shoal cat --range 0-1023 /films/film.mp4 | file -",
    ),
)
@click.option("--range", "span", metavar="A-B", help="Bytes A to B only, both included and counted from 0; A- to the end.")
@click.argument("remote", shell_complete=remote_paths)
@pass_settings
def cat(settings: Settings, span: str | None, remote: str) -> None:
    """Write a file to standard output."""
    try:
        begin, end = range_of(span) if span is not None else (0, None)
    except ValueError as error:
        raise WrongUsage(f"--range {error}") from None
    path = normalise(remote)

    async def work() -> None:
        output = Output(settings)
        async with client_of(settings) as client:
            with output.transfer(path, writes_stdout=True) as transfer, transfer.only_file(None) as progress, on_stdout():
                await get_pipe(client, path, STDOUT, progress, begin, end)

    finish(work())


@click.command(
    cls=Verb,
    examples=(
        "shoal ls                            # what is in the root",
        "shoal ls -lR /films",
        "shoal ls --json /films | jq .size",
    ),
)
@click.option("-l", "long", is_flag=True, help="Mode, size, time, version as well.")
@click.option("-R", "recursive", is_flag=True, help="What is in the folders as well.")
@click.option("-h", "habit", is_flag=True, hidden=True, expose_value=False)  # `ls -lh` is in many fingers; units are shown anyway
@click.argument("remote", default=ROOT, shell_complete=remote_paths)
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


@click.command(
    cls=Verb,
    examples=(
        "shoal stat /films/film.mp4          # its version, and how many copies",
        "shoal stat --json /films/film.mp4 | jq .copies",
    ),
)
@click.argument("remote", shell_complete=remote_paths)
@pass_settings
def stat(settings: Settings, remote: str) -> None:
    """Show everything about one path."""
    path = normalise(remote)

    async def work() -> None:
        async with client_of(settings) as client:
            found = await client.stat(path)
        Output(settings).result(stat_document(found), stat_text(found))

    finish(work())


@click.command(
    cls=Verb,
    examples=(
        "shoal rm /notes.txt",
        "shoal rm -r /photos/2019",
    ),
)
@click.option("-r", "recursive", is_flag=True, help="Folders with all that is in them.")
@click.argument("remote", nargs=-1, required=True, shell_complete=remote_paths)
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
                output.done({"path": path, "removed": count}, text)
        return code

    finish(work())


@click.command(
    cls=Verb,
    examples=(
        "shoal mkdir /films/2026             # and /films; a put needs no mkdir",
        "shoal mkdir /inbox",
    ),
)
@click.argument("remote", shell_complete=remote_paths)
@pass_settings
def mkdir(settings: Settings, remote: str) -> None:
    """Make a folder, and those above it."""
    path = normalise(remote)

    async def work() -> None:
        async with client_of(settings) as client:
            if path == ROOT or await is_remote_folder(client, path):
                raise AlreadyThere(f"{path} is there already")
            await client.make_directory(path)
        Output(settings).done({"path": path, "type": "dir"}, f"made {printable(path)}")

    finish(work())


@click.command(
    cls=Verb,
    short_help="Copy files within the cluster; no bytes move.",
    examples=(
        "shoal cp /notes.txt /notes.old",
        "shoal cp /a.jpg /b.jpg /album/      # into the folder",
    ),
)
@click.argument("source", nargs=-1, metavar="SOURCE...", shell_complete=remote_paths)
@click.argument("target", default="", metavar="TARGET", shell_complete=remote_paths)
@pass_settings
def cp(settings: Settings, source: tuple[str, ...], target: str) -> None:
    """Copy SOURCE files to TARGET, or into it if it is a folder or ends in /. No bytes move: the copy shares them.

    A file that is there is replaced. Folders are not copied for now.
    """
    give_names("cp", settings, source, target)


@click.command(
    cls=Verb,
    short_help="Move or rename files within the cluster.",
    examples=(
        "shoal mv /inbox/scan.pdf /letters/  # into the folder",
        "shoal mv /draft.txt /final.txt",
    ),
)
@click.argument("source", nargs=-1, metavar="SOURCE...", shell_complete=remote_paths)
@click.argument("target", default="", metavar="TARGET", shell_complete=remote_paths)
@pass_settings
def mv(settings: Settings, source: tuple[str, ...], target: str) -> None:
    """Move SOURCE files to TARGET, or into it if it is a folder or ends in /. No bytes move.

    A file that is there is replaced. After an interrupt there may be both names; the same command again ends it.
    Folders are not moved for now.
    """
    give_names("mv", settings, source, target)


def give_names(verb: str, settings: Settings, sources: tuple[str, ...], target: str) -> None:
    """Run `cp` or `mv`."""
    check_operands(verb, sources, target, target="remote")
    for path in (*sources, target):
        normalise(path)

    async def work() -> int:
        output = Output(settings)
        async with client_of(settings) as client:
            give = client.copy if verb == "cp" else client.move

            async def give_name(naming: Naming) -> None:
                result = await give(naming.source, naming.target)
                text = f"{printable(naming.source)} -> {put_text(result)}"
                output.done({**put_document(result), "source": naming.source}, text)

            return await for_each(plan_namings(client, sources, target), give_name, output.error)

    finish(work())


@click.command(
    cls=Verb,
    examples=(
        "shoal where /films/film.mp4",
        "shoal where --json /films/film.mp4 | jq -r .nodes[] | sort | uniq -c",
    ),
)
@click.argument("remote", shell_complete=remote_paths)
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
