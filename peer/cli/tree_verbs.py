"""The verbs that look through whole folders: `du` sums them up, `find` chooses from them. Nothing of a folder is kept in memory."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

import click

from peer.cli.completion import remote_paths
from peer.cli.output import Output
from peer.cli.rendering import entry_document
from peer.cli.settings import Settings, Verb, pass_settings
from peer.cli.text import moment_of, printable, size_of, size_text
from peer.cli.transfer import OF_ONE_FILE
from peer.cli.world import client_of, finish
from peer.errors import WrongUsage
from peer.files.entries import Entry
from protocol.paths import ROOT, normalise

Test = Callable[[Entry], bool]


@dataclass(slots=True)
class Sum:
    """What is in one folder and those below it, or one file."""

    path: str
    type: str
    size: int = 0
    files: int = 0


@click.command(
    cls=Verb,
    examples=(
        "shoal du /films                     # each folder in it, then itself",
        "shoal du -s /films /music           # one line for each",
        "shoal du -sb / | cut -f1            # the bytes of everything",
    ),
)
@click.option("-s", "summary", is_flag=True, help="Only what is named, not the folders in it.")
@click.option("-b", "exact", is_flag=True, help="Bytes, not KiB, MiB and so on.")
@click.option("-h", "habit", is_flag=True, hidden=True, expose_value=False)  # `du -sh` is in many fingers; units are shown anyway
@click.argument("remote", nargs=-1, shell_complete=remote_paths)
@pass_settings
def du(settings: Settings, summary: bool, exact: bool, remote: tuple[str, ...]) -> None:
    """Show how many bytes the files in each folder have.

    That is their content, counted once: the machines together hold a copy of it on each of three.
    """
    paths = [normalise(path) for path in remote or (ROOT,)]

    async def work() -> int:
        output = Output(settings)
        code = 0
        async with client_of(settings) as client:
            for path in paths:
                try:
                    async for found in sums(client.list(path, recursive=True), path):
                        if not summary or found.path == path:
                            output.result(sum_document(found), sum_text(found, exact=exact))
                except OF_ONE_FILE as error:
                    output.error(error)
                    code = code or error.exit_code
        return code

    finish(work())


async def sums(entries: AsyncIterator[Entry], path: str) -> AsyncIterator[Sum]:
    """Yield what each folder among `entries` sums up to, inner ones first and `path` itself last.

    `entries` are what `Operations.list` yields of `path`: each folder is followed by what is in it; a file yields itself.
    """
    open_folders = [Sum(path, "dir")]
    async for entry in entries:
        while not is_inside(entry.path, open_folders[-1].path) and len(open_folders) > 1:
            done = open_folders.pop()
            open_folders[-1].size += done.size
            open_folders[-1].files += done.files
            yield done
        if entry.type == "dir":
            open_folders.append(Sum(entry.path, "dir"))
        elif entry.path == path:
            open_folders[0].type = "file"
        if entry.type == "file":
            open_folders[-1].size += entry.size
            open_folders[-1].files += 1
    while open_folders:
        done = open_folders.pop()
        if open_folders:
            open_folders[-1].size += done.size
            open_folders[-1].files += done.files
        yield done


def is_inside(path: str, folder: str) -> bool:
    """Return whether `path` is somewhere below `folder`."""
    return folder == ROOT or path.startswith(folder + "/")


def sum_document(found: Sum) -> dict[str, object]:
    """Return the JSON shape of a sum."""
    return {"path": found.path, "type": found.type, "size": found.size, "files": found.files}


def sum_text(found: Sum, *, exact: bool) -> str:
    """Return a sum as `du` shows it, with a tab between."""
    return f"{found.size if exact else size_text(found.size)}\t{printable(found.path)}"


@click.command(
    cls=Verb,
    short_help="Find files and folders by name, size, age.",
    examples=(
        "shoal find /films --name '*.mkv' --larger 2G",
        "shoal find --type f --newer 1d      # what came in since yesterday",
        "shoal find /tmp --older 4w --type f -0 | xargs -0r shoal rm",
    ),
)
@click.option("--name", "glob", metavar="GLOB", help="Its name matches, like '*.jpg'.")
@click.option("--type", "kind", type=click.Choice(["f", "d"]), help="A file, or a folder.")
@click.option("--larger", metavar="SIZE", help="A file of more than SIZE, like 100M.")
@click.option("--smaller", metavar="SIZE", help="A file of less than SIZE.")
@click.option("--newer", metavar="WHEN", help="Modified after WHEN: 2d (ago; s, m, h, d, w) or '2026-01-31 14:00'.")
@click.option("--older", metavar="WHEN", help="Modified before WHEN.")
@click.option("-0", "null", is_flag=True, help="End each path with NUL and leave it as it is, for xargs -0.")
@click.argument("remote", default=ROOT, shell_complete=remote_paths)
@pass_settings
def find(
    settings: Settings,
    glob: str | None,
    kind: str | None,
    larger: str | None,
    smaller: str | None,
    newer: str | None,
    older: str | None,
    null: bool,
    remote: str,
) -> None:
    """Show what is in a folder and in those below it, as far as all of these are true of it."""
    if null and settings.json:
        raise WrongUsage("-0 and --json exclude each other")
    tests = chosen_tests(glob, kind, larger, smaller, newer, older)
    path = normalise(remote)

    async def work() -> None:
        output = Output(settings)
        async with client_of(settings) as client:
            async for entry in client.list(path, recursive=True):
                if not all(test(entry) for test in tests):
                    continue
                if null:
                    output.write(f"{entry.path}\0")
                else:
                    output.result(entry_document(entry), printable(entry.path) + ("/" if entry.type == "dir" else ""))

    finish(work())


def chosen_tests(
    glob: str | None, kind: str | None, larger: str | None, smaller: str | None, newer: str | None, older: str | None
) -> list[Test]:
    """Return what the options ask of an entry.

    Raises: WrongUsage.
    """
    tests: list[Test] = []
    if glob is not None:
        tests.append(lambda entry: fnmatchcase(entry.name, glob))
    if kind is not None:
        wanted = {"f": "file", "d": "dir"}[kind]
        tests.append(lambda entry: entry.type == wanted)
    if larger is not None:
        low = _value_of("--larger", larger, size_of)
        tests.append(lambda entry: entry.type == "file" and entry.size > low)
    if smaller is not None:
        high = _value_of("--smaller", smaller, size_of)
        tests.append(lambda entry: entry.type == "file" and entry.size < high)
    if newer is not None:
        after = _value_of("--newer", newer, _moment)
        tests.append(lambda entry: entry.modified_milliseconds > after)
    if older is not None:
        before = _value_of("--older", older, _moment)
        tests.append(lambda entry: entry.modified_milliseconds < before)
    return tests


def _moment(text: str) -> int:
    return moment_of(text, datetime.now())


def _value_of(option: str, text: str, read: Callable[[str], int]) -> int:
    try:
        return read(text)
    except ValueError as error:
        raise WrongUsage(f"{option}: {error}") from None
