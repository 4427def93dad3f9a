"""Rows of the namespace: version sets with dotted causality, and how two of them merge.

Theory of operation
-------------------
A row holds the *versions* of one path that no other version has superseded. Each version
has a *dot* (actor, counter), unique for ever, and the *context* that its writer had read when
the write began: a version vector. Version v supersedes w when v's context contains w's dot
(dotted version vectors: Preguica, Baquero, Almeida, Fonte, Goncalves, "Brief announcement:
efficient causality tracking in distributed storage systems with dotted version vectors", PODC 2012).
Nothing is ever concluded from the absence of a version.

A vector is compact: `{a: 9}` covers every (a, n <= 9) of the row. That is sound only because rows travel
*whole*: who holds (a, 9) holds or has covered each earlier dot of `a` in this row.

A write that is retried at another replica gets a second dot for the same *operation*. Both dots
stand for one write, so a row also remembers which dots each operation has had, and:

- a version is dead when the context of a version of *another* operation contains any dot of its operation;
- of the live versions of one operation, the one with the lowest dot stays.

Contexts never change after they are made. (Adding the second dot to the context of the version that is kept
would be wrong: `{b: 9}` would cover a concurrent, unseen (b, 7) as well.) Merge is therefore the union of
what both sides know, then the two rules: commutative, associative and idempotent on every state that
writers can reach, as long as no row has seen more than OPERATIONS_MAX operations at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Annotated, NamedTuple

from protocol import limits
from protocol.fields import U32, U64, Items, NameField, NodeIdField, OpIdField, PathField
from protocol.identity import NodeId, OpId
from protocol.manifest import Content, content_fault
from protocol.paths import ROOT, is_canonical


class Dot(NamedTuple):
    """One write of one actor. `counter` is node-wide, monotone, from 1, and never issued twice."""

    actor: NodeIdField
    counter: U64


Vector = Annotated[tuple[Dot, ...], Items(limits.VECTOR_ENTRIES_MAX)]
"""A version vector: for each actor its highest counter, in order of actor, no actor twice."""


class Kind(IntEnum):
    """What a version says the path is."""

    FILE = 1
    DIRECTORY = 2
    TOMBSTONE = 3


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """One write of one path. Immutable: a dot names the same value everywhere and for ever."""

    dot: Dot
    context: Vector
    """What the writer had read when the write began."""
    hlc: U64
    """Hybrid logical clock, milliseconds << 16 | counter. Orders concurrent versions for display, nothing else."""
    op_id: OpIdField
    kind: Kind
    size: U64
    """Bytes of content; 0 unless a file."""
    mode: U32
    """POSIX permission bits."""
    modified_milliseconds: U64
    """Modification time of what was put, for people."""
    writer: NameField
    """Name of the machine that put it, for people."""
    content: Content


@dataclass(frozen=True, slots=True, order=True)
class Operation:
    """The dots that one write has had in this row."""

    op_id: OpIdField
    hlc: U64
    """Highest clock of its versions: which operations are remembered longest."""
    dots: Annotated[tuple[Dot, ...], Items(limits.DOTS_PER_OPERATION_MAX)]
    """In ascending order."""


@dataclass(frozen=True, slots=True)
class Row:
    """Everything known of one path. Always in normal form: only `merge` and `published` make one."""

    path: PathField
    heads: Annotated[tuple[Version, ...], Items(limits.HEADS_MAX)]
    """In ascending order of dot."""
    operations: Annotated[tuple[Operation, ...], Items(limits.HEADS_MAX + limits.OPERATIONS_MAX)]
    """In ascending order of op_id: those of the heads, and the latest others."""


def empty_row(path: str) -> Row:
    """Return the row of a path that was never written."""
    return Row(path, (), ())


def covers(vector: Vector, dot: Dot) -> bool:
    """Return whether `vector` contains `dot`."""
    return any(actor == dot.actor and counter >= dot.counter for actor, counter in vector)


def join_vectors(vectors: Iterable[Vector]) -> Vector:
    """Return the least vector that contains all of `vectors`."""
    highest: dict[NodeId, int] = {}
    for vector in vectors:
        for actor, counter in vector:
            highest[actor] = max(counter, highest.get(actor, 0))
    return tuple(Dot(actor, highest[actor]) for actor in sorted(highest))


def context_of(row: Row) -> Vector:
    """Return what a reader of `row` has seen: the context of a write that follows it."""
    return join_vectors([*(head.context for head in row.heads), *((head.dot,) for head in row.heads)])


def has_seen(row: Row, context: Vector) -> bool:
    """Return whether `row` knows the operations of all dots in the `context` of a reader.

    A row that does not may hold a version that is dead: the reader knows another dot of its operation, and what superseded that one. That
    the context of a head covers a dot is not enough, for it does not say whose dot it is. What is long forgotten counts as not known.
    """
    seen = join_vectors(operation.dots for operation in row.operations)
    return all(covers(seen, dot) for dot in context)


def merge(left: Row, right: Row) -> Row:
    """Return all that `left` and `right` know together, without what is superseded.

    Both are rows of one path. Heads beyond HEADS_MAX are kept: it is for the writer to refuse.
    """
    assert left.path == right.path
    versions: dict[Dot, Version] = {}
    for version in (*left.heads, *right.heads):
        known = versions.get(version.dot)
        versions[version.dot] = version if known is None else min(known, version)
    operations = {operation.op_id: operation for operation in left.operations}
    for operation in right.operations:
        known_operation = operations.get(operation.op_id)
        operations[operation.op_id] = (
            operation if known_operation is None else _join_operations(known_operation, operation)
        )
    return _normal_form(left.path, versions.values(), operations)


def published(row: Row, version: Version) -> Row:
    """Return `row` with the new `version` of this coordinator in it."""
    operation = Operation(version.op_id, version.hlc, (version.dot,))
    return merge(row, Row(row.path, (version,), (operation,)))


def find_operation(row: Row, op_id: OpId) -> Dot | None:
    """Return the dot under which `op_id` stands in `row`, or None when the row does not know it."""
    for operation in row.operations:
        if operation.op_id == op_id:
            return operation.dots[0]
    return None


def winner(row: Row) -> Version | None:
    """Return the version that bears the plain name; None when the path does not exist.

    Among concurrent versions a put beats a delete; then the higher (hlc, actor) wins.
    """
    live = siblings(row)
    return live[0] if live else None


def siblings(row: Row) -> list[Version]:
    """Return the concurrent versions that are no tombstones, the winner first. Markers of a folder are all one."""
    live = [head for head in row.heads if head.kind is not Kind.TOMBSTONE]
    live.sort(key=lambda head: (head.hlc, head.dot.actor, head.dot.counter), reverse=True)
    first_marker = next((head for head in live if head.kind is Kind.DIRECTORY), None)
    return [head for head in live if head.kind is Kind.FILE or head is first_marker]


def row_fault(row: Row) -> str | None:
    """Return what no correct node would send in `row`, or None."""
    if row.path == ROOT or not is_canonical(row.path):
        return "the path of a row is not canonical"
    fault = _operations_fault(row)
    if fault is not None:
        return fault
    known = {operation.op_id: operation.dots for operation in row.operations}
    for earlier, later in pairwise(row.heads):
        if earlier.dot >= later.dot:
            return "heads are not in ascending order"
    for head in row.heads:
        if head.dot not in known.get(head.op_id, ()):
            return "a head stands under an operation that the row does not list"
        fault = version_fault(head)
        if fault is not None:
            return fault
    if _normal_form(row.path, row.heads, {each.op_id: each for each in row.operations}) != row:
        return "the row is not in normal form"
    return None


def version_fault(version: Version) -> str | None:
    """Return what contradicts itself in `version`, or None."""
    if version.dot.counter == 0:
        return "a dot counts from 1"
    if not vector_is_canonical(version.context):
        return "a context is not in ascending order of actor"
    if version.kind is not Kind.FILE and version.size:
        return "only a file has a size"
    return content_fault(version.content, version.size)


def vector_is_canonical(vector: Vector) -> bool:
    """Return whether `vector` is in ascending order of actor, without zeros."""
    actors = [actor for actor, _ in vector]
    ascending = all(earlier < later for earlier, later in pairwise(actors))
    return ascending and all(counter for _, counter in vector)


def _operations_fault(row: Row) -> str | None:
    for earlier, later in pairwise(row.operations):
        if earlier.op_id >= later.op_id:
            return "operations are not in ascending order"
    for operation in row.operations:
        dots = operation.dots
        if not dots or any(one >= two for one, two in pairwise(dots)):
            return "the dots of an operation are not in ascending order"
    return None


def _join_operations(left: Operation, right: Operation) -> Operation:
    dots = sorted({*left.dots, *right.dots})[: limits.DOTS_PER_OPERATION_MAX]
    return Operation(left.op_id, max(left.hlc, right.hlc), tuple(dots))


def _normal_form(path: str, versions: Iterable[Version], operations: dict[OpId, Operation]) -> Row:
    candidates = sorted(versions)
    heads: dict[OpId, Version] = {}
    for version in candidates:
        if version.op_id in heads:
            continue
        dots = operations[version.op_id].dots
        superseded = any(
            other.op_id != version.op_id and any(covers(other.context, dot) for dot in dots) for other in candidates
        )
        if not superseded:
            heads[version.op_id] = version
    others = [operation for op_id, operation in operations.items() if op_id not in heads]
    others.sort(key=lambda operation: (operation.hlc, operation.op_id), reverse=True)
    kept = [operations[op_id] for op_id in heads] + others[: limits.OPERATIONS_MAX]
    return Row(
        path,
        tuple(sorted(heads.values(), key=lambda head: head.dot)),
        tuple(sorted(kept, key=lambda operation: operation.op_id)),
    )
