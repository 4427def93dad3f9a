"""Rows, chunks and layouts as they lie on the disks."""

from collections.abc import Iterable, Iterator
from functools import lru_cache

from protocol.codec import decode_own
from protocol.errors import RemoteProtocolError
from protocol.identity import NodeId
from protocol.layout import Layout
from protocol.limits import INLINE_BYTES_MAX
from protocol.manifest import ChunkTag, chunk_bytes_for, chunk_id_of
from protocol.versions import Row, covers
from sims.world import Machine, World

CHUNK_HEADER_BYTES = 64
VALUE_HEADER_BYTES = 9
"""Version and checksum before each value."""


def rows_of(machine: Machine) -> Iterator[tuple[bytes, Row | None]]:
    """Yield key and row of all that a machine has durably; None for a row that cannot be read."""
    database = machine.storage.databases.get("ns")
    for key, value in database.values.items() if database is not None else ():
        if key.startswith(b"r"):
            yield key, _decoded(value)


@lru_cache(maxsize=4096)
def _decoded(value: bytes) -> Row | None:
    try:
        return decode_own(Row, value[VALUE_HEADER_BYTES:])
    except RemoteProtocolError:
        return None


def is_rotten(machine: Machine, key: bytes) -> bool:
    """Return whether the disk has changed what is under a key."""
    return key in machine.storage.databases["ns"].rotten


def running(world: World) -> dict[NodeId, Machine]:
    """Return the machines on which a node runs, by its id."""
    return {machine.node.node_id: machine for machine in world.machines.values() if machine.node is not None}


def latest_layout(machines: Iterable[Machine]) -> Layout:
    """Return the newest layout that any of `machines` has durably; one of them is a member."""
    layouts = [layout for machine in machines if (layout := _layout_of(machine)) is not None]
    return max(layouts, key=lambda layout: layout.version)


def _layout_of(machine: Machine) -> Layout | None:
    values = machine.storage.databases["sys"].values
    if b"layout latest" not in values:
        return None
    version = values[b"layout latest"][VALUE_HEADER_BYTES:]
    return Layout.from_bytes(values[b"layout/" + version][VALUE_HEADER_BYTES:])


def chunks_of(content: bytes) -> Iterator[bytes]:
    """Yield what of a content is stored as chunks: nothing if it is small enough to lie in the row."""
    if len(content) <= INLINE_BYTES_MAX:
        return
    step = chunk_bytes_for(len(content))
    for begin in range(0, len(content), step):
        yield content[begin : begin + step]


def has_chunk(machine: Machine, chunk: bytes) -> bool:
    """Return whether a machine has a chunk durably, or had it until its disk changed it."""
    chunk_id = chunk_id_of(ChunkTag.DATA, chunk)
    path = f"c/{chunk_id[1]:02x}/{chunk_id.hex()}"
    disk = machine.storage.state
    if disk.has_lied:
        return path in disk.names or path in disk.durable_names
    file = disk.durable_names.get(path)
    return file is not None and (id(file) in disk.damaged or file.durable[CHUNK_HEADER_BYTES:] == chunk)


def what_is_missing(whole: Row, other: Row) -> str | None:
    """Return what `other` should have of `whole`, the row of a coordinator, and does not; None if nothing.

    Vectors are compact: who has the dot (a, 9) of a row claims to know (a, 7) as well. So he must have it, or have seen what superseded it.
    """
    known = {dot for operation in other.operations for dot in operation.dots}
    for head in whole.heads:
        later = [each for each in other.heads if each.dot.actor == head.dot.actor and each.dot.counter > head.dot.counter]
        if later and head.dot not in known and not any(covers(each.context, head.dot) for each in other.heads):
            return f"version {head.dot.counter}, and has {later[0].dot.counter} of the same coordinator"
    return None
