"""A question by multicast, on the loopback interface of this machine and on none."""

from peer.real.interfaces import LOOPBACK, Interface, interfaces_of
from peer.real.multicast import echo

NOBODYS = "192.0.2.254"


async def test_a_machine_hears_its_own_question() -> None:
    heard = await echo(LOOPBACK)
    assert (heard.address, heard.fault, heard.heard) == (LOOPBACK, "", True)


async def test_a_question_on_no_interface_says_why_it_was_not_sent() -> None:
    heard = await echo(NOBODYS)
    assert not heard.heard
    assert heard.fault


def test_an_address_is_shown_with_its_interface_and_one_of_nobody_is_left_out() -> None:
    assert interfaces_of([NOBODYS, LOOPBACK]) == [Interface("lo", LOOPBACK, has_link=True)]
