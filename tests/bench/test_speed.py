"""The floors of speed: five nodes on this machine, TLS 1.3, every copy synced, R=3. Run by `make bench`; prints the whole run.

They hold for a machine of two cores that does nothing else. The shares are of ceilings measured in the same run.
"""

import json
import subprocess
import sys

import pytest

LARGE_SHARE_MIN = 0.35
SMALL_PUTS_MIN = 500.0
SMALL_GETS_MIN = 2000.0

pytestmark = pytest.mark.timeout(600)


def test_a_cluster_on_one_machine_reaches_its_floors() -> None:
    done = subprocess.run([sys.executable, "-m", "peer.cli", "bench", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    print(json.dumps(document, indent=2))
    figures = {figure["what"]: figure for figure in document["figures"]}
    assert figures["put, large file"]["ratio"] >= LARGE_SHARE_MIN
    assert figures["get, large file"]["ratio"] >= LARGE_SHARE_MIN
    assert figures["put, 4 KiB files"]["value"] >= SMALL_PUTS_MIN
    assert figures["get, 4 KiB files"]["value"] >= SMALL_GETS_MIN
