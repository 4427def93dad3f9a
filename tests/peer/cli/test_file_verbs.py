"""The verbs of a user, with a client that keeps its files in memory."""

import asyncio
import errno
import json
import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cli_fakes import FakeClient

from peer.cli.progress import Transfer
from peer.client.local_files import partial_path, put_file
from peer.errors import AlreadyThere, DataLost, NotAllowed, OutcomeUnknown, ShoalError, Unavailable, WrongUsage


def test_put_stores_a_file_and_says_version_size_and_copies(shoal, client, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"hello")
    result = shoal("put", str(tmp_path / "a.txt"), "/docs/a.txt")
    assert result.exit_code == 0
    assert client.files == {"/docs/a.txt": b"hello"}
    assert result.stdout == "/docs/a.txt  version abcd1234.17  5 B  copies=3\n"


def test_put_json_is_one_line_per_file_and_nothing_else(shoal, client, tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(b"12")
    result = shoal("put", "--json", str(tmp_path / "a"), str(tmp_path / "b"), "/in")
    documents = [json.loads(line) for line in result.stdout.splitlines()]
    assert sorted(document.pop("path") for document in documents) == ["/in/a", "/in/b"]
    assert documents == [{"version": "abcd1234.17", "size": 2, "copies": 3}] * 2
    assert result.stderr == ""


@pytest.mark.parametrize("remote", ["/docs", "/docs/"])
def test_a_file_goes_into_a_folder(shoal, client, tmp_path, remote):
    client.folders = ["/docs"]
    (tmp_path / "a.txt").write_bytes(b"x")
    assert shoal("put", str(tmp_path / "a.txt"), remote).exit_code == 0
    assert list(client.files) == ["/docs/a.txt"]


def test_a_folder_becomes_the_remote_so_that_a_repeated_put_does_the_same_again(shoal, client, tmp_path):
    tree = tmp_path / "tree"
    (tree / "deep" / "empty").mkdir(parents=True)
    (tree / "one").write_bytes(b"1")
    (tree / "deep" / "two").write_bytes(b"2")
    for _ in range(2):
        assert shoal("put", "-r", str(tree), "/t").exit_code == 0
        assert client.files == {"/t/one": b"1", "/t/deep/two": b"2"}
    assert set(client.folders) == {"/t/deep/empty"}


def test_a_folder_needs_r(shoal, client, tmp_path):
    result = shoal("put", str(tmp_path), "/t")
    assert result.exit_code == 2
    assert "-r" in result.stderr


def test_what_is_neither_file_nor_folder_is_left_out_and_named(shoal, client, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to("/etc/passwd")
    result = shoal("put", "-r", str(tree), "/t")
    assert result.exit_code == 0
    assert str(tree / "link") in result.stderr
    assert not client.files


def test_a_local_file_that_does_not_exist_is_exit_3_before_anything_is_stored(shoal, client, tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    assert shoal("put", str(tmp_path / "a"), str(tmp_path / "b"), "/in").exit_code == 3
    assert not client.files


def test_a_file_that_changes_while_it_is_put_fails_and_is_not_stored(shoal, client, tmp_path, monkeypatch):
    path = tmp_path / "growing"
    path.write_bytes(bytes(10_000))
    put = client.put

    async def slow_put(remote, read, **options):
        async def growing_read(count):
            data = await read(count)
            with path.open("ab") as file:
                file.write(b"more")
            return data

        return await put(remote, growing_read, **options)

    monkeypatch.setattr(client, "put", slow_put)
    result = shoal("put", str(path), "/growing")
    assert result.exit_code == 1
    assert "changed while it was read" in result.stderr
    assert not client.files


def test_get_writes_the_file_with_its_mode_and_time_and_leaves_nothing_else(shoal, client, tmp_path):
    client.files = {"/a/b.txt": b"content"}
    target = tmp_path / "out"
    result = shoal("get", "/a/b.txt", str(target))
    assert result.exit_code == 0
    assert target.read_bytes() == b"content"
    assert target.stat().st_mode & 0o777 == 0o640
    assert target.stat().st_mtime == pytest.approx(1_700_000_000.123, abs=0.001)
    assert list(tmp_path.iterdir()) == [target]


def test_get_goes_on_where_an_interrupted_one_ended(shoal, client, tmp_path):
    client.files = {"/a": b"0123456789"}
    partial_path(tmp_path / "a", "abcd1234.17").write_bytes(b"0123")
    assert shoal("get", "/a", str(tmp_path / "a")).exit_code == 0
    assert client.begins == [4]
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_get_takes_of_an_interrupted_one_only_what_is_right_and_counts_it_as_done(shoal, client, tmp_path, monkeypatch):
    client.files = {"/a": b"0123456789"}
    partial_path(tmp_path / "a", "abcd1234.17").write_bytes(b"01234xxx" * 100)
    seen = []

    @contextmanager
    def transfer(self, title):
        seen.append(Transfer(title))
        yield seen[0]

    monkeypatch.setattr("peer.cli.output.Output.transfer", transfer)
    get = client.get

    async def get_and_tell(path, write, *, on_progress, begin):
        assert (seen[0].done_bytes, seen[0].rate.bytes_per_second) == (4, 0)  # what was there is done, but not fast
        on_progress(6)
        return await get(path, write, begin=begin)

    monkeypatch.setattr(client, "get", get_and_tell)
    assert shoal("get", "/a", str(tmp_path / "a")).exit_code == 0
    assert (seen[0].done_files, seen[0].done_bytes, seen[0].expected_bytes) == (1, 10, 10)
    assert client.begins == [4]
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_a_file_that_is_there_whole_is_verified_and_not_fetched_again(shoal, client, tmp_path):
    client.files = {"/a": b"0123456789"}
    assert shoal("get", "/a", str(tmp_path / "a")).exit_code == 0
    before = (tmp_path / "a").stat()
    assert shoal("get", "/a", str(tmp_path / "a")).exit_code == 0
    assert client.begins == [0]
    assert (tmp_path / "a").stat().st_ino == before.st_ino
    (tmp_path / "a").write_bytes(b"012345678x")
    os.utime(tmp_path / "a", ns=(before.st_atime_ns, before.st_mtime_ns))  # as a disk damages it
    assert shoal("get", "/a", str(tmp_path / "a")).exit_code == 0
    assert client.begins == [0, 0]
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_a_read_only_file_is_fetched_with_its_mode(shoal, client, tmp_path, monkeypatch):
    client.files = {"/a": b"x"}
    monkeypatch.setattr(client, "made", lambda path, entry=client.made: replace(entry(path), mode=0o444))
    assert shoal("get", "/a", str(tmp_path / "a")).exit_code == 0
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o444


def test_long_names_in_one_folder_never_share_a_partial_file(tmp_path):
    one, two = partial_path(tmp_path / ("é" * 120 + "1"), "abcd1234.1"), partial_path(tmp_path / ("é" * 120 + "2"), "abcd1234.1")
    assert one != two
    assert max(len(one.name.encode()), len(two.name.encode())) <= 255


def test_get_does_not_build_on_what_it_has_of_another_version(shoal, client, tmp_path):
    client.files = {"/a": b"0123456789"}
    partial_path(tmp_path / "a", "ffffffff.1").write_bytes(b"xxxx")
    assert shoal("get", "/a", str(tmp_path / "a")).exit_code == 0
    assert client.begins == [0]
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_a_failed_get_leaves_the_old_target_as_it_was(shoal, client, tmp_path, monkeypatch):
    client.files = {"/a": b"new"}
    (tmp_path / "a").write_bytes(b"old")

    async def broken_get(path, write, **options):
        await write(b"n")
        raise Unavailable("gone")

    monkeypatch.setattr(client, "get", broken_get)
    assert shoal("get", "/a", str(tmp_path / "a")).exit_code == 4
    assert (tmp_path / "a").read_bytes() == b"old"


def test_get_r_fetches_a_tree(shoal, client, tmp_path):
    client.folders = ["/t", "/t/deep", "/t/empty"]
    client.files = {"/t/one": b"1", "/t/deep/two": b"2"}
    assert shoal("get", "-r", "/t", str(tmp_path / "out")).exit_code == 0
    assert (tmp_path / "out" / "one").read_bytes() == b"1"
    assert (tmp_path / "out" / "deep" / "two").read_bytes() == b"2"
    assert (tmp_path / "out" / "empty").is_dir()


def test_one_bad_file_of_many_is_reported_and_the_others_arrive(shoal, client, tmp_path, monkeypatch):
    client.folders = ["/t"]
    client.files = {f"/t/{number}": b"x" for number in range(20)}
    get = client.get

    async def sometimes_broken(path, write, **options):
        if path == "/t/7":
            raise DataLost("/t/7: every member was asked and none has an intact copy")
        return await get(path, write, **options)

    monkeypatch.setattr(client, "get", sometimes_broken)
    result = shoal("get", "-r", "/t", str(tmp_path / "out"))
    assert result.exit_code == 7
    assert result.stderr.count("\n") == 1
    assert len([path for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")]) == 19


def test_cat_writes_the_bytes_of_a_range_both_ends_included(shoal, client, capfd):
    client.files = {"/a": b"0123456789"}
    assert shoal("cat", "--range", "2-4", "/a").exit_code == 0
    assert capfd.readouterr().out == "234"


@pytest.mark.parametrize("text", ["4-2", "x", "-5", "1-2-3", ""])
def test_a_range_that_is_none_is_wrong_usage(shoal, client, text):
    assert shoal("cat", f"--range={text}", "/a").exit_code == 2


def test_ls_marks_folders_and_ls_json_has_the_agreed_shape(shoal, client):
    client.folders, client.files = ["/a"], {"/b": b"12"}
    assert shoal("ls").stdout == "a/\nb\n"
    documents = [json.loads(line) for line in shoal("ls", "--json").stdout.splitlines()]
    assert [document["type"] for document in documents] == ["dir", "file"]
    assert {"path", "name", "type", "size", "modified", "version"} <= documents[1].keys()
    assert documents[1]["path"] == "/b"


def test_ls_l_shows_mode_size_and_version(shoal, client):
    client.files = {"/b": b"12"}
    line = shoal("ls", "-l", "/").stdout
    assert line.startswith("-rw-r-----")
    assert "abcd1234.17" in line
    assert line.endswith("  b\n")


def test_stat_and_where_have_the_agreed_shapes(shoal, client):
    client.files = {"/b": b"12"}
    assert {"chunks", "copies", "writer", "version"} <= json.loads(shoal("stat", "/b", "--json").stdout).keys()
    place = json.loads(shoal("where", "/b", "--json").stdout)
    assert place == {"index": 0, "hash": "01" + "00" * 31 + "ff", "size": 1024, "nodes": ["ada", "ben", "cleo"]}


def test_rm_removes_and_mkdir_makes(shoal, client):
    client.files = {"/b": b"12"}
    assert shoal("rm", "/b").exit_code == 0
    assert not client.files
    assert shoal("mkdir", "/new").exit_code == 0
    assert shoal("mkdir", "/new").exit_code == 5


@pytest.mark.parametrize(
    ("failure", "code", "name"),
    [
        (ShoalError("no"), 1, "failed"),
        (Unavailable("no"), 4, "unavailable"),
        (AlreadyThere("no"), 5, "conflict"),
        (OutcomeUnknown("no"), 6, "outcome-unknown"),
        (DataLost("no"), 7, "lost"),
        (NotAllowed("no"), 8, "not-allowed"),
    ],
)
def test_every_error_is_one_line_and_its_exit_code(shoal, client, failure, code, name):
    client.failure = failure
    result = shoal("ls")
    assert result.exit_code == code
    assert result.stderr == "shoal: no\n"
    result = shoal("ls", "--json")
    assert result.exit_code == code
    assert result.stdout == ""
    assert json.loads(result.stderr) == {"error": "no", "code": name, "detail": {"exit_code": code}}


def test_a_path_that_does_not_exist_is_exit_3(shoal, client):
    assert shoal("stat", "/nowhere").exit_code == 3


@pytest.mark.parametrize("path", ["/a/../b", "relative", "/" + "x" * 256, "/" + "x/" * 3000, "/a\0b"])
@pytest.mark.parametrize("verb", ["ls", "stat", "cat", "rm", "mkdir", "where", "du", "find"])
def test_a_bad_path_is_refused_before_anything_is_asked(shoal, client, verb, path):
    client.failure = Unavailable("it was asked")
    assert shoal(verb, path).exit_code == 2


def test_a_bug_is_one_line_without_a_traceback(shoal, client, monkeypatch):
    async def buggy(path):
        raise KeyError("oops")

    monkeypatch.setattr(client, "stat", buggy)
    result = shoal("stat", "/a")
    assert result.exit_code == 1
    assert result.stderr.startswith("shoal: a bug in shoal: KeyError")
    assert result.stderr.count("\n") == 1


def test_put_r_goes_on_after_a_bad_name_and_names_it_once(shoal, client, tmp_path):
    tree = tmp_path / "tree"
    (tree / "b\udcff").mkdir(parents=True)
    for name in ("a", "a\udcff", "z", "b\udcff/inside"):
        (tree / name).write_bytes(b"x")
    result = shoal("put", "-r", str(tree), "/t")
    assert result.exit_code == 2
    assert sorted(client.files) == ["/t/a", "/t/z"]
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    for line, name in zip(sorted(lines), "ab", strict=True):
        assert line.count(f"{tree}/{name}\\") == line.count("ff:") == 1
        assert "UTF-8" in line


def test_put_goes_on_after_an_operand_with_a_bad_name(shoal, client, tmp_path):
    (tmp_path / "a\udcff").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"x")
    result = shoal("put", str(tmp_path / "a\udcff"), str(tmp_path / "b"), "/in")
    assert result.exit_code == 2
    assert list(client.files) == ["/in/b"]
    assert result.stderr.count("\n") == result.stderr.count("ff:") == 1


def test_put_r_goes_on_after_a_folder_that_cannot_be_read(shoal, client, tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    for name in ("a", "locked", "z"):
        (tree / name).mkdir(parents=True)
        (tree / name / "file").write_bytes(b"x")
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr("peer.cli.transfer.os.scandir", guarded)
    result = shoal("put", "-r", str(tree), "/t")
    assert result.exit_code == 1
    assert sorted(client.files) == ["/t/a/file", "/t/z/file"]
    assert result.stderr == f"shoal: {tree / 'locked'}: cannot read it: Permission denied\n"


def test_get_r_goes_on_after_a_folder_that_cannot_be_made(shoal, client, tmp_path):
    client.folders = ["/t", "/t/a", "/t/a/deep"]
    client.files = {"/t/a/deep/one": b"1", "/t/a/two": b"2", "/t/b": b"3"}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_bytes(b"in the way")
    result = shoal("get", "-r", "/t", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert (tmp_path / "out" / "b").read_bytes() == b"3"
    assert result.stderr.count("\n") == 1
    assert str(tmp_path / "out" / "a") in result.stderr


def test_rm_goes_on_after_a_path_that_is_not_there(shoal, client):
    client.files = {"/a": b"1", "/b": b"2"}
    result = shoal("rm", "/a", "/nope", "/b")
    assert result.exit_code == 3
    assert not client.files
    assert result.stdout == "removed /a\nremoved /b\n"
    assert result.stderr == "shoal: /nope: no such file or folder\n"


EVIL = "/ev\nil\x1b[31m:cat:"
SHOWN = "/ev\\nil\\x1b[31m:cat:"


@pytest.mark.parametrize(
    "arguments",
    [("ls",), ("ls", "-l"), ("ls", "-R"), ("stat", EVIL), ("where", EVIL), ("get", EVIL, "TARGET"), ("rm", EVIL), ("mkdir", EVIL + "2")],
)
def test_a_name_can_neither_forge_a_line_nor_reach_the_terminal(shoal, client, tmp_path, monkeypatch, arguments):
    client.files = {EVIL: b"12"}
    monkeypatch.setattr(client, "made", lambda path, entry=client.made: replace(entry(path), writer="mallory\x1b"))
    result = shoal(*(str(tmp_path / "t\n\x1b") if each == "TARGET" else each for each in arguments))
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert "\nil" not in result.output
    if arguments[0] != "where":
        assert SHOWN[1:] in result.stdout


def test_a_note_an_error_and_a_warning_show_a_name_escaped(shoal, client, tmp_path, monkeypatch):
    async def nothing(path):
        for place in ():
            yield place

    monkeypatch.setattr(client, "where", nothing)
    assert shoal("where", EVIL).stderr.startswith(f"{SHOWN} has no chunks")
    assert shoal("stat", EVIL).stderr == f"shoal: {SHOWN}: no such file or folder\n"
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / EVIL[1:]).symlink_to("nowhere")
    warned = shoal("put", "-r", str(tmp_path / "tree"), "/t").stderr
    assert SHOWN in warned
    assert warned.count("\n") == 1
    (tmp_path / "tree" / EVIL[1:]).unlink()
    (tmp_path / "tree" / EVIL[1:]).write_bytes(b"x")
    assert SHOWN in shoal("put", "-r", str(tmp_path / "tree"), "/t").stdout


def test_json_has_names_as_they_are(shoal, client, tmp_path):
    client.files = {EVIL: b"12"}
    assert json.loads(shoal("ls", "--json").stdout)["path"] == EVIL
    assert EVIL + "2: no" in json.loads(shoal("stat", EVIL + "2", "--json").stderr)["error"]
    target = str(tmp_path / "t\udcff")
    assert json.loads(shoal("get", EVIL, target, "--json").stdout)["local"] == target


def test_a_symbolic_link_in_a_folder_is_called_one(shoal, client, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to("/etc")
    os.mkfifo(tmp_path / "tree" / "pipe")
    result = shoal("put", "-r", str(tmp_path / "tree"), "/t")
    assert result.exit_code == 0
    assert f"{tmp_path / 'tree' / 'link'} is a symbolic link: left out\n" in result.stderr
    assert f"{tmp_path / 'tree' / 'pipe'} is neither file nor folder: left out\n" in result.stderr


def test_help_says_what_put_leaves_out_and_when_rm_refuses(shoal):
    assert "Symbolic links and devices in a folder are left out" in " ".join(shoal("put", "--help").stdout.split())
    assert "concurrent versions is removed only after a put has resolved them" in " ".join(shoal("rm", "--help").stdout.split())


def test_cp_leaves_the_source_and_mv_does_not(shoal, client):
    client.files = {"/a": b"1"}
    assert shoal("cp", "/a", "/b").stdout == "/a -> /b  version abcd1234.18  1 B  copies=3\n"
    assert client.files == {"/a": b"1", "/b": b"1"}
    assert json.loads(shoal("mv", "/a", "/c", "--json").stdout) == {
        "path": "/c", "version": "abcd1234.18", "size": 1, "copies": 3, "source": "/a",
    }  # fmt: skip
    assert client.files == {"/b": b"1", "/c": b"1"}


@pytest.mark.parametrize(
    ("operands", "places"),
    [
        (("/a", "/folder"), ["/folder/a"]),
        (("/a", "/new/"), ["/new/a"]),
        (("/a", "/d/b", "/new"), ["/new/a", "/new/b"]),
        (("/d/b", "/"), ["/b"]),
    ],
)
@pytest.mark.parametrize("verb", ["cp", "mv"])
def test_cp_and_mv_go_into_a_folder(shoal, client, verb, operands, places):
    client.folders = ["/folder", "/d"]
    client.files = {"/a": b"1", "/d/b": b"2"}
    assert shoal(verb, *operands).exit_code == 0
    assert set(places) <= client.files.keys()


def test_cp_and_mv_say_that_they_take_no_folders_and_do_the_rest(shoal, client):
    client.folders = ["/folder", "/to"]
    client.files = {"/a": b"1"}
    for verb in ("cp", "mv"):
        result = shoal(verb, "/folder", "/nope", "/a", "/to")
        assert result.exit_code in (2, 3)
        assert sorted(result.stderr.splitlines()) == [
            "shoal: /folder is a folder: cp and mv take single files for now",
            "shoal: /nope: no such file or folder",
        ]
    assert client.files == {"/to/a": b"1"}


@pytest.mark.parametrize("verb", ["cp", "mv", "get", "put"])
def test_two_sources_that_would_become_one_file_are_refused_before_one_of_them_is_lost(shoal, client, tmp_path, verb):
    client.files = {"/x/a": b"1", "/y/a": b"2"}
    sources = ["/x/a", "/y/a"]
    if verb == "put":
        sources = [str(tmp_path / source[1:]) for source in sources]
        for source in sources:
            Path(source).parent.mkdir()
            Path(source).touch()
    result = shoal(verb, *sources, str(tmp_path / "to") if verb == "get" else "/to/")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"shoal: {sources[0]} and {sources[1]} would both become a in ")
    assert result.stderr.count("\n") == 1
    assert client.files == {"/x/a": b"1", "/y/a": b"2"}
    assert not (tmp_path / "to").exists()


def test_links_are_put_under_their_own_names_and_clash_by_them(shoal, client, tmp_path):
    for number in "12":
        (tmp_path / f"target{number}").write_text(number)
        (tmp_path / number).mkdir()
        (tmp_path / number / "link").symlink_to(tmp_path / f"target{number}")
    clash = shoal("put", str(tmp_path / "1" / "link"), str(tmp_path / "2" / "link"), "/to/")
    assert (clash.exit_code, client.files) == (2, {})
    (tmp_path / "other").symlink_to(tmp_path / "target1")
    assert shoal("put", str(tmp_path / "1" / "link"), str(tmp_path / "other"), "/to/").exit_code == 0
    (tmp_path / "1" / "file").touch()
    (tmp_path / "folder").symlink_to(tmp_path / "1")
    assert shoal("put", "-r", str(tmp_path / "folder"), "/to/").exit_code == 0
    assert set(client.files) == {"/to/link", "/to/other", "/to/folder/file"}


COMPOSED, DECOMPOSED = "\u00e9", "e\u0301"
"""Two local names that are one remote name."""


def test_two_names_of_a_folder_that_are_one_in_the_cluster_are_one_line_and_neither_replaces_the_other(shoal, client, tmp_path):
    for folder in ("tree", COMPOSED, DECOMPOSED):
        (tmp_path / folder).mkdir()
    for name in (DECOMPOSED, COMPOSED, "x"):
        (tmp_path / "tree" / name).write_text(name)
    result = shoal("put", "-r", str(tmp_path / "tree"), "/tree")
    assert result.exit_code == 2
    assert result.stderr == (
        f"shoal: {tmp_path}/tree/{DECOMPOSED} and {tmp_path}/tree/{COMPOSED} would both become /tree/{COMPOSED} "
        "(they differ in how a letter is written): rename one\n"
    )
    assert client.files == {"/tree/x": b"x", f"/tree/{COMPOSED}": DECOMPOSED.encode()}
    assert shoal("put", "-r", str(tmp_path / COMPOSED), str(tmp_path / DECOMPOSED), "/to").exit_code == 2


@pytest.mark.parametrize("options", [(), ("-r",)])
def test_an_empty_operand_is_no_file_and_not_the_folder_one_is_in(shoal, client, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").touch()
    result = shoal("put", *options, "", "/to")  # "$DIR", where nobody has set it
    assert (result.exit_code, result.stderr) == (3, "shoal: '': no such local file\n")
    assert client.files == {}


def test_a_pipe_given_by_name_is_refused_and_not_waited_for(shoal, client, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    result = shoal("put", str(tmp_path / "pipe"), "/pipe")
    assert result.exit_code == 2
    assert result.stderr == f"shoal: {tmp_path / 'pipe'} is no regular file: use - and a pipe to store what it gives\n"


def test_a_file_that_became_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WrongUsage, match="no regular file"):
        asyncio.run(put_file(FakeClient(), tmp_path / "pipe", "/pipe", lambda count: None))


def test_quiet_leaves_errors_and_what_was_asked_for(shoal, client, tmp_path):
    client.folders = ["/d"]
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_bytes(b"1")
    (tmp_path / "tree" / "link").symlink_to("a")
    for command in (
        ("put", "-r", str(tmp_path / "tree"), "/t"), ("get", "/t/a", str(tmp_path / "a")), ("cp", "/t/a", "/b"), ("mv", "/b", "/c"),
        ("rm", "/c"), ("mkdir", "/e"), ("key", "new"),
    ):  # fmt: skip
        result = shoal("--quiet", *command)
        assert (result.exit_code, result.output) == (0, ""), command
    for command in (("ls", "/"), ("find",), ("du",), ("stat", "/t/a"), ("where", "/t/a"), ("key", "show")):
        assert shoal("--quiet", *command).stdout, command
    assert shoal("--quiet", "rm", "/nope").stderr == "shoal: /nope: no such file or folder\n"
    assert json.loads(shoal("--quiet", "--json", "rm", "/t/a").stdout)["removed"] == 1


@pytest.mark.parametrize("arguments", [("ls", "-lh"), ("du", "-sh")])
def test_the_h_of_habit_is_no_cry_for_help(shoal, client, arguments):
    client.files = {"/a": b"1"}
    result = shoal(*arguments)
    assert result.exit_code == 0
    assert "1 B" in result.stdout
    assert "Usage" not in result.stdout
