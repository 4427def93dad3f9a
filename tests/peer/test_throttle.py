"""In any second no more begins to move than the limit, whatever the sizes; and little of the limit is given away."""

import asyncio
from itertools import pairwise
from random import Random

import pytest

from peer.care.throttle import Throttle
from sims.loop import SimLoop

KIB = 1024
LIMIT = 40_000_000


def moves(seed: int, sizes: list[int], limit: int = LIMIT) -> list[tuple[float, int]]:
    """Return when each size may begin to move: some are asked for at once, others later."""
    begun: list[tuple[float, int]] = []

    async def story() -> None:
        throttle, choice = Throttle(limit), Random(seed)

        async def move(size: int) -> None:
            await asyncio.sleep(choice.choice((0.0, 0.0, choice.uniform(0.0, 3.0))))
            assert await throttle.take(size)
            begun.append((asyncio.get_running_loop().time(), size))

        await asyncio.gather(*map(move, sizes))

    loop = SimLoop(Random(seed))
    try:
        loop.run(story(), seconds_max=1000.0)
    finally:
        loop.close()
    return sorted(begun)


@pytest.mark.parametrize("seed", range(5))
def test_no_second_has_more_than_the_limit_however_sizes_mix(seed: int) -> None:
    choice = Random(seed)
    begun = moves(seed, [choice.choice((5 * KIB, 256 * KIB, 1024 * KIB, 4096 * KIB)) for _ in range(300)])
    assert len(begun) == 300
    for begin, _ in begun:
        assert sum(size for at, size in begun if begin <= at < begin + 1.0) <= LIMIT


def test_of_the_limit_little_is_given_away() -> None:
    begun = moves(0, 400 * [1024 * KIB])
    assert sum(size for _, size in begun) / begun[-1][0] > 0.95 * LIMIT


def test_a_chunk_that_is_larger_than_the_limit_moves_alone() -> None:
    begun = moves(0, [4096 * KIB] * 5, limit=1_000_000)
    assert all(later - earlier >= 4.0 for (earlier, _), (later, _) in pairwise(begun))


def test_who_would_have_to_wait_for_too_long_is_told_at_once_and_costs_nobody_anything() -> None:
    async def story() -> None:
        loop, throttle = asyncio.get_running_loop(), Throttle(LIMIT)
        waiting = [asyncio.ensure_future(throttle.take(1024 * KIB)) for _ in range(100)]
        await asyncio.sleep(0.0)
        before = loop.time()
        for _ in range(1000):
            assert not await throttle.take(1024 * KIB, before + 2.0)
        assert loop.time() == before
        await asyncio.gather(*waiting)
        assert loop.time() < 3.0

    loop = SimLoop(Random(1))
    try:
        loop.run(story(), seconds_max=1000.0)
    finally:
        loop.close()
