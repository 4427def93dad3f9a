from hypothesis import given
from hypothesis import strategies as st

from protocol.hashing import CONTEXT_MANIFEST, CONTEXT_PATH, derived_hash, plain_hash


def test_plain_hash_is_blake3() -> None:
    # The published BLAKE3 vector of the empty input.
    assert plain_hash(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


@given(st.binary())
def test_contexts_do_not_share_hashes(data: bytes) -> None:
    assert len({plain_hash(data), derived_hash(CONTEXT_MANIFEST, data), derived_hash(CONTEXT_PATH, data)}) == 3
