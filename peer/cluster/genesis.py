"""How a cluster begins, and how a node that belongs to none finds one.

Several fresh machines that are started together must not found several clusters, and a laptop that is started alone must not found
one that its home then meets. So: a node that just generated the key, or was told to found, founds at once; nobody
who was ever a member founds again; and a node that was *given* a key listens. It joins an initialised node when it
meets one. When it has met, by completed links, only nodes that wait like itself and know of no cluster either, and nobody new for
GENESIS_LISTEN_SECONDS, the lowest id among them founds. A lone node waits, and says so.
"""

import asyncio
import logging
from collections.abc import Callable

from peer.cluster.layouts import Layouts
from peer.config import ADMIT_SECONDS, GENESIS_LISTEN_SECONDS
from peer.errors import LinkLost, RequestFailed
from peer.seams import Entropy
from protocol.errors import RemoteProtocolError
from protocol.identity import CLUSTER_ID_BYTES, ClusterId, NodeId
from protocol.layout import Member, genesis
from protocol.messages import Hello, Role

LOOK_SECONDS = 0.2
LONE_NOTICE_SECONDS = 5.0
ADMISSION_NOTICE_SECONDS = 4.0
"""Longer than admission takes while a cluster is small or empty."""

LOOKING = "it has just been started and looks for others: try again in a moment"
OTHERS = "it has found others that wait as well, and they begin a cluster within seconds: try again in a moment"
LONE = (
    "no other node of this key is heard: waiting for one; to begin a cluster here use `shoal up --found`, "
    "to learn what keeps others away `shoal doctor`"
)
NOT_HEARD = "the cluster of this key is not heard any more: waiting for it; `shoal doctor` tells what keeps it away"
ADMISSION = (
    "a cluster of this key is found: waiting to be admitted by a majority of its machines, "
    f"which takes up to {ADMIT_SECONDS:.0f} s once it holds data, and for as long as too many of them are away"
)

log = logging.getLogger(__name__)


class Genesis:
    """Takes one node from no cluster into one."""

    def __init__(
        self,
        layouts: Layouts,
        entropy: Entropy,
        member: Callable[[], Member],
        peers: Callable[[], list[Hello]],
        notice: Callable[[str], None],
        typed_faults: Callable[[], list[str]],
    ) -> None:
        self._layouts = layouts
        self._entropy = entropy
        self._member = member
        self._peers = peers
        self._notice = notice
        self._typed_faults = typed_faults
        self.known_cluster = b""
        """A cluster of this key that there is, as far as anybody has said since the start."""
        self.waits_for = LOOKING
        """What this node waits for, and what a person may do about it."""
        self._told: set[str] = set()

    async def found(self) -> None:
        """Found a cluster of one."""
        cluster_id = ClusterId(self._entropy.token("cluster id", CLUSTER_ID_BYTES))
        await self._layouts.adopt(genesis(cluster_id, self._member()))

    async def run(self) -> None:
        """Listen until a layout is in force: joined, or founded as the lowest of those who wait."""
        loop = asyncio.get_running_loop()
        started = quiet_since = looked_at = loop.time()
        waiting: list[NodeId] = []
        while self._layouts.current is None:
            await asyncio.sleep(LOOK_SECONDS)
            stood_still = loop.time() - looked_at >= GENESIS_LISTEN_SECONDS  # what the others have done meanwhile lies unread
            looked_at = loop.time()
            members = [peer for peer in self._peers() if peer.role is Role.MEMBER]
            self.known_cluster = next((peer.known_cluster for peer in members if peer.known_cluster), self.known_cluster)
            initialised = [peer.node_id for peer in members if peer.cluster_id]
            if initialised:
                await self._join(initialised)
                quiet_since = loop.time()
                if not self._layouts.version and loop.time() - started >= ADMISSION_NOTICE_SECONDS:
                    self._tell(ADMISSION)
                continue
            now_waiting = [peer.node_id for peer in members]
            if now_waiting != waiting or stood_still:
                waiting, quiet_since = now_waiting, loop.time()
            own = self._member().node_id
            if self.known_cluster:
                if loop.time() - quiet_since >= LONE_NOTICE_SECONDS:
                    self._tell(NOT_HEARD)
            elif waiting:
                self.waits_for = OTHERS
                if own < min(waiting) and loop.time() - quiet_since >= GENESIS_LISTEN_SECONDS:
                    await self.found()
            elif loop.time() - started >= LONE_NOTICE_SECONDS:
                faults = self._typed_faults()
                if faults:
                    self._tell(f"waiting: nobody who was named with --join lets this node in ({'; '.join(faults)})", "refused")
                else:
                    self._tell(LONE)

    def _tell(self, text: str, kind: str = "") -> None:
        """Show what this node waits for, and say it the first time that it does; one of a `kind` is said once, however it differs."""
        self.waits_for = text
        if (kind or text) not in self._told:
            self._told.add(kind or text)
            self._notice(text)

    async def _join(self, initialised: list[NodeId]) -> None:
        for node_id in initialised:
            try:
                await self._layouts.join(node_id)
            except (LinkLost, RequestFailed, TimeoutError, RemoteProtocolError) as error:
                log.debug("joining has to wait: %s", error)
            if self._layouts.current is not None:
                return
