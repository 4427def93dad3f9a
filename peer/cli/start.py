"""Where the process begins: owns the time until the command is loaded, in which a Ctrl-C is one line as well."""

import io
import os
import signal
import sys
from types import FrameType

INTERRUPTED = "interrupted: the same command again is safe and goes on"
INTERRUPTED_CODE = "interrupted"
INTERRUPTED_EXIT = 130


def main() -> None:
    """Run the command line of this process and exit."""
    _fill_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: a name may have letters that the terminal has not
    # Loading takes longer than somebody who sees a typing error. A signal that is ignored (`nohup`, a script's `&`) stays ignored.
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_ours:
        signal.signal(signal.SIGINT, _interrupted_early)
    from peer.cli.main import main as command

    if is_ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command()
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is said: Python would still show where in its own end it was


def _fill_closed_streams() -> None:
    # What is opened first would get the number of a stream that was closed (`shoal … >&-`), a connection for instance.
    for descriptor, stream in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_WRONLY)  # the lowest free number; what is written vanishes, and reading fails
            if stream != "stdin":
                setattr(sys, stream, os.fdopen(descriptor, "w", closefd=False))


def _interrupted_early(number: int, frame: FrameType | None) -> None:
    if "--json" in sys.argv:
        import json  # not above: what is loaded there is loaded unguarded

        document = {"error": INTERRUPTED, "code": INTERRUPTED_CODE, "detail": {"exit_code": INTERRUPTED_EXIT}}
        line = json.dumps(document)
    else:
        line = f"shoal: {INTERRUPTED}"
    os.write(sys.stderr.fileno(), f"{line}\n".encode())
    os._exit(INTERRUPTED_EXIT)
