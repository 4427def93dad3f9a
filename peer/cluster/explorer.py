"""Meeting the others: from a hint to a link.

Owns where hints come from (discovery, typed addresses, remembered peers, what peers tell of peers) and the standing
dials to members. A hint is only an address to try: who answers there is proven by the link. Knows nothing of who should be a member.

The member with the lower id dials at once, the other one a moment later, so that two nodes rarely dial each other at once.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence

from peer.config import DIAL_BACKOFF_FIRST_SECONDS, DIAL_BACKOFF_LAST_SECONDS, EXPLORE_SECONDS
from peer.errors import ConnectFailed, LinkLost, RequestFailed
from peer.links import Links
from peer.seams import Discovery, Entropy
from peer.store.system import SystemStore
from protocol import limits
from protocol.identity import NodeId, short
from protocol.messages import LinkKind, Peers, PeersGet, Role

MEET_AT_ONCE_MAX = 16
"""Unknown addresses tried at one time."""
KNOWN_MAX = 2 * limits.MEMBERS_MAX
"""Nodes that are dialled again and again: members, and newcomers that were met."""
HEARD_MAX = 64
"""Addresses that were heard of and have not answered yet; beyond them the oldest is forgotten."""
FORGET_AFTER_FAILURES = 8
"""A node that is no member is given up after so many dials in vain: a hint brings it back."""
HIGHER_ID_WAITS_SECONDS = 0.5
PEERS_TIMEOUT_SECONDS = 5.0

log = logging.getLogger(__name__)


class Explorer:
    """Finds peers and keeps links to them."""

    def __init__(
        self,
        links: Links,
        discovery: Discovery,
        system: SystemStore,
        entropy: Entropy,
        typed: Sequence[str],
        is_member: Callable[[NodeId], bool],
        own_addresses: Callable[[], Sequence[str]],
    ) -> None:
        """`own_addresses` says what is never dialled."""
        self._links = links
        self._discovery = discovery
        self._system = system
        self._entropy = entropy
        self._typed = tuple(typed)
        self._is_member = is_member
        self._own_addresses = own_addresses
        self._keepers: dict[NodeId, asyncio.Task[None]] = {}
        self._meeting: dict[str, asyncio.Task[None]] = {}
        self._typed_faults: dict[str, ConnectFailed | LinkLost] = {}
        self._heard: OrderedDict[str, None] = OrderedDict()

    async def run_hints(self) -> None:
        """Try what discovery finds, until cancelled."""
        async for addresses in self._discovery.hints():
            for address in addresses:
                self._remember(address)
                self.try_address(address)

    async def run_known(self) -> None:
        """Try typed addresses and remembered peers again and again, until cancelled.

        What was heard is tried again as well while this node belongs to no cluster: a record that is announced once more
        and says nothing new is no hint.
        """
        for info in self._system.peers():
            self._links.learn_addresses(info.node_id, info.addresses)
            self.keep(info.node_id)
        while True:
            for address in self._typed:
                self.try_address(address)
            if not self._is_member(self._links.node_id):
                for address in list(self._heard)[:MEET_AT_ONCE_MAX]:
                    self._heard.move_to_end(address)  # all have their turn
                    self.try_address(address)
            await asyncio.sleep(EXPLORE_SECONDS)

    def try_address(self, address: str) -> None:
        """Find out who listens at `address`, unless that is known or under way."""
        if address in self._meeting or len(self._meeting) >= MEET_AT_ONCE_MAX:
            return
        if address in self._own_addresses() or any(address in peer.addresses for peer in self._links.peers()):
            return
        task = asyncio.get_running_loop().create_task(self._meet(address))
        self._meeting[address] = task
        task.add_done_callback(lambda _: self._meeting.pop(address, None))

    def keep(self, node_id: NodeId) -> None:
        """See to it that a ctl link to this node stands, for as long as it makes sense."""
        if node_id == self._links.node_id or node_id in self._keepers or len(self._keepers) >= KNOWN_MAX:
            return
        task = asyncio.get_running_loop().create_task(self._keep(node_id))
        self._keepers[node_id] = task
        task.add_done_callback(lambda _: self._keepers.pop(node_id, None))

    async def exchange(self, node_id: NodeId) -> None:
        """Ask a peer whom it knows, and keep links to them as well."""
        message = PeersGet(int(PEERS_TIMEOUT_SECONDS * 1000))
        try:
            reply = await self._links.request(node_id, message, timeout_seconds=PEERS_TIMEOUT_SECONDS)
        except (LinkLost, RequestFailed, TimeoutError):
            return
        answer = reply.message
        assert isinstance(answer, Peers)
        for info in answer.peers:
            if self._links.peer(info.node_id) is None and info.addresses:
                if not self._links.addresses(info.node_id):
                    self._links.learn_addresses(info.node_id, info.addresses)
                self.keep(info.node_id)

    def every_typed_address_refuses_the_key(self) -> bool:
        """Return whether addresses were typed and the last try of each of them failed for the key."""
        faults = [self._typed_faults.get(address) for address in self._typed]
        return bool(faults) and all(isinstance(fault, ConnectFailed) and fault.wrong_key for fault in faults)

    def typed_faults(self) -> list[str]:
        """Return why the last try of each typed address failed, where it did."""
        return [str(self._typed_faults[address]) for address in self._typed if address in self._typed_faults]

    async def close(self) -> None:
        """Stop all dials."""
        tasks = [*self._keepers.values(), *self._meeting.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _remember(self, address: str) -> None:
        self._heard[address] = None
        if len(self._heard) > HEARD_MAX:
            self._heard.popitem(last=False)

    async def _meet(self, address: str) -> None:
        try:
            peer = await self._links.meet(address)
        except (ConnectFailed, LinkLost) as error:
            if address in self._typed:
                self._typed_faults[address] = error
            log.debug("nobody to meet at %s: %s", address, error)
            return
        self._typed_faults.pop(address, None)
        self._heard.pop(address, None)
        if peer.role is Role.MEMBER:
            self.keep(peer.node_id)

    async def _keep(self, node_id: NodeId) -> None:
        failures = 0
        if self._links.node_id > node_id:
            await asyncio.sleep(HIGHER_ID_WAITS_SECONDS)
        while failures < FORGET_AFTER_FAILURES or self._is_member(node_id):
            try:
                await self._links.reach(node_id, LinkKind.CTL)
            except LinkLost as error:
                log.debug("%s", error)
                failures += 1
            else:
                failures = 0
                await self._links.until_down(node_id)
            backoff = min(DIAL_BACKOFF_LAST_SECONDS, DIAL_BACKOFF_FIRST_SECONDS * 2.0 ** min(failures, 8))
            await asyncio.sleep(self._entropy.uniform("dial", 0.5, 1.0) * backoff if failures else DIAL_BACKOFF_FIRST_SECONDS)
        log.debug("node %s is given up", short(node_id))
