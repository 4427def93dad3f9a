"""The cluster key: one line of text in which every slip is noticed and which no error repeats."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from peer.real.keys import PREFIX, ClusterKey, new_key, parse_key

secrets = st.binary(min_size=32, max_size=32)
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-=+/_ ."


@given(secrets)
def test_a_key_is_parsed_back_from_its_text(secret):
    key = ClusterKey(secret)
    assert parse_key(key.text) == key
    assert parse_key(f"  {key.text.upper()}\r\n") == key
    assert "\n" not in key.text


@given(secrets)
def test_keys_have_one_form_and_one_length(secret):
    text = ClusterKey(secret).text
    assert text.startswith(PREFIX)
    assert len(text) == len(PREFIX) + 58
    assert text == text.lower()


def test_fresh_keys_differ():
    assert len({new_key().text for _ in range(100)}) == 100


def test_every_mistyped_character_is_refused():
    text = ClusterKey(bytes(range(100, 132))).text
    for position, right in enumerate(text):
        for wrong in ALPHABET:
            if wrong != right:
                refuse(text[:position] + wrong + text[position + 1 :])


@given(secrets, st.data())
def test_any_other_character_is_refused(secret, data):
    text = ClusterKey(secret).text
    position = data.draw(st.integers(0, len(text) - 1))
    wrong = data.draw(st.characters().filter(lambda character: character.lower() != text[position]))
    refuse(text[:position] + wrong + text[position + 1 :])


@given(secrets, st.data())
def test_missing_doubled_and_swapped_characters_are_refused(secret, data):
    text = ClusterKey(secret).text
    at = data.draw(st.integers(0, len(text) - 2))
    refuse(text[:at] + text[at + 1 :])
    refuse(text[:at] + text[at] + text[at:])
    if text[at] != text[at + 1]:
        refuse(text[:at] + text[at + 1] + text[at] + text[at + 2 :])


@given(st.text())
@example("")
@example(PREFIX)
@example("shoal1-" + "a" * 58)
@example("shoal1-" + "ä" * 58)
def test_arbitrary_text_is_refused(text):
    refuse(text)


def refuse(text):
    with pytest.raises(ValueError) as caught:
        parse_key(text)
    message = str(caught.value)
    assert "\n" not in message
    body = text.strip().lower().removeprefix(PREFIX)
    for start in range(len(body) - 8):
        assert body[start : start + 8] not in message or body[start : start + 8] in "not a cluster key: it begins with shoal1-"


def test_a_key_does_not_show_itself():
    key = new_key()
    for text in (repr(key), str(key), f"{key}"):
        assert key.text[len(PREFIX) :] not in text
        assert key.secret.hex() not in text
        assert repr(key.secret) not in text


@given(secrets)
def test_what_is_derived_differs_and_does_not_contain_the_secret(secret):
    key = ClusterKey(secret)
    assert key.ca_seed == ClusterKey(secret).ca_seed
    assert key.tag == ClusterKey(secret).tag
    assert len(key.ca_seed) == 32
    assert key.ca_seed != secret
    assert len(key.tag) == 16
    assert bytes.fromhex(key.tag) not in (key.ca_seed, secret)


def test_other_keys_have_other_seeds_and_tags():
    keys = [ClusterKey(bytes([number]) * 32) for number in range(20)]
    assert len({key.ca_seed for key in keys}) == 20
    assert len({key.tag for key in keys}) == 20
