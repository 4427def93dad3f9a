"""A member of the cluster that asks whatever the protocol lets it ask: every request is answered, and nothing stops the node."""

import asyncio
import dataclasses

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peer.errors import LinkLost, RequestFailed
from peer.link import Served
from peer.links import Links
from protocol.errors import CloseCode, ErrorCode
from protocol.hashing import plain_hash
from protocol.identity import NodeId, node_id_of
from protocol.messages import MESSAGES, Answer, Hello, LayoutAnnounce, LinkKind, Request
from protocol.testing.pair import some_hello
from protocol.testing.strategies import messages_of
from sims.network import SimNetwork
from sims.world import PORT, World

FENCED_MOST_OF_THE_TIME = st.sampled_from([0, 1, 1, 1, 2])
"""Stamps around the one that is in force: with any other one a request ends at the fence."""
REQUESTS = [message for message in MESSAGES if issubclass(message, Request)]


class Stranger:
    """A member by its hello, of no cluster, that answers nothing."""

    def __init__(self, world: World, host: str) -> None:
        self.node_id = node_id_of(plain_hash(host.encode()))
        self.links = Links(SimNetwork(world.lan, host, self.node_id), self)

    def hello(self, kind: LinkKind, peer: NodeId) -> Hello:
        return some_hello("stranger", kind, node_id=self.node_id, addresses=())

    def layout_version(self) -> int:
        return 0

    def admit(self, peer: Hello) -> tuple[CloseCode, str] | None:
        return None

    def peer_up(self, peer: Hello) -> None: ...

    def peer_refuses(self, node_id: NodeId) -> None: ...

    def answer_at_once(self, peer: Hello, request: Request) -> Answer | None:
        return None

    async def serve(self, peer: Hello, request: Request, payload: memoryview, deadline: float) -> Served:
        await asyncio.sleep(1000)
        raise AssertionError

    def fail(self, error: BaseException) -> None:
        raise error


@st.composite
def requests(draw: st.DrawFn) -> tuple[Request, bytes]:
    """Draw any valid request and a payload."""
    request = draw(messages_of(draw(st.sampled_from(REQUESTS))))
    if hasattr(request, "stamp"):
        request = dataclasses.replace(request, stamp=draw(FENCED_MOST_OF_THE_TIME))
    return dataclasses.replace(request, deadline_milliseconds=20_000), draw(st.binary(max_size=64))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(requests(), min_size=1, max_size=30), st.booleans())
def test_every_valid_request_is_answered_and_none_stops_the_node(asked, together) -> None:
    async def scenario(world: World) -> None:
        node = await world.start("a", found=True)
        await world.members(1)
        failures = await world.on("stranger#1", lambda: ask_all(world))
        assert not node.failed.done(), node.failed
        assert ErrorCode.INTERNAL not in failures

    async def ask_all(world: World) -> list[ErrorCode]:
        stranger = Stranger(world, "stranger#1")
        target = (await stranger.links.meet(f"a:{PORT}")).node_id
        failures: list[ErrorCode] = []

        async def ask(request: Request, payload: bytes) -> None:
            try:
                await stranger.links.request(target, request, payload if request.PAYLOAD else b"", timeout_seconds=30.0)
            except RequestFailed as failed:
                failures.append(failed.code)
            except (LinkLost, TimeoutError):
                pass

        if together:
            await asyncio.gather(*(ask(*each) for each in asked))
        else:
            for each in asked:
                await ask(*each)
        return failures

    World(1).run(scenario)


def test_announcements_without_end_are_heard_one_at_a_time() -> None:
    async def scenario(world: World) -> None:
        node = await world.start("a", found=True)
        await world.members(1)
        idle = len(node._tasks)
        await world.on("stranger#1", lambda: announce(world, node.layouts.current.cluster_id))
        assert len(node._tasks) <= idle + 5
        assert not node.failed.done(), node.failed

    async def announce(world: World, cluster_id: bytes) -> None:
        stranger = Stranger(world, "stranger#1")
        target = (await stranger.links.meet(f"a:{PORT}")).node_id
        for version in range(2, 302):  # of layouts that nobody has: the node asks for each, and the stranger does not answer
            await stranger.links.request(target, LayoutAnnounce(1000, cluster_id, version, bytes(16)), timeout_seconds=30.0)

    World(1).run(scenario)
