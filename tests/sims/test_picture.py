"""A run as a page: it needs nothing else, it has what it should, and no name from the run becomes markup."""

import json
import re
from functools import cache

import pytest

from sims.oracles import Violation
from sims.picture import GROUPS, picture
from sims.plan import plan_from_seed
from sims.run import Outcome, run_plan
from sims.trace import KINDS, Trace

BYTES_MAX = 5 << 20


@cache
def outcome() -> Outcome:
    return run_plan(plan_from_seed(1, machines=3, seconds=3.0), trace=Trace(is_full=True))


def page_of(trace: Trace, violation: Violation | None = None) -> str:
    return picture(trace, "python -m sims --seeds 1", violation)


def data_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="run">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def noted(*events: tuple[float, str, str, dict[str, int | str]]) -> Trace:
    trace = Trace(is_full=True)
    for at, host, kind, fields in events:
        trace.now = lambda at=at: int(at * 1e9)
        trace.note(host, kind, **fields)
    return trace


def test_a_page_needs_nothing_else():
    page = page_of(outcome().trace)
    assert not re.search(r"https?://|\b(src|href)=|@import|url\(|\bfetch\(|\bimport\b *[(\"']", page)
    assert len(page.encode()) < BYTES_MAX
    assert "<title>python -m sims --seeds 1</title>" in page


def test_every_event_and_every_host_is_on_the_page():
    trace = outcome().trace
    data = data_of(page_of(trace))
    hosts = [host for host, _ in data["hosts"]]
    lines = [(hosts[host], *values, nanoseconds, *data["shapes"][shape]) for nanoseconds, host, shape, *values in data["events"]]
    assert lines == [(e.host, *e.fields.values(), e.nanoseconds, e.kind, *e.fields) for e in trace.events]
    assert all(lane >= 0 for host, lane in data["hosts"] if host != "world" and "," not in host)


def test_each_kind_of_event_is_drawn_in_one_way():
    drawn = [kind for kinds in GROUPS.values() for kind in kinds]
    assert sorted(drawn) == sorted(KINDS)
    with pytest.raises(AssertionError, match="not among the kinds"):
        Trace().note("a#1", "unheard-of")


def test_a_violation_is_told_and_what_it_speaks_of_is_marked():
    trace = noted(
        (1.0, "client0#1", "put", {"path": "/f", "n": 1}),
        (1.5, "client0#1", "done", {"n": 1, "result": "ok"}),
        (2.0, "client0#1", "put", {"path": "/f", "n": 2}),
        (30.0, "client0#1", "get", {"path": "/g", "n": 3}),
    )
    page = page_of(trace, Violation("I5", "write 2 of </script><b>/f</b> is gone & lost", 30.0))
    assert "<strong>I5</strong> is violated at 30.000 s: write 2 of &lt;/script&gt;&lt;b&gt;/f&lt;/b&gt; is gone &amp; lost" in page
    data = data_of(page)
    assert data["violation"] == {"at": 30.0, "name": "I5", "text": "write 2 of </script><b>/f</b> is gone & lost"}
    assert [operation[-1] for operation in data["operations"]] == [False, True, False]
    assert data["from"] == 1.0, "the first view begins a second before the write"
    assert data["operations"][1][3] is None, "it was under way at the end"


def test_names_from_a_run_are_no_markup():
    hostile = "<script>alert(1)</script><!--"
    trace = noted((1.0, f"{hostile}#1", "start", {}), (2.0, "client0#1", "put", {"path": f"/{hostile}", "n": 1}))
    page = picture(trace, hostile, Violation(hostile, hostile, 3.0))
    assert "<script>alert" not in page
    assert "<!--" not in page
    assert page.count("<script") == 2
    assert data_of(page)["operations"][0][7] == f"/{hostile}"


def test_lives_faults_and_cuts_last_as_long_as_they_did():
    trace = noted(
        (0.0, "a#1", "start", {}),
        (1.0, "a", "fault", {"what": "power-cut", "seconds": "2"}),
        (1.0, "a#1", "power-cut", {}),
        (3.0, "a#2", "start", {}),
        (4.0, "a,b", "fault", {"what": "partition", "seconds": "9"}),
        (4.0, "a", "cut", {"to": "b"}),
        (5.0, "a#2", "paused", {}),
        (6.0, "a#2", "resumed", {}),
        (7.0, "client0#1", "put", {"path": "/f", "n": 1}),
        (8.0, "client0#1", "killed", {}),
        (9.0, "world", "mended", {"gone": "nobody"}),
        (9.0, "a", "whole", {"to": "b"}),
    )
    data = data_of(page_of(trace))
    assert data["lives"] == [
        [0, 0.0, 1.0, "up", "a#1"],
        [0, 1.0, 3.0, "down", "no power"],
        [0, 5.0, 6.0, "paused", "paused"],
        [0, 3.0, 9.0, "up", "a#2"],
    ]
    assert [fault[1:5] for fault in data["faults"]] == [[1.0, 1.0, "power-cut", "a"], [4.0, 9.0, "partition", "a,b"]]
    assert data["cuts"] == [[0, 4.0, 9.0, "cut", "b"]]
    assert data["operations"][0][2:4] == [7.0, 8.0]
    assert "died" in data["operations"][0]


def test_many_clients_share_lanes_when_they_are_not_busy_at_once():
    events = [(float(n), f"client{n}#1", kind, {"path": "/f", "n": n, "result": "ok"}) for n in range(1, 13) for kind in ("get", "done")]
    data = data_of(page_of(noted(*events)))
    assert [names for names, _ in data["lanes"]] == [[f"client{n}" for n in range(1, 13)]]


def test_a_run_without_events_is_a_page():
    assert data_of(page_of(Trace()))["events"] == []
