"""The way of rows from their coordinator to the other replicas: those that wait for the same replica travel in one message.

Nobody waits for company: a row that finds nothing under way leaves at once, and while one message is under way the next one gathers.
Many small files are mostly put into one folder, so into one partition with the same replicas.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from peer.errors import LinkLost, RequestFailed
from peer.files.access import TRY_SECONDS, Access, milliseconds
from protocol import limits
from protocol.errors import ErrorCode
from protocol.identity import NodeId
from protocol.messages import Done, RowMerge
from protocol.rows import row_bytes
from protocol.versions import Row

_OF_ONE_ROW = frozenset({ErrorCode.TOO_LARGE, ErrorCode.CORRUPT, ErrorCode.INVALID})
"""Refusals that may be meant for one row of a message only."""


@dataclass(frozen=True, slots=True)
class _Way:
    """From here to one replica, under one stamp."""

    node: NodeId
    partition: int
    stamp: int


@dataclass(slots=True)
class _Parcel:
    row: Row
    arrived: "asyncio.Future[None]"


@dataclass(slots=True)
class _Queue:
    waiting: list[_Parcel] = field(default_factory=list)
    task: "asyncio.Task[None] | None" = None


class RowShipper:
    """Sends whole rows. How many wait is bounded by the requests that this node serves."""

    def __init__(self, access: Access, on_stored: Callable[[NodeId, Sequence[Row]], None]) -> None:
        """`on_stored` is told what a replica has acknowledged to have stored."""
        self._access = access
        self._on_stored = on_stored
        self._queues: dict[_Way, _Queue] = {}

    async def ship(self, node: NodeId, partition: int, stamp: int, row: Row) -> None:
        """Bring `row` to `node`, where it is durable when this returns. Whoever is cancelled meanwhile leaves it on its way.

        Raises: LinkLost, RequestFailed, TimeoutError.
        """
        way = _Way(node, partition, stamp)
        queue = self._queues.setdefault(way, _Queue())
        loop = asyncio.get_running_loop()
        parcel = _Parcel(row, loop.create_future())
        queue.waiting.append(parcel)
        if queue.task is None:
            queue.task = loop.create_task(self._send_all(way, queue))
        await parcel.arrived

    async def _send_all(self, way: _Way, queue: _Queue) -> None:
        batch: list[_Parcel] = []
        try:
            while queue.waiting:
                batch = _first_that_fit(queue.waiting)
                del queue.waiting[: len(batch)]
                await self._send(way, batch)
        except Exception as error:  # a bug: it is not to end here, but with those who wait, and through them with the node
            _fail([*batch, *queue.waiting], error)
            raise
        finally:
            del self._queues[way]

    async def _send(self, way: _Way, batch: list[_Parcel]) -> None:
        message = RowMerge(milliseconds(TRY_SECONDS), way.partition, way.stamp, tuple(parcel.row for parcel in batch))
        try:
            reply = await self._access.request(way.node, message, timeout_seconds=TRY_SECONDS)
        except (LinkLost, RequestFailed, TimeoutError) as error:
            if isinstance(error, RequestFailed) and error.code in _OF_ONE_ROW and len(batch) > 1:
                for parcel in batch:
                    await self._send(way, [parcel])
                return
            _fail(batch, error)
        else:
            assert isinstance(reply.message, Done)
            self._on_stored(way.node, message.rows)
            for parcel in batch:
                if not parcel.arrived.done():
                    parcel.arrived.set_result(None)


def _fail(parcels: list[_Parcel], error: Exception) -> None:
    for parcel in parcels:
        if not parcel.arrived.done():
            parcel.arrived.set_exception(error)


def _first_that_fit(waiting: list[_Parcel]) -> list[_Parcel]:
    """Return the first parcels that fit one message, one at least."""
    size = 0
    for index, parcel in enumerate(waiting):
        size += len(row_bytes(parcel.row))
        if index and (size > limits.PAGE_BYTES_MAX or index >= limits.ROWS_PER_MESSAGE_MAX):
            return waiting[:index]
    return waiting[:]
