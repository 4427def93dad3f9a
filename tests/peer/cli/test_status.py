"""How a cluster is shown."""

import json
from dataclasses import replace

import pytest
from cli_fakes import member

from peer.files.cluster_status import ClusterStatus


def cluster(*members, moving=0):
    return ClusterStatus(bytes(range(16)), 4, moving, tuple(members), 3, 2)


def gone(name, seconds):
    return replace(member(name, "dead"), away_seconds=seconds)


def test_status_json_has_the_agreed_shape(shoal, client):
    client.status_found = cluster(member("ada"), member("ben", "dead"), member("cleo"))
    document = json.loads(shoal("status", "--json").stdout)
    assert {"cluster", "layout", "members", "health"} <= document.keys()
    assert [each["state"] for each in document["members"]] == ["alive", "dead", "alive"]
    assert {"name", "id", "address", "state", "zone", "weight", "chunks", "bytes"} <= document["members"][0].keys()
    assert document["members"][1]["chunks"] is None


def test_a_healthy_cluster_says_so(shoal, client):
    client.status_found = cluster(member("ada"), member("ben"), member("cleo"))
    text = shoal("status").stdout
    assert "3 of 3 members alive" in text
    assert "healthy" in text


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (cluster(member("ada"), member("ben"), member("cleo", "dead")), "1 member away: new files are kept in 2 copies; what is missing"),
        (cluster(*map(member, ("ada", "ben", "cleo")), member("dora", "dead")), "1 member away: new files are kept in 3 copies\n"),
        (cluster(member("ada"), member("ben", "dead"), member("cleo", "dead")), "nothing is read or written"),
        (cluster(member("ada"), member("ben", "dead")), "nothing is written, and only what both are known to have is read: more needs 2"),
        (cluster(member("ada", owed_chunks=2), member("ben"), gone("cleo", 5)), "until the members that are away return or are left out"),
        (cluster(member("ada", owed_chunks=2), member("ben"), member("cleo")), "2 chunks with fewer than 3 copies"),
        (cluster(member("ada", corrupt_chunks=1), member("ben"), member("cleo")), "1 copy"),
        (cluster(member("ada"), member("ben"), member("cleo"), moving=7), "7 partitions"),
        (cluster(member("ada", missing_chunks=1), member("ben", missing_chunks=2)), "3 copies still to come to where they belong\n"),
        (cluster(member("ada", missing_chunks=1), member("ben", surplus_chunks=4)), "belong, 4 elsewhere to be given up after that"),
        (cluster(member("ada", surplus_chunks=4), member("ben")), "\n4 copies elsewhere to be given up, once"),
        (cluster(member("ada"), member("ben", is_rebalance_paused=True)), "paused on ben: `shoal rebalance resume`"),
    ],
)
def test_what_is_wrong_is_said(shoal, client, found, text):
    client.status_found = found
    output = shoal("status").stdout
    assert text in output
    assert "healthy" not in output


def test_a_name_is_shown_as_it_is_and_not_as_markup(shoal, client):
    client.status_found = cluster(member("[red]x[/]"))
    assert "[red]x[/]" in shoal("status").stdout


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (cluster(member("ada"), member("ben"), gone("cleo", 120)), "cleo is dead: in 0:08:00 it is left out"),
        (replace(cluster(member("ada"), gone("cleo", 700)), eviction_hold="fewer than 3 members would remain"), "stays a member: fewer"),
        (replace(cluster(member("ada"), moving=7), entering=("dora",), departing=("emil",)), "7 partitions (dora comes in, emil goes out)"),
    ],
)
def test_what_changes_and_what_becomes_of_the_dead_is_said(shoal, client, found, text):
    client.status_found = found
    assert text in shoal("status").stdout
    document = json.loads(shoal("status", "--json").stdout)
    assert document["changing"]["leaving"] == list(found.departing)
    if found.members[-1].state == "dead":
        wanted = None if found.eviction_hold else 480
        assert document["members"][-1]["evicted_in_seconds"] == wanted


def test_of_a_member_that_recovers_it_is_said_how_far_it_is_or_whom_it_waits_for(shoal, client):
    recovering = replace(member("cleo", lost_partitions=7), state="recovering")
    client.status_found = replace(cluster(member("ada"), member("ben"), recovering), recovery_sources=2)
    text = shoal("status").stdout
    assert "3 of 3 members alive" in text
    assert "cleo has lost its rows and fetches them from the others: 7 partitions to go" in text
    assert json.loads(shoal("status", "--json").stdout)["health"]["lost_partitions"] == 7
    client.status_found = replace(cluster(member("ada"), member("ben", "dead"), recovering), recovery_sources=2)
    text = shoal("status").stdout
    assert "it needs 2 other members that have theirs, and 1 can be reached; where no more come back, stop it and name it to" in text
    assert "nothing is read or written: that needs 2 machines with their rows, and 1 can be reached" in text


def test_a_member_that_leaves_is_there_and_who_is_none_is_not_counted(shoal, client):
    client.status_found = cluster(member("ada"), member("ben", "leaving"), replace(member("cleo", "leaving"), weight=0))
    assert "2 of 2 members alive" in shoal("status").stdout


@pytest.mark.parametrize(
    ("who", "code", "text"),
    [("dora", 3, "no such member"), ("cle", 3, "no such member"), ("ben", 2, "ben is there"), ("two", 2, "2 members are called that")],
)
def test_who_cannot_be_forgotten_is_said_in_one_line(shoal, client, who, code, text):
    client.status_found = cluster(member("ada"), member("ben"), gone("cleo", 5), gone("two", 5), replace(gone("two", 5), node_id=b"x" * 16))
    done = shoal("forget", who)
    assert (done.exit_code, done.stderr.count("\n")) == (code, 1)
    assert text in done.stderr


def test_a_dead_member_is_forgotten_by_name_or_id(shoal, client):
    for who in ("cleo", member("cleo").node_id.hex()[:8].upper()):
        client.status_found = cluster(member("ada"), member("ben"), gone("cleo", 5))
        done = shoal("forget", who)
        assert (done.exit_code, done.stdout) == (0, "cleo is left out: what it held is copied to the others\n")


# -- rebalance ---------------------------------------------------------------


def test_rebalancing_is_paused_and_resumed_on_all_members(shoal, client):
    done = shoal("rebalance", "pause")
    assert (done.exit_code, client.is_rebalance_paused) == (0, True)
    assert "what has too few is copied all the same" in done.stdout
    done = shoal("rebalance", "resume", "--json")
    assert (done.exit_code, client.is_rebalance_paused, json.loads(done.stdout)["event"]) == (0, False, "resumed")


def test_members_that_do_not_hear_of_a_pause_are_named(shoal, client):
    client.silent = ("ben", "cleo")
    done = shoal("rebalance", "pause")
    assert (done.exit_code, done.stderr.count("\n")) == (6, 1)  # not 4: the others have been told
    assert "ben, cleo" in done.stderr


def test_what_moves_and_who_is_paused_is_in_the_document(shoal, client):
    client.status_found = cluster(member("ada", missing_chunks=1, surplus_chunks=4), member("ben", is_rebalance_paused=True))
    document = json.loads(shoal("status", "--json").stdout)
    assert (document["health"]["missing_chunks"], document["health"]["surplus_chunks"]) == (1, 4)
    assert [each["rebalance_paused"] for each in document["members"]] == [False, True]
