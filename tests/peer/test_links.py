"""Links over real TLS on the loopback interface, on both event loops: asking, answering, waiting, ending."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from peer.errors import ConnectFailed, LinkLost, Refused, RequestFailed, Unreachable
from peer.link import Reply, Served
from peer.links import Links
from peer.real.keys import ClusterKey, new_key
from peer.real.network import RealNetwork
from protocol import limits
from protocol.connection import AnswerArrived
from protocol.errors import CloseCode, ErrorCode
from protocol.hashing import plain_hash
from protocol.identity import NodeId
from protocol.manifest import ChunkTag, chunk_id_of
from protocol.messages import (
    Answer,
    ChunkData,
    ChunkGet,
    ChunkPut,
    ChunkStored,
    Hello,
    LayoutGet,
    LayoutIs,
    LinkKind,
    MembersGet,
    Peers,
    PeersGet,
    Probe,
    ProbeAck,
    Request,
)
from protocol.testing.pair import some_hello

MIB = 1024 * 1024
CHUNK = chunk_id_of(ChunkTag.DATA, b"x")
SECONDS = 5.0

Handler = Callable[[Request, memoryview], Awaitable[Served]]


async def unexpected(request: Request, payload: memoryview) -> Served:
    raise AssertionError(f"nobody should have asked {request}")


class Side:
    """One process: its links, what it answers, and what happened to it."""

    def __init__(self, key: ClusterKey, name: str, handler: Handler = unexpected) -> None:
        self.name = name
        self.network = RealNetwork(key, plain_hash(name.encode()))
        self.node_id: NodeId = self.network.node_id
        self.handler = handler
        self.address = ""
        self.bugs: list[BaseException] = []
        self.ups: list[NodeId] = []
        self.refusing: list[NodeId] = []
        self.refusal: tuple[CloseCode, str] | None = None
        self.links = Links(self.network, self)

    def hello(self, kind: LinkKind, peer: NodeId) -> Hello:
        return some_hello(self.name, kind, node_id=self.node_id, addresses=(self.address,) if self.address else ())

    def layout_version(self) -> int:
        return 7

    def admit(self, peer: Hello) -> tuple[CloseCode, str] | None:
        return self.refusal

    def peer_up(self, peer: Hello) -> None:
        self.ups.append(peer.node_id)

    def peer_refuses(self, node_id: NodeId) -> None:
        self.refusing.append(node_id)

    def answer_at_once(self, peer: Hello, request: Request) -> Answer | None:
        return ProbeAck(True, ()) if isinstance(request, Probe) else None

    async def serve(self, peer: Hello, request: Request, payload: memoryview, deadline: float) -> Served:
        return await self.handler(request, payload)

    def fail(self, error: BaseException) -> None:
        self.bugs.append(error)


@asynccontextmanager
async def sides(handler: Handler = unexpected, keys: tuple[ClusterKey, ClusterKey] | None = None) -> AsyncIterator[tuple[Side, Side]]:
    """Yield two processes that listen and know each other's address; the second answers by `handler`."""
    one_key, other_key = keys if keys is not None else (new_key(),) * 2
    a, b = Side(one_key, "a"), Side(other_key, "b", handler)
    listeners = []
    for side in (a, b):
        listener = await side.network.listen("127.0.0.1:0", side.links.accept)
        side.address = listener.addresses[0]
        listeners.append(listener)
    a.links.learn_addresses(b.node_id, [b.address])
    b.links.learn_addresses(a.node_id, [a.address])
    try:
        yield a, b
    finally:
        for side in (a, b):
            await side.links.close()
        for listener in listeners:
            await listener.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def test_answers_come_in_any_order_to_whom_they_belong() -> None:
    async def answer(request: Request, payload: memoryview) -> Served:
        assert isinstance(request, LayoutGet)
        await asyncio.sleep(0.02 * (10 - request.version))
        return LayoutIs(bytes([request.version]))

    async with sides(answer) as (a, b):
        replies = await asyncio.gather(
            *(a.links.request(b.node_id, LayoutGet(4000, version), timeout_seconds=SECONDS) for version in range(10))
        )
        assert [reply.message for reply in replies] == [LayoutIs(bytes([version])) for version in range(10)]


async def test_payloads_cross_whole_both_ways_in_any_number() -> None:
    kept: dict[int, bytes] = {}

    async def answer(request: Request, payload: memoryview) -> Served:
        if isinstance(request, ChunkPut):
            kept[payload[0]] = bytes(payload)
            return ChunkStored(())
        assert isinstance(request, ChunkGet)
        return ChunkData(), kept[request.deadline_milliseconds - 1000]

    chunks = {index: bytes([index]) * size for index, size in enumerate((1, 70_000, MIB, 3 * MIB, 4 * MIB, 5, 256 * 1024, 4 * MIB))}
    async with sides(answer) as (a, b):
        await asyncio.gather(
            *(a.links.request(b.node_id, ChunkPut(4000, CHUNK, forward=False), data, timeout_seconds=SECONDS) for data in chunks.values())
        )
        assert kept == chunks

        async def fetch(index: int) -> None:
            reply = await a.links.request(b.node_id, ChunkGet(1000 + index, CHUNK), timeout_seconds=SECONDS)
            assert reply.payload == chunks[index]
            reply.release()

        for _ in range(3):  # more than one window of credit
            await asyncio.gather(*(fetch(index) for index in chunks))


async def test_a_sender_waits_for_credit_and_for_nobody_else() -> None:
    release = asyncio.Event()
    arrived = 0

    async def answer(request: Request, payload: memoryview) -> Served:
        nonlocal arrived
        if isinstance(request, PeersGet):
            return Peers(())
        arrived += len(payload)
        await release.wait()
        return ChunkStored(())

    async with sides(answer) as (a, b):
        data = bytes(2 * MIB)
        message = ChunkPut(60_000, CHUNK, forward=False)
        puts = [asyncio.create_task(a.links.request(b.node_id, message, data, timeout_seconds=60.0)) for _ in range(20)]
        await until(lambda: arrived == limits.PAYLOAD_CREDIT_BYTES)
        await a.links.request(b.node_id, PeersGet(4000), timeout_seconds=SECONDS)  # the other link does not stand behind them
        assert arrived == limits.PAYLOAD_CREDIT_BYTES
        release.set()
        await asyncio.gather(*puts)
        assert arrived == 20 * len(data)
        assert b.links.budget.free_bytes == limits.PAYLOAD_MEMORY_BYTES_MAX


async def test_a_node_without_payload_memory_says_busy_and_goes_on() -> None:
    async def answer(request: Request, payload: memoryview) -> Served:
        return ChunkStored(())

    async with sides(answer) as (a, b):
        taken = limits.PAYLOAD_MEMORY_BYTES_MAX - 100
        assert b.links.budget.take(taken)
        message = ChunkPut(4000, CHUNK, forward=False)
        for _ in range(20):
            with pytest.raises(RequestFailed) as caught:
                await a.links.request(b.node_id, message, bytes(MIB), timeout_seconds=SECONDS)
            assert caught.value.code is ErrorCode.BUSY
        b.links.budget.give(taken)
        await a.links.request(b.node_id, message, bytes(MIB), timeout_seconds=SECONDS)


async def test_a_request_that_is_given_up_is_cancelled_at_the_other_side() -> None:
    ended: list[str] = []

    async def answer(request: Request, payload: memoryview) -> Served:
        try:
            await asyncio.sleep(30.0)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return Peers(())

    async with sides(answer) as (a, b):
        with pytest.raises(TimeoutError):
            await a.links.request(b.node_id, PeersGet(30_000), timeout_seconds=0.5)
        await until(lambda: ended == ["cancelled"])


async def test_a_payload_that_arrives_while_its_request_is_given_up_costs_no_credit() -> None:
    async def answer(request: Request, payload: memoryview) -> Served:
        return ChunkData(), bytes(4 * MIB)

    async with sides(answer) as (a, b):
        link = await a.links.reach(b.node_id, LinkKind.BULK)
        take_answer = link._take_answer
        arrived = []
        for _ in range(limits.PAYLOAD_CREDIT_BYTES // (4 * MIB) + 1):
            asking = asyncio.create_task(a.links.request(b.node_id, ChunkGet(4000, CHUNK), timeout_seconds=SECONDS))

            def give_up(event: AnswerArrived, asking: asyncio.Task[Reply] = asking) -> None:
                take_answer(event)
                arrived.append(len(event.payload))
                asking.cancel()

            link._take_answer = give_up
            with pytest.raises(asyncio.CancelledError):
                await asking
        assert arrived == [4 * MIB] * len(arrived)


async def test_work_whose_deadline_has_passed_is_dropped_and_said_so() -> None:
    async def answer(request: Request, payload: memoryview) -> Served:
        await asyncio.sleep(30.0)
        return Peers(())

    async with sides(answer) as (a, b):
        with pytest.raises(RequestFailed) as caught:
            await a.links.request(b.node_id, PeersGet(100), timeout_seconds=SECONDS)
        assert caught.value.code is ErrorCode.DEADLINE
        assert caught.value.layout_version == 7


async def test_a_refusal_carries_its_code_and_a_bug_stops_the_node_that_has_it() -> None:
    async def answer(request: Request, payload: memoryview) -> Served:
        if isinstance(request, PeersGet):
            raise Refused(ErrorCode.FULL, "no room")
        raise ZeroDivisionError

    async with sides(answer) as (a, b):
        with pytest.raises(RequestFailed) as caught:
            await a.links.request(b.node_id, PeersGet(4000), timeout_seconds=SECONDS)
        assert (caught.value.code, caught.value.reason) == (ErrorCode.FULL, "no room")
        assert not b.bugs
        with pytest.raises(RequestFailed) as caught:
            await a.links.request(b.node_id, LayoutGet(4000, 1), timeout_seconds=SECONDS)
        assert caught.value.code is ErrorCode.INTERNAL
        assert [type(bug) for bug in b.bugs] == [ZeroDivisionError]


async def test_a_link_that_ends_fails_what_is_open_and_the_next_request_dials_again() -> None:
    asked = asyncio.Event()
    hold = True

    async def answer(request: Request, payload: memoryview) -> Served:
        asked.set()
        if hold:
            await asyncio.sleep(30.0)
        return Peers(())

    async with sides(answer) as (a, b):
        waiting = asyncio.create_task(a.links.request(b.node_id, PeersGet(30_000), timeout_seconds=30.0))
        await asked.wait()
        b.links.close_peers([a.node_id], CloseCode.NORMAL, "enough")
        with pytest.raises(LinkLost, match="enough"):
            await waiting
        await a.links.until_down(b.node_id)
        hold = False
        await a.links.request(b.node_id, PeersGet(4000), timeout_seconds=SECONDS)


async def test_who_is_told_of_an_answer_waits_for_nothing_and_is_told_of_no_failure() -> None:
    async def refuse(request: Request, payload: memoryview) -> Served:
        raise Refused(ErrorCode.BUSY, "not now")

    async with sides(refuse) as (a, b):
        told: list[Answer] = []
        a.links.ask(b.node_id, Probe(4000, ()), told.append)  # no link: nobody hears of it
        link = await a.links.reach(b.node_id, LinkKind.CTL)
        a.links.ask(b.node_id, MembersGet(4000, bytes(16)), told.append)
        a.links.ask(b.node_id, Probe(4000, ()), told.append)
        await until(lambda: bool(told))
        await link.wait_idle()
        assert told == [ProbeAck(True, ())]


async def test_of_two_links_between_two_nodes_one_stays_and_no_request_is_lost() -> None:
    async def answer(request: Request, payload: memoryview) -> Served:
        await asyncio.sleep(0.05)
        return Peers(())

    async with sides(answer) as (a, b):
        a.handler = answer
        both = [(a, b), (b, a)] * 20
        await asyncio.gather(*(one.links.request(other.node_id, PeersGet(4000), timeout_seconds=SECONDS) for one, other in both))
        await until(lambda: len(a.links._every) == len(b.links._every) == 1)
        await a.links.request(b.node_id, PeersGet(4000), timeout_seconds=SECONDS)
        await b.links.request(a.node_id, PeersGet(4000), timeout_seconds=SECONDS)
        assert len(a.links._every) == 1
        assert a.links.peer(b.node_id) is not None
        assert b.links.peer(a.node_id) is not None


async def test_a_node_that_is_not_there_is_unreachable_and_remembered_as_such() -> None:
    async with sides() as (a, _):
        gone = NodeId(b"g" * 16)
        a.links.learn_addresses(gone, ["127.0.0.1:1"])
        assert not a.links.recently_refused(gone)
        with pytest.raises(Unreachable):
            await a.links.request(gone, PeersGet(4000), timeout_seconds=SECONDS)
        assert a.links.recently_refused(gone)
        assert a.refusing == [gone]
        with pytest.raises(Unreachable, match="no address"):
            await a.links.reach(NodeId(b"h" * 16), LinkKind.CTL)


async def test_an_address_where_somebody_else_listens_now_is_not_taken_for_the_node() -> None:
    async with sides() as (a, b):
        gone = NodeId(b"g" * 16)
        a.links.learn_addresses(gone, [b.address])
        with pytest.raises(Unreachable, match="another node"):
            await a.links.reach(gone, LinkKind.CTL)


async def test_a_node_with_another_key_is_refused_before_any_hello() -> None:
    async with sides(keys=(new_key(), new_key())) as (a, b):
        with pytest.raises((ConnectFailed, LinkLost)) as caught:
            await a.links.meet(b.address)
        assert isinstance(caught.value, LinkLost) or caught.value.wrong_key
        assert not b.ups
        assert not a.ups


async def test_a_peer_that_is_not_admitted_is_told_why() -> None:
    async with sides() as (a, b):
        b.refusal = (CloseCode.FOREIGN_CLUSTER, "this is another cluster")
        try:
            link = await a.links.reach(b.node_id, LinkKind.CTL)
            await link.wait_closed()
        except Unreachable:
            pass
        await until(lambda: not a.links.peers())
        assert not b.ups


async def test_one_link_too_many_is_closed_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(request: Request, payload: memoryview) -> Served:
        return Peers(()) if isinstance(request, PeersGet) else ChunkStored(())

    async with sides(answer) as (a, b):
        await a.links.request(b.node_id, PeersGet(4000), timeout_seconds=SECONDS)
        monkeypatch.setattr("peer.links.LINKS_MAX", 1)
        with pytest.raises(LinkLost, match="links already"):
            await a.links.request(b.node_id, ChunkPut(4000, CHUNK, forward=False), b"x", timeout_seconds=SECONDS)
        await a.links.request(b.node_id, PeersGet(4000), timeout_seconds=SECONDS)  # those that stand go on


async def test_closing_leaves_no_task_and_no_link_behind() -> None:
    async def answer(request: Request, payload: memoryview) -> Served:
        await asyncio.sleep(30.0)
        return Peers(())

    async with sides(answer) as (a, b):
        waiting = asyncio.create_task(a.links.request(b.node_id, PeersGet(30_000), timeout_seconds=30.0))
        await until(lambda: bool(b.ups))
        await b.links.close()
        with pytest.raises(LinkLost):
            await waiting
    await asyncio.sleep(0)
    assert not a.links._every
    assert not b.links._every
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
