"""The blocking client, on a small real cluster: file objects as the standard library uses them, threads, interrupts, the end."""

import asyncio
import csv
import gc
import io
import os
import signal
import socket
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from random import Random

import pytest

import peer
from peer.client.blocking import BlockingClient, LoopThread
from peer.real.keys import new_key

MIB = 1024 * 1024
SECONDS = 20.0


@pytest.fixture(scope="module")
def client(cluster) -> Iterator[BlockingClient]:
    with peer.connect(cluster.addresses, key=cluster.key) as connected:
        yield connected


def test_every_operation_has_its_blocking_twin(client: BlockingClient, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"content")
    counts: list[int] = []
    result = client.put_file(tmp_path / "local", "/twin/a", on_progress=counts.append)
    assert (result.path, result.size, result.copies, sum(counts)) == ("/twin/a", 7, 3, 7)
    assert client.put_bytes("/twin/b", memoryview(b"bytes")).size == 5
    assert client.get_file("/twin/b", tmp_path / "copy").version == client.entry("/twin/b").version
    assert (tmp_path / "copy").read_bytes() == b"bytes"
    assert client.get_bytes("/twin/a", 1, 3) == b"on"
    assert client.exists("/")
    assert client.exists("/twin")
    assert not client.exists("/twin/c")
    client.make_directory("/twin/deep/er")
    assert client.copy("/twin/a", "/twin/deep/copy").size == 7
    client.move("/twin/b", "/twin/deep/moved")
    listed = ["/twin/a", "/twin/deep", "/twin/deep/copy", "/twin/deep/er", "/twin/deep/moved"]
    assert [entry.path for entry in client.list("/twin", recursive=True)] == listed
    assert client.stat("/twin/a").copies == 3
    assert list(client.where("/twin/a")) == []
    assert {member.name for member in client.status().members} == {"ada", "ben", "cleo"}
    with pytest.raises(peer.AlreadyThere):
        client.remove("/twin")
    assert client.remove("/twin", recursive=True) == 6
    with pytest.raises(peer.NoSuchPath):
        client.open("/twin/a")


def test_who_watches_is_told_what_a_call_waits_for_in_the_thread_of_the_client() -> None:
    class Waiter(peer.Client):
        async def get_bytes(self, path: str, begin: int = 0, end: int | None = None) -> bytes:
            self.on_wait(f"waiting for {path}")
            return b""

    said: list[tuple[str, str]] = []
    loop = LoopThread()
    try:
        client = BlockingClient(loop.call(lambda: Waiter(None)), loop)
        client.get_bytes("/unwatched")
        client.on_wait = lambda text: said.append((text, threading.current_thread().name))
        client.get_bytes("/f")
        client.on_wait("said")
    finally:
        loop.close()
    assert said == [("waiting for /f", "shoal client"), ("said", threading.current_thread().name)]


def test_a_file_object_reads_and_seeks_like_one_of_this_machine(client: BlockingClient) -> None:
    choice = Random(1)
    data = choice.randbytes(9 * MIB + 17)
    client.put_bytes("/object", data)
    reference = io.BytesIO(data)
    with client.open("/object") as file:
        assert file.seekable()
        for _ in range(40):
            match choice.randrange(4):
                case 0:
                    place = (choice.randrange(len(data) + 1000), io.SEEK_SET)
                    assert file.seek(*place) == reference.seek(*place)
                case 1:
                    place = (-choice.randrange(100_000), io.SEEK_END)
                    assert file.seek(*place) == reference.seek(*place)
                case _:
                    count = choice.randrange(600_000)
                    assert file.read(count) == reference.read(count)
            assert file.tell() == reference.tell()
        assert file.read() == reference.read()
        with pytest.raises(ValueError, match="negative"):
            file.seek(-1)
    with pytest.raises(ValueError, match="closed"):
        file.read(1)


def test_archives_and_tables_are_written_to_the_cluster_and_read_from_it(client: BlockingClient) -> None:
    members = {f"folder/{index}": os.urandom(index * 50_000) for index in range(12)}
    with client.create("/archive.zip") as target, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with client.open("/archive.zip") as source, zipfile.ZipFile(source) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in reversed(archive.namelist())} == members
    for mode in ("w|", "w", "w:gz"):
        with client.create("/archive.tar") as target, tarfile.open(fileobj=target, mode=mode) as tar:
            tar.addfile(tarfile.TarInfo("empty"))
        with client.open("/archive.tar") as source, tarfile.open(fileobj=source) as tar:
            assert tar.getnames() == ["empty"]
    with client.create("/lines") as target:
        target.writelines([b"one\n", b"two\n"])
        assert target.tell() == 8
    assert client.get_bytes("/lines") == b"one\ntwo\n"
    rows = [[str(number), f"é {number}"] for number in range(5000)]
    with client.create("/table.csv") as target, io.TextIOWrapper(target, encoding="utf-8", newline="") as text:
        csv.writer(text).writerows(rows)
    with client.open("/table.csv") as source, io.TextIOWrapper(source, encoding="utf-8", newline="") as text:
        assert list(csv.reader(text)) == rows


def test_what_fails_half_way_or_is_never_closed_is_not_there(client: BlockingClient) -> None:
    def fail_half_way() -> None:
        with client.create("/half") as target, io.TextIOWrapper(target, encoding="utf-8") as text:
            text.write("x" * 100_000)
            raise KeyError  # the wrapper closes what it wraps all the same

    with pytest.raises(KeyError):
        fail_half_way()
    client.create("/forgotten").write(b"x")
    gc.collect()
    with client.create("/given up") as given_up:
        given_up.write(b"x")
        given_up.abort()
    aborted = client.create("/aborted")
    aborted.write(b"x")
    with pytest.raises(ValueError, match="not there yet"):
        assert aborted.result
    aborted.abort()
    for use in (lambda: aborted.write(b"x"), aborted.close, lambda: aborted.result):
        with pytest.raises(ValueError, match=r"closed|given up"):
            use()
    assert [name for name in ("/half", "/forgotten", "/given up", "/aborted") if client.exists(name)] == []


def test_a_file_that_is_written_appears_at_the_end_of_its_block_or_when_it_is_closed(client: BlockingClient) -> None:
    with client.create("/block") as target:
        target.write(b"con")
        target.write(bytearray(b"tent"))
        assert not client.exists("/block")
    assert client.get_bytes("/block") == b"content"
    assert (target.result.version, target.result.size) == (client.entry("/block").version, 7)
    target = client.create("/block")
    target.close()
    assert target.closed
    assert client.get_bytes("/block") == b""


def test_several_threads_use_one_client(client: BlockingClient) -> None:
    def use(number: int) -> None:
        data = bytes([number]) * (200_000 + number)
        client.put_bytes(f"/threads/{number}", data)
        with client.open(f"/threads/{number}") as file:
            assert file.read() == data

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(24)))
    assert len(list(client.list("/threads"))) == 24


def test_a_listing_is_read_in_portions_and_may_be_left_early(client: BlockingClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.client.blocking.LISTED_AT_ONCE", 4)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: client.put_bytes(f"/portions/{number}", b"x"), range(10)))
    assert [entry.name for entry in client.list("/portions")] == [str(number) for number in range(10)]
    assert next(client.list("/portions")).name == "0"


def test_an_interrupt_ends_the_call_and_cancels_what_it_waited_for() -> None:
    loop = LoopThread()
    cancelled = threading.Event()

    async def wait_for_ever() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    timer = threading.Timer(0.3, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        loop.run(wait_for_ever())
    assert cancelled.wait(SECONDS)
    loop.close()


def test_an_interrupted_put_leaves_the_client_usable_and_the_old_file(client: BlockingClient) -> None:
    client.put_bytes("/interrupted", b"before")
    timer = threading.Timer(0.3, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT))

    def write_for_ever() -> None:
        with client.create("/interrupted") as target:
            timer.start()
            while True:
                target.write(os.urandom(100_000))

    with pytest.raises(KeyboardInterrupt):
        write_for_ever()
    assert client.get_bytes("/interrupted") == b"before"


def test_a_closed_client_says_so_and_its_files_close_without_a_sound(cluster, recwarn: pytest.WarningsRecorder) -> None:
    with peer.connect(cluster.addresses, key=cluster.key) as client:
        client.put_bytes("/open", bytes(MIB))
        file = client.open("/open")
        file.read(10)
        writer = client.create("/never")
        entries = client.list("/")
        thread_ended = threading.Event()

        def wait() -> None:
            with pytest.raises(peer.WrongUsage, match="closed"):
                client._loop.run(asyncio.sleep(3600))
            thread_ended.set()

        threading.Thread(target=wait, daemon=True).start()
    assert thread_ended.wait(SECONDS)
    for use in (lambda: client.get_bytes("/open"), lambda: writer.write(b"x"), lambda: next(entries)):
        with pytest.raises(peer.WrongUsage, match="closed"):
            use()
    file.close()
    assert file.closed
    gc.collect()
    assert not [str(warning.message) for warning in recwarn if issubclass(warning.category, RuntimeWarning | ResourceWarning)]


def test_what_is_no_path_at_all_is_a_type_error(client: BlockingClient) -> None:
    for path in (None, b"/bytes", 3, PurePosixPath("/a")):
        for use in (client.get_bytes, client.exists, lambda path: next(client.list(path)), lambda path: client.copy("/a", path)):
            with pytest.raises(TypeError, match="a path is a str"):
                use(path)
    for spelling in ("/", "//"):
        assert client.exists(spelling)
    with pytest.raises(peer.WrongUsage, match="begins with /"):
        client.exists("")


def test_a_callback_that_uses_the_client_is_told_that_it_cannot(client: BlockingClient) -> None:
    with pytest.raises(RuntimeError, match="callback"):
        client.put_file(__file__, "/callback", on_progress=lambda count: client.exists("/"))
    assert not client.exists("/callback")


def test_connecting_says_in_one_line_what_is_wrong(cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOAL_KEY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        nobody = f"127.0.0.1:{silent.getsockname()[1]}"
        faults = [
            (peer.NotAllowed, {"home": tmp_path}),
            (peer.ShoalError, {"home": Path(__file__)}),
            (peer.WrongUsage, {"key": "no key"}),
            (peer.WrongUsage, {"key": cluster.key, "node": "nonsense"}),
            (peer.NotAllowed, {"key": new_key().text, "node": cluster.addresses}),
            (peer.Unavailable, {"key": cluster.key, "node": [nobody, "no-such-host.invalid:7400", "127.0.0.1:1"]}),
        ]
        for kind, arguments in faults:
            with pytest.raises(kind) as error, peer.connect(**arguments):
                pass
            assert "\n" not in str(error.value)
            assert len(str(error.value)) < 600
        with peer.connect([nobody, "127.0.0.1:1", cluster.addresses[1]], key=cluster.key) as client:
            assert client.exists("/")
