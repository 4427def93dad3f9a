"""The README of the simulator: its tables say what the code says, and its examples run."""

import re
from pathlib import Path

import pytest

import sims
import sims.run
from sims.__main__ import _parser
from sims.oracles import Oracle, all_oracles
from sims.plan import DAMAGING, FAULTS, plan_from_seed
from sims.planted import BUGS, planted
from sims.run import run_plan, run_scenario
from sims.scenarios import scenarios

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "sims" / "README.md").read_text(encoding="utf-8")
SIMS, PEER = (Path(module.__path__[0]) for module in (sims, __import__("peer")))
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def table(head: str) -> list[list[str]]:
    """Return the cells of the table whose first line begins with `head`, names without their quotes."""
    lines = TEXT[TEXT.index(f"| {head} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names(head: str) -> list[str]:
    return [name.strip("`") for name, *_ in table(head)]


def source(folder: Path) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py")))


def test_every_fault_is_in_its_table() -> None:
    assert table("fault") == [[f"`{kind}`", text, "yes" if kind in DAMAGING else ""] for kind, text in FAULTS.items()]


def test_every_planted_bug_is_in_its_table() -> None:
    assert table("bug") == [[f"`{bug.name}`", bug.text, str(bug.machines)] for bug in BUGS.values()]


def test_every_failure_case_is_in_its_table() -> None:
    assert table("failure case") == [[f"`{each.name}`", each.text] for each in scenarios().values()]


def test_every_rare_path_is_in_its_table() -> None:
    assert set(names("label")) == set(re.findall(r'sometimes\("([^"]+)"\)', source(PEER)))


def test_every_file_is_in_its_table() -> None:
    here = {path.name for path in SIMS.glob("*.py") if path.name != "__init__.py"}
    folders = {f"{path.parent.name}/" for path in SIMS.glob("*/__init__.py")}
    assert set(names("file")) == here | folders


def test_every_invariant_is_in_its_table_with_the_judges_that_look_at_it() -> None:
    assert set(names("invariant")) == set(re.findall(r'"(I\d+|promise|crash)"', source(SIMS)))
    judges = {type(oracle).__name__: type(oracle).__doc__ or "" for oracle in all_oracles()}
    named: dict[str, set[str]] = {}
    for invariant, _, judge, _ in table("invariant"):
        for name in set(re.findall(r"`(\w+)`", judge)) & set(judges):
            named.setdefault(name, set()).add(invariant)
    for name, text in judges.items():
        assert set(re.findall(r"I\d+", text)) <= named.get(name, set()), name


def test_every_option_is_in_its_table() -> None:
    options = {option for action in _parser()._actions for option in action.option_strings if option.startswith("--")}
    assert set(re.findall(r"--[a-z-]+", " ".join(names("what")))) == options - {"--help"}


def test_the_failure_case_of_the_example_holds_and_notices_a_bug() -> None:
    world: dict[str, object] = {}
    exec(compile(EXAMPLES[0], "sims/README.md", "exec"), world)
    story = world["story"]
    assert callable(story)
    assert [run_scenario(story, seed).violation for seed in range(3)] == [None] * 3
    with planted("copies-believed"):
        assert any(run_scenario(story, seed).violation is not None for seed in range(10))


def test_the_judge_of_the_example_finds_nothing_in_a_run_and_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    world: dict[str, object] = {}
    exec(compile(EXAMPLES[1], "sims/README.md", "exec"), world)
    (judge,) = (each for each in world.values() if isinstance(each, type) and issubclass(each, Oracle) and each is not Oracle)
    plan = plan_from_seed(3)
    monkeypatch.setattr(sims.run, "all_oracles", lambda: [judge()])
    assert run_plan(plan).violation is None
    finish = judge.finish

    async def litter(self: Oracle) -> None:
        storage = self.world.machine("a").storage
        await storage.disk.write("tmp/left", [b"half"])
        await finish(self)

    monkeypatch.setattr(judge, "finish", litter)
    violation = run_plan(plan).violation
    assert violation is not None
    assert "tmp/left" in violation.text
