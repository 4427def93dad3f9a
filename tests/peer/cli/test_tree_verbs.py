"""Sums and choices over whole folders."""

import json
from dataclasses import replace
from datetime import datetime

import pytest

from peer.cli.text import moment_of

DAY = 86_400_000


@pytest.fixture
def tree(client):
    client.folders = ["/a", "/a/deep", "/a/deep/empty", "/b"]
    client.files = {"/a/deep/x.txt": b"12345", "/a/one.jpg": b"1" * 2000, "/top.txt": b"123"}
    return client


def test_du_sums_each_folder_with_what_is_below_it_inner_ones_first(shoal, tree):
    assert shoal("du", "-b").stdout == "0\t/a/deep/empty\n5\t/a/deep\n2005\t/a\n0\t/b\n2008\t/\n"
    assert shoal("du", "-b", "/a").stdout == "0\t/a/deep/empty\n5\t/a/deep\n2005\t/a\n"
    documents = [json.loads(line) for line in shoal("du", "--json").stdout.splitlines()]
    assert documents[-1] == {"path": "/", "type": "dir", "size": 2008, "files": 3}


def test_du_counts_a_folder_beside_one_whose_name_begins_alike_for_itself(shoal, client):
    client.folders = ["/a", "/ab"]
    client.files = {"/a/x": b"1", "/ab/y": b"22"}
    assert shoal("du", "-b").stdout == "1\t/a\n2\t/ab\n3\t/\n"


@pytest.mark.parametrize("flags", ["-s", "-sh"])
def test_du_s_is_one_line_for_each_that_is_named_and_goes_on_after_one_that_is_not_there(shoal, tree, monkeypatch, flags):
    async def checked(path, *, recursive, listed=tree.list):
        if path != "/":
            await tree.entry(path)
        if path in tree.files:
            yield tree.made(path)
        async for entry in listed(path, recursive=recursive):
            yield entry

    monkeypatch.setattr(tree, "list", checked)
    result = shoal("du", flags, "/a", "/nope", "/top.txt")
    assert result.stdout == "2.0 KiB\t/a\n3 B\t/top.txt\n"
    assert result.exit_code == 3
    assert result.stderr == "shoal: /nope: no such file or folder\n"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), ["/a/", "/a/deep/", "/a/deep/empty/", "/a/deep/x.txt", "/a/one.jpg", "/b/", "/top.txt"]),
        (("/a", "--type", "f"), ["/a/deep/x.txt", "/a/one.jpg"]),
        (("--type", "d", "--name", "?"), ["/a/", "/b/"]),
        (("--name", "*.txt"), ["/a/deep/x.txt", "/top.txt"]),
        (("--larger", "3"), ["/a/deep/x.txt", "/a/one.jpg"]),
        (("--smaller", "1K"), ["/a/deep/x.txt", "/top.txt"]),
        (("--name", "*.TXT"), []),
    ],
)
def test_find_shows_what_passes_every_test(shoal, tree, arguments, found):
    result = shoal("find", *arguments)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == found


def test_find_by_age(shoal, tree, monkeypatch):
    now = int(datetime.now().timestamp() * 1000)

    def aged(path, made=tree.made):
        return replace(made(path), modified_milliseconds=now - (DAY // 2 if path == "/top.txt" else 10 * DAY))

    monkeypatch.setattr(tree, "made", aged)
    assert shoal("find", "--type", "f", "--newer", "1d").stdout == "/top.txt\n"
    assert shoal("find", "--type", "f", "--older", "1d").stdout == "/a/deep/x.txt\n/a/one.jpg\n"
    assert shoal("find", "--newer", "1d", "--older", "2h", "--json").stdout.count("\n") == 1


def test_find_0_leaves_a_path_as_it_is_for_xargs(shoal, client):
    client.files = {"/a\nb": b"", "/c": b""}
    assert shoal("find", "-0").stdout == "/a\nb\0/c\0"
    assert shoal("find").stdout == "/a\\nb\n/c\n"
    assert shoal("find", "-0", "--json").exit_code == 2


@pytest.mark.parametrize("option", ["--larger", "--smaller", "--newer", "--older", "--type"])
def test_what_find_cannot_read_is_wrong_usage_in_one_line(shoal, client, option):
    result = shoal("find", option, "soon")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert option in result.stderr


@pytest.mark.parametrize("option", ["--larger", "--smaller", "--newer", "--older", "--type"])
def test_an_empty_value_is_no_value_and_chooses_nothing(shoal, client, option):
    client.files = {"/kept": b""}
    result = shoal("find", option, "", "-0")  # "$AGE", where nobody has set it, before an `xargs shoal rm`
    assert (result.exit_code, result.stdout) == (2, "")


def test_an_empty_pattern_matches_no_name(shoal, client):
    client.files = {"/kept": b""}
    result = shoal("find", "--name", "")
    assert (result.exit_code, result.stdout) == (0, "")


def test_moments_are_ages_or_local_times():
    now = datetime(2026, 3, 1, 12)
    assert moment_of("2d", now) == moment_of("48h", now) == moment_of("2026-02-27 12:00", now)
    assert moment_of("1w", now) == moment_of("2026-02-22T12:00", now)
    assert moment_of("2026-03-01", now) == now.timestamp() * 1000 - DAY / 2
    for text in ("", "2", "d", "-1d", "2 days", "2026-13-01", "0001-01-01x"):
        with pytest.raises(ValueError):
            moment_of(text, now)
