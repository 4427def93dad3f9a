"""Global options, usage errors, and the keys of a home."""

import json
import shlex
from contextlib import asynccontextmanager
from types import SimpleNamespace

import click
import pytest

from peer.cli.main import main
from peer.cli.settings import Settings
from peer.cli.world import client_of
from peer.client.asynchronous import Client
from peer.client.home_files import KEY_FILE, key_for_client, key_for_node, node_addresses, remove_node_file, write_key, write_node_file
from peer.errors import AlreadyThere, NotAllowed, WrongUsage
from peer.real.keys import new_key


@pytest.mark.parametrize("arguments", [("--json", "ls"), ("ls", "--json")])
def test_global_options_stand_before_or_after_the_verb(shoal, client, arguments):
    client.files = {"/a": b""}
    assert json.loads(shoal(*arguments).stdout)["path"] == "/a"


def test_an_option_before_the_verb_is_not_undone_by_the_verb(shoal, home, tmp_path):
    other = tmp_path / "other"
    assert shoal("--home", str(other), "key", "new").exit_code == 0
    assert (other / KEY_FILE).exists()
    assert shoal("key", "show", "--home", str(other)).stdout == (other / KEY_FILE).read_text()


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("put",), ("ls", "--wrong"), ("up", "--listen", "here"), ("up", "--name", "two words")]
)
def test_wrong_usage_is_exit_2_and_one_line(shoal, arguments):
    result = shoal(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("shoal: ")
    assert result.stderr.count("\n") == 1


def test_wrong_usage_is_json_when_json_was_asked_for_anywhere(shoal):
    assert json.loads(shoal("put", "--json").stderr)["code"] == "usage"


def test_a_new_key_is_readable_by_its_owner_only_and_never_replaced(shoal, home):
    assert shoal("key", "new").exit_code == 0
    assert (home / KEY_FILE).stat().st_mode & 0o777 == 0o600
    before = (home / KEY_FILE).read_text()
    assert shoal("key", "new").exit_code == 5
    assert (home / KEY_FILE).read_text() == before


def test_key_show_without_a_key_is_exit_3(shoal):
    assert shoal("key", "show").exit_code == 3


def test_the_key_in_the_environment_comes_first(shoal, home, monkeypatch):
    text = new_key().text
    monkeypatch.setenv("SHOAL_KEY", text)
    assert shoal("key", "show").stdout == text + "\n"


def test_a_spoilt_key_in_the_environment_is_named_as_what_it_is(shoal, home, monkeypatch):
    assert shoal("key", "new").exit_code == 0
    monkeypatch.setenv("SHOAL_KEY", "nonsense")
    for command in (("key", "show"), ("ls",)):
        result = shoal(*command)
        assert result.exit_code == 2
        assert result.stderr.startswith("shoal: SHOAL_KEY is not a key of shoal")


def test_a_command_without_a_key_is_not_allowed_and_says_what_to_do(shoal):
    result = shoal("ls")
    assert result.exit_code == 8
    assert "shoal up" in result.stderr


def test_a_spoilt_key_is_refused_without_being_repeated(shoal, home):
    text = new_key().text
    home.mkdir()
    (home / KEY_FILE).write_text(text[:-1] + ("a" if text[-1] != "a" else "b"))
    result = shoal("ls")
    assert result.exit_code == 2
    assert text[:20] not in result.stderr


def test_a_node_without_any_key_makes_one_and_founds(home):
    chosen = key_for_node(home, None)
    assert chosen.is_new
    assert not home.exists()  # it is kept once the node has founded: one that cannot start must not leave it behind
    write_key(home / KEY_FILE, chosen.key.text)
    assert not key_for_node(home, None).is_new
    assert key_for_client(home) == key_for_node(home, None).key == chosen.key


def test_a_key_file_is_kept_in_the_home(home, tmp_path):
    key = new_key()
    write_key(tmp_path / "k", key.text)
    chosen = key_for_node(home, tmp_path / "k")
    assert chosen.key == key
    assert not chosen.is_new
    assert key_for_client(home) == key


def test_a_home_of_another_key_is_refused(home, tmp_path):
    write_key(home / KEY_FILE, new_key().text)
    write_key(tmp_path / "k", new_key().text)
    with pytest.raises(WrongUsage):
        key_for_node(home, tmp_path / "k")
    with pytest.raises(AlreadyThere):
        write_key(home / KEY_FILE, new_key().text)


def test_without_a_key_there_is_no_client(home):
    with pytest.raises(NotAllowed):
        key_for_client(home)


def test_the_node_of_a_home_is_found_by_its_file_and_a_spoilt_file_means_nothing(home):
    home.mkdir()
    assert node_addresses(home) == ()
    write_node_file(home, name="ada", node_id="00", addresses=("10.0.0.1:7400", "10.1.0.1:7400"))
    assert node_addresses(home) == ("10.0.0.1:7400", "10.1.0.1:7400")
    for text in ("", "[]", "{}", '{"addresses": 1}', "\x00"):
        (home / "node.json").write_text(text)
        assert node_addresses(home) == ()
    remove_node_file(home)
    remove_node_file(home)


@pytest.mark.parametrize("arguments", [(), ("key",)])
def test_without_a_verb_the_help_is_shown_on_stderr(shoal, arguments):
    result = shoal(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == shoal(*arguments, "--help").stdout
    assert max(map(len, result.stderr.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("get", "/a"), "/a to where? name a local target as well"),
        (("get", "-r", "/a"), "/a to where? name a local target as well"),
        (("put", "a.txt"), "a.txt to where? name a remote target as well"),
        (("get",), "name what to get, and a local target"),
        (("put",), "name what to put, and a remote target"),
    ],
)
def test_what_is_missing_of_a_put_or_get_is_said(shoal, arguments, text):
    result = shoal(*arguments)
    assert result.exit_code == 2
    assert result.stderr == f"shoal: {text}: see `shoal {arguments[0]} --help`\n"
    assert json.loads(shoal(*arguments, "--json").stderr)["code"] == "usage"


def test_the_help_of_put_and_get_shows_what_is_needed_as_needed(shoal):
    assert "LOCAL... REMOTE\n" in shoal("put", "--help").stdout
    assert "REMOTE... LOCAL\n" in shoal("get", "--help").stdout


def verbs(command=main, words=()):
    """Yield every command with the words that call it."""
    yield words, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from verbs(inner, (*words, name))


@pytest.mark.parametrize(("words", "command"), list(verbs()), ids=lambda value: "-".join(value) if isinstance(value, tuple) else "")
def test_every_help_fits_80_columns_and_ends_with_two_or_three_examples_that_are_right(shoal, words, command):
    lines = shoal(*words, "--help").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    examples = lines[lines.index("Examples:") + 1 :]
    assert 2 <= len(examples) <= 3
    called = 0
    for line in examples:
        typed = shlex.split(line, comments=True)
        for start in [index for index, word in enumerate(typed) if word == "shoal"]:
            operands = []
            for word in typed[start + 1 :]:
                if word in ("|", "<", ">", "&&"):
                    break
                operands.append(word)
            if "xargs" in typed[:start]:
                operands.append("/what/it/gives")
            main.make_context("shoal", operands).close()  # the options of the command itself
            inner, rest = main, operands
            while isinstance(inner, click.Group):
                inner, rest = inner.commands[rest[0]], rest[1:]
            inner.make_context(inner.name, rest).close()
            called += operands[: len(words)] == list(words)
    assert called, "no example calls the command itself"


@pytest.mark.parametrize(("quiet", "told"), [(False, "waiting for laptop to answer\n"), (True, "")])
async def test_what_a_command_waits_for_is_said_once_on_stderr(monkeypatch, capsys, quiet, told):
    @asynccontextmanager
    async def connect(node, *, home):
        yield SimpleNamespace()

    monkeypatch.setattr(Client, "connect", connect)
    async with client_of(Settings(quiet=quiet)) as client:
        client.on_wait("waiting for laptop to answer")
        client.on_wait("waiting for laptop to answer")
    assert capsys.readouterr() == ("", told)
