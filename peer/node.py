"""The node: one member of a cluster, put together from its parts.

Owns the lifetime of the parts and of their tasks, who may link to this node, and which part answers which
request. Decides nothing itself: links (`peer.links`), membership and layout (`peer.cluster`), rows and chunks (`peer.files`,
`peer.store`), copies (`peer.care`). The same class runs on a machine and in a simulation.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from peer.care.fetch import Fetch
from peer.care.reconcile import Reconcile
from peer.care.row_repair import RowRepair
from peer.care.sweep import Sweep
from peer.care.throttle import Throttle
from peer.cluster.decider import Decider
from peer.cluster.detector import Detector
from peer.cluster.explorer import Explorer
from peer.cluster.forcing import Forcing
from peer.cluster.foreign import Foreign
from peer.cluster.genesis import Genesis
from peer.cluster.layouts import Layouts
from peer.cluster.leaving import Leaver
from peer.cluster.lives import Lives
from peer.cluster.sync import Sync
from peer.cluster.voter import Voter
from peer.config import ADDRESSES_SECONDS, NodeConfig
from peer.errors import LinkLost, Refused, RequestFailed, StorageFailed, Unavailable
from peer.files.chunk_service import ChunkService
from peer.files.confirmed import Confirmed
from peer.files.digest_service import DigestService
from peer.files.row_service import RowService
from peer.link import Reply, Served
from peer.links import Links
from peer.seams import Announcement, Compute, Entropy, Env, Listener, WallClock
from peer.store.chunks import ChunkStore
from peer.store.home import Home
from protocol import limits, succession
from protocol.errors import CloseCode, ErrorCode, RemoteProtocolError
from protocol.eviction import goes_on
from protocol.fields import NO_CLUSTER, clipped
from protocol.hashing import Buffer
from protocol.identity import ClusterId, NodeId, short
from protocol.layout import Layout, Member, unpack_partitions, weight_of
from protocol.messages import (
    Answer,
    BucketsGet,
    ChunkDigestsGet,
    ChunkGet,
    ChunkPut,
    ChunksHave,
    ChunksList,
    DigestsGet,
    Done,
    Force,
    Forced,
    Forget,
    Hello,
    LayoutAccept,
    LayoutAnnounce,
    LayoutGet,
    LayoutIs,
    LayoutPrepare,
    Leave,
    LinkKind,
    ListFetch,
    MembersGet,
    MemberState,
    PartitionPull,
    PeerInfo,
    Peers,
    PeersGet,
    PeerStatus,
    Probe,
    ProbeIndirect,
    RebalanceSet,
    Renew,
    Request,
    Role,
    RowFetch,
    RowMerge,
    RowPublish,
    RowsCompare,
    Status,
    StatusGet,
    SyncReport,
    Verdict,
    clock_entry,
    cluster_entry,
)
from protocol.succession import Relation

PROTOCOL_VERSION = 1
ANNOUNCE_TIMEOUT_SECONDS = 5.0
CATCH_UP_AGAIN_SECONDS = 1.0
VOTES = (RowPublish, RowMerge, RowFetch, ListFetch, PartitionPull, LayoutPrepare, LayoutAccept)
"""What a node promises something by, or answers as one of a quorum."""
PEERS_SHOWN_MAX = 2 * limits.MEMBERS_MAX
"""In a status."""
SLOW_ANSWER_SECONDS = 3.0
"""A simulated answer that is slow: longer than anybody waits for one before he asks others."""
_LINKED = (Relation.OURS, Relation.HEIR, Relation.FOLLOWER)
"""What peers are that a link may stand to."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """The node belongs to a cluster and serves."""

    name: str
    node_id: NodeId
    address: str
    members: int


@dataclass(frozen=True, slots=True)
class MembersChanged:
    """A layout with another number of members is in force."""

    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a person should know, in one line."""

    text: str


@dataclass(frozen=True, slots=True)
class AddressesChanged:
    """This node is reached elsewhere than before."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyRefused:
    """Every typed address refuses this node's key."""


@dataclass(frozen=True, slots=True)
class Left:
    """This node has left its cluster and is to be stopped: it holds nothing any more that anybody needs."""


NodeEvent = Ready | MembersChanged | Notice | AddressesChanged | KeyRefused | Left


class Node:
    """One node of a cluster."""

    def __init__(self, config: NodeConfig, env: Env, home: Home, on_event: Callable[[NodeEvent], None]) -> None:
        self.config = config
        self.node_id = env.network.node_id
        self.name = config.name
        self.entropy: Entropy = env.entropy
        self.wall_clock: WallClock = env.wall_clock
        self.compute: Compute = env.compute
        self.links = Links(env.network, self)
        self._env = env
        self._home = home
        self._on_event = on_event
        self._cluster_id = b""
        self._tasks: list[asyncio.Task[None]] = []
        self._heard: dict[NodeId, tuple[bytes, int]] = {}
        self._members_told = 0
        self._capacity_bytes = config.capacity_bytes
        self._stopping = False

    async def start(self) -> None:
        """Open the stores, listen, and begin to look for the others.

        Raises: ConnectFailed (the address is taken), StoreCorrupt, StorageFailed.
        """
        loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = loop.create_future()
        self._started_at = loop.time()
        storage = self._env.storage
        self.system = self._home.system
        self.rows = self._home.rows
        self.chunks = ChunkStore(storage, self.compute, self.config.capacity_bytes)
        await self.chunks.open()
        if not self._capacity_bytes:
            self._capacity_bytes = (await storage.disk.space())[0]
        self.lives = Lives(self.system, self.entropy, lambda: self.system.commits + self.rows.commits)
        self.detector = Detector(self.node_id, self.system.boot, self.links, self.entropy, self.lives)
        self.confirmed = Confirmed(self.node_id)
        self.rows.on_change, self.rows.on_forget = self.confirmed.changed, self.confirmed.forgotten
        self.layouts = Layouts(self.node_id, self.system, self.rows, self, self._layout_changed)
        await self.layouts.load()
        self.row_repair = RowRepair(self, self.rows, self.layouts.renew)
        self.sync = Sync(
            self.node_id,
            self.layouts,
            self.system,
            self.rows,
            self,
            self.row_repair.report,
            self.detector.away_seconds,
            self.confirmed.has,
        )
        self.voter = Voter(self.system, self.layouts)
        self.decider = Decider(
            self.node_id, self.layouts, self.detector, self, self._is_empty, self.compute, self.config.evict_seconds
        )
        self.forcing = Forcing(
            self.node_id, self.layouts, self.detector, self, self._is_with_us, self.entropy, self.compute
        )
        incoming, outgoing = (Throttle(self.config.background_bytes_per_second) for _ in range(2))
        self.fetch = Fetch(self, self.chunks, self.links.peers, incoming, self._is_rebalance_paused)
        self.sweep = Sweep(self.node_id, self.chunks, self, self.fetch, lambda: self.layouts.current, self.detector.is_alive)
        faults, report, confirmed = self._env.faults, self.row_repair.report, self.confirmed
        self.row_service = RowService(self, self.rows, self.system, faults, report, confirmed)
        self.digest_service = DigestService(self, self.rows, self.sync.unsynced, faults, report, confirmed)
        self.reconcile = Reconcile(
            self, self.rows, self.digest_service, lambda: self.layouts.current, self.links.peers, report, confirmed
        )
        self.chunk_service = ChunkService(
            self, self.chunks, self._env.faults, self.detector.state, outgoing, self._is_rebalance_paused
        )
        self.leaver = Leaver(
            self.node_id, self.layouts, self.detector, self.system, self.rows, self.chunks, self.chunk_service, self.sweep
        )
        self.foreign = Foreign(self._say, lambda address: self.explorer.try_address(address), self._spawn)
        self._listener: Listener = await self._env.network.listen(self.config.listen, self.links.accept)
        self.explorer = Explorer(
            self.links, self._env.discovery, self.system, self.entropy, self.config.join, self._is_member, lambda: self.addresses
        )
        self.genesis = Genesis(self.layouts, self.entropy, self._own_member, self.links.peers, self._say, self.explorer.typed_faults)
        if self.layouts.current is not None:
            self._layout_changed(self.layouts.current)
        elif self.config.found and not self.system.was_member:
            await self.genesis.found()
        else:
            self._spawn(self.genesis.run())
        addresses = self.addresses
        await self._env.discovery.announce(Announcement(self.node_id, addresses))
        self._spawn(self._watch_addresses(addresses))
        self._spawn(self.explorer.run_hints())
        self._spawn(self.explorer.run_known())
        self._spawn(self.sync.run())
        self._spawn(self.decider.run())
        self._spawn(self.sweep.run())
        self._spawn(self.row_repair.run())
        self._spawn(self.reconcile.run())
        self._spawn(self.lives.run())
        self._spawn(self.leaver.run(lambda: self._on_event(Left())))
        self._spawn(self._watch_key())

    async def stop(self) -> None:
        """Stop serving, say goodbye and release the data folder."""
        self._stopping = True
        await self._env.discovery.close()
        await self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.explorer.close()
        self.detector.stop()
        await self.links.close()
        await self.layouts.close()
        with suppress(StorageFailed):  # others remember as well
            await self.lives.remember()
        await self.rows.close()
        await self.chunks.close()
        await self.system.close()
        await self._env.storage.close()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where others reach this node now. A machine may get another address at any time."""
        return tuple(self._listener.addresses)

    # -- Access (peer.files) and Peers (peer.cluster) ------------------------

    @property
    def layout(self) -> Layout:
        """The layout in force.

        Raises: Refused while this node belongs to no cluster.
        """
        layout = self.layouts.current
        if layout is None:
            raise Refused(ErrorCode.NO_CLUSTER, "this node belongs to no cluster yet")
        return layout

    def peers(self) -> list[Hello]:
        """Return the peers that are connected."""
        return self.links.peers()

    async def request(
        self, node_id: NodeId, message: Request, payload: Buffer = b"", *, timeout_seconds: float
    ) -> Reply:
        """Ask a node, this one included.

        Raises: LinkLost, RequestFailed, TimeoutError.
        """
        if node_id != self.node_id:
            return await self.links.request(node_id, message, payload, timeout_seconds=timeout_seconds)
        async with asyncio.timeout(timeout_seconds) as limit:
            deadline = limit.when()
            assert deadline is not None
            try:
                served = await self.serve(self.hello(LinkKind.CTL, self.node_id), message, memoryview(payload), deadline)
            except Refused as refused:
                raise RequestFailed(refused.code, refused.reason, self.layouts.version) from None
        answer, data = served if isinstance(served, tuple) else (served, b"")
        return Reply(answer, memoryview(data))

    async def catch_up(self, version: int) -> None:
        """Learn the layout at least this new.

        Raises: Unavailable.
        """
        await self.layouts.catch_up(version)

    def addresses_of(self, node_id: NodeId) -> Sequence[str]:
        """Return where a node listens."""
        return self.links.addresses(node_id)

    def preferred(self, nodes: Sequence[NodeId]) -> list[NodeId]:
        """Return `nodes` with those first that nobody doubts and that are linked, this node before all."""
        return sorted(
            nodes, key=lambda node: (node != self.node_id, not self.detector.seems_well(node), self.links.peer(node) is None)
        )

    def recently_refused(self, node_id: NodeId) -> bool:
        """Return whether a direct try of the last moments failed."""
        return self.links.recently_refused(node_id)

    # -- LinksHost -----------------------------------------------------------

    def hello(self, kind: LinkKind, peer: NodeId) -> Hello:
        """Return what this node says of itself to `peer`."""
        layout = self.layouts.current
        return Hello(
            version_lowest=PROTOCOL_VERSION,
            version_highest=PROTOCOL_VERSION,
            features=0,
            link=kind,
            role=Role.MEMBER,
            node_id=self.node_id,
            boot=self.system.boot,
            cluster_id=layout.cluster_id if layout is not None else NO_CLUSTER,
            layout_version=layout.version if layout is not None else 0,
            layout_digest=layout.digest if layout is not None else b"",
            name=self.name,
            zone=self.config.zone,
            capacity_bytes=self._capacity_bytes,
            addresses=self.addresses,
            optional=dict(self.lives.told(peer))
            | (succession.told(layout, peer) if layout is not None else cluster_entry(self.genesis.known_cluster))
            | clock_entry(self.wall_clock.milliseconds()),
        )

    def layout_version(self) -> int:
        """Return the layout version in force."""
        return self.layouts.version

    def admit(self, peer: Hello) -> tuple[CloseCode, str] | None:
        """Refuse members of another cluster, visibly, and those that are not what they were."""
        if peer.role is Role.CLIENT:
            return None
        try:
            relation = self._relation(peer)
        except RemoteProtocolError as error:
            return error.code, error.reason
        if relation in _LINKED:
            return self.lives.admit(peer)
        self.foreign.meet(peer, relation, self.layout)
        return CloseCode.FOREIGN_CLUSTER, f"this node belongs to cluster {short(self.layout.cluster_id)}"

    def peer_up(self, peer: Hello) -> None:
        """Exchange peers and layouts with whom a link has come up."""
        if peer.role is not Role.MEMBER:
            return
        if self._is_ours(peer):
            self.foreign.meet_own(peer)
        self.detector.peer_up(peer)
        self.explorer.keep(peer.node_id)
        self._spawn(self._greet(peer))
        self.reconcile.peer_up(peer.node_id)
        self.sync.wake()
        self.sweep.wake()

    def peer_refuses(self, node_id: NodeId) -> None:
        """Note that nobody listens where a node was."""
        self.detector.peer_refuses(node_id)

    def answer_at_once(self, peer: Hello, request: Request) -> Answer | None:
        """Answer the probes of members."""
        return self.detector.answer_at_once(peer.node_id, request) if peer.role is Role.MEMBER and self._is_ours(peer) else None

    async def serve(self, peer: Hello, request: Request, payload: memoryview, deadline: float) -> Served:
        """Answer a request.

        Raises: Refused.
        """
        faults = self._env.faults
        if faults.sometimes("node.busy"):
            raise Refused(ErrorCode.BUSY, "busy for once")
        answer = await self._serve(peer, request, payload, deadline)
        if faults.sometimes("node.slow-answer"):
            await asyncio.sleep(self.entropy.uniform("slow answer", 0.0, SLOW_ANSWER_SECONDS))
        if isinstance(request, RowPublish | RowMerge | ChunkPut) and faults.sometimes("node.lost-answer"):
            self.links.close_peers([peer.node_id], CloseCode.NORMAL, "this answer is lost")
        return answer

    async def _serve(self, peer: Hello, request: Request, payload: memoryview, deadline: float) -> Served:
        if peer.role is Role.MEMBER and not self._is_ours(peer) and not isinstance(request, LayoutGet):
            raise Refused(ErrorCode.UNAVAILABLE, "between two clusters only layouts are told")
        if isinstance(request, VOTES) and not self.lives.may_vote(self.layout.members):
            raise Refused(ErrorCode.UNAVAILABLE, "this node has not met a majority since its start")
        match request:
            case RowPublish():
                return await self.row_service.publish(request, deadline)
            case RowMerge():
                return await self.row_service.merge(peer.node_id, request)
            case RowFetch():
                return await self.row_service.fetch(request)
            case ListFetch():
                return await self.row_service.list(request)
            case ChunkPut():
                return await self.chunk_service.put(request, payload, deadline)
            case ChunkGet():
                return await self.chunk_service.get(request, deadline)
            case ChunksHave():
                return await self.chunk_service.have(request)
            case PeersGet():
                return self._known_peers()
            case LayoutGet():
                return await self._layout_record(request.version)
            case StatusGet():
                return await self._status()
            case Leave():
                return await self.leaver.ask()
            case Forget():
                return await self.decider.forget(request, pass_on=peer.role is Role.CLIENT)
            case Force():
                plan = await self.forcing.plan(request.gone)
                if request.begin and plan.layout is not None:
                    self._spawn(self._go_on(plan.layout))
                return Forced(plan.short, plan.lost, plan.homeless)
            case RebalanceSet():
                await self.system.save_rebalance(paused=request.paused)
                self.sweep.wake()
                return Done()
        if peer.role is not Role.MEMBER:
            raise Refused(ErrorCode.UNSUPPORTED, "only members may ask this")
        match request:
            case PartitionPull():
                return await self.row_service.pull(request)
            case DigestsGet():
                return await self.digest_service.digests(peer.node_id, request)
            case BucketsGet():
                return self.digest_service.buckets(request)
            case RowsCompare():
                return await self.digest_service.compare(request)
            case ChunkDigestsGet():
                return self.chunk_service.digests(request)
            case ChunksList():
                return await self.chunk_service.listed(request)
            case Probe() | ProbeIndirect() | MembersGet():
                return await self.detector.serve(peer.node_id, request)
            case LayoutAnnounce():
                self.links.joined(peer.node_id, ClusterId(request.cluster_id))
                self._spawn(self._hear_of_layout(peer, request.cluster_id, request.version))
                return Done()
            case LayoutPrepare() | LayoutAccept():
                vote = await self.voter.vote(peer.node_id, request)
                if vote.verdict is Verdict.BEHIND:
                    self._spawn(self._hear_of_layout(peer, self.layout.cluster_id, request.version - 1))
                return vote
            case SyncReport():
                try:
                    await self.layouts.catch_up(request.version)
                except Unavailable as error:
                    raise Refused(ErrorCode.UNAVAILABLE, str(error)) from None
                self.decider.take_report(peer.node_id, request.version, unpack_partitions(request.partitions))
                return Done()
            case Renew():
                try:
                    await self.layouts.catch_up(request.version)
                except Unavailable as error:
                    raise Refused(ErrorCode.UNAVAILABLE, str(error)) from None
                self.decider.take_forgotten_votes(request.version, unpack_partitions(request.partitions))
                return Done()
        raise Refused(ErrorCode.UNSUPPORTED, "this node does not serve that request")

    def fail(self, error: BaseException) -> None:
        """Stop this node: its storage failed, or it has a bug."""
        if not self.failed.done():
            self.failed.set_exception(error)

    # -- inside --------------------------------------------------------------

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        if self._stopping:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if task.cancelled():
            if not self._stopping:  # what it waited for was cancelled by somebody else: half of a node is none
                self.fail(RuntimeError(f"{getattr(task.get_coro(), '__qualname__', 'a task')} was cancelled while the node runs"))
            return
        error = task.exception()
        if error is not None:
            self.fail(error)

    def _own_member(self) -> Member:
        return Member(
            self.node_id, self.name, self.config.zone, weight_of(self._capacity_bytes), self.addresses
        )

    def _is_member(self, node_id: NodeId) -> bool:
        layout = self.layouts.current
        return layout is not None and node_id in layout.members

    def _relation(self, peer: Hello) -> Relation:
        """Return what a member is to this node.

        Raises: RemoteProtocolError.
        """
        return Relation.OURS if self._is_ours(peer) else succession.relation(self.layouts.current, peer, succession.heard(peer.optional))

    def _is_ours(self, peer: Hello) -> bool:
        layout = self.layouts.current
        return layout is None or peer.cluster_id in (b"", layout.cluster_id)

    def _is_with_us(self, node_id: NodeId) -> bool:
        peer = self.links.peer(node_id)
        return node_id == self.node_id or (self.detector.is_alive(node_id) and (peer is None or self._is_ours(peer)))

    def _is_rebalance_paused(self) -> bool:
        return self.system.is_rebalance_paused

    def _is_empty(self) -> bool:
        return self.rows.count == 0 and self.chunks.count == 0

    def _notices(self) -> tuple[str, ...]:
        waiting = self.genesis.waits_for if self.layouts.current is None else ""
        return tuple(map(clipped, (*self.foreign.notices, *filter(None, [waiting]))))

    def _say(self, text: str) -> None:
        self._on_event(Notice(text))

    def _layout_changed(self, layout: Layout) -> None:
        if self._stopping:
            return
        self.confirmed.layout_changed(layout)
        for node_id, member in layout.members.items():
            if node_id == self.node_id:
                continue
            if not self.links.addresses(node_id):
                self.links.learn_addresses(node_id, member.addresses)
            self.explorer.keep(node_id)
        if self._cluster_id not in (b"", layout.cluster_id):  # no answer of the old cluster leaves any more, and none arrives
            self.links.close_all(CloseCode.NORMAL, "this node goes on in another cluster")
            self.foreign.clear()
            self._say(f"cluster {short(self._cluster_id)} goes on by force as {short(layout.cluster_id)}, and this node in it")
        self._cluster_id = layout.cluster_id
        foreign = [peer.node_id for peer in self.links.peers() if self._relation(peer) not in _LINKED]
        self.links.close_peers(foreign, CloseCode.FOREIGN_CLUSTER, "another cluster of the same key")
        members = len(layout.members)
        if self.node_id in layout.members and not layout.is_joint and members != self._members_told:
            if self._members_told == 0:
                self._on_event(Ready(self.name, self.node_id, self.addresses[0], members))
            else:
                self._on_event(MembersChanged(self._members_told, members))
            self._members_told = members
        self._spawn(self._announce(layout))
        self.reconcile.layout_changed()
        self.row_repair.wake()
        self.sync.wake()
        self.sweep.wake()

    async def _announce(self, layout: Layout) -> None:
        peers = [peer.node_id for peer in self.links.peers() if peer.role is Role.MEMBER]
        await asyncio.gather(*(self._tell(node_id, layout) for node_id in peers))

    async def _tell(self, node_id: NodeId, layout: Layout) -> None:
        """Tell a peer of the layout in force, until it knows, is gone (its next link says it anew), or the next layout is told."""
        message = LayoutAnnounce(int(ANNOUNCE_TIMEOUT_SECONDS * 1000), layout.cluster_id, layout.version, layout.digest)
        while message.version == self.layouts.version and self.links.peer(node_id) is not None:
            try:
                await self.links.request(node_id, message, timeout_seconds=ANNOUNCE_TIMEOUT_SECONDS)
                return
            except (LinkLost, RequestFailed, TimeoutError) as error:
                log.debug("%s hears of the layout later: %s", short(node_id), error)
                await asyncio.sleep(CATCH_UP_AGAIN_SECONDS)

    async def _greet(self, peer: Hello) -> None:
        await self.system.remember_peer(peer.node_id, peer.name, peer.addresses)
        layout = self.layouts.current
        if layout is not None and peer.layout_version < layout.version:
            self._spawn(self._tell(peer.node_id, layout))  # the hello to it may be older than the layout
        await self._hear_of_layout(peer, peer.cluster_id, peer.layout_version)
        await self.explorer.exchange(peer.node_id)

    async def _hear_of_layout(self, peer: Hello, cluster_id: bytes, version: int) -> None:
        """A peer has a layout. What came of one peer is dealt with one after another: of what it says meanwhile the last counts.

        A peer says it once, so whatever fails is tried again for as long as it is connected.
        """
        is_busy = peer.node_id in self._heard
        self._heard[peer.node_id] = (cluster_id, version)
        done = None
        while not is_busy and done != (heard := self._heard[peer.node_id]):
            try:
                await self._follow(peer, *heard)
                done = heard
            except (LinkLost, RequestFailed, TimeoutError, Unavailable, RemoteProtocolError) as error:
                log.debug("layout version %d of %s has to wait: %s", heard[1], short(peer.node_id), error)
                if self.links.peer(peer.node_id) is None:
                    break
                await asyncio.sleep(CATCH_UP_AGAIN_SECONDS)
        if not is_busy:
            del self._heard[peer.node_id]

    async def _follow(self, peer: Hello, cluster_id: bytes, version: int) -> None:
        """Catch up with the layout of a peer if it is ours, join if it names this node, refuse it if it is foreign."""
        if self.layouts.current is None and version:
            await self.layouts.join(peer.node_id)
        layout = self.layouts.current
        if layout is None or not version:
            return
        peer = replace(peer, cluster_id=ClusterId(cluster_id), layout_version=version)
        match self._relation(peer):
            case Relation.OURS:
                await self.layouts.catch_up(version)
            case Relation.FOLLOWER:
                pass  # it asks for what it needs
            case Relation.HEIR:
                await self._follow_heir(peer, layout)
            case relation:
                self._refuse(peer, relation)

    async def _follow_heir(self, peer: Hello, layout: Layout) -> None:
        """Go over to the cluster that goes on from this one by force, unless this one goes on as well."""
        if goes_on(layout, self._is_with_us):
            self.foreign.meet(peer, Relation.HEIR, layout)
            raise Unavailable("a majority is here")
        if not await self.layouts.follow(peer.node_id):
            self._refuse(peer, Relation.SUCCESSOR)

    async def _go_on(self, layout: Layout) -> None:
        if not await self.layouts.go_on(layout):
            log.debug("cluster %s is not begun: the layout has changed meanwhile", short(layout.cluster_id))

    def _refuse(self, peer: Hello, relation: Relation) -> None:
        self.foreign.meet(peer, relation, self.layout)
        self.links.close_peers([peer.node_id], CloseCode.FOREIGN_CLUSTER, "another cluster of the same key")

    async def _watch_addresses(self, known: tuple[str, ...]) -> None:
        # Links that last say nothing new; those that the change has broken are made anew, with a hello that does.
        while True:
            await asyncio.sleep(ADDRESSES_SECONDS)
            addresses = self.addresses
            if addresses != known:
                known = addresses
                self._on_event(AddressesChanged(addresses))
                await self._env.discovery.announce(Announcement(self.node_id, addresses))

    async def _watch_key(self) -> None:
        while self.layouts.current is None:
            await asyncio.sleep(1.0)
            if self.explorer.every_typed_address_refuses_the_key() and not self.links.peers():
                self._on_event(KeyRefused())
                return

    def _known_peers(self) -> Peers:
        own = PeerInfo(self.node_id, self.name, self.addresses)
        others = [
            PeerInfo(peer.node_id, peer.name, peer.addresses) for peer in self.links.peers() if peer.role is Role.MEMBER
        ]
        return Peers((own, *others))

    async def _layout_record(self, version: int) -> LayoutIs:
        data = await (self.system.layout(version) if version else self.system.latest_layout())
        return LayoutIs(data if data is not None else b"")

    async def _status(self) -> Status:
        layout = self.layouts.current
        _, free = await self._env.storage.disk.space()
        members = layout.members if layout is not None else {}
        unsynced = self.sync.unsynced()
        newcomers = [view.node_id for view in self.detector.members() if view.state < MemberState.DEAD and view.node_id not in members]
        seen = [node_id for node_id in (*sorted(members), *sorted(newcomers)) if node_id != self.node_id]
        return Status(
            node_id=self.node_id,
            name=self.name,
            cluster_id=layout.cluster_id if layout is not None else NO_CLUSTER,
            layout_version=layout.version if layout is not None else 0,
            uptime_seconds=int(asyncio.get_running_loop().time() - self._started_at),
            chunks=self.chunks.count,
            chunk_bytes=self.chunks.bytes,
            rows=self.rows.count,
            capacity_bytes=self._capacity_bytes,
            free_bytes=free,
            corrupt_chunks=self.chunks.corrupt,
            owed_chunks=self.sweep.owed_chunks,
            unsynced_partitions=len(unsynced),
            lost_partitions=sum(map(self.system.is_lost, unsynced)),
            evict_seconds=int(self.config.evict_seconds),
            peers=tuple(
                PeerStatus(node_id, self.detector.state(node_id), int(self.detector.away_seconds(node_id)))
                for node_id in seen[:PEERS_SHOWN_MAX]
            ),
            notices=self._notices(),
            missing_chunks=self.fetch.missing_chunks,
            surplus_chunks=self.sweep.surplus_chunks(),
            is_rebalance_paused=self._is_rebalance_paused(),
        )
