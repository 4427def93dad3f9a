"""Strict quorums over the replicas of a partition: asking, comparing, repairing before answering.

A majority of *each* replica set is needed (`Layout.replica_sets`): of O and of W while a partition moves, never of their union.
When votes differ, the merge of all of them is written back to a majority of each set *before* it is returned, so that no later
reader can see less (monotone reads). A replica that answers CORRUPT, or nothing, or what contradicts itself or the question, has not voted.
Of two replicas one is enough to read, if the other one cannot be reached and is known to have the same (`peer.files.confirmed`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from peer.errors import LinkLost, RequestFailed, Unavailable, Unreachable
from peer.files.access import RETRY_SECONDS, TRY_SECONDS, WAIT_SECONDS, Access, milliseconds
from peer.files.sides import LOOK_SECONDS, Sides
from protocol import limits
from protocol.errors import ErrorCode
from protocol.identity import NodeId
from protocol.layout import Layout
from protocol.messages import Done, ListFetch, ListPage, RowFetch, RowIs, RowMerge
from protocol.paths import folder_partition, name_of, parent_of, row_partition
from protocol.rows import range_digest, row_bytes, row_digest
from protocol.versions import Row, empty_row, merge

T = TypeVar("T")
OnWait = Callable[[str], None]
"""Is told in one line what is waited for."""

HEDGE_SECONDS = 0.25
"""After so long without a majority those are asked as well that were spared at first."""
QUORUM_SECONDS = 6.0
"""After so long without a majority a read gives up: nothing was changed."""
JOINT_SECONDS = 15.0
"""The same while the layout is joint: if its new owners are dead it is taken back before that (peer.config.ABORT_JOINT_SECONDS)."""


class StaleLayout(Exception):
    """A replica serves another stamp: catch up to `version`, then try again."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


def has_majority(sets: Sequence[Sequence[NodeId]], voters: Mapping[NodeId, object]) -> bool:
    """Return whether `voters` contain a majority of each set."""
    return all(sum(node in voters for node in owners) >= len(owners) // 2 + 1 for owners in sets)


def fewest_for_majority(sets: Sequence[Sequence[NodeId]], nodes: Sequence[NodeId]) -> int:
    """Return how many of `nodes`, from the first on, contain a majority of each set; all if no number does."""
    asked: dict[NodeId, None] = {}
    for node in nodes:
        asked[node] = None
        if has_majority(sets, asked):
            break
    return len(asked)


async def collect(
    nodes: Sequence[NodeId],
    ask: Callable[[NodeId], Coroutine[object, object, T]],
    enough: Callable[[Mapping[NodeId, T]], bool],
    seconds: float,
    *,
    at_first: int | None = None,
    finish: bool = False,
) -> tuple[dict[NodeId, T], dict[NodeId, Exception]]:
    """Ask `nodes` and return (answers, failures) as soon as the answers are enough, all have ended, or time is up.

    All are asked at once, or with `at_first` so many; then another one for each that fails, and the rest after HEDGE_SECONDS.
    What is still under way at the end is cancelled, or with `finish` goes on by itself: a copy more does no harm.
    Failures are LinkLost, RequestFailed and TimeoutError; anything else is raised.
    """
    loop = asyncio.get_running_loop()
    answers: dict[NodeId, T] = {}
    failures: dict[NodeId, Exception] = {}
    ended: asyncio.Queue[asyncio.Task[T] | None] = asyncio.Queue()
    tasks: dict[asyncio.Task[T], NodeId] = {}
    waiting = list(reversed(nodes))

    def start(count: int) -> None:
        for _ in range(min(count, len(waiting))):
            node = waiting.pop()
            task = loop.create_task(ask(node))
            tasks[task] = node
            task.add_done_callback(ended.put_nowait)

    start(len(waiting) if at_first is None else at_first)
    timers = [loop.call_later(seconds, ended.put_nowait, None)]
    if waiting:
        timers.append(loop.call_later(HEDGE_SECONDS, start, len(waiting)))
    try:
        while len(answers) + len(failures) < len(nodes) and not (answers and enough(answers)):
            task = await ended.get()
            if task is None:
                break
            try:
                answers[tasks[task]] = task.result()
            except (LinkLost, RequestFailed, TimeoutError) as error:
                failures[tasks[task]] = error
                start(1)
    finally:
        for timer in timers:
            timer.cancel()
        for task in tasks:
            if not task.done() and not finish:
                task.cancel()
            if not task.done() or (tasks[task] not in answers and tasks[task] not in failures):
                _let_linger(loop, task)
    for node in nodes:
        if node not in answers and node not in failures:
            failures[node] = TimeoutError("no answer in time")
    return answers, failures


_lingering: dict[asyncio.AbstractEventLoop, set[asyncio.Task[Any]]] = {}
"""What `collect` has left behind, for each loop; each ends by its own timeout, or with its loop."""


def _let_linger(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[Any]") -> None:
    """Keep a task that nobody waits for any more alive until it has ended."""
    if loop not in _lingering:
        for ended in [each for each in _lingering if each.is_closed()]:
            del _lingering[ended]  # what a machine without power has left behind never ends
        _lingering[loop] = set()
    _lingering[loop].add(task)
    task.add_done_callback(_forget)


def _forget(task: asyncio.Task[Any]) -> None:
    _lingering.get(task.get_loop(), set()).discard(task)
    if not task.cancelled():
        task.exception()  # nobody waits for it any more


def _nobody_watches(text: str) -> None:
    """Nobody is told what is waited for."""


async def read_row(access: Access, sides: Sides, path: str, on_wait: OnWait = _nobody_watches, *, alone: bool = False) -> Row:
    """Return the row of `path` as a majority of each set knows it; empty if it was never written.

    With `alone` one of two replicas is enough, where the other one cannot be reached and it knows that one to have stored the same
    (`peer.files.confirmed`). Whoever is about to write needs both: a write that only one can take is not begun.

    Raises: Unavailable.
    """
    return await until_available(access, sides, row_partition(path), lambda layout: _read_row(access, layout, path, alone), on_wait)


async def read_page(
    access: Access, sides: Sides, folder: str, after: str, on_wait: OnWait = _nobody_watches, *, alone: bool = False
) -> tuple[list[Row], str]:
    """Return rows of `folder` behind name `after`, in order, and the name behind which to go on ("" at the end). `alone`: as in `read_row`.

    Raises: Unavailable.
    """
    partition = folder_partition(folder)
    return await until_available(access, sides, partition, lambda layout: _read_page(access, layout, folder, after, alone), on_wait)


async def fetch_row(access: Access, layout: Layout, node: NodeId, path: str, *, full: bool) -> RowIs:
    """Return the vote of `node` on the row of `path`. What contradicts itself or the question is none.

    Raises: LinkLost, RequestFailed, TimeoutError.
    """
    partition = row_partition(path)
    message = RowFetch(milliseconds(TRY_SECONDS), partition, layout.cfg(partition), path, full)
    reply = await access.request(node, message, timeout_seconds=TRY_SECONDS)
    assert isinstance(reply.message, RowIs)
    _refuse(_row_fault(message, reply.message))
    return reply.message


async def fetch_page(access: Access, layout: Layout, node: NodeId, folder: str, after: str, until: str, *, full: bool) -> ListPage:
    """Return the vote of `node` on a range of `folder`. What contradicts itself or the question is none.

    Raises: LinkLost, RequestFailed, TimeoutError.
    """
    partition = folder_partition(folder)
    message = ListFetch(milliseconds(TRY_SECONDS), partition, layout.cfg(partition), folder, after, until, full)
    reply = await access.request(node, message, timeout_seconds=TRY_SECONDS)
    assert isinstance(reply.message, ListPage)
    _refuse(_page_fault(message, reply.message))
    return reply.message


async def until_available(
    access: Access, sides: Sides, partition: int, attempt: Callable[[Layout], Awaitable[T]], on_wait: OnWait
) -> T:
    """Repeat a harmless `attempt` until it succeeds, with the layout caught up: for QUORUM_SECONDS at most, JOINT_SECONDS if it is joint.

    Not repeated when so many replicas are gone (`peer.files.sides`) that no majority is left.
    `on_wait` is told what is waited for, once that takes WAIT_SECONDS.

    Raises: Unavailable; the text says what is reached from here, and what follows.
    """
    loop = asyncio.get_running_loop()
    began_at = look_at = loop.time()
    is_told = False
    while True:
        try:
            try:
                return await attempt(access.layout)
            except StaleLayout as stale:
                await access.catch_up(stale.version)
        except Unavailable as error:
            layout, now = access.layout, loop.time()
            is_over = now - began_at >= (JOINT_SECONDS if layout.is_joint else QUORUM_SECONDS)
            if is_over or now >= look_at:
                look_at = now + LOOK_SECONDS
                side = await sides.look()
                perhaps = {node: None for node in layout.members if node not in side.gone}
                if is_over or not has_majority([layout.old_set(partition)], perhaps):
                    raise Unavailable(f"{error}: {side.meaning()}") from None
                if not is_told and loop.time() - began_at >= WAIT_SECONDS:
                    is_told = True
                    on_wait(side.waiting(is_joint=layout.is_joint))
            await asyncio.sleep(RETRY_SECONDS)


def raise_if_stale(layout: Layout, failures: Mapping[NodeId, Exception]) -> None:
    """Raise StaleLayout when a replica knows a newer layout than `layout`."""
    newest = max(
        (
            error.layout_version
            for error in failures.values()
            if isinstance(error, RequestFailed) and error.code in (ErrorCode.STALE, ErrorCode.NOT_REPLICA)
        ),
        default=0,
    )
    if newest > layout.version:
        raise StaleLayout(newest)


def unavailable(layout: Layout, what: str, failures: Mapping[NodeId, Exception]) -> Unavailable:
    """Return the error that says which replicas did not answer, and why."""
    reasons = ", ".join(
        f"{layout.members[node].name}: {str(error) or 'no answer'}" for node, error in sorted(failures.items()) if node in layout.members
    )
    return Unavailable(f"{what}: too few of its replicas answer ({reasons})")


def _refuse(fault: str | None) -> None:
    """Make of an answer with a `fault` what a damaged row is: no vote.

    Raises: RequestFailed.
    """
    if fault is not None:
        raise RequestFailed(ErrorCode.CORRUPT, f"it answers with {fault}")


def _row_fault(asked: RowFetch, answer: RowIs) -> str | None:
    if bool(answer.rows) != (asked.full and bool(answer.digest)):
        return "a row without a digest, or the reverse" if asked.full else "a row where only its digest was asked for"
    if any(row.path != asked.path for row in answer.rows):
        return "the row of another path"
    if any(row_digest(row) != answer.digest for row in answer.rows):
        return "a digest that is not that of the row"
    return None


def _page_fault(asked: ListFetch, answer: ListPage) -> str | None:
    if not asked.full:
        return "a digest of another range than was asked for" if answer.rows or answer.last != asked.until else None
    if any(parent_of(row.path) != asked.folder for row in answer.rows):
        return "a row of another folder"
    names = [name_of(row.path) for row in answer.rows]
    in_order = [name.encode() for name in (asked.after, *names)]
    if any(earlier >= later for earlier, later in pairwise(in_order)) or (asked.until and in_order[-1] > asked.until.encode()):
        return "rows out of order, or out of the range that was asked for"
    if answer.last not in (asked.until, *names[-1:]):
        return "an end that is neither that of the range nor the last row"
    if range_digest(map(row_digest, answer.rows)) != answer.digest:
        return "a digest that is not that of the rows"
    return None


def _two(sets: Sequence[Sequence[NodeId]]) -> bool:
    """Return whether there are two replicas, of which one may answer alone."""
    return len(sets) == 1 and len(sets[0]) == 2


def _raise_if_just_refused(access: Access, node: NodeId) -> None:
    """Raise Unreachable for one of two that could not be reached a moment ago: that was the direct try."""
    if access.recently_refused(node):
        raise Unreachable("it could not be reached a moment ago")


def _alone(votes: Mapping[NodeId, RowIs | ListPage], failures: dict[NodeId, Exception]) -> bool:
    """Return whether the vote of one of two replicas is enough; if it lacks only that the other has the same, note that as a failure."""
    if len(votes) != 1 or not all(isinstance(error, LinkLost | TimeoutError) for error in failures.values()):
        return False
    ((node, vote),) = votes.items()
    if not vote.confirmed:
        failures[node] = RequestFailed(ErrorCode.UNAVAILABLE, "it is not known whether the other one has what this one has")
    return vote.confirmed


async def _read_row(access: Access, layout: Layout, path: str, alone: bool) -> Row:
    partition = row_partition(path)
    sets = layout.replica_sets(partition)
    nodes = access.preferred(layout.replicas(partition))
    alone = alone and _two(sets)

    async def fetch(node: NodeId, *, full: bool) -> RowIs:
        if alone:
            _raise_if_just_refused(access, node)
        return await fetch_row(access, layout, node, path, full=full)

    votes, failures = await collect(
        nodes,
        lambda node: fetch(node, full=alone or node == nodes[0]),
        lambda answers: has_majority(sets, answers),
        TRY_SECONDS,
        at_first=fewest_for_majority(sets, nodes),
    )
    if not has_majority(sets, votes):
        raise_if_stale(layout, failures)
        if not (alone and _alone(votes, failures)):
            raise unavailable(layout, path, failures)
        return next((row for vote in votes.values() for row in vote.rows), empty_row(path))
    digests = {node: vote.digest for node, vote in votes.items()}
    rows = {vote.digest: vote.rows[0] for vote in votes.values() if vote.rows}
    missing = {digest: node for node, digest in sorted(digests.items()) if digest and digest not in rows}
    if missing:
        fetched, failures = await collect(
            sorted(missing.values()),
            lambda node: fetch(node, full=True),
            lambda answers: len(answers) == len(missing),
            TRY_SECONDS,
        )
        if len(fetched) < len(missing):
            raise_if_stale(layout, failures)
            raise unavailable(layout, path, failures)
        for node, vote in fetched.items():
            digests[node] = vote.digest
            if vote.rows:
                rows[vote.digest] = vote.rows[0]
    result = empty_row(path)
    for digest in sorted(rows):
        result = merge(result, rows[digest])
    if rows:
        wanted = row_digest(result)
        confirmed = {node: None for node, digest in digests.items() if digest == wanted}
        await _write_back(access, layout, partition, [result], confirmed)
    return result


async def _read_page(access: Access, layout: Layout, folder: str, after: str, alone: bool) -> tuple[list[Row], str]:
    partition = folder_partition(folder)
    sets = layout.replica_sets(partition)
    nodes = access.preferred(layout.replicas(partition))
    alone = alone and _two(sets)

    async def fetch(node: NodeId, begin: str, until: str, *, full: bool) -> ListPage:
        if alone:
            _raise_if_just_refused(access, node)
        return await fetch_page(access, layout, node, folder, begin, until, full=full)

    async def whole_range(node: NodeId, until: str) -> list[Row]:
        rows: list[Row] = []
        begin = after
        while True:
            page = await fetch(node, begin, until, full=True)
            rows.extend(page.rows)
            if page.last == until:
                return rows
            begin = page.last

    failures: dict[NodeId, Exception] = {}
    for first in nodes:
        try:
            page = await fetch(first, after, "", full=True)
            break
        except (LinkLost, RequestFailed, TimeoutError) as error:
            failures[first] = error
    else:
        raise_if_stale(layout, failures)
        raise unavailable(layout, folder, failures)
    until = page.last
    others = [node for node in nodes if node != first]
    votes, more_failures = await collect(
        others,
        lambda node: fetch(node, after, until, full=False),
        lambda answers: has_majority(sets, {first: None, **answers}),
        TRY_SECONDS,
        at_first=fewest_for_majority(sets, [first, *others]) - 1,
    )
    if not has_majority(sets, {first: None, **votes}):
        raise_if_stale(layout, more_failures)
        if not (alone and _alone({first: page, **votes}, more_failures)):
            raise unavailable(layout, folder, more_failures)
    different = [node for node in votes if votes[node].digest != page.digest]
    rows = {row.path: row for row in page.rows}
    if not different:
        return list(page.rows), until
    states, failures = await collect(
        different, lambda node: whole_range(node, until), lambda answers: len(answers) == len(different), 2 * TRY_SECONDS
    )
    if len(states) < len(different):
        raise_if_stale(layout, failures)
        raise unavailable(layout, folder, failures)
    for node in sorted(states):
        for row in states[node]:
            rows[row.path] = merge(rows[row.path], row) if row.path in rows else row
    merged = [rows[path] for path in sorted(rows, key=lambda path: name_of(path).encode())]
    known = {node: {row.path: row for row in states[node]} for node in states}
    known[first] = {row.path: row for row in page.rows}
    differing = [row for row in merged if any(state.get(row.path) != row for state in known.values())]
    await _write_back(access, layout, partition, differing, {})
    return merged, until


async def _write_back(
    access: Access, layout: Layout, partition: int, rows: Sequence[Row], confirmed: Mapping[NodeId, None]
) -> None:
    """Bring `rows` to a majority of each set, `confirmed` replicas having them already.

    Raises: Unavailable, StaleLayout.
    """
    sets = layout.replica_sets(partition)
    if not rows or has_majority(sets, confirmed):
        return
    for batch in batches(rows):
        message = RowMerge(milliseconds(TRY_SECONDS), partition, layout.cfg(partition), tuple(batch))

        async def send(node: NodeId, message: RowMerge = message) -> None:
            reply = await access.request(node, message, timeout_seconds=TRY_SECONDS)
            assert isinstance(reply.message, Done)

        nodes = [node for node in layout.replicas(partition) if node not in confirmed]
        done, failures = await collect(
            nodes, send, lambda answers: has_majority(sets, {**confirmed, **answers}), TRY_SECONDS
        )
        if not has_majority(sets, {**confirmed, **done}):
            raise_if_stale(layout, failures)
            raise unavailable(layout, rows[0].path, failures)


def batches(rows: Sequence[Row]) -> list[list[Row]]:
    """Split `rows` into lists that fit one message each."""
    result: list[list[Row]] = [[]]
    size = 0
    for row in rows:
        count = len(row_bytes(row))
        if result[-1] and (size + count > limits.PAGE_BYTES_MAX or len(result[-1]) >= limits.ROWS_PER_MESSAGE_MAX):
            result.append([])
            size = 0
        result[-1].append(row)
        size += count
    return result
