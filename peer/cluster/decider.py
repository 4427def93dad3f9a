"""What the next layout should be, and having it agreed on: who is admitted, who is left out, when a move is completed or taken back.

Every voter of the layout in force looks at the world for itself. What it wishes for it proposes when its turn has come (`protocol.paxos`),
and whatever the voters decide is handed to `Layouts.adopt`, which persists before anything acts. So a cluster goes on without
any minority of its voters, the machine that founded it among them. Whoever has no vote hears no reports, and leaves it to those who have.

A joint layout needs a majority of W for every read and write. So it is taken back soon where W has no live majority, even if all of it
has synced: better the cluster as it was than one that is complete and dead. So it is where a replica of what moves has forgotten its
votes, having lost rows. In a stable layout such partitions get new stamps before anything else (`peer.cluster.sync`,
`peer.care.row_repair`).

Owns the wishes and the driving of a ballot. Knows nothing of how a vote comes about (`peer.cluster.voter`). The detector is advice: a wrong
view proposes what is not needed, and cannot make it unsafe.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Final

from peer.cluster.detector import Detector
from peer.cluster.layouts import Layouts, Peers
from peer.config import (
    ABORT_JOINT_SECONDS,
    ADMIT_QUICK_SECONDS,
    ADMIT_SECONDS,
    COMPLETE_ANYHOW_SECONDS,
    COMPLETE_WITHOUT_SECONDS,
)
from peer.errors import LinkLost, Refused, RequestFailed
from peer.seams import Compute
from protocol import limits
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.eviction import evicted, goes_on, obstacle
from protocol.identity import NodeId, short
from protocol.layout import Layout, Member, abort, complete, propose, refreshed_weight, renewed, weight_of
from protocol.messages import Done, Forget, Hello, LayoutVote, MemberState, Role
from protocol.paxos import ANSWER_SECONDS, Ask, Phase, Proposer, turn_seconds
from protocol.placement import Row

DECIDE_SECONDS = 0.5
"""How often a voter looks at the world."""

_LEAVING: Final = (MemberState.DRAINING, MemberState.LEFT)

log = logging.getLogger(__name__)


class Ending(Enum):
    """How a layout that waits for owners to sync is followed by one that does not."""

    COMPLETED = "completed"
    TAKEN_BACK = "taken back"


@dataclass(frozen=True, slots=True)
class Renewal:
    """New stamps for partitions, because some replica has forgotten how it voted under the old ones."""

    partitions: frozenset[int]


Wish = Ending | Renewal | tuple[Member, ...]
"""What should follow a layout: the end of its moves, new stamps, or other members."""


class Decider:
    """What one node makes of its vote: it proposes the next layout."""

    def __init__(
        self,
        node_id: NodeId,
        layouts: Layouts,
        detector: Detector,
        peers: Peers,
        is_empty: Callable[[], bool],
        compute: Compute,
        evict_seconds: float,
    ) -> None:
        self._node_id = node_id
        self._layouts = layouts
        self._detector = detector
        self._peers = peers
        self._is_empty = is_empty
        self._compute = compute
        self._evict_seconds = evict_seconds
        self._version = 0
        """What is noted below is of this version."""
        self._seen_at = 0.0
        self._reports: dict[NodeId, set[int]] = {}
        self._is_news = True
        """Whether `_missing` is older than the reports."""
        self._missing: frozenset[NodeId] | None = None
        """Who has not synced all of its partitions; None while some W has no majority that has synced."""
        self._forgotten: set[NodeId] = set()
        """Members that are dead and that a person has given up."""
        self._void: dict[int, int] = {}
        """Partitions, and the highest stamp of each that is void, for some replica has forgotten how it voted under it."""
        self._wished_since: float | None = None
        self._lacking_since: float | None = None
        """Since when some W has had no live majority."""
        self._fruitless: tuple[tuple[Member, ...], list[NodeId]] | None = None
        """Members, and who of them was alive, that no record came of."""
        self._entries: dict[NodeId, tuple[Member, int]] = {}
        """What the layout says of each member, and since which version."""

    def take_report(self, reporter: NodeId, version: int, partitions: Sequence[int]) -> None:
        """Note that `reporter` has synced `partitions` of layout `version`, which waits for that. Reports of other versions are ignored."""
        layout = self._layouts.current
        if layout is None or version != layout.version:
            return
        self._note(layout)
        known = self._reports.setdefault(reporter, set())
        if not known.issuperset(partitions):
            known.update(partitions)
            self._is_news = True

    def take_forgotten_votes(self, version: int, partitions: Sequence[int]) -> None:
        """Note that some replica has forgotten how it voted on `partitions` under stamps up to `version`, which is known here."""
        for partition in partitions:
            self._void[partition] = max(version, self._void.get(partition, 0))
        self._drop_renewed()

    def _drop_renewed(self) -> None:
        layout = self._layouts.current
        if layout is not None:
            self._void = {partition: version for partition, version in self._void.items() if layout.stamps[partition] <= version}

    async def forget(self, request: Forget, *, pass_on: bool) -> Done:
        """Leave a member that is dead out as soon as that is decided. Who has no vote asks one that has, with `pass_on`.

        Raises: Refused (INVALID: it is there; UNAVAILABLE: it cannot be decided, or the others could not go on; NO_CLUSTER).
        """
        layout = self._layouts.current
        if layout is None:
            raise Refused(ErrorCode.NO_CLUSTER, "this node belongs to no cluster yet")
        if request.node_id not in layout.members:
            return Done()
        if self._node_id not in layout.record.voters:
            if not pass_on:
                raise Refused(ErrorCode.UNAVAILABLE, "this node has no vote")
            return await self._pass_on(layout, request)
        if self._detector.is_alive(request.node_id):
            name = layout.members[request.node_id].name
            raise Refused(ErrorCode.INVALID, f"{name} is there: `shoal leave` beside its node takes it out")
        fault = obstacle(layout, request.node_id, self._detector.state)
        if fault:
            by_force = "" if goes_on(layout, self._detector.is_alive) else "; if they are gone for good: `shoal forget --force`"
            raise Refused(ErrorCode.UNAVAILABLE, fault + by_force)
        self._forgotten.add(request.node_id)
        return Done()

    async def _pass_on(self, layout: Layout, request: Forget) -> Done:
        for voter in layout.record.voters:
            try:
                await self._peers.request(voter, request, timeout_seconds=ANSWER_SECONDS)
            except RequestFailed as failed:
                raise Refused(failed.code, failed.reason) from None
            except (LinkLost, TimeoutError):
                continue
            return Done()
        raise Refused(ErrorCode.UNAVAILABLE, "nobody who votes can be reached")

    async def run(self) -> None:
        """Decide, until cancelled."""
        while True:
            layout = self._layouts.current
            if layout is not None:
                self._note(layout)
                if self._node_id in layout.record.voters:
                    await self._look(layout)
            await asyncio.sleep(DECIDE_SECONDS)

    # -- wishes --------------------------------------------------------------

    async def _look(self, layout: Layout) -> None:
        wish = self._wish(layout)
        now = self._now()
        if wish is None:
            self._wished_since = None
            return
        if self._wished_since is None:
            self._wished_since = now
        live = [voter for voter in layout.record.voters if self._detector.is_alive(voter)]
        if now < self._wished_since + turn_seconds(self._node_id, layout, live):
            return
        wanted = await self._record(layout, wish)
        if wanted is not None:
            await self._agree(layout, wish, wanted)

    def _wish(self, layout: Layout) -> Wish | None:
        forgotten = frozenset(self._void)
        if layout.unsettled_partitions:
            return self._ending(layout, forgotten)
        if forgotten:
            return Renewal(forgotten)
        members = self._members(layout)
        is_fruitless = self._fruitless == (members, self._alive(members))
        return None if is_fruitless else members

    def _ending(self, layout: Layout, forgotten: frozenset[int]) -> Ending | None:
        now = self._now()
        if any(map(layout.is_joint_at, forgotten)):
            return Ending.TAKEN_BACK  # who has forgotten its votes cannot sync: then there are new stamps, and it all begins anew
        if self._lacks_majority(layout):
            if self._lacking_since is None:
                self._lacking_since = now
            return Ending.TAKEN_BACK if now - self._lacking_since >= ABORT_JOINT_SECONDS else None
        self._lacking_since = None
        if self._is_news:
            self._missing, self._is_news = self._find_missing(layout), False
        if self._missing is None:
            return None
        away = min((self._detector.away_seconds(owner) for owner in sorted(self._missing)), default=COMPLETE_WITHOUT_SECONDS)
        if away >= COMPLETE_WITHOUT_SECONDS or now - self._seen_at >= COMPLETE_ANYHOW_SECONDS:
            return Ending.COMPLETED
        return None

    def _find_missing(self, layout: Layout) -> frozenset[NodeId] | None:
        missing: set[NodeId] = set()
        for partition in layout.unsettled_partitions:
            owners = layout.wanted_rows[partition]
            without = [owner for owner in owners if partition not in self._reports.get(owner, ())]
            if len(owners) - len(without) < _majority(owners):
                return None
            missing.update(without)
        return frozenset(missing)

    def _members(self, layout: Layout) -> tuple[Member, ...]:
        """Return who should be a member: all who are and neither leave nor are gone for good, and newcomers that have stayed a while."""
        quick = len(layout.members) < layout.record.replication or self._is_empty()
        pace = ADMIT_QUICK_SECONDS if quick else ADMIT_SECONDS
        members = dict(layout.members)
        for peer in self._detector.alive_peers():
            if peer.role is not Role.MEMBER or peer.cluster_id not in (b"", layout.cluster_id):
                continue
            known = members.get(peer.node_id)
            if known is None:
                wait = max(pace, self._detector.must_stay_seconds(peer.node_id))
                is_due = len(members) < limits.MEMBERS_MAX and self._detector.alive_seconds(peer.node_id) >= wait
            else:
                is_due = peer.layout_version >= self._entries[peer.node_id][1]  # else the layout may know better than this hello
            if is_due:
                members[peer.node_id] = _member_of(peer, known)
        staying = [node_id for node_id in sorted(members) if self._detector.state(node_id) not in _LEAVING]
        if not staying:
            return layout.record.members
        away = {node_id: self._detector.away_seconds(node_id) for node_id in staying if not self._detector.is_alive(node_id)}
        self._forgotten.intersection_update(away)
        gone = self._forgotten | evicted(away, len(staying), layout.record.replication, self._evict_seconds)
        return tuple(members[node_id] for node_id in staying if node_id not in gone)

    async def _record(self, layout: Layout, wish: Wish) -> Layout | None:
        match wish:
            case Ending.COMPLETED:
                return complete(layout)
            case Ending.TAKEN_BACK:
                return abort(layout)
            case Renewal():
                return renewed(layout, wish.partitions)
        wanted = await self._compute.run(lambda: propose(layout, wish))  # seconds, when a hundred arrive at once
        if wanted is None or self._lacks_majority(wanted) or self._lacks_sources(wanted):
            self._fruitless = wish, self._alive(wish)
            return None
        return wanted

    def _lacks_majority(self, layout: Layout) -> bool:
        """Return whether some W has no live majority, as far as this node sees."""
        return any(map(self._is_out_of_use, dict.fromkeys(layout.wanted_rows[partition] for partition in layout.joint_partitions)))

    def _lacks_sources(self, layout: Layout) -> bool:
        """Return whether some O has no live majority: nobody could sync from it, so the move would not end."""
        return any(map(self._is_out_of_use, dict.fromkeys(layout.old_set(partition) for partition in layout.joint_partitions)))

    def _is_out_of_use(self, owners: Row) -> bool:
        return sum(map(self._detector.is_alive, owners)) < _majority(owners)

    def _alive(self, members: Sequence[Member]) -> list[NodeId]:
        return [member.node_id for member in members if self._detector.is_alive(member.node_id)]

    def _note(self, layout: Layout) -> None:
        """Begin anew with a new layout."""
        if layout.version == self._version:
            return
        entries = self._entries
        since = layout.version if self._version else 0  # after a start all hellos are new
        self._entries = {
            node_id: entries[node_id] if node_id in entries and entries[node_id][0] == member else (member, since)
            for node_id, member in layout.members.items()
        }
        self._drop_renewed()
        self._version, self._seen_at = layout.version, self._now()
        self._reports.clear()
        self._is_news = True
        self._wished_since = self._lacking_since = self._fruitless = None

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    # -- ballots -------------------------------------------------------------

    async def _agree(self, layout: Layout, wish: Wish, wanted: Layout) -> None:
        """Propose `wanted` until a successor of `layout` is in force, or until it is not wished for any more."""
        loop = asyncio.get_running_loop()
        proposer = Proposer(self._node_id, layout, wanted, loop.time())
        voted = asyncio.Event()
        asking: list[asyncio.Task[None]] = []
        try:
            while proposer.decided is None and self._layouts.current is layout:
                if proposer.phase is Phase.WAITING and self._wish(layout) != wish:
                    break
                proposer.tick(loop.time())
                asking = [task for task in asking if not task.done()]
                asking += [loop.create_task(self._ask(proposer, ask, voted)) for ask in proposer.take_effects()]
                voted.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(min(loop.time() + DECIDE_SECONDS, proposer.next_deadline() or 0.0)):
                        await voted.wait()
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        if proposer.decided is not None:
            await self._layouts.adopt(proposer.decided)

    async def _ask(self, proposer: Proposer, ask: Ask, voted: asyncio.Event) -> None:
        try:
            reply = await self._peers.request(ask.voter, ask.request, timeout_seconds=ANSWER_SECONDS)
            assert isinstance(reply.message, LayoutVote)
            proposer.receive(ask.voter, ask.request, reply.message, self._now())
        except (LinkLost, RequestFailed, TimeoutError, RemoteProtocolError) as error:
            log.debug("no vote of %s on layout %d: %s", short(ask.voter), ask.request.version, error)
            return
        voted.set()


def _majority(owners: Row) -> int:
    return len(owners) // 2 + 1


def _member_of(peer: Hello, known: Member | None) -> Member:
    weight = refreshed_weight(known.weight, peer.capacity_bytes) if known is not None else weight_of(peer.capacity_bytes)
    return Member(peer.node_id, peer.name, peer.zone, weight, peer.addresses)
