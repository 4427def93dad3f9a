"""The import law of `peer/README.md`, and what may not be named outside the machine's own layer.

Read from the syntax trees, so that a file that no test imports is held to it as well.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("protocol", "peer", "sims")
MODULES = sorted(path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

VALUE_MODULES = frozenset(
    "abc array bisect collections contextlib dataclasses enum functools heapq itertools math operator string "
    "struct types typing unicodedata".split()
)
"""The standard library as far as it is values and arithmetic: what `protocol` may use."""
THIRD_PARTY_OF_PROTOCOL = {"protocol/codec.py": {"msgpack"}, "protocol/hashing.py": {"blake3"}}

MACHINE_MODULES = frozenset(
    "time secrets uuid os socket ssl select selectors signal threading multiprocessing subprocess sqlite3 "
    "concurrent fcntl shutil tempfile pathlib io glob queue sched".split()
)
"""The machine itself: for `peer/real`, and the outer shells `peer/client` and `peer/cli`, alone."""
REFUSED_ATTRIBUTES = {
    "run_in_executor": "work leaves the loop through Compute",
    "to_thread": "work leaves the loop through Compute",
    "as_completed": "its order depends on the machine",
}
REFUSED_NAMES = {("asyncio", "wait"): "it returns sets", ("datetime", "now"): "time for people comes from WallClock"}
FROM_RANDOM = frozenset({"Random"})
"""A generator with a seed of its own is fine; the shared one of the module is not."""


def is_in(module: str, *folders: str) -> bool:
    return any(module.startswith(folder + "/") for folder in folders)


def is_machine(module: str) -> bool:
    """Return whether a module stands outside: the machine's layer, the shells of users, and those of the simulator."""
    return is_in(module, "peer/real", "peer/client", "peer/cli") or module in ("sims/__main__.py", "sims/seal.py")


def tree_of(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"), module)


def imports_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, full name) of every import, wherever it stands; `from a import b` counts as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def may_import(module: str, name: str) -> bool:
    """Return whether the import law lets `module` import `name`."""
    if name.startswith("."):
        return False  # absolute imports only: the law is read off the names
    top = name.split(".")[0]
    if top in ("tests", "sims") and not is_in(module, top):
        return False
    if top == "peer" and f"{name}.".startswith("peer.cli.") and not is_in(module, "peer/cli"):
        return False
    if top == "peer" and f"{name}.".startswith("peer.client.") and not is_in(module, "peer/client", "peer/cli"):
        return module == "peer/__init__.py"
    if top == "peer" and f"{name}.".startswith("peer.real.") and not is_machine(module):
        return False
    if is_in(module, "protocol"):
        if top == "protocol":
            return not name.startswith("protocol.testing") or is_in(module, "protocol/testing")
        if is_in(module, "protocol/testing") and top == "hypothesis":
            return True
        return top in VALUE_MODULES or top in THIRD_PARTY_OF_PROTOCOL.get(module, ())
    if is_machine(module):
        if is_in(module, "peer/real") and top == "peer":
            return name.startswith(("peer.seams", "peer.errors", "peer.real"))
        return True
    if top in MACHINE_MODULES or top == "random":
        return top == "random" and name.split(".")[-1] in FROM_RANDOM
    return top in ("protocol", "peer", "sims") or top in sys.stdlib_module_names


def refused_in(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, reason) of what code above the machine may not say."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("open", "input", "print"):
            yield node.lineno, f"{node.func.id}( reaches the machine"
        elif isinstance(node, ast.Attribute) and node.attr in REFUSED_ATTRIBUTES:
            yield node.lineno, f"{node.attr}: {REFUSED_ATTRIBUTES[node.attr]}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            reason = REFUSED_NAMES.get((owner, node.attr))
            if reason is not None:
                yield node.lineno, f"{owner}.{node.attr}: {reason}"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                reason = REFUSED_NAMES.get((node.module or "", alias.name)) or REFUSED_ATTRIBUTES.get(alias.name)
                if reason is not None:
                    yield node.lineno, f"{alias.name}: {reason}"
        elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension) and is_visible_set(node.iter):
            yield node.iter.lineno, "a loop over a set: its order differs from run to run"


def is_visible_set(node: ast.expr) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("set", "frozenset")


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    faults = [f"{module}:{line} imports {name}" for line, name in imports_of(tree_of(module)) if not may_import(module, name)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("module", [module for module in MODULES if not is_machine(module)])
def test_a_module_above_the_machine_reaches_it_only_through_the_seams(module: str) -> None:
    faults = [f"{module}:{line} {reason}" for line, reason in refused_in(tree_of(module))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_owns(module: str) -> None:
    assert ast.get_docstring(tree_of(module)), f"{module} has no docstring"


REFUSED_TEXTS = [
    "import asyncio\nasyncio.wait([])",
    "from asyncio import wait",
    "import datetime\ndatetime.datetime.now()",
    "from datetime import datetime\ndatetime.now()",
    "loop.run_in_executor(None, work)",
    "from asyncio import to_thread",
    "asyncio.as_completed([])",
    "open('a')",
    "for a in {1, 2}: pass",
    "[a for a in set(b)]",
]


@pytest.mark.parametrize("text", REFUSED_TEXTS)
def test_the_law_catches_a_refused_name(text: str) -> None:
    assert list(refused_in(ast.parse(text)))


@pytest.mark.parametrize("text", ["asyncio.wait_for(a, 1)", "for a in sorted({1, 2}): pass", "store.open()", "timeout.wait()"])
def test_the_law_lets_an_innocent_name_pass(text: str) -> None:
    assert not list(refused_in(ast.parse(text)))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("protocol/codec.py", "asyncio"),
        ("protocol/framing.py", "msgpack"),
        ("protocol/layout.py", "random.random"),
        ("protocol/layout.py", "peer.seams"),
        ("protocol/layout.py", "hypothesis"),
        ("peer/node.py", "time"),
        ("peer/node.py", "random.random"),
        ("peer/node.py", "random"),
        ("peer/node.py", "peer.real.clock"),
        ("peer/node.py", "peer.cli.world"),
        ("peer/node.py", "sims.world"),
        ("peer/node.py", "msgpack"),
        ("peer/real/disk.py", "peer.node"),
        ("peer/real/disk.py", "peer.cli.world"),
        ("peer/node.py", "peer.client.reach"),
        ("peer/client/reach.py", "peer.cli.world"),
        ("peer/cli/main.py", "sims.world"),
        ("sims/world.py", "peer.client.asynchronous"),
        ("sims/world.py", "peer.real.disk"),
        ("sims/world.py", "os.path"),
        ("peer/node.py", ".links"),
    ],
)
def test_the_law_refuses_an_import(module: str, name: str) -> None:
    assert not may_import(module, name)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("protocol/codec.py", "msgpack"),
        ("protocol/testing/strategies.py", "hypothesis.strategies"),
        ("peer/node.py", "asyncio"),
        ("peer/node.py", "random.Random"),
        ("peer/real/disk.py", "os"),
        ("peer/real/discovery.py", "zeroconf"),
        ("peer/cli/world.py", "peer.real.storage"),
        ("sims/world.py", "peer.files.operations.Operations"),
        ("peer/__init__.py", "peer.client.asynchronous.Client"),
        ("peer/cli/world.py", "peer.client.asynchronous.Client"),
        ("peer/client/reach.py", "peer.real.network"),
        ("sims/world.py", "peer.node"),
        ("sims/world.py", "random.Random"),
    ],
)
def test_the_law_allows_an_import(module: str, name: str) -> None:
    assert may_import(module, name)
