"""What a machine says that reaches too few others, in one line; and what it does not wait for."""

import pytest

from peer.files.sides import Side


@pytest.mark.parametrize(
    ("members", "away", "expected"),
    [
        (5, ("a", "b", "c"), "its smaller side: nothing is read or written from here until 3 are reached; start a, b and c, or"),
        (9, tuple("abcdefg"), "reaches 2 of 9 members; if the network is split this is its smaller side"),
        (9, tuple("abcdefg"), "start a, b, c, d, e and 2 more, or see to the network"),
        (4, ("a", "b"), "reaches 2 of 4 members; from here nobody can tell whether the rest is off or cut off and at work"),
        (9, ("a", "b", "c"), "reaches 6 of 9 members; the others hold paths of their own, which can be used; start a, b and c"),
        (3, (), "try again"),
    ],
)
def test_what_is_reached_says_what_still_works_and_what_to_do(members: int, away: tuple[str, ...], expected: str) -> None:
    text = Side(members, away, frozenset()).meaning()
    assert expected in text
    assert "\n" not in text


def test_what_is_waited_for_is_named() -> None:
    assert Side(3, ("b",), frozenset()).waiting(is_joint=False) == "waiting for b to answer"
    text = Side(3, (), frozenset()).waiting(is_joint=True)
    assert text == "waiting for a majority to answer, or for the layout that is changing to be taken back"


def test_who_went_on_by_force_elsewhere_is_not_to_be_started() -> None:
    text = Side(5, tuple("abcde"), frozenset(), ("a", "b")).meaning()
    assert text.startswith("this machine reaches 0 of 5 members; a and b went on by force as another cluster: connect anew")
    assert "start" not in text
