"""The Tab key: what the scripts ask the command, and what it answers."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_up import environment, shoal, up  # it lies beside this one

from peer.client.home_files import write_node_file

UNHURRIED = "import peer.cli.completion as c; c.OFFER_SECONDS = 60; from peer.cli.start import main; main()"
"""On a machine that is busy with other tests, an answer may come later than a person would wait for it."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a node that runs, with a few names in its cluster."""
    folder = tmp_path_factory.mktemp("served") / "home"
    with up(folder) as node:
        node.ready()
        for path in ("/films/alien.mp4", "/films/brazil.mp4", "/films/with space", "/files.txt", "/music/a/b"):
            assert shoal(folder, "put", "-", path, input="").returncode == 0
        yield folder


def offered(home: Path, *words: str) -> list[str]:
    """Return what is offered for the last of `words`, as `type,value`."""
    variables = environment(_SHOAL_COMPLETE="bash_complete", COMP_WORDS=" ".join(("shoal", *words)), COMP_CWORD=str(len(words)))
    variables["SHOAL_HOME"] = str(home)
    done = subprocess.run([sys.executable, "-c", UNHURRIED], env=variables, capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]  # click ends nothing with a line as well


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (("ca",), ["cat"]),
        (("status", "--wa"), ["--watch"]),
        (("ls", "/fi"), ["/files.txt", "/films/"]),
        (("ls", "/films/"), ["/films/alien.mp4", "/films/brazil.mp4"]),
        (("rm", "/films/alien.mp4", "/films/b"), ["/films/brazil.mp4"]),
        (("ls", "/mus"), ["/music/", "/music/a/"]),
        (("cp", "/files.txt", "/fil"), ["/files.txt", "/films/"]),
        (("get", "/fil"), ["/files.txt", "/films/"]),
        (("put", "local", "/fil"), ["/files.txt", "/films/"]),
        (("ls", "/no/such/folder/"), []),
        (("ls", "/a/../b"), []),
        (("completion", "b"), ["bash"]),
    ],
)
def test_verbs_options_and_remote_paths_are_offered(home: Path, words: tuple[str, ...], values: list[str]) -> None:
    assert offered(home, *words) == [f"plain,{value}" for value in values]


@pytest.mark.parametrize("words", [("put", "lo"), ("put", "/lo"), ("get", "/films/alien.mp4", "lo")])
def test_local_paths_are_left_to_the_shell(home: Path, words: tuple[str, ...]) -> None:
    assert offered(home, *words) == [f"file,{words[-1]}"]


def test_without_a_node_of_this_home_nothing_is_offered_and_nobody_is_listened_for(tmp_path: Path) -> None:
    assert shoal(tmp_path, "key", "new").returncode == 0
    assert offered(tmp_path, "ls", "/f") == []


def test_a_node_that_does_not_answer_offers_nothing(tmp_path: Path) -> None:
    assert shoal(tmp_path, "key", "new").returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as silent:
        write_node_file(tmp_path, name="x", node_id="00", addresses=(f"127.0.0.1:{silent.getsockname()[1]}",))
        assert offered(tmp_path, "ls", "/f") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_printed_and_says_how_to_keep_it(tmp_path: Path, shell: str) -> None:
    script = shoal(tmp_path, "completion", shell).stdout
    assert f"shoal completion {shell} >" in "\n".join(script.splitlines()[:2])
    assert f"{shell}_complete" in script
    assert (shell == "zsh") == script.startswith("#compdef shoal\n")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_takes_the_script(home: Path, tmp_path: Path) -> None:
    (tmp_path / "shoal").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{UNHURRIED}" "$@"\n')
    (tmp_path / "shoal").chmod(0o755)
    asked = """
        eval "$(shoal completion bash)"
        COMP_WORDS=(shoal ls /fi) COMP_CWORD=2
        _shoal_completion shoal
        printf "%s\\n" "${COMPREPLY[@]}"
    """
    variables = environment(SHOAL_HOME=str(home), PATH=f"{tmp_path}:{os.environ['PATH']}")
    done = subprocess.run(["bash", "-c", asked], env=variables, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines() == ["/files.txt", "/films/"], done.stderr
