"""What a node tells systemd, with a socket in systemd's place."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_up import up  # it lies beside this one

import peer.cli.service_manager
from peer.cli.service_manager import ServiceManager
from peer.errors import NotAllowed, StorageFailed, WrongUsage
from peer.node import MembersChanged, Notice, Ready
from protocol.identity import NodeId

SECONDS = 20.0
READY = Ready("ada", NodeId(bytes(16)), "10.0.0.1:7400", 3)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """What NOTIFY_SOCKET says, and where it arrives."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@shoal-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(address.replace("@", "\0"))
        heard.settimeout(SECONDS)
        yield address, heard


def test_events_of_a_node_become_states_and_a_line_for_people(manager: tuple[str, socket.socket]) -> None:
    address, heard = manager
    told = ServiceManager({"NOTIFY_SOCKET": address})
    told.tell(Notice("nobody\nof this cluster\nis heard"))
    assert heard.recv(4096) == b"STATUS=nobody of this cluster is heard"
    told.tell(READY)
    assert heard.recv(4096) == b"READY=1\nSTATUS=serving at 10.0.0.1:7400, members=3"
    told.tell(MembersChanged(3, 4))
    assert heard.recv(4096) == b"STATUS=serving, members=4"
    told.tell_stopping()
    assert heard.recv(4096) == b"STOPPING=1"


def test_a_service_manager_that_is_none_or_has_gone_does_no_harm(tmp_path: Path) -> None:
    for environment in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}, {"NOTIFY_SOCKET": "/" + "x" * 500}):
        ServiceManager(environment).tell(READY)


def test_one_that_does_not_read_is_not_waited_for(manager: tuple[str, socket.socket]) -> None:
    told = ServiceManager({"NOTIFY_SOCKET": manager[0]})
    for _ in range(10_000):
        told.tell(READY)


@pytest.mark.parametrize("microseconds", ["", "0", "x", "-1"])
def test_without_a_watchdog_nothing_is_repeated(microseconds: str) -> None:
    asyncio.run(ServiceManager({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": microseconds}).keep_telling_alive())


def test_a_watchdog_of_another_process_is_not_fed() -> None:
    environment = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": str(os.getpid() + 1)}
    asyncio.run(ServiceManager(environment).keep_telling_alive())


def test_a_node_says_that_it_serves_lives_and_stops(manager: tuple[str, socket.socket], tmp_path: Path) -> None:
    address, heard = manager
    with up(tmp_path / "home", NOTIFY_SOCKET=address, WATCHDOG_USEC="200000") as node:
        said = heard.recv(4096)
        while said == b"WATCHDOG=1":
            said = heard.recv(4096)
        assert said.startswith(b"READY=1\nSTATUS=serving at 127.0.0.1:")
        node.ready()
        assert [heard.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        node.process.send_signal(signal.SIGTERM)
        while said != b"STOPPING=1":
            said = heard.recv(4096)
        code, err = node.ends()
        assert code == 0, err


UNIT = Path(peer.cli.service_manager.__file__).parents[1] / "systemd" / "shoal.service"


def test_the_unit_does_not_start_a_node_again_that_somebody_has_to_look_after() -> None:
    text = UNIT.read_text(encoding="utf-8")
    codes = re.search(r"^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)
    assert codes is not None
    assert {int(code) for code in codes[1].split()} == {WrongUsage.exit_code, NotAllowed.exit_code, StorageFailed.exit_code}
    assert "Type=notify\n" in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd")
def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text(encoding="utf-8")
    assert "ExecStart=/usr/local/bin/shoal up" in text
    (tmp_path / "shoal.service").write_text(text.replace("/usr/local/bin/shoal", shutil.which("true") or ""))
    command = ["systemd-analyze", "verify", str(tmp_path / "shoal.service")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert "shoal.service" not in done.stderr  # it may find fault with other units of the machine
