"""The codec round-trips what is valid, and refuses everything else in one way and in bounded memory."""

import dataclasses

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol.codec import decode, decode_header, encode, encode_header
from protocol.errors import CloseCode, RemoteProtocolError
from protocol.messages import (
    BY_TYPE,
    MESSAGES,
    Cancel,
    Control,
    Failure,
    Hello,
    Message,
    PeersGet,
    Ping,
    Request,
    RowFetch,
    RowPublish,
    clock_entry,
)
from protocol.testing.pair import some_hello
from protocol.testing.strategies import messages, messages_of, rows
from protocol.versions import Row


def a_request_id(message: Message) -> int:
    return 7 if not isinstance(message, Control) or isinstance(message, Cancel) else 0


def refused(data: bytes) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        decode_header(data)
    assert caught.value.code is CloseCode.PROTOCOL_ERROR
    return caught.value


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
def test_every_message_comes_back_as_it_was(cls):
    @settings(max_examples=25)
    @given(messages_of(cls))
    def round_trip(message):
        assert decode_header(encode_header(message, a_request_id(message))) == (message, a_request_id(message))

    round_trip()


def test_numbers_are_unique_and_requests_have_answers():
    assert len(BY_TYPE) == len(MESSAGES)
    for cls in MESSAGES:
        if issubclass(cls, Request):
            assert cls.TYPE >= 16
            assert cls.TYPE % 2 == 0
            assert cls.ANSWER in MESSAGES


@given(rows)
def test_rows_come_back_as_they_were(row):
    assert decode(Row, encode(row)) == row


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_message_or_a_protocol_error(data):
    try:
        message, request_id = decode_header(data)
    except RemoteProtocolError:
        return
    assert encode_header(message, request_id) == data


@given(messages(), st.data())
def test_a_changed_byte_is_another_message_or_a_protocol_error(message, data):
    encoded = bytearray(encode_header(message, a_request_id(message)))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        other, request_id = decode_header(bytes(encoded))
    except RemoteProtocolError:
        return
    assert encode_header(other, request_id) == encoded


@given(messages(), st.data())
def test_a_truncated_or_lengthened_message_is_refused(message, data):
    encoded = encode_header(message, a_request_id(message))
    refused(encoded[: data.draw(st.integers(0, len(encoded) - 1))])
    refused(encoded + b"\xc0")


def header(*fields: object) -> bytes:
    return msgpack.packb(list(fields), use_bin_type=True)


@pytest.mark.parametrize(
    "data",
    [
        b"\x93\x02\x00\xcc\x01",  # 1 in two bytes
        b"\x93\x02\x00\xcd\x00\x01",
        b"\xdc\x00\x03\x02\x00\x01",  # a short array with a long header
        b"\x93\x02\x00\xd0\x01",  # signed form
    ],
)
def test_integers_and_lengths_have_their_shortest_form(data):
    assert decode_header(b"\x93\x02\x00\x01") == (Ping(1), 0)
    refused(data)


@pytest.mark.parametrize(
    "data",
    [
        header(2, 0),
        header(2, 0, 1, 1),
        header(2, 0, -1),
        header(2, 0, 1 << 32),
        header(2, 0, 1.0),
        header(2, 0, True),
        header(2, 0, None),
        header(2, 0, b"\x01"),
        header(2, 0, [1]),
        header(2, 5, 1),
        header(16, 0, 1),
        header(16, 1 << 32, 1),
        header(99, 0),
        header("2", 0, 1),
        header(),
        b"",
        b"\x02",
        b"\xc7\x01\x05x",
        header(2, 0, msgpack.ExtType(5, b"x")),
        header(2, 0, msgpack.Timestamp(1)),
    ],
)
def test_wrong_fields_are_refused(data):
    refused(data)


def test_duplicate_map_keys_are_refused():
    encoded = encode_header(some_hello("a", optional={"k": b"1", "l": b"2"}), 0)
    assert decode_header(encoded)[0] == some_hello("a", optional={"k": b"1", "l": b"2"})
    refused(encoded.replace(b"\xa1l", b"\xa1k"))
    refused(encoded.replace(b"\xa1l", b"\xa1j"))  # out of order


@pytest.mark.parametrize("milliseconds", [0, -1, 1_700_000_000_123, 2**63 - 1])
def test_a_hello_says_what_its_clock_shows_also_before_1970(milliseconds):
    hello = decode_header(encode_header(some_hello("a", optional=clock_entry(milliseconds)), 0))[0]
    assert hello.clock_milliseconds == milliseconds


@pytest.mark.parametrize("optional", [{}, {"clock": b""}, {"clock": bytes(9)}])
def test_a_hello_without_a_clock_or_with_a_spoilt_one_says_none(optional):
    assert some_hello("a", optional=optional).clock_milliseconds is None


def test_unknown_keys_of_the_hello_are_kept_and_nothing_else_is_optional():
    encoded = encode_header(some_hello("a", optional={"of the future": b"x"}), 0)
    message, _ = decode_header(encoded)
    assert isinstance(message, Hello)


def test_deep_nesting_is_refused_in_bounded_time():
    refused(b"\x91" * 100_000 + b"\xc0")
    refused(b"\x93\x02\x00" + b"\x91" * 500 + b"\xc0")


def test_lengths_that_claim_more_than_there_is_are_refused_without_allocating():
    refused(b"\xdd\xff\xff\xff\xff")
    refused(b"\x93\x02\x00\xc6\xff\xff\xff\xff")
    refused(b"\xdf\xff\xff\xff\xff")


def test_text_is_valid_utf8_within_its_bytes():
    fits, over = "é" * (limits.NAME_BYTES_MAX // 2), "é" * (limits.NAME_BYTES_MAX // 2) + "x"
    assert decode_header(encode_header(some_hello("a", name=fits), 0))[0] == some_hello("a", name=fits)
    refused(encode_header(some_hello("a", name=over), 0))
    refused(encode_header(some_hello("abc"), 0).replace(b"\xa3abc", b"\xa3\xff\xfe\xfd"))


def test_bounds_hold_on_both_sides():
    at, over = limits.DEADLINE_MILLISECONDS_MAX, limits.DEADLINE_MILLISECONDS_MAX + 1
    assert decode_header(encode_header(PeersGet(at), 1))[0] == PeersGet(at)
    refused(encode_header(PeersGet(over), 1))


@given(messages_of(RowFetch), st.sampled_from(["", "/", "a", "/a/", "//a", "/a/../b", "/.", "/a\0", "/e\u0301"]))
def test_paths_that_are_not_canonical_are_refused(message, path):
    refused(encode_header(dataclasses.replace(message, path=path), 1))


@given(messages_of(RowFetch))
def test_a_path_belongs_to_its_partition(message):
    refused(encode_header(dataclasses.replace(message, partition=message.partition ^ 1), 1))


@given(messages_of(RowPublish))
def test_content_fits_its_size(message):
    refused(encode_header(dataclasses.replace(message, size=message.size + (1 << 60)), 1))


def test_failure_codes_are_known_ones():
    refused(header(Failure.TYPE, 1, 200, "why", 0))
