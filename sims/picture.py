"""A run as a picture."""

from sims.oracles import Violation
from sims.trace import Trace


def picture(trace: Trace, title: str, violation: Violation | None) -> str:
    """Return a page of HTML that needs nothing else."""
    lines = "\n".join(event.line() for event in trace.events)
    return f"<!doctype html><title>{title}</title><pre>{lines}\n{violation or ''}</pre>"
