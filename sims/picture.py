"""A run as a picture: one page of HTML that needs nothing else, with time from left to right and a lane for each machine and each client.

What is drawn is computed here, from the trace alone; `picture.js` draws it, and `picture.css` has the colours.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from typing import Any, Final

from sims.network import machine_of
from sims.oracles import Violation
from sims.plan import FAULTS
from sims.trace import KINDS, Event, Trace

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "phase": ("begin", "mended", "recovering", "judged", "VIOLATION"),
    "life": ("start", "stop", "killed", "power-cut", "paused", "resumed", "wiped", "put-back"),
    "fault": ("fault", "sometimes"),
    "message": ("bytes",),
    "link": ("connected", "refused", "no-answer", "reset", "cut", "slow", "whole"),
    "disk": ("write", "rename", "unlink"),
    "durable": ("sync", "sync-folder", "commit"),
    "damage": ("read-error", "sync-error", "misdirected", "rotten", "unreadable", "torn"),
    "operation": ("put", "get", "remove", "list", "stat", "copy", "move", "mkdir", "rmdir", "done"),
}
"""How the kinds of events are drawn."""
LASTING: Final = ("partition", "bridge", "one-way", "swizzle", "slow-link", "slow-disk", "full-disk", "lying-disk")
"""Faults that last as long as they say. Of the others the lanes show how long a process was away."""
ENDS: Final = {"stop": "stopped", "killed": "killed", "power-cut": "no power", "wiped": "wiped"}
"""What a machine is like after the event that ended its process."""
READS: Final = ("get", "stat", "list")
CLIENT = "client"
CLIENT_LANES = 5
"""So many clients have each a lane of their own; more share lanes."""
NAME_SHARE = 1 / 14
"""The name of a fault takes so much of the width of the whole run."""
LINES = 200
"""So many of the last events stand on the page as text."""
SECONDS_BEFORE = 10.0
"""The first view begins so long before the violation, or earlier if what the violation speaks of did."""


def picture(trace: Trace, title: str, violation: Violation | None) -> str:
    """Return a page of HTML that needs nothing else."""
    run = _Run(trace, violation)
    events = list(trace.events)
    if violation is None:
        verdict = '<p id="verdict" class="kept">Every promise was kept.</p>'
    else:
        verdict = (
            f'<p id="verdict" class="broken"><strong>{escape(violation.invariant)}</strong> is violated at {violation.at:.3f} s: '
            f"{escape(violation.text)}</p>"
        )
    summary = (
        f"{run.end:.1f} virtual seconds, {len(events):,} events; machines: {', '.join(run.machines) or 'none'}; "
        f"clients: {', '.join(run.clients) or 'none'}; {len(run.operations)} operations; {len(run.faults)} faults."
    )
    lines = "\n".join(event.line() for event in events[-LINES:])
    return _PAGE.format(
        title=escape(title),
        style=_resource("picture.css"),
        script=_resource("picture.js"),
        verdict=verdict,
        summary=escape(summary),
        legend=_legend(events),
        count=min(LINES, len(events)),
        lines=escape(lines),
        # In a script element nothing is unescaped, and "</script>" or "<!--" in a string would end or change it.
        data=json.dumps(run.to_json(violation), separators=(",", ":")).replace("<", "\\u003c"),
    )


def _resource(name: str) -> str:
    return files("sims").joinpath(name).read_text()


def _legend(events: list[Event]) -> str:
    """Return the rows of the legend: which kinds of events and faults occur, and what they are."""
    occurring = {event.kind for event in events}
    whats = {str(event.fields.get("what")) for event in events if event.kind == "fault"}
    rows = [
        f'<dt class="{group}">{escape(kind)}</dt><dd>{escape(KINDS[kind])}</dd>'
        for group, kinds in GROUPS.items()
        for kind in kinds
        if kind in occurring
    ]
    rows += [f'<dt class="fault">{escape(what)}</dt><dd>{escape(text)}</dd>' for what, text in FAULTS.items() if what in whats]
    return "\n".join(rows)


@dataclass(slots=True)
class _Operation:
    """What one client did: a bar."""

    number: int | str
    host: str
    kind: str
    path: str
    began: float
    ended: float | None = None
    result: str = ""
    row: int = 0
    is_named: bool = False
    """Whether the violation speaks of it."""

    def to_json(self) -> tuple[Any, ...]:
        """Return what is drawn of it, but its lane."""
        of_whom = self.number, self.host, self.kind, self.path, self.result
        return self.row, self.began, self.ended, *of_whom, self.look(), self.kind in READS, self.is_named

    def end(self, event: Event, result: str) -> None:
        """Note when it ended, and how."""
        self.ended = event.nanoseconds / 1e9
        self.result = result

    def look(self) -> str:
        """Return the class of its colour."""
        if self.ended is None:
            return "open"
        if self.result in ("ok", "absent"):
            return "ok"
        return "unknown" if self.result in ("unknown", "died", "given-up") else "failed"


@dataclass(slots=True)
class _Rows:
    """Rows in a lane, so that what goes on at once is not drawn over each other."""

    most: int = 12
    """Where there are more at once, some are drawn over others all the same."""
    free_at: list[float] = field(default_factory=list)

    def take(self, begin: float, end: float) -> int:
        """Return the first row that is free, or the one that is free soonest when there are rows enough."""
        row = next((row for row, free_at in enumerate(self.free_at) if free_at <= begin), len(self.free_at))
        if row == self.most:
            row = self.free_at.index(min(self.free_at))
        self.free_at[row : row + 1] = [end]
        return row


class _Run:
    """What of a trace is drawn."""

    def __init__(self, trace: Trace, violation: Violation | None) -> None:
        self._events = list(trace.events)
        last = self._events[-1].nanoseconds / 1e9 if self._events else 0.0
        self.end = max(last, violation.at if violation is not None else 0.0, 0.001)
        hosts = {name: None for event in self._events for name in event.host.split(",")}
        names = {machine_of(host): None for host in hosts}
        on_disk = {machine_of(event.host) for event in self._events if event.kind in (*GROUPS["disk"], *GROUPS["durable"], "start")}
        self.clients = sorted((name for name in names if name.startswith(CLIENT)), key=lambda name: (len(name), name))
        self.machines = sorted(name for name in names if name in on_disk and name not in self.clients)
        known = {*self.clients, *self.machines, "world"}
        others = sorted({name.rstrip("0123456789") for name in names if name not in known})
        self._lanes = [*([name] for name in self.machines), *self._lanes_of_clients(), *([name] for name in others)]
        self._lane_of = {name: lane for lane, names in enumerate(self._lanes) for name in names}
        self.operations = self._find_operations(violation)
        self.faults = self._find_faults()
        self._lives = self._find_lives()
        self._cuts = self._find_cuts()

    def to_json(self, violation: Violation | None) -> dict[str, Any]:
        """Return all that the script needs."""
        hosts: dict[str, int] = {}
        shapes: dict[tuple[str, ...], int] = {}
        rows = []
        for event in self._events:
            host = hosts.setdefault(event.host, len(hosts))
            shape = shapes.setdefault((event.kind, *event.fields), len(shapes))
            rows.append([event.nanoseconds, host, shape, *event.fields.values()])
        return {
            "end": self.end,
            "violation": None if violation is None else {"at": violation.at, "name": violation.invariant, "text": violation.text},
            "from": self._first_moment(violation),
            "lanes": [[names, self._sort(names[0])] for names in self._lanes],
            "hosts": [[host, self._lane(host)] for host in hosts],
            "groups": {kind: group for group, kinds in GROUPS.items() for kind in kinds},
            "shapes": list(shapes),
            "events": rows,
            "operations": [(self._lane(each.host), *each.to_json()) for each in self.operations],
            "faults": self.faults,
            "lives": self._lives,
            "cuts": self._cuts,
        }

    # -- inside --------------------------------------------------------------

    def _sort(self, name: str) -> str:
        return "machine" if name in self.machines else "client" if name in self.clients else "other"

    def _lanes_of_clients(self) -> list[list[str]]:
        """Return the clients of each lane: where there are many, those follow on one another that are not busy at once."""
        if len(self.clients) <= CLIENT_LANES:
            return [[client] for client in self.clients]
        busy: dict[str, list[float]] = {client: [] for client in self.clients}
        for event in self._events:
            if event.kind in GROUPS["operation"] and machine_of(event.host) in busy:
                busy[machine_of(event.host)].append(event.nanoseconds / 1e9)
        rows = _Rows(most=len(self.clients))
        lanes: dict[int, list[str]] = {}
        for client, times in sorted(busy.items(), key=lambda item: item[1][:1]):
            lanes.setdefault(rows.take(times[0], times[-1]) if times else 0, []).append(client)
        return sorted(lanes.values(), key=lambda clients: self.clients.index(clients[0]))

    def _lane(self, host: str) -> int:
        """Return the number of the lane of a host, -1 when it has none."""
        name = machine_of(host)
        return self._lane_of.get(name, self._lane_of.get(name.rstrip("0123456789"), -1))

    def _first_moment(self, violation: Violation | None) -> float:
        """Return where the first view begins."""
        if violation is None:
            return 0.0
        return max(0.0, min([violation.at - SECONDS_BEFORE, *(each.began - 1.0 for each in self.operations if each.is_named)]))

    def _find_operations(self, violation: Violation | None) -> list[_Operation]:
        found: list[_Operation] = []
        under_way: dict[int | str, _Operation] = {}
        for event in self._events:
            number = event.fields.get("n", "")
            if event.kind == "done":
                if number in under_way:
                    under_way.pop(number).end(event, str(event.fields["result"]))
            elif event.kind == "killed":
                for operation in [each for each in under_way.values() if each.host == event.host]:
                    under_way.pop(operation.number).end(event, "died")
            elif event.kind in GROUPS["operation"]:
                path = " → ".join(str(event.fields[key]) for key in ("path", "to") if key in event.fields)
                under_way[number] = _Operation(number, event.host, event.kind, path, event.nanoseconds / 1e9)
                found.append(under_way[number])
        rows: dict[int, _Rows] = {}
        for operation in found:
            ended = self.end if operation.ended is None else operation.ended
            operation.row = rows.setdefault(self._lane(operation.host), _Rows()).take(operation.began, ended)
        if violation is not None:
            _name(found, violation.text)
        return found

    def _find_faults(self) -> list[list[int | float | str]]:
        """Return row, begin, end (that of a moment is its begin), what, hosts and a text of each fault."""
        mended = next((event.nanoseconds / 1e9 for event in self._events if event.kind == "mended"), self.end)
        rows = _Rows(most=6)
        found: list[list[int | float | str]] = []
        for event in self._events:
            if event.kind == "fault":
                what, began, hosts = str(event.fields["what"]), event.nanoseconds / 1e9, event.host
                if what == "client-death":
                    hosts = f"{CLIENT}{event.fields.get('n', 0)}"
                elif what == "one-way":
                    hosts = hosts.partition(",")[0]
                seconds = float(event.fields.get("seconds", 0)) if what in LASTING else 0.0
                ended = max(began, min(began + seconds, mended))
                # A name is readable if nothing else stands where it is written.
                row = rows.take(began, max(ended, began + self.end * NAME_SHARE))
                found.append([row, began, ended, what, hosts, FAULTS.get(what, "")])
        return found

    def _find_lives(self) -> list[list[int | float | str]]:
        """Return lane, begin, end, state and label of what each machine is like over time."""
        found: list[list[int | float | str]] = []
        now: dict[int, tuple[float, str, str]] = dict.fromkeys(range(len(self.machines)), (0.0, "off", ""))
        pauses: dict[str, float] = {}

        def turn(lane: int, at: float, state: str, label: str) -> None:
            began, before, text = now[lane]
            if at > began:
                found.append([lane, began, at, before, text])
            now[lane] = (at, state, label)

        for event in self._events:
            lane, at = self._lane(event.host), event.nanoseconds / 1e9
            if event.kind == "resumed" and event.host in pauses:
                found.append([lane, pauses.pop(event.host), at, "paused", "paused"])
            elif event.kind == "paused":
                pauses[event.host] = at
            elif lane not in now:
                continue
            elif event.kind == "start":
                turn(lane, at, "up", event.host)
            elif event.kind in ENDS:
                turn(lane, at, "down", ENDS[event.kind])
        for lane in now:
            turn(lane, self.end, "", "")
        found += [[self._lane(host), began, self.end, "paused", "paused"] for host, began in pauses.items()]
        return found

    def _find_cuts(self) -> list[list[int | float | str]]:
        """Return lane, begin, end, state and partner of everything that a machine sends in vain, or slowly."""
        found: list[list[int | float | str]] = []
        now: dict[tuple[str, str], tuple[float, str]] = {}
        for event in self._events:
            if event.kind not in ("cut", "slow", "whole"):
                continue
            pair, at = (event.host, str(event.fields["to"])), event.nanoseconds / 1e9
            if pair in now:
                began, state = now.pop(pair)
                found.append([self._lane(pair[0]), began, at, state, pair[1]])
            if event.kind != "whole":
                now[pair] = (at, event.kind)
        found += [[self._lane(source), began, self.end, state, target] for (source, target), (began, state) in now.items()]
        return found


def _name(operations: list[_Operation], text: str) -> None:
    """Mark the operations that a violation speaks of: by their numbers, else the last two on a path that it has."""
    numbers = {int(number) for number in re.findall(r"\b(?:write|read|number) (\d+)", text)}
    for operation in operations:
        operation.is_named = operation.number in numbers
    if not numbers:
        for path in re.findall(r"/[\w./-]*\w", text):
            for operation in [each for each in operations if path in each.path.split(" → ")][-2:]:
                operation.is_named = True


_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1><code>{title}</code></h1>
{verdict}
</header>
<div id="tools" role="toolbar" aria-label="view">
<button type="button" id="whole" title="the whole run (0)">whole run</button>
<button type="button" id="before" title="the moments before the violation (v)">before the violation</button>
<button type="button" id="in" title="zoom in (+)" aria-label="zoom in">+</button>
<button type="button" id="out" title="zoom out (-)" aria-label="zoom out">−</button>
<button type="button" id="left" title="earlier (arrow left)" aria-label="earlier">◀</button>
<button type="button" id="right" title="later (arrow right)" aria-label="later">▶</button>
<label for="filter">only</label>
<input id="filter" type="search" placeholder="a#1 sync, or: /f4 -bytes" autocomplete="off" spellcheck="false">
<button type="button" id="previous" title="the event before (p)">previous</button>
<button type="button" id="next" title="the next event (n)">next</button>
<label><input type="checkbox" id="messages" checked> messages</label>
<label><input type="checkbox" id="disks" checked> disks</label>
<output id="count"></output>
</div>
<ul id="key" aria-label="colours">
<li><i class="ok"></i>done</li><li><i class="failed"></i>failed</li><li><i class="unknown"></i>outcome unknown, or client died</li>
<li><i class="open"></i>under way at the end</li><li><i class="read"></i>pale: it only reads</li><li><i class="up"></i>process runs</li>
<li><i class="down"></i>no process</li><li><i class="paused"></i>stands still</li>
<li><i class="fault"></i>fault, or rare path on purpose</li>
<li><i class="cut"></i>what it sends is cut off or slow</li><li><i class="disk"></i>written</li><li><i class="durable"></i>durable</li>
<li><i class="damage"></i>disk damage</li>
<li><b class="link">○</b> connected</li><li><b class="cut">×</b> reset</li><li><b>×</b> no way in</li>
<li><i class="message"></i>bytes in (above) and out (below); arrows when few</li>
<li><i class="named"></i>named in the violation</li>
</ul>
<canvas id="overview" aria-hidden="true"></canvas>
<canvas id="timeline" tabindex="0" role="img" aria-label="Timeline. {summary} The last events are below as text."></canvas>
<section id="panel" aria-label="events near the pointer">
<h2 id="where">Point at the timeline; a click holds what is shown.</h2>
<pre id="near" tabindex="0" aria-live="polite"></pre>
</section>
<details>
<summary>How to move, and what the words mean</summary>
<p>The wheel zooms where the pointer is (over the names at the left it scrolls the page), dragging moves, a double click zooms in.
Keys, once the timeline has the focus: <kbd>←</kbd> <kbd>→</kbd> move, <kbd>+</kbd> <kbd>-</kbd> zoom, <kbd>0</kbd> the whole run,
<kbd>v</kbd> the violation, <kbd>n</kbd> <kbd>p</kbd> the next and the previous event, <kbd>Esc</kbd> lets go.
The filter takes words that an event has in its line, and after a minus those that it has not.</p>
<dl>
{legend}
</dl>
</details>
<details>
<summary>The last {count} events as text</summary>
<p>{summary}</p>
<pre id="last">{lines}</pre>
</details>
<script type="application/json" id="run">{data}</script>
<script>
{script}</script>
</body>
</html>
"""
