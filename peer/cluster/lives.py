"""The lives of this node and of its peers (`protocol.lives`): told in hellos, remembered on disk, and judged.

Owns the token of this life, what was seen of others, and when this node must retire. A retired node votes for nothing any more, notes
durably that its id is given up, and stops; the next start begins as another one (`peer.store.home`).

*What is remembered when.* Each new life of a peer, and how far it has got, is noted in memory at once, and on disk every REMEMBER_SECONDS
at most: so hellos and probes cost no sync. A crash of a peer forgets some of that; a disk that was put back is recognised as long as one of
those whom it meets remembers. What may go unnoticed is a disk put back by no more than a few seconds: the commits since its last probe
(each second one peer, all in turn), and those of the last REMEMBER_SECONDS if all that heard of them lost their power as well.

*When it is known.* Peers tell what they remember before anything else crosses a link, but a client might ask before any peer does. So a
node that was a member before votes for nothing until it has met so many members that they and it are a majority (`may_vote`). In a cluster
of up to five fewer could not agree on anything anyway. In a larger one the replicas of one partition could; but a peer hears of a node's
commits only about twice in as many seconds as there are members, so the few of one partition may not know yet what a disk has forgotten.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace

from peer.errors import IdentityLost
from peer.seams import Entropy
from peer.store.system import SystemStore
from protocol.errors import CloseCode, RemoteProtocolError
from protocol.identity import NodeId, short
from protocol.lives import TOKEN_BYTES, Life, heard, later, may_follow, reason_to_retire, told
from protocol.messages import Hello

REMEMBER_SECONDS = 10.0
REMEMBERED_MAX = 1024
"""Nodes whose lives are remembered: beyond them those are forgotten of which nothing was heard for longest."""

log = logging.getLogger(__name__)


class Lives:
    """The lives that one node knows, its own first."""

    def __init__(self, system: SystemStore, entropy: Entropy, commits: Callable[[], int]) -> None:
        """`commits` says how many commits of promises are durable here."""
        self._system = system
        self._commits = commits
        self._began_with = commits()
        self._own = Life(system.boot, entropy.token("life", TOKEN_BYTES), self._began_with)
        self._seen = system.lives()
        self._changed: dict[NodeId, None] = {}
        self._met: dict[NodeId, None] = {}
        self._is_fresh = not system.was_member
        self._retiring = asyncio.Event()
        self._reason = ""

    # -- telling -------------------------------------------------------------

    @property
    def commits(self) -> int:
        """How many commits of promises this node tells of now."""
        return self._commits()

    def told(self, node_id: NodeId) -> Mapping[str, bytes]:
        """Return what a hello to a node says of lives."""
        return told(self._now(), self._seen.get(node_id))

    # -- judging -------------------------------------------------------------

    def admit(self, peer: Hello) -> tuple[CloseCode, str] | None:
        """Judge a member by its hello, and this node by what the peer has seen of it; return why the link must not stand, or None."""
        try:
            said, seen = heard(peer.optional)
        except RemoteProtocolError as error:
            return error.code, error.reason
        if seen is not None and not self._reason:
            self._reason = reason_to_retire(self._now(), self._began_with, seen)
        if self._reason:
            self._retiring.set()
            return CloseCode.FORMER_LIFE, "this node retires"
        if said is not None:
            before = self._seen.get(peer.node_id)
            if not may_follow(said, before):
                log.warning("node %s is refused: its disk was put back or copied", short(peer.node_id))
                return CloseCode.FORMER_LIFE, "this node remembers a later life of its peer"
            self._note(peer.node_id, later(said, before))
        if not self._is_fresh and len(self._met) < REMEMBERED_MAX:
            self._met[peer.node_id] = None
        return None

    def progressed(self, node_id: NodeId, commits: int) -> None:
        """Note how far a peer says that it has got, on a link that stands."""
        seen = self._seen.get(node_id)
        if seen is not None and commits > seen.commits:
            self._note(node_id, replace(seen, commits=commits))

    def may_vote(self, members: Collection[NodeId]) -> bool:
        """Return whether this node may promise anything as one of `members`: so many have met it and not contradicted."""
        if not self._is_fresh and not self._reason:
            self._is_fresh = sum(node_id in members for node_id in self._met) >= len(members) // 2
        return self._is_fresh and not self._reason

    # -- remembering ---------------------------------------------------------

    async def run(self) -> None:
        """Remember what was seen, until cancelled.

        Raises: IdentityLost when this node must retire, once that is durable.
        """
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(REMEMBER_SECONDS):
                    await self._retiring.wait()
            if self._reason:
                await self._system.give_up(self._reason)
                raise IdentityLost(self._reason)
            await self.remember()

    async def remember(self) -> None:
        """Make durable what was seen since the last time."""
        if self._changed:
            changed, self._changed = self._changed, {}
            await self._system.remember_lives({node_id: self._seen.get(node_id) for node_id in changed})

    # -- inside --------------------------------------------------------------

    def _now(self) -> Life:
        return replace(self._own, commits=self._commits())

    def _note(self, node_id: NodeId, life: Life) -> None:
        if self._seen.pop(node_id, None) != life:
            self._changed[node_id] = None
        self._seen[node_id] = life
        if len(self._seen) > REMEMBERED_MAX:
            forgotten = next(iter(self._seen))
            del self._seen[forgotten]
            self._changed[forgotten] = None
