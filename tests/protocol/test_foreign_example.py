"""The documented example of testing a foreign implementation works as it stands, with a shipped node in the place of the foreign one."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "protocol" / "testing" / "README.md"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Run a node that founds a cluster of its own; give its address and its key."""
    home = tmp_path / "home"
    command = [sys.executable, "-m", "peer.cli", "up", "--home", str(home), "--listen", "127.0.0.1:0", "--no-discovery"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = next(line for line in process.stdout if line.startswith("ready "))
            yield {"NODE_ADDRESS": ready.split()[3], "NODE_KEY": (home / "cluster.key").read_text()}
        finally:
            process.terminate()


def test_the_example_tries_a_shipped_node_out(node: dict[str, str], tmp_path: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    example = tmp_path / "test_foreign.py"
    example.write_text(code, encoding="utf-8")
    environment = {**os.environ, **node, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(example)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 passed" in result.stdout
