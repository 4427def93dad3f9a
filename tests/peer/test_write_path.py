"""The writing half of a put, where chunks fail."""

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

from peer.errors import LinkLost, Unavailable
from peer.files.write_path import store_content
from protocol.identity import ClusterId, NodeId
from protocol.layout import Member, genesis
from protocol.testing.pair import some_node_id
from sims.loop import SimLoop


class DeadCluster:
    """Access to a node that never answers."""

    def __init__(self) -> None:
        self.layout = genesis(ClusterId(bytes(16)), Member(some_node_id("gone"), "gone", "", 1, ()))
        self.compute = self

    async def request(self, *_: Any, **__: Any) -> Any:
        await asyncio.sleep(0.1)
        raise LinkLost("gone")

    def preferred(self, nodes: Sequence[NodeId]) -> list[NodeId]:
        return list(nodes)

    async def run(self, work: Callable[[], Any]) -> Any:
        return work()


def test_a_put_of_which_several_chunks_fail_says_so_once() -> None:
    async def story() -> None:
        data = Random(1).randbytes(3_000_000)
        position = 0

        async def read(count: int) -> bytes:
            nonlocal position
            position += count
            return data[position - count : position]

        with pytest.raises(Unavailable):
            await store_content(DeadCluster(), read, len(data), lambda count: None, asyncio.Semaphore(32))

    loop = SimLoop(Random(1))
    loop.run(story(), seconds_max=60.0)
    loop.settle()
    assert not loop.failures, loop.failures
    loop.close()
