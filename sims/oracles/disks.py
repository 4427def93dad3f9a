"""Rows, chunks and layouts as they lie on the disks."""

from collections.abc import Iterable, Iterator
from functools import lru_cache

from protocol.codec import decode_own
from protocol.errors import RemoteProtocolError
from protocol.hashing import plain_hash
from protocol.identity import NodeId, node_id_of
from protocol.layout import Layout
from protocol.limits import INLINE_BYTES_MAX
from protocol.manifest import ChunkTag, chunk_bytes_for, chunk_id_of
from protocol.paths import name_of, parent_of, row_partition
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


def row_key(path: str) -> bytes:
    """Return the key under which a node has the row of a path."""
    return b"r" + row_partition(path).to_bytes(2, "big") + parent_of(path).encode() + b"\0" + name_of(path).encode()


def row_under(machine: Machine, key: bytes) -> Row | None:
    """Return the row that a machine has durably under a key; None if there is none, or none that can be read."""
    database = machine.storage.databases.get("ns")
    value = database.values.get(key) if database is not None else None
    return _decoded(value) if value is not None else None


@lru_cache(maxsize=4096)
def _decoded(value: bytes) -> Row | None:
    try:
        return decode_own(Row, value[VALUE_HEADER_BYTES:])
    except RemoteProtocolError:
        return None


def is_rotten(machine: Machine, key: bytes) -> bool:
    """Return whether the disk has changed what is under a key."""
    database = machine.storage.databases.get("ns")
    return database is not None and key in database.rotten


def running(world: World) -> dict[NodeId, Machine]:
    """Return the machines on which a node runs, by its id."""
    return {machine.node.node_id: machine for machine in world.machines.values() if machine.node is not None}


def identity_on(machine: Machine) -> NodeId | None:
    """Return the id of the node that runs on a machine, or else of the one whose disk it has; None if there is no such thing on it.

    Who runs with an identity whose file a lying disk has not kept is nobody else for that.
    """
    if machine.node is not None:
        return machine.node.node_id
    file = machine.storage.state.durable_names.get("identity")
    return _identity(bytes(file.durable)) if file is not None else None


@lru_cache(maxsize=256)
def _identity(data: bytes) -> NodeId:
    return node_id_of(plain_hash(data[VALUE_HEADER_BYTES:]))


def latest_layout(machines: Iterable[Machine]) -> Layout:
    """Return the newest layout that any of `machines` has durably; one of them is a member."""
    newest = max(machines, key=layout_version)
    layout = layout_of(newest, layout_version(newest))
    assert layout is not None
    return layout


def layout_of(machine: Machine, version: int) -> Layout | None:
    """Return a layout that a machine has durably, None if it has not."""
    database = machine.storage.databases.get("sys")
    record = database.values.get(b"layout/" + version.to_bytes(4, "big")) if database is not None else None
    return Layout.from_bytes(record[VALUE_HEADER_BYTES:]) if record is not None else None


def layout_version(machine: Machine) -> int:
    """Return the version of the layout that a machine has durably, 0 if it has none."""
    database = machine.storage.databases.get("sys")
    value = database.values.get(b"layout latest") if database is not None else None
    return int.from_bytes(value[VALUE_HEADER_BYTES:], "big") if value is not None else 0


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
