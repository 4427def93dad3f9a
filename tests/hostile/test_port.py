"""The attack of `make fuzz` on a live node's port, in small: three real nodes, working clients, and every kind of attacker."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from peer.real import loop
from tests.fuzz import port


def test_under_garbage_of_every_kind_a_node_lives_and_no_request_of_a_client_fails() -> None:
    report = loop.run(port.attack(400))
    assert len(report.kinds) == 13
    assert report.kinds.total() == 400
    assert report.requests > 20
    assert report.faults == []
