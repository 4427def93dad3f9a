"""Multicast DNS on the loopback interface of this machine."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from zeroconf import DNSOutgoing, Zeroconf

from peer.real import discovery
from peer.real.discovery import ZeroconfDiscovery
from peer.real.interfaces import LOOPBACK
from peer.real.keys import new_key
from peer.seams import Announcement
from protocol.identity import NodeId

SEEN_SECONDS = 10.0
POLL_SECONDS = 0.2
POLLS = 5
FIRST_PACKETS = 3
"""A service is announced three times when it is new (RFC 6762, section 8.3, asks for two at least)."""


@pytest.fixture
async def node() -> AsyncIterator[ZeroconfDiscovery]:
    made = ZeroconfDiscovery(new_key(), [LOOPBACK])
    yield made
    await made.close()


async def test_a_node_that_changes_nothing_is_announced_by_one_packet_at_a_time(
    node: ZeroconfDiscovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    packets = 0
    make = Zeroconf.generate_service_broadcast

    def count(self: Zeroconf, *arguments: object) -> DNSOutgoing:
        nonlocal packets
        packets += 1
        return make(self, *arguments)

    monkeypatch.setattr(Zeroconf, "generate_service_broadcast", count)
    monkeypatch.setattr(discovery, "POLL_SECONDS", POLL_SECONDS)
    await node.announce(Announcement(NodeId(bytes(15) + b"1"), ("127.0.0.1:7400",)))
    await asyncio.sleep((POLLS + 0.5) * POLL_SECONDS)
    assert FIRST_PACKETS < packets <= FIRST_PACKETS + POLLS


async def test_a_node_that_moves_is_announced_where_it_is_now(node: ZeroconfDiscovery) -> None:
    heard: list[tuple[str, ...]] = []

    async def listen() -> None:
        async for addresses in node.hints():
            heard.append(addresses)

    listening = asyncio.create_task(listen())
    for address in ("127.0.0.1:7400", "127.0.0.1:7401"):
        await node.announce(Announcement(NodeId(bytes(15) + b"2"), (address,)))
        async with asyncio.timeout(SEEN_SECONDS):
            while (address,) not in heard:
                await asyncio.sleep(0.05)
    listening.cancel()


async def test_a_node_of_another_key_is_sighted_and_is_no_hint(node: ZeroconfDiscovery) -> None:
    stranger_key = new_key()
    stranger = ZeroconfDiscovery(stranger_key, [LOOPBACK])
    hints: list[tuple[str, ...]] = []

    async def listen() -> None:
        async for addresses in stranger.hints():
            hints.append(addresses)

    label = NodeId(bytes(15) + b"3").hex()
    await node.announce(Announcement(NodeId(bytes(15) + b"3"), ("127.0.0.1:7403",)))
    listening = asyncio.create_task(listen())
    watcher = ZeroconfDiscovery(stranger_key, [LOOPBACK])
    try:
        async with asyncio.timeout(SEEN_SECONDS):
            async for sighting in watcher.sightings():
                if sighting.label == label:
                    break
        assert sighting.tag != stranger_key.tag
        assert sighting.addresses == ("127.0.0.1:7403",)
        assert hints == []
    finally:
        listening.cancel()
        await watcher.close()
        await stranger.close()
