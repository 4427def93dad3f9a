"""The figures of many runs."""

from collections import Counter
from dataclasses import dataclass, field

from sims.run import Outcome


@dataclass(slots=True)
class Summary:
    """What some runs amount to."""

    runs: int = 0
    virtual_seconds: float = 0.0
    processor_seconds: float = 0.0
    steps: int = 0
    acked: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    sometimes: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome, processor_seconds: float) -> None:
        """Count one run, which took so much of a core."""
        self.runs += 1
        self.virtual_seconds += outcome.virtual_seconds
        self.processor_seconds += processor_seconds
        self.steps += outcome.steps
        self.acked += outcome.acked
        self.injected += outcome.injected
        self.outcomes += outcome.outcomes
        self.sometimes += outcome.trace.labels

    def join(self, other: "Summary") -> None:
        """Count what another summary has counted."""
        self.runs += other.runs
        self.virtual_seconds += other.virtual_seconds
        self.processor_seconds += other.processor_seconds
        self.steps += other.steps
        self.acked += other.acked
        self.injected += other.injected
        self.outcomes += other.outcomes
        self.sometimes += other.sometimes

    @property
    def ratio(self) -> float:
        """Virtual seconds per second of one core."""
        return self.virtual_seconds / self.processor_seconds if self.processor_seconds else 0.0

    def to_json(self) -> dict[str, object]:
        """Return the figures for machines."""
        return {
            "runs": self.runs,
            "virtual_hours": round(self.virtual_seconds / 3600, 4),
            "processor_seconds": round(self.processor_seconds, 2),
            "ratio": round(self.ratio, 1),
            "steps": self.steps,
            "operations_acked": self.acked,
            "faults": dict(sorted(self.injected.items())),
            "outcomes": dict(sorted(self.outcomes.items())),
            "sometimes": dict(sorted(self.sometimes.items())),
        }

    def text(self) -> str:
        """Return the figures for people."""
        lines = [
            f"{self.runs} run{'s' if self.runs != 1 else ''}: {self.virtual_seconds / 3600:.2f} virtual hours in "
            f"{self.processor_seconds:.1f} s of one core, {self.ratio:.0f} times real time; {self.steps} steps",
            f"{self.acked} writes acknowledged; operations: {_counts(self.outcomes)}",
            f"faults: {_counts(self.injected)}",
        ]
        if self.sometimes:
            lines.append(f"rare paths taken: {_counts(self.sometimes)}")
        return "\n".join(lines)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items())) or "none"
