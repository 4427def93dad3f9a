"""The model of a node agrees with itself, and catches every node that is wrong in one way."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from protocol.errors import ErrorCode
from protocol.identity import ClusterId
from protocol.layout import Member, genesis
from protocol.messages import (
    Answer,
    ChunkGet,
    ChunkPut,
    ChunksHave,
    ChunksHeld,
    Failure,
    LayoutGet,
    LayoutIs,
    ListFetch,
    ListPage,
    PeerInfo,
    Published,
    Request,
    RowFetch,
    RowIs,
)
from protocol.rows import range_digest, row_digest
from protocol.testing.machine import NodeMachine
from protocol.testing.model import NodeModel, WrongAnswer
from protocol.testing.pair import some_node_id
from protocol.versions import Dot, Row, empty_row, published

FEW, MANY = (
    settings(
        max_examples=examples, stateful_step_count=30, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate], report_multiple_bugs=False,
    )
    for examples in (100, 1500)
)  # fmt: skip
"""Always the same examples, so that a mutant is not caught on some days only; nothing is shrunk, nobody reads it."""


class RightNode(NodeModel):
    """A correct node in memory."""

    def __init__(self) -> None:
        info = PeerInfo(some_node_id("model"), "model", ("192.0.2.1:7400",))
        member = Member(info.node_id, info.name, "", 1, info.addresses)
        super().__init__(info, genesis(ClusterId(bytes(range(16))), member))
        self.milliseconds = 1_700_000_000_000

    def restart(self) -> None:
        """A model forgets nothing."""


class Unfenced(RightNode):
    """Serves whatever stamp is sent."""

    def _fence(self, partition, stamp):
        return frozenset()


class StaleForEverything(RightNode):
    """Answers STALE also where it should catch up and cannot."""

    def _fence(self, partition, stamp):
        return frozenset({ErrorCode.STALE}) if super()._fence(partition, stamp) else frozenset()


class OverwritesOnMerge(RightNode):
    """Takes what arrives in the place of what it has."""

    def _merged(self, request):
        return {row.path: row for row in request.rows}


class MergesOnlyTheFirst(RightNode):
    """Loses all but the first row of a RowMerge."""

    def _merge(self, request):
        super()._merge(replace(request, rows=request.rows[:1]))


class ForgetsOperations(RightNode):
    """Writes a retry a second time."""

    def _adds_nothing(self, request):
        return False


class MarksFoldersTwice(RightNode):
    """Adds a marker to a folder that is marked."""

    def _adds_nothing(self, request):
        row = self.row(request.path)
        return any(operation.op_id == request.op_id for operation in row.operations)


class ReusesDots(RightNode):
    """Counts its dots per path."""

    def _publish(self, request):
        own = [dot.counter for op in self.row(request.path).operations for dot in op.dots if dot.actor == self.node_id]
        self.counter = max(own, default=0)
        return super()._publish(request)


class WritesUnderAnotherName(RightNode):
    """Says another dot than the one it wrote."""

    def _publish(self, request):
        answer = super()._publish(request)
        return Published(Dot(answer.dot.actor, answer.dot.counter + 1), answer.copies)


class DropsTheContext(RightNode):
    """Writes without the context that the writer sent: nothing is ever superseded."""

    def _written(self, request, dot, hlc):
        return super()._written(replace(request, context=()), dot, hlc)


class LastWriterWins(RightNode):
    """Throws concurrent versions away."""

    def _written(self, request, dot, hlc):
        return published(empty_row(request.path), super()._written(request, dot, hlc).heads[-1])


class CountsCopiesThatAreNotThere(RightNode):
    """Claims three copies."""

    def _publish(self, request):
        return replace(super()._publish(request), copies=3)


class LetsFilesBecomeFolders(RightNode):
    """Does not look at what stands there."""

    def _publish_refusals(self, request):
        return super()._publish_refusals(request) - {ErrorCode.EXISTS}


class TrustsAnyHolder(RightNode):
    """Does not look at the holders."""

    def _publish_refusals(self, request):
        return super()._publish_refusals(request) - {ErrorCode.STALE}


class DigestOfSomethingElse(RightNode):
    """Digests the path and the heads alone."""

    def answer(self, request: Request, payload: bytes = b"") -> tuple[Answer, bytes]:
        answer, data = super().answer(request, payload)
        if isinstance(request, RowFetch) and isinstance(answer, RowIs) and answer.digest and not request.full:
            row = self.row(request.path)
            answer = RowIs(row_digest(Row(row.path, row.heads, ())), (), False)
        return answer, data


class ListsAllAtOnce(RightNode):
    """Ignores where a list is to begin."""

    def _range(self, request):
        return super()._range(replace(request, after=""))


class IgnoresTheEnd(RightNode):
    """Ignores where a list is to end."""

    def _range(self, request):
        return super()._range(replace(request, until=""))


class HidesTombstones(RightNode):
    """Lists only what exists, so that a delete is never repaired."""

    def _range(self, request):
        return [row for row in super()._range(request) if any(head.kind.name != "TOMBSTONE" for head in row.heads)]


class ListsByCharacter(RightNode):
    """Digests a range in another order than that of the bytes of names."""

    def answer(self, request: Request, payload: bytes = b"") -> tuple[Answer, bytes]:
        answer, data = super().answer(request, payload)
        if isinstance(request, ListFetch) and isinstance(answer, ListPage) and not request.full:
            answer = ListPage(range_digest(row_digest(row) for row in reversed(self._range(request))), answer.last, (), False)
        return answer, data


class StoresWhatItIsGiven(RightNode):
    """Does not verify chunks."""

    def refusals(self, request, payload=b""):
        return frozenset() if isinstance(request, ChunkPut) and payload else super().refusals(request, payload)


class ForgetsChunks(RightNode):
    """Confirms a chunk that it does not keep."""

    def answer(self, request: Request, payload: bytes = b"") -> tuple[Answer, bytes]:
        answer, data = super().answer(request, payload)
        if isinstance(request, ChunkPut):
            self.chunks.pop(request.chunk_id, None)
        return answer, data


class ServesDamagedChunks(RightNode):
    """Does not verify what it reads."""

    def answer(self, request: Request, payload: bytes = b"") -> tuple[Answer, bytes]:
        answer, data = super().answer(request, payload)
        return answer, bytes(len(data)) if isinstance(request, ChunkGet) and len(data) > 1 else data


class CountsBitsFromTheOtherEnd(RightNode):
    """Answers ChunksHave most significant bit first."""

    def answer(self, request: Request, payload: bytes = b"") -> tuple[Answer, bytes]:
        answer, data = super().answer(request, payload)
        if isinstance(request, ChunksHave) and isinstance(answer, ChunksHeld):
            answer = replace(answer, held=bytes(int(f"{byte:08b}"[::-1], 2) for byte in answer.held))
        return answer, data


class InventsLayouts(RightNode):
    """Answers the latest record whatever version is asked for."""

    def answer(self, request: Request, payload: bytes = b"") -> tuple[Answer, bytes]:
        if isinstance(request, LayoutGet):
            return LayoutIs(self.layout.data), b""
        return super().answer(request, payload)


class ServesEverybody(RightNode):
    """Does for clients what only members may ask."""

    def refusals(self, request, payload=b""):
        refusals = super().refusals(request, payload)
        return frozenset({ErrorCode.NOT_FOUND}) if ErrorCode.UNSUPPORTED in refusals else refusals


class SaysNoLayoutVersion(RightNode):
    """Leaves out of a failure what a STALE sender needs."""

    def answer(self, request: Request, payload: bytes = b"") -> tuple[Answer, bytes]:
        answer, data = super().answer(request, payload)
        return (replace(answer, layout_version=0) if isinstance(answer, Failure) else answer), data


class AnswersBeforeItIsDurable(RightNode):
    """Loses at a power cut what came since the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.durable = dict(self.rows), dict(self.chunks)

    def restart(self) -> None:
        kept, self.durable = self.durable, (dict(self.rows), dict(self.chunks))
        self.rows, self.chunks = dict(kept[0]), dict(kept[1])


class ForgetsItsCounter(RightNode):
    """Begins to count its dots anew with every life."""

    def restart(self) -> None:
        self.counter = 0


def try_out(node: type[RightNode], enough: settings) -> None:
    """Let the machine ask a node of a class."""

    class Machine(NodeMachine):
        def __init__(self) -> None:
            super().__init__()
            self.node = node()

        def ask(self, request: Request, payload: bytes = b"") -> tuple[Answer, bytes]:
            return self.node.answer(request, payload)

        def restart(self) -> None:
            self.node.restart()

    run_state_machine_as_test(Machine, settings=enough)


def test_a_right_node_passes() -> None:
    try_out(RightNode, FEW)


@pytest.mark.parametrize("node", RightNode.__subclasses__(), ids=lambda node: node.__name__)
def test_a_node_that_is_wrong_in_one_way_is_caught(node: type[RightNode]) -> None:
    with pytest.raises(WrongAnswer):
        try_out(node, MANY)


