"""Who seems to be there, simple form: whose ctl link is up.

Advice only: whom to ask first, whom to admit. No durability figure and no quorum depends on it. A later version
replaces this module by a failure detector with gossip; the methods stay.
"""

import asyncio
from collections.abc import Callable

from protocol.identity import NodeId
from protocol.messages import Hello

REMEMBERED_MAX = 1024


class Liveness:
    """The view of one node."""

    def __init__(self, node_id: NodeId, peers: Callable[[], list[Hello]]) -> None:
        self._node_id = node_id
        self._peers = peers
        self._up_since: dict[NodeId, float] = {}
        self._down_since: dict[NodeId, float] = {}
        self._started_at: float | None = None

    def peer_up(self, node_id: NodeId) -> None:
        """The ctl link to a peer is up."""
        if node_id not in self._up_since:
            self._up_since[node_id] = self._now()
        self._down_since.pop(node_id, None)

    def peer_down(self, node_id: NodeId) -> None:
        """The ctl link to a peer is gone."""
        self._up_since.pop(node_id, None)
        self._down_since[node_id] = self._now()
        while len(self._down_since) > REMEMBERED_MAX:
            del self._down_since[next(iter(self._down_since))]

    def is_alive(self, node_id: NodeId) -> bool:
        """Return whether a node seems to be there; this node always is."""
        return node_id == self._node_id or node_id in self._up_since

    def alive_peers(self) -> list[Hello]:
        """Return the hellos of all peers that seem to be there."""
        return self._peers()

    def alive_seconds(self, node_id: NodeId) -> float:
        """Return for how long a node has been there without a break; 0 when it is not."""
        since = self._up_since.get(node_id)
        return self._now() - since if since is not None else 0.0

    def away_seconds(self, node_id: NodeId) -> float:
        """Return for how long a node has been away, at most since this node started; 0 when it is there."""
        if self.is_alive(node_id):
            return 0.0
        return self._now() - self._down_since.get(node_id, self._start())

    def start(self) -> None:
        """Begin to count: what was never heard of has been away since now."""
        self._start()

    def _start(self) -> float:
        if self._started_at is None:
            self._started_at = self._now()
        return self._started_at

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
