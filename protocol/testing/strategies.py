"""Hypothesis strategies for everything that travels.

`messages` draws any valid message, built from the same annotations as the codec. `histories` draws rows as real
writers could have made them: clients that read before they write, coordinators that commit before they ship, retries elsewhere, whole
rows that arrive or not. Arbitrary sets of versions are no rows: merge promises nothing about them.
"""

import dataclasses
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from protocol import limits
from protocol.fields import Binary, Entries, Items, Text, Unsigned
from protocol.hashing import plain_hash
from protocol.identity import NodeId, OpId
from protocol.manifest import NO_CONTENT, ChunkTag, Content, chunk_id_of, inline_content
from protocol.messages import MESSAGES, ListFetch, Message, PartitionPull, RowFetch, RowMerge, RowPublish, RowsCompare
from protocol.paths import folder_partition, join, parent_of, row_partition
from protocol.versions import Dot, Kind, Row, Vector, Version, context_of, empty_row, find_operation, merge, published

ITEMS_DRAWN_MAX = 4

_names = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="/\0"), min_size=1, max_size=8
).filter(lambda name: name not in (".", ".."))


def _is_nfc(text: str) -> bool:
    return unicodedata.normalize("NFC", text) == text


names = _names.filter(_is_nfc)
"""Names of entries."""
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
"""Canonical remote paths other than the root."""
node_ids = st.binary(min_size=16, max_size=16).map(NodeId)
op_ids = st.binary(min_size=16, max_size=16).map(OpId)


@st.composite
def contents(draw: DrawFn) -> tuple[Content, int]:
    """Draw valid content and its size."""
    if draw(st.booleans()):
        data = draw(st.binary(max_size=64))
        return inline_content(data), len(data)
    chunk_bytes = draw(st.integers(limits.INLINE_BYTES_MAX + 1, limits.CHUNK_BYTES_MAX))
    if draw(st.booleans()):
        count = draw(st.integers(1, 3))
        chunks = tuple(chunk_id_of(ChunkTag.DATA, bytes([index])) for index in range(count))
        smallest = max((count - 1) * chunk_bytes, limits.INLINE_BYTES_MAX) + 1
        return Content(1, chunk_bytes, 0, chunks, b""), draw(st.integers(smallest, count * chunk_bytes))
    depth = draw(st.integers(1, limits.MANIFEST_DEPTH_MAX))
    root = chunk_id_of(ChunkTag.MANIFEST, draw(st.binary(max_size=4)))
    fewest = limits.INLINE_CHUNKS_MAX if depth == 1 else limits.MANIFEST_FANOUT
    return Content(1, chunk_bytes, depth, (root,), b""), draw(
        st.integers(fewest * chunk_bytes + 1, chunk_bytes * limits.MANIFEST_FANOUT**depth)
    )


@st.composite
def vectors(draw: DrawFn) -> Vector:
    """Draw a canonical version vector."""
    entries = draw(st.dictionaries(node_ids, st.integers(1, 2**64 - 1), max_size=4))
    return tuple(Dot(actor, entries[actor]) for actor in sorted(entries))


# -- rows that writers can reach ---------------------------------------------


@dataclass
class History:
    """A small cluster's dealings with one path: the rows of its replicas, and all that was ever written."""

    path: str
    replicas: dict[NodeId, Row]
    written: list[Version] = field(default_factory=list)
    read_before: dict[OpId, frozenset[OpId]] = field(default_factory=dict)
    """For each operation the operations whose effect its writer had seen, directly or through others: the truth that contexts encode."""

    def rows(self) -> list[Row]:
        """Return the rows of all replicas."""
        return [self.replicas[actor] for actor in sorted(self.replicas)]


@dataclass
class _Begun:
    op_id: OpId
    context: Vector
    kind: Kind
    content: Content
    size: int


@st.composite
def histories(draw: DrawFn, replicas: int = 3, steps: int = 12) -> History:
    """Draw a history: begin (read and fix a context), commit at a coordinator (again for retries), ship a whole row."""
    actors = [NodeId(plain_hash(bytes([index]), 16)) for index in range(replicas)]
    path = draw(paths)
    history = History(path, {actor: empty_row(path) for actor in actors})
    counters = dict.fromkeys(actors, 0)
    begun: list[_Begun] = []
    clock = 0
    for _ in range(draw(st.integers(1, steps))):
        step = draw(st.sampled_from(["begin", "commit", "commit", "ship"]))
        actor = draw(st.sampled_from(actors))
        if step == "begin":
            seen = history.replicas[actor]
            kind = draw(st.sampled_from(list(Kind)))
            content, size = draw(contents()) if kind is Kind.FILE else (NO_CONTENT, 0)
            op_id = OpId(plain_hash(b"op %d" % len(begun), 16))
            begun.append(_Begun(op_id, context_of(seen), kind, content, size))
            direct = frozenset(head.op_id for head in seen.heads)
            history.read_before[op_id] = direct.union(*(history.read_before[each] for each in direct))
        elif step == "commit" and begun:
            write = draw(st.sampled_from(begun))
            row = history.replicas[actor]
            if find_operation(row, write.op_id) is None:
                counters[actor] += draw(st.integers(1, 3))
                clock += draw(st.integers(0, 2))
                version = Version(
                    Dot(actor, counters[actor]), write.context, clock, write.op_id, write.kind, write.size, 0o644, 0, "w", write.content
                )
                history.written.append(version)
                history.replicas[actor] = published(row, version)
        elif step == "ship":
            target = draw(st.sampled_from(actors))
            history.replicas[target] = merge(history.replicas[target], history.replicas[actor])
    return history


rows = histories().map(lambda history: history.rows()[0])
"""One replica's row of some history."""


# -- any message -------------------------------------------------------------


def _field_strategy(hint: Any) -> SearchStrategy[Any]:
    if hint is Row:
        return rows
    if hint == Vector:
        return vectors()
    if hint is Content:
        return contents().map(lambda pair: pair[0])
    bound = None
    while get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        bound = bound if bound is not None else notes[0]
    if isinstance(bound, Unsigned):
        return st.integers(0, bound.largest)
    if isinstance(bound, Binary):
        some = st.binary(min_size=bound.minimum, max_size=min(bound.maximum, bound.minimum + 64))
        return st.one_of(st.just(b""), some) if bound.or_empty else some
    if isinstance(bound, Text):
        maximum = bound.maximum
        text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=min(16, maximum))
        return text.filter(lambda value: len(value.encode()) <= maximum)
    if isinstance(bound, Items):
        item = _field_strategy(get_args(hint)[0])
        return st.lists(item, max_size=min(bound.maximum, ITEMS_DRAWN_MAX)).map(tuple)
    if isinstance(bound, Entries):
        return st.dictionaries(st.text("abc", max_size=8), st.binary(max_size=8), max_size=ITEMS_DRAWN_MAX)
    if hint is bool:
        return st.booleans()
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return st.sampled_from(hint)
    return values_of(hint)


def values_of(cls: type[Any]) -> SearchStrategy[Any]:
    """Return a strategy for valid values of an annotated class."""
    hints = get_type_hints(cls, include_extras=True)
    fields = [each.name for each in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else list(hints)
    return st.builds(cls, **{name: _field_strategy(hints[name]) for name in fields})


@st.composite
def _publishes(draw: DrawFn) -> RowPublish:
    message: RowPublish = draw(values_of(RowPublish))
    path = draw(paths)
    kind = draw(st.sampled_from(list(Kind)))
    content, size = draw(contents()) if kind is Kind.FILE else (NO_CONTENT, 0)
    return dataclasses.replace(
        message, path=path, partition=row_partition(path), kind=kind, content=content, size=size, context=draw(vectors())
    )


@st.composite
def _merges(draw: DrawFn) -> RowMerge:
    row = draw(rows)
    others = [empty_row(join(parent_of(row.path), name)) for name in draw(st.lists(names, max_size=2))]
    return RowMerge(draw(st.integers(0, 1000)), row_partition(row.path), draw(st.integers(0, 2**32 - 1)), (row, *others))


@st.composite
def _fetches(draw: DrawFn) -> RowFetch:
    path = draw(paths)
    return RowFetch(draw(st.integers(0, 1000)), row_partition(path), draw(st.integers(0, 2**32 - 1)), path, draw(st.booleans()))


@st.composite
def _lists(draw: DrawFn) -> ListFetch:
    folder = draw(st.one_of(st.just("/"), paths))
    stamp = draw(st.integers(0, 2**32 - 1))
    return ListFetch(draw(st.integers(0, 1000)), folder_partition(folder), stamp, folder, draw(names), draw(names), draw(st.booleans()))


@st.composite
def _pulls(draw: DrawFn) -> PartitionPull:
    message: PartitionPull = draw(values_of(PartitionPull))
    path = draw(st.one_of(st.just(""), paths))
    return dataclasses.replace(message, after_path=path, after_partition=row_partition(path) if path else 0)


@st.composite
def _compares(draw: DrawFn) -> RowsCompare:
    message: RowsCompare = draw(values_of(RowsCompare))
    path = draw(paths)
    other = draw(st.one_of(st.just(""), names.map(lambda name: join(parent_of(path), name))))
    return dataclasses.replace(message, partition=row_partition(path), after=draw(st.sampled_from(["", path])), until=other)


_SPECIAL: dict[type[Message], Callable[[], SearchStrategy[Any]]] = {
    RowPublish: _publishes,
    RowMerge: _merges,
    RowFetch: _fetches,
    ListFetch: _lists,
    PartitionPull: _pulls,
    RowsCompare: _compares,
}


def messages_of(cls: type[Message]) -> SearchStrategy[Any]:
    """Return a strategy for valid messages of one type."""
    return _SPECIAL[cls]() if cls in _SPECIAL else values_of(cls)


def messages(types: Sequence[type[Message]] = MESSAGES) -> SearchStrategy[Any]:
    """Return a strategy for valid messages of any of `types`."""
    return st.one_of([messages_of(cls) for cls in types])
