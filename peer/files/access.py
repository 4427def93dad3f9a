"""How the file paths reach a cluster, and the timeouts by which they judge it.

Implemented by `peer.session.Session` (a client) and `peer.node.Node` (a member).
"""

from collections.abc import Sequence
from typing import Protocol

from peer.link import Reply
from peer.seams import Compute, Entropy, WallClock
from protocol.hashing import Buffer
from protocol.identity import NodeId
from protocol.layout import Layout
from protocol.messages import Request

TRY_SECONDS = 2.0
"""One direct try of one node: who has not answered by then is passed over (cluster rule for short writes)."""
PUBLISH_SECONDS = 6.0
"""One try of a coordinator: it waits up to TRY_SECONDS for its replicas, twice when the layout moves."""
STORE_SECONDS = 12.0
"""One try of a first home: it may have to walk through several fallbacks, each for TRY_SECONDS."""
OPERATION_SECONDS = 30.0
"""After so long without success an operation gives up."""
RETRY_SECONDS = 0.2
"""Pause before everything is tried again."""
WAIT_SECONDS = 2.0
"""After so long without success whoever watches is told what is waited for."""

CHUNKS_AT_ONCE = 32
"""Chunks that one client fetches at a time, and so many that it stores, over all its operations. The others wait, and no clock runs."""


def milliseconds(seconds: float) -> int:
    """Return a timeout as the deadline of a message."""
    return int(seconds * 1000)


class Access(Protocol):
    """A way into one cluster."""

    name: str
    entropy: Entropy
    wall_clock: WallClock
    compute: Compute

    @property
    def node_id(self) -> NodeId:
        """Who asks."""

    @property
    def layout(self) -> Layout:
        """The newest layout known here."""

    async def request(
        self, node_id: NodeId, message: Request, payload: Buffer = b"", *, timeout_seconds: float
    ) -> Reply:
        """Ask a node, dialling when needed.

        Raises: LinkLost, RequestFailed, TimeoutError.
        """

    async def catch_up(self, version: int) -> None:
        """Learn the layout at least this new.

        Raises: Unavailable.
        """

    def addresses_of(self, node_id: NodeId) -> Sequence[str]:
        """Return where a node listens, as far as is known here, most likely first."""

    def preferred(self, nodes: Sequence[NodeId]) -> list[NodeId]:
        """Return the same nodes, those likely to answer soon first."""

    def recently_refused(self, node_id: NodeId) -> bool:
        """Return whether a direct dial of the last moments failed: that counts as a direct try."""
