"""What becomes of a command whose standard streams are gone, full or closed. Processes of their own."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_up import MODULE_SECONDS, environment, shoal, up  # it lies beside this one

SECONDS = 20.0
STATUS = ("status",)
PUT = ("put", "-r", "tree", "/put")
ALONE = ("--listen", "127.0.0.1:0", "--no-discovery")
FULL = "shoal: standard output: cannot write it: No space left on device\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the `home` of a node that runs, and a `tree` that it has as well."""
    made = tmp_path_factory.mktemp("served")
    (made / "tree").mkdir()
    for name in ("a", "b", "c"):
        (made / "tree" / name).write_text(name)
    with up(made / "home", seconds=MODULE_SECONDS) as node:
        node.ready()
        assert shoal(made / "home", "put", "-r", str(made / "tree"), "/tree").returncode == 0
        yield made


def run(folder: Path, *arguments: str, streams: str = "", **more: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with its streams redirected by a shell."""
    command = ["bash", "-c", f'"$@" {streams}', "-", sys.executable, "-m", "peer.cli", "--home", "home", *arguments]
    environ = environment(PYTHONPATH=str(Path(__file__).parents[3]), **more)
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=2 * SECONDS, check=False)


@pytest.mark.parametrize(
    "verb",
    [("ls", "/tree"), ("find", "-0"), ("cat", "/tree/a"), ("get", "-r", "/tree", "back"), PUT, STATUS, ("status", "--watch")],
)
def test_a_reader_that_has_gone_ends_a_command_without_a_word(folder: Path, verb: tuple[str, ...]) -> None:
    done = run(folder, *verb, streams="| true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("verb", [("ls", "/tree"), ("find", "-0"), ("cat", "/tree/a"), ("get", "/tree/a", "-"), PUT, STATUS])
def test_output_that_has_no_room_is_one_line_that_names_it(folder: Path, verb: tuple[str, ...]) -> None:
    done = run(folder, *verb, streams="> /dev/full")
    assert (done.returncode, done.stderr) == (1, FULL)


def test_steps_that_are_shown_go_on_without_a_reader() -> None:
    steps = "from peer.cli.output import Output, Settings; output = Output(Settings()); output.show('1'); output.show('2'); exit(7)"
    command = ["bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "-", sys.executable, "-c", "import time; time.sleep(0.5); " + steps]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stderr) == (7, "")  # the exit code of a demo says what came of all of them


def test_input_that_cannot_be_read_is_one_line_that_names_it(folder: Path) -> None:
    done = run(folder, "put", "-", "/f", streams="<&-")
    assert (done.returncode, done.stderr) == (1, "shoal: standard input: cannot read it: Bad file descriptor\n")
    assert shoal(folder / "home", "stat", "/f").returncode == 3


@pytest.mark.parametrize("streams", ["2>&1 | true; exit ${PIPESTATUS[0]}", "2> /dev/full"])
def test_an_error_that_nobody_can_read_has_its_exit_code_all_the_same(folder: Path, streams: str) -> None:
    assert run(folder, "ls", "/nope", streams=streams).returncode == 3


@pytest.mark.parametrize("streams", ["2>&1 | head -1; exit ${PIPESTATUS[0]}", "> /dev/full 2>&1"])
def test_a_node_outlives_whoever_reads_what_it_says(tmp_path: Path, streams: str) -> None:
    home, joiner = tmp_path / "home", tmp_path / "joiner"
    assert shoal(home, "key", "new").returncode == 0
    node = threading.Thread(target=lambda: ends.append(run(tmp_path, "up", "--found", *ALONE, streams=streams)), daemon=True)
    ends: list[subprocess.CompletedProcess[str]] = []
    node.start()
    while not (home / "node.json").exists():
        time.sleep(0.1)
    running = json.loads((home / "node.json").read_text())
    try:
        with up(joiner, "--key-file", str(home / "cluster.key"), "--join", running["address"]) as other:
            other.ready()
            time.sleep(2)  # the first has said so as well, or tried to
            members = json.loads(shoal(joiner, "status", "--json").stdout)["members"]
            assert [member["state"] for member in members] == ["alive", "alive"]
    finally:
        os.kill(running["pid"], signal.SIGTERM)
        node.join(SECONDS)
    assert ends[0].returncode == 0


def test_a_name_that_the_terminal_has_no_letters_for_is_shown_escaped(folder: Path) -> None:
    assert shoal(folder / "home", "put", str(folder / "tree" / "a"), "/names/\u00e9").returncode == 0
    for verb in (("ls", "/names"), ("stat", "/names/\u00e9"), ("status",)):
        done = run(folder, *verb, PYTHONIOENCODING="ascii")
        assert (done.returncode, done.stderr) == (0, "")
        assert verb[0] == "status" or "\\xe9" in done.stdout


@pytest.mark.parametrize("streams", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_taken_for_empty_and_no_other_file_gets_their_place(folder: Path, streams: str) -> None:
    for verb in (("ls", "/tree"), ("cat", "/tree/a")):
        done = run(folder, *verb, streams=streams)
        assert (done.returncode, done.stderr) == (0, "")
    assert run(folder, "ls", "/nope", streams=streams).returncode == 3
