"""The contract of `peer.seams.Network`, on both sides of the seam."""

import asyncio

import pytest
from contract_sides import Accepting, NetworkBench, Peer, network_bench, on_every_side

from peer.errors import ConnectFailed

LARGE = bytes(range(256)) * 8192
"""2 MiB: more than the buffers of a connection hold."""


@on_every_side(network_bench)
async def test_both_ends_learn_who_the_other_one_proved_to_be(bench: NetworkBench) -> None:
    there, here = await bench.connected()
    assert here.proven == bench.ada.node_id
    assert there.proven == bench.bob.node_id
    assert bench.ada.node_id != bench.bob.node_id
    assert here.made


@on_every_side(network_bench)
async def test_any_port_becomes_an_address_that_can_be_reached(bench: NetworkBench) -> None:
    accepting = Accepting()
    listeners = [await bench.ada.listen(bench.any_address, accepting) for _ in range(2)]
    addresses = [listener.addresses[0] for listener in listeners]
    assert len(set(addresses)) == 2
    for address in addresses:
        assert not address.startswith("0.0.0.0")
        assert not address.endswith(":0")
        await bench.bob.connect(address, Peer, timeout_seconds=10.0)
    for listener in listeners:
        await listener.close()


@on_every_side(network_bench)
async def test_bytes_arrive_in_order_both_ways(bench: NetworkBench) -> None:
    there, here = await bench.connected()
    pieces = [bytes([index % 251]) * (index * 37 % 5000) for index in range(300)]
    for piece in pieces:
        here.transport.write(piece)
        there.transport.write(piece[::-1])
    expected = b"".join(pieces)
    assert await there.until_received(len(expected)) == expected
    assert await here.until_received(len(expected)) == b"".join(piece[::-1] for piece in pieces)


@on_every_side(network_bench)
async def test_whatever_the_size_of_the_buffers_the_bytes_are_the_same(bench: NetworkBench) -> None:
    there, here = await bench.connected()
    there.buffer = bytearray(1)
    here.transport.write(b"byte by byte")
    assert await there.until_received(12) == b"byte by byte"
    there.buffer = bytearray(1 << 20)
    here.transport.write(LARGE)
    assert await there.until_received(12 + len(LARGE)) == b"byte by byte" + LARGE


@on_every_side(network_bench)
async def test_what_is_written_as_the_connection_is_made_arrives(bench: NetworkBench) -> None:
    accepting = Accepting(greeting=b"from ada")
    listener = await bench.ada.listen(bench.any_address, accepting)

    def greeting(proven: bytes) -> Peer:
        peer = Peer(proven)
        peer.greeting = b"from bob"
        return peer

    here = await bench.bob.connect(listener.addresses[0], greeting, timeout_seconds=10.0)
    assert isinstance(here, Peer)
    assert await (await accepting.peer()).until_received(8) == b"from bob"
    assert await here.until_received(8) == b"from ada"
    await listener.close()


@on_every_side(network_bench)
async def test_a_buffer_may_be_changed_once_it_was_written(bench: NetworkBench) -> None:
    there, here = await bench.connected()
    buffer = bytearray(LARGE)
    here.transport.write(memoryview(buffer)[:])
    buffer[:] = bytes(len(buffer))
    assert await there.until_received(len(LARGE)) == LARGE


@on_every_side(network_bench)
async def test_writelines_takes_any_buffers_in_order(bench: NetworkBench) -> None:
    there, here = await bench.connected()
    parts = [memoryview(LARGE)[:70_000], b"", bytearray(b"middle"), memoryview(LARGE)[5:9]]
    here.transport.writelines(parts)
    here.transport.writelines([])
    expected = LARGE[:70_000] + b"middle" + LARGE[5:9]
    assert await there.until_received(len(expected)) == expected


@on_every_side(network_bench)
async def test_nobody_listening_is_an_answer(bench: NetworkBench) -> None:
    listener = await bench.ada.listen(bench.any_address, Accepting())
    (address, *_) = listener.addresses
    await listener.close()
    with pytest.raises(ConnectFailed) as caught:
        await bench.bob.connect(address, Peer, timeout_seconds=10.0)
    assert caught.value.refused
    assert not caught.value.wrong_key


@on_every_side(network_bench)
async def test_silence_is_no_answer(bench: NetworkBench) -> None:
    with pytest.raises(ConnectFailed) as caught:
        await bench.bob.connect(await bench.silent_address(), Peer, timeout_seconds=0.1)
    assert not caught.value.refused


@on_every_side(network_bench)
async def test_a_taken_address_cannot_be_listened_on(bench: NetworkBench) -> None:
    listener = await bench.ada.listen(bench.any_address, Accepting())
    with pytest.raises(ConnectFailed):
        await bench.ada.listen(listener.addresses[0], Accepting())
    await listener.close()
    again = await bench.ada.listen(listener.addresses[0], Accepting())
    await again.close()


@on_every_side(network_bench)
async def test_what_is_no_address_fails_to_connect_and_to_listen(bench: NetworkBench) -> None:
    for address in ("nonsense", ":7400", "ada:", "ada:port", "ada:70000", ""):
        with pytest.raises(ConnectFailed):
            await bench.ada.listen(address, Accepting())
        with pytest.raises(ConnectFailed):
            await bench.ada.connect(address, Peer, timeout_seconds=1.0)


@on_every_side(network_bench)
async def test_connections_stay_when_their_listener_closes(bench: NetworkBench) -> None:
    there, here = await bench.connected()  # the listener is closed already
    here.transport.write(b"still here")
    assert await there.until_received(10) == b"still here"
    assert not here.lost


@on_every_side(network_bench)
async def test_a_writer_faster_than_its_reader_is_paused_and_resumed(bench: NetworkBench) -> None:
    there, here = await bench.connected()
    there.transport.pause_reading()
    written = 0
    while here.pauses != ["pause"]:
        assert written < 200 * len(LARGE)
        here.transport.write(LARGE)
        written += len(LARGE)
        await asyncio.sleep(0)
    there.transport.resume_reading()
    await here.until(lambda peer: "resume" in peer.pauses)
    await there.until_received(written)
    assert there.received == LARGE * (written // len(LARGE))
    assert here.pauses == ["pause", "resume"] * (len(here.pauses) // 2)


@on_every_side(network_bench)
async def test_nothing_is_delivered_while_reading_is_paused(bench: NetworkBench) -> None:
    there, here = await bench.connected()
    there.transport.pause_reading()
    await asyncio.sleep(0)
    here.transport.write(b"later")
    await asyncio.sleep(0.05)
    assert not there.received
    there.transport.resume_reading()
    assert await there.until_received(5) == b"later"


@on_every_side(network_bench)
async def test_close_delivers_what_was_written(bench: NetworkBench) -> None:
    there, here = await bench.connected()
    here.transport.write(LARGE)
    here.transport.close()
    assert here.transport.is_closing()
    await there.until_lost()
    assert there.received == LARGE
    await here.until_lost()
    assert here.error is None


@on_every_side(network_bench)
async def test_closing_and_aborting_again_are_no_errors(bench: NetworkBench) -> None:
    there, here = await bench.connected()
    here.transport.close()
    here.transport.close()
    await here.until_lost()
    here.transport.abort()
    await there.until_lost()
    there.transport.close()
    there.transport.abort()
    await asyncio.sleep(0.01)


@on_every_side(network_bench)
async def test_an_abort_is_seen_by_the_peer(bench: NetworkBench) -> None:
    there, here = await bench.connected()
    here.transport.abort()
    await here.until_lost()
    await there.until_lost()


@on_every_side(network_bench)
async def test_an_abort_does_not_wait_for_a_reader(bench: NetworkBench) -> None:
    there, here = await bench.connected()
    there.transport.pause_reading()
    for _ in range(20):
        here.transport.write(LARGE)
    here.transport.abort()
    await here.until_lost()
    there.transport.resume_reading()
    await there.until_lost()


@on_every_side(network_bench)
async def test_both_ends_may_close_at_once(bench: NetworkBench) -> None:
    there, here = await bench.connected()
    here.transport.close()
    there.transport.close()
    await here.until_lost()
    await there.until_lost()


@on_every_side(network_bench)
async def test_many_connections_do_not_mix(bench: NetworkBench) -> None:
    accepting = Accepting()
    listener = await bench.ada.listen(bench.any_address, accepting)
    address = listener.addresses[0]
    for batch in range(2):
        dialled = await asyncio.gather(*(bench.bob.connect(address, Peer, timeout_seconds=20.0) for _ in range(8)))
        for index, here in enumerate(dialled):
            assert isinstance(here, Peer)
            here.transport.write(b"%d " % (8 * batch + index))
            here.transport.close()
        texts = [await (await accepting.peer()).until_lost() for _ in range(8)]
        assert sorted(int(peer.received) for peer in texts) == list(range(8 * batch, 8 * batch + 8))
    await listener.close()
