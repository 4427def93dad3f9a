"""What a verb says: results on stdout, everything else on stderr.

Owns the difference between human, JSON and quiet output, the one line of an error, and when progress is shown: when something takes
longer than a second and stderr is a terminal.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from peer.cli.progress import Transfer
from peer.cli.settings import Settings
from peer.cli.text import printable
from peer.errors import ShoalError

PROGRESS_AFTER_SECONDS = 1.0
PROGRESS_PER_SECOND = 4
PIPE_COLUMNS = 8192


class StreamConsole(Console):
    """A standard stream for styled text; a reader of it that has gone is told as what it is, not as the end of the process."""

    def on_broken_pipe(self) -> None:
        """Raise what rich has caught."""
        raise BrokenPipeError


@contextmanager
def on_stdout() -> Iterator[None]:
    """Write to standard output in the block. Once that has failed, what is still written vanishes.

    Raises: ShoalError when it cannot be written; BrokenPipeError when nobody reads it any more.
    """
    try:
        yield
    except OSError as error:
        _drop(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise
        raise ShoalError(f"standard output: cannot write it: {error.strerror or error}") from None


@contextmanager
def on_stderr() -> Iterator[None]:
    """Write to standard error in the block. Where that fails there is nobody to tell; the exit code says it."""
    try:
        yield
    except OSError:
        _drop(sys.stderr)


def _drop(stream: TextIO) -> None:
    # What did not fit is still in its buffer, and would fail again at the end.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


class Output:
    """Says things as the global options want them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Rich leaves colours out itself when the stream is no terminal or NO_COLOR is set; a pipe gets whole lines.
        self.console = StreamConsole(highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
        self.error_console = StreamConsole(stderr=True, highlight=False, emoji=False, soft_wrap=True)

    @property
    def is_json(self) -> bool:
        """Whether stdout carries JSON and nothing else."""
        return self._settings.json

    def result(self, document: dict[str, object], text: str) -> None:
        """Say what was asked for: as one line of JSON, or as text, in which names are `printable` already."""
        self.write((json_text(document) if self.is_json else text) + "\n")

    def done(self, document: dict[str, object], text: str) -> None:
        """Say that something was done. As `result`, but silent with --quiet: the exit code says it as well.

        Where nobody listens any more (`shoal put -r … | head`), the work goes on all the same.
        """
        if self.is_json or not self._settings.quiet:
            with suppress(BrokenPipeError):
                self.result(document, text)

    def event(self, document: dict[str, object], text: str) -> None:
        """Say what has happened to a node. As `result`, but a node outlives whoever reads it, and a disk that has no room for it."""
        with suppress(BrokenPipeError, ShoalError):
            self.result(document, text)

    def show(self, what: RenderableType) -> None:
        """Show a table or styled text to people; silent with --json and --quiet. As with `done`, the work goes on without a reader."""
        if not (self._settings.quiet or self.is_json):
            with suppress(BrokenPipeError):
                self.print(what)

    def print(self, what: RenderableType) -> None:
        """Show styled text that was asked for."""
        with on_stdout():
            self.console.print(what)

    def note(self, text: str) -> None:
        """Say something that is no result; silent with --quiet and --json."""
        if not (self._settings.quiet or self.is_json):
            self._to_stderr(printable(text))

    def before_asking(self, text: str) -> None:
        """Say what has to be known to answer a question that follows, also with --quiet and --json."""
        self._to_stderr(printable(text))

    def left_out(self, text: str) -> None:
        """Say what a command leaves out, as its help says that it does; silent with --quiet."""
        if not self._settings.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Say something that a person should know even with --quiet."""
        self._to_stderr(f"shoal: {printable(text)}")

    def error(self, error: ShoalError) -> None:
        """Say what failed, in one line."""
        report_error(error, as_json=self.is_json)

    @contextmanager
    def transfer(self, title: str, *, writes_stdout: bool = False) -> Iterator[Transfer]:
        """Show the progress of a command, once it has taken a second. Must be entered while an event loop runs.

        With `writes_stdout` the content goes there: a terminal that shows it has no place for anything else.
        """
        transfer = Transfer(printable(title))
        on_terminal = sys.stdout.isatty()
        if self._settings.quiet or self.is_json or not self.error_console.is_terminal or (writes_stdout and on_terminal):
            yield transfer
            return
        # On one terminal results have to pass above the line; elsewhere they must go where stdout goes.
        console = self.error_console
        live = Live(transfer, console=console, refresh_per_second=PROGRESS_PER_SECOND, transient=True, redirect_stdout=on_terminal)
        timer = asyncio.get_running_loop().call_later(PROGRESS_AFTER_SECONDS, live.start)
        try:
            yield transfer
        finally:
            timer.cancel()
            live.stop()

    @contextmanager
    def screen(self) -> Iterator[Callable[[RenderableType], None]]:
        """Give a way to show something to people again and again: in place on a terminal, one after the other elsewhere."""
        if not self.console.is_terminal:
            yield lambda what: self.print(Group(what, ""))
            return
        with Live(console=self.console, auto_refresh=False, vertical_overflow="visible") as live:
            yield lambda what: live.update(what, refresh=True)

    def _to_stderr(self, text: str) -> None:
        with on_stderr():
            self.error_console.print(text, markup=False)

    def write(self, text: str) -> None:
        """Write `text` as it is: not through rich, which would wrap lines and see markup in names."""
        with on_stdout():
            sys.stdout.write(text)
            sys.stdout.flush()


def report_error(error: ShoalError, *, as_json: bool) -> None:
    """Write the one line that tells a user, or a program, what failed."""
    if as_json:
        text = json_text({"error": str(error), "code": error.code, "detail": {"exit_code": error.exit_code}})
    else:
        text = f"shoal: {printable(str(error))}"
    with on_stderr():
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def json_text(document: dict[str, object]) -> str:
    """Return a document as one line of JSON; local names that are not UTF-8 stay what they are."""
    text = json.dumps(document, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(document)


def plain_table(*columns: str) -> Table:
    """Return a table without lines; a column whose name begins with `>` stands to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    return table
