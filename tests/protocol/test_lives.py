"""Lives: which one may follow another, and when a node must give its id up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import RemoteProtocolError
from protocol.lives import LIFE, SEEN, Life, heard, later, may_follow, reason_to_retire, told

ONE, OTHER = b"1" * 16, b"2" * 16
LIVES = st.builds(Life, st.integers(0, 2**32 - 1), st.binary(min_size=16, max_size=16), st.integers(0, 2**64 - 1))


@pytest.mark.parametrize(
    ("seen", "retires"),
    [
        (Life(3, ONE, 50), False),
        (Life(3, ONE, 60), False),
        (Life(3, ONE, 61), True),
        (Life(3, OTHER, 1), True),
        (Life(4, OTHER, 1), True),
        (Life(2, OTHER, 40), False),
        (Life(2, OTHER, 41), True),
        (Life(1, OTHER, 0), False),
    ],
)
def test_a_node_retires_of_which_more_was_seen_than_it_knows(seen: Life, retires: bool) -> None:
    own = Life(3, ONE, 60)  # it began with 40
    assert bool(reason_to_retire(own, 40, seen)) is retires


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 100)), max_size=20), st.data())
def test_what_a_disk_that_forgets_nothing_tells_may_always_follow_and_retires_nobody(
    steps: list[tuple[bool, int]], data: st.DataObject
) -> None:
    own, began_with = Life(1, bytes([1]) * 16, 0), 0
    seen: Life | None = None
    for starts, commits in steps:
        if starts:
            own, began_with = Life(own.boot + 1, bytes([own.boot + 1]) * 16, own.commits), own.commits
        own = Life(own.boot, own.token, own.commits + commits)
        said = Life(own.boot, own.token, data.draw(st.integers(began_with, own.commits)))  # hellos overtake each other
        assert may_follow(said, seen)
        seen = later(said, seen)
        assert reason_to_retire(own, began_with, seen) == ""


@given(LIVES, LIVES)
def test_who_may_not_follow_has_a_reason_to_retire(said: Life, seen: Life) -> None:
    if not may_follow(said, seen):
        assert reason_to_retire(said, said.commits, seen)


@given(LIVES, st.none() | LIVES)
def test_a_hello_says_what_was_put_into_it(own: Life, seen: Life | None) -> None:
    assert heard(told(own, seen)) == (own, seen)
    assert heard({"another": b""}) == (None, None)


@pytest.mark.parametrize("key", [LIFE, SEEN])
@given(data=st.binary(max_size=40))
def test_arbitrary_bytes_are_a_life_or_a_protocol_error(key: str, data: bytes) -> None:
    try:
        assert any(heard({key: data}))
    except RemoteProtocolError:
        pass
