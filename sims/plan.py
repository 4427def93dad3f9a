"""A run as a value: the cluster, what its clients do, what goes wrong, and when. Printable, editable, and small where it has been reduced.

What a plan does not say (delays, orders, what of an unsynced file survives) follows from its seed, in streams that do not disturb each
other: a fault that is taken out leaves the rest as it was, as far as that can be.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from random import Random
from typing import Any, Final, TypeVar, get_origin, get_type_hints

from protocol.paths import is_canonical

T = TypeVar("T")

NAMES: Final = ("a", "b", "c", "d", "e", "f", "g")
LOSSES_MAX: Final = 2
"""So many machines may lose or damage what they have stored, or be gone for good, and nothing may be lost: R-1."""

OPERATIONS: Final = ("put", "get", "remove", "list", "stat", "copy", "move", "mkdir", "rmdir")
FAULTS: Final[Mapping[str, str]] = {
    "power-cut": "the machine loses its power; whoever is connected sees a reset",
    "silent-power-cut": "the machine loses its power; nobody is told",
    "kill": "the process dies, the machine goes on",
    "crash-at-step": "the machine loses its power at its n-th operation on the disk from now on",
    "stop": "the node is stopped in good order",
    "restart-storm": "the process dies several times, each time soon after its start",
    "blackout": "all machines lose their power at once",
    "pause": "the process stands still",
    "partition": "two groups of machines do not hear each other",
    "one-way": "one machine is not heard by others, and hears them",
    "bridge": "two groups do not hear each other; one machine hears both",
    "swizzle": "machines are clogged one by one, and set free in another order",
    "reset": "all connections between two machines break",
    "slow-link": "a few KB per second pass between two machines",
    "slow-disk": "every operation on the disk takes a hundred times as long",
    "full-disk": "nothing more fits on the disk",
    "sync-error": "the next sync fails, and the node stops",
    "lying-disk": "syncs of files do nothing; at the next power cut that shows",
    "rot-chunk": "a bit of a chunk flips on the disk",
    "rot-row": "a bit of a row flips in the database",
    "unreadable": "a chunk lies on a bad place of the disk",
    "misdirect": "a chunk is written over another one",
    "lost-index": "the index of chunks is damaged while the node does not run",
    "lost-rows": "the database of rows is lost or damaged while the node does not run",
    "wipe": "the machine comes back with an empty disk",
    "rollback": "the machine loses its power and comes back with the disk that it had when this began",
    "clone": "a copy of the disk is started: beside the machine, or in its place, and the machine comes back later",
    "join": "a machine that nobody has seen before joins, and stays",
    "leave": "a machine leaves the cluster in good order, for good or to join again as a fresh one",
    "clock-jump": "the wall clock jumps",
    "garbage": "somebody with the key sends a machine bytes that are no protocol, or lengths that are too large",
    "client-death": "a client process dies in the middle of what it does",
}
"""Every kind of fault, and what it is."""
_MACHINES: Final = {"client-death": 0, "swizzle": 0, "reset": 2, "slow-link": 2, "clone": 2}
"""So many machines does a fault need that does not need one."""
DAMAGING: Final = ("lying-disk", "rot-chunk", "rot-row", "unreadable", "misdirect", "lost-index", "lost-rows", "wipe", "rollback", "clone")
"""Faults that only machines of `Plan.fragile` may meet."""
RETIRING: Final = ("wipe", "rollback", "clone")
"""Faults after which a machine begins anew as another one."""
CHANGES: Final = ("join", "leave", "clone")
"""Changes of membership: they are drawn for themselves."""
CUTS: Final = ("partition", "one-way", "bridge", "swizzle", "slow-link")
"""Two machines of one id that do not meet, each with half of the others, would be two majorities: no copy of a disk runs beside these."""
RETURNS: Final = 1
"""The number of a `leave` after which the machine comes back; the seconds are those it stays away."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of one client."""

    at: float
    """Seconds after the cluster has formed."""
    client: int
    kind: str
    path: str
    size: int = 0
    target: str = ""
    """Of a copy or a move."""
    retry_by: int = -1
    """The client that repeats it when its outcome is not known; -1: nobody."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong."""

    at: float
    kind: str
    machines: tuple[str, ...] = ()
    seconds: float = 0.0
    """How long it lasts, or how long the machine is down."""
    number: int = 0
    """Which chunk, which step, how many times, how many milliseconds: as the kind needs."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    seed: int
    machines: int = 5
    clients: int = 3
    seconds: float = 40.0
    """How long operations and faults go on. Then everything is mended, and the cluster has to recover."""
    founding: bool = False
    """Whether the cluster is founded in this run; else it has formed before, and its machines are switched on together."""
    gone: tuple[str, ...] = ()
    """Machines that are gone for good when everything else is mended."""
    fragile: tuple[str, ...] = ()
    """Machines whose disks may damage or lose what they have."""
    evict_after: float = 0.0
    """How long a dead member is waited for until it is left out; 0: as long as in reality, which is longer than any run."""
    label_share: float = 0.25
    call_share: float = 0.05
    operations: tuple[Operation, ...] = ()
    faults: tuple[Fault, ...] = ()
    planted: str = ""
    """The bug that is planted in the node, for whoever tests the simulator."""
    comment: str = ""
    """Where the plan comes from, for people."""

    @property
    def names(self) -> tuple[str, ...]:
        """The machines."""
        return NAMES[: self.machines]

    def fault(self) -> str:
        """Return why this plan asks for more than is promised or cannot be carried out; empty if it does not."""
        names = set(self.names)
        lossy = [*self.fragile, *self.gone]  # who is both counts twice: an identity is lost, and then its successor
        if not names.issuperset(lossy):
            return f"it has machines {', '.join(sorted(set(lossy) - names))} that the cluster does not have"
        leavers = {name for fault in self.faults if fault.kind == "leave" for name in fault.machines[:1]} & names
        most = losses_max(self.machines, len(leavers), self.evict_after)
        if len(lossy) > most:
            return f"it asks for {len(lossy)} losses of what machines have, and the promise holds for {most}"
        if not (1 <= self.machines <= len(NAMES) and self.clients >= 1 and min(self.seconds, self.evict_after) >= 0):
            return f"a plan has 1 to {len(NAMES)} machines, a client at least, and lasts for a while"
        for fault in self.faults:
            if fault.kind not in FAULTS:
                return f"there is no fault {fault.kind!r}"
            if fault.kind == "slow-link" and fault.number < 1:
                return f"a slow link at {fault.at} lets at least 1 byte per second pass"
            new = _newcomers(fault)
            others = {name for other in self.faults if other is not fault for name in _newcomers(other)}
            if not set(NAMES[self.machines :]).issuperset(new) or others.intersection(new):
                return f"{fault.kind} at {fault.at} is of a machine that the cluster has already, or that has no name"
            if not set(NAMES if fault.kind == "leave" else (*self.names, *new)).issuperset(fault.machines):
                return f"{fault.kind} at {fault.at} is for machines that the cluster does not have"
            if len(fault.machines) < _MACHINES.get(fault.kind, 1):
                return f"{fault.kind} at {fault.at} is for too few machines"
            if min(fault.at, fault.seconds) < 0 or (fault.number < 0 and fault.kind != "clock-jump"):
                return f"{fault.kind} at {fault.at} has a moment, a duration or a number below 0"
            if fault.kind == "client-death" and fault.number >= self.clients:
                return f"{fault.kind} at {fault.at} is of a client that there is not"
            if fault.kind == "clone" and any(other.kind in CUTS for other in self.faults):
                return f"{fault.kind} at {fault.at} is in a run in which machines are cut off: those of one id have to meet"
            if fault.kind in DAMAGING and not set(self.fragile).issuperset(set(fault.machines) - set(new)):
                return f"{fault.kind} at {fault.at} damages a machine that is not among the fragile ones"
            if _is_second_loss(fault, [each for each in self.faults if each.at < fault.at]):
                return f"{fault.kind} at {fault.at} damages a machine that was wiped or put back before: it has lost enough"
        for operation in self.operations:
            if operation.kind not in OPERATIONS:
                return f"there is no operation {operation.kind!r}"
            if not (0 <= operation.client < self.clients and operation.retry_by < self.clients):
                return f"{operation.kind} at {operation.at} is by a client that there is not"
            paths = [operation.path, operation.target] if operation.kind in ("copy", "move") else [operation.path]
            if not all(map(is_canonical, paths)) or min(operation.at, operation.size) < 0:
                return f"{operation.kind} at {operation.at} has no path of the form /a/b, or a moment or a size below 0"
        return ""

    def to_json(self) -> str:
        """Return the plan as text: one line per operation and fault."""
        data = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("operations", "faults")}
        head = json.dumps(data)[:-1]
        lines = [f'{head}, "operations": [']
        lines.append(",\n".join(f"  {json.dumps(_short(operation))}" for operation in self.operations))
        lines.append('], "faults": [')
        lines.append(",\n".join(f"  {json.dumps(_short(fault))}" for fault in self.faults))
        lines.append("]}")
        return "\n".join(line for line in lines if line) + "\n"


class BadPlan(Exception):
    """A file that is no plan, or a plan that cannot be carried out."""


def plan_from_json(text: str) -> Plan:
    """Return the plan that `text` is.

    Raises: BadPlan.
    """
    try:
        data = json.loads(text)
        operations = tuple(_made(Operation, each) for each in data.pop("operations", ()))
        faults = tuple(_made(Fault, each) for each in data.pop("faults", ()))
        plan = replace(_made(Plan, data), operations=operations, faults=faults)
        fault = plan.fault()
    except (ValueError, TypeError, AttributeError) as error:
        raise BadPlan(f"it is no plan: {error}") from None
    if fault:
        raise BadPlan(fault)
    return plan


def _made(kind: type[T], data: Mapping[str, Any]) -> T:
    """Return a value of `kind` from what JSON has of it.

    Raises: TypeError.
    """
    made = kind(**{key: tuple(item) if isinstance(item, list) else item for key, item in data.items()})
    for name, wanted in get_type_hints(kind).items():
        value = getattr(made, name)
        is_right = type(value) is (get_origin(wanted) or wanted) or (wanted is float and type(value) is int)
        if not is_right:
            raise TypeError(f"{name} is {value!r}")
    return made


def _short(value: Operation | Fault) -> dict[str, Any]:
    """Leave out what is as it is when nobody says anything."""
    return {each.name: getattr(value, each.name) for each in fields(value) if getattr(value, each.name) != each.default}


# -- from a seed ---------------------------------------------------------------

OPERATIONS_PER_SECOND: Final = 5.0
FAULTS_PER_SECOND: Final = 0.4
SMALL_SIZES: Final = (0, 1, 20, 100, 1000, 4096)
SIZES: Final = (65_535, 65_536, 65_537, 100_000, 262_144, 262_145, 700_000)
"""Around the bounds of what lies in a row and of one chunk."""
LOOKED_AT_SHARE: Final = 0.3
LOOKED_AT_SECONDS: Final = 1.5
LARGE_SHARE: Final = 0.4
"""Most files are small."""
FOLDER_LIFE_SHARE: Final = 0.04
FOLDER_LIFE_SECONDS: Final = 0.6
"""After so many of the operations a folder is made, filled and removed by different clients, all within so long."""
FOUNDING_SHARE: Final = 0.05
JOINERS_MAX: Final = 2
JOIN_SHARE: Final = 0.3
"""Each of JOINERS_MAX machines beyond those of the cluster turns up in so many runs."""
DAMAGE_SHARE: Final = 0.5
"""In so many runs disks do worse than to lose power."""
CHANGING_SHARE: Final = 0.3
"""In so many runs members leave, are left out when they are away, or meet a copy of themselves."""
LONG_SHARE: Final = 0.3
LONG_SECONDS: Final = 120.0
"""So many of these go on for so long: somebody may join, leave and join again."""
COPIED_SHARE: Final = 0.4
EVICT_AFTER: Final = (0.0, 6.0, 12.0, 25.0)


@dataclass(slots=True)
class _Mood:
    """What a run of the swarm is like: which faults there are at all, and how often (Groce et al., "Swarm testing", ISSTA 2012)."""

    kinds: list[str]
    weights: list[float]
    fragile: list[str] = field(default_factory=list)


def plan_from_seed(seed: int, *, machines: int = 5, seconds: float = 40.0, planted: str = "") -> Plan:
    """Return the plan of the swarm that `seed` stands for."""
    random, changes = Random(f"plan {seed}"), Random(f"changes {seed}")
    is_changing = changes.random() < CHANGING_SHARE
    if is_changing and changes.random() < LONG_SHARE:
        seconds = max(seconds, LONG_SECONDS)
    names = NAMES[:machines]
    lossy = random.sample(names, min(LOSSES_MAX, machines - 1)) if random.random() < 0.8 and machines > 2 else []  # of two both are needed
    gone = tuple(sorted(name for name in lossy if random.random() < 0.4))
    fragile = [name for name in lossy if name not in gone] if random.random() < DAMAGE_SHARE else []
    mood = _mood(random, sorted(fragile))
    clients = random.randint(2, 5)
    faults: list[Fault] = []
    at = 0.0
    rate = FAULTS_PER_SECOND * random.choice((0.3, 1.0, 1.0, 2.0))
    while mood.kinds:
        at += random.expovariate(rate)
        if at >= seconds:
            break
        fault = _fault(random, round(at, 3), mood, names, clients, seconds)
        if not _is_second_loss(fault, faults):
            faults.append(fault)
    faults += _joins(Random(f"joins {seed}"), NAMES[machines : machines + JOINERS_MAX], seconds)
    plan = Plan(
        seed=seed,
        machines=machines,
        clients=clients,
        seconds=seconds,
        founding=random.random() < FOUNDING_SHARE,
        gone=gone,
        fragile=tuple(sorted(fragile)),
        label_share=random.choice((0.0, 0.3, 0.6, 1.0)),
        call_share=random.choice((0.01, 0.05)),
        operations=_operations(Random(f"operations {seed}"), clients, seconds),
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
        planted=planted,
    )
    return _changing(plan, changes) if is_changing else plan


def losses_max(machines: int, leavers: int, evict_after: float) -> int:
    """Return how many of `machines` machines may lose what they have or be gone, if so many of them leave.

    The others have to be a majority in any case. Who is away may be left out, down to as many members as a chunk has copies.
    """
    staying = (min(machines, LOSSES_MAX + 1) if evict_after else machines) - leavers
    return min(LOSSES_MAX, max(0, (staying - 1) // 2)) if leavers or evict_after else LOSSES_MAX


def _changing(plan: Plan, random: Random) -> Plan:
    """Return a plan with changes of membership, and no more losses than these allow."""
    evict_after = random.choice(EVICT_AFTER)
    joined = {fault.machines[0]: fault.at for fault in plan.faults if fault.kind == "join"}
    spare = [name for name in NAMES[plan.machines :] if name not in joined]
    copied = random.choice(plan.names) if spare and random.random() < COPIED_SHARE else ""
    leavers = random.sample(plan.names, min(random.choice((0, 1, 1, 2)), plan.machines))
    most = losses_max(plan.machines, len(leavers), evict_after)
    copied = copied if most else ""
    changes = []
    for name in [*leavers, *(name for name in joined if random.random() < 0.5)]:
        at = round(random.uniform(joined.get(name, 0.0), plan.seconds), 3)
        changes.append(Fault(at, "leave", (name,), round(random.uniform(0.0, 20.0), 3), random.choice((0, RETURNS))))
    faults = list(plan.faults)
    if copied:
        at, long = round(random.uniform(0.0, plan.seconds / 2), 3), round(random.uniform(8.0, 25.0), 3)
        clone = Fault(at, "clone", (copied, spare[0]), long, random.randrange(2))
        retiring = any(fault.kind in RETIRING and fault.machines[0] == copied and fault.at < at for fault in faults)
        faults = [fault for fault in faults if fault.kind not in CUTS and not _is_second_loss(fault, [clone])]
        changes += [clone] if not retiring else []
    fragile = tuple(sorted([*filter(None, [copied]), *(name for name in plan.fragile if name != copied)][:most]))
    gone = tuple(name for name in plan.gone if name != copied)[: most - len(fragile)]
    faults = [fault for fault in faults if fault.kind not in DAMAGING or fault.machines[0] in fragile]
    ordered = tuple(sorted([*faults, *changes], key=lambda fault: fault.at))
    return replace(plan, faults=ordered, fragile=fragile, gone=gone, evict_after=evict_after)


def _newcomers(fault: Fault) -> tuple[str, ...]:
    """Return the machines that nobody has seen before a fault."""
    return {"join": fault.machines, "clone": fault.machines[1:]}.get(fault.kind, ())


def _is_second_loss(fault: Fault, before: Sequence[Fault]) -> bool:
    """Return whether a fault damages a machine that has lost its identity: its successor would be the next loss."""
    return fault.kind in DAMAGING and any(
        each.kind in RETIRING and each.machines[:1] == fault.machines[:1] and each.at <= fault.at for each in before
    )


def _joins(random: Random, names: Sequence[str], seconds: float) -> list[Fault]:
    """Return who turns up: early, for it is half a minute before a newcomer is let in."""
    return [Fault(round(random.uniform(0.0, seconds / 2), 3), "join", (name,)) for name in names if random.random() < JOIN_SHARE]


def _mood(random: Random, fragile: list[str]) -> _Mood:
    kinds = [kind for kind in FAULTS if kind not in CHANGES and random.random() < 0.4 and (fragile or kind not in DAMAGING)]
    return _Mood(kinds, [random.choice((1.0, 1.0, 3.0, 10.0)) for _ in kinds], fragile)


def _fault(random: Random, at: float, mood: _Mood, names: tuple[str, ...], clients: int, seconds: float) -> Fault:
    (kind,) = random.choices(mood.kinds, mood.weights)
    machine = random.choice(mood.fragile if kind in DAMAGING else names)
    long = round(min(random.choice((0.2, 1.0, 3.0, 10.0, 30.0)) * random.uniform(0.3, 1.5), seconds), 3)
    match kind:
        case "partition" | "bridge":
            group = random.sample(names, random.randint(1, max(1, len(names) - 2)))
            return Fault(at, kind, tuple(group), long)
        case "swizzle":
            return Fault(at, kind, tuple(name for name in names if random.random() < 0.5) or (machine,), long)
        case "blackout":
            return Fault(at, kind, names, min(long, 3.0))
        case "one-way" | "reset" | "slow-link":
            return Fault(at, kind, tuple(random.sample(names, min(2, len(names)))), long, random.choice((500, 5000, 50_000)))
        case "crash-at-step":
            return Fault(at, kind, (machine,), min(long, 5.0), random.choice((1, 2, 3, 4, 5, 8, 13, 21, 50)))
        case "restart-storm":
            return Fault(at, kind, (machine,), random.uniform(0.05, 1.0), random.randint(2, 5))
        case "clock-jump":
            return Fault(at, kind, (machine,), 0.0, random.choice((-1, 1)) * random.choice((1000, 3_600_000, 315_000_000_000)))
        case "rollback":
            return Fault(at, kind, (machine,), round(random.uniform(8.0, 25.0), 3))
        case "client-death":
            return Fault(at, kind, (), 0.0, random.randrange(clients))
        case _:
            return Fault(at, kind, (machine,), long, random.randrange(1000))


def _operations(random: Random, clients: int, seconds: float) -> tuple[Operation, ...]:
    folders = ["", "/d1", "/d2", "/d1/deep"][: random.randint(1, 4)]
    names = [f"{random.choice(folders)}/f{index}" for index in range(random.choice((3, 10, 30)))]
    weights = [random.choice(choice) for choice in ((4, 8), (6,), (0, 1, 3), (0, 1, 2), (1,), (0, 1), (0, 1), (0.3,), (0,))]
    rate = OPERATIONS_PER_SECOND * random.choice((0.5, 1.0, 1.0, 1.0, 1.5))
    operations: list[Operation] = []
    at = 0.0
    while True:
        at += random.expovariate(rate)
        if at >= seconds:
            return tuple(sorted(operations, key=lambda operation: operation.at))
        (kind,) = random.choices(OPERATIONS, weights)
        path = names[min(int(random.expovariate(1.0) * len(names) / 2), len(names) - 1)]
        target = random.choice(names) if kind in ("copy", "move") else ""
        if kind == "list":
            path = random.choice(folders) or "/"
        elif kind == "mkdir":
            path = random.choice(folders) or "/d3"
        elif target == path:
            kind, target = "stat", ""
        client = random.randrange(clients)
        retry_by = random.choice((-1, client, random.randrange(clients)))
        size = random.choice(SIZES if random.random() < LARGE_SHARE else SMALL_SIZES) if kind == "put" else 0
        operations.append(Operation(round(at, 3), client, kind, path, size, target, retry_by))
        if kind == "put" and random.random() < LOOKED_AT_SHARE:  # by two others, at once: what is half done shows then
            moments = sorted(random.uniform(0.0, LOOKED_AT_SECONDS) for _ in range(2))
            looks = [Operation(round(at + moment, 3), random.randrange(clients), "get", path) for moment in moments]
            operations += [look for look in looks if look.at < seconds]
            at += len(looks) / rate
        if random.random() < FOLDER_LIFE_SHARE:
            life = _folder_life(random, at, f"/g{len(operations)}", clients)
            operations += [each for each in life if each.at < seconds]
            at += len(life) / rate


def _folder_life(random: Random, at: float, folder: str, clients: int) -> list[Operation]:
    """Return the operations that make a folder, put something into it and remove it, in a random order."""
    kinds = (("mkdir", folder), ("put", f"{folder}/f"), ("rmdir", folder), ("rmdir", folder), ("list", "/"))
    moments = [round(at + random.uniform(0.0, FOLDER_LIFE_SECONDS), 3) for _ in kinds]
    return [Operation(moment, random.randrange(clients), kind, path) for moment, (kind, path) in zip(moments, kinds, strict=True)]


def without(plan: Plan, *, operations: set[int] | None = None, faults: set[int] | None = None) -> Plan:
    """Return `plan` without the operations and faults of these numbers."""
    return replace(
        plan,
        operations=tuple(each for index, each in enumerate(plan.operations) if index not in (operations or ())),
        faults=tuple(each for index, each in enumerate(plan.faults) if index not in (faults or ())),
    )
