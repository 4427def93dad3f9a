"""`shoal doctor`: what each rung makes of what was looked at, and how that is looked at."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from test_up import up  # it lies beside this one

from peer.cli.doctor import CLOCK_SECONDS_MAX, LADDER, State
from peer.cli.doctor_facts import Facts, Port, Question, Step, Visit, look, without_repeats
from peer.client.home_files import KEY_FILE, write_key, write_node_file
from peer.real.discovery import Sighting
from peer.real.interfaces import LOOPBACK, Interface
from peer.real.keys import new_key
from peer.real.multicast import Echo
from protocol.testing.pair import some_hello

KEY = new_key()
ETHERNET = Interface("eth0", "10.0.0.1", has_link=True)
UNHURRIED_SECONDS = 30.0
"""On a machine that is busy with other tests, a handshake may take longer than a person would wait for it."""
QUESTION = Question(Path("/h"), given=(), interfaces=(), listen="0.0.0.0:7400", any_port=True)


def node(name: str, address: str, cluster: bytes = bytes(16), ahead: float = 0.0) -> Visit:
    return Visit(address, Step.UP, "", some_hello(name, cluster_id=cluster), ahead)


def heard(label: str, address: str, *, of_this_key: bool = True) -> Sighting:
    return Sighting(label, KEY.tag if of_this_key else new_key().tag, (address,))


WELL = Facts(
    question=QUESTION,
    key=KEY,
    interfaces=(ETHERNET,),
    echoes=(Echo("10.0.0.1", "", heard=True),),
    heard=(heard("aa", "10.0.0.2:7400"),),
    own=node("ada", "10.0.0.1:7400"),
    own_is_heard=True,
    port=None,
    visits=(node("ben", "10.0.0.2:7400"),),
)
"""A node and another one, and nothing is wrong."""
ALONE = replace(WELL, heard=(), visits=())
STOPPED = replace(WELL, own=None, own_is_heard=False, port=Port("10.0.0.1:7400"))
OTHER = bytes([1] * 16)


def refused(step: Step, fault: str = "so it is") -> Facts:
    """Return how it is when the link to the other node fails at a step."""
    return replace(WELL, visits=(Visit("10.0.0.2:7400", step, fault),))


def walked(facts: Facts) -> dict[str, State]:
    return {name: judge(facts).state for name, judge in LADDER}


@pytest.mark.parametrize("facts", [WELL, STOPPED])
def test_where_all_is_well_every_rung_is_ok(facts: Facts) -> None:
    assert set(walked(facts).values()) == {State.OK}


@pytest.mark.parametrize(
    ("facts", "rung", "found", "advice"),
    [
        (replace(WELL, interfaces=(), echoes=()), "interfaces", "no IPv4 address", "ip address"),
        (replace(WELL, interfaces=(Interface("lo", LOOPBACK, has_link=True),)), "interfaces", "loopback", "connect this machine"),
        (replace(WELL, interfaces=(replace(ETHERNET, has_link=False),)), "interfaces", r"eth0 10.0.0.1 \(not connected\)", "plug in"),
        (replace(WELL, echoes=(Echo("10.0.0.1", "Operation not permitted", heard=False),)), "multicast out", "eth0: Operation", "firewall"),
        (replace(WELL, own_is_heard=False), "multicast out", "announces nothing", "--join 10.0.0.1:7400"),
        (replace(WELL, echoes=(Echo("10.0.0.1", "", heard=False),)), "multicast in", "itself on eth0", "port 5353 into this machine"),
        (ALONE, "multicast in", "no other node", "shoal up --join ADDRESS:7400"),
        (replace(WELL, heard=()), "multicast in", r"though ben \(10.0.0.2:7400\) can be reached", "--join 10.0.0.2:7400"),
        (refused(Step.PORT, "no answer within 2.0 s"), "port", "10.0.0.2:7400: no answer", "firewall"),
        (replace(STOPPED, port=Port("0.0.0.0:80", "already in use")), "port", "0.0.0.0:80: already in use", "--listen"),
        (refused(Step.TLS), "TLS", "10.0.0.2:7400: so it is", "check the address"),
        (refused(Step.KEY), "key", "another key: 10.0.0.2:7400", "copy cluster.key"),
        (replace(STOPPED, key=None, visits=()), "key", "no key in /h; 1 node heard", "copy cluster.key"),
        (replace(ALONE, heard=(heard("cc", "10.0.0.3:7400", of_this_key=False),)), "key", "10.0.0.3:7400 has another", "copy cluster.key"),
        (refused(Step.HELLO), "versions", "10.0.0.2:7400: so it is", "same version"),
        (replace(WELL, visits=(node("ben", "10.0.0.2:7400", OTHER),)), "cluster", r"ada.*; cluster 0101.*ben", "never merge"),
        (replace(WELL, visits=(node("ben", "10.0.0.2:7400", OTHER),), notices=("do this",)), "cluster", r"; cluster 0101.*ben", "do this"),
        (replace(WELL, notices=("given up", "cut off")), "cluster", "ada.*; the node of this home has met another", "given up; cut off"),
    ],
)  # fmt: skip
def test_one_fault_is_one_failed_rung_that_says_what_to_do(facts: Facts, rung: str, found: str, advice: str) -> None:
    failed = [name for name, state in walked(facts).items() if state is State.FAILED]
    assert failed == [rung]
    finding = dict(LADDER)[rung](facts)
    assert re.search(found, finding.found), finding
    assert advice in finding.advice, finding


@pytest.mark.parametrize(
    ("facts", "rung", "found"),
    [
        (replace(STOPPED, port=Port("10.0.0.1:7402")), "port", "port 7400 is taken, it would listen at 7402"),
        (replace(WELL, own=None, port=Port("10.0.0.1:7400"), visits=(node("ben", "10.0.0.2:7400", b""),)), "cluster", "in none yet: ben"),
        (replace(WELL, visits=(node("ben", "10.0.0.2:7400", ahead=-3 * CLOCK_SECONDS_MAX),)), "clock", "ben.* is 0:03:00 behind"),
        (replace(WELL, visits=(node("ben", "10.0.0.2:7400", ahead=400 * 86400.0),)), "clock", "400 days, 0:00:00 ahead"),
        (replace(WELL, visits=(node("ben", "10.0.0.2:7400", ahead=2.0**63 / 1000),)), "clock", "3650000 days, 0:00:00 ahead"),
    ],
)
def test_what_keeps_no_machines_apart_is_a_warning(facts: Facts, rung: str, found: str) -> None:
    findings = {name: judge(facts) for name, judge in LADDER}
    assert {name for name, finding in findings.items() if finding.state is not State.OK} == {rung}
    assert findings[rung].state is State.WARNING
    assert re.search(found, findings[rung].found), findings[rung]


def test_what_a_node_waits_for_is_the_advice_where_it_is_in_no_cluster() -> None:
    finding = dict(LADDER)["cluster"](replace(ALONE, own=node("ada", "10.0.0.1:7400", b""), notices=("waiting for one",)))
    assert (finding.state, finding.found, finding.advice) == (State.WARNING, "in none yet: ada (10.0.0.1:7400)", "waiting for one")


def test_what_nobody_is_there_for_is_skipped() -> None:
    lone = replace(STOPPED, heard=(), visits=())
    assert [name for name, state in walked(lone).items() if state is State.SKIPPED] == ["TLS", "key", "versions", "cluster", "clock"]


def test_a_node_whose_file_was_left_over_is_no_fault() -> None:
    killed = replace(STOPPED, own=Visit("10.0.0.1:7400", Step.PORT, "nobody listens there"))
    assert State.FAILED not in walked(killed).values()
    assert "the last one was killed" in dict(LADDER)["port"](killed).found


def test_many_nodes_are_not_all_named() -> None:
    facts = replace(WELL, visits=tuple(Visit(f"10.0.0.{number}:7400", Step.TLS, "no") for number in range(1, 101)))
    assert dict(LADDER)["TLS"](facts).found.endswith("10.0.0.5:7400: no, 95 more")


def test_an_address_is_called_once() -> None:
    assert without_repeats([("a:1", "b:1"), ("b:1",), ("c:1",), ("c:1",)]) == [("a:1", "b:1"), ("c:1",)]


# -- the verb -------------------------------------------------------------------


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Callable[[Facts], list[Question]]:
    """Sets what the doctor finds; gives what it was asked."""

    def put(facts: Facts) -> list[Question]:
        asked: list[Question] = []

        async def look_at(question: Question) -> Facts:
            asked.append(question)
            return facts

        monkeypatch.setattr("peer.cli.doctor.look", look_at)
        return asked

    return put


def test_each_rung_is_a_line_and_a_failed_one_has_a_second(shoal, found) -> None:
    asked = found(ALONE)
    result = shoal("doctor", "--join", "10.0.0.9:7400", "--node", "10.0.0.8:7400", "--listen", "0.0.0.0:80")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert len(lines) == len(LADDER) + 1
    assert [line[:15].strip() for line in lines if line[0] != " "] == [name for name, _ in LADDER]
    assert lines[2].split() == "multicast in failed this machine hears itself and no other node".split()
    assert lines[3].strip().startswith("if a node runs on another machine")
    assert asked[0].given == ("10.0.0.9:7400", "10.0.0.8:7400")
    assert (asked[0].listen, asked[0].any_port) == ("0.0.0.0:80", False)


@pytest.mark.parametrize(("facts", "code"), [(WELL, 0), (ALONE, 1), (refused(Step.KEY), 8), (replace(ALONE, key=None), 1)])
def test_the_first_failed_rung_decides_the_exit_code(shoal, found, facts: Facts, code: int) -> None:
    found(facts)
    assert shoal("doctor").exit_code == code


def test_json_is_one_document_and_nothing_else(shoal, found) -> None:
    found(ALONE)
    result = shoal("doctor", "--json")
    document = json.loads(result.stdout)
    assert document["failed"] == ["multicast in"]
    assert [rung["rung"] for rung in document["rungs"]] == [name for name, _ in LADDER]
    assert document["rungs"][2]["state"] == "failed"
    assert set(document["rungs"][2]) == {"rung", "state", "found", "advice"}
    assert result.stderr == ""


@pytest.mark.parametrize("arguments", [("--discover-on", "nonsense"), ("--join", "here"), ("--listen", "here")])
def test_what_cannot_be_asked_is_wrong_usage(shoal, arguments) -> None:
    assert shoal("doctor", *arguments).exit_code == 2


# -- how it is looked -------------------------------------------------------------


@pytest.fixture
def home_of_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SHOAL_KEY", raising=False)
    monkeypatch.setattr("peer.cli.doctor_facts.DISCOVERY_SECONDS", 0.3)
    write_key(tmp_path / "home" / KEY_FILE, KEY.text)
    return tmp_path / "home"


def asked_at(home: Path, *given: str) -> Question:
    return Question(home, given, interfaces=(LOOPBACK,), listen=f"{LOOPBACK}:0", any_port=False)


@asynccontextmanager
async def listener(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    async with await asyncio.start_server(answer, LOOPBACK, 0) as server:
        yield "{}:{}".format(*server.sockets[0].getsockname())


async def test_a_running_node_is_called_and_says_its_clock(home_of_key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.links.DIAL_TIMEOUT_SECONDS", UNHURRIED_SECONDS)
    with up(home_of_key, "--found", "--name", "ada") as running:
        address, _ = running.ready()
        facts = await look(asked_at(home_of_key, address))
    assert facts.own is not None
    assert facts.own.called == f"ada ({address})"
    assert facts.own.clock_ahead_seconds is not None
    assert abs(facts.own.clock_ahead_seconds) < CLOCK_SECONDS_MAX
    assert (facts.visits, facts.port, facts.own_is_heard) == ((), None, False)
    assert facts.echoes == (Echo(LOOPBACK, "", heard=True),)


async def test_a_member_that_is_away_is_called_as_well(home_of_key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.links.DIAL_TIMEOUT_SECONDS", UNHURRIED_SECONDS)
    with up(home_of_key, "--found", "--name", "ada") as ada:
        address, _ = ada.ready()
        with up(tmp_path / "ben", "--join", address, "--name", "ben", SHOAL_KEY=KEY.text) as ben:
            away, members = ben.ready()
        assert members == 2
        facts = await look(asked_at(home_of_key))
    assert facts.visits == (Visit(away, Step.PORT, "nobody listens there"),)
    assert dict(LADDER)["port"](facts).found == f"{away}: nobody listens there"


async def test_a_link_is_followed_as_far_as_it_comes(home_of_key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.links.DIAL_TIMEOUT_SECONDS", UNHURRIED_SECONDS)

    async def chat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail ready\r\n")
        await reader.read()
        writer.close()

    with socket.socket() as unused, up(tmp_path / "other") as stranger:
        unused.bind((LOOPBACK, 0))
        nobody = "{}:{}".format(*unused.getsockname())
        address, _ = stranger.ready()
        async with listener(chat) as chatting:
            facts = await look(asked_at(home_of_key, nobody, chatting, address))
    assert {visit.address: visit.reached for visit in facts.visits} == {nobody: Step.PORT, chatting: Step.TLS, address: Step.KEY}


async def test_who_takes_a_connection_and_says_nothing_fails_at_tls(home_of_key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.links.DIAL_TIMEOUT_SECONDS", 0.1)

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with listener(say_nothing) as silent:
        facts = await look(asked_at(home_of_key, silent))
    assert facts.visits == (Visit(silent, Step.TLS, "no answer within 0.1 s"),)


async def test_without_a_node_the_port_is_tried_and_without_a_key_all_else_is_looked_at(home_of_key: Path) -> None:
    (home_of_key / KEY_FILE).unlink()
    write_node_file(home_of_key, name="ada", node_id="00", addresses=(f"{LOOPBACK}:1",))
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        address = "{}:{}".format(*taken.getsockname())
        facts = await look(replace(asked_at(home_of_key), listen=address))
    assert (facts.key, facts.port) == (None, Port(address, "already in use"))
    assert facts.own is not None
    assert facts.own.reached is Step.PORT
    assert not (home_of_key / KEY_FILE).exists()
