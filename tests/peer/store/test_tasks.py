"""Work whose caller has gone comes to its end, and what it raises is heard of when it is a bug, and only then."""

import asyncio
from random import Random

import pytest
from store_machines import Machine, row_of, run

from peer.store.rows import RowCorrupt, RowStore
from peer.store.tasks import to_the_end
from sims.loop import SimLoop


async def abandoned(error: Exception) -> list[str]:
    """Have work fail whose caller was cancelled before; return what the loop heard of it."""

    async def work() -> None:
        await asyncio.sleep(1.0)
        raise error

    task = asyncio.get_running_loop().create_task(work())
    caller = asyncio.get_running_loop().create_task(to_the_end(task, RowCorrupt))
    await asyncio.sleep(0.5)
    caller.cancel()
    await asyncio.sleep(1.0)
    assert caller.cancelled()
    assert task.done()
    del task
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    loop.settle()
    heard, loop.failures[:] = [repr(failure["exception"]) for failure in loop.failures], []
    return heard


def test_what_was_foreseen_concerns_nobody() -> None:
    assert run(lambda: abandoned(RowCorrupt("/f", "rotten"))) == []


def test_a_bug_is_heard_of() -> None:
    assert run(lambda: abandoned(ZeroDivisionError())) == ["ZeroDivisionError()"]


def test_a_result_and_an_error_reach_who_waits() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        assert await to_the_end(loop.create_task(asyncio.sleep(0, 7))) == 7

        async def fail() -> None:
            raise RowCorrupt("/f", "rotten")

        with pytest.raises(RowCorrupt):
            await to_the_end(loop.create_task(fail()), RowCorrupt)

    run(story)


def test_a_change_of_a_damaged_row_whose_caller_went_away_is_not_reported_as_a_bug() -> None:
    async def story() -> None:
        machine = Machine(1)
        store = RowStore(await machine.storage.open_kv("ns"))
        await store.open()
        await store.change("/f", lambda before: row_of("/f", before=before))
        machine.storage.rot_row("/f", Random(1))
        for _ in range(40):
            caller = asyncio.get_running_loop().create_task(store.change("/f", lambda before: before))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            caller.cancel()
            await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        loop.settle()
        await store.close()

    run(story)
