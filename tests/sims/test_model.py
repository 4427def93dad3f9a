"""The node that ships, alone in a simulated world, says only what the model of a node allows: power cuts and foreign owners included."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from peer.errors import RequestFailed
from peer.files.row_service import RowService
from peer.real.faults import NoFaults
from peer.seams import ClientEnv
from peer.session import Session
from protocol.hashing import plain_hash
from protocol.identity import ClusterId, node_id_of
from protocol.layout import Layout, Member, complete, genesis
from protocol.limits import PARTITIONS
from protocol.messages import Answer, Failure, Request
from protocol.paths import folder_partition
from protocol.testing.machine import FOLDERS, NodeMachine
from protocol.testing.model import WrongAnswer
from protocol.testing.pair import some_hello, some_node_id
from sims.entropy import SimEntropy
from sims.faults import SimCompute
from sims.network import SimNetwork
from sims.world import PORT, SECONDS_MAX, World

SOME = settings(max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
HOST = "tester#1"


class SimulatedNode(NodeMachine):
    """Asks a node of a world of its own, through links as they ship."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(1)
        self._do(self._start)

    def ask(self, request: Request, payload: bytes = b"") -> tuple[Answer, bytes]:
        return self._do(lambda: self.world.on(HOST, lambda: self._ask_node(request, payload)))

    def restart(self) -> None:
        async def lose_power() -> None:
            node_id = self.world.node("a").node_id
            self.world.crash("a")
            await self.world.restart("a")
            while self.session.links.peer(node_id) is not None:  # the news of the crash may come later than the node is back
                await asyncio.sleep(0.01)

        self._do(lose_power)

    def teardown(self) -> None:
        failures = self.world.loop.failures
        self.world.loop.close()
        assert not failures, failures

    async def _start(self) -> None:
        await self.world.start("a", found=True)
        await self.world.members(1)
        self._connect()

    def _connect(self) -> None:
        network = SimNetwork(self.world.lan, HOST, node_id_of(plain_hash(HOST.encode())))
        self.session = Session(ClientEnv(network, self.world.machines["a"].clock, SimEntropy(HOST), NoFaults(), SimCompute()), "tester")

    async def _ask_node(self, request: Request, payload: bytes) -> tuple[Answer, bytes]:
        node_id = self.world.node("a").node_id
        self.session.links.learn_addresses(node_id, [f"a:{PORT}"])
        try:
            reply = await self.session.request(node_id, request, payload, timeout_seconds=30.0)
        except RequestFailed as failed:
            return Failure(failed.code, failed.reason, failed.layout_version), b""
        data = bytes(reply.payload)
        reply.release()
        return reply.message, data

    def _do(self, work: Callable[[], Awaitable[object]]):
        async def run() -> object:
            return await work()

        return self.world.loop.run(run(), seconds_max=self.world.loop.time() + SECONDS_MAX)


class NodeAmongOthers(SimulatedNode):
    """A node in a cluster whose founder is never there: it owns one of the two folders alone, the other one not at all."""

    joint = False

    async def _start(self) -> None:
        node = await self.world.start("a")
        for layout in self._chain(node._own_member()):
            assert await node.layouts.adopt(layout)
        self._connect()

    def restart(self) -> None:
        super().restart()
        assert self.world.node("a").lives.admit(some_hello("founder")) is None  # who was a member counts once it has met a majority

    def _chain(self, member: Member) -> list[Layout]:
        founder = Member(some_node_id("founder"), "founder", "", 1, ("192.0.2.1:7400",))
        members = tuple(sorted((founder, member), key=lambda each: each.node_id))
        first = genesis(ClusterId(bytes(range(16))), founder)
        theirs, ours = bytes([members.index(founder)]), bytes([members.index(member)])
        wanted = bytearray(theirs * PARTITIONS)
        wanted[folder_partition(FOLDERS[0])] = ours[0]
        moving = dataclasses.replace(
            first.record, version=2, parent=first.digest, members=members, old_table=theirs * PARTITIONS, new_columns=1,
            new_table=bytes(wanted), cfg=b"".join((1 + (owner == ours[0])).to_bytes(4, "big") for owner in wanted),
        )  # fmt: skip
        second = Layout(moving)
        return [first, second] if self.joint else [first, second, complete(second)]


class NodeWhileOthersMove(NodeAmongOthers):
    """The same while the first folder is still on its way to the node: nothing that it coordinates gets a majority of both sets."""

    joint = True


TestNodeAlone = SimulatedNode.TestCase
TestNodeAmongOthers = NodeAmongOthers.TestCase
TestNodeWhileOthersMove = NodeWhileOthersMove.TestCase
TestNodeAlone.settings = TestNodeAmongOthers.settings = TestNodeWhileOthersMove.settings = SOME


def test_a_shipped_node_without_its_fence_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RowService, "_check", lambda service, partition, stamp: service._access.layout)
    always_the_same = settings(SOME, max_examples=500, derandomize=True, database=None, phases=[Phase.generate])
    with pytest.raises(WrongAnswer):
        run_state_machine_as_test(SimulatedNode, settings=always_the_same)
