"""How a cluster is shown."""

import json

import pytest
from cli_fakes import member

from peer.files.cluster_status import ClusterStatus


def cluster(*members, moving=0):
    return ClusterStatus(bytes(range(16)), 4, moving, tuple(members), 3, 2)


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
        (cluster(member("ada"), member("ben"), member("cleo", "dead")), "1 member away"),
        (cluster(member("ada"), member("ben", "dead"), member("cleo", "dead")), "nothing is read or written"),
        (cluster(member("ada", owed_chunks=2), member("ben"), member("cleo")), "2 chunks with fewer than 3 copies"),
        (cluster(member("ada", corrupt_chunks=1), member("ben"), member("cleo")), "1 copy"),
        (cluster(member("ada"), member("ben"), member("cleo"), moving=7), "7 partitions"),
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
