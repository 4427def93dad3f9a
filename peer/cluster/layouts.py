"""The layout chain of one node: what is in force, persisted before it is acted on.

Owns adoption: records are applied one after another, each checked against its parent, each with what
must happen at that step (rule E of the entering replica, the carrying over of what is synced). A cluster that goes on by force
(`peer.cluster.forcing`) continues the chain under another id; whoever was away then follows it here. Asks for new stamps. Knows
nothing of how a record is decided (`peer.cluster.decider`) and nothing of how rows are synced (`peer.cluster.sync`).
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from peer.errors import LinkLost, RequestFailed, StorageFailed, Unavailable
from peer.link import Reply
from peer.store.rows import RowStore
from peer.store.system import SystemStore
from peer.store.tasks import to_the_end
from protocol.errors import RemoteProtocolError
from protocol.identity import NodeId, short
from protocol.layout import Layout, follows, goes_on_from, pack_partitions
from protocol.messages import Hello, LayoutGet, LayoutIs, Renew, Request, Role

PULL_TIMEOUT_SECONDS = 5.0
RENEW_TIMEOUT_SECONDS = 2.0


class Peers(Protocol):
    """Whom a chain can be pulled from (`peer.links.Links`)."""

    def peers(self) -> list[Hello]:
        """Return the peers that are connected."""

    async def request(self, node_id: NodeId, message: Request, *, timeout_seconds: float) -> Reply:
        """Ask one of them."""


class Layouts:
    """The layout in force at this node, and how it changes."""

    def __init__(
        self, node_id: NodeId, system: SystemStore, rows: RowStore, peers: Peers, on_change: Callable[[Layout], None]
    ) -> None:
        self.current: Layout | None = None
        self._node_id = node_id
        self._system = system
        self._rows = rows
        self._peers = peers
        self._on_change = on_change
        self._lock = asyncio.Lock()
        self._adopting: dict[asyncio.Task[bool], None] = {}

    async def close(self) -> None:
        """Finish what has begun."""
        await asyncio.gather(*self._adopting, return_exceptions=True)

    @property
    def version(self) -> int:
        """The version in force; 0 without a layout."""
        return self.current.version if self.current is not None else 0

    async def load(self) -> None:
        """Take up what was persisted."""
        data = await self._system.latest_layout()
        if data is not None:
            self.current = Layout.from_bytes(data)

    async def adopt(self, layout: Layout) -> bool:
        """Make `layout`, a successor of the current one, the layout in force; False when it is not one (any more).

        Everything that must be durable before the first request is judged by it is durable when this returns.
        """
        return await self._adopt(layout, follows)

    async def go_on(self, layout: Layout) -> bool:
        """Leave the cluster for the one that goes on from it by force with `layout`: as `adopt`."""
        return await self._adopt(layout, goes_on_from)

    async def _adopt(self, layout: Layout, fault: Callable[[Layout, Layout], str | None]) -> bool:
        """Adopt `layout`, to the end even if the caller is cancelled: what has reached the disk is in force."""
        task = asyncio.get_running_loop().create_task(self._put_in_force(layout, fault))
        self._adopting[task] = None
        task.add_done_callback(self._adopting.pop)
        return await to_the_end(task, StorageFailed)

    async def _put_in_force(self, layout: Layout, fault: Callable[[Layout, Layout], str | None]) -> bool:
        async with self._lock:
            parent = self.current
            if parent is not None and fault(parent, layout) is not None:
                return False
            if parent is None and layout.version != layout.founded:
                return False
            if parent is not None:
                await self._quarantine_entering(parent, layout)
            await self._system.save_layout(layout.version, layout.data, self._carried(parent, layout))
            self.current = layout
        self._on_change(layout)
        return True

    async def catch_up(self, version: int) -> None:
        """Pull the chain from connected peers until at least `version` is in force.

        Raises: Unavailable when nobody can give it.
        """
        while self.version < version:
            if not await self._pull_next():
                raise Unavailable(f"no node that is reachable has layout version {version} yet: try again in a moment")

    async def join(self, first: NodeId) -> None:
        """Pull the whole chain of a cluster for the first time, from a peer whose latest layout names this node.

        Raises: LinkLost, RequestFailed, TimeoutError, RemoteProtocolError.
        """
        latest = await self._fetch(first, 0)
        if latest is None or self._node_id not in latest.members:
            return
        while self.version < latest.version:
            layout = await self._fetch(first, max(self.version + 1, latest.founded))
            if layout is None or layout.cluster_id != latest.cluster_id or not await self.adopt(layout):
                return

    async def follow(self, heir: NodeId) -> bool:
        """Go over to the cluster of a peer, which goes on from this one by force; False when it cannot be followed.

        Raises: LinkLost, RequestFailed, TimeoutError, RemoteProtocolError, Unavailable (the peer does not know the step from here).
        """
        latest = await self._fetch(heir, 0)
        while latest is not None and self.current is not None and self._node_id in latest.members:
            if self.current.cluster_id == latest.cluster_id:
                return True
            layout = await self._fetch(heir, self.version + 1)
            if layout is None:
                raise Unavailable(f"node {short(heir)} does not know how its cluster began")
            step = self.adopt if layout.cluster_id == self.current.cluster_id else self.go_on
            if self._node_id not in layout.members or not await step(layout):
                return False
        return False

    async def renew(self, version: int, partitions: Sequence[int]) -> None:
        """Tell the voters that this node has forgotten how it voted on `partitions` under stamps up to `version`.

        They keep it in memory, and some may not be reached: to be repeated until the stamps are newer.
        """
        layout = self.current
        if layout is None:
            return
        linked = [peer.node_id for peer in self._peers.peers()]
        message = Renew(int(RENEW_TIMEOUT_SECONDS * 1000), version, pack_partitions(partitions))

        async def tell(voter: NodeId) -> None:
            with suppress(LinkLost, RequestFailed, TimeoutError):
                await self._peers.request(voter, message, timeout_seconds=RENEW_TIMEOUT_SECONDS)

        voters = [voter for voter in layout.record.voters if voter == self._node_id or voter in linked]
        await asyncio.gather(*map(tell, voters))

    async def _pull_next(self) -> bool:
        wanted = self.version + 1
        for peer in self._peers.peers():
            if self.current is None or peer.role is not Role.MEMBER or peer.cluster_id != self.current.cluster_id:
                continue
            try:
                layout = await self._fetch(peer.node_id, wanted)
            except (LinkLost, RequestFailed, TimeoutError, RemoteProtocolError):
                continue
            if layout is not None and (await self.adopt(layout) or self.version >= wanted):
                return True
        return False

    async def _fetch(self, node_id: NodeId, version: int) -> Layout | None:
        message = LayoutGet(int(PULL_TIMEOUT_SECONDS * 1000), version)
        reply = await self._peers.request(node_id, message, timeout_seconds=PULL_TIMEOUT_SECONDS)
        answer = reply.message
        assert isinstance(answer, LayoutIs)
        return Layout.from_bytes(answer.record) if answer.record else None

    async def _quarantine_entering(self, parent: Layout, layout: Layout) -> None:
        """Rule E: whoever enters a partition sets aside the rows that it kept from an earlier life."""
        owned = layout.partitions_of(self._node_id)
        entering = [partition for partition in owned if not parent.is_replica(self._node_id, partition)]
        if entering:
            await self._rows.quarantine(entering)

    def _carried(self, parent: Layout | None, layout: Layout) -> Sequence[int]:
        """Return the partitions whose stamp is new and that are synced under it, because they were under the parent's."""
        owned = layout.partitions_of(self._node_id)
        if layout.is_gathering:
            return ()
        if parent is None:
            return owned
        before, after = parent.stamps, layout.stamps
        return [
            partition
            for partition in owned
            if before[partition] != after[partition]
            and not layout.is_joint_at(partition)
            and not self._system.is_lost(partition)
            and (self._taken_back(parent, layout, partition) or self._system.synced(partition) == before[partition])
        ]

    def _taken_back(self, parent: Layout, layout: Layout, partition: int) -> bool:
        """Return whether the move of a partition was aborted and this node is one of the old owners, who never ceased to count."""
        old = parent.old_set(partition)
        return self._node_id in old and layout.old_set(partition) == old
