"""A client's side of the cluster: links to members, the layout, and nothing that lasts.

Owns how a client finds its way in (a few addresses, then whom those know) and how it keeps a layout. It proves itself with an
ephemeral certificate and says `role=client`: it is never placed, counted or dialled. `peer.files.operations` does the work over it.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from peer.config import DIAL_TIMEOUT_SECONDS
from peer.errors import ConnectFailed, GoneOver, LinkLost, NotAllowed, Refused, RequestFailed, Unavailable, Unreachable, Waiting, WrongUsage
from peer.link import Reply, Served
from peer.links import Links
from peer.seams import ClientEnv
from protocol import succession
from protocol.errors import CloseCode, ErrorCode, RemoteProtocolError
from protocol.fields import NO_CLUSTER
from protocol.hashing import Buffer
from protocol.identity import NodeId, short
from protocol.layout import Layout
from protocol.messages import Answer, Hello, LayoutGet, LayoutIs, LinkKind, Peers, PeersGet, Request, Role, Status, StatusGet
from protocol.succession import Relation

ASK_TIMEOUT_SECONDS = 5.0
ASK_AROUND_SECONDS = 5.0
"""A member that cannot be reached is asked for no more often than this."""
CONNECT_RETRY_SECONDS = 0.2
CONNECT_HEDGE_SECONDS = 0.25
"""An address that has not let the client in by then is not waited for alone."""


class _NoCluster(LinkLost):
    """A node has answered, and there is no cluster to enter by it."""

    def __init__(self, peer: Hello) -> None:
        super().__init__(f"node {peer.name} belongs to no cluster yet")
        self.peer = peer


class Session:
    """Access to a cluster for one client process."""

    def __init__(self, env: ClientEnv, name: str) -> None:
        self.name = name
        self.node_id = env.network.node_id
        self.entropy = env.entropy
        self.wall_clock = env.wall_clock
        self.compute = env.compute
        self._faults = env.faults
        self.links = Links(env.network, self)
        self._layout: Layout | None = None
        self._gone_over: set[NodeId] = set()
        """Members of the layout that have been met in a cluster that goes on from theirs by force: they never come back."""
        self._is_closed = False
        self._asking: asyncio.Task[None] | None = None
        """Asks a member where the others are now."""

    @property
    def layout(self) -> Layout:
        """The newest layout that this session has seen.

        Raises: WrongUsage once the session is closed, so that what is still under way ends soon.
        """
        if self._is_closed:
            raise WrongUsage("this client is closed: connect again")
        assert self._layout is not None
        return self._layout

    async def connect(self, addresses: Sequence[str], *, timeout_seconds: float) -> None:
        """Reach one of `addresses` that belongs to a cluster, and learn the layout and where its members listen.

        Raises: NotAllowed when every address refuses the key, Waiting when only nodes answer that belong to no cluster yet, Unavailable.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + timeout_seconds
        while True:
            faults = await self._enter_by_any(addresses)
            if faults is None:
                return
            if addresses and all(isinstance(fault, ConnectFailed) and fault.wrong_key for fault in faults):
                raise NotAllowed(f"{', '.join(addresses)} refuses this key: use the key of its cluster")
            if loop.time() >= give_up_at:
                waiting = next((fault.peer for fault in faults if isinstance(fault, _NoCluster)), None)
                if waiting is not None:
                    raise Waiting(await self._what_it_waits_for(waiting))
                reason = "; ".join(map(str, faults)) or "no address is known"
                raise Unavailable(f"no node can be reached ({reason}): is one running? start it with `shoal up`")
            await asyncio.sleep(CONNECT_RETRY_SECONDS)

    async def close(self) -> None:
        """Close all links."""
        self._is_closed = True
        if self._asking is not None:
            self._asking.cancel()
        await self.links.close()

    async def request(
        self, node_id: NodeId, message: Request, payload: Buffer = b"", *, timeout_seconds: float
    ) -> Reply:
        """Ask a member.

        Raises: LinkLost (Unreachable when nothing was sent, GoneOver), RequestFailed, TimeoutError.
        """
        if node_id in self._gone_over:
            raise GoneOver("it went on by force in another cluster")
        try:
            return await self.links.request(node_id, message, payload, timeout_seconds=timeout_seconds)
        except Unreachable:
            if not self._is_closed and (self._asking is None or self._asking.done()):
                self._asking = asyncio.get_running_loop().create_task(self._ask_around())
            raise

    async def catch_up(self, version: int) -> None:
        """Learn the layout at least this new from any member.

        Raises: Unavailable.
        """
        for node_id in self.preferred(sorted(self.layout.members)):
            if self.layout.version >= version:
                return
            try:
                await self._learn_layout(node_id)
            except (LinkLost, RequestFailed, TimeoutError, RemoteProtocolError):
                continue
        if self.layout.version < version:
            raise Unavailable(f"no node that can be reached has layout version {version} yet: try again in a moment")

    def addresses_of(self, node_id: NodeId) -> Sequence[str]:
        """Return where a member listens: what it said itself, else what others said."""
        return self.links.addresses(node_id)

    def preferred(self, nodes: Sequence[NodeId]) -> list[NodeId]:
        """Return `nodes` with the connected ones first, and last those that a moment ago could not be reached."""
        if self._faults.sometimes("session.any-order"):
            return sorted(nodes, key=lambda node: self.entropy.token("any order", 4))
        return sorted(nodes, key=lambda node: (self.recently_refused(node), self.links.peer(node) is None))

    def recently_refused(self, node_id: NodeId) -> bool:
        """Return whether a direct try of the last moments failed. Who has gone over says so each time that it is asked."""
        return self.links.recently_refused(node_id) and node_id not in self._gone_over

    # -- LinksHost -----------------------------------------------------------

    def hello(self, kind: LinkKind, peer: NodeId) -> Hello:
        """Return what a client says of itself."""
        return Hello(
            version_lowest=1,
            version_highest=1,
            features=0,
            link=kind,
            role=Role.CLIENT,
            node_id=self.node_id,
            boot=0,
            cluster_id=NO_CLUSTER,
            layout_version=0,
            layout_digest=b"",
            name=self.name,
            zone="",
            capacity_bytes=0,
            addresses=(),
            optional={},
        )

    def layout_version(self) -> int:
        """Return the layout version that this session knows."""
        return self._layout.version if self._layout is not None else 0

    def admit(self, peer: Hello) -> tuple[CloseCode, str] | None:
        """Refuse nodes of another cluster once one is known."""
        if self._layout is None or peer.cluster_id in (b"", self._layout.cluster_id):
            return None
        try:
            relation = succession.relation(self._layout, peer, succession.heard(peer.optional))
        except RemoteProtocolError as error:
            return error.code, error.reason
        if relation is Relation.SUCCESSOR and peer.node_id in self._layout.members:
            self._gone_over.add(peer.node_id)
        return CloseCode.FOREIGN_CLUSTER, "this client talks to another cluster: connect anew"

    def peer_up(self, peer: Hello) -> None:
        """Nothing follows: a client keeps no view of who is there."""

    def peer_refuses(self, node_id: NodeId) -> None:
        """Nothing follows."""

    def answer_at_once(self, peer: Hello, request: Request) -> Answer | None:
        """Leave it to `serve`."""
        return None

    async def serve(self, peer: Hello, request: Request, payload: memoryview, deadline: float) -> Served:
        """Refuse: a client serves nothing."""
        raise Refused(ErrorCode.UNSUPPORTED, "a client serves nothing")

    def fail(self, error: BaseException) -> None:
        """A bug below a link: it must not stay hidden."""
        raise error

    # -- inside --------------------------------------------------------------

    async def _enter_by_any(self, addresses: Sequence[str]) -> list[Exception] | None:
        """Try `addresses` in their order, the next one early when one is slow.

        Returns None once one of them has let this session in, else why none has.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Queue[asyncio.Task[None]] = asyncio.Queue()
        tries: list[asyncio.Task[None]] = []
        faults: list[Exception] = []
        try:
            while len(faults) < len(addresses):
                if len(tries) < len(addresses):
                    tries.append(loop.create_task(self._enter(addresses[len(tries)])))
                    tries[-1].add_done_callback(ended.put_nowait)
                try:
                    async with asyncio.timeout(CONNECT_HEDGE_SECONDS if len(tries) < len(addresses) else None):
                        done = await ended.get()
                except TimeoutError:
                    continue
                try:
                    return done.result()
                except (ConnectFailed, LinkLost) as fault:
                    faults.append(fault)
            return faults
        finally:
            for task in tries:
                task.cancel()
            await asyncio.gather(*tries, return_exceptions=True)

    async def _enter(self, address: str) -> None:
        """Raises: ConnectFailed, LinkLost."""
        peer = await self.links.meet(address)
        try:
            await self._learn_from(peer)
        except _NoCluster:
            raise
        except (LinkLost, RequestFailed, TimeoutError, RemoteProtocolError) as error:
            raise LinkLost(f"{address}: {str(error) or 'no answer in time'}") from None

    async def _learn_from(self, peer: Hello) -> None:
        """Learn the layout and where its members listen."""
        await self._learn_layout(peer.node_id)
        if self._layout is None:
            raise _NoCluster(peer)
        await self._learn_addresses(peer.node_id)

    async def _what_it_waits_for(self, peer: Hello) -> str:
        message = StatusGet(int(ASK_TIMEOUT_SECONDS * 1000))
        notices: tuple[str, ...] = ()
        with suppress(LinkLost, RequestFailed, TimeoutError):
            reply = await self.links.request(peer.node_id, message, timeout_seconds=ASK_TIMEOUT_SECONDS)
            assert isinstance(reply.message, Status)
            notices = reply.message.notices
        what = "; ".join(notices) or "try again in a moment"
        return f"node {peer.name} ({short(peer.node_id)}) is running and belongs to no cluster yet: {what}"

    async def _learn_addresses(self, node_id: NodeId) -> None:
        message = PeersGet(int(ASK_TIMEOUT_SECONDS * 1000))
        reply = await self.links.request(node_id, message, timeout_seconds=ASK_TIMEOUT_SECONDS)
        answer = reply.message
        assert isinstance(answer, Peers)
        for info in answer.peers:
            self.links.learn_addresses(info.node_id, info.addresses)

    async def _ask_around(self) -> None:
        """A member that cannot be reached may have another address by now, or be one no more: those who are linked to us know."""
        for peer in self.links.peers():
            with suppress(LinkLost, RequestFailed, TimeoutError, RemoteProtocolError):
                await self._learn_from(peer)
        await asyncio.sleep(ASK_AROUND_SECONDS)

    async def _learn_layout(self, node_id: NodeId) -> None:
        message = LayoutGet(int(ASK_TIMEOUT_SECONDS * 1000), 0)
        reply = await self.links.request(node_id, message, timeout_seconds=ASK_TIMEOUT_SECONDS)
        answer = reply.message
        assert isinstance(answer, LayoutIs)
        if not answer.record:
            return
        layout = Layout.from_bytes(answer.record)
        if self._layout is None or (
            layout.cluster_id == self._layout.cluster_id and layout.version > self._layout.version
        ):
            self._layout = layout
            for member_id, member in layout.members.items():
                if not self.links.addresses(member_id):
                    self.links.learn_addresses(member_id, member.addresses)


async def connect(env: ClientEnv, addresses: Sequence[str], *, name: str, timeout_seconds: float) -> Session:
    """Return a session with the cluster that one of `addresses` belongs to.

    Raises: NotAllowed, Unavailable.
    """
    session = Session(env, name)
    try:
        async with asyncio.timeout(timeout_seconds + DIAL_TIMEOUT_SECONDS):
            await session.connect(addresses, timeout_seconds=timeout_seconds)
    except BaseException as error:
        await session.close()
        if isinstance(error, TimeoutError):
            raise Unavailable(f"none of {', '.join(addresses)} answered within {timeout_seconds:.0f} s") from None
        raise
    return session
