"""How quickly and how rightly failure detectors judge: `python -m sims.detection` measures on a `sims.mesh` and prints tables.

Four questions. How long until everybody holds a dead member dead? How often is somebody held dead who is not? What does gossip cost a
cluster at rest? Do a thousand members agree again after many came and went at once? Each is a function that tests call with smaller
numbers. The limits stand beside what is measured, and the program ends with 1 where one is exceeded. It takes a quarter of an hour of one
core.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from protocol.identity import NodeId
from protocol.messages import MemberState
from sims.mesh import Mesh

WAIT_SECONDS: Final = 120.0
STALL_SECONDS: Final = 2.0
STALL_EVERY_SECONDS: Final = 60.0
"""Each process stands still once in so long, on average: one in thirty of them at any time."""
LOSS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Detection:
    """Seconds from the end of a member until its peers held it dead."""

    observers: list[float]
    """Of each run, each peer."""
    everywhere: list[float]
    """Of each run, the last one."""
    wrongly: int
    """Others who were held dead meanwhile."""


def detection(members: int, fault: str, runs: int) -> Detection:
    """Let a random member end by a `fault` of `Mesh`, in so many clusters."""
    found = Detection([], [], 0)
    wrongly = 0
    for run in range(runs):
        mesh = Mesh(f"{fault} {members} {run}")
        victim = mesh.random.choice(mesh.formed(members))
        mesh.run(3 + 5 * mesh.random.random())
        began_at = mesh.now
        getattr(mesh, fault)(victim)
        mesh.run(WAIT_SECONDS, until=partial(_is_held_dead, mesh, victim, members - 1))
        deaths = [(at - began_at, change.node_id) for at, _, change in mesh.changes if change.state is MemberState.DEAD]
        times = [seconds for seconds, node in deaths if node == victim]
        times += [math.inf] * (members - 1 - len(times))
        found.observers.extend(times)
        found.everywhere.append(max(times))
        wrongly += sum(node != victim for _, node in deaths)
    return Detection(found.observers, found.everywhere, wrongly)


def _is_held_dead(mesh: Mesh, victim: NodeId, observers: int) -> bool:
    return mesh.believers(victim, MemberState.DEAD) == observers


def wrong_deaths(members: int, node_hours: float, *, loss: float = 0.0, stalls: bool = False) -> int:
    """Return how often a member that runs was held dead by anybody; that others hear of it counts no further."""
    mesh = Mesh(f"healthy {members} {loss} {stalls}", loss=loss)
    for node in mesh.formed(members):
        if stalls:
            mesh.stall_now_and_then(node, STALL_SECONDS, STALL_EVERY_SECONDS)
    deaths: dict[tuple[NodeId, int], None] = {}
    """By whom it hit and in which half minute: what gossip makes of one is one."""
    seconds = node_hours / members * 3600
    while mesh.now < seconds:
        mesh.run(min(10.0, seconds - mesh.now))
        for at, _, change in mesh.changes:
            if change.state is MemberState.DEAD:
                deaths[change.node_id, int(at) // 30] = None
        mesh.changes.clear()
    return len(deaths)


def idle_bytes(members: int, seconds: float) -> float:
    """Return the bytes that a member of a cluster at rest sends per second, in frames of the ctl links."""
    mesh = Mesh(f"idle {members}", count_bytes=True)
    mesh.formed(members)
    mesh.run(5.0)
    before = mesh.sent_bytes
    mesh.run(seconds)
    return (mesh.sent_bytes - before) / members / seconds


def agreement(members: int, joins: int, crashes: int) -> tuple[float, float]:
    """Let members join and crash within ten seconds; return seconds until all agree, and bytes that each sent meanwhile per second.

    Every other crash is a killed process, the rest lose their power. A newcomer is linked with one member alone.
    """
    mesh = Mesh(f"agree {members}", count_bytes=True)
    nodes = mesh.formed(members)
    mesh.run(5.0)
    began_at, before = mesh.now, mesh.sent_bytes
    victims = mesh.random.sample(nodes, crashes)
    staying = [node for node in nodes if node not in victims]
    steps = [("join", mesh.random.choice(staying)) for _ in range(joins)]
    steps += [("kill" if index % 2 else "lose_power", victim) for index, victim in enumerate(victims)]
    mesh.random.shuffle(steps)
    for name, node in steps:
        getattr(mesh, name)(node)
        mesh.run(10.0 / len(steps))
    agreed = mesh.run(WAIT_SECONDS, until=lambda: _agree(mesh))
    seconds = mesh.now - began_at
    return seconds if agreed else math.inf, (mesh.sent_bytes - before) / members / seconds


def _agree(mesh: Mesh) -> bool:
    running = mesh.running()
    digest = mesh.machine(running[0]).digest
    if any(mesh.machine(node).digest != digest for node in running):
        return False
    gone = (MemberState.DEAD, MemberState.LEFT)
    live = [view.node_id for view in mesh.machine(running[0]).members() if view.state not in gone]
    return sorted(live) == sorted(running)


# -- the tables --------------------------------------------------------------

Row = tuple[Sequence[str], bool]
"""Cells, and whether all limits are kept."""


def detection_rows() -> Iterator[Row]:
    """Yield what the first question is answered by."""
    for fault, name in (("kill", "kill -9"), ("lose_power", "power loss")):
        for members, runs in ((5, 400), (10, 200), (100, 100)):
            median, most = (1.0, 3.0) if fault == "kill" else (9.0 if members == 100 else 6.0, 15.0)
            found = detection(members, fault, runs)
            figures = [share(times, of) for times in (found.observers, found.everywhere) for of in (0.5, 0.99)]
            kept = figures[2] <= median and figures[3] <= most and not found.wrongly
            cells = [name, f"{members}", f"{runs}", *(f"{figure:.2f}" for figure in figures), f"{median:.0f} / {most:.0f}"]
            yield [*cells, f"{found.wrongly}"], kept


def wrong_rows() -> Iterator[Row]:
    """Yield what the second question is answered by."""
    for members in (5, 10, 100):
        for name, loss, stalls in ((f"{LOSS:.0%} loss", LOSS, False), (f"{STALL_SECONDS:.0f} s stalls, one a minute", 0.0, True)):
            deaths = wrong_deaths(members, 100.0, loss=loss, stalls=stalls)
            yield [name, f"{members}", f"{deaths}", "1"], deaths <= 1


def idle_rows() -> Iterator[Row]:
    """Yield what the third question is answered by."""
    least = math.inf
    for members, seconds in ((10, 600.0), (100, 600.0), (1000, 400.0)):
        rate = idle_bytes(members, seconds)
        least = min(least, rate)
        yield [f"{members}", f"{rate:.1f}", "factor 2"], rate <= 2 * least


def agreement_rows() -> Iterator[Row]:
    """Yield what the fourth question is answered by."""
    seconds, rate = agreement(1000, 50, 50)
    yield ["1000", "50", "50", f"{seconds:.1f}", f"{rate:.0f}"], seconds < math.inf


def share(values: Sequence[float], of: float) -> float:
    """Return the value that a share of all does not exceed."""
    return sorted(values)[math.ceil(of * len(values)) - 1]


TABLES: Final = (
    (
        "Seconds until a member that has ended is held dead",
        "fault|members|runs|p50 of peers|p99 of peers|p50 of the last|p99 of the last|limits of the last|others held dead",
        detection_rows,
    ),
    ("Members that run and were held dead, by anybody, in 100 node-hours", "trouble|members|deaths|limit", wrong_rows),
    ("Bytes that a member of a cluster at rest sends per second", "members|bytes|limit", idle_rows),
    ("Agreement after members came and went within 10 s", "members|joins|crashes|seconds|bytes per member and second", agreement_rows),
)


def main() -> int:
    """Print all tables; return the exit code."""
    kept = True
    for title, head, rows in TABLES:
        names = head.split("|")
        _print(f"\n{title}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
        for cells, is_kept in rows():
            kept = kept and is_kept
            _print(f"| {' | '.join(cells)} |{'' if is_kept else ' <- exceeded'}")
    return 0 if kept else 1


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
