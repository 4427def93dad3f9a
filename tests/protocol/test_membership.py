"""The failure detector: alone, fed by hand, and many of them on a mesh that loses, delays and stands still."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits, membership, suspicion
from protocol.codec import encode_header
from protocol.framing import frame_parts
from protocol.gossip import GossipQueue, transmissions_of
from protocol.hashing import plain_hash
from protocol.identity import NodeId
from protocol.members import DEAD_HEAR_SECONDS, FORGET_SECONDS, MemberTable, incarnation_of
from protocol.membership import HEALTH_MAX, Effects, MemberChanged, Membership, Send, compare_seconds
from protocol.messages import LinkKind, MemberClaim, Members, MembersGet, MemberState, Probe, ProbeAck, ProbeIndirect
from protocol.suspicion import confirmations_wanted, suspicion_max_seconds, suspicion_min_seconds, suspicion_seconds
from sims import detection
from sims.mesh import Mesh

ALIVE, DRAINING, SUSPECT, REFUSED, DEAD, LEFT = MemberState
NOBODY = NodeId(b"")
HOUR = 3600.0


def node(number: int) -> NodeId:
    return NodeId(plain_hash(b"node %d" % number, 16))


ME, B, C, D, E = (node(number) for number in range(5))
OTHERS = (B, C, D, E)


def claim(member: NodeId, state: MemberState, boot: int = 1, refutations: int = 0, *, by: NodeId = NOBODY, age: int = 0) -> MemberClaim:
    return MemberClaim(member, state, incarnation_of(boot) + refutations, by, age)


def is_question(sent: Send) -> bool:
    """Return whether the machine waits for the answer: it does not for gossip, nor when it compares."""
    return sent.message.deadline_milliseconds != membership.ANSWER_MILLISECONDS


class Alone:
    """One machine whose peers are played by hand, and the time."""

    def __init__(self, others: Sequence[NodeId] = OTHERS, boot: int = 1) -> None:
        random = Random(7)
        self.now = 0.0
        self.machine = Membership(ME, boot, random.randrange, self.now)
        self.hears(*(claim(other, ALIVE) for other in others))
        self.taken()

    def hears(self, *claims: MemberClaim) -> tuple[MemberClaim, ...]:
        """Be told by B; return the claims of the ack."""
        self.machine.receive(self.now, B, Probe(1000, claims), "token")
        (reply,) = self.taken("replies")
        assert isinstance(reply.message, ProbeAck)
        return reply.message.claims

    def taken(self, what: str = "sends") -> list:
        """Return effects; those of the other kinds are kept for later."""
        new = self.machine.take_effects()
        self.kept = getattr(self, "kept", Effects())
        for name in ("sends", "replies", "changes"):
            getattr(self.kept, name).extend(getattr(new, name))
        taken = getattr(self.kept, what)
        setattr(self.kept, what, [])
        return taken

    def changes(self) -> list[MemberChanged]:
        return self.taken("changes")

    def probes(self) -> list[Send]:
        """Return the requests by which the machine wants to know: not gossip, which nobody waits for."""
        return [sent for sent in self.taken() if is_question(sent)]

    def acks(self, sent: Send, *claims: MemberClaim, reached: bool = True) -> None:
        self.machine.answered(self.now, sent, ProbeAck(reached, claims))

    def lives(self, seconds: float, answer: Callable[[Send], bool] = lambda sent: True) -> None:
        """Let time pass; peers answer those probes that `answer` accepts."""
        end = self.now + seconds
        while self.machine.next_deadline() <= end:
            self.now = max(self.now, self.machine.next_deadline())
            self.machine.tick(self.now)
            for sent in self.taken():
                if isinstance(sent.message, Probe | ProbeIndirect) and answer(sent):
                    self.acks(sent)
        self.now = end

    def state(self, member: NodeId) -> MemberState | None:
        view = self.machine.member(member)
        return view.state if view is not None else None

    def own_claim(self) -> MemberClaim:
        """Return what the machine says of itself."""
        self.machine.receive(self.now, B, MembersGet(1000, bytes(16)), "table")
        table = self.taken("replies")[-1].message
        (own,) = (each for each in table.claims if each.node_id == ME)
        return own


# -- what is held of whom ----------------------------------------------------


def test_a_refutation_beats_a_suspicion() -> None:
    alone = Alone()
    alone.hears(claim(C, SUSPECT, by=D))
    assert alone.state(C) is SUSPECT
    alone.hears(claim(C, ALIVE, refutations=1))
    assert alone.state(C) is ALIVE
    alone.hears(claim(C, SUSPECT, by=E))
    assert alone.state(C) is ALIVE
    alone.lives(60)
    assert alone.state(C) is ALIVE


def test_a_restart_outranks_everything_that_was_said_of_an_earlier_life() -> None:
    alone = Alone()
    alone.hears(claim(C, DEAD, refutations=1000))
    alone.machine.link_up(alone.now, C, 2)
    assert alone.state(C) is ALIVE
    alone.hears(claim(C, DEAD, refutations=2**20 - 1), claim(C, LEFT, refutations=2**20 - 1))
    assert alone.state(C) is ALIVE
    assert alone.changes()[-2:] == [MemberChanged(C, DEAD, 1), MemberChanged(C, ALIVE, 2)]


@pytest.mark.parametrize("state", [SUSPECT, REFUSED, DEAD, LEFT])
def test_a_stale_incarnation_changes_nothing_and_is_set_right(state: MemberState) -> None:
    alone = Alone()
    alone.hears(claim(C, DRAINING, refutations=5))
    alone.lives(20.0)  # until it is no news any more
    before = alone.machine.digest, alone.machine.members()
    alone.taken(), alone.changes()
    assert claim(C, DRAINING, refutations=5) in alone.hears(claim(C, state, refutations=4, by=D))
    assert (alone.machine.digest, alone.machine.members()) == before
    assert not alone.changes()


def test_death_in_gossip_counts_at_once_and_only_a_new_incarnation_revives() -> None:
    alone = Alone()
    alone.hears(claim(C, DEAD))
    alone.hears(claim(C, ALIVE))
    assert alone.state(C) is DEAD
    alone.hears(claim(C, ALIVE, refutations=1))
    assert alone.state(C) is ALIVE


def test_an_accusation_is_answered_with_the_next_incarnation() -> None:
    alone = Alone(boot=3)
    acks = alone.hears(claim(ME, SUSPECT, boot=3, refutations=4, by=C))
    assert claim(ME, ALIVE, boot=3, refutations=5) in acks
    assert alone.machine.health_score == 1


def test_what_is_said_of_another_life_of_oneself_is_not_answered() -> None:
    alone = Alone(boot=3)
    alone.hears(claim(ME, DEAD, boot=2, refutations=9), claim(ME, DEAD, boot=4))
    assert alone.own_claim() == claim(ME, ALIVE, boot=3)


def test_an_incarnation_never_reaches_the_next_life() -> None:
    alone = Alone(boot=3)
    last = 2**20 - 1
    alone.hears(claim(ME, SUSPECT, boot=3, refutations=last, by=C))
    alone.hears(claim(ME, DEAD, boot=3, refutations=last))
    assert alone.own_claim() == claim(ME, ALIVE, boot=3, refutations=last)


def test_who_has_missed_a_refutation_is_told_by_the_one_it_wrongs() -> None:
    alone = Alone()
    alone.hears(claim(ME, SUSPECT, by=C))
    alone.taken()
    assert claim(ME, ALIVE, refutations=1) in alone.hears(claim(ME, SUSPECT, by=D))  # in a request: the ack says so
    sent = Send(10**6, D, Probe(1000, ()))
    alone.acks(sent, claim(ME, SUSPECT, by=D))  # in an ack: another probe does
    assert (D, (claim(ME, ALIVE, refutations=1),)) in [(each.to, each.message.claims) for each in alone.taken()]


@st.composite
def floods(draw: st.DrawFn) -> tuple[list[MemberClaim], list[MemberClaim]]:
    """Draw claims about a few members and strangers, and the same in another order, some twice."""
    subjects = st.sampled_from([C, D, node(50), node(51)])
    accusers = st.sampled_from([B, E, node(60)])
    one = st.builds(
        lambda who, state, boot, refutations, by: claim(who, state, boot, refutations, by=by if state in (SUSPECT, REFUSED) else NOBODY),
        subjects, st.sampled_from(list(MemberState)), st.integers(1, 2), st.integers(0, 2), accusers,
    )  # fmt: skip
    claims = draw(st.lists(one, max_size=12))
    again = draw(st.lists(st.sampled_from(claims), max_size=4)) if claims else []
    return claims, draw(st.permutations(claims + again))


def check_order(flood: tuple[list[MemberClaim], list[MemberClaim]]) -> None:
    held = []
    for claims in flood:
        alone = Alone((*OTHERS, *(node(number) for number in range(60, 64))))
        for each in claims:
            alone.hears(each)
        held.append((alone.machine.digest, sorted((view.node_id, view.state, view.boot) for view in alone.machine.members())))
    assert held[0] == held[1]


@settings(max_examples=100, deadline=None)
@given(floods())
def test_claims_mean_the_same_in_any_order(flood: tuple[list[MemberClaim], list[MemberClaim]]) -> None:
    check_order(flood)


def test_who_compares_holds_what_both_held() -> None:
    first, second = Alone((B, C)), Alone((B, D))
    first.hears(claim(C, DEAD))
    for asker, asked in ((first, second), (second, first)):
        asked.machine.receive(asked.now, B, MembersGet(1000, asker.machine.digest), "table")
        asker.machine.answered(asker.now, Send(0, B, MembersGet(1000, bytes(16))), asked.taken("replies")[-1].message)
    assert first.machine.digest == second.machine.digest
    second.machine.receive(second.now, B, MembersGet(1000, first.machine.digest), "table")
    assert second.taken("replies")[-1].message == Members(())


# -- suspicion and refusal ---------------------------------------------------


def test_the_formulas_are_those_of_the_table() -> None:
    assert [round(suspicion_min_seconds(members), 2) for members in (1, 5, 10, 100, 1000)] == [3, 3, 3, 6, 9]
    assert suspicion_max_seconds(100) == 36
    assert [confirmations_wanted(members) for members in (2, 3, 4, 100)] == [0, 0, 2, 2]
    assert [round(suspicion_seconds(10, confirmations), 1) for confirmations in (0, 1, 2, 3)] == [18, 8.5, 3, 3]
    assert suspicion_seconds(3, 0) == 3
    assert [transmissions_of(members) for members in (1, 9, 10, 99, 100, 999)] == [4, 4, 8, 8, 12, 12]
    assert [compare_seconds(members) for members in (1, 32, 33, 64, 65, 128, 1000)] == [30, 30, 60, 60, 90, 90, 180]


def dies_after(others: Sequence[NodeId], accusers: Sequence[NodeId]) -> float:
    """Return for how long C stays suspect when all who accuse it do so at once."""
    alone = Alone(others)
    alone.hears(*(claim(C, SUSPECT, by=accuser) for accuser in accusers))
    while alone.state(C) is SUSPECT:
        alone.lives(max(0.0, alone.machine.next_deadline() - alone.now), lambda sent: sent.to != C)
    return alone.now


def test_a_suspicion_is_the_shorter_the_more_confirm_it() -> None:
    many = [node(number) for number in range(1, 9)]
    assert [round(dies_after(many, many[2:][:count]), 1) for count in (1, 2, 3, 5)] == [18.0, 8.5, 3.0, 3.0]
    assert round(dies_after((B, C), (B,)), 1) == 3.0


def test_the_same_accuser_again_confirms_nothing() -> None:
    assert round(dies_after([node(number) for number in range(1, 9)], [D, D, D, D]), 1) == 18.0


def test_one_refusal_may_be_a_firewall_and_two_are_death() -> None:
    alone = Alone()
    alone.machine.link_refused(alone.now, C)
    alone.hears(claim(C, REFUSED, by=ME))
    assert alone.state(C) is SUSPECT
    alone.hears(claim(C, REFUSED, by=D))
    assert alone.state(C) is DEAD


def test_of_two_members_one_refusal_is_all_there_can_be() -> None:
    alone = Alone((B,))
    alone.machine.link_refused(alone.now, B)
    assert alone.state(B) is DEAD


def test_who_left_or_is_unknown_is_not_refused() -> None:
    alone = Alone()
    alone.hears(claim(C, LEFT, refutations=1))
    alone.machine.link_refused(alone.now, C)
    alone.machine.link_refused(alone.now, node(99))
    assert alone.state(C) is LEFT
    assert alone.state(node(99)) is None


def test_the_suspect_is_told_before_all_others() -> None:
    alone = Alone()
    while alone.state(C) is not SUSPECT:
        alone.now = alone.machine.next_deadline()
        alone.machine.tick(alone.now)
        sends = alone.taken()
        for sent in sends:
            if C not in (sent.to, getattr(sent.message, "target", None)):
                alone.acks(sent)
    sends += alone.taken()
    first = next(sent for sent in sends if any(each.node_id == C for each in sent.message.claims))
    assert (first.to, first.message.claims[0]) == (C, claim(C, SUSPECT, by=ME))


def test_every_message_to_a_suspect_begins_with_the_accusation() -> None:
    alone = Alone()
    alone.hears(claim(B, SUSPECT, by=D), claim(C, ALIVE, refutations=3))
    assert alone.hears()[0] == claim(B, SUSPECT, by=D)


def test_a_suspicion_is_laid_before_others_at_its_end() -> None:
    alone = Alone()
    alone.hears(claim(C, SUSPECT, by=D))

    def lives_until(when: float) -> None:
        while alone.machine.next_deadline() < when:
            alone.now = alone.machine.next_deadline()
            alone.machine.tick(alone.now)
            for sent in alone.taken():
                if sent.to != C and isinstance(sent.message, Probe | ProbeIndirect):
                    outdated = alone.now > 17 and claim(C, SUSPECT, by=D) in sent.message.claims
                    alone.acks(sent, *([claim(C, ALIVE, refutations=1)] if outdated else []))

    lives_until(19.0)
    assert alone.state(C) is ALIVE
    assert not [change for change in alone.changes() if change.state is DEAD]


# -- probes and health -------------------------------------------------------


def probing(silent: Callable[[Send], bool], refusals: int = 0) -> Alone:
    """Let one probe come to its end; peers answer what is not `silent`, and so many helpers that they reached nobody."""
    alone = Alone()
    sent: list[Send] = []
    while not sent:
        alone.now = alone.machine.next_deadline()
        alone.machine.tick(alone.now)
        sent = alone.probes()
    end = alone.now + 1.0
    if not silent(sent[0]):
        alone.acks(sent[0])
    while alone.now < end:
        alone.now = min(end, alone.machine.next_deadline())
        alone.machine.tick(alone.now)
        for each in alone.probes():
            if isinstance(each.message, ProbeIndirect) and refusals:
                refusals -= 1
                alone.acks(each, reached=False)
            elif isinstance(each.message, ProbeIndirect) and not silent(each):
                alone.acks(each)
    return alone


def suspects(alone: Alone) -> int:
    return sum(view.state is SUSPECT for view in alone.machine.members())


def test_who_answers_is_not_suspect() -> None:
    assert suspects(probing(lambda sent: False)) == 0


def test_who_answers_only_a_helper_is_not_suspect() -> None:
    assert suspects(probing(lambda sent: isinstance(sent.message, Probe))) == 0


def test_who_answers_nobody_is_suspect() -> None:
    assert suspects(probing(lambda sent: True, refusals=3)) == 1


def test_a_node_whose_helpers_answer_is_well() -> None:
    assert [probing(lambda sent: True, refusals=count).machine.health_score for count in (3, 1, 0)] == [0, 2, 3]


def test_a_sick_node_probes_slowly_and_recovers_with_each_ack() -> None:
    alone = Alone()
    for _ in range(20):
        alone.machine.lagged(alone.now)
    assert alone.machine.health_score == HEALTH_MAX
    probes: list[float] = []
    alone.lives(8.0, lambda sent: bool(is_question(sent) and probes.append(alone.now)) or True)
    alone.lives(8.0, lambda sent: bool(is_question(sent) and probes.append(alone.now)) or True)
    assert len(probes) == 3
    assert [round(later - sooner, 1) for sooner, later in pairwise(probes)] == [8.0, 7.0]
    alone.lives(60.0)
    assert alone.machine.health_score == 0


def test_a_late_tick_says_that_the_node_itself_stood_still() -> None:
    alone = Alone()
    alone.machine.tick(alone.machine.next_deadline() + 0.24)
    assert alone.machine.health_score == 0
    alone.machine.tick(alone.machine.next_deadline() + 0.26)
    assert alone.machine.health_score == 1


def test_a_node_that_stood_still_reads_before_it_buries() -> None:
    alone = Alone()
    alone.hears(claim(C, SUSPECT, by=D))
    alone.lives(17.7, lambda sent: sent.to != C)
    alone.now += 4.0
    alone.machine.tick(alone.now)
    assert alone.state(C) is SUSPECT
    alone.hears(claim(C, ALIVE, refutations=1))
    alone.lives(5.0)
    assert alone.state(C) is ALIVE


def test_each_member_is_probed_within_two_rounds() -> None:
    many = [node(number) for number in range(1, 30)]
    alone = Alone(many)
    probed: dict[NodeId, list[int]] = {}
    count = 0
    while count < 300:
        alone.now = alone.machine.next_deadline()
        alone.machine.tick(alone.now)
        for sent in alone.probes():
            probed.setdefault(sent.to, []).append(count)
            count += 1
            alone.acks(sent)
    assert sorted(probed) == sorted(many)
    assert max(later - sooner for times in probed.values() for sooner, later in pairwise(times)) <= 2 * len(many) - 1


def test_a_helper_says_no_in_time_and_what_it_holds_of_the_target() -> None:
    alone = Alone()
    alone.hears(claim(C, DEAD))
    alone.machine.receive(alone.now, B, ProbeIndirect(500, C, ()), "asked")
    alone.lives(0.39, lambda sent: False)
    assert not alone.taken("replies")
    alone.lives(0.02, lambda sent: False)
    (reply,) = alone.taken("replies")
    assert (reply.token, reply.message) == ("asked", ProbeAck(False, (claim(C, DEAD, age=1),)))


def test_a_helper_says_yes_when_the_target_has_answered() -> None:
    alone = Alone()
    alone.machine.receive(alone.now, B, ProbeIndirect(500, C, ()), "asked")
    (sent,) = (each for each in alone.taken() if each.to == C)
    alone.acks(sent)
    assert [(reply.token, reply.message.reached) for reply in alone.taken("replies")] == [("asked", True)]


# -- bounds ------------------------------------------------------------------


def test_the_queue_holds_one_claim_per_member_and_sends_the_least_sent_first_and_of_those_the_newest() -> None:
    queue = GossipQueue()
    for number in range(5):
        queue.put(claim(node(number), ALIVE))
    queue.put(claim(node(0), DEAD))
    assert len(queue) == 5
    assert [each.node_id for each in queue.take(2, 5)] == [node(0), node(4)]
    assert [each.node_id for each in queue.take(5, 5)] == [node(3), node(2), node(1), node(0), node(4)]
    sent = 7
    while taken := queue.take(3, 5):
        sent += len(taken)
    assert sent == 5 * transmissions_of(5)


def test_a_message_carries_a_bounded_number_of_claims() -> None:
    many = [node(number) for number in range(1, 300)]
    alone = Alone(many)
    assert len(alone.hears()) == limits.CLAIMS_PER_MESSAGE_MAX
    outdated = tuple(claim(each, SUSPECT, boot=0, by=B) for each in many[: limits.CLAIMS_PER_MESSAGE_MAX])
    assert len(alone.hears(*outdated)) == limits.CLAIMS_PER_MESSAGE_MAX
    alone.hears(claim(B, DEAD))
    assert len(alone.hears(*outdated)) == limits.CLAIMS_PER_MESSAGE_MAX


def test_of_too_many_members_those_are_forgotten_who_have_been_dead_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MEMBERS_KNOWN_MAX", 5)
    alone = Alone()
    alone.hears(claim(node(10), ALIVE))
    assert alone.state(node(10)) is None
    alone.hears(claim(C, DEAD, age=5), claim(D, LEFT, age=9), claim(node(10), ALIVE))
    assert (alone.state(node(10)), alone.state(D), alone.state(C)) == (ALIVE, None, DEAD)


def test_probes_for_others_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "RELAYS_MAX", 3)
    alone = Alone()
    for number in range(5):
        alone.machine.receive(alone.now, B, ProbeIndirect(500, C, ()), number)
    assert [(reply.token, reply.message.reached) for reply in alone.taken("replies")] == [(0, False), (1, False)]


def test_everything_that_can_be_known_fits_one_frame() -> None:
    longest = MemberClaim(B, DEAD, 2**52 - 1, C, 2**18)
    table = Members(limits.MEMBERS_KNOWN_MAX * (longest,))
    frame_parts(encode_header(table, 2**32 - 1), b"", LinkKind.CTL)


def test_the_dead_are_forgotten_after_three_days_wherever_they_are_remembered() -> None:
    first, second = Alone(), Alone()
    first.hears(claim(C, DEAD))
    first.now = FORGET_SECONDS - HOUR
    first.machine.receive(first.now, B, MembersGet(1000, bytes(16)), "table")
    second.machine.answered(0.0, Send(0, B, MembersGet(1000, bytes(16))), first.taken("replies")[-1].message)
    assert second.state(C) is DEAD
    second.lives(HOUR + 60)
    assert second.state(C) is None
    second.hears(claim(C, DEAD, age=FORGET_SECONDS))
    assert second.state(C) is None


def test_the_dead_are_told_for_a_minute() -> None:
    alone = Alone()
    alone.hears(claim(C, DEAD))
    told: list[float] = []
    for number in range(1, 500):  # something to tell, all the time
        alone.hears(claim(D, ALIVE, refutations=number))
        alone.lives(0.2, lambda sent: bool(sent.to == C and told.append(alone.now)) or True)
    assert len(told) > 20
    assert DEAD_HEAR_SECONDS / 2 < max(told) <= DEAD_HEAR_SECONDS


# -- leaving -----------------------------------------------------------------


def test_who_leaves_says_so_first_and_is_not_taken_for_dead() -> None:
    mesh = Mesh("leave")
    nodes = mesh.formed(5)
    leaver = mesh.machine(nodes[0])
    leaver.drain(mesh.now)
    assert mesh.run(3.0, until=lambda: mesh.believers(nodes[0], DRAINING) == 4)
    leaver.leave(mesh.now)
    assert mesh.run(3.0, until=lambda: not leaver.has_news and mesh.believers(nodes[0], LEFT) == 4)
    mesh.kill(nodes[0])
    mesh.run(30.0)
    assert mesh.believers(nodes[0], LEFT) == 4
    assert not [change for _, _, change in mesh.changes if change.state in (SUSPECT, DEAD)]


# -- many of them ------------------------------------------------------------


def test_a_killed_process_is_dead_within_a_second_and_its_next_life_alive_at_once() -> None:
    mesh = Mesh("restart")
    nodes = mesh.formed(5)
    mesh.kill(nodes[0])
    assert mesh.run(1.0, until=lambda: mesh.believers(nodes[0], DEAD) == 4)
    mesh.restart(nodes[0])
    assert mesh.run(1.0, until=lambda: mesh.believers(nodes[0], ALIVE) == 4)


def test_two_halves_agree_again_after_a_minute_apart() -> None:
    mesh = Mesh("halves")
    nodes = mesh.formed(10)
    mesh.cut(nodes[:4], nodes[4:])
    assert mesh.run(60.0, until=lambda: all(mesh.believers(each, DEAD) == 6 for each in nodes[:4]))
    mesh.run(60.0)
    late = mesh.join(nodes[9])
    mesh.run(5.0)
    mesh.heal()
    assert mesh.run(10.0, until=lambda: all(mesh.believers(each, ALIVE) == 10 for each in (*nodes, late)))
    assert len({mesh.machine(each).digest for each in (*nodes, late)}) == 1


def test_who_hears_nobody_takes_nobody_with_it() -> None:
    mesh = Mesh("deaf")
    nodes = mesh.formed(10)
    mesh.deafen(nodes[0])
    assert mesh.run(40.0, until=lambda: mesh.believers(nodes[0], DEAD) == 9)
    mesh.run(60.0)
    assert {change.node_id for _, who, change in mesh.changes if change.state is DEAD and who != nodes[0]} == {nodes[0]}


def test_a_machine_that_slept_for_ten_minutes_is_alive_again_at_once() -> None:
    mesh = Mesh("sleep")
    nodes = mesh.formed(5)
    mesh.pause(nodes[0], 600.0)
    mesh.run(599.0)
    assert mesh.believers(nodes[0], DEAD) == 4
    mesh.run(4.0)
    assert mesh.believers(nodes[0], ALIVE) == 4
    assert not [change for _, who, change in mesh.changes if who == nodes[0] and change.state is DEAD]


@pytest.mark.parametrize(("fault", "members", "runs"), [("kill", 5, 20), ("kill", 40, 3), ("lose_power", 5, 20), ("lose_power", 40, 3)])
def test_an_end_is_noticed_in_time(fault: str, members: int, runs: int) -> None:
    found = detection.detection(members, fault, runs)
    assert detection.share(found.everywhere, 0.5) <= (1.0 if fault == "kill" else 7.5)
    assert max(found.everywhere) <= (3.0 if fault == "kill" else 15.0)
    assert not found.wrongly


@pytest.mark.parametrize("members", [3, 10])
def test_who_stands_still_for_two_seconds_or_loses_a_fifth_is_not_held_dead(members: int) -> None:
    assert detection.wrong_deaths(members, 2.0, stalls=True) == 0
    assert detection.wrong_deaths(members, 2.0, loss=0.2) == 0


def test_a_cluster_at_rest_gossips_little_however_large() -> None:
    small, large = detection.idle_bytes(10, 120.0), detection.idle_bytes(100, 60.0)
    assert max(small, large) <= 2 * min(small, large)
    assert large < 100


def test_many_that_come_and_go_at_once_are_agreed_upon() -> None:
    seconds, _ = detection.agreement(60, 5, 5)
    assert seconds < 30


# -- mutants -----------------------------------------------------------------


def any_incarnation_counts(patch: pytest.MonkeyPatch) -> None:
    learn = Membership._learn

    def mutant(self: Membership, now: float, told: MemberClaim, *, spread: bool = True) -> bool:
        record = self._table.get(told.node_id)
        held = record.incarnation if record is not None else 0
        return learn(self, now, replace(told, incarnation=max(told.incarnation, held)), spread=spread)

    patch.setattr(Membership, "_learn", mutant)


def nobody_refutes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Membership, "_refute", lambda self, now, told: True)


def one_refusal_is_enough(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(suspicion, "REFUSERS", 1)


def whoever_stood_still_acts_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(membership, "LAG_SECONDS", math.inf)


def a_node_never_blames_itself(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Membership, "_worsen", lambda self, count: None)


def nobody_compares(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Membership, "_compare", lambda self, now, peer: None)


def deaths_do_not_age(patch: pytest.MonkeyPatch) -> None:
    of = membership._claim_of
    patch.setattr(membership, "_claim_of", lambda now, record: replace(of(now, record), age_seconds=0))


def nobody_asks_at_last(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(membership, "LAST_QUESTION_SECONDS", 0.0)


def every_life_begins_alike(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(membership, "incarnation_of", lambda boot: 1 << 20)


def the_outdated_is_let_pass(patch: pytest.MonkeyPatch) -> None:
    claims_for = Membership._claims_for
    patch.setattr(Membership, "_claims_for", lambda self, now, peer, told=(): claims_for(self, now, peer))


def anybody_confirms_often(patch: pytest.MonkeyPatch) -> None:
    add = suspicion.Suspicion.add
    patch.setattr(
        suspicion.Suspicion, "add", lambda self, accuser, refused: add(self, NodeId(bytes([len(self._accusers)])), refused=refused)
    )


def the_order_is_never_drawn(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemberTable, "next_target", lambda self, now: self.choose(1, lambda record: True)[0])


REVIVED = claim(C, ALIVE, refutations=1)
Test = Callable[[], None]
MUTANTS: list[tuple[Callable[[pytest.MonkeyPatch], None], Test]] = [
    (any_incarnation_counts, test_a_refutation_beats_a_suspicion),
    (any_incarnation_counts, lambda: check_order(([claim(C, DEAD), REVIVED], [REVIVED, claim(C, DEAD)]))),
    (nobody_refutes, test_an_accusation_is_answered_with_the_next_incarnation),
    (nobody_refutes, test_two_halves_agree_again_after_a_minute_apart),
    (one_refusal_is_enough, test_one_refusal_may_be_a_firewall_and_two_are_death),
    (whoever_stood_still_acts_at_once, test_a_node_that_stood_still_reads_before_it_buries),
    (a_node_never_blames_itself, test_a_node_whose_helpers_answer_is_well),
    (nobody_compares, test_two_halves_agree_again_after_a_minute_apart),
    (deaths_do_not_age, test_the_dead_are_forgotten_after_three_days_wherever_they_are_remembered),
    (nobody_asks_at_last, test_a_suspicion_is_laid_before_others_at_its_end),
    (every_life_begins_alike, test_a_restart_outranks_everything_that_was_said_of_an_earlier_life),
    (the_outdated_is_let_pass, lambda: test_a_stale_incarnation_changes_nothing_and_is_set_right(SUSPECT)),
    (anybody_confirms_often, test_the_same_accuser_again_confirms_nothing),
    (the_order_is_never_drawn, test_each_member_is_probed_within_two_rounds),
]


@pytest.mark.parametrize(("mutant", "test"), MUTANTS, ids=lambda each: each.__name__)
def test_a_mutant_is_caught(mutant: Callable[[pytest.MonkeyPatch], None], test: Test, monkeypatch: pytest.MonkeyPatch) -> None:
    test()
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        test()
