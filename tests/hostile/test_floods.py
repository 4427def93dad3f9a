"""Peers with the key that send too much, too slowly or without end: each loses its own link at most, and everybody else goes on."""

import asyncio

import pytest
from attackers import Attacker, frame, scene, until

from peer import link
from peer.link import Served
from protocol import limits
from protocol.errors import CloseCode, ErrorCode
from protocol.manifest import ChunkTag, chunk_id_of
from protocol.messages import (
    Cancel,
    ChunkData,
    ChunkGet,
    ChunkPut,
    ChunkStored,
    Close,
    Credit,
    Failure,
    LayoutGet,
    LayoutIs,
    LinkKind,
    Ping,
    Request,
    StatusGet,
)

MIB = 1024 * 1024
CHUNK = chunk_id_of(ChunkTag.DATA, b"x")
PUT = ChunkPut(60_000, CHUNK, forward=False)


def links_of(one, attacker: Attacker) -> list:
    return [each for each in one.victim.links._every if each.proven == attacker.node_id]


async def test_pings_without_end_end_the_link() -> None:
    async with scene() as one:
        attacker = await one.attacker()
        attacker.send(frame(Ping(1)) * 1000)
        assert "pings" in (await attacker.hears_close()).reason
        await until(lambda: not links_of(one, attacker))


async def test_refusals_without_end_that_nobody_reads_end_the_link() -> None:
    async with scene() as one:
        budget = one.victim.links.budget
        assert budget.take(budget.free_bytes)  # each payload is refused at once: nothing holds its sender back
        attacker = await one.attacker(kind=LinkKind.BULK)
        (mine,) = links_of(one, attacker)
        attacker.reader._transport.pause_reading()
        refused = b"".join(frame(PUT, request_id, b"x", LinkKind.BULK) for request_id in range(1, 1001))
        written = 0
        while not attacker.writer.is_closing():
            assert written < 100 * MIB
            assert mine._transport.get_write_buffer_size() < 4 * MIB
            attacker.send(refused)
            written += len(refused)
            await asyncio.sleep(0)
            while attacker.writer.transport.get_write_buffer_size() > MIB and not attacker.writer.is_closing():
                await asyncio.sleep(0.001)
        await until(lambda: not links_of(one, attacker))


async def test_a_request_is_cancelled_once_however_often_it_is_taken_back() -> None:
    begun, cleaned = asyncio.Event(), asyncio.Event()

    async def answer(request: Request, payload: memoryview) -> Served:
        begun.set()
        try:
            await asyncio.sleep(60.0)
        finally:
            await asyncio.sleep(0.05)  # as a handler does that leaves nothing half done
            cleaned.set()
        raise AssertionError

    async with scene(answer) as one:
        attacker = await one.attacker()
        attacker.ask(StatusGet(60_000), 1)
        await begun.wait()
        for _ in range(20):
            attacker.send(frame(Cancel(), 1))
            await asyncio.sleep(0.002)
        failure = await attacker.hear()
        assert isinstance(failure, Failure)
        assert failure.code is ErrorCode.CANCELLED
        assert cleaned.is_set()
        attacker.leave()


async def test_chunks_for_a_peer_that_does_not_read_take_no_more_memory_than_its_credit() -> None:
    held = 0
    served = 0

    async def answer(request: Request, payload: memoryview) -> Served:
        nonlocal held, served
        served += 1
        held = max(held, served)
        await asyncio.sleep(0)
        return ChunkData(), bytes(limits.CHUNK_BYTES_MAX)

    async with scene(answer) as one:
        attacker = await one.attacker(kind=LinkKind.BULK)
        attacker.reader._transport.pause_reading()
        for request_id in range(1, limits.REQUESTS_IN_FLIGHT_MAX + 1):
            attacker.ask(ChunkGet(60_000, CHUNK), request_id)
        await until(lambda: served > 0)
        before = -1
        while served != before:
            before = served
            await asyncio.sleep(0.3)
        assert served * limits.CHUNK_BYTES_MAX <= 2 * limits.PAYLOAD_CREDIT_BYTES
        attacker.leave()
        await until(lambda: not links_of(one, attacker))


async def test_an_answer_that_finds_no_room_before_its_deadline_is_dropped() -> None:
    async def answer(request: Request, payload: memoryview) -> Served:
        return ChunkData(), bytes(limits.CHUNK_BYTES_MAX)

    async with scene(answer) as one:
        attacker = await one.attacker(kind=LinkKind.BULK)
        room = limits.PAYLOAD_CREDIT_BYTES // limits.CHUNK_BYTES_MAX
        for request_id in range(1, room + 3):
            attacker.ask(ChunkGet(1000, CHUNK), request_id)
        answers = [await attacker.hear() for _ in range(room + 2)]  # and no credit is given back
        assert [type(each) for each in answers] == [ChunkData] * room + [Failure] * 2
        assert {each.code for each in answers if isinstance(each, Failure)} == {ErrorCode.DEADLINE}
        attacker.leave()


async def test_a_peer_that_does_not_read_is_cut_off_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FRAME_SECONDS", 0.5)

    async def answer(request: Request, payload: memoryview) -> Served:
        return ChunkData(), bytes(limits.CHUNK_BYTES_MAX)

    async with scene(answer) as one:
        attacker = await one.attacker(kind=LinkKind.BULK)
        attacker.reader._transport.pause_reading()
        for request_id in range(1, 9):
            attacker.ask(ChunkGet(600_000, CHUNK), request_id)
        await until(lambda: not links_of(one, attacker))


async def test_a_byte_now_and_then_keeps_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FRAME_SECONDS", 0.6)
    async with scene() as one:
        budget = one.victim.links.budget
        slow = [await one.attacker(f"slow{index}", LinkKind.BULK) for index in range(8)]
        data = frame(PUT, 1, bytes(4 * MIB), LinkKind.BULK)
        for each in slow:
            each.send(data[:200])
        await until(lambda: budget.free_bytes == limits.PAYLOAD_MEMORY_BYTES_MAX - len(slow) * 4 * MIB)
        for index in range(900):
            for each in slow:
                each.send(data[200 + index : 201 + index])
            await asyncio.sleep(0.01)
            if budget.free_bytes == limits.PAYLOAD_MEMORY_BYTES_MAX:
                break
        assert budget.free_bytes == limits.PAYLOAD_MEMORY_BYTES_MAX
        assert [(await each.hears_close()).code for each in slow] == [CloseCode.KEEPALIVE_TIMEOUT] * len(slow)


async def test_payload_memory_that_is_all_taken_is_an_answer_and_everything_else_goes_on() -> None:
    release = asyncio.Event()

    async def answer(request: Request, payload: memoryview) -> Served:
        await release.wait()
        return ChunkStored(())

    async with scene(answer) as one:
        takers = [await one.attacker(f"taker{index}", LinkKind.BULK) for index in range(4)]
        for each in takers:
            for request_id in range(1, 5):
                each.ask(PUT, request_id, bytes(4 * MIB))
        await until(lambda: one.victim.links.budget.free_bytes == 0)
        late = await one.attacker("late", LinkKind.BULK)
        for request_id in range(1, 20):
            late.ask(PUT, request_id, bytes(MIB))
            while isinstance(answered := await late.hear(), Credit):
                pass
            assert isinstance(answered, Failure)
            assert answered.code is ErrorCode.BUSY
        await one.goes_on()
        release.set()
        await until(lambda: one.victim.links.budget.free_bytes == limits.PAYLOAD_MEMORY_BYTES_MAX)
        for each in (*takers, late):
            each.leave()


@pytest.mark.parametrize(
    "data",
    [
        b"".join(frame(StatusGet(60_000), request_id) for request_id in range(1, limits.REQUESTS_IN_FLIGHT_MAX + 2)),
        frame(Credit(1)),
        frame(StatusGet(60_000), 1) * 2,
        frame(LayoutIs(b""), 7),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x94\xce\xff\xff\xff\xff\xce\x00\x00\x00\x00" + bytes(200_000),
        b"\x94\xce\x00\x00\x00\x03\xce\x00\x00\x00\x00\x93\xcd\xff\xc0",
    ],
    ids=["beyond the window", "credit for nothing", "an id twice", "an answer to nothing", "no frame", "4 GiB", "no message"],
)
async def test_what_no_correct_peer_sends_ends_that_link_alone(data: bytes) -> None:
    async def answer(request: Request, payload: memoryview) -> Served:
        await asyncio.sleep(60.0)
        raise AssertionError

    async with scene(answer) as one:
        attacker, other = await one.attacker(), await one.attacker("other")
        attacker.send(data)
        assert (await attacker.hears_close()).code in (CloseCode.PROTOCOL_ERROR, CloseCode.FRAME_TOO_LARGE)
        await until(lambda: not links_of(one, attacker))
        other.send(frame(Ping(5)))
        assert not isinstance(await other.hear(), Close)
        other.leave()


async def test_more_payload_than_the_credit_ends_that_link_alone() -> None:
    async def answer(request: Request, payload: memoryview) -> Served:
        await asyncio.sleep(60.0)
        raise AssertionError

    async with scene(answer) as one:
        attacker = await one.attacker(kind=LinkKind.BULK)
        for request_id in range(1, 6):
            attacker.ask(PUT, request_id, bytes(4 * MIB))
        assert "credit" in (await attacker.hears_close()).reason
        await until(lambda: one.victim.links.budget.free_bytes == limits.PAYLOAD_MEMORY_BYTES_MAX)


async def test_small_requests_without_end_are_answered_and_starve_nobody() -> None:
    async def answer(request: Request, payload: memoryview) -> Served:
        return LayoutIs(b"x" * 1000)

    async with scene(answer) as one:
        attacker = await one.attacker()
        burst = b"".join(frame(LayoutGet(60_000, 1), request_id) for request_id in range(1, 65))
        for _ in range(30):
            attacker.send(burst)
            for _ in range(64):
                assert isinstance(await attacker.hear(), LayoutIs)
        await one.goes_on()
        attacker.leave()


async def test_links_that_never_say_hello_are_bounded_and_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peer.links.LINKS_MAX", 6)
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 1.5)
    async with scene() as one:  # which has one link itself
        mute = [await one.attacker(f"mute{index}", None) for index in range(8)]
        codes = [(await each.hears_close()).code for each in mute]
        assert codes == [CloseCode.HELLO_TIMEOUT] * 5 + [CloseCode.OVERLOADED] * 3
        await until(lambda: len(one.victim.links._every) == 1)
        polite = await one.attacker("polite")
        polite.leave()


def test_what_a_link_holds_for_its_reader_follows_from_the_limits() -> None:
    assert link.PAYLOADS_SERVED_MAX * limits.CHUNK_BYTES_MAX == limits.PAYLOAD_CREDIT_BYTES
    assert link.UNREAD_BYTES_MAX < link.WRITE_BUFFER_BYTES
