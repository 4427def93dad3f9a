"""One run of one plan, from the founding of the cluster to the last look of the judges.

Two phases, as TigerBeetle's simulator has them: *safety*, while operations and faults go on and anything may fail but no promise may break;
then everything is mended except what is gone for good, and *liveness*: the cluster has to recover and every operation to end soon.
"""

import asyncio
import gc
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import nullcontext
from dataclasses import dataclass, field
from random import Random

from peer.config import EVICT_SECONDS, SWEEP_SECONDS
from peer.errors import DataLost, NoSuchPath, ShoalError
from peer.files.operations import Operations
from protocol.paths import ROOT, ancestors
from sims.faults import RarePaths
from sims.formed import switch_on
from sims.history import OK, History, digest_of
from sims.loop import Deadlock, Livelock, OutOfTime
from sims.nemesis import Nemesis
from sims.oracles import Oracle, Violation, all_oracles
from sims.plan import Operation, Plan
from sims.planted import planted
from sims.trace import Trace
from sims.workload import Workload
from sims.world import SECONDS_MAX, World

OPERATION_END_SECONDS = 90.0
"""Everything that was under way at the end of the safety phase has ended by then: a get of many chunks may wait for each for a while."""
RECOVERY_SECONDS = 30.0
"""After everything is mended the cluster has so long until it has to serve without a fault."""
ANSWER_SECONDS = 10.0
"""Then every operation ends within this time (I27)."""
QUIET_SECONDS = 2 * SWEEP_SECONDS + 10.0
"""Each node has gone through its chunks by then, at a time when all others were up and nobody else asked anything of them."""
AFTERLIFE_SECONDS = 600.0
PROBES = 6
PROBE_NUMBER = 10_000
"""Numbers of operations from here on are probes."""


@dataclass(slots=True)
class Outcome:
    """What came of one run."""

    plan: Plan | None
    """What was run; None for a scenario, which is code."""
    trace: Trace
    violation: Violation | None = None
    virtual_seconds: float = 0.0
    steps: int = 0
    fingerprint: int = 0
    acked: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)


def run_plan(plan: Plan, *, trace: Trace | None = None) -> Outcome:
    """Run a plan and return what came of it, a violation included."""
    world = World(plan.seed, trace, RarePaths(plan.label_share, plan.call_share))
    outcome = Outcome(plan, world.trace)
    world.evict_seconds = plan.evict_after or EVICT_SECONDS
    if not plan.founding:
        switch_on(world, plan.names)
    run = _Run(world, plan, outcome)
    with planted(plan.planted) if plan.planted else nullcontext():
        _live(world, lambda _: run.story(), plan.seconds + AFTERLIFE_SECONDS, outcome)
    return outcome


def run_scenario(story: Callable[[World], Awaitable[None]], seed: int, *, trace: Trace | None = None) -> Outcome:
    """Run a scenario and return what came of it. What it asserts is its promise."""
    world = World(seed, trace)
    outcome = Outcome(None, world.trace)

    async def run(world: World) -> None:
        await story(world)

    _live(world, run, SECONDS_MAX, outcome)
    return outcome


def _live(world: World, story: Callable[[World], Coroutine[object, object, None]], seconds_max: float, outcome: Outcome) -> None:
    """Run a story to its end and write down what came of it."""
    try:
        world.run(story, seconds_max=seconds_max)
    except Violation as violation:
        outcome.violation = violation
    except (Deadlock, Livelock, OutOfTime) as error:
        outcome.violation = Violation("I27", f"{type(error).__name__}: {error}", world.loop.time())
    except AssertionError as error:
        outcome.violation = Violation("promise", f"{_where(error)}: {error}" if str(error) else _where(error), world.loop.time())
    except Exception as error:  # noqa: BLE001  # whatever it is, it is what this seed has found
        outcome.violation = Violation("crash", f"{_where(error)}: {type(error).__name__}: {error}", world.loop.time())
        outcome.violation.__cause__ = error
    outcome.virtual_seconds = world.loop.time()
    outcome.steps = world.loop.steps
    outcome.fingerprint = world.loop.fingerprint
    if outcome.violation is not None:
        world.trace.note("world", "VIOLATION", invariant=outcome.violation.invariant)
    gc.collect()


def _where(error: BaseException) -> str:
    """Return the file and line that raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename.rpartition('/')[2]}:{frame.lineno}: {frame.line}"


class _Run:
    """The story of one run."""

    def __init__(self, world: World, plan: Plan, outcome: Outcome) -> None:
        self._world = world
        self._plan = plan
        self._outcome = outcome
        self._history = History()
        self._oracles: list[Oracle] = all_oracles()
        self._hosts = [f"client{number}#1" for number in range(plan.clients)]
        self._workload = Workload(world, plan, self._history, self._oracles, self._hosts)
        self._nemesis = Nemesis(world, plan, self._hosts)

    async def story(self) -> None:
        """Live through it.

        Raises: Violation.
        """
        world, plan = self._world, self._plan
        for oracle in self._oracles:
            oracle.begin(world, plan, self._history)
        ticking = asyncio.get_running_loop().create_task(self._tick())
        try:
            await self._or_violation(ticking, self._form())
            self._note("begin")
            self._workload.begin()
            self._nemesis.begin()
            await self._or_violation(ticking, asyncio.sleep(plan.seconds))
            await self._or_violation(ticking, self._recover())
            await self._or_violation(ticking, self._judge())
        finally:
            ticking.cancel()
            self._outcome.acked = self._workload.acked
            self._outcome.outcomes = self._workload.outcomes
            self._outcome.injected = self._nemesis.injected

    async def _form(self) -> None:
        world, plan = self._world, self._plan
        if plan.founding:
            await world.found(plan.names)
        else:
            await asyncio.gather(*(world.start(name) for name in plan.names))
            await world.members(plan.machines)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            for oracle in self._oracles:
                oracle.tick()
            if self._world.loop.failures:
                failure = self._world.loop.failures[0]
                raise Violation("crash", f"{failure.get('message')}: {failure.get('exception')!r}", self._world.loop.time())

    async def _or_violation(self, ticking: "asyncio.Task[None]", work) -> None:  # type: ignore[no-untyped-def]
        """Await `work`, unless a judge or an operation says no before."""
        task = asyncio.ensure_future(work)
        while not task.done():
            if ticking.done():
                task.cancel()
                ticking.result()
            self._workload.check()
            self._nemesis.check()
            await asyncio.sleep(0.1)
        task.result()

    async def _recover(self) -> None:
        await self._nemesis.end()
        await self._workload.until_done(OPERATION_END_SECONDS)
        await self._nemesis.until_left()
        self._note("recovering")
        # The first operations after the mending may meet links that nobody has missed yet.
        await asyncio.sleep(RECOVERY_SECONDS)
        random = Random(f"probes {self._plan.seed}")
        for number in range(PROBES):
            kind = "put" if number % 2 == 0 else "get"
            operation = Operation(0.0, number % self._plan.clients, kind, f"/probe{number // 2}", random.choice((10, 100_000)))
            what = f"{kind} {operation.path}, though everything is mended,"
            result = await self._in_time(what, self._workload.carry_out(PROBE_NUMBER + number, operation))
            if result != OK:
                raise Violation("I27", f"{what} ended with {result}", self._world.loop.time())

    async def _judge(self) -> None:
        self._note("judged")
        for oracle in self._oracles:
            await oracle.look()
        client = Operations(await self._world.session("reader#1", *(n for n in self._plan.names if n not in self._plan.gone)))
        for path in self._history.paths():
            self._history.finals[path] = await self._in_time(f"the last look at {path}", self._versions(client, path))
        there = [path for path, versions in self._history.finals.items() if versions]
        for folder in sorted({ROOT, *(folder for path in there for folder in ancestors(path))}):
            listing = Operation(0.0, 0, "list", folder)
            result = await self._in_time(f"the last listing of {folder}", self._workload.carry_out(PROBE_NUMBER + PROBES, listing))
            if result not in (OK, "NoSuchPath"):
                raise Violation("I27", f"{folder} cannot be listed, though everything is mended: {result}", self._world.loop.time())
        await asyncio.sleep(QUIET_SECONDS)
        for oracle in self._oracles:
            await oracle.finish()

    async def _versions(self, client: Operations, path: str) -> tuple[str, ...]:
        """Return the digests of all versions of a path."""

        async def look() -> tuple[str, ...]:
            try:
                stat = await client.stat(path)
                paths = [stat.entry.path, *(conflict.path for conflict in stat.conflicts)]
                return tuple([digest_of(await client.get_bytes(each)) for each in paths])
            except NoSuchPath:
                return ()

        try:
            return await self._world.on("reader#1", look)
        except DataLost as error:
            raise Violation("I1", f"{path}: {error}", self._world.loop.time()) from None
        except ShoalError as error:
            raise Violation(
                "I27", f"{path} cannot be read, though everything is mended: {error}", self._world.loop.time()
            ) from None

    async def _in_time(self, what: str, work):  # type: ignore[no-untyped-def]
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await work
        except TimeoutError:
            raise Violation("I27", f"{what} takes more than {ANSWER_SECONDS:.0f} s", self._world.loop.time()) from None

    def _note(self, what: str) -> None:
        self._world.trace.note("world", what)
