"""Ctrl-C: one line, and an exit code of its own."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

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


def test_the_exit_codes_in_the_readme_name_130() -> None:
    text = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    assert re.search(r"Exit codes:(?:(?!\n\n).)*\b130 interrupted", text, re.DOTALL)
