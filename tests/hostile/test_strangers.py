"""Whoever has no key is closed on, counted and named now and then, and changes nothing else."""

import asyncio
import logging
import ssl

import pytest
from attackers import SECONDS, Process, nobody_asks, scene, until

from peer.errors import ConnectFailed, LinkLost
from peer.real.certificates import Credentials
from peer.real.keys import new_key
from peer.real.network import STRANGER_LOG_SECONDS, RealListener, RealNetwork, split_address
from protocol import limits

OF_A_LINK_OF_TLS_1_3 = b"\x16\x03\x01\x00\xfc\x01\x00\x00\xf8\x03\x03"
"""The beginning of a ClientHello, and no more of it."""


async def says(address: str, data: bytes, context: ssl.SSLContext | None = None) -> None:
    """Connect, say something, and wait until the other side has closed."""
    host, port = split_address(address)
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname="shoal" if context else None)
        writer.write(data)
        async with asyncio.timeout(SECONDS):
            while await reader.read(4096):
                pass
        writer.transport.abort()
    except OSError:
        pass


def with_another_key() -> ssl.SSLContext:
    context = Credentials(new_key(), b"s" * 32).client_context
    context.verify_mode = ssl.CERT_NONE
    return context


def of_another_protocol(key) -> ssl.SSLContext:
    context = Credentials(key, b"s" * 32).client_context
    context.set_alpn_protocols(["h2"])
    return context


def of_an_old_version() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@pytest.fixture
def listeners(monkeypatch: pytest.MonkeyPatch) -> list[RealListener]:
    """The listeners that a test opens."""
    opened: list[RealListener] = []
    listen = RealNetwork.listen

    async def remembering(self, address, endpoint):
        opened.append(await listen(self, address, endpoint))
        return opened[-1]

    monkeypatch.setattr(RealNetwork, "listen", remembering)
    return opened


async def test_every_kind_of_stranger_is_counted_and_its_address_named_once_a_minute(
    listeners: list[RealListener], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "peer.real.network")
    async with scene() as one:
        (door,) = listeners
        kinds = [
            (b"GET / HTTP/1.1\r\n\r\n", None),
            (b"", with_another_key()),
            (b"", of_an_old_version()),
            (b"", of_another_protocol(one.key)),
        ]
        for strangers, (data, context) in enumerate(kinds, start=1):
            await says(one.address, data, context)
            await until(lambda expected=strangers: door.strangers == expected)
        assert len(one.victim.links._every) == 1  # of the honest client
        named = [record for record in caplog.records if "127.0.0.1" in record.getMessage()]
        assert len(named) == 1, [record.getMessage() for record in named]
        door._logged_at["127.0.0.1"] -= STRANGER_LOG_SECONDS
        await says(one.address, b"again")
        await until(lambda: len(caplog.records) == 2)


async def test_what_is_remembered_of_strangers_is_bounded(
    listeners: list[RealListener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peer.real.network.STRANGERS_MAX", 10)
    async with scene():
        (door,) = listeners
        for index in range(100):
            door._note_stranger(f"192.0.2.{index}", "made up")
        assert len(door._logged_at) <= 10


@pytest.mark.parametrize("opening", [b"", OF_A_LINK_OF_TLS_1_3], ids=["silence", "half a hello"])
async def test_handshakes_that_are_never_finished_leave_room_for_others(
    listeners: list[RealListener], opening: bytes
) -> None:
    async with scene() as one:
        (door,) = listeners
        host, port = split_address(one.address)
        held = []
        for _ in range(3 * limits.HALF_OPEN_MAX):
            held.append(await asyncio.open_connection(host, port, local_addr=("127.0.0.2", 0)))
            held[-1][1].write(opening)
        await until(lambda: door.strangers >= 3 * limits.HALF_OPEN_MAX - limits.HALF_OPEN_PER_ADDRESS_MAX)
        assert door._half_open == {"127.0.0.2": limits.HALF_OPEN_PER_ADDRESS_MAX}
        newcomer = await one.attacker("newcomer")  # from another address, with the key
        newcomer.leave()
        await until(lambda: not door._half_open and not door._handshakes)
        for _, writer in held:
            writer.transport.abort()


async def test_a_node_with_another_key_is_told_so_and_hears_nobody() -> None:
    async with scene() as one:
        stranger = Process(new_key(), "stranger", nobody_asks)
        with pytest.raises((ConnectFailed, LinkLost)):
            await stranger.links.meet(one.address)
        assert not stranger.links.peers()
        await stranger.links.close()
