"""The failure detector in the node: the machine of `protocol.membership`, its one timer, and the links that its messages travel on.

Owns nothing but that: what is judged how, and why a judgement is advice and no more, is written there. No message has a task: questions
and answers are callbacks of the links, and who has no link to the asked one is silent to it.
"""

import asyncio
import logging
from dataclasses import replace
from functools import partial
from typing import Final, cast

from peer.cluster.lives import Lives
from peer.links import Links
from peer.seams import Entropy
from protocol.flapping import Flaps
from protocol.identity import NodeId, short
from protocol.membership import Membership, MemberView, Send
from protocol.messages import Answer, Hello, MemberState, Probe, ProbeAck, Request

STANDSTILL_SECONDS = 5.0
"""A timer that is later than this says that this process did not run: whoever was away when it stopped may be back for long, and whoever
was there away."""

log = logging.getLogger(__name__)

_ALIVE: Final = (MemberState.ALIVE, MemberState.DRAINING)
_IN_DOUBT: Final = (*_ALIVE, MemberState.SUSPECT)


class Detector:
    """Who seems to be there, as one node sees it in one life."""

    def __init__(self, node_id: NodeId, boot: int, links: Links, entropy: Entropy, lives: Lives) -> None:
        """Begin with nobody else. `lives` hears of every commit count that a peer tells, and says the own one."""
        self._node_id = node_id
        self._links = links
        self._lives = lives
        self._loop = asyncio.get_running_loop()
        self._watching_since = self._loop.time()
        """When this node started, or went on after it had stood still."""
        self._machine = Membership(node_id, boot, lambda bound: int(entropy.uniform("membership", 0.0, bound)), self._watching_since)
        self._flaps = Flaps()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._carry_out()

    def stop(self) -> None:
        """Judge nobody any more."""
        if self._timer is not None:
            self._timer.cancel()

    # -- who is there --------------------------------------------------------

    def state(self, node_id: NodeId) -> MemberState:
        """Return what a node is held to be; who was never heard of is DEAD."""
        view = self._machine.member(node_id)
        return view.state if view is not None else MemberState.DEAD

    def members(self) -> list[MemberView]:
        """Return all that are known, this node included."""
        return self._machine.members()

    def is_alive(self, node_id: NodeId) -> bool:
        """Return whether a node is not held to be dead: in doubt it is there."""
        return self.state(node_id) in _IN_DOUBT

    def seems_well(self, node_id: NodeId) -> bool:
        """Return whether nobody doubts that a node is there."""
        return self.state(node_id) in _ALIVE

    def alive_peers(self) -> list[Hello]:
        """Return the hellos of all linked peers that are there."""
        return [peer for peer in self._links.peers() if self.is_alive(peer.node_id)]

    def alive_seconds(self, node_id: NodeId) -> float:
        """Return for how long a node has been there, undoubted, at most since this node last stood still; 0 when it is not there."""
        self._notice_standstill()
        view = self._machine.member(node_id)
        return self._loop.time() - max(self._watching_since, view.since) if view is not None and view.state in _ALIVE else 0.0

    def must_stay_seconds(self, node_id: NodeId) -> float:
        """Return for how long a node that came and went too often has to have been there before it is counted on; else 0."""
        return self._flaps.must_stay_seconds(node_id)

    def away_seconds(self, node_id: NodeId) -> float:
        """Return for how long a node has been held dead, at most since this node started or last stood still; 0 when it is there."""
        if self.is_alive(node_id):
            return 0.0
        self._notice_standstill()
        view = self._machine.member(node_id)
        return self._loop.time() - max(self._watching_since, view.since if view is not None else self._watching_since)

    # -- what is seen --------------------------------------------------------

    def peer_up(self, peer: Hello) -> None:
        """Note that a member has said hello on a link."""
        self._machine.link_up(self._loop.time(), peer.node_id, peer.boot)
        self._carry_out()

    def drain(self) -> None:
        """Say that this node is about to leave."""
        self._machine.drain(self._loop.time())
        self._carry_out()

    def leave(self) -> None:
        """Say that this node leaves. It takes some gossip until all have heard of it."""
        self._machine.leave(self._loop.time())
        self._carry_out()

    def peer_refuses(self, node_id: NodeId) -> None:
        """Note that nobody listens where a node was: if no link to it stands, its process has ended."""
        if self._links.peer(node_id) is None:
            self._machine.link_refused(self._loop.time(), node_id)
            self._carry_out()

    def answer_at_once(self, sender: NodeId, request: Request) -> Answer | None:
        """Answer a probe of a member; None to everything else."""
        if not isinstance(request, Probe):
            return None
        self._lives.progressed(sender, request.commits)
        return replace(cast(ProbeAck, self._asked(sender, request).result()), commits=self._lives.commits)

    async def serve(self, sender: NodeId, request: Request) -> Answer:
        """Answer a request of a member."""
        return await self._asked(sender, request)

    # -- inside --------------------------------------------------------------

    def _asked(self, sender: NodeId, request: Request) -> "asyncio.Future[Answer]":
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._machine.receive(self._loop.time(), sender, request, answer)
        self._carry_out()
        return answer

    def _answered(self, sent: Send, give_up_at: float, answer: Answer) -> None:
        if isinstance(answer, ProbeAck):
            self._lives.progressed(sent.to, answer.commits)
        now = self._loop.time()
        if now <= give_up_at:
            self._machine.answered(now, sent, answer)
            self._carry_out()

    def _tick(self) -> None:
        self._notice_standstill()
        self._timer = None
        self._machine.tick(self._loop.time())
        self._carry_out()

    def _notice_standstill(self) -> None:
        now = self._loop.time()
        if self._timer is not None and now > self._due + STANDSTILL_SECONDS:
            self._watching_since = now

    def _carry_out(self) -> None:
        """Do what the machine wants, and look after it again when it asks for that."""
        self._notice_standstill()
        effects = self._machine.take_effects()
        for reply in effects.replies:
            answer = cast("asyncio.Future[Answer]", reply.token)
            if not answer.done():
                answer.set_result(reply.message)
        for sent in effects.sends:
            give_up_at = self._loop.time() + sent.message.deadline_milliseconds / 1000
            message = replace(sent.message, commits=self._lives.commits) if isinstance(sent.message, Probe) else sent.message
            self._links.ask(sent.to, message, partial(self._answered, sent, give_up_at))
        for change in effects.changes:
            self._flaps.note(self._loop.time(), change.node_id, is_there=change.state < MemberState.DEAD)
            log.info("node %s is %s, in its life %d", short(change.node_id), change.state.name.lower(), change.boot)
        due = self._machine.next_deadline()
        if self._timer is None or self._due != due:
            self.stop()
            self._due = due
            self._timer = self._loop.call_at(due, self._tick)
