"""`shoal forget --force`: what it says and asks, and that of two real nodes of which one is gone for good the other goes on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cli_fakes import member
from click.testing import CliRunner
from test_up import shoal as run_shoal
from test_up import up

from peer.cli.main import main
from peer.errors import Unavailable
from peer.files.cluster_status import ClusterStatus
from peer.real.keys import new_key


@pytest.fixture(autouse=True)
def found(client):
    gone = [member(name, "dead") for name in ("ben", "cleo", "dora")]
    client.status_found = ClusterStatus(bytes(range(16)), 4, 0, (member("ada"), *gone, member("emil")), 3, 2)


def test_it_says_what_it_costs_and_does_nothing_where_nobody_answers(shoal, client):
    done = shoal("forget", "--force", "ben", "cleo", "dora")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "ada, emil would go on as another cluster, without ben, cleo, dora" in done.stderr
    assert "4096 partitions have lost most of their replicas" in done.stderr
    assert "12 partitions have no replica left" in done.stderr
    assert "about one chunk in 9 lay on machines that are gone alone" in done.stderr
    assert "--yes" in done.stderr.splitlines()[-1]
    assert len(client.status_found.members) == 5


def test_it_says_that_members_who_are_away_and_kept_follow(shoal, client):
    assert "follow" not in shoal("forget", "--force", "ben", "cleo", "dora").stderr
    lines = shoal("forget", "--force", "cleo").stderr.splitlines()
    assert "kept, though away now: ben, dora: they follow by themselves when they are back" in lines


def test_before_it_asks_it_says_all_of_that_also_with_quiet_and_with_yes_it_does_not(shoal, client):
    assert shoal("forget", "--force", "ben").stderr == shoal("--quiet", "forget", "--force", "ben").stderr
    assert "partitions" in shoal("--json", "forget", "--force", "ben").stderr
    assert shoal("--quiet", "forget", "--force", "--yes", "ben").stderr == ""


def test_it_and_a_forget_in_vain_tell_of_another_cluster_that_was_met(shoal, client):
    told = "node ben (62656e00) belongs to cluster 0badf00d, which has gone on by force from this one"
    emil = member("emil")
    emil = replace(emil, status=replace(emil.status, notices=(told,)))
    client.status_found = replace(client.status_found, members=(*client.status_found.members[:-1], emil))
    assert told in shoal("forget", "--force", "ben").stderr.splitlines()
    assert told not in shoal("forget", "ben").stderr
    client.refused = Unavailable("no majority decides on it")
    assert shoal("forget", "cleo").stderr.splitlines() == [told, "shoal: no majority decides on it"]


@pytest.mark.parametrize(("answer", "code", "members"), [("y", 0, 2), ("n", 1, 5)])
def test_on_a_terminal_it_asks(home, client, monkeypatch, answer, code, members):
    monkeypatch.setattr("peer.cli.member_verbs.may_ask", lambda: True)
    done = CliRunner().invoke(main, ["forget", "--force", "ben", "cleo", "dora"], input=f"{answer}\n")
    assert (done.exit_code, len(client.status_found.members)) == (code, members)


def test_it_names_the_new_cluster_and_status_says_where_it_comes_from(shoal, client):
    done = shoal("forget", "--force", "--yes", "--json", "ben", "cleo", "dora")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert (document["event"], document["members"], document["forgotten"]) == ("forced", ["ada", "emil"], ["ben", "cleo", "dora"])
    assert (document["cluster"], document["former"]) == ("ee" * 16, bytes(range(16)).hex())
    assert "cluster eeeeeeee (by force from 00010203)" in shoal("status").stdout
    assert json.loads(shoal("status", "--json").stdout)["former"] == [{"cluster": bytes(range(16)).hex(), "layout": 4}]


@pytest.mark.parametrize(("who", "code", "text"), [("ada", 2, "is there"), ("emma", 3, "no such member")])
def test_who_cannot_be_given_up_is_said_in_one_line(shoal, client, who, code, text):
    done = shoal("forget", "--force", "--yes", who)
    assert (done.exit_code, done.stderr.count("\n")) == (code, 1)
    assert text in done.stderr


def test_several_are_forgotten_with_one_command(shoal, client):
    done = shoal("forget", "ben", "cleo")
    assert (done.exit_code, len(client.status_found.members), done.stdout.count("is left out")) == (0, 3, 2)


def test_of_two_nodes_one_goes_on_alone_and_the_other_is_refused(tmp_path: Path) -> None:
    ada, ben = tmp_path / "ada", tmp_path / "ben"
    key = new_key().text
    with up(ada, "--found", "--name", "ada", SHOAL_KEY=key) as first:
        address, _ = first.ready()
        (ada / "cluster.key").write_text(key + "\n")
        with up(ben, "--join", address, "--name", "ben", SHOAL_KEY=key) as second:
            second.ready()
            assert run_shoal(ada, "put", "-", "/f", input="x" * 100_000).returncode == 0
            refused = run_shoal(ada, "forget", "--force", "--yes", "ben")
            assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
            second.process.kill()
            second.process.wait()
        while (forced := run_shoal(ada, "forget", "--force", "--yes", "ben")).returncode == 2:
            assert "ben is there" in forced.stderr  # for some seconds yet
        assert forced.returncode == 0, forced.stderr
        assert run_shoal(ada, "cat", "/f").stdout == "x" * 100_000
        assert run_shoal(ada, "put", "-", "/g", input="y").returncode == 0
        with up(ben, "--join", address, "--name", "ben", SHOAL_KEY=key) as second:
            where, _ = second.ready()
            assert second.process.stderr is not None
            told = second.process.stderr.readline().strip()
            assert "remove `identity` from its data folder" in told
            (ben / "cluster.key").write_text(key + "\n")
            examined = json.loads(run_shoal(ben, "doctor", "--discover-on", "127.0.0.1", "--json").stdout)
            assert "cluster" in examined["failed"]
            (rung,) = (rung for rung in examined["rungs"] if rung["rung"] == "cluster")
            assert told.endswith(rung["advice"])
        notices = json.loads(run_shoal(ada, "status", "--json").stdout)["health"]["notices"]
        assert [notice for notice in notices if "without it: nothing crosses" in notice]
        (ben / "data" / "identity").unlink()
        with up(ben, "--join", address, "--listen", where, "--name", "ben", SHOAL_KEY=key) as second:
            assert second.ready()[1] == 2
            read = run_shoal(ben, "cat", "/f")
            assert read.stdout == "x" * 100_000, read.stderr
        assert json.loads(run_shoal(ada, "status", "--json").stdout)["health"]["notices"] == []
