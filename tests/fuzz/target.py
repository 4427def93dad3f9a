"""One property under atheris: `python -m tests.fuzz.target codec|link FRAMES [libFuzzer options] [corpus folder]`."""

import os
import resource
import sys

import atheris

with atheris.instrument_imports(include=["protocol"]):
    from tests.fuzz.properties import CHECKS


def main(arguments: list[str]) -> None:
    """Fuzz until so many frames were tried, print the figures and end the process; libFuzzer ends it when the property breaks."""
    check, _ = CHECKS[arguments[1]]
    wanted = int(arguments[2])
    inputs = frames = 0

    def test_one_input(data: bytes) -> None:
        nonlocal inputs, frames
        inputs += 1
        frames += check(data)
        if frames >= wanted:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(f"done: frames={frames} inputs={inputs} peak={peak}", file=sys.stderr, flush=True)
            os._exit(0)

    atheris.Setup([arguments[0], *arguments[3:]], test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
