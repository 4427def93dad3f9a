"""Who comes and goes too often to be counted on: a rule without a clock.

Admitting a member moves data to it. One that went or came more than three times within ten minutes has to stay for five minutes first.
"""

from collections import OrderedDict, deque
from typing import Final

from protocol import limits
from protocol.identity import NodeId

WINDOW_SECONDS: Final = 600.0
CHANGES_MAX: Final = 3
"""Comings and goings within WINDOW_SECONDS that are forgiven: a restart is two."""
CALM_SECONDS: Final = 300.0


class Flaps:
    """When nodes last came and went, as one node saw it."""

    def __init__(self) -> None:
        """Begin without having seen anybody."""
        self._seen: OrderedDict[NodeId, tuple[bool, deque[float]]] = OrderedDict()

    def note(self, now: float, node_id: NodeId, *, is_there: bool) -> None:
        """Note that a node is there, or is not. It counts when it was otherwise before."""
        was_there, changes = self._seen.pop(node_id, (is_there, deque(maxlen=CHANGES_MAX + 1)))
        if was_there != is_there:
            changes.append(now)
        self._seen[node_id] = is_there, changes
        if len(self._seen) > limits.MEMBERS_KNOWN_MAX:
            self._seen.popitem(last=False)

    def must_stay_seconds(self, node_id: NodeId) -> float:
        """Return for how long a node has to have been there without a break before it is counted on."""
        _, changes = self._seen.get(node_id, (True, deque()))
        return CALM_SECONDS if len(changes) > CHANGES_MAX and changes[-1] - changes[0] <= WINDOW_SECONDS else 0.0
