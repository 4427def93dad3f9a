from hypothesis import given, strategies as st

from protocol.hashing import chunk_hash, derived_hash


def test_chunk_hash_is_plain_blake3() -> None:
    # The published BLAKE3 vector of the empty input.
    assert chunk_hash(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


@given(st.binary())
def test_contexts_do_not_share_hashes(payload: bytes) -> None:
    assert len({chunk_hash(payload), derived_hash("a", payload), derived_hash("b", payload)}) == 3
