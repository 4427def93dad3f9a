"""The link's state machine, both ends without I/O."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.codec import encode_header
from protocol.connection import (
    IDLE_SECONDS,
    KEEPALIVE_SECONDS,
    WAITING_SECONDS,
    AnswerArrived,
    Closed,
    Connection,
    PayloadBudget,
    PeerHello,
    RequestArrived,
    RequestCancelled,
)
from protocol.errors import CloseCode, ErrorCode, LocalProtocolError
from protocol.framing import READ_BUFFER_BYTES, frame_parts
from protocol.manifest import ChunkTag, chunk_id_of
from protocol.messages import (
    Cancel,
    ChunkData,
    ChunkGet,
    ChunkPut,
    ChunkStored,
    Credit,
    Done,
    Failure,
    LinkKind,
    Message,
    Peers,
    PeersGet,
    Ping,
    StatusGet,
)
from protocol.testing.pair import ConnectionPair, some_hello, some_node_id

CHUNK = chunk_id_of(ChunkTag.DATA, b"x")
MIB = 1024 * 1024


def up(kind=LinkKind.CTL, **arguments) -> ConnectionPair:
    pair = ConnectionPair(kind, **arguments)
    pair.exchange()
    hellos_a, hellos_b = pair.take_events()
    assert [type(event) for event in hellos_a] == [PeerHello] == [type(event) for event in hellos_b]
    return pair


def raw(message: Message, request_id: int = 0, payload: bytes = b"", kind=LinkKind.CTL) -> bytes:
    return b"".join(bytes(part) for part in frame_parts(encode_header(message, request_id), payload, kind))


def closed(events) -> Closed:
    assert isinstance(events[-1], Closed), events
    return events[-1]


def breaks(pair: ConnectionPair, data: bytes, code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
    """The accepting side gets these bytes and closes the link for it; the other side is told."""
    assert closed(pair.b.receive(data, pair.now)).code is code
    pair.exchange()
    told = closed(pair.events_a)
    assert told.by_peer
    assert told.code is code
    assert pair.b.receive(raw(Ping(1)), pair.now) == []


# -- hello -------------------------------------------------------------------


def test_a_link_is_up_after_both_hellos_and_takes_the_diallers_kind():
    pair = up(LinkKind.BULK)
    assert pair.b.kind is LinkKind.BULK
    assert pair.a.peer == some_hello("b", LinkKind.BULK)


@given(st.integers(1, 40))
def test_the_hello_survives_any_split(size):
    pair = ConnectionPair()
    pair.exchange(lambda data: [data[at : at + size] for at in range(0, len(data), size)])
    assert isinstance(pair.events_b[0], PeerHello)


def test_a_hello_that_names_another_node_than_the_certificate_is_refused():
    pair = ConnectionPair(hello_a=lambda kind: some_hello("mallory", kind))
    pair.exchange()
    assert closed(pair.events_b).code is CloseCode.IDENTITY_MISMATCH
    assert closed(pair.events_a).by_peer


def test_a_node_that_reaches_itself_notices():
    pair = ConnectionPair(hello_b=lambda kind: some_hello("a", kind))
    pair.exchange()
    assert closed(pair.events_b).code is CloseCode.SELF


def test_versions_that_do_not_meet_are_refused():
    pair = ConnectionPair(hello_a=lambda kind: some_hello("a", kind, version_lowest=2, version_highest=3))
    pair.exchange()
    assert closed(pair.events_b).code is CloseCode.VERSION_MISMATCH


def test_a_newer_peer_that_still_speaks_our_version_is_welcome():
    pair = ConnectionPair(hello_a=lambda kind: some_hello("a", kind, version_lowest=1, version_highest=2, features=1 << 60))
    pair.exchange()
    assert isinstance(pair.events_b[0], PeerHello)


def test_nothing_comes_before_the_hello():
    pair = ConnectionPair()
    pair.a.take_output()
    assert closed(pair.b.receive(raw(Ping(1)), 0.0)).code is CloseCode.PROTOCOL_ERROR
    with pytest.raises(LocalProtocolError):
        Connection(lambda kind: some_hello("x", kind), None, some_node_id("y"), PayloadBudget(0), 0.0).send_request(PeersGet(1))


def test_a_second_hello_is_refused():
    pair = up()
    breaks(pair, raw(some_hello("a")))


def test_a_peer_that_says_no_hello_in_time_is_closed():
    pair = ConnectionPair()
    assert pair.b.next_deadline() == limits.HANDSHAKE_SECONDS
    assert pair.b.tick(limits.HANDSHAKE_SECONDS - 0.1) == []
    assert closed(pair.b.tick(limits.HANDSHAKE_SECONDS)).code is CloseCode.HELLO_TIMEOUT


# -- requests ----------------------------------------------------------------


def test_answers_come_in_any_order():
    pair = up()
    first, second = pair.a.send_request(PeersGet(1000)), pair.a.send_request(StatusGet(1000))
    pair.exchange()
    assert [(event.request_id, event.message) for event in pair.events_b] == [
        (first, PeersGet(1000)),
        (second, StatusGet(1000)),
    ]
    pair.b.send_answer(second, Failure(ErrorCode.BUSY, "", 0))
    pair.b.send_answer(first, Peers(()))
    pair.exchange()
    assert [(event.request_id, event.message) for event in pair.events_a] == [
        (second, Failure(ErrorCode.BUSY, "", 0)),
        (first, Peers(())),
    ]


def test_the_deadline_counts_from_the_arrival():
    pair = up()
    pair.now = 2.5
    pair.a.send_request(PeersGet(1500))
    pair.exchange()
    assert pair.events_b[0].deadline == 4.0


def test_both_sides_ask_at_the_same_time_with_the_same_ids():
    pair = up()
    assert pair.a.send_request(PeersGet(1)) == pair.b.send_request(PeersGet(1))
    pair.exchange()
    pair.a.send_answer(1, Peers(()))
    pair.b.send_answer(1, Peers(()))
    pair.exchange()
    assert isinstance(pair.events_a[-1], AnswerArrived)
    assert isinstance(pair.events_b[-1], AnswerArrived)


def test_a_request_is_answered_once():
    pair = up()
    request_id = pair.a.send_request(PeersGet(1))
    pair.exchange()
    pair.b.send_answer(request_id, Peers(()))
    with pytest.raises(LocalProtocolError):
        pair.b.send_answer(request_id, Peers(()))


@pytest.mark.parametrize("answer", [Done(), Peers(())])
def test_an_answer_to_nothing_is_refused(answer):
    breaks(up(), raw(answer, 9))


def test_an_answer_of_the_wrong_type_is_refused():
    pair = up()
    request_id = pair.b.send_request(PeersGet(1))
    pair.exchange()
    breaks(pair, raw(Done(), request_id))


def test_an_open_request_id_is_not_used_again():
    pair = up()
    breaks(pair, raw(PeersGet(1), 5) + raw(PeersGet(1), 5))


def test_the_window_of_open_requests_holds_on_both_sides():
    pair = up()
    for _ in range(limits.REQUESTS_IN_FLIGHT_MAX):
        assert pair.a.can_send(0)
        pair.a.send_request(PeersGet(1))
    assert not pair.a.can_send(0)
    with pytest.raises(LocalProtocolError):
        pair.a.send_request(PeersGet(1))
    pair.exchange()
    assert len(pair.events_b) == limits.REQUESTS_IN_FLIGHT_MAX
    breaks(pair, raw(PeersGet(1), 1000))


def test_a_cancelled_request_is_still_answered_and_the_answer_is_not_reported():
    pair = up()
    request_id = pair.a.send_request(PeersGet(1))
    pair.a.cancel(request_id)
    pair.exchange()
    assert pair.events_b[-1] == RequestCancelled(request_id)
    pair.b.send_answer(request_id, Failure(ErrorCode.CANCELLED, "", 0))
    pair.exchange()
    assert pair.events_a == []
    assert pair.a.open_requests == 0


def test_a_cancel_that_comes_too_late_means_nothing():
    pair = up()
    assert pair.b.receive(raw(Cancel(), 77), 0.0) == []


# -- payloads ----------------------------------------------------------------


def put(size: int) -> tuple[ChunkPut, bytes]:
    return ChunkPut(1000, CHUNK, forward=False), bytes(size)


def test_payload_credit_is_bounded_and_comes_back_with_the_answer():
    pair = up(LinkKind.BULK)
    message, payload = put(4 * MIB)
    ids = [pair.a.send_request(message, payload) for _ in range(4)]
    assert not pair.a.can_send(1)
    assert pair.a.can_send(0)
    with pytest.raises(LocalProtocolError):
        pair.a.send_request(message, b"x")
    pair.exchange()
    pair.b.send_answer(ids[0], ChunkStored(()))
    pair.exchange()
    assert pair.a.can_send(4 * MIB)
    assert not pair.a.can_send(4 * MIB + 1)


def test_a_peer_that_sends_beyond_its_credit_is_closed():
    pair = up(LinkKind.BULK)
    message, payload = put(4 * MIB)
    for _ in range(4):
        pair.a.send_request(message, payload)
    pair.exchange()
    breaks(pair, raw(message, 99, b"x", LinkKind.BULK))


def test_credit_that_was_never_sent_is_refused():
    breaks(up(LinkKind.BULK), raw(Credit(1), kind=LinkKind.BULK))


def test_answers_carry_payload_and_the_asker_gives_it_back():
    pair = up(LinkKind.BULK)
    for _ in range(10):  # 40 MiB in all: more than the credit
        request_id = pair.a.send_request(ChunkGet(1000, CHUNK))
        pair.exchange()
        pair.b.send_answer(request_id, ChunkData(), bytes(4 * MIB))
        pair.exchange()
        (answer,) = pair.take_events()[0]
        assert len(answer.payload) == 4 * MIB
        pair.a.release(len(answer.payload))
        pair.exchange()


@given(st.lists(st.integers(0, 90_000), min_size=2, max_size=8), st.data())
def test_requests_with_payloads_that_arrive_together_stay_apart(sizes, data):
    """From the dialler's first byte on: the hello, and requests right behind it, cut anywhere."""
    pair = ConnectionPair(LinkKind.BULK)
    pair.a.receive(raw(some_hello("b", LinkKind.BULK), kind=LinkKind.BULK), pair.now)
    payloads = [bytes([index]) * size for index, size in enumerate(sizes)]
    ids = [pair.a.send_request(ChunkPut(1000, CHUNK, forward=False), payload) for payload in payloads]
    stream = b"".join(pair.a.take_output())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        pair.events_b += pair.b.receive(stream[begin:end], pair.now)
    assert isinstance(pair.events_b[0], PeerHello)
    assert [(event.request_id, bytes(event.payload)) for event in pair.events_b[1:]] == list(zip(ids, payloads, strict=True))


def test_a_payload_without_memory_is_answered_busy_and_its_credit_returns():
    pair = up(LinkKind.BULK, budget_bytes=5 * MIB)
    message, payload = put(4 * MIB)
    first = pair.a.send_request(message, payload)
    pair.a.send_request(message, payload)
    pair.exchange()
    assert [type(event) for event in pair.events_b] == [RequestArrived]
    (busy,) = pair.events_a
    assert busy.message.code is ErrorCode.BUSY
    pair.b.send_answer(first, ChunkStored(()))
    pair.exchange()
    assert pair.budget.free_bytes == 5 * MIB
    assert pair.a.can_send(16 * MIB)


def test_a_lost_link_gives_its_payload_memory_back():
    pair = up(LinkKind.BULK, budget_bytes=5 * MIB)
    pair.a.send_request(*put(4 * MIB))
    pair.exchange()
    assert pair.budget.free_bytes == MIB
    assert closed(pair.b.lost("cable")).by_peer
    assert pair.budget.free_bytes == 5 * MIB
    assert pair.b.lost("again") == []


def test_a_link_lost_within_a_payload_gives_the_memory_back_that_was_taken_for_it():
    pair = up(LinkKind.BULK, budget_bytes=5 * MIB)
    message, payload = put(4 * MIB)
    pair.b.receive(raw(message, 1, payload, LinkKind.BULK)[:-1], pair.now)
    assert pair.budget.free_bytes == MIB
    pair.b.lost("the client was killed")
    assert pair.budget.free_bytes == 5 * MIB


def test_what_follows_a_refused_length_takes_no_memory():
    pair = up()
    refused = b"\x94\xce\x40\x00\x00\x00\xce\x00\x00\x00\x00"
    buffer = pair.b.get_buffer(1 << 20)
    buffer[:] = refused + bytes(len(buffer) - len(refused))
    assert closed(pair.b.buffer_updated(len(buffer), pair.now)).code is CloseCode.FRAME_TOO_LARGE
    assert 0 < len(pair.b.get_buffer(1 << 20)) <= READ_BUFFER_BYTES  # a transport that is closing still reads


@pytest.mark.parametrize(
    ("kind", "message", "payload"),
    [
        (LinkKind.CTL, ChunkGet(1, CHUNK), b""),
        (LinkKind.BULK, PeersGet(1), b""),
        (LinkKind.BULK, ChunkGet(1, CHUNK), b"x"),
    ],
)
def test_messages_travel_on_their_own_kind_of_link(kind, message, payload):
    pair = up(kind)
    with pytest.raises(LocalProtocolError):
        pair.a.send_request(message, payload)
    breaks(pair, raw(message, 1, payload, kind))


# -- time --------------------------------------------------------------------


@pytest.mark.parametrize(("waits", "patience"), [(True, WAITING_SECONDS), (False, IDLE_SECONDS)])
def test_a_silent_peer_is_pinged_and_then_given_up(waits, patience):
    pair = up()
    if waits:
        pair.a.send_request(PeersGet(1))
        pair.a.take_output()
    pinged_at = pair.now + patience
    assert pair.a.tick(pinged_at - 0.1) == []
    assert not pair.a.take_output()
    assert pair.a.tick(pinged_at) == []
    assert pair.a.take_output()
    assert pair.a.tick(pinged_at + KEEPALIVE_SECONDS - 0.1) == []
    assert closed(pair.a.tick(pinged_at + KEEPALIVE_SECONDS)).code is CloseCode.KEEPALIVE_TIMEOUT


def test_a_request_on_a_link_that_has_long_been_silent_gives_the_peer_its_time():
    pair = up()
    sent_at = pair.now + IDLE_SECONDS - 0.5
    pair.a.send_request(PeersGet(1))
    assert pair.a.tick(sent_at) == []
    assert pair.a.tick(sent_at + KEEPALIVE_SECONDS - 0.1) == []
    assert closed(pair.a.tick(sent_at + KEEPALIVE_SECONDS)).code is CloseCode.KEEPALIVE_TIMEOUT


def test_a_peer_that_answers_pings_stays():
    pair = up()
    for second in range(1, 60):
        pair.now = float(second)
        pair.a.tick(pair.now)
        pair.b.tick(pair.now)
        pair.exchange()
    assert pair.events_a == [] == pair.events_b


def drip(pair: ConnectionPair, frame: bytes, seconds: float) -> list:
    """Send a byte of the frame each second; return what the receiver reports."""
    events = []
    while not events and pair.now < seconds:
        events += pair.b.receive(frame[:1], pair.now)
        frame = frame[1:]
        pair.now += 1.0
        events += pair.b.tick(pair.now)
    return events


def test_a_frame_that_comes_byte_by_byte_is_not_waited_for():
    pair = up(LinkKind.BULK, budget_bytes=5 * MIB)
    data = raw(put(4 * MIB)[0], 1, bytes(4 * MIB), LinkKind.BULK)
    pair.b.receive(data[:1000], pair.now)
    assert closed(drip(pair, data[1000:], 60.0)).code is CloseCode.KEEPALIVE_TIMEOUT
    assert pair.now == limits.FRAME_SECONDS
    assert pair.budget.free_bytes == 5 * MIB


def test_many_frames_one_after_another_may_take_any_time():
    pair = up()
    ping = raw(Ping(1))
    pair.b.receive(ping[:5], pair.now)
    while pair.now < 3 * limits.FRAME_SECONDS:
        pair.now += 1.0
        assert pair.b.receive(ping[5:] + ping[:5], pair.now) == []  # each read ends within a frame, as those of a busy link do
        assert pair.b.tick(pair.now) == []


def test_a_side_that_stood_still_itself_does_not_blame_a_frame():
    pair = up()
    data = raw(Ping(1))
    pair.b.receive(data[:5], pair.now)
    pair.now += 2 * limits.FRAME_SECONDS
    assert pair.b.tick(pair.now) == []
    assert pair.b.receive(data[5:], pair.now) == []


@given(st.floats(0, 1e9), st.integers(1, 8))
def test_a_tick_at_its_deadline_always_moves_the_deadline(begin, ticks):
    """Rounding must not keep a timer at one instant: that is a loop that burns a core."""
    pair = ConnectionPair()
    pair.now = begin
    pair.a = Connection(lambda kind: some_hello("a", kind), LinkKind.CTL, some_node_id("b"), pair.budget, begin)
    pair.exchange()
    for _ in range(ticks):
        due = pair.a.next_deadline()
        if due is None:
            break
        pair.a.tick(due)
        assert pair.a.next_deadline() is None or pair.a.next_deadline() > due


def test_more_pings_than_anybody_needs_are_refused():
    pair = up()
    for _ in range(3):
        pair.now += 1.0
        assert pair.b.receive(raw(Ping(1)) * limits.PINGS_PER_SECOND_MAX, pair.now) == []
    assert len(pair.b.take_output()) == 3 * limits.PINGS_PER_SECOND_MAX
    breaks(pair, raw(Ping(1)))


def test_a_side_that_stood_still_itself_does_not_blame_the_peer():
    pair = up()
    assert pair.a.tick(100.0) == []
    assert closed(pair.a.tick(100.0 + KEEPALIVE_SECONDS)).code is CloseCode.KEEPALIVE_TIMEOUT


@given(st.binary(max_size=400))
def test_arbitrary_bytes_end_the_link_or_wait_for_more(data):
    pair = up()
    for event in pair.b.receive(data, 0.0):
        assert isinstance(event, Closed)
