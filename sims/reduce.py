"""Makes a failing plan small: without every fault and operation that the failure does not need (delta debugging, Zeller and Hildebrandt,
"Simplifying and isolating failure-inducing input", IEEE TSE 2002, with the pieces taken from the end)."""

from collections.abc import Callable
from dataclasses import replace

from sims.plan import Plan, without
from sims.run import run_plan

RUNS_MAX = 60


def reduced(
    plan: Plan, *, runs_max: int = RUNS_MAX, micro_seeds: int = 1, on_step: Callable[[Plan], None] = lambda plan: None
) -> Plan:
    """Return a smaller plan that violates the same invariant, found in at most `runs_max` tries.

    With `micro_seeds` it does so under most of so many seeds, its own and those that follow: then it does not hang on the luck of one.
    """
    first = run_plan(plan).violation
    assert first is not None, "the plan violates nothing"
    invariant = first.invariant
    left = runs_max

    def fails(candidate: Plan) -> bool:
        nonlocal left
        left -= 1
        return fails_under(candidate, micro_seeds, invariant) * 2 > micro_seeds

    early = _until(plan, first.at)
    if fails(early):
        plan = early
    for field in ("faults", "operations"):
        size = max(1, len(getattr(plan, field)) // 2)
        while size and left > 0:
            end = len(getattr(plan, field))
            while end > 0 and left > 0:
                begin = max(0, end - size)
                candidate = without(plan, **{field: set(range(begin, end))})
                if fails(candidate):
                    plan = candidate
                    on_step(plan)
                end = begin
            size //= 2
    for change in ({"label_share": 0.0}, {"gone": ()}, {"founding": False}, {"clients": _clients(plan)}):
        candidate = replace(plan, **change)
        if candidate != plan and left > 0 and fails(candidate):
            plan = candidate
    return plan


def fails_under(plan: Plan, micro_seeds: int, invariant: str) -> int:
    """Return under how many seeds, the plan's own and those that follow, it violates an invariant."""
    violations = (run_plan(replace(plan, seed=plan.seed + number)).violation for number in range(micro_seeds))
    return sum(violation is not None and violation.invariant == invariant for violation in violations)


def _until(plan: Plan, at: float) -> Plan:
    """Return the plan without what begins after a moment."""
    return replace(
        plan,
        seconds=min(plan.seconds, round(at + 1.0, 3)),
        operations=tuple(each for each in plan.operations if each.at <= at),
        faults=tuple(each for each in plan.faults if each.at <= at),
    )


def _clients(plan: Plan) -> int:
    used = [operation.client for operation in plan.operations] + [operation.retry_by for operation in plan.operations]
    deaths = [fault.number for fault in plan.faults if fault.kind == "client-death"]
    return max([0, *used, *deaths]) + 1
