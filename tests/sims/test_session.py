"""The node that ships answers the client of the recorded session (`tests/data/wire/session.json`) with the very answers of the record."""

import json
from pathlib import Path

import pytest

from peer.files.operations import Operations
from peer.real.faults import NoFaults
from peer.seams import ClientEnv
from peer.session import Session
from protocol.codec import decode_header
from protocol.framing import FrameReader
from protocol.hashing import plain_hash
from protocol.identity import NodeId, node_id_of
from protocol.layout import Layout
from protocol.limits import PARTITIONS
from protocol.messages import Answer, ChunkData, ChunkGet, LayoutIs, LinkKind, Request, RowFetch, RowIs
from sims.entropy import SimEntropy
from sims.faults import SimCompute
from sims.network import SimNetwork
from sims.world import PORT, World

SESSION = json.loads((Path(__file__).parents[1] / "data" / "wire" / "session.json").read_text(encoding="utf-8"))
HOST = "reader#1"


def exchanges() -> list[tuple[Request, Answer, bytes]]:
    """Return what was asked, what was answered, and the payload of that."""
    asked: dict[tuple[int, int], Request] = {}
    result = []
    for entry in SESSION["frames"]:
        reader = FrameReader(LinkKind[entry["kind"].upper()], lambda header, size: True)
        (frame,) = reader.receive(bytes.fromhex(entry["frame"]))
        message, request_id = decode_header(frame.header)
        if isinstance(message, Request):
            asked[entry["link"], request_id] = message
        elif isinstance(message, Answer):
            result.append((asked[entry["link"], request_id], message, bytes(frame.payload)))
    return result


def test_a_shipped_node_in_the_state_of_the_record_answers_as_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    ada = NodeId(bytes.fromhex(SESSION["members"][0]["node_id"]))
    monkeypatch.setattr("sims.world.node_id_of", lambda public_key: ada)
    exchanged = exchanges()
    (record,) = (answer.record for _, answer, _ in exchanged if isinstance(answer, LayoutIs))
    read = [each for each in exchanged if isinstance(each[1], LayoutIs | RowIs | ChunkData)]

    async def scenario(world: World) -> None:
        node = await world.start("ada")
        layout = Layout.from_bytes(record)
        await node.system.save_layout(layout.version, layout.data, range(PARTITIONS))
        await node.layouts.load()
        for request, answer, payload in read:
            if isinstance(answer, RowIs) and answer.rows:
                await node.rows.merge(answer.rows)
            if isinstance(request, ChunkGet):
                await node.chunks.put(request.chunk_id, payload)
        answers = await world.on(HOST, lambda: ask_all(world))
        assert answers == [(answer, payload) for _, answer, payload in read]

    async def ask_all(world: World) -> list[tuple[Answer, bytes]]:
        network = SimNetwork(world.lan, HOST, node_id_of(plain_hash(HOST.encode())))
        session = Session(ClientEnv(network, world.machines["ada"].clock, SimEntropy(HOST), NoFaults(), SimCompute()), "reader")
        session.links.learn_addresses(ada, [f"ada:{PORT}"])
        answers = []
        for request, _, _ in read:
            reply = await session.request(ada, request, timeout_seconds=5.0)
            answers.append((reply.message, bytes(reply.payload)))
            reply.release()
        return answers

    assert sum(isinstance(request, RowFetch) for request, _, _ in read) == 6
    World(1).run(scenario)


def test_a_session_that_learned_the_layout_of_a_node_that_was_catching_up_learns_what_came_after() -> None:
    """The only member that it knows has gone for good, so nobody whom it asks can tell it that its layout is old."""

    async def story(world: World) -> None:
        await world.found("abcd")
        founder, other = (world.machine(name).node for name in "ab")
        assert founder is not None
        assert other is not None
        session = await world.session(HOST, "b")
        client = Operations(session)
        await world.on(HOST, lambda: client.put_bytes("/f", b"x"))
        oldest = await other.system.layout(1)
        assert oldest is not None
        await world.stop("a")
        session._layout = Layout.from_bytes(oldest)
        assert list(session.layout.members) == [founder.node_id]
        assert await world.on(HOST, lambda: client.get_bytes("/f")) == b"x"
        assert session.layout.version == other.layout_version()

    World(1).run(story)
