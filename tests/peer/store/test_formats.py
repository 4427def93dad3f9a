"""Stored values prove themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.store.formats import VALUE_VERSION, ValueCorrupt, unwrap, wrap


@given(st.binary(), st.binary())
def test_what_was_wrapped_is_unwrapped(key, body):
    assert unwrap(key, wrap(key, body)) == body


@given(st.binary(), st.binary())
def test_a_stored_value_begins_with_the_version_of_its_encoding(key, body):
    assert wrap(key, body)[0] == VALUE_VERSION


@given(st.binary(), st.binary(), st.data())
def test_any_changed_bit_is_noticed(key, body, data):
    value = bytearray(wrap(key, body))
    bit = data.draw(st.integers(0, 8 * len(value) - 1))
    value[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValueCorrupt):
        unwrap(key, bytes(value))


@given(st.binary(), st.binary(), st.data())
def test_a_truncated_value_is_noticed(key, body, data):
    value = wrap(key, body)
    with pytest.raises(ValueCorrupt):
        unwrap(key, value[: data.draw(st.integers(0, len(value) - 1))])


@given(st.binary(), st.binary(), st.binary(min_size=1))
def test_a_value_with_a_tail_is_noticed(key, body, tail):
    with pytest.raises(ValueCorrupt):
        unwrap(key, wrap(key, body) + tail)


@given(st.binary(), st.binary(), st.binary())
def test_a_value_under_the_key_of_another_is_noticed(key, other, body):
    if key != other:
        with pytest.raises(ValueCorrupt):
            unwrap(other, wrap(key, body))


@given(st.binary(max_size=4), st.binary(max_size=4), st.binary(max_size=4))
def test_bytes_do_not_move_between_key_and_value(key, moved, body):
    if moved:
        with pytest.raises(ValueCorrupt):
            unwrap(key + moved, wrap(key, moved + body))


@given(st.binary(), st.binary())
def test_arbitrary_bytes_are_corrupt(key, value):
    with pytest.raises(ValueCorrupt):
        unwrap(key, value)
