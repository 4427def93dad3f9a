"""The Tab key: what the scripts ask the command, and what it answers."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cli_fakes import FakeClient
from click.shell_completion import get_completion_class
from test_up import environment, shoal, up  # it lies beside this one

from peer.cli.main import main
from peer.cli.settings import Settings
from peer.client.home_files import write_node_file

Offered = Callable[..., list[str]]
UNHURRIED = "import peer.cli.completion as c; c.OFFER_SECONDS = 60; from peer.cli.start import main; main()"
"""On a machine that is busy with other tests, an answer may come later than a person would wait for it."""


@pytest.fixture
def offered(home: Path) -> Offered:
    """Gives what is offered for the last of some words, as a shell gets it."""

    def ask(*words: str) -> list[str]:
        complete = get_completion_class("bash")
        assert complete is not None
        asked = complete(main, {"obj": Settings()}, "shoal", "_SHOAL_COMPLETE")
        return [f"{item.type},{item.value}" for item in asked.get_completions(list(words[:-1]), words[-1])]

    return ask


@pytest.fixture
def node(home: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """The node of this home, and what is in its cluster."""
    fake = FakeClient()
    fake.folders = ["/films", "/music", "/music/a"]
    fake.files = dict.fromkeys(["/films/alien.mp4", "/films/brazil.mp4", "/films/with space", "/files.txt", "/music/a/b"], b"")

    @asynccontextmanager
    async def connect(nodes: list[str], *, home: Path) -> AsyncIterator[FakeClient]:
        assert list(nodes) == ["127.0.0.1:7400"]
        yield fake

    home.mkdir()
    write_node_file(home, name="x", node_id="00", addresses=("127.0.0.1:7400",))
    monkeypatch.setattr("peer.cli.completion.Client.connect", connect)
    return fake


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (("ca",), ["cat"]),
        (("status", "--wa"), ["--watch"]),
        (("ls", "/fi"), ["/films/", "/files.txt"]),
        (("ls", "/films/"), ["/films/alien.mp4", "/films/brazil.mp4"]),
        (("rm", "/films/alien.mp4", "/films/b"), ["/films/brazil.mp4"]),
        (("ls", "/mus"), ["/music/", "/music/a/"]),
        (("cp", "/files.txt", "/fil"), ["/films/", "/files.txt"]),
        (("get", "/fil"), ["/films/", "/files.txt"]),
        (("put", "local", "/fil"), ["/films/", "/files.txt"]),
        (("put", "local", "more", "/fil"), ["/films/", "/files.txt"]),
        (("ls", ""), ["/"]),
        (("ls", "/no/such/folder/"), []),
        (("ls", "/a/../b"), []),
        (("completion", "b"), ["bash"]),
    ],
)
def test_verbs_options_and_remote_paths_are_offered(node: FakeClient, offered: Offered, words: tuple[str, ...], values: list[str]) -> None:
    assert sorted(offered(*words)) == sorted(f"plain,{value}" for value in values)


@pytest.mark.parametrize("words", [("put", "lo"), ("put", "/lo"), ("get", "/films/alien.mp4", "lo"), ("put", "a", "b", "lo")])
def test_local_paths_are_left_to_the_shell(node: FakeClient, offered: Offered, words: tuple[str, ...]) -> None:
    assert offered(*words) == [f"file,{words[-1]}"]


def test_without_a_node_of_this_home_nothing_is_offered_and_nobody_is_listened_for(offered: Offered, monkeypatch) -> None:
    async def listened_for(key: object) -> list[str]:
        raise AssertionError("discovery was asked")

    monkeypatch.setattr("peer.client.reach.discover", listened_for)
    assert offered("ls", "/f") == []


def test_a_node_that_does_not_answer_offers_nothing(offered: Offered, home: Path, monkeypatch) -> None:
    assert shoal(home, "key", "new").returncode == 0
    monkeypatch.setattr("peer.cli.completion.OFFER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        write_node_file(home, name="x", node_id="00", addresses=(f"127.0.0.1:{silent.getsockname()[1]}",))
        assert offered("ls", "/f") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_printed_and_says_how_to_keep_it(tmp_path: Path, shell: str) -> None:
    script = shoal(tmp_path, "completion", shell).stdout
    assert f"shoal completion {shell} >" in "\n".join(script.splitlines()[:2])
    assert f"{shell}_complete" in script
    assert (shell == "zsh") == script.startswith("#compdef shoal\n")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_gets_the_names_of_a_cluster_from_the_script(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (tmp_path / "shoal").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{UNHURRIED}" "$@"\n')
    (tmp_path / "shoal").chmod(0o755)
    asked = """
        eval "$(shoal completion bash)"
        COMP_WORDS=(shoal ls /fi) COMP_CWORD=2
        _shoal_completion shoal
        printf "%s\\n" "${COMPREPLY[@]}"
    """
    variables = environment(SHOAL_HOME=str(home), PATH=f"{tmp_path}:{os.environ['PATH']}")
    with up(home) as node:
        node.ready()
        for path in ("/films/alien.mp4", "/files.txt"):
            assert shoal(home, "put", "-", path, input="").returncode == 0
        done = subprocess.run(["bash", "-c", asked], env=variables, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["/files.txt", "/films/"], done.stderr
