"""What a verb says: results on stdout, everything else on stderr.

Owns the difference between human and JSON output, the one line of an error, and progress bars, which appear when
something takes longer than a second and stderr is a terminal.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from peer.cli.settings import Settings
from peer.cli.text import printable
from peer.errors import ShoalError

PROGRESS_AFTER_SECONDS = 1.0
PIPE_COLUMNS = 8192


class Bar(Protocol):
    """Progress of one transfer."""

    def __call__(self, count: int) -> None:
        """Say that so many bytes more are done."""


class Output:
    """Says things as the global options want them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Rich leaves colours out itself when the stream is no terminal or NO_COLOR is set; a pipe gets whole lines.
        self.console = Console(highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
        self.error_console = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)

    @property
    def is_json(self) -> bool:
        """Whether stdout carries JSON and nothing else."""
        return self._settings.json

    def result(self, document: dict[str, object], text: str) -> None:
        """Say one result: as one line of JSON, or as text, in which names are `printable` already."""
        if self.is_json:
            self._line(json_text(document))
        else:
            self._line(text)

    def table(self, table: Table) -> None:
        """Show a table to people."""
        self.console.print(table)

    def note(self, text: str) -> None:
        """Say something that is no result; silent with --quiet and --json."""
        if not (self._settings.quiet or self.is_json):
            self.error_console.print(printable(text), markup=False)

    def warn(self, text: str) -> None:
        """Say something that a person should know even with --quiet."""
        self.error_console.print(f"shoal: {printable(text)}", markup=False)

    def error(self, error: ShoalError) -> None:
        """Say what failed, in one line."""
        report_error(error, as_json=self.is_json)

    @contextmanager
    def transfer(self, title: str, size: int | None) -> Iterator[Bar]:
        """Show the progress of one transfer of `size` bytes, once it has taken a second."""
        if self._settings.quiet or self.is_json or not self.error_console.is_terminal:
            yield _say_nothing
            return
        bar = _LateBar(self.error_console, printable(title), size)
        try:
            yield bar
        finally:
            bar.close()

    def _line(self, text: str) -> None:
        # Not through rich, which would wrap lines and see markup in names.
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def report_error(error: ShoalError, *, as_json: bool) -> None:
    """Write the one line that tells a user, or a program, what failed."""
    if as_json:
        text = json_text({"error": str(error), "code": error.code, "detail": {"exit_code": error.exit_code}})
    else:
        text = f"shoal: {printable(str(error))}"
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


def _say_nothing(count: int) -> None:
    """The bar of somebody who does not want one."""


class _LateBar:
    """A bar that shows itself when the transfer turns out to be long."""

    def __init__(self, console: Console, title: str, size: int | None) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._title = title
        self._size = size
        self._done = 0
        self._began_at = time.monotonic()
        self._task: TaskID | None = None

    def __call__(self, count: int) -> None:
        self._done += count
        if self._task is None:
            if time.monotonic() - self._began_at < PROGRESS_AFTER_SECONDS:
                return
            self._progress.start()
            self._task = self._progress.add_task(self._title, total=self._size)
        self._progress.update(self._task, completed=self._done)

    def close(self) -> None:
        """Take the bar away."""
        if self._task is not None:
            self._progress.stop()
