"""Ctrl-C: one line, and an exit code of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_up import environment, shoal, up  # it lies beside this one

SECONDS = 20.0
LINE = "interrupted: the same command again is safe and goes on"


def interrupted(*arguments: str) -> tuple[int, str, str]:
    """Send SIGINT to a `shoal put -` that waits for its input; return its exit code and what it said."""
    command = [sys.executable, "-m", "peer.cli", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdin is not None
        process.stdin.write("x" * 1_000_000)  # more than a pipe holds: when it is written, the put is under way
        process.stdin.flush()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=SECONDS)
        finally:
            process.kill()
        assert process.stdout is not None
        assert process.stderr is not None
        return process.returncode, process.stdout.read(), process.stderr.read()


def test_an_interrupt_is_one_line_and_130(tmp_path: Path) -> None:
    with up(tmp_path / "home") as node:
        node.ready()
        assert interrupted("--home", str(tmp_path / "home"), "put", "-", "/f") == (130, "", f"shoal: {LINE}\n")
        code, out, err = interrupted("--home", str(tmp_path / "home"), "--json", "put", "-", "/f")
        assert (code, out) == (130, "")
        assert json.loads(err) == {"error": LINE, "code": "interrupted", "detail": {"exit_code": 130}}
        assert shoal(tmp_path / "home", "stat", "/f").returncode == 3


WHILE_IT_LOADS = """
import os, signal, sys
class Meanwhile:
    def find_spec(self, name, path, target=None):
        if name == "peer.cli.main":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Meanwhile())
from peer.cli.start import main
main()
"""


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_interrupt_while_the_command_loads_is_one_line_and_130(options: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", WHILE_IT_LOADS, "ls", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (130, "", 1)
    assert (json.loads(done.stderr)["error"] if options else done.stderr) == (LINE if options else f"shoal: {LINE}\n")


def test_where_interrupts_are_ignored_they_stay_ignored() -> None:
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + WHILE_IT_LOADS
    done = subprocess.run([sys.executable, "-c", ignoring, "--version"], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_exit_codes_in_the_readme_name_130() -> None:
    text = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    assert re.search(r"Exit codes:(?:(?!\n\n).)*\b130 interrupted", text, re.DOTALL)


@pytest.mark.parametrize(("verb", "number"), [("demo", signal.SIGTERM), ("demo", signal.SIGHUP), ("bench", signal.SIGTERM)])
def test_no_node_outlives_the_command_that_started_it(verb: str, number: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "peer.cli", verb]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**environment(), "TMPDIR": str(tmp_path)}
    ) as process:
        try:
            while not (said := list(tmp_path.glob("*/homes/ada/node.json"))):
                assert process.poll() is None
                time.sleep(0.05)
            node = json.loads(said[0].read_text())["pid"]
            process.send_signal(number)
            assert process.wait(timeout=SECONDS) == 130
        finally:
            process.kill()
        assert process.stderr is not None
        assert process.stderr.read().splitlines()[-1] == f"shoal: {LINE}"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(node, 0)
