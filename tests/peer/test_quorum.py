"""Asking many at once: enough answers end it, and nothing that came too late makes a noise."""

import asyncio
from collections.abc import Mapping

from peer.errors import LinkLost
from peer.files.quorum import collect, fewest_for_majority, has_majority
from protocol.identity import NodeId

A, B, C, D, E = (NodeId(name * 16) for name in (b"a", b"b", b"c", b"d", b"e"))


async def test_failures_that_end_with_the_last_needed_answer_are_not_left_unread() -> None:
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    go = asyncio.Event()

    async def ask(node: NodeId) -> NodeId:
        await go.wait()
        if node in (C, D, E):
            raise LinkLost("gone")
        return node

    def enough(answers: Mapping[NodeId, NodeId]) -> bool:
        return len(answers) >= 1

    collecting = asyncio.create_task(collect([A, B, C, D, E], ask, enough, 5.0))
    await asyncio.sleep(0)
    go.set()
    answers, _ = await collecting
    assert answers
    del collecting
    await asyncio.sleep(0.05)
    assert not complaints


async def test_who_does_not_answer_in_time_has_failed() -> None:
    async def ask(node: NodeId) -> NodeId:
        await asyncio.sleep(0.0 if node == A else 30.0)
        return node

    answers, failures = await collect([A, B], ask, lambda answers: len(answers) == 2, 0.05)
    assert answers == {A: A}
    assert [type(error) for error in failures.values()] == [TimeoutError]


def test_a_majority_is_needed_of_each_set_and_never_of_their_union() -> None:
    assert has_majority([(A, B, C)], {A: None, B: None})
    assert not has_majority([(A, B, C)], {A: None, D: None})
    assert not has_majority([(A, B, C), (C, D, E)], {A: None, B: None, C: None})
    assert has_majority([(A, B, C), (C, D, E)], {B: None, C: None, D: None})
    assert not has_majority([(A, B)], {A: None})
    assert not has_majority([(A, B, C, D)], {A: None, B: None})


async def test_only_as_many_are_asked_at_first_as_are_needed() -> None:
    asked: list[NodeId] = []

    async def ask(node: NodeId) -> NodeId:
        asked.append(node)
        return node

    answers, _ = await collect([A, B, C, D, E], ask, lambda answers: len(answers) == 3, 5.0, at_first=3)
    assert asked == [A, B, C]
    assert len(answers) == 3


async def test_for_each_that_fails_another_one_is_asked_at_once() -> None:
    asked: list[NodeId] = []

    async def ask(node: NodeId) -> NodeId:
        asked.append(node)
        if node in (A, C):
            raise LinkLost("gone")
        return node

    answers, failures = await collect([A, B, C, D, E], ask, lambda answers: len(answers) == 3, 5.0, at_first=3)
    assert asked == [A, B, C, D, E]
    assert (sorted(answers), sorted(failures)) == ([B, D, E], [A, C])


async def test_the_rest_is_asked_when_somebody_is_silent() -> None:
    asked: list[NodeId] = []

    async def ask(node: NodeId) -> NodeId:
        asked.append(node)
        await asyncio.sleep(30.0 if node == B else 0.0)
        return node

    answers, _ = await collect([A, B, C, D, E], ask, lambda answers: len(answers) == 3, 5.0, at_first=3)
    assert set(asked) == {A, B, C, D, E}
    assert B not in answers


def test_as_many_are_needed_as_make_a_majority_of_each_set() -> None:
    assert fewest_for_majority([(A, B, C, D, E)], [A, B, C, D, E]) == 3
    assert fewest_for_majority([(A, B, C), (C, D, E)], [A, B, C, D, E]) == 4
    assert fewest_for_majority([(A, B, C)], [A]) == 1
