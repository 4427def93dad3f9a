"""What `shoal doctor` looks at: this machine's interfaces, what multicast does, and how far a link to each node gets.

Collects and judges nothing: `peer.cli.doctor` does that. Reads the home and starts nothing in it. What it sends is what a node that
looks for its cluster and a client would send; nodes of another key are only listened to.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from peer.cli.world import NextPortNetwork
from peer.client.home_files import key_origin, key_text, node_addresses, parsed
from peer.client.reach import DISCOVERY_SECONDS, client_env
from peer.config import DIAL_TIMEOUT_SECONDS
from peer.errors import ConnectFailed, LinkLost, RequestFailed
from peer.real.discovery import Sighting, ZeroconfDiscovery
from peer.real.entropy import RealEntropy
from peer.real.interfaces import LOOPBACK, Interface, chosen_addresses, interfaces_of
from peer.real.keys import ClusterKey, new_key
from peer.real.multicast import Echo, echo
from peer.real.network import RealNetwork, split_address
from peer.session import Session
from peer.store.home import SEED_BYTES
from protocol.errors import RemoteProtocolError
from protocol.layout import Layout
from protocol.messages import Hello, LayoutGet, LayoutIs, Peers, PeersGet, Status, StatusGet

ASK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Question:
    """What the doctor was asked to look at."""

    home: Path
    given: tuple[str, ...]
    """Addresses at which nodes should be."""
    interfaces: tuple[str, ...]
    """Names or addresses; empty for those that a node would use."""
    listen: str
    """Where a node of this home would listen."""
    any_port: bool
    """Whether the next free port will do as well."""


class Step(IntEnum):
    """How far a link to a node has come: the step that failed, or UP."""

    PORT = 1
    TLS = 2
    KEY = 3
    HELLO = 4
    UP = 5


@dataclass(frozen=True, slots=True)
class Visit:
    """What came of calling one node."""

    address: str
    reached: Step
    fault: str = ""
    hello: Hello | None = None
    """Only of a link that is up."""
    clock_ahead_seconds: float | None = None
    """By how much the node's clock is ahead of this one; None where it does not say."""

    @property
    def called(self) -> str:
        """What people call the node."""
        return f"{self.hello.name} ({self.address})" if self.hello is not None else self.address


@dataclass(frozen=True, slots=True)
class Port:
    """Where a node of this home could listen."""

    address: str
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to judge."""

    question: Question
    key: ClusterKey | None
    interfaces: tuple[Interface, ...]
    """Those for multicast; the loopback one only if there is no other, or it was asked for."""
    echoes: tuple[Echo, ...]
    """One for each of `interfaces`."""
    heard: tuple[Sighting, ...]
    """The nodes that announce themselves, but for the one of this home."""
    own: Visit | None
    """The node of this home; None when there is no sign of one."""
    own_is_heard: bool
    port: Port | None
    """None while the node of this home has it."""
    visits: tuple[Visit, ...]
    """The other nodes: heard ones of this key, given ones, and those that the node of this home is linked to, or in one cluster with."""
    notices: tuple[str, ...] = ()
    """What the node of this home wants people to know."""


async def look(question: Question) -> Facts:
    """Look at everything. Takes as long as a client listens for nodes, and a dial.

    Raises: WrongUsage when the key of this home is none.
    """
    text = key_text(question.home)
    key = parsed(text, key_origin(question.home)) if text is not None else None
    shown_key = key or new_key()  # one that nobody has
    interfaces = multicast_interfaces(question.interfaces)
    own_addresses = node_addresses(question.home)
    session = Session(client_env(shown_key), "doctor")
    try:
        heard, echoes, own = await asyncio.gather(
            listen(shown_key, question.interfaces),
            asyncio.gather(*(echo(interface.address) for interface in interfaces)),
            visit(session, own_addresses),
        )
        others = [each for each in heard if not {*each.addresses} & {*own_addresses}]
        targets = [each.addresses for each in others if each.tag == shown_key.tag]
        targets += [(address,) for address in question.given]
        targets += await known_addresses(session, own)
        notices = await notices_of(session, own)
        visits = await asyncio.gather(*(visit(session, addresses) for addresses in without_repeats(targets)))
    finally:
        await session.close()
    return Facts(
        question=question,
        key=key,
        interfaces=tuple(interfaces),
        echoes=tuple(echoes),
        heard=tuple(others),
        own=own,
        own_is_heard=len(others) < len(heard),
        port=await free_port(shown_key, question) if own is None or own.reached is Step.PORT else None,
        visits=tuple(one_of_each([each for each in visits if each is not None], own)),
        notices=notices,
    )


def multicast_interfaces(choice: Sequence[str]) -> list[Interface]:
    """Return the interfaces that can tell something: the loopback one is left out where there is another."""
    addresses = chosen_addresses(choice)
    return interfaces_of([address for address in addresses if address != LOOPBACK] or addresses)


async def listen(key: ClusterKey, interfaces: Sequence[str]) -> list[Sighting]:
    """Return the nodes of any key that are heard within DISCOVERY_SECONDS."""
    discovery = ZeroconfDiscovery(key, interfaces)
    heard: dict[str, Sighting] = {}
    try:
        async with asyncio.timeout(DISCOVERY_SECONDS):
            async for sighting in discovery.sightings():
                heard[sighting.label] = sighting
    except TimeoutError:
        pass
    finally:
        await discovery.close()
    return sorted(heard.values(), key=lambda each: each.addresses)


async def visit(session: Session, addresses: Sequence[str]) -> Visit | None:
    """Call a node at one of its addresses after the other until a link is up; if none comes up, tell of the one that came furthest."""
    failed: list[Visit] = []
    for address in addresses:
        try:
            hello = await session.links.meet(address)
        except ConnectFailed as error:
            failed.append(Visit(address, await failed_step(error), error.reason))
        except LinkLost as error:
            failed.append(Visit(address, Step.HELLO, str(error)))
        else:
            clock, now = hello.clock_milliseconds, session.wall_clock.milliseconds()
            return Visit(address, Step.UP, "", hello, (clock - now) / 1000 if clock is not None else None)
    return max(failed, key=lambda each: each.reached, default=None)


async def failed_step(error: ConnectFailed) -> Step:
    """Return what a connection has failed at."""
    if error.wrong_key:
        return Step.KEY
    return Step.TLS if not error.refused and await accepts(error.address) else Step.PORT


async def accepts(address: str) -> bool:
    """Return whether anything answers at an address at all."""
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_SECONDS):
            _, writer = await asyncio.open_connection(*split_address(address))
    except (OSError, TimeoutError, UnicodeError, ConnectFailed):
        return False
    writer.close()
    return True


async def known_addresses(session: Session, own: Visit | None) -> list[tuple[str, ...]]:
    """Return where the nodes listen that the node of this home has links to, or that are members of its cluster: it may know some that
    nobody hears.
    """
    if own is None or own.hello is None:
        return []
    node_id, deadline = own.hello.node_id, int(ASK_SECONDS * 1000)
    with suppress(LinkLost, RequestFailed, TimeoutError, RemoteProtocolError):
        linked = (await session.links.request(node_id, PeersGet(deadline), timeout_seconds=ASK_SECONDS)).message
        latest = (await session.links.request(node_id, LayoutGet(deadline, 0), timeout_seconds=ASK_SECONDS)).message
        assert isinstance(linked, Peers)
        assert isinstance(latest, LayoutIs)
        members = Layout.from_bytes(latest.record).members if latest.record else {}
        addresses = {member.node_id: member.addresses for member in members.values()}
        addresses |= {peer.node_id: peer.addresses for peer in linked.peers}  # newer, if it has moved
        return [each for known, each in addresses.items() if each and known != node_id]
    return []


async def notices_of(session: Session, own: Visit | None) -> tuple[str, ...]:
    """Return what the node of this home wants people to know: of what it refuses nobody else may know."""
    if own is None or own.hello is None:
        return ()
    with suppress(LinkLost, RequestFailed, TimeoutError):
        reply = await session.links.request(own.hello.node_id, StatusGet(int(ASK_SECONDS * 1000)), timeout_seconds=ASK_SECONDS)
        assert isinstance(reply.message, Status)
        return reply.message.notices
    return ()


async def free_port(key: ClusterKey, question: Question) -> Port:
    """Listen for a moment as a node of this home would."""
    network = (NextPortNetwork if question.any_port else RealNetwork)(key, RealEntropy().token("doctor", SEED_BYTES))
    try:
        listener = await network.listen(question.listen, lambda proven: asyncio.BufferedProtocol())
    except ConnectFailed as error:
        return Port(error.address, error.reason)
    address = listener.addresses[0]
    await listener.close()
    return Port(address)


def without_repeats(targets: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the targets without those of which an address has been named already."""
    known: set[str] = set()
    kept = []
    for addresses in targets:
        if known.isdisjoint(addresses):
            kept.append(addresses)
        known.update(addresses)
    return kept


def one_of_each(visits: Sequence[Visit], own: Visit | None) -> list[Visit]:
    """Return the visits without a second one to the same node, or one to the node of this home."""
    met = {own.hello.node_id} if own is not None and own.hello is not None else set()
    kept = []
    for each in visits:
        if each.hello is None or each.hello.node_id not in met:
            kept.append(each)
        if each.hello is not None:
            met.add(each.hello.node_id)
    return kept
