"""What a person sees on a terminal: progress, colours, a screen that is redrawn. Processes of their own, on a pseudo-terminal."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_up import MODULE_SECONDS, environment, shoal, up  # it lies beside this one

SECONDS = 20.0
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|38|4[0-7]|48|9[0-7])[;m]")


class Terminal:
    """A pseudo-terminal, and what was written to it."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        self.text = ""

    def wait_for(self, text: str, times: int = 1) -> None:
        """Read until `text` was written."""
        give_up_at = time.monotonic() + SECONDS
        while self.text.count(text) < times:
            assert time.monotonic() < give_up_at, self.text
            self.read(0.1)

    def read(self, seconds: float = 0) -> str:
        """Return all that was written, and what is within so many seconds."""
        while select.select([self.ours], [], [], seconds)[0]:
            self.text += os.read(self.ours, 65536).decode(errors="replace")
        return self.text


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    os.close(made.ours)
    os.close(made.theirs)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a node that runs."""
    folder = tmp_path_factory.mktemp("served") / "home"
    with up(folder, seconds=MODULE_SECONDS) as node:
        node.ready()
        yield folder


@contextmanager
def running(home: Path, *arguments: str, **streams: object) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "peer.cli", "--home", str(home), *arguments]
    more = {name: str(streams.pop(name)) for name in ("NO_COLOR",) if name in streams}
    process = subprocess.Popen(command, text=True, env=environment(TERM="xterm", COLUMNS="100", **more), **streams)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_long_put_shows_what_is_durable_and_its_result_goes_where_stdout_goes(home: Path, terminal: Terminal, tmp_path: Path) -> None:
    result = tmp_path / "result"
    with result.open("w") as out, running(home, "put", "-", "/f", stdin=subprocess.PIPE, stdout=out, stderr=terminal.theirs) as process:
        assert process.stdin is not None
        terminal.wait_for("put  0 B")  # by itself after a second, though nothing has moved
        process.stdin.write("x" * 100_000)
        process.stdin.close()
        process.stdin = None
        assert process.wait(SECONDS) == 0
    assert result.read_text().startswith("/f  version ")
    assert "version" not in terminal.read()


def test_a_put_on_a_terminal_ends_with_its_result_alone(home: Path, terminal: Terminal) -> None:
    with running(home, "put", "-", "/f", stdin=subprocess.PIPE, stdout=terminal.theirs, stderr=terminal.theirs) as process:
        assert process.stdin is not None
        terminal.wait_for("put  0 B")
        process.stdin.close()
        process.stdin = None
        assert process.wait(SECONDS) == 0
    assert re.search(r"/f  version \S+  0 B  copies=1", terminal.read())
    assert terminal.text.endswith("\x1b[2K")  # the line of progress was taken away


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_quiet_and_json_show_no_progress(home: Path, terminal: Terminal, option: str) -> None:
    with running(home, option, "put", "-", "/f", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=terminal.theirs) as process:
        assert process.stdin is not None
        time.sleep(2)
        process.stdin.close()
        process.stdin = None
        assert process.wait(SECONDS) == 0
    assert terminal.read() == ""


def test_an_interrupted_put_takes_its_progress_away_and_says_one_line(home: Path, terminal: Terminal) -> None:
    with running(home, "put", "-", "/g", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=terminal.theirs) as process:
        terminal.wait_for("put  0 B")
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
    assert terminal.read().endswith("\x1b[2Kshoal: interrupted: the same command again is safe and goes on\r\n")
    assert terminal.text.count("\x1b[?25h") == terminal.text.count("\x1b[?25l") == 1  # the cursor is shown again


def test_status_has_colours_on_a_terminal_and_none_where_they_are_not_wanted(home: Path, terminal: Terminal) -> None:
    with running(home, "status", stdout=terminal.theirs) as process:
        assert process.wait(SECONDS) == 0
    assert COLOUR.search(terminal.read())
    terminal.text = ""
    for command in (("status",), ("status", "--wrong"), ("--help",), ("stat", "/nope")):
        with running(home, *command, stdout=terminal.theirs, stderr=terminal.theirs, NO_COLOR="1") as process:
            process.wait(SECONDS)
    assert "alive" in terminal.read()
    assert not COLOUR.search(terminal.text)
    assert "\x1b[" not in shoal(home, "status").stdout


def test_status_watch_redraws_in_place_and_ends_in_order(home: Path, terminal: Terminal) -> None:
    with running(home, "status", "--watch", stdout=terminal.theirs, stderr=terminal.theirs) as process:
        terminal.wait_for("1 of 1 member alive", times=2)
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0
    assert "\x1b[1A" in terminal.read()  # back up, over what was there
    assert "interrupted" not in terminal.text


def test_status_watch_json_is_a_document_a_line(home: Path) -> None:
    with running(home, "status", "--watch", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        documents = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0
        assert process.stderr.read() == ""
    assert [len(document["members"]) for document in documents] == [1, 1]


def test_status_watch_goes_on_while_nobody_answers(tmp_path: Path) -> None:
    with up(tmp_path / "home") as node:
        node.ready()
        with running(tmp_path / "home", "status", "--watch", "--json", stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["members"][0]["state"] == "alive"
            node.process.kill()
            give_up_at = time.monotonic() + SECONDS
            while json.loads(process.stdout.readline())["members"][0]["state"] == "alive":
                assert time.monotonic() < give_up_at
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 0
