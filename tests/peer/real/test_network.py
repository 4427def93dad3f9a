"""Strangers take a bounded share of a port, for a bounded time, and leave nothing behind. On both event loops."""

import asyncio
import functools
import inspect
import socket

import pytest
import uvloop
from real_peers import ADA, BOB, KEY, Door, Link, is_refused

from peer.errors import ConnectFailed
from peer.real.network import RealNetwork, join_address, split_address
from protocol import limits


def on_both_loops(story):
    """Make a test that runs on the stock event loop and on uvloop."""

    @pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
    def test(loop_factory, monkeypatch):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            failures = []
            runner.get_loop().set_exception_handler(lambda loop, context: failures.append(context))
            takes = inspect.signature(story).parameters
            run = functools.partial(story, monkeypatch) if takes else story
            runner.run(asyncio.wait_for(run(), 20))
            assert not failures, failures

    test.__name__ = story.__name__
    return test


class Silent:
    """A connection that never says anything."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)

    async def until_closed(self):
        async with asyncio.timeout(5):
            try:
                while await asyncio.get_running_loop().sock_recv(self.socket, 1000):
                    pass
            except ConnectionError:
                pass
        self.socket.close()

    async def is_open(self):
        await asyncio.sleep(0.05)
        try:
            return self.socket.recv(1000) != b""
        except BlockingIOError:
            return True
        except ConnectionError:
            return False


async def half_open(door, count):
    """Return so many connections that prove nothing, once all are accepted."""
    silent = [Silent(door.port) for _ in range(count)]
    await door.until(lambda: len(door.listener._handshakes) >= min(count, limits.HALF_OPEN_PER_ADDRESS_MAX, limits.HALF_OPEN_MAX))
    return silent


@on_both_loops
async def test_one_address_may_have_so_many_half_open_connections_and_no_more() -> None:
    door = await Door().open()
    silent = await half_open(door, limits.HALF_OPEN_PER_ADDRESS_MAX)
    for _ in range(3):
        await Silent(door.port).until_closed()
    assert door.listener.strangers == 3
    with pytest.raises(ConnectFailed) as caught:
        await RealNetwork(KEY, BOB).connect(door.address, Link, timeout_seconds=5.0)
    assert not caught.value.refused
    assert not caught.value.wrong_key
    for each in silent:
        assert await each.is_open()
        each.socket.close()
    await door.until(lambda: not door.listener._handshakes)
    link = await RealNetwork(KEY, BOB).connect(door.address, Link, timeout_seconds=5.0)
    link.transport.abort()
    await door.listener.close()


@on_both_loops
async def test_all_addresses_together_may_have_so_many_half_open_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HALF_OPEN_MAX", 4)
    door = await Door().open()
    silent = await half_open(door, 4)
    await Silent(door.port).until_closed()
    for each in silent:
        each.socket.close()
    await door.listener.close()


@on_both_loops
async def test_connections_that_have_proven_themselves_do_not_count_as_half_open() -> None:
    door = await Door().open()
    network = RealNetwork(KEY, BOB)
    links = [
        await network.connect(door.address, Link, timeout_seconds=5.0) for _ in range(limits.HALF_OPEN_PER_ADDRESS_MAX + 2)
    ]
    await door.until(lambda: len(door.links) == len(links))
    assert door.listener.strangers == 0
    for link in links:
        link.transport.abort()
    await door.listener.close()


@on_both_loops
async def test_who_proves_nothing_in_time_is_closed_on_and_its_place_is_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 0.1)
    door = await Door().open()
    silent = await half_open(door, limits.HALF_OPEN_PER_ADDRESS_MAX)
    for each in silent:
        await each.until_closed()
    await door.until(lambda: not door.listener._handshakes)
    assert not door.listener._half_open
    assert door.listener.strangers == limits.HALF_OPEN_PER_ADDRESS_MAX
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 5.0)
    link = await RealNetwork(KEY, BOB).connect(door.address, Link, timeout_seconds=5.0)
    link.transport.abort()
    assert len(door.links) <= 1
    await door.listener.close()


@on_both_loops
async def test_a_drop_of_bytes_does_not_buy_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 0.15)
    door = await Door().open()
    silent = Silent(door.port)
    for byte in b"\x16\x03\x01\x02\x00\x01\x00":
        try:
            silent.socket.send(bytes([byte]))
        except OSError:
            break
        await asyncio.sleep(0.03)
    await silent.until_closed()
    await door.listener.close()


@on_both_loops
async def test_a_closed_listener_closes_on_those_that_have_proven_nothing() -> None:
    door = await Door().open()
    silent = await half_open(door, 3)
    await door.listener.close()
    for each in silent:
        await each.until_closed()
    assert await is_refused(door.port, None)


@on_both_loops
async def test_a_listener_that_is_closed_as_soon_as_it_accepts_leaves_no_connection() -> None:
    for steps in range(5):
        door = await Door().open()
        silent = Silent(door.port)
        while not door.listener._handshakes:
            await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0)
        await door.listener.close()
        await silent.until_closed()


@on_both_loops
async def test_a_closed_listener_keeps_who_has_just_proven_itself() -> None:
    for _ in range(5):
        door = await Door().open()
        link = await RealNetwork(KEY, BOB).connect(door.address, Link, timeout_seconds=5.0)
        await door.until(lambda door=door: door.links)
        await door.listener.close()
        link.transport.write(b"hello")
        await door.until(lambda door=door: door.links[0].received == b"hello")
        link.transport.abort()
        await door.links[0].lost.wait()


@on_both_loops
async def test_a_stranger_does_not_disturb_who_is_connected() -> None:
    door = await Door().open()
    link = await RealNetwork(KEY, BOB).connect(door.address, Link, timeout_seconds=5.0)
    for _ in range(5):
        assert await is_refused(door.port, None, b"no TLS at all\r\n")
    link.transport.write(b"hello")
    await door.until(lambda: door.links and door.links[0].received == b"hello")
    assert len(door.links) == 1
    link.transport.abort()
    await door.listener.close()


@on_both_loops
async def test_a_dialler_that_gives_up_leaves_no_connection() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    address = join_address(*listening.getsockname()[:2])
    with pytest.raises(ConnectFailed):
        await RealNetwork(KEY, BOB).connect(address, Link, timeout_seconds=0.1)
    loop = asyncio.get_running_loop()
    connection, _ = await loop.sock_accept(listening)
    async with asyncio.timeout(5):
        while await loop.sock_recv(connection, 1000):
            pass
    connection.close()
    listening.close()


@on_both_loops
async def test_a_dialler_that_meets_no_tls_says_so() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.write(b"220 mail ready\r\n" * 10), "127.0.0.1", 0)
    address = join_address(*server.sockets[0].getsockname()[:2])
    with pytest.raises(ConnectFailed) as caught:
        await RealNetwork(KEY, BOB).connect(address, Link, timeout_seconds=5.0)
    assert not caught.value.wrong_key
    assert not caught.value.refused
    server.close()


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("127.0.0.1:7400", "127.0.0.1", 7400), ("name:0", "name", 0), ("[::1]:65535", "::1", 65535)],
)
def test_an_address_is_split_and_joined(address, host, port):
    assert split_address(address) == (host, port)
    assert join_address(host, port) == address


@pytest.mark.parametrize("address", ["", "host", ":1", "host:", "host:x", "host:-1", "host:65536", "host:1 "])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ConnectFailed):
        split_address(address)


def test_a_network_is_who_its_seed_says():
    assert RealNetwork(KEY, ADA).node_id != RealNetwork(KEY, BOB).node_id
