"""What the fuzzer of `make fuzz` tries to break holds for the examples that it starts from, and for what lies around them."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from protocol.codec import decode_header
from protocol.messages import MESSAGES
from tests.fuzz.properties import CHECKS


@pytest.mark.parametrize("name", CHECKS)
def test_the_property_holds_for_every_reference_vector(name: str) -> None:
    check, seeds = CHECKS[name]
    assert sum(check(seed) for seed in seeds()) > 30


@pytest.mark.parametrize("name", CHECKS)
def test_the_property_holds_around_the_reference_vectors(name: str) -> None:
    check, seeds = CHECKS[name]
    noise = random.Random(7)
    for seed in seeds():
        for _ in range(20):
            data = bytearray(seed)
            for _ in range(noise.randrange(1, 4)):
                at = noise.randrange(len(data) + 1)
                data[at : at + noise.randrange(3)] = noise.randbytes(noise.randrange(3))
            check(bytes(data))


@pytest.mark.parametrize("name", CHECKS)
def test_every_message_is_among_what_the_fuzzer_starts_from(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reached: set[str] = set()

    def remembering(data: bytes):
        message, request_id = decode_header(data)
        reached.add(type(message).__name__)
        return message, request_id

    monkeypatch.setattr("tests.fuzz.properties.decode_header" if name == "codec" else "protocol.connection.decode_header", remembering)
    check, seeds = CHECKS[name]
    for seed in seeds():
        check(seed)
    assert reached == {message.__name__ for message in MESSAGES}
