"""Files to and from a running node, by processes of their own: what `get` leaves behind is the file, or it says so."""

import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_up import MODULE_SECONDS, environment, shoal, up  # it lies beside this one

SIZE = 10_000_000
"""More than one chunk, and no whole number of them."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, bytes]]:
    """The home of a node that runs, and the content of `/big` in it; `/small` is `hello`."""
    folder = tmp_path_factory.mktemp("served")
    content = os.urandom(SIZE)
    (folder / "big").write_bytes(content)
    (folder / "small").write_bytes(b"hello")
    with up(folder / "home", seconds=MODULE_SECONDS) as node:
        node.ready()
        assert shoal(folder / "home", "put", str(folder / "big"), str(folder / "small"), "/").returncode == 0
        yield folder / "home", content


def partial_of(home: Path, remote: str, target: Path) -> Path:
    """Return where a get keeps what it has so far."""
    version = shoal(home, "stat", remote).stdout.split("version:")[1].split()[0]
    return target.with_name(f".{target.name}.{version}.part")


@pytest.mark.parametrize("kept", [0, 300_000, SIZE - 1])
def test_a_partial_file_with_wrong_bytes_never_becomes_the_target(served: tuple[Path, bytes], tmp_path: Path, kept: int) -> None:
    home, content = served
    partial_of(home, "/big", tmp_path / "big").write_bytes(content[:kept] + bytes(SIZE - kept))
    assert shoal(home, "get", "/big", str(tmp_path / "big")).returncode == 0
    assert (tmp_path / "big").read_bytes() == content
    assert os.listdir(tmp_path) == ["big"]


@pytest.mark.parametrize("partial", [b"he", b"hellooo", b"xxxxx", b""])
def test_a_partial_small_file_is_compared_with_the_row(served: tuple[Path, bytes], tmp_path: Path, partial: bytes) -> None:
    home, _ = served
    partial_of(home, "/small", tmp_path / "small").write_bytes(partial)
    assert shoal(home, "get", "/small", str(tmp_path / "small")).returncode == 0
    assert (tmp_path / "small").read_bytes() == b"hello"


def test_of_two_gets_to_one_target_at_once_none_spoils_the_other(served: tuple[Path, bytes], tmp_path: Path) -> None:
    home, content = served
    command = [sys.executable, "-m", "peer.cli", "--home", str(home), "get", "/big", str(tmp_path / "big")]
    gets = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()) for _ in range(4)]
    ends = [(get.communicate(timeout=60)[1], get.returncode) for get in gets]
    assert (tmp_path / "big").read_bytes() == content
    assert 0 in [code for _, code in ends]
    for err, code in ends:
        assert (code, err) == (0, "") or (code == 1 and "another get" in err and err.count("\n") == 1), (code, err)
    assert os.listdir(tmp_path) == ["big"]


def test_a_get_says_that_another_one_has_the_partial_file(served: tuple[Path, bytes], tmp_path: Path) -> None:
    home, content = served
    with partial_of(home, "/big", tmp_path / "big").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused = shoal(home, "get", "/big", str(tmp_path / "big"))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "another get" in refused.stderr
    assert shoal(home, "get", "/big", str(tmp_path / "big")).returncode == 0
    assert (tmp_path / "big").read_bytes() == content


def test_get_follows_a_symbolic_link_and_replaces_what_it_points_at(served: tuple[Path, bytes], tmp_path: Path) -> None:
    home, _ = served
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "old").write_bytes(b"old content")
    for name, points_at in (("link", "there/old"), ("dangling", "there/new"), ("twice", "link")):
        (tmp_path / name).symlink_to(points_at)
        assert shoal(home, "get", "/small", str(tmp_path / name)).returncode == 0
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_bytes() == b"hello"
    assert sorted(os.listdir(tmp_path / "there")) == ["new", "old"]


def test_a_link_that_leads_to_itself_is_one_line(served: tuple[Path, bytes], tmp_path: Path) -> None:
    home, _ = served
    (tmp_path / "loop").symlink_to("loop")
    refused = shoal(home, "get", "/small", str(tmp_path / "loop"))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "loop" in refused.stderr


def test_get_writes_through_to_a_fifo(served: tuple[Path, bytes], tmp_path: Path) -> None:
    home, content = served
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "read").open("wb") as read, subprocess.Popen(["cat", str(tmp_path / "fifo")], stdout=read) as reader:
        try:
            assert shoal(home, "get", "/big", str(tmp_path / "fifo")).returncode == 0
            assert (tmp_path / "fifo").is_fifo()
            assert reader.wait(timeout=20) == 0
        finally:
            reader.kill()
    assert (tmp_path / "read").read_bytes() == content


def device(folder: Path, name: str) -> Path:
    """Return a device like /dev/NAME which a get may spoil: root's own copy, and for anybody else the one that is not his to replace."""
    try:
        os.mknod(folder / name, stat.S_IFCHR | 0o666, Path("/dev", name).stat().st_rdev)
        (folder / name).open("wb").close()
    except PermissionError:
        if os.geteuid() == 0:
            pytest.skip("root may make no device here")
        return Path("/dev", name)
    return folder / name


def test_get_writes_through_to_a_device_and_says_in_one_line_what_it_refuses(served: tuple[Path, bytes], tmp_path: Path) -> None:
    home, _ = served
    null, full = device(tmp_path, "null"), device(tmp_path, "full")
    assert shoal(home, "get", "/small", str(null)).returncode == 0
    assert null.is_char_device()
    refused = shoal(home, "get", "/small", str(full))
    assert full.is_char_device()
    assert refused.returncode == 1
    assert refused.stderr == f"shoal: {full}: cannot write it: No space left on device\n"


def test_what_is_in_the_way_as_a_folder_is_said_before_anything_is_fetched(served: tuple[Path, bytes], tmp_path: Path) -> None:
    home, _ = served
    (tmp_path / "out" / "small").mkdir(parents=True)
    refused = shoal(home, "get", "/small", str(tmp_path / "out"))
    assert refused.returncode == 1
    assert "is a folder" in refused.stderr
    assert os.listdir(tmp_path / "out") == ["small"]


def test_cat_of_a_folder_says_how_to_get_what_is_in_it(served: tuple[Path, bytes]) -> None:
    home, _ = served
    assert shoal(home, "mkdir", "/folder").returncode == 0
    refused = shoal(home, "cat", "/folder")
    assert refused.returncode == 2
    assert refused.stderr == "shoal: /folder is a folder: name a file in it, or fetch it with `shoal get -r`\n"
