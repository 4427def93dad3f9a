"""What all judges have in common."""

from sims.history import History, Write
from sims.plan import Plan
from sims.world import World


class Violation(AssertionError):
    """A promise was broken.

    Attributes: invariant (its name in `sims/README.md`), text, at (virtual seconds).
    """

    def __init__(self, invariant: str, text: str, at: float = 0.0) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant
        self.text = text
        self.at = at

    def __reduce__(self) -> tuple[type["Violation"], tuple[str, str, float]]:
        """Let it travel from a worker process."""
        return Violation, (self.invariant, self.text, self.at)


class Oracle:
    """One judge. It overrides what it needs."""

    world: World
    plan: Plan
    history: History

    def begin(self, world: World, plan: Plan, history: History) -> None:
        """See the world that is to be judged."""
        self.world = world
        self.plan = plan
        self.history = history

    def acked(self, write: Write) -> None:
        """A write has been acknowledged, this moment."""

    def tick(self) -> None:
        """A second has passed."""

    async def look(self) -> None:
        """Everything is mended and everybody has recovered; nobody has read anything since."""

    async def finish(self) -> None:
        """Every path has been read, and it has been quiet since."""

    def violated(self, invariant: str, text: str) -> Violation:
        """Return what to raise."""
        return Violation(invariant, text, self.world.loop.time())
