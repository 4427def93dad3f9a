"""How far a command with files to move is: what is done, what is known to come, how fast it goes.

Owns the counting, and the line that shows it. Counts are of what is true now: bytes that are durable, or have arrived; bytes that
were there before are done but not fast; a file that failed is neither done nor to come.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from peer.cli.text import size_text

RATE_SECONDS = 15.0
"""A rate is that of so long: a stall shows, a single chunk does not."""
SAMPLE_SECONDS = 0.25
BAR_WIDTH = 16
TITLE_WIDTH_MIN = 8
GAP = 2


class Rate:
    """Bytes per second of late."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._moved = 0
        self._samples = deque([(now(), 0)])

    def add(self, count: int) -> None:
        """Say that so many bytes were moved."""
        self._moved += count
        if self._now() - self._samples[-1][0] >= SAMPLE_SECONDS:
            self._samples.append((self._now(), self._moved))

    @property
    def bytes_per_second(self) -> float:
        """The rate of the last RATE_SECONDS, or since the beginning."""
        now = self._now()
        while len(self._samples) > 1 and self._samples[1][0] <= now - RATE_SECONDS:
            self._samples.popleft()
        began_at, moved = self._samples[0]
        return (self._moved - moved) / (now - began_at) if now > began_at else 0.0


class FileProgress:
    """Progress of one file: called with the number of bytes that were moved since the last call."""

    def __init__(self, transfer: "Transfer", size: int | None) -> None:
        self._transfer = transfer
        self._size = size
        self._done = 0

    def __call__(self, count: int) -> None:
        """Say that so many bytes more were moved."""
        self._transfer.rate.add(count)
        self.found(count)

    def found(self, count: int) -> None:
        """Say that so many bytes more are done without having been moved."""
        # A file that is replaced meanwhile is fetched anew: what it had before counts once.
        self._set_done(self._done + count if self._size is None else min(self._done + count, self._size))

    def settle(self, *, failed: bool) -> None:
        """End the file."""
        if failed:
            self._set_done(0)
            self._transfer.expected_files -= 1
            if self._transfer.expected_bytes is not None and self._size is not None:
                self._transfer.expected_bytes -= self._size
        else:
            self._set_done(self._done if self._size is None else self._size)
            self._transfer.done_files += 1

    def _set_done(self, done: int) -> None:
        self._transfer.done_bytes += done - self._done
        self._done = done


class Transfer:
    """Progress of one command."""

    def __init__(self, title: str, now: Callable[[], float] = time.monotonic) -> None:
        self.title = title
        self.rate = Rate(now)
        self.done_files = 0
        self.done_bytes = 0
        self.expected_files = 0
        self.expected_bytes: int | None = 0
        """None when the size of a file is not known before it ends."""
        self.all_is_expected = False
        """Whether no more files than are expected will come."""

    def expect(self, size: int | None) -> None:
        """Say that a file of `size` bytes will come."""
        self.expected_files += 1
        self.expected_bytes = None if size is None or self.expected_bytes is None else self.expected_bytes + size

    @contextmanager
    def file(self, size: int | None) -> Iterator[FileProgress]:
        """Move a file that was expected; an exception in the block means that it failed."""
        progress = FileProgress(self, size)
        try:
            yield progress
        except BaseException:
            progress.settle(failed=True)
            raise
        progress.settle(failed=False)

    @contextmanager
    def only_file(self, size: int | None) -> Iterator[FileProgress]:
        """Move the one file of this command."""
        self.expect(size)
        self.all_is_expected = True
        with self.file(size) as progress:
            yield progress

    @property
    def seconds_left(self) -> float | None:
        """How long it will take at the rate of late, where that can be said."""
        rate = self.rate.bytes_per_second
        if not self.all_is_expected or self.expected_bytes is None or not rate:
            return None
        return (self.expected_bytes - self.done_bytes) / rate

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the line that shows it."""
        total = self.expected_bytes if self.all_is_expected else None
        texts = []
        if self.expected_files > 1 or not self.all_is_expected:
            texts.append(f"{self.done_files}/{self.expected_files}{'' if self.all_is_expected else '+'} files")
        texts.append(size_text(self.done_bytes) + (f" of {size_text(total)}" if total is not None else ""))
        texts.append(f"{size_text(self.rate.bytes_per_second)}/s")
        left = self.seconds_left
        if left is not None:
            texts.append(f"{timedelta(seconds=round(left))} left")
        room = options.max_width - sum(len(text) + GAP for text in texts)
        title = Text(self.title)
        title.truncate(max(room, TITLE_WIDTH_MIN), overflow="ellipsis")
        cells: list[Text | ProgressBar] = [title, *map(Text, texts)]
        if total and room >= title.cell_len + GAP + BAR_WIDTH:
            cells.insert(1, ProgressBar(total, self.done_bytes, width=BAR_WIDTH))
        line = Table.grid(padding=(0, GAP))
        for _ in cells:
            line.add_column(no_wrap=True)
        line.add_row(*cells)
        yield line
