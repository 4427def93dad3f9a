"""What operations ask of a cluster: no more at a time than it answers in time, and nothing that makes no sense."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from peer.errors import DataLost, RequestFailed, Unavailable, Unreachable, WrongUsage
from peer.files import read_path
from peer.files.access import CHUNKS_AT_ONCE
from peer.files.attempts import Attempt
from peer.files.operations import ROWS_AT_ONCE, Operations
from peer.files.read_path import ChunkReader
from peer.files.sides import Sides
from peer.link import Reply
from protocol.errors import ErrorCode
from protocol.hashing import Buffer
from protocol.identity import ClusterId, NodeId, OpId
from protocol.layout import Layout, Member, complete, genesis, propose
from protocol.manifest import ChunkTag, chunk_id_of
from protocol.messages import (
    ChunkData,
    ChunkGet,
    ChunkPut,
    Failure,
    ListFetch,
    MemberState,
    PeerInfo,
    PeerStatus,
    Request,
    RowFetch,
    RowPublish,
    Status,
    StatusGet,
)
from protocol.testing.model import NodeModel
from protocol.testing.pair import some_node_id

NODE_ID = some_node_id("model")
CALLS = 3 * ROWS_AT_ONCE


class ModelCluster:
    """Access to a correct node in memory, which takes a moment for each answer and counts what is asked at a time."""

    name = "tester"

    def __init__(self) -> None:
        self.node_id = NODE_ID
        self.layout = genesis(ClusterId(bytes(16)), Member(NODE_ID, "model", "", 1, ()))
        self.compute = self.wall_clock = self.entropy = self
        self.open: Counter[type[Request]] = Counter()
        self.most: Counter[type[Request]] = Counter()
        self._model = NodeModel(PeerInfo(NODE_ID, "model", ()), self.layout)

    async def request(self, node_id: NodeId, message: Request, payload: Buffer = b"", *, timeout_seconds: float) -> Reply:
        kind = type(message)
        self.open[kind] += 1
        self.most[kind] = max(self.most[kind], self.open[kind])
        await asyncio.sleep(0)
        self.open[kind] -= 1
        answer, data = self._model.answer(message, bytes(payload))
        if isinstance(answer, Failure):
            raise RequestFailed(answer.code, answer.reason, answer.layout_version)
        return Reply(answer, memoryview(data))

    def preferred(self, nodes: Sequence[NodeId]) -> list[NodeId]:
        return list(nodes)

    async def run(self, work: Callable[[], Any]) -> Any:
        return work()

    def milliseconds(self) -> int:
        return 0

    def token(self, label: str, count: int) -> bytes:
        return os.urandom(count)


async def test_many_calls_at_once_ask_for_so_many_rows_at_a_time_and_no_more() -> None:
    cluster = ModelCluster()
    operations = Operations(cluster)
    await asyncio.gather(*(operations.put_bytes(f"/{number}", b"%d" % number) for number in range(CALLS)))
    contents = await asyncio.gather(*(operations.get_bytes(f"/{number}") for number in range(CALLS)))
    assert contents == [b"%d" % number for number in range(CALLS)]

    async def names() -> list[str]:
        return [entry.name async for entry in operations.list("/folder")]

    await operations.put_bytes("/folder/file", b"")
    assert await asyncio.gather(*(names() for _ in range(CALLS))) == [["file"]] * CALLS
    assert [cluster.most[kind] for kind in (RowFetch, RowPublish, ListFetch)] == [ROWS_AT_ONCE] * 3


async def test_many_transfers_at_once_have_so_many_chunks_on_their_way_and_no_more() -> None:
    cluster = ModelCluster()
    operations = Operations(cluster)
    data = [os.urandom(5000) for _ in range(2 * CHUNKS_AT_ONCE)]
    await asyncio.gather(*(operations.put_bytes(f"/{number}", each) for number, each in enumerate(data)))
    assert await asyncio.gather(*(operations.get_bytes(f"/{number}") for number in range(len(data)))) == data
    assert [cluster.most[kind] for kind in (ChunkPut, ChunkGet)] == [CHUNKS_AT_ONCE] * 2


async def test_an_op_id_of_no_put_of_this_path_is_refused_before_anybody_is_asked() -> None:
    cluster = ModelCluster()
    of_another_path = Attempt("/other", OpId(bytes(16)), ()).token()
    for op_id in (b"", b"x", bytes(16), of_another_path):
        for again in (Operations(cluster).put_bytes("/f", b"", op_id=op_id), Operations(cluster).copy("/other", "/f", op_id=op_id)):
            with pytest.raises(WrongUsage, match="this op_id"):
                await again
    assert not cluster.most, "while nobody answers, the outcome of a put that never was would be called unknown"


A, B = (NodeId(name * 16) for name in (b"a", b"b"))
MEMBERS = [Member(node_id, "", "", 1, ()) for node_id in (A, B)]
MOVING = propose(genesis(ClusterId(bytes(16)), MEMBERS[0]), MEMBERS)
assert MOVING is not None
AT_REST = complete(MOVING)
CHUNKS = {chunk_id_of(ChunkTag.DATA, data): data for data in (bytes([number]) for number in range(12))}


class SlowLine(ModelCluster):
    """Two holders behind one line that carries a chunk in 20 ms; nothing comes from those in `silent`."""

    def __init__(self, silent: frozenset[NodeId] = frozenset()) -> None:
        super().__init__()
        self.layout = AT_REST
        self.asked: Counter[NodeId] = Counter()
        self._silent = silent
        self._line = asyncio.Lock()

    async def request(self, node_id: NodeId, message: Request, payload: Buffer = b"", *, timeout_seconds: float) -> Reply:
        assert isinstance(message, ChunkGet)
        self.asked[node_id] += 1
        if node_id in self._silent:
            await asyncio.sleep(3600)
        async with self._line:
            await asyncio.sleep(0.02)
        return Reply(ChunkData(), memoryview(CHUNKS[message.chunk_id]))


@pytest.mark.parametrize("silent", [frozenset(), frozenset({A})])
async def test_a_holder_that_delivers_other_chunks_is_waited_for_and_a_silent_one_is_not(
    silent: frozenset[NodeId], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_path, "HEDGE_SECONDS", 0.1)
    line = SlowLine(silent)
    reader = ChunkReader(line, Sides(line))
    found = await asyncio.gather(*(reader.fetch(chunk_id) for chunk_id in CHUNKS))
    assert [bytes(chunk) for chunk in found] == list(CHUNKS.values())
    assert (line.asked[B] if silent else line.asked.total()) == len(CHUNKS)


class MovingCopy(ModelCluster):
    """A chunk that, while it is looked for, moves to who has just said that he lacks it, or to where only the newest layout leads."""

    def __init__(self, layout: Layout, *, is_lost: bool) -> None:
        super().__init__()
        self.layout = layout
        self._is_lost = is_lost
        self._asked = 0

    async def request(self, node_id: NodeId, message: Request, payload: Buffer = b"", *, timeout_seconds: float) -> Reply:
        if isinstance(message, StatusGet):
            answer, _ = self._model.answer(message, b"")
            assert isinstance(answer, Status)
            return Reply(replace(answer, layout_version=AT_REST.version), memoryview(b""))
        assert isinstance(message, ChunkGet)
        self._asked += 1
        if self._is_lost or self._asked <= len(MEMBERS) or self.layout is not AT_REST:
            raise RequestFailed(ErrorCode.NOT_FOUND, "no such chunk")
        return Reply(ChunkData(), memoryview(CHUNKS[message.chunk_id]))

    async def catch_up(self, version: int) -> None:
        assert version == AT_REST.version
        self.layout = AT_REST

    def recently_refused(self, node_id: NodeId) -> bool:
        return False


@pytest.mark.parametrize("layout", [AT_REST, MOVING])
async def test_a_chunk_that_moves_while_it_is_looked_for_is_not_called_lost(layout: Layout) -> None:
    chunk_id, data = next(iter(CHUNKS.items()))
    moving, lost = (MovingCopy(layout, is_lost=is_lost) for is_lost in (False, True))
    assert bytes(await ChunkReader(moving, Sides(moving)).fetch(chunk_id)) == data
    with pytest.raises(DataLost, match="all 2 members were asked"):
        await ChunkReader(lost, Sides(lost)).fetch(chunk_id)


class OneIsGone(ModelCluster):
    """A has no chunk, and says that B has been dead for an hour, and what the newest layout is."""

    def __init__(self, layout: Layout, newest: Layout) -> None:
        super().__init__()
        self.layout = layout
        self._newest = newest

    async def request(self, node_id: NodeId, message: Request, payload: Buffer = b"", *, timeout_seconds: float) -> Reply:
        if node_id == B:
            raise Unreachable("b: no route")
        if isinstance(message, ChunkGet):
            raise RequestFailed(ErrorCode.NOT_FOUND, "no such chunk")
        assert isinstance(message, StatusGet)
        answer, _ = self._model.answer(message, b"")
        assert isinstance(answer, Status)
        views = (PeerStatus(B, MemberState.DEAD, 3600),)
        return Reply(replace(answer, layout_version=self._newest.version, peers=views), memoryview(b""))

    async def catch_up(self, version: int) -> None:
        assert version == self._newest.version
        self.layout = self._newest

    def recently_refused(self, node_id: NodeId) -> bool:
        return False


@pytest.mark.parametrize(("layout", "newest", "is_soon"), [(AT_REST, AT_REST, True), (MOVING, MOVING, False), (MOVING, AT_REST, True)])
async def test_a_chunk_that_only_a_dead_member_may_have_is_waited_for_while_the_layout_moves(
    layout: Layout, newest: Layout, is_soon: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_path, "OPERATION_SECONDS", 0.5)
    monkeypatch.setattr(read_path, "LOOK_SECONDS", 0.0)
    cluster = OneIsGone(layout, newest)
    with pytest.raises(Unavailable, match=r"nobody who answers \(1 of 2 members\)" if is_soon else "b: no route"):
        await ChunkReader(cluster, Sides(cluster)).fetch(next(iter(CHUNKS)))
