"""Who hears what in a story, and a register that is read and written meanwhile.

A node may answer any request with BUSY, at any moment. So whoever chooses who is busy for what chooses whom each write, read, sync and
layout reaches, and when, and need not break a link for that. Only what clients are told is judged.
"""

import asyncio
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress

from peer.errors import NoSuchPath, OutcomeUnknown, Refused, Unavailable
from peer.files.operations import Operations
from peer.files.quorum import fewest_for_majority
from peer.link import Served
from protocol.errors import ErrorCode
from protocol.messages import (
    DigestsGet,
    Hello,
    LayoutAccept,
    LayoutGet,
    LayoutPrepare,
    ListFetch,
    PartitionPull,
    Request,
    RowFetch,
    RowMerge,
    RowPublish,
)
from protocol.paths import row_partition
from sims.world import World

ROW_REQUESTS = (RowFetch, ListFetch, RowPublish, RowMerge)
ASK_SECONDS = 4.0
"""Who gets no answer under these circumstances goes away."""
VALUE_BYTES = 24


class Traffic:
    """What each node of a world is not too busy for, of what concerns the rows of `path` and the layout."""

    def __init__(self, world: World, path: str) -> None:
        self.only: dict[type[Request], Collection[str]] = {DigestsGet: ()}
        """Machines that serve requests of a kind; all if it is not here. Nobody compares rows: no promise hangs on that."""
        self.askers: dict[type[Request], Collection[str]] = {}
        """Machines that are served requests of a kind; all if it is not here."""
        self.slow: dict[type[Request], float] = {}
        """Seconds for which an answer lies before it is sent."""
        self.sources: dict[str, Collection[str]] = {}
        """Machines that give rows to a new owner; all if it is not here."""
        self.held: dict[str, int] = {}
        """The latest layout that a machine can learn."""
        self.highest = sys.maxsize
        """The latest layout that anybody votes on."""
        self._world = world
        self._partition = row_partition(path)
        self._is_open = False
        for name in world.machines:
            self.watch(name)

    def watch(self, name: str) -> None:
        """Stand before the node that runs on a machine now."""
        node = self._world.node(name)
        serve = node.serve

        async def serve_some(peer: Hello, request: Request, payload: memoryview, deadline: float) -> Served:
            if not self._is_open and self._is_busy(peer.name, name, request):
                raise Refused(ErrorCode.BUSY, "busy with other things")
            served = await serve(peer, request, payload, deadline)
            await asyncio.sleep(self.slow.get(type(request), 0.0))
            return served

        node.serve = serve_some  # type: ignore[method-assign]  # a story stands before the node, and no seam is there for it

    def open(self) -> None:
        """Let everything through from now on."""
        self._is_open = True

    def _is_busy(self, asker: str, asked: str, request: Request) -> bool:
        if isinstance(request, ROW_REQUESTS) and request.partition != self._partition:
            return False
        kind = type(request)
        if asked not in self.only.get(kind, (asked,)) or asker not in self.askers.get(kind, (asker,)):
            return True
        match request:
            case PartitionPull():
                return asked not in self.sources.get(asker, (asked,))
            case LayoutGet():
                return asker in self.held and not 0 < request.version <= self.held[asker]
            case LayoutPrepare() | LayoutAccept():
                highest = min(self.highest, self.held.get(asker, self.highest))
                return request.version > highest
        return False


class Register:
    """One small file: what may be read of it now, and who reads and writes it by which replicas."""

    def __init__(self, world: World, traffic: Traffic, path: str) -> None:
        self.path = path
        self.partition = row_partition(path)
        self._world = world
        self._traffic = traffic
        self._known = b""
        """What everybody must see: it was acknowledged, or read."""
        self._pending = b""
        """What was written last, if nobody was told that it was: it may be seen or not, and once it was seen must be."""

    @property
    def is_settled(self) -> bool:
        """Whether the last write was acknowledged, or has been read."""
        return not self._pending

    @property
    def value(self) -> bytes:
        """What was written last."""
        return self._pending or self._known

    def holders(self) -> list[str]:
        """Return the machines that have what was written last."""
        disks = {name: machine.storage.databases["ns"].values for name, machine in self._world.machines.items()}
        return [name for name, values in disks.items() if any(self.value in row for key, row in values.items() if key[:1] == b"r")]

    def quorum(self, client: Operations, order: Sequence[str]) -> list[str]:
        """Return as few replicas as a client needs by the layout that it has, the first ones in this order."""
        layout = client._access.layout
        ids = {member.name: member.node_id for member in layout.record.members}
        owners = [name for name in order if name in ids and layout.is_replica(ids[name], self.partition)]
        return owners[: fewest_for_majority(layout.replica_sets(self.partition), [ids[name] for name in owners])]

    async def write(self, client: Operations, replicas: Sequence[str], *, is_partial: bool = False) -> None:
        """Write a new value by these replicas, or by any if that does not succeed; `is_partial`: it comes no further than to the first."""
        assert self.is_settled, "what may have been written twice may be there twice"
        self._pending = self._world.random.randbytes(VALUE_BYTES)
        self._traffic.only |= dict.fromkeys(ROW_REQUESTS, replicas)
        if is_partial:
            self._traffic.only |= {RowPublish: replicas[:1], RowMerge: ()}
        putting = asyncio.ensure_future(client.put_bytes(self.path, self._pending))
        with suppress(TimeoutError, OutcomeUnknown, Unavailable):  # what it came to is looked at below
            await asyncio.wait_for(asyncio.shield(putting), ASK_SECONDS)
        if is_partial:
            putting.cancel()
        self._let_all()
        try:
            await putting
        except (OutcomeUnknown, asyncio.CancelledError):
            return
        except Unavailable:
            self._pending = b""
            return
        self._known, self._pending = self._pending, b""

    async def read(self, client: Operations, replicas: Collection[str], repaired: Collection[str] | None = None) -> None:
        """Read by these replicas, of which those in `repaired` take what is written back; or not at all."""
        self._traffic.only |= dict.fromkeys(ROW_REQUESTS, replicas)
        if repaired is not None:
            self._traffic.only[RowMerge] = repaired
        try:
            async with asyncio.timeout(ASK_SECONDS):
                value = await client.get_bytes(self.path)
        except (Unavailable, TimeoutError):
            return
        except NoSuchPath:
            value = b""
        finally:
            self._let_all()
        assert value in (self._known, self._pending), "a read has missed what was acknowledged, or read before"
        if value == self._pending:
            self._known, self._pending = value, b""

    def _let_all(self) -> None:
        for kind in ROW_REQUESTS:
            self._traffic.only.pop(kind, None)
