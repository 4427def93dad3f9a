"""Work off the loop: results, errors, cancellation, and threads that end."""

import asyncio
import gc
import threading
import time

import pytest

from peer.real.threads import Threads


async def test_work_is_done_elsewhere_and_its_result_comes_back():
    threads = Threads(2, "test")
    names = await asyncio.gather(*(threads.run(lambda: threading.current_thread().name) for _ in range(100)))
    assert {name.rpartition(" ")[0] for name in names} == {"test"}
    threads.close()


async def test_an_error_is_raised_where_the_work_was_asked_for_and_the_thread_goes_on():
    threads = Threads(1, "test")

    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await threads.run(fail)
    assert await threads.run(lambda: 1) == 1
    threads.close()


async def test_who_is_cancelled_does_not_disturb_the_others():
    threads = Threads(1, "test")
    gate = threading.Event()
    waiting = asyncio.create_task(threads.run(gate.wait))
    await asyncio.sleep(0)
    waiting.cancel()
    gate.set()
    assert await threads.run(lambda: 2) == 2
    assert waiting.cancelled()
    threads.close()


async def test_close_finishes_what_was_asked_for():
    threads = Threads(1, "test")
    done = []
    task = asyncio.create_task(threads.run(lambda: (time.sleep(0.05), done.append(1))))
    await asyncio.sleep(0)
    threads.close()
    assert done == [1]
    await task


async def test_the_threads_end_with_their_owner():
    threads = Threads(3, "forgotten")
    await threads.run(lambda: None)
    del threads
    gc.collect()
    for _ in range(100):
        if not any(thread.name.startswith("forgotten") for thread in threading.enumerate()):
            return
        await asyncio.sleep(0.02)
    pytest.fail("a thread is still there")
