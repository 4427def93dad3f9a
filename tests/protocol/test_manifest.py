"""Content as chunks: addresses, shapes, spans, manifest blobs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.identity import CHUNK_ID_BYTES, ChunkId
from protocol.manifest import (
    GIB,
    KIB,
    MIB,
    NO_CONTENT,
    ChunkTag,
    Content,
    chunk_bytes_for,
    chunk_count,
    chunk_id_of,
    chunk_matches,
    chunk_partition,
    chunk_span,
    content_fault,
    inline_content,
    pack_manifest,
    unpack_manifest,
)
from protocol.testing.strategies import contents

DATA = chunk_id_of(ChunkTag.DATA, b"x")
MANIFEST = chunk_id_of(ChunkTag.MANIFEST, b"x")


@given(st.binary(max_size=200), st.sampled_from(ChunkTag), st.integers(0, 8 * CHUNK_ID_BYTES - 1))
def test_a_chunk_matches_its_own_id_and_no_other(data, tag, bit):
    chunk_id = chunk_id_of(tag, data)
    assert len(chunk_id) == CHUNK_ID_BYTES
    assert chunk_matches(chunk_id, data)
    assert not chunk_matches(chunk_id, data + b"\0")
    flipped = bytearray(chunk_id)
    flipped[bit >> 3] ^= 1 << (bit & 7)
    assert not chunk_matches(ChunkId(bytes(flipped)), data)
    assert 0 <= chunk_partition(chunk_id) < limits.PARTITIONS


def test_a_file_that_looks_like_a_manifest_is_none():
    assert chunk_id_of(ChunkTag.DATA, b"x")[1:] != chunk_id_of(ChunkTag.MANIFEST, b"x")[1:]


@given(contents())
def test_valid_content_is_found_valid(pair):
    assert content_fault(*pair) is None


@given(contents(), st.integers(1, 1 << 60))
def test_content_does_not_fit_another_size_by_chance(pair, more):
    content, size = pair
    fits = content_fault(content, size + more) is None
    same_count = bool(content.chunks) and (
        chunk_count(content, size + more) == chunk_count(content, size)
        if content.depth == 0
        else chunk_count(content, size + more) <= limits.MANIFEST_FANOUT**content.depth  # a deeper tree holds a range of sizes
    )
    assert fits == same_count


@given(st.integers(1, 1 << 50))
def test_spans_of_all_chunks_cover_the_content_once(size):
    chunk_bytes = chunk_bytes_for(size)
    content = Content(1, chunk_bytes, 1, (MANIFEST,), b"")
    count = chunk_count(content, size)
    assert chunk_span(content, size, 0)[0] == 0
    offset, length = chunk_span(content, size, count - 1)
    assert offset + length == size
    assert 0 < length <= chunk_bytes
    if count > 1:
        assert chunk_span(content, size, count - 2) == (offset - chunk_bytes, chunk_bytes)


@pytest.mark.parametrize(
    ("size", "chunk_bytes"),
    [(1, 256 * KIB), (16 * MIB - 1, 256 * KIB), (16 * MIB, MIB), (4 * GIB, MIB), (4 * GIB + 1, 4 * MIB), (None, MIB)],
)
def test_the_chunk_size_follows_the_size_of_the_file(size, chunk_bytes):
    assert chunk_bytes_for(size) == chunk_bytes


@given(st.integers(1, 50))
def test_a_manifest_blob_is_read_as_it_was_written(count):
    chunks = [chunk_id_of(ChunkTag.DATA, bytes([index])) for index in range(count)]
    assert list(unpack_manifest(pack_manifest(chunks), 1)) == chunks


@given(st.binary(max_size=200))
def test_any_other_blob_is_refused(blob):
    if len(blob) % CHUNK_ID_BYTES or not blob:
        with pytest.raises(ValueError):
            unpack_manifest(blob, 1)


def test_the_fanout_of_a_manifest_holds_on_both_sides():
    full = DATA * limits.MANIFEST_FANOUT
    assert len(unpack_manifest(full, 1)) == limits.MANIFEST_FANOUT
    with pytest.raises(ValueError):
        unpack_manifest(full + DATA, 1)


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (inline_content(b"abc"), 2),
        (Content(1, 0, 0, (), b"abc"), 3),
        (Content(1, MIB, 0, (DATA,), b"abc"), MIB),
        (Content(2, MIB, 0, (DATA,), b""), MIB),
        (Content(1, 0, 0, (DATA,), b""), MIB),
        (Content(1, limits.CHUNK_BYTES_MAX + 1, 0, (DATA,), b""), MIB),
        (Content(1, MIB, 0, (DATA,), b""), MIB + 1),
        (Content(1, MIB, 0, (DATA, DATA), b""), MIB),
        (Content(1, MIB, 0, (DATA,), b""), limits.INLINE_BYTES_MAX),
        (Content(1, MIB, 0, (MANIFEST,), b""), MIB),
        (Content(1, MIB, 1, (DATA,), b""), 100 * MIB),
        (Content(1, MIB, 1, (MANIFEST, MANIFEST), b""), 100 * MIB),
        (Content(1, MIB, 1, (MANIFEST,), b""), limits.INLINE_CHUNKS_MAX * MIB),
        (Content(1, MIB, 1, (MANIFEST,), b""), limits.MANIFEST_FANOUT * MIB + 1),
        (Content(1, MIB, 2, (MANIFEST,), b""), limits.MANIFEST_FANOUT * MIB),
        (Content(1, MIB, 3, (MANIFEST,), b""), 1 << 50),
    ],
)
def test_content_that_contradicts_itself_is_found(content, size):
    assert content_fault(content, size) is not None


def test_nothing_has_no_content():
    assert content_fault(NO_CONTENT, 0) is None
    assert chunk_count(NO_CONTENT, 0) == 0
