"""`python -m tests.models NAME --seeds N [--without RULE]`: how many runs of a model break a promise, and the first that does."""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, replace

from tests.models import chain, dropping, reconfiguration
from tests.models.violation import Violation

MODELS = {"chain": chain, "dropping": dropping, "reconfiguration": reconfiguration}


def violations(name: str, seeds: range, without: str | None = None) -> Iterator[tuple[int, Violation]]:
    """Yield (seed, violation) of each run that breaks a promise, under the full rule or without one clause of it.

    Raises:
        TypeError: the model has no clause of that name.
    """
    model = MODELS[name]
    rules = replace(model.RULES, **{without: False}) if without is not None else model.RULES
    for seed in seeds:
        violation = model.run(seed, rules)
        if violation is not None:
            yield seed, violation


def main() -> int:
    """Run one model; return 1 if the full rule broke a promise, or a rule without one of its clauses broke none."""
    parser = argparse.ArgumentParser(prog="python -m tests.models", description=__doc__)
    parser.add_argument("name", choices=sorted(MODELS))
    parser.add_argument("--seeds", type=int, default=1000, help="how many runs (default: %(default)s)")
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="SEED", help="the first seed (default: %(default)s)")
    parser.add_argument("--without", metavar="RULE", help="leave out one clause of the rule; `all`: each in turn")
    arguments = parser.parse_args()
    clauses = [field.name for field in fields(MODELS[arguments.name].RULES)]
    if arguments.without not in (None, "all", *clauses):
        parser.error(f"clauses of {arguments.name}: {', '.join(clauses)}")
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    wanted = [None, *clauses] if arguments.without == "all" else [arguments.without]
    as_expected = [report(arguments.name, seeds, without, len(wanted) == 1) for without in wanted]
    return int(not all(as_expected))


def report(name: str, seeds: range, without: str | None, in_full: bool) -> bool:
    """Print the figures of one rule, and the first failing history if `in_full`; return whether they are as they should be."""
    began_at = time.monotonic()
    found = list(violations(name, seeds, without))
    seconds = time.monotonic() - began_at
    if found and in_full:
        sys.stdout.write(f"{found[0][1]}\n\n")
    first = f", first at seed {found[0][0]}" if found else ""
    rule = f"without {without}" if without is not None else "full rule"
    sys.stdout.write(f"{name}, {rule}: {len(found)} violations in {len(seeds)} runs{first} ({seconds:.1f} s)\n")
    return bool(found) == (without is not None)


if __name__ == "__main__":
    sys.exit(main())
