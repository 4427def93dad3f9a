"""Failure cases, one per file, each an incident: what happened, and what must hold all the same.

A scenario is a module with one coroutine function `story(world)`; its name is that of the module, and the first line of the module is what
`python -m sims` says of it. Modules whose names begin with an underscore are no scenarios, but what scenarios share.
"""

import importlib
import pkgutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache

from sims.world import World


@dataclass(frozen=True, slots=True)
class Scenario:
    """One failure case."""

    name: str
    text: str
    story: Callable[[World], Awaitable[None]]


@cache
def scenarios() -> dict[str, Scenario]:
    """Return all scenarios by name, in order of name."""
    found = {}
    for module_info in sorted(pkgutil.iter_modules(__path__), key=lambda each: each.name):
        if module_info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        name = module_info.name.replace("_", "-")
        assert module.__doc__ is not None, f"scenario {name} has no story"
        found[name] = Scenario(name, module.__doc__.strip().splitlines()[0], module.story)
    return found
