"""The command line of the simulator: `python -m sims`.

Exit codes: 0 nothing was violated, 1 a promise was, 2 wrong usage, 3 a worker process died, 130 interrupted.
"""

import argparse
import gc
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import NoReturn, TypeVar

from sims.oracles import Violation
from sims.picture import picture
from sims.plan import FAULTS, NAMES, BadPlan, Plan, plan_from_json, plan_from_seed
from sims.planted import BUGS, Bug, planted
from sims.reduce import fails_under, reduced
from sims.run import Outcome, run_plan, run_scenario
from sims.scenarios import Scenario, scenarios
from sims.summary import Summary
from sims.trace import Trace

EPILOG = """examples:
  python -m sims                                 the failure cases that have a name
  python -m sims bit-rot --seed 4                one of them
  python -m sims --seeds 0..200                  the swarm: clusters of five, drawn from seeds, with everything that goes wrong
  python -m sims --seeds 17 --picture run.html   one run, to be looked at in a browser
  python -m sims --replay plan.json              a run that was kept, perhaps edited
  python -m sims --planted all                   can this simulator find bugs at all?
"""
T = TypeVar("T")

LAST_EVENTS = 60
MACHINES = 5
PLANTED_SEEDS = 2000
MICRO_SEEDS = 5
"""A plan of a planted bug is best if it finds the bug under most of so many seeds."""
PLANS_TRIED = 10
"""So many plans that find a bug are looked at for such a one; then the first is kept."""


class Usage(Exception):
    """The command cannot be right."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    gc.freeze()  # what was imported is no world's garbage: the collector need not go through it after every run
    logging.getLogger("peer").addHandler(logging.NullHandler())  # nodes warn of damage that is wanted here
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except Usage as error:
        print(f"sims: {error}", file=sys.stderr)
        return 2
    except BrokenProcessPool:
        print("sims: a worker process has died, perhaps of too little memory: fewer --jobs need less", file=sys.stderr)
        return 3
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def interrupted(number: int, frame: object) -> NoReturn:
    """End at once, with all workers: an exception would be lost in a callback of the garbage collector, or wait for them."""
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
    os.write(2, b"sims: interrupted\n")
    os._exit(128 + number)


def _run(options: argparse.Namespace) -> int:
    _check_usage(options)
    seeds = options.seeds if options.seeds is not None else range(0)
    if options.planted is not None:
        return _planted(options.planted, seeds or range(PLANTED_SEEDS), options)
    if options.check_determinism:
        return _check_determinism(seeds or range(50), options)
    if options.replay is not None:
        plan = _read_plan(options.replay)
        return _one(lambda trace: run_plan(plan, trace=trace), f"--replay {options.replay}", options)
    if options.name is not None:
        scenario = _scenario(options.name)
        seed = options.seed or 0
        return _one(lambda trace: run_scenario(scenario.story, seed, trace=trace), f"{scenario.name} --seed {seed}", options)
    if not seeds:
        if options.picture or options.trace:
            raise Usage("a picture or a trace is of one run: name a scenario, --seeds N or --replay FILE")
        if options.json:
            print(json.dumps({each.name: each.text for each in scenarios().values()}))
        else:
            print("\n".join(f"{each.name:24} {each.text}" for each in scenarios().values()))
        return 0
    if len(seeds) == 1:
        plan = plan_from_seed(seeds[0], machines=options.machines)
        machines = f" --machines {options.machines}" if options.machines != MACHINES else ""
        return _one(lambda trace: run_plan(plan, trace=trace), f"--seeds {seeds[0]}{machines}", options)
    if options.picture or options.trace:
        raise Usage("a picture or a trace is of one run: give one seed")
    return _swarm(seeds, options)


def _check_usage(options: argparse.Namespace) -> None:
    """Refuse what would be passed over in silence: whoever asks for seeds and gets one run would believe that they are all good.

    Raises: Usage.
    """
    modes = {"NAME": "name", "--replay": "replay", "--planted": "planted", "--check-determinism": "check_determinism"}
    given = [mode for mode, option in modes.items() if getattr(options, option)]
    if options.seeds is not None and (options.name or options.replay):
        given.append("--seeds")
    if len(given) > 1:
        raise Usage(f"{' and '.join(given)} do not go together")
    if options.machines != MACHINES and (given or options.seeds is None):
        raise Usage("--machines is for the swarm: say --seeds, and nothing else to be run")
    if options.seed is not None and not options.name:
        raise Usage("--seed is for a failure case: name one, or say --seeds")
    if (options.planted or options.check_determinism) and (options.picture or options.trace):
        raise Usage("a picture or a trace is of one run: name a scenario, --seeds N or --replay FILE")


# -- one run -------------------------------------------------------------------


def _one(run: Callable[[Trace], Outcome], command: str, options: argparse.Namespace) -> int:
    is_full = options.picture is not None or options.trace is not None
    trace = Trace(is_full=is_full)
    outcome, seconds = _timed(lambda: run(trace))
    if options.keep is not None and outcome.violation is not None and outcome.plan is not None:
        _keep(options.keep, f"seed-{outcome.plan.seed}", outcome.plan)
    if options.trace is not None:
        _write(options.trace, "".join(f"{event.line()}\n" for event in trace.events))
    if options.picture is not None:
        _write(options.picture, picture(trace, f"python -m sims {command}", outcome.violation))
    summary = Summary()
    summary.add(outcome, seconds)
    if options.json:
        print(json.dumps(summary.to_json() | {"violation": _violation_json(outcome.violation)}))
    elif outcome.violation is not None:
        _tell(outcome, command)
    elif outcome.plan is None:
        print(f"every promise was kept: {outcome.virtual_seconds:.1f} virtual seconds in {seconds:.1f} s")
    else:
        print(summary.text())
    return int(outcome.violation is not None)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Usage(f"{path}: {error.strerror}") from None


def _tell(outcome: Outcome, command: str) -> None:
    """Print the story of a failure."""
    violation = outcome.violation
    assert violation is not None
    print(f"the last {LAST_EVENTS} events:")
    for event in list(outcome.trace.events)[-LAST_EVENTS:]:
        print(f"  {event.line()}")
    if outcome.plan is not None:
        print("the plan:")
        print("  " + outcome.plan.to_json().replace("\n", "\n  ").rstrip())
    print(f"violated at {violation.at:.3f} s: {violation}")
    if violation.__cause__ is not None:
        print(f"because of {type(violation.__cause__).__name__}: {violation.__cause__}")
    print(f"again: python -m sims {command}")


def _violation_json(violation: Violation | None) -> dict[str, object] | None:
    return None if violation is None else {"invariant": violation.invariant, "text": violation.text, "at": violation.at}


# -- many runs -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Result:
    """What a worker sends back of one run: the trace stays where it is."""

    seed: int
    violation: Violation | None
    summary: Summary


def _run_seed(seed: int, machines: int) -> _Result:
    outcome, seconds = _timed(lambda: run_plan(plan_from_seed(seed, machines=machines)))
    summary = Summary()
    summary.add(outcome, seconds)
    return _Result(seed, outcome.violation, summary)


def _timed(run: Callable[[], Outcome]) -> tuple[Outcome, float]:
    """Return what came of a run, and the seconds of a core that it took."""
    began = time.process_time()
    outcome = run()
    return outcome, time.process_time() - began


def _swarm(seeds: range, options: argparse.Namespace) -> int:
    total = Summary()
    failed: list[_Result] = []
    for result in _map(partial(_run_seed, machines=options.machines), seeds, options.jobs):
        total.join(result.summary)
        if result.violation is not None:
            failed.append(result)
            print(f"seed {result.seed}: {result.violation}", file=sys.stderr)
    if options.json:
        violations = [{"seed": each.seed} | (_violation_json(each.violation) or {}) for each in failed]
        print(json.dumps(total.to_json() | {"violations": violations}))
    else:
        print(total.text())
        missing = [kind for kind in FAULTS if not total.injected[kind]]
        if missing and len(seeds) >= 200:
            print(f"never injected: {', '.join(missing)}")
    if failed:
        seed = failed[0].seed
        print(f"seed {seed} is being reduced to a small plan", file=sys.stderr)
        path = _keep(options.keep or Path(), f"seed-{seed}", plan_from_seed(seed, machines=options.machines))
        _tell(run_plan(_read_plan(path)), f"--replay {path}")
    return int(bool(failed))


def _keep(folder: Path, name: str, plan: Plan, micro_seeds: int = 1) -> Path:
    """Reduce a plan that fails, write what is left to a file in `folder`, and return its path."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Usage(f"{folder}: {error.strerror}") from None
    path = folder / f"{name}.json"
    _write(path, reduced(plan, micro_seeds=micro_seeds).to_json())
    return path


def _map(work: Callable[[int], T], seeds: range, jobs: int) -> Iterator[T]:
    """Yield `work` of each seed, in order."""
    if jobs == 1 or len(seeds) == 1:
        yield from map(work, seeds)
        return
    with _workers(jobs) as pool:
        yield from pool.map(work, seeds)


@contextmanager
def _workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Return processes that end with the block, whatever they are at when it ends early."""
    with ProcessPoolExecutor(jobs, initializer=_end_without_a_word) as pool:
        try:
            yield pool
        except BaseException:
            for process in multiprocessing.active_children():
                process.kill()
            raise


def _end_without_a_word() -> None:
    """Let signals end this process as they end any other: the one that has started it says so."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


# -- planted bugs --------------------------------------------------------------


def _planted(name: str, seeds: range, options: argparse.Namespace) -> int:
    if name != "all" and name not in BUGS:
        raise Usage(f"there is no bug {name!r}: all, or one of {', '.join(BUGS)}")
    names = list(BUGS) if name == "all" else [name]
    found: dict[str, tuple[int, str]] = {}
    work = [(each, seeds, options.keep) for each in names]
    with _workers(options.jobs) as pool:
        for each, result in zip(names, pool.map(_find, work), strict=True):
            if result is None:
                text = f"NOT FOUND in {len(seeds)} seeds"
            else:
                found[each] = result
                text = f"found by {result[1]} in {result[0]} seed{'s' if result[0] > 1 else ''}"
            if not options.json:
                print(f"{each:24} {text}: {BUGS[each].text}", flush=True)
    if options.json:
        print(json.dumps({each: {"seeds": found[each][0], "invariant": found[each][1]} if each in found else None for each in names}))
    return int(len(found) < len(names))


def _find(work: tuple[str, range, Path | None]) -> tuple[int, str] | None:
    """Return how many seeds it took to find a bug, and which invariant was violated; None if nobody noticed.

    The plan that is kept does not hang on the luck of its seed, if one of the first few that find the bug does not: the code will
    change, and with it what a seed means.
    """
    name, seeds, folder = work
    if BUGS[name].case:
        return _find_by_case(BUGS[name], seeds)
    plans: list[Plan] = []
    found = None
    for count, seed in enumerate(seeds, 1):
        plan = plan_from_seed(seed, machines=BUGS[name].machines, planted=name)
        violation = run_plan(plan).violation
        if violation is None:
            continue
        found = found or (count, violation.invariant)
        plans.append(plan)
        if folder is None or len(plans) == PLANS_TRIED:
            break
        if fails_under(plan, MICRO_SEEDS, violation.invariant) * 2 > MICRO_SEEDS:
            _keep(folder, name, plan, MICRO_SEEDS)
            return found
    if folder is not None and plans:
        _keep(folder, name, plans[0])
    return found


def _find_by_case(bug: Bug, seeds: range) -> tuple[int, str] | None:
    for count, seed in enumerate(seeds, 1):
        with planted(bug.name):
            violation = run_scenario(scenarios()[bug.case].story, seed).violation
        if violation is not None:
            return count, violation.invariant
    return None


# -- determinism ---------------------------------------------------------------


def _check_determinism(seeds: range, options: argparse.Namespace) -> int:
    """Run each seed twice in one process and once in another one under another hash seed, and name the first difference."""
    results = zip(seeds, _map(_first_difference, seeds, options.jobs), strict=True)
    found = next(((seed, difference) for seed, difference in results if difference is not None), None)
    if options.json:
        print(json.dumps({"seeds": len(seeds), "difference": found and {"seed": found[0], "text": found[1]}}))
    elif found is not None:
        print(f"seed {found[0]}: {found[1]}")
    else:
        print(f"{len(seeds)} seed{'s' if len(seeds) != 1 else ''}, each three times: no difference")
    return int(found is not None)


def _first_difference(seed: int) -> str | None:
    lines = _lines(seed)
    again = _difference(lines, _lines(seed), "a second run in the same process")
    return again or _difference(lines, _lines_elsewhere(seed), "a run in another process under another hash seed")


def _lines(seed: int) -> list[str]:
    trace = Trace(is_full=True)
    outcome = run_plan(plan_from_seed(seed), trace=trace)
    return [*(event.line() for event in trace.events), f"{outcome.steps} steps, fingerprint {outcome.fingerprint}"]


def _lines_elsewhere(seed: int) -> list[str]:
    code = f"import sims.__main__ as m, sys; m._end_without_a_word(); sys.stdout.write(chr(10).join(m._lines({seed})))"
    environment = os.environ | {"PYTHONHASHSEED": str(1 + seed % 1000), "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-c", code], check=True, env=environment, stdout=subprocess.PIPE)
    return done.stdout.decode().split("\n")


def _difference(first: list[str], second: list[str], what: str) -> str | None:
    for number, (one, other) in enumerate(zip_longest(first, second, fillvalue="nothing"), 1):
        if one != other:
            return f"{what} differs at event {number}\n  {one}\n  {other}"
    return None


# -- words ---------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sims",
        description="Runs the shoal node that ships in a simulated world of faults. Without arguments: lists the failure cases.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a failure case")
    parser.add_argument("--seed", type=int, help="the seed of a failure case (default: 0)")
    parser.add_argument("--seeds", type=_seeds, metavar="A..B", help="run the swarm with these seeds, B not included; or one seed")
    sizes = range(2, len(NAMES) + 1)
    parser.add_argument("--machines", type=int, choices=sizes, default=MACHINES, metavar="N", help="so many in each of them (default: 5)")
    parser.add_argument("--jobs", type=_jobs, default=os.cpu_count() or 1, help="so many at once (default: one per core)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run the plan in a file")
    parser.add_argument("--planted", metavar="BUG", help="search for a planted bug, or for all of them")
    parser.add_argument("--check-determinism", action="store_true", help="run seeds twice, and once elsewhere, and compare")
    parser.add_argument("--picture", type=Path, metavar="OUT.html", help="draw one run")
    parser.add_argument("--trace", type=Path, metavar="OUT.txt", help="write down every event of one run")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the reduced plans of failures go (default: the current folder)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _seeds(text: str) -> range:
    first, dots, end = text.partition("..")
    try:
        seeds = range(int(first), int(end)) if dots else range(int(first), int(first) + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor two of the form A..B") from None
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text!r} has no seeds: B is not included")
    return seeds


def _jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes")
    return int(text)


def _scenario(name: str) -> Scenario:
    if name not in scenarios():
        raise Usage(f"there is no failure case {name!r}: `python -m sims` lists them")
    return scenarios()[name]


def _read_plan(path: Path) -> Plan:
    try:
        plan = plan_from_json(path.read_text(encoding="utf-8"))
        if plan.planted and plan.planted not in BUGS:
            raise BadPlan(f"there is no bug {plan.planted!r}")
        return plan
    except (OSError, UnicodeDecodeError, BadPlan) as error:
        raise Usage(f"{path}: {error}") from None


if __name__ == "__main__":
    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)
    sys.exit(main())
