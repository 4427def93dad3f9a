"""The simulator itself: that it finds what is planted, repeats what it did, lets nothing escape, and reduces what fails."""

import asyncio
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peer.errors import NoSuchPath, ShoalError
from protocol.codec import encode
from protocol.identity import NodeId
from protocol.layout import Layout, propose
from protocol.lives import Life
from protocol.manifest import ChunkTag, chunk_id_of
from protocol.paths import row_partition
from sims.__main__ import main
from sims.disk import SimFile
from sims.formed import switch_on
from sims.history import ABSENT, OK, UNKNOWN, History, Listing, Seen, Write
from sims.loop import Deadlock, Livelock, OutOfTime
from sims.nemesis import Nemesis
from sims.oracles import Violation
from sims.oracles.base import Oracle
from sims.oracles.disks import VALUE_HEADER_BYTES, has_chunk, identity_on, latest_layout
from sims.oracles.durability import AckIsDurable
from sims.oracles.memory import NobodyForgets
from sims.oracles.peace import NothingMovesInPeace
from sims.oracles.placement import MovesAreBounded
from sims.oracles.register import AppliedOnce, FailedStaysInvisible, ListingIsComplete, NothingIsLost, OnlyWhatWasPut, ReadsAreFresh
from sims.plan import DAMAGING, FAULTS, NAMES, OPERATIONS, RETURNS, BadPlan, Fault, Operation, Plan, plan_from_json, plan_from_seed
from sims.planted import BUGS, planted
from sims.reduce import reduced
from sims.run import run_plan
from sims.seal import EscapedSimulation
from sims.trace import Trace
from sims.world import World

PLANS = Path(__file__).parent.parent / "data" / "plans"
PAST = sorted(PLANS.glob("*.json"))
MICRO_SEEDS = 12


# -- plans of past failures, and of planted bugs -------------------------------


@pytest.mark.parametrize("path", PAST, ids=lambda path: path.stem)
def test_what_failed_once_does_not_fail_again(path: Path) -> None:
    violation = run_plan(plan_from_json(path.read_text())).violation
    if violation is not None:
        pytest.fail(f"{violation}\nagain: python -m sims --replay {path}", pytrace=False)


@pytest.mark.parametrize("name", [bug.name for bug in BUGS.values() if not bug.case])
def test_a_planted_bug_is_found_by_its_plan_and_by_nothing_but_the_bug(name: str) -> None:
    plan = plan_from_json((PLANS / "planted" / f"{name}.json").read_text())
    assert plan.planted == name
    # What a plan leaves open changes with the code: a plan is worth its operations and faults, not the luck of one seed.
    found = (seed for seed in range(plan.seed, plan.seed + MICRO_SEEDS) if run_plan(replace(plan, seed=seed)).violation)
    seed = next(found, None)
    assert seed is not None, f"{name} is not found any more: python -m sims --planted {name} --keep {PLANS}/planted"
    assert run_plan(replace(plan, seed=seed, planted="")).violation is None


def test_what_was_planted_is_gone_afterwards() -> None:
    for name, bug in BUGS.items():
        before = [owner.__dict__[attribute] for owner, attribute, _ in bug.patches()]
        with planted(name):
            assert [owner.__dict__[attribute] for owner, attribute, _ in bug.patches()] != before
        assert [owner.__dict__[attribute] for owner, attribute, _ in bug.patches()] == before


# -- any plan, drawn and shrunk by Hypothesis ----------------------------------

SHORT_SECONDS = 6.0
WITHOUT_LOSS = [kind for kind in FAULTS if kind not in DAMAGING]
moments = st.integers(0, int(SHORT_SECONDS * 1000)).map(lambda milliseconds: milliseconds / 1000)
paths = st.sampled_from(["/f0", "/f1", "/d/f2"])
operations = st.builds(
    Operation, at=moments, client=st.integers(0, 2), kind=st.sampled_from(["put", "put", "get", "remove", "list", "stat"]),
    path=paths, size=st.sampled_from([0, 20, 70_000]), retry_by=st.integers(-1, 2),
)  # fmt: skip
faults = st.builds(
    Fault, at=moments, kind=st.sampled_from(WITHOUT_LOSS), machines=st.permutations("abcde").map(lambda names: tuple(names[:2])),
    seconds=st.sampled_from([0.1, 1.0, 5.0]), number=st.integers(1, 2),
)  # fmt: skip
plans = st.builds(
    Plan, seed=st.integers(0, 2**32), seconds=st.just(SHORT_SECONDS), operations=st.lists(operations, max_size=20).map(tuple),
    faults=st.lists(faults, max_size=6).map(tuple),
)  # fmt: skip


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(plans)
def test_any_plan_within_the_budget_violates_nothing(plan: Plan) -> None:
    outcome = run_plan(plan)
    assert outcome.violation is None, f"{outcome.violation}\n{plan.to_json()}"


@given(st.integers(0, 2**40))
def test_a_plan_is_the_same_after_it_was_written_down(seed: int) -> None:
    plan = plan_from_seed(seed)
    assert plan.fault() == ""
    assert plan_from_json(plan.to_json()) == plan


def test_a_seed_stands_for_one_plan_and_neighbours_for_others() -> None:
    assert plan_from_seed(3) == plan_from_seed(3)
    assert plan_from_seed(3) != plan_from_seed(4)


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (Plan(1, fragile=("a", "b"), gone=("c",)), "3 losses of what machines have"),
        (Plan(1, fragile=("a",), faults=(Fault(1.0, "wipe", ("a",)), Fault(2.0, "rot-row", ("a",)))), "it has lost enough"),
        (Plan(1, fragile=("a", "b"), gone=("a",)), "3 losses of what machines have"),
        (Plan(1, gone=("g",)), "that the cluster does not have"),
        (Plan(1, faults=(Fault(1.0, "wipe", ("a",)),)), "not among the fragile ones"),
        (Plan(1, faults=(Fault(1.0, "flood", ("a",)),)), "no fault 'flood'"),
        (Plan(1, faults=(Fault(1.0, "slow-link", ("a", "b")),)), "at least 1 byte"),
        (Plan(1, operations=(Operation(1.0, 7, "put", "/f"),)), "by a client that there is not"),
        (Plan(1, operations=(Operation(1.0, 0, "burn", "/f"),)), "no operation 'burn'"),
        (Plan(1, operations=(Operation(1.0, 0, "put", "f"),)), "no path of the form"),
        (Plan(1, operations=(Operation(1.0, 0, "copy", "/f"),)), "no path of the form"),
        (Plan(1, operations=(Operation(1.0, 0, "put", "/f", -1),)), "size below 0"),
        (Plan(1, faults=(Fault(1.0, "reset", ("a",)),)), "too few machines"),
        (Plan(1, faults=(Fault(1.0, "kill"),)), "too few machines"),
        (Plan(1, faults=(Fault(-1.0, "kill", ("a",)),)), "below 0"),
        (Plan(1, faults=(Fault(1.0, "client-death", (), 0.0, 3),)), "of a client that there is not"),
        (Plan(1, faults=(Fault(1.0, "join", ("a",)),)), "of a machine that the cluster has already"),
        (Plan(1, faults=(Fault(1.0, "join", ("f",)), Fault(2.0, "join", ("f",)))), "of a machine that the cluster has already"),
        (Plan(1, faults=(Fault(1.0, "join", ("f",)), Fault(2.0, "clone", ("a", "f"))), fragile=("a",)), "that the cluster has"),
        (Plan(1, faults=(Fault(1.0, "clone", ("a", "f")),)), "not among the fragile ones"),
        (Plan(1, faults=(Fault(1.0, "clone", ("a", "f")), Fault(3.0, "one-way", ("b",))), fragile=("a",)), "of one id have to meet"),
        (Plan(1, faults=(Fault(1.0, "clone", ("a", "f")), Fault(9.0, "wipe", ("a",))), fragile=("a",)), "it has lost enough"),
        (Plan(1, faults=(Fault(1.0, "leave", ("a",)),), gone=("b", "c")), "the promise holds for 1"),
        (Plan(1, faults=(Fault(1.0, "leave", ("a",)),), gone=("b",), evict_after=9.0), "the promise holds for 0"),
        (Plan(1, evict_after=-1.0), "lasts for a while"),
        (Plan(1, machines=8), "1 to 7 machines"),
        (Plan(1, clients=0), "a client at least"),
    ],
)
def test_a_plan_that_asks_for_more_than_is_promised_is_refused(plan: Plan, reason: str) -> None:
    with pytest.raises(BadPlan, match=reason):
        plan_from_json(plan.to_json())


OF_WRONG_TYPE = [
    '{"seed": null}',
    '{"seed": 1, "operations": ["put"]}',
    '{"seed": 1, "faults": [{"at": "1", "kind": "kill", "machines": ["a"]}]}',
    '{"seed": 1, "faults": [{"at": 1, "kind": "kill", "machines": "ab"}]}',
]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seed": 1, "weather": 2}', '{"seed": 1, "operations": [{"at": 1}]}', *OF_WRONG_TYPE])
def test_a_file_that_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(BadPlan):
        plan_from_json(text)


def test_the_swarm_has_every_fault_and_operation_and_some_runs_without_each() -> None:
    drawn = [plan_from_seed(seed) for seed in range(400)]
    for kind in FAULTS:
        having = [plan for plan in drawn if any(fault.kind == kind for fault in plan.faults)]
        assert 7 < len(having) < 393, kind
    for kind in OPERATIONS:
        assert any(operation.kind == kind for plan in drawn for operation in plan.operations), kind


def test_a_fault_that_changes_nothing_is_not_counted() -> None:
    faults = (
        Fault(0.1, "power-cut", ("a",), 30.0),
        Fault(0.5, "pause", ("a",), 1.0),
        Fault(0.5, "crash-at-step", ("a",), 1.0, 1),
        Fault(0.5, "restart-storm", ("a",), 0.1, 2),
        Fault(0.5, "crash-at-step", ("b",), 1.0, 1_000_000),
        Fault(0.5, "misdirect", ("c",)),
        Fault(1.0, "kill", ("b",), 1.0),
    )
    outcome = run_plan(Plan(seed=1, seconds=5.0, fragile=("c",), faults=faults))
    assert outcome.violation is None
    assert outcome.injected == {"power-cut": 1, "kill": 1}


def test_members_leave_are_left_out_come_back_and_meet_copies_of_themselves() -> None:
    faults = (
        Fault(1.0, "leave", ("a",), 2.0, RETURNS),
        Fault(1.0, "join", ("f",)),
        Fault(1.0, "clone", ("b", "g"), 9.0, 0),
        Fault(6.0, "power-cut", ("e",), 12.0),
    )
    operations = tuple(Operation(1.0 * number, number % 3, "put", f"/f{number % 8}", 70_000) for number in range(45))
    trace = Trace(is_full=True)
    plan = Plan(seed=2, seconds=45.0, fragile=("b",), evict_after=8.0, faults=faults, operations=operations)
    outcome = run_plan(plan, trace=trace)
    assert outcome.violation is None
    assert outcome.injected == {"leave": 1, "join": 1, "clone": 1, "power-cut": 1}
    starts = Counter(event.host.partition("#")[0] for event in trace.events if event.kind == "start")
    assert (starts["a"], starts["f"], starts["g"], starts["e"]) == (2, 1, 2, 2)


def test_every_fault_of_the_swarm_has_somebody_to_happen_to() -> None:
    faults = [fault for seed in range(500) for fault in plan_from_seed(seed).faults]
    assert [fault for fault in faults if not fault.machines and fault.kind != "client-death"] == []


def test_a_plan_with_a_bug_that_nobody_knows_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(Plan(1, planted="no-such-bug").to_json())
    assert main(["--replay", str(plan)]) == 2
    assert "no-such-bug" in capsys.readouterr().err


def test_a_failing_plan_is_reduced_to_what_it_needs() -> None:
    plans = (plan_from_seed(seed, machines=3, seconds=15.0, planted="length-unchecked") for seed in range(15, 65))
    plan = next(plan for plan in plans if run_plan(plan).violation)
    small = reduced(plan, runs_max=20)
    assert run_plan(small).violation is not None
    assert len(small.operations) < len(plan.operations) / 4
    assert len(small.faults) <= len(plan.faults)


# -- judges --------------------------------------------------------------------


class _World:
    """As much of a world as a judge of histories looks at."""

    class loop:
        @staticmethod
        def time() -> float:
            return 100.0


def judged(oracle: Oracle, history: History) -> str | None:
    """Return the invariant that a history violates in the eyes of a judge."""
    oracle.begin(_World(), Plan(1), history)
    try:
        asyncio.run(oracle.finish())
    except Violation as violation:
        return violation.invariant
    return None


def write(number: int, digest: str | None, began: float, ended: float, outcome: str = OK, read_by: float | None = None) -> Write:
    made = Write(number, 0, "/f", digest, began, read_by=began if read_by is None else read_by)
    made.ends(ended, outcome)
    return made


def seen(digest: str, began: float, ended: float) -> Seen:
    return Seen(1000, 1, "/f", digest, began, ended)


def history(*writes: Write, reads: tuple[Seen, ...] = (), final: tuple[str, ...] | None = None) -> History:
    result = History(writes=list(writes), contents={each.digest: b"" for each in writes if each.digest})
    for read in reads:
        result.note_read(read)
    if final is not None:
        result.finals["/f"] = final
    return result


@pytest.mark.parametrize(
    ("oracle", "what", "expected"),
    [
        (ReadsAreFresh, history(write(1, "x", 1, 2), write(2, "y", 3, 4), reads=(seen("y", 5, 6),)), None),
        (ReadsAreFresh, history(write(1, "x", 1, 2), write(2, "y", 3, 4), reads=(seen("x", 5, 6),)), "I3"),
        (ReadsAreFresh, history(write(1, "x", 1, 2), write(2, "y", 3, 4), reads=(seen("x", 3.5, 6),)), None),
        (ReadsAreFresh, history(write(1, "x", 1, 4), write(2, "y", 3, 5), reads=(seen("x", 6, 7),)), None),
        (ReadsAreFresh, history(write(1, "x", 1, 2), write(2, ABSENT, 3, 4), reads=(seen("x", 5, 6),)), "I6"),
        (ReadsAreFresh, history(write(1, "x", 1, 2), reads=(seen(ABSENT, 3, 4),)), "I3"),
        (ReadsAreFresh, history(write(1, "x", 1, 2), write(2, ABSENT, 1.5, 9, UNKNOWN), reads=(seen(ABSENT, 3, 4),)), None),
        (
            ReadsAreFresh,
            history(write(1, "x", 1, 2), write(2, "y", 3, 99, UNKNOWN), reads=(seen("y", 4, 5), seen("x", 6, 7))),
            "I4",
        ),
        (NothingIsLost, history(write(1, "x", 1, 2), final=("x",)), None),
        (NothingIsLost, history(write(1, "x", 1, 2), final=()), "I1"),
        (NothingIsLost, history(write(1, "x", 1, 2), write(2, "y", 3, 4), final=("y",)), None),
        (NothingIsLost, history(write(1, "x", 2, 3), write(2, "y", 1, 4, read_by=1.5), final=("y",)), "I5"),
        (NothingIsLost, history(write(1, "x", 2, 3), write(2, "y", 1, 4, read_by=2.5), final=("y",)), None),
        (AppliedOnce, history(write(1, "x", 1, 2), final=("x", "x")), "I5"),
        (OnlyWhatWasPut, history(write(1, "x", 1, 2), reads=(seen("z", 3, 4),)), "I7"),
        (FailedStaysInvisible, history(write(1, "x", 1, 2, "failed"), reads=(seen("x", 3, 4),)), "I28"),
    ],
)
def test_a_judge_tells_right_from_wrong(oracle: type[Oracle], what: History, expected: str | None) -> None:
    assert judged(oracle(), what) == expected


def test_a_fragile_disk_that_has_done_no_harm_is_judged_as_any_other() -> None:
    world, oracle, chunk = World(1), AckIsDurable(), b"chunk"
    chunk_id = chunk_id_of(ChunkTag.DATA, chunk)
    path = f"c/{chunk_id[1]:02x}/{chunk_id.hex()}"
    oracle.begin(world, Plan(1, fragile=("a",)), History())
    machine = world.machine("a")
    state = machine.storage.state
    file = state.names[path] = SimFile(bytes(64) + chunk)
    assert not has_chunk(machine, chunk)
    state.has_lied = True
    assert has_chunk(machine, chunk)
    state.has_lied = False
    state.durable_names[path] = file
    assert not has_chunk(machine, chunk)
    file.durable = file.content
    assert has_chunk(machine, chunk)
    state.damage(path, Random(1))
    assert has_chunk(machine, chunk)
    machine.host, machine.lossy_at = "a#1", 0.0
    write_began = write(1, "x", 1, 2)
    world.loop.time = lambda: 1.5
    world.crash("a")
    assert not oracle._may_have_lost(machine, write_began)
    state.has_lied = True
    world.crash("a")
    assert oracle._may_have_lost(machine, write_began)


def test_a_node_that_cannot_be_stopped_fails_the_run_though_nobody_waits_for_it_any_more() -> None:
    world = World(1)

    async def stop() -> None:
        await asyncio.sleep(1.0)
        raise OSError("no")

    async def scenario(_: World) -> None:
        await world.start("a", found=True)
        world.node("a").stop = stop
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(world.stop("a"), 0.5)
        await asyncio.sleep(1.0)

    with pytest.raises(AssertionError, match="a node could not be stopped"):
        world.run(scenario)


class Disks:
    """The disks of five machines that were a cluster, and one that joins it; no node runs."""

    def __init__(self, oracle: Oracle) -> None:
        self.world, self.oracle = World(1), oracle
        switch_on(self.world, NAMES[:5])
        self.at(0.0)
        oracle.begin(self.world, Plan(1), History())
        self.layout = latest_layout(self.world.machines.values())
        newcomer = replace(self.layout.record.members[0], node_id=NodeId(bytes(15) + b"f"), name="f")
        joint = propose(self.layout, [*self.layout.record.members, newcomer])
        assert joint is not None
        self.joint = joint

    def at(self, seconds: float) -> None:
        self.world.loop.time = lambda: seconds

    def store(self, layout: Layout) -> None:
        for machine in self.world.machines.values():
            version = layout.version.to_bytes(4, "big")
            put = {b"layout/" + version: bytes(VALUE_HEADER_BYTES) + layout.data, b"layout latest": bytes(VALUE_HEADER_BYTES) + version}
            machine.storage.databases["sys"].values |= put

    def finds(self) -> str | None:
        try:
            self.oracle.tick()
            asyncio.run(self.oracle.look())
            asyncio.run(self.oracle.finish())
        except Violation as violation:
            return violation.invariant
        return None


@pytest.mark.parametrize("expected", [None, "I16"])
def test_a_layout_that_moves_more_than_it_must_is_noticed(expected: str | None) -> None:
    disks = Disks(MovesAreBounded())
    columns, table = disks.joint.record.new_columns, disks.joint.record.new_table
    rows = [table[at : at + columns] for at in range(0, len(table), columns)]
    others = b"".join(row[::-1] for row in rows)  # who held no chunks does now
    disks.store(Layout(replace(disks.joint.record, new_table=others)) if expected else disks.joint)
    assert disks.finds() == expected


@pytest.mark.parametrize("expected", [None, "I17"])
def test_a_layout_that_gives_one_member_more_than_its_share_is_noticed(expected: str | None) -> None:
    disks = Disks(MovesAreBounded())
    record = disks.layout.record
    rows = [record.old_table[at : at + 5] for at in range(0, len(record.old_table), 5)]
    unfair = b"".join(bytes(sorted(row)) for row in rows)
    disks.store(Layout(replace(record, version=record.version + 1, old_table=unfair if expected else record.old_table)))
    assert disks.finds() == expected


@pytest.mark.parametrize(("have_it", "expected"), [("three of either", None), ("two of the new", "I15"), ("two of the old", "I19")])
def test_a_write_that_is_on_no_majority_of_either_set_is_noticed(
    have_it: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = AckIsDurable()
    disks = Disks(oracle)
    disks.store(disks.joint)
    path = next(f"/{number}/f" for number in range(1000) if disks.joint.is_joint_at(row_partition(f"/{number}/f")))
    old, new = disks.joint.replica_sets(row_partition(path))
    both, leaving = [owner for owner in old if owner in new], [owner for owner in old if owner not in new]
    owners = {"three of either": both[:3], "two of the new": [*both[:2], *leaving], "two of the old": both[:2]}[have_it]
    monkeypatch.setattr("sims.oracles.durability._has_row", lambda machine, write: identity_on(machine) in owners)
    put = Write(1, 0, path, None, 1.0)
    oracle.tick()
    disks.at(2.0)
    if expected is None:
        oracle.acked(put)
    else:
        with pytest.raises(Violation, match=expected):
            oracle.acked(put)


@pytest.mark.parametrize("expected", [None, "I23"])
def test_a_chunk_that_comes_while_nothing_happens_is_noticed(expected: str | None) -> None:
    disks = Disks(NothingMovesInPeace())
    assert disks.finds() is None
    disks.at(1.0)
    disks.oracle.tick()
    disks.at(100.0 if expected else 50.0)
    disks.world.machines["b"].storage.state.names["c/ab/" + "ab" * 32] = SimFile(b"")
    assert (disks.finds() if expected is None else ticked(disks.oracle)) == expected


def ticked(oracle: Oracle) -> str | None:
    try:
        oracle.tick()
    except Violation as violation:
        return violation.invariant
    return None


@pytest.mark.parametrize(("boots", "commits", "expected"), [(0, 0, None), (-1, -1, None), (1, 0, "I20"), (0, 1, "I20")])
def test_a_node_that_runs_with_less_than_others_remember_of_it_is_noticed(boots: int, commits: int, expected: str | None) -> None:
    disks = Disks(NobodyForgets())
    for machine in disks.world.machines.values():
        machine.node = SimpleNamespace(node_id=identity_on(machine))
    one, other = disks.world.machines["a"].storage.databases, disks.world.machines["b"].storage.databases
    boot, *counts = (
        int.from_bytes(one[name].values[key][VALUE_HEADER_BYTES:], "big")
        for name, key in (("sys", b"boot"), ("sys", b"commits"), ("ns", b"commits"))
        if key in one[name].values
    )
    life = Life(boot + boots, bytes(16), sum(counts) + commits)
    node_id = identity_on(disks.world.machines["a"])
    assert node_id is not None
    other["sys"].values[b"life/" + node_id] = bytes(VALUE_HEADER_BYTES) + encode(life)
    assert disks.finds() == expected


def test_a_node_that_was_stopping_when_all_was_mended_runs_again() -> None:
    async def story(world: World) -> None:
        await world.found("ab")
        nemesis = Nemesis(world, Plan(seed=1, faults=(Fault(0.0, "stop", ("b",), 60.0),)), [])
        nemesis.begin()
        while world.machine("b").node is not None:
            await asyncio.sleep(0.001)
        assert world.machine("b").is_up
        await nemesis.end()
        assert world.node("b").name == "b"

    World(1).run(story)


def test_who_runs_with_an_identity_that_a_lying_disk_has_not_kept_is_judged_by_it() -> None:
    disks = Disks(NobodyForgets())
    one, other = disks.world.machines["a"], disks.world.machines["b"]
    former = identity_on(one)
    assert former is not None
    other.storage.databases["sys"].values[b"life/" + former] = bytes(VALUE_HEADER_BYTES) + encode(Life(100, bytes(16), 100))
    one.node, other.node = (SimpleNamespace(node_id=NodeId(bytes([each]) * 32)) for each in b"ab")
    assert disks.finds() is None


@pytest.mark.parametrize(
    ("names", "expected"), [(("f",), None), ((), "I8"), (("f", "f"), "I8"), (("g", "f"), "I8"), (("f", "g"), "I8")]
)
def test_a_listing_is_judged_by_what_was_there_all_the_time(names: tuple[str, ...], expected: str | None) -> None:
    what = history(write(1, "x", 1, 2))
    what.listings.append(Listing(1, 0, "/", names, 3.0, 4.0))
    assert judged(ListingIsComplete(), what) == expected


@pytest.mark.parametrize(
    ("folder", "names", "began", "expected"),
    [("/", ("d",), 3.0, None), ("/", (), 3.0, "I8"), ("/", (), 1.5, None), ("/d", ("e",), 3.0, None), ("/d", (), 3.0, "I8")],
)
def test_a_listing_has_the_folders_of_what_is_there(folder: str, names: tuple[str, ...], began: float, expected: str | None) -> None:
    made = Write(1, 0, "/d/e/f", "x", 1.0)
    made.ends(2.0, OK)
    what = history(made)
    what.listings.append(Listing(1, 0, folder, names, began, 4.0))
    assert judged(ListingIsComplete(), what) == expected


# -- determinism, and the seal -------------------------------------------------


def test_a_draw_outside_the_seed_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    draws = iter(range(10**9))
    monkeypatch.setattr("sims.network.Lan.latency", lambda self, source, target: 0.0005 + next(draws) % 7 / 1e5)
    assert main(["--check-determinism", "--seeds", "1"]) == 1
    assert "differs at event" in capsys.readouterr().out


@pytest.mark.parametrize(
    "escape",
    [
        lambda: time.time(),
        lambda: time.monotonic(),
        lambda: time.sleep(0.001),
        lambda: random.random(),
        lambda: random.choice([1, 2]),
        lambda: __import__("os").urandom(8),
        lambda: __import__("secrets").token_bytes(8),
        lambda: __import__("uuid").uuid4(),
        lambda: __import__("socket").socket(),
        lambda: subprocess.run(["true"], check=True),
        lambda: threading.Thread(target=print).start(),
        lambda: asyncio.get_running_loop().run_in_executor(None, print),
    ],
)
def test_whatever_leaves_the_world_fails_loudly(escape: Callable[[], object]) -> None:
    async def scenario(world: World) -> None:
        escape()

    with pytest.raises((EscapedSimulation, NotImplementedError)):
        World(1).run(scenario)


def test_the_real_world_is_back_when_the_simulated_one_has_ended() -> None:
    async def scenario(world: World) -> None: ...

    World(1).run(scenario)
    assert time.time() > 1e9
    assert 0 <= random.random() < 1


@pytest.mark.parametrize(
    ("story", "error"),
    [
        (lambda: asyncio.get_running_loop().create_future(), Deadlock),
        (lambda: asyncio.sleep(1e6), OutOfTime),
    ],
)
def test_a_run_that_does_not_end_says_why(story: Callable[[], Awaitable[object]], error: type[Exception]) -> None:
    async def scenario(world: World) -> None:
        await story()

    with pytest.raises(error):
        World(1).run(scenario)


def test_a_run_in_which_time_stands_still_says_so() -> None:
    async def scenario(world: World) -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Livelock):
        World(1).run(scenario)


# -- the command ---------------------------------------------------------------


def test_the_command_lists_failure_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "bit-rot" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        "no-such-case",
        "--planted no-such-bug",
        "--replay /no/such/file",
        "--picture x.html",
        "--seeds 0..3 --trace t",
        "torn-tail --trace /no/such/t.txt",
        "torn-tail --seeds 0..3",
        "torn-tail --check-determinism",
        "--check-determinism --seeds 1 --trace t",
        "--seed 4",
        "--machines 3",
        "--planted all --machines 3",
    ],
)
def test_wrong_usage_is_one_line_and_2(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments.split()) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("arguments", ["--seeds 5..5", "--seeds 9..3", "--seeds x", "--jobs 0", "--jobs -1", "--jobs many"])
def test_no_seeds_or_no_workers_are_wrong_usage(arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    assert ended.value.code == 2


def children(process: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.parametrize(
    ("number", "at_worker", "code", "says"),
    [
        (signal.SIGINT, False, 130, "interrupted"),
        (signal.SIGTERM, False, 143, "interrupted"),
        (signal.SIGKILL, True, 3, "a worker process has died"),
    ],
)
def test_whoever_is_interrupted_or_loses_a_worker_ends_in_one_line(number: signal.Signals, at_worker: bool, code: int, says: str) -> None:
    command = [sys.executable, "-m", "sims", "--planted", "all", "--jobs", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        workers: list[int] = []
        while len(workers) < 2:
            assert process.poll() is None
            time.sleep(0.1)
            workers = children(process.pid)
        time.sleep(0.5)
        os.kill(workers[0] if at_worker else process.pid, number)
        told = process.communicate(timeout=30)[1]
    assert process.returncode == code
    assert told.startswith(f"sims: {says}")
    assert told.count("\n") == 1
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_a_failure_is_told_with_its_plan_and_the_command_to_repeat_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = PLANS / "planted" / "dots-reissued.json"
    assert main(["--replay", str(plan), "--picture", str(tmp_path / "p.html"), "--trace", str(tmp_path / "t.txt")]) == 1
    told = capsys.readouterr().out
    assert f"again: python -m sims --replay {plan}" in told
    assert "violated at" in told
    assert '"planted": "dots-reissued"' in told
    assert "I21" in (tmp_path / "p.html").read_text()
    assert "VIOLATION" in (tmp_path / "t.txt").read_text()


def test_nodes_do_not_warn_of_what_was_done_to_them() -> None:
    done = subprocess.run([sys.executable, "-m", "sims", "bit-rot"], capture_output=True, check=True, timeout=60)
    assert done.stderr == b""


def test_a_violation_travels_from_a_worker() -> None:
    violation = pickle.loads(pickle.dumps(Violation("I2", "two copies", 3.5)))
    assert (violation.invariant, violation.text, violation.at) == ("I2", "two copies", 3.5)


def test_many_seeds_are_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "0..2", "--jobs", "2"]) == 0
    told = capsys.readouterr().out
    assert "2 runs" in told
    assert "times real time" in told
    assert main(["--seeds", "9", "--json"]) == 0
    assert '"violation": null' in capsys.readouterr().out


# -- every crash there is ------------------------------------------------------


def power_fails_at(step: int, seed: int) -> bool:
    """Let one of three machines lose its power at its `step`-th operation on the disk from a put on; return whether it came to that."""
    names = ("a", "b", "c")
    world = World(seed)
    switch_on(world, names)
    data = Random(seed).randbytes(300_000)

    async def story(world: World) -> bool:
        await asyncio.gather(*(world.start(name) for name in names))
        await world.members(3)
        client = await world.client("a", "c")
        state = world.machine("b").storage.state
        state.steps_left = step
        for work in (client.put_bytes("/f", data), client.put_bytes("/small", b"1"), client.remove("/small")):
            assert await outcome(work) is None  # the other two are enough
        has_failed = state.steps_left is None
        if has_failed:
            assert not world.machine("b").is_up
            await world.restart("b")
            await world.members(3)
        state.steps_left = None
        world.crash("a")  # what b has now counts
        reader = await world.client("b", "c")
        assert await reader.get_bytes("/f") == data
        with pytest.raises(NoSuchPath):
            await reader.get_bytes("/small")
        return has_failed

    return world.run(story)


async def outcome(work: Awaitable[object]) -> ShoalError | None:
    try:
        await work
    except ShoalError as error:
        return error
    return None


def test_power_may_fail_at_every_operation_of_a_disk_during_a_put() -> None:
    step = 1
    while power_fails_at(step, seed=step):
        step += 1
    assert step > 8
