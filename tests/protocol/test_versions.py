"""Merge against the truth: what writers had really seen, kept beside the contexts that encode it."""

from hypothesis import given, settings

from protocol import limits
from protocol.hashing import plain_hash
from protocol.identity import NodeId, OpId
from protocol.manifest import inline_content
from protocol.testing.strategies import histories
from protocol.versions import (
    Dot,
    Kind,
    Row,
    Version,
    context_of,
    covers,
    empty_row,
    find_operation,
    has_seen,
    join_vectors,
    merge,
    published,
    row_fault,
    siblings,
    winner,
)

A, B, C = (NodeId(plain_hash(name, 16)) for name in (b"a", b"b", b"c"))


def op(name: str) -> OpId:
    return OpId(plain_hash(name.encode(), 16))


def write(row: Row, actor: NodeId, counter: int, name: str, context=None, kind=Kind.FILE) -> Row:
    context = context_of(row) if context is None else context
    content = inline_content(name.encode()) if kind is Kind.FILE else inline_content(b"")
    size = len(name) if kind is Kind.FILE else 0
    return published(row, Version(Dot(actor, counter), context, counter, op(name), kind, size, 0o644, 0, "w", content))


def texts(row: Row) -> set[str]:
    return {head.content.inline.decode() for head in siblings(row)}


@given(histories())
def test_merge_is_commutative(history):
    for left in history.rows():
        for right in history.rows():
            assert merge(left, right) == merge(right, left)


@settings(max_examples=200)
@given(histories())
def test_merge_is_associative(history):
    one, two, three = history.rows()
    assert merge(merge(one, two), three) == merge(one, merge(two, three))


@given(histories())
def test_merge_is_idempotent(history):
    for row in history.rows():
        assert merge(row, row) == row
        for other in history.rows():
            assert merge(merge(row, other), other) == merge(row, other)


@given(histories())
def test_every_reachable_row_is_valid_on_the_wire(history):
    for row in history.rows():
        assert row_fault(row) is None


@settings(max_examples=300)
@given(histories(steps=20))
def test_merge_drops_exactly_what_a_later_writer_had_seen(history):
    """The oracle knows no dots: a write is superseded if another write that took place had seen it."""
    everything = empty_row(history.path)
    for row in history.rows():
        everything = merge(everything, row)
    written = {version.op_id for version in history.written}
    superseded = {seen for each in written for seen in history.read_before[each]}
    assert {head.op_id for head in everything.heads} == written - superseded


@given(histories())
def test_one_operation_is_one_version_however_often_it_was_retried(history):
    everything = empty_row(history.path)
    for row in history.rows():
        everything = merge(everything, row)
    operations = [head.op_id for head in everything.heads]
    assert len(operations) == len(set(operations))
    for head in everything.heads:
        assert find_operation(everything, head.op_id) is not None


@settings(max_examples=300)
@given(histories(steps=20))
def test_what_stands_where_all_is_known_that_the_reader_of_an_empty_path_had_seen_is_not_dead_by_it(history):
    for row in history.rows():
        for read in history.rows():
            if winner(read) is None and winner(row) is not None and has_seen(row, context_of(read)):
                assert winner(merge(row, read)) is not None


def test_a_write_supersedes_what_it_had_read():
    row = write(write(empty_row("/f"), A, 1, "one"), B, 1, "two")
    assert texts(row) == {"two"}


def test_concurrent_writes_are_both_kept():
    base = write(empty_row("/f"), A, 1, "base")
    left, right = write(base, A, 2, "left"), write(base, B, 1, "right")
    assert texts(merge(left, right)) == {"left", "right"}


def test_a_retry_elsewhere_is_no_sibling_and_a_later_delete_stands():
    first = write(empty_row("/f"), A, 5, "put", context=())
    retried = write(empty_row("/f"), B, 9, "put", context=())
    both = merge(first, retried)
    assert [head.dot for head in both.heads] == [min(Dot(A, 5), Dot(B, 9))]
    deleted = write(first, A, 6, "rm", kind=Kind.TOMBSTONE)
    assert winner(merge(deleted, both)) is None
    assert winner(merge(merge(deleted, retried), both)) is None


def test_a_retried_dot_does_not_cover_an_unseen_concurrent_write_of_its_actor():
    """`{b: 9}` in the context of the kept version would have swallowed (b, 7)."""
    concurrent = write(empty_row("/f"), B, 7, "other", context=())
    put = write(empty_row("/f"), A, 5, "put", context=())
    retried_at_b = write(concurrent, B, 9, "put", context=())
    assert texts(merge(put, retried_at_b)) == {"other", "put"}


def test_a_put_beats_a_concurrent_delete():
    base = write(empty_row("/f"), A, 1, "base")
    deleted = write(base, A, 2, "rm", kind=Kind.TOMBSTONE)
    put = write(base, B, 1, "put")
    assert texts(merge(deleted, put)) == {"put"}


def test_operations_are_remembered_for_late_retries_and_bounded():
    row = empty_row("/f")
    for counter in range(1, limits.OPERATIONS_MAX + 10):
        row = write(row, A, counter, f"put {counter}")
    assert len(row.operations) == limits.OPERATIONS_MAX + 1
    assert find_operation(row, op(f"put {limits.OPERATIONS_MAX}")) is not None
    assert find_operation(row, op("put 1")) is None


def test_markers_of_a_folder_are_one_entry():
    left = write(empty_row("/d"), A, 1, "x", context=(), kind=Kind.DIRECTORY)
    right = write(empty_row("/d"), B, 1, "y", context=(), kind=Kind.DIRECTORY)
    assert len(siblings(merge(left, right))) == 1


def test_vectors_join_to_the_highest_of_each_actor():
    joined = join_vectors([(Dot(A, 1), Dot(B, 5)), (Dot(A, 3),)])
    assert joined == tuple(sorted([Dot(A, 3), Dot(B, 5)]))
    assert covers(joined, Dot(A, 2))
    assert not covers(joined, Dot(C, 1))
