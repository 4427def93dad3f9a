"""All links of one process: who is connected, how to reach a node, which of two links stays.

Owns dialling (one attempt at a time per node and kind, known addresses in turn), the address book, the
memory of refused dials and the rule for duplicate links. Knows nothing of what is asked over a link, nor
of membership: `LinksHost` decides who may connect and answers requests. Used by the node and by clients.

Either side may dial. When both did, the link dialled by the lower node id stays; its other dialler
closes the surplus one once nothing is open on it, so that no request is lost to the tie-break.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from peer.config import DIAL_TIMEOUT_SECONDS, RECENT_REFUSAL_SECONDS
from peer.errors import ConnectFailed, LinkLost, Unreachable
from peer.link import Link, Reply, Served
from peer.seams import Network
from protocol import limits
from protocol.connection import PayloadBudget
from protocol.errors import CloseCode
from protocol.hashing import Buffer
from protocol.identity import ClusterId, NodeId, short
from protocol.messages import Answer, Carrier, Hello, LinkKind, Request, Role

ADDRESS_BOOK_MAX = 4 * limits.MEMBERS_MAX
"""Nodes whose addresses are remembered in memory; the oldest are forgotten first."""
LINKS_MAX = 4 * limits.MEMBERS_MAX
"""Links at one time, those without a hello included: two to each member, and as many for clients. One more is closed with OVERLOADED."""
SURPLUS_LINK_SECONDS = 1.0
"""A surplus link lives on for so long at least: requests of the peer may still be on their way."""


class LinksHost(Protocol):
    """What a process makes of its links."""

    def hello(self, kind: LinkKind, peer: NodeId) -> Hello:
        """Return what this process says of itself on a new link to `peer`."""

    def layout_version(self) -> int:
        """Return the version of the layout in use, 0 without one."""

    def admit(self, peer: Hello) -> tuple[CloseCode, str] | None:
        """Return why a link to this peer must not stand, or None. Called once per link."""

    def peer_up(self, peer: Hello) -> None:
        """The first ctl link to this peer is up, or a newer hello than before has arrived."""

    def peer_refuses(self, node_id: NodeId) -> None:
        """A dial has found that nobody listens at any address of this node, whose machine said so."""

    def answer_at_once(self, peer: Hello, request: Request) -> Answer | None:
        """Return the answer to a request of `peer` that waits for nothing; None: `serve` is asked."""

    async def serve(self, peer: Hello, request: Request, payload: memoryview, deadline: float) -> Served:
        """Answer a request of `peer`."""

    def fail(self, error: BaseException) -> None:
        """Stop this process: its storage failed, or a handler has a bug."""


class Links:
    """The links of this process."""

    def __init__(self, network: Network, host: LinksHost) -> None:
        self.node_id = network.node_id
        self.budget = PayloadBudget(limits.PAYLOAD_MEMORY_BYTES_MAX)
        self._network = network
        self._host = host
        self._links: dict[tuple[NodeId, LinkKind], Link] = {}
        self._hellos: dict[NodeId, Hello] = {}
        """What the peers with a ctl link say of themselves."""
        self._every: list[Link] = []
        self._dialling: dict[tuple[NodeId, LinkKind], asyncio.Task[Link]] = {}
        self._addresses: OrderedDict[NodeId, tuple[str, ...]] = OrderedDict()
        self._refused_at: dict[NodeId, float] = {}
        self._downs: dict[NodeId, asyncio.Event] = {}
        """For each peer whose end is waited for, what tells of it."""
        self._closers: set[asyncio.Task[None]] = set()
        self._closed = False

    # -- who is there --------------------------------------------------------

    def peer(self, node_id: NodeId) -> Hello | None:
        """Return the hello of a peer whose ctl link is up."""
        return self._hellos.get(node_id)

    def peers(self) -> list[Hello]:
        """Return the hellos of all peers with a ctl link, in order of id."""
        return [self._hellos[node_id] for node_id in sorted(self._hellos)]

    def joined(self, node_id: NodeId, cluster_id: ClusterId) -> None:
        """Note to which cluster a peer belongs that belonged to none, perhaps, when it said hello."""
        if node_id in self._hellos:
            self._hellos[node_id] = replace(self._hellos[node_id], cluster_id=cluster_id)

    async def until_down(self, node_id: NodeId) -> None:
        """Wait for as long as a ctl link to a peer is up."""
        while (node_id, LinkKind.CTL) in self._links:
            await self._downs.setdefault(node_id, asyncio.Event()).wait()

    def recently_refused(self, node_id: NodeId) -> bool:
        """Return whether the last direct try to reach this node failed within RECENT_REFUSAL_SECONDS."""
        refused_at = self._refused_at.get(node_id)
        return refused_at is not None and self._now() - refused_at < RECENT_REFUSAL_SECONDS

    def learn_addresses(self, node_id: NodeId, addresses: Sequence[str]) -> None:
        """Remember where a node may listen, in place of what was known."""
        if node_id == self.node_id or not addresses:
            return
        self._addresses[node_id] = tuple(addresses)
        self._addresses.move_to_end(node_id)
        while len(self._addresses) > ADDRESS_BOOK_MAX:
            self._addresses.popitem(last=False)

    def addresses(self, node_id: NodeId) -> tuple[str, ...]:
        """Return where a node may listen, as far as known."""
        return self._addresses.get(node_id, ())

    # -- asking --------------------------------------------------------------

    async def request(
        self, node_id: NodeId, message: Request, payload: Buffer = b"", *, timeout_seconds: float
    ) -> Reply:
        """Ask `node_id`, dialling when no link is up; chunks travel on the bulk link, all else on ctl.

        Raises: LinkLost (Unreachable when nothing was sent), RequestFailed, TimeoutError.
        """
        kind = LinkKind.BULK if message.CARRIER is Carrier.BULK else LinkKind.CTL
        link = self._links.get((node_id, kind))
        if link is None:
            give_up_at = self._now() + timeout_seconds
            async with asyncio.timeout_at(give_up_at):
                link = await self.reach(node_id, kind)
            timeout_seconds = give_up_at - self._now()
        return await link.request(message, payload, timeout_seconds=timeout_seconds)

    def ask(self, node_id: NodeId, message: Request, answered: Callable[[Answer], None]) -> None:
        """Ask `node_id` over its ctl link, if one is up, what it may leave unanswered (`Link.ask`)."""
        link = self._links.get((node_id, LinkKind.CTL))
        if link is not None:
            link.ask(message, answered)

    async def reach(self, node_id: NodeId, kind: LinkKind) -> Link:
        """Return a link of `kind` to `node_id` that is up.

        Raises: Unreachable when none of its addresses answers.
        """
        key = (node_id, kind)
        link = self._links.get(key)
        if link is not None:
            return link
        if self._closed:
            raise Unreachable("this node is stopping")
        task = self._dialling.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._dial(node_id, kind))
            self._dialling[key] = task
            task.add_done_callback(lambda done: self._dialled(key, done))
        return await asyncio.shield(task)

    async def meet(self, address: str) -> Hello:
        """Dial an address whose owner is not known yet and return who answers; a link that is up already is used.

        Raises: ConnectFailed, LinkLost.
        """
        link = await self._connect(address, LinkKind.CTL, DIAL_TIMEOUT_SECONDS)
        return link.peer

    def accept(self, proven: NodeId) -> Link:
        """Return the protocol for a connection that a proven peer has made to this process."""
        link = self._make(None, proven, dialled=False)
        if len(self._every) > LINKS_MAX:
            link.close(CloseCode.OVERLOADED, f"this node has {LINKS_MAX} links already")
        return link

    async def close(self) -> None:
        """Close all links."""
        self._closed = True
        for task in list(self._dialling.values()):
            task.cancel()
        for link in list(self._every):
            link.close(CloseCode.NORMAL, "stopping")
        for closer in list(self._closers):
            closer.cancel()
        for link in list(self._every):
            await link.wait_closed()

    def close_peers(self, node_ids: Iterable[NodeId], code: CloseCode, reason: str) -> None:
        """Close every link to these peers."""
        gone = frozenset(node_ids)
        for link in list(self._every):
            if link.proven in gone:
                link.close(code, reason)

    def close_all(self, code: CloseCode, reason: str) -> None:
        """Close every link that there is now."""
        for link in list(self._every):
            link.close(code, reason)

    # -- LinkOwner -----------------------------------------------------------

    def hello(self, kind: LinkKind, peer: NodeId) -> Hello:
        """Return the hello for a new link."""
        return self._host.hello(kind, peer)

    def layout_version(self) -> int:
        """Return the layout version that failures carry."""
        return self._host.layout_version()

    def link_up(self, link: Link) -> None:
        """Take a link whose hello has arrived, or close it."""
        refusal = self._host.admit(link.peer)
        if refusal is not None:
            link.close(*refusal)
            return
        peer = link.peer
        self._refused_at.pop(peer.node_id, None)
        if peer.role is Role.MEMBER:
            self.learn_addresses(peer.node_id, peer.addresses)
        key = (peer.node_id, link.kind)
        other = self._links.get(key)
        if other is not None and self._stays(other, link):
            self._retire(link)
            return
        self._links[key] = link
        if other is not None and other.peer.boot < peer.boot:
            other.close(CloseCode.FORMER_LIFE, "the peer was started anew")
        elif other is not None:
            self._retire(other)
        if link.kind is LinkKind.CTL:
            self._hellos[peer.node_id] = peer
            self._host.peer_up(peer)

    def link_down(self, link: Link, code: CloseCode, reason: str) -> None:
        """Forget a link."""
        key = (link.proven, link.kind)
        if self._links.get(key) is link:
            del self._links[key]
            if link.kind is LinkKind.CTL:
                del self._hellos[link.proven]
                down = self._downs.pop(link.proven, None)
                if down is not None:
                    down.set()

    def answer_at_once(self, link: Link, request: Request) -> Answer | None:
        """Answer a request that waits for nothing."""
        return self._host.answer_at_once(link.peer, request)

    async def serve(self, link: Link, request: Request, payload: memoryview, deadline: float) -> Served:
        """Answer a request."""
        return await self._host.serve(link.peer, request, payload, deadline)

    def failed(self, error: BaseException) -> None:
        """Pass on what must stop this process."""
        self._host.fail(error)

    # -- inside --------------------------------------------------------------

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _make(self, kind: LinkKind | None, proven: NodeId, *, dialled: bool) -> Link:
        link = Link(self, kind, proven, self.budget, dialled=dialled)
        self._every.append(link)
        task = asyncio.get_running_loop().create_task(self._forget(link))
        self._closers.add(task)
        task.add_done_callback(self._closers.discard)
        return link

    async def _forget(self, link: Link) -> None:
        try:
            await link.wait_closed()
        finally:
            self._every.remove(link)

    def _stays(self, old: Link, new: Link) -> bool:
        if old.peer.boot != new.peer.boot or old.dialled == new.dialled:
            return False  # the peer was restarted, or dialled anew because it lost the old link
        dialled_here = self.node_id < old.proven
        return old.dialled == dialled_here

    def _retire(self, link: Link) -> None:
        if link.dialled:
            task = asyncio.get_running_loop().create_task(self._close_surplus(link))
            self._closers.add(task)
            task.add_done_callback(self._closers.discard)

    async def _close_surplus(self, link: Link) -> None:
        await asyncio.sleep(SURPLUS_LINK_SECONDS)
        await link.wait_idle()
        link.close(CloseCode.DUPLICATE_LINK, "another link between the two stays")

    def _dialled(self, key: tuple[NodeId, LinkKind], task: asyncio.Task[Link]) -> None:
        self._dialling.pop(key, None)
        if not task.cancelled() and task.exception() is not None and key not in self._links:  # the peer may have dialled meanwhile
            self._refused_at[key[0]] = self._now()

    async def _dial(self, node_id: NodeId, kind: LinkKind) -> Link:
        addresses = self.addresses(node_id)
        fault = "no address is known"
        refusals = 0
        for address in addresses:
            try:
                link = await self._connect(address, kind, DIAL_TIMEOUT_SECONDS / len(addresses))
            except (ConnectFailed, LinkLost) as error:
                fault = str(error)
                refusals += isinstance(error, ConnectFailed) and error.refused
                continue
            if link.proven == node_id:
                return self._links.get((node_id, kind), link)
            fault = f"{address}: another node listens there"
        if addresses and refusals == len(addresses):
            self._host.peer_refuses(node_id)
        raise Unreachable(f"node {short(node_id)} cannot be reached: {fault}")

    async def _connect(self, address: str, kind: LinkKind, timeout_seconds: float) -> Link:
        made = await self._network.connect(
            address, lambda proven: self._make(kind, proven, dialled=True), timeout_seconds=timeout_seconds
        )
        assert isinstance(made, Link)
        await made.up(timeout_seconds)
        return made
