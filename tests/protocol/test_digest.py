"""Digests that are kept up row by row are those of the rows, whatever the order, and differ where the rows do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.digest import (
    NOTHING,
    PartitionDigest,
    bucket_of,
    differing_buckets,
    digest_of_total,
    pack_buckets,
    path_hash,
    unpack_buckets,
)
from protocol.hashing import plain_hash
from protocol.limits import DIGEST_BUCKETS

paths = st.integers(0, 200).map(lambda number: f"/f/{number}")
states = st.integers(0, 3)
"""Of one row: not there, or one of three."""


def digest_of(path: str, state: int) -> bytes:
    return plain_hash(b"%s %d" % (path.encode(), state), 16) if state else b""


def rebuilt(rows: dict[str, int]) -> PartitionDigest:
    digest = PartitionDigest()
    for path, state in rows.items():
        digest.replace(path, b"", digest_of(path, state))
    return digest


@given(st.lists(st.tuples(paths, states), max_size=40))
def test_a_digest_that_was_kept_up_is_that_of_the_rows(changes):
    rows: dict[str, int] = {}
    kept = PartitionDigest()
    for path, after in changes:
        kept.replace(path, digest_of(path, rows.get(path, 0)), digest_of(path, after))
        rows[path] = after
    expected = rebuilt(rows)
    assert (kept.pack(), kept.total) == (expected.pack(), expected.total)
    assert kept.total == PartitionDigest(kept.pack()).total


@given(st.dictionaries(paths, states), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows, random):
    shuffled = list(rows.items())
    random.shuffle(shuffled)
    assert rebuilt(dict(shuffled)).pack() == rebuilt(rows).pack()


@given(st.dictionaries(paths, states), st.dictionaries(paths, states))
def test_buckets_differ_exactly_where_rows_do(left, right):
    different = {path for path in (*left, *right) if left.get(path, 0) != right.get(path, 0)}
    expected = sorted({bucket_of(path_hash(path)) for path in different})
    one, other = rebuilt(left), rebuilt(right)
    assert differing_buckets(one.buckets(), other.buckets()) == expected
    assert (one.total == other.total) == (not expected)


def test_removing_everything_leaves_nothing() -> None:
    digest = rebuilt({"/a": 1, "/b": 2})
    digest.replace("/b", digest_of("/b", 2), b"")
    digest.replace("/a", digest_of("/a", 1), b"")
    assert digest.pack() == PartitionDigest().pack()
    assert digest_of_total(digest.total) == NOTHING


def test_the_total_is_the_sum_of_the_buckets() -> None:
    digest = rebuilt({f"/f/{number}": 1 for number in range(1000)})
    assert digest_of_total(sum(int.from_bytes(bucket, "big") for bucket in digest.buckets())) == digest_of_total(digest.total)
    assert NOTHING not in digest.buckets()  # a thousand paths reach each of the 64


def test_a_list_of_buckets_that_ends_early_has_nothing_behind_its_end() -> None:
    digest = rebuilt({"/a": 1})
    bucket = bucket_of(path_hash("/a"))
    assert differing_buckets(digest.buckets(), digest.buckets()[: bucket + 1]) == []
    assert differing_buckets(digest.buckets(), ()) == [bucket]


@given(st.sets(st.integers(0, DIGEST_BUCKETS - 1)))
def test_a_bitmap_of_buckets_is_read_as_it_was_written(buckets):
    assert unpack_buckets(pack_buckets(buckets)) == sorted(buckets)


@pytest.mark.parametrize("size", [1, DIGEST_BUCKETS * 16 - 1])
def test_what_is_no_packed_digest_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="no digests"):
        PartitionDigest(bytes(size))
