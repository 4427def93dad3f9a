"""What the documents point at exists: files, tests that are named, and an example that runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (
    "README.md", "CHANGELOG.md", "protocol/README.md", "peer/README.md", "peer/client/README.md", "sims/README.md", "sims/BUGS.md",
    "tests/models/README.md",
)  # fmt: skip
TESTS = {
    path.relative_to(ROOT).as_posix(): set(re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8")))
    for path in (ROOT / "tests").rglob("test_*.py")
}


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_link_leads_to_a_file(document):
    prose = re.sub(r"```.*?```|`[^`\n]*`(?!\])", "", text_of(document), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#:]+)\)", prose):
        assert (ROOT / document).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_path_that_is_named_exists(document):
    for path in re.findall(r"`((?:peer|protocol|sims|tests)/[\w/.-]+)[`:]", text_of(document)):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_test_that_is_named_exists(document):
    known = set().union(*TESTS.values())
    named = re.findall(r"(tests/[\w/]+\.py)?(?:::|`)(test_\w+)(\.py)?", text_of(document))
    for file, name, suffix in named:
        if suffix:
            assert any(path.endswith(f"/{name}.py") for path in TESTS), name
        else:
            assert name in (TESTS.get(file, set()) if file else known), f"{file}::{name}"


def test_the_scenario_of_the_simulation_runs():
    example = re.search(r"```python\n(.*?)```", text_of("sims/README.md"), re.DOTALL)
    assert example is not None
    exec(compile(example[1], "sims/README.md", "exec"), {})
