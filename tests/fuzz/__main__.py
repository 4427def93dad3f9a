"""`make fuzz`: a million frames against codec and link under atheris, then a node's port under garbage. `python -m tests.fuzz --help`."""

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz import port
from tests.fuzz.properties import CHECKS

RSS_MIB_MAX = 512
ALLOCATION_MIB_MAX = 64
INPUT_BYTES_MAX = 4096
SECONDS_PER_INPUT_MAX = 10


def main() -> int:
    """Run both parts; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000, help="frames, divided among the properties (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=100_000, help="connections to the port (default: %(default)s)")
    parser.add_argument("--corpus", type=Path, help="folder to keep the corpus in, one folder per property (default: none is kept)")
    arguments = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: `make fuzz` installs it (extra `fuzz`: Linux, CPython 3.11 to 3.13)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="shoal-fuzz-") as folder:
        corpus = arguments.corpus if arguments.corpus is not None else Path(folder)
        failed = [name for name in CHECKS if not fuzz(name, arguments.frames // len(CHECKS), corpus / name)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
        return 1
    return port.run(arguments.connections)


def fuzz(name: str, frames: int, corpus: Path) -> bool:
    """Run one property under atheris in a process of its own and print its figures; return whether it held."""
    if not frames:
        return True
    corpus.mkdir(parents=True, exist_ok=True)
    _, seeds = CHECKS[name]
    for number, seed in enumerate(seeds()):
        (corpus / f"seed-{number:03}").write_bytes(seed)
    command = [sys.executable, "-m", "tests.fuzz.target", name, str(frames), f"-max_len={INPUT_BYTES_MAX}"]
    command += [f"-rss_limit_mb={RSS_MIB_MAX}", f"-malloc_limit_mb={ALLOCATION_MIB_MAX}", f"-timeout={SECONDS_PER_INPUT_MAX}"]
    command += [f"-artifact_prefix={corpus}/failed-", str(corpus)]
    began_at = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    seconds = time.monotonic() - began_at
    output = done.stdout + done.stderr
    if done.returncode:
        print(output[-10_000:], file=sys.stderr)
        for artifact in sorted(corpus.glob("failed-*")):
            print(f"{name}: an input that breaks the property: {artifact.read_bytes().hex()}", file=sys.stderr)
        return False
    coverage = re.findall(r"cov: (\d+) ft: \d+ corp: (\d+)", output)
    memory = [int(each) for each in re.findall(r"rss: (\d+)Mb", output)]
    figures = re.search(r"done: frames=(\d+) inputs=(\d+) peak=(\d+)", output)
    assert figures, output[-2000:]
    print(
        f"{name}: {int(figures[1]):,} frames in {int(figures[2]):,} inputs in {seconds:.0f} s, no crash; "
        f"coverage {coverage[0][0]} -> {coverage[-1][0]} edges, {coverage[-1][1]} inputs in the corpus; "
        f"memory {memory[0]} MiB at first, {memory[-1]} at last, {figures[3]} at most",
        flush=True,
    )
    return True


if __name__ == "__main__":
    sys.exit(main())
