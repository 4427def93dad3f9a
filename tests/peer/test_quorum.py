"""Asking many at once: enough answers end it, nothing that came too late makes a noise, and what contradicts itself is no vote."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from peer.errors import LinkLost, RequestFailed
from peer.files.quorum import collect, fetch_page, fetch_row, fewest_for_majority, has_majority, read_page, read_row
from peer.files.sides import Sides
from peer.link import Reply
from protocol.errors import ErrorCode
from protocol.hashing import Buffer
from protocol.identity import ClusterId, NodeId, OpId
from protocol.layout import Member, complete, genesis, propose
from protocol.manifest import inline_content
from protocol.messages import Answer, Done, ListFetch, ListPage, Request, RowFetch, RowIs, RowMerge
from protocol.rows import range_digest, row_digest
from protocol.versions import Dot, Kind, Row, Version, empty_row, merge, published

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


# -- what a replica may answer -----------------------------------------------

MEMBERS = [Member(NodeId(name * 16), name.decode(), "", 1, ()) for name in (b"a", b"b", b"c")]
MOVING = propose(genesis(ClusterId(bytes(16)), MEMBERS[0]), MEMBERS)
assert MOVING is not None
LAYOUT = complete(MOVING)


def row(path: str, *actors: NodeId) -> Row:
    """Return the row of `path` with a concurrent file of each of `actors`."""
    result = empty_row(path)
    for actor in actors:
        text = actor[:1]
        result = published(result, Version(Dot(actor, 1), (), 1, OpId(actor), Kind.FILE, 1, 0o644, 0, "", inline_content(text)))
    return result


def vote(found: Row | None, *, full: bool) -> RowIs:
    if found is None:
        return RowIs(b"", (), False)
    return RowIs(row_digest(found), (found,) if full else (), False)


def page(rows: Sequence[Row], until: str, *, full: bool) -> ListPage:
    return ListPage(range_digest(map(row_digest, rows)), until, tuple(rows) if full else (), False)


class Replicas:
    """An `Access` to three replicas. Each answers with what is right, or with what a test has put in its place."""

    name = ""
    layout = LAYOUT
    node_id = NodeId(bytes(16))

    def __init__(self, rows: Mapping[NodeId, Sequence[Row]]) -> None:
        self.rows = {node: {each.path: each for each in held} for node, held in rows.items()}
        self.lies: dict[NodeId, Callable[[Request], Answer | None]] = {}
        self.merged: list[NodeId] = []

    def preferred(self, nodes: Sequence[NodeId]) -> list[NodeId]:
        return sorted(nodes)

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a read does not need {name}")

    async def request(self, node_id: NodeId, message: Request, payload: Buffer = b"", *, timeout_seconds: float) -> Reply:
        lie = self.lies.get(node_id, lambda message: None)(message)
        return Reply(lie if lie is not None else self._right(node_id, message), memoryview(b""))

    def _right(self, node_id: NodeId, message: Request) -> Answer:
        rows = self.rows[node_id]
        if isinstance(message, RowFetch):
            return vote(rows.get(message.path), full=message.full)
        if isinstance(message, ListFetch):
            return page([rows[path] for path in sorted(rows)], message.until, full=message.full)
        assert isinstance(message, RowMerge)
        for each in message.rows:
            rows[each.path] = merge(rows.get(each.path, empty_row(each.path)), each)
        self.merged.append(node_id)
        return Done()


OLD, NEW, OTHER = row("/d/f", B), row("/d/f", A, B), row("/d/g", A)

WRONG_VOTES: dict[str, Callable[[RowFetch], RowIs]] = {
    "a digest that is not that of the row": lambda asked: RowIs(row_digest(NEW), (OLD,) if asked.full else (), False),
    "the row of another path": lambda asked: vote(OTHER, full=asked.full),
    "a row without a digest": lambda asked: RowIs(b"", (OLD,), False),
    "no row where one was asked for": lambda asked: RowIs(row_digest(NEW), (), False),
    "a row where only its digest was asked for": lambda asked: vote(NEW, full=not asked.full),
}


@pytest.mark.parametrize("wrong", WRONG_VOTES.values(), ids=WRONG_VOTES)
async def test_an_answer_about_a_row_that_contradicts_itself_is_no_vote(wrong: Callable[[RowFetch], RowIs]) -> None:
    access = Replicas({A: [], B: [NEW], C: [NEW]})
    access.lies[A] = lambda message: wrong(message) if isinstance(message, RowFetch) else None
    assert await read_row(access, Sides(access), "/d/f") == NEW
    assert access.merged == []
    with pytest.raises(RequestFailed) as failed:
        await fetch_row(access, LAYOUT, A, "/d/f", full=True)
    assert failed.value.code is ErrorCode.CORRUPT


async def test_a_row_that_comes_with_a_digest_is_no_vote() -> None:
    access = Replicas({A: [NEW], B: [NEW], C: [NEW]})
    access.lies[B] = lambda message: vote(OLD, full=True)
    with pytest.raises(RequestFailed):
        await fetch_row(access, LAYOUT, B, "/d/f", full=False)


WRONG_PAGES: dict[str, Callable[[ListFetch], ListPage]] = {
    "a digest that is not that of the rows": lambda asked: ListPage(range_digest([row_digest(NEW), row_digest(OTHER)]), "", (NEW,), False),
    "rows out of order": lambda asked: page([OTHER, NEW], "", full=True),
    "a row twice": lambda asked: page([NEW, NEW], "", full=True),
    "a row of another folder": lambda asked: page([row("/f", A), row("/g", A)], "", full=True),
    "a row in front of the range": lambda asked: page([row("/d/a", A), NEW], "", full=True),
    "an end that is not its last row": lambda asked: page([NEW, OTHER], "z", full=True),
    "an end in front of the range": lambda asked: page([], "a", full=True),
}


@pytest.mark.parametrize("wrong", WRONG_PAGES.values(), ids=WRONG_PAGES)
async def test_a_page_that_contradicts_itself_is_no_vote(wrong: Callable[[ListFetch], ListPage]) -> None:
    access = Replicas({A: [], B: [NEW, OTHER], C: [NEW, OTHER]})
    access.lies[A] = lambda message: wrong(message) if isinstance(message, ListFetch) else None
    assert await read_page(access, Sides(access), "/d", "e") == ([NEW, OTHER], "")
    with pytest.raises(RequestFailed) as failed:
        await fetch_page(access, LAYOUT, A, "/d", "e", "", full=True)
    assert failed.value.code is ErrorCode.CORRUPT


@pytest.mark.parametrize("lie", [page([NEW], "", full=True), page([NEW], "f", full=False)], ids=["rows", "another end"])
async def test_a_digest_of_a_range_that_contradicts_itself_is_no_vote(lie: ListPage) -> None:
    access = Replicas({A: [NEW, OTHER], B: [NEW, OTHER], C: [NEW, OTHER]})
    access.lies[B] = lambda message: lie
    with pytest.raises(RequestFailed):
        await fetch_page(access, LAYOUT, B, "/d", "e", "", full=False)
    access.lies[B] = lambda message: lie if isinstance(message, ListFetch) and not message.full else None
    assert await read_page(access, Sides(access), "/d", "e") == ([NEW, OTHER], "")
    assert access.merged == []


async def test_votes_that_differ_are_merged_and_only_those_without_the_merge_are_sent_it() -> None:
    access = Replicas({A: [OLD], B: [NEW], C: [NEW]})
    assert await read_row(access, Sides(access), "/d/f") == NEW
    assert set(access.merged) <= {A, C}
    assert access.merged


def test_what_is_left_behind_ends_with_its_loop() -> None:
    async def leave_behind() -> "weakref.ref[asyncio.Task[NodeId]]":
        asked: list[asyncio.Task[NodeId]] = []

        async def ask(node: NodeId) -> NodeId:
            task = asyncio.current_task()
            assert task is not None
            if node == B:
                asked.append(task)
                await asyncio.get_running_loop().create_future()
            return node

        await collect([B, A], ask, lambda answers: len(answers) == 1, 5.0, finish=True)
        return weakref.ref(asked.pop())

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    left = first.run_until_complete(leave_behind())
    assert left() is not None
    first.close()
    second.run_until_complete(leave_behind())
    second.close()
    gc.collect()
    assert left() is None
