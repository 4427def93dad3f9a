"""Rows on their way to a replica: who travels together, and what a refusal of one of them means for the others."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from peer.errors import LinkLost, RequestFailed
from peer.files.row_shipper import RowShipper
from peer.link import Reply
from protocol import limits
from protocol.errors import ErrorCode
from protocol.identity import NodeId, OpId
from protocol.manifest import inline_content
from protocol.messages import Done, RowMerge
from protocol.versions import Dot, Kind, Row, Version, empty_row, published

REPLICA = NodeId(b"r" * 16)


def row(name: str, size: int = 10) -> Row:
    content = inline_content(bytes(size))
    op_id = OpId(name.encode().ljust(16, b"-")[:16])
    return published(
        empty_row(f"/{name}"), Version(Dot(NodeId(b"w" * 16), 1), (), 1 << 16, op_id, Kind.FILE, size, 0o644, 0, "ada", content)
    )


class Replica:
    """An `Access` of which only `request` is used; each request waits until it is let go."""

    def __init__(self, judge: Callable[[RowMerge], None] = lambda message: None) -> None:
        self.asked: list[list[str]] = []
        self.gate = asyncio.Event()
        self._judge = judge

    async def request(self, node_id: NodeId, message: RowMerge, payload: bytes = b"", *, timeout_seconds: float) -> Reply:
        assert node_id == REPLICA
        self.asked.append([row.path for row in message.rows])
        await self.gate.wait()
        self._judge(message)
        return Reply(Done(), memoryview(b""))


def nobody_watches(node: NodeId, rows: Sequence[Row]) -> None:
    """Nobody is told what is stored."""


async def ship_all(replica: Replica, rows: list[Row]) -> list[BaseException | None]:
    shipper = RowShipper(replica, nobody_watches)
    tasks = [asyncio.create_task(shipper.ship(REPLICA, 7, 1, each)) for each in rows]
    for _ in range(5):
        await asyncio.sleep(0)
    replica.gate.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_row_leaves_at_once_and_those_that_come_meanwhile_travel_together() -> None:
    replica = Replica()
    shipper = RowShipper(replica, nobody_watches)
    first = asyncio.create_task(shipper.ship(REPLICA, 7, 1, row("first")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [asyncio.create_task(shipper.ship(REPLICA, 7, 1, row(name))) for name in ("a", "b", "c")]
    await asyncio.sleep(0)
    replica.gate.set()
    await asyncio.gather(first, *others)
    assert replica.asked == [["/first"], ["/a", "/b", "/c"]]


async def test_rows_of_another_stamp_do_not_travel_with_them() -> None:
    replica = Replica()
    replica.gate.set()
    shipper = RowShipper(replica, nobody_watches)
    ways = [(7, 1, "a"), (7, 2, "b"), (8, 1, "c")]
    await asyncio.gather(*(shipper.ship(REPLICA, partition, stamp, row(name)) for partition, stamp, name in ways))
    assert sorted(replica.asked) == [["/a"], ["/b"], ["/c"]]


async def test_a_message_keeps_within_its_limits() -> None:
    replica = Replica()
    rows = [row(f"{index}", limits.INLINE_BYTES_MAX) for index in range(3 * limits.PAGE_BYTES_MAX // limits.INLINE_BYTES_MAX)]
    assert await ship_all(replica, rows) == [None] * len(rows)
    assert max(len(paths) for paths in replica.asked) <= min(
        limits.ROWS_PER_MESSAGE_MAX, limits.PAGE_BYTES_MAX // limits.INLINE_BYTES_MAX
    )
    assert sorted(path for paths in replica.asked for path in paths) == sorted(each.path for each in rows)


async def test_what_is_wrong_with_one_row_does_not_fail_the_others() -> None:
    def judge(message: RowMerge) -> None:
        if any(each.path == "/bad" for each in message.rows):
            raise RequestFailed(ErrorCode.TOO_LARGE, "too many versions")

    results = await ship_all(Replica(judge), [row("first"), row("good"), row("bad"), row("fine")])
    assert [type(result) for result in results] == [type(None), type(None), RequestFailed, type(None)]


@pytest.mark.parametrize("error", [LinkLost("gone"), TimeoutError(), RequestFailed(ErrorCode.STALE, "old")])
async def test_what_is_wrong_with_the_replica_fails_all_and_it_is_not_asked_again(error: Exception) -> None:
    def judge(message: RowMerge) -> None:
        raise error

    replica = Replica(judge)
    results = await ship_all(replica, [row("first"), row("a"), row("b")])
    assert results == [error] * 3
    assert replica.asked == [["/first", "/a", "/b"]]


async def test_a_bug_reaches_everybody_whose_row_it_concerns() -> None:
    def judge(message: RowMerge) -> None:
        raise AssertionError("a bug")

    replica = Replica(judge)
    async with asyncio.timeout(2.0):
        results = await ship_all(replica, [row("first"), row("a")])
    assert [type(result) for result in results] == [AssertionError] * 2


async def test_whoever_is_cancelled_leaves_its_row_on_its_way() -> None:
    replica = Replica()
    shipper = RowShipper(replica, nobody_watches)
    first = asyncio.create_task(shipper.ship(REPLICA, 7, 1, row("first")))
    await asyncio.sleep(0)
    second = asyncio.create_task(shipper.ship(REPLICA, 7, 1, row("second")))
    third = asyncio.create_task(shipper.ship(REPLICA, 7, 1, row("third")))
    await asyncio.sleep(0)
    second.cancel()
    replica.gate.set()
    await asyncio.gather(first, third)
    assert replica.asked == [["/first"], ["/second", "/third"]]
