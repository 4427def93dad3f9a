"""What a node must not forget: boots, dots, the layout chain, its votes, what it has synced, whom it met and in which lives.

Owns `sys.db`. Its loss means that the node may have promised things that it no longer knows: whoever finds it lost or
corrupt starts as another node (`peer.store.home`). What it knows of `ns.db`: which one is the right one, and what of a lost one is not here
again yet. Values are small; what is asked often is kept in memory.
"""

import asyncio
import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Final

from peer.errors import IdentityLost, StoreCorrupt
from peer.seams import KV, Delete, Put
from peer.store.formats import ValueCorrupt, unwrap, wrap
from protocol import limits
from protocol.codec import decode, encode
from protocol.errors import RemoteProtocolError
from protocol.identity import NodeId
from protocol.lives import Life
from protocol.messages import PeerInfo
from protocol.paxos import AcceptorState

COUNTER_BLOCK: Final = 65_536
"""Dot counters reserved with one commit. What a crash leaves unused of a block is skipped."""
PEERS_MAX: Final = 2 * limits.MEMBERS_MAX

_STAMPS: Final = struct.Struct(f">{limits.PARTITIONS}I")
_BOOT: Final = b"boot"
_COUNTER: Final = b"counter"
_LATEST: Final = b"layout latest"
_SYNCED: Final = b"synced"
_ACCEPTOR: Final = b"acceptor"
_LEAVING: Final = b"leaving"
_PAUSED: Final = b"rebalance paused"
_LAYOUT: Final = b"layout/"
_PEER: Final = b"peer/"
_PEERS_END: Final = b"peer0"
"""The first key behind those of all peers: 0 follows /."""
_COMMITS: Final = b"commits"
_LOSS: Final = b"loss"
_LOSSES: Final = struct.Struct(">II")
_GIVEN_UP: Final = b"given up"
_LIFE: Final = b"life/"
_LIVES_END: Final = b"life0"
_BATCH: Final = 256
_COMMITS_OF_LOST_ROWS: Final = 1 << 40
"""More than any `ns.db` has ever seen: so the commits of this node never seem to go back, though those of its rows are forgotten."""


class Leave(IntEnum):
    """Whether this identity leaves the cluster, for good."""

    NO = 0
    DRAINING = 1
    LEFT = 2


class SystemStore:
    """The node's own memory."""

    def __init__(self, kv: KV) -> None:
        self._kv = kv
        self.boot = 0
        self.commits = 0
        """Commits of what this node promises, in all its lives, as far as they are durable."""
        self._called = 0
        self._next_counter = 0
        self._reserved = 0
        self._reserving = asyncio.Lock()
        self._latest = 0
        self.acceptor: AcceptorState | None = None
        """How this node has voted last: None if it never did."""
        self.leave = Leave.NO
        self.losses = 0
        """How often this node has lost its rows."""
        self.lost_at = 0
        """The layout version in force when it last did, until all are here again; else 0."""
        self.is_rebalance_paused = False
        self._synced = [0] * limits.PARTITIONS
        self._marked = self._synced
        """What the last commit under way says; it becomes `_synced` once it is durable."""
        self._peers: dict[NodeId, PeerInfo] = {}
        self._lives: dict[NodeId, Life] = {}

    async def open(self) -> None:
        """Read everything, and count this start durably before anything leaves the node.

        Raises: StoreCorrupt, IdentityLost (this identity was given up).
        """
        try:
            reason = await self._read(_GIVEN_UP)
            if reason is not None:
                raise IdentityLost(reason.decode())
            self.commits = self._called = await self._integer(_COMMITS)
            self.boot = await self._integer(_BOOT) + 1
            self._reserved = self._next_counter = await self._integer(_COUNTER)
            self._latest = await self._integer(_LATEST)
            self.leave = Leave(await self._integer(_LEAVING))
            self.is_rebalance_paused = bool(await self._integer(_PAUSED))
            synced = await self._read(_SYNCED)
            if synced is not None:
                self._synced = self._marked = list(_STAMPS.unpack(synced))
            loss = await self._read(_LOSS)
            if loss is not None:
                self.losses, self.lost_at = _LOSSES.unpack(loss)
            acceptor = await self._read(_ACCEPTOR)
            if acceptor is not None:
                self.acceptor = decode(AcceptorState, acceptor)
            for key, value in await self._kv.range(_PEER, _PEERS_END, PEERS_MAX):
                info = decode(PeerInfo, unwrap(key, value))
                self._peers[info.node_id] = info
            await self._read_lives()
            if self._latest and await self.latest_layout() is None:
                raise StoreCorrupt("sys", f"the record of layout {self._latest} is missing")
        except (ValueCorrupt, RemoteProtocolError, ValueError, struct.error) as error:
            raise StoreCorrupt("sys", str(error)) from None
        await self._write(_BOOT, self.boot.to_bytes(4, "big"))

    async def close(self) -> None:
        """Release the database."""
        await self._kv.close()

    # -- dots ----------------------------------------------------------------

    async def next_counter(self) -> int:
        """Return a counter that this node has never used and will never use again, from 1."""
        if self._next_counter >= self._reserved:
            async with self._reserving:
                if self._next_counter >= self._reserved:
                    reserved = self._reserved + COUNTER_BLOCK
                    await self._promise([Put(_COUNTER, wrap(_COUNTER, reserved.to_bytes(8, "big")))])
                    self._reserved = reserved
        self._next_counter += 1
        return self._next_counter

    # -- layouts -------------------------------------------------------------

    @property
    def was_member(self) -> bool:
        """Whether this node ever had a layout."""
        return self._latest > 0

    async def save_layout(self, version: int, data: bytes, synced: Sequence[int] = ()) -> None:
        """Persist the record of `version` as the latest, and in the same commit that the partitions `synced` are synced under it."""
        key = _LAYOUT + version.to_bytes(4, "big")
        latest = version.to_bytes(4, "big")
        marked = self._mark(synced, version)
        stamps = Put(_SYNCED, wrap(_SYNCED, _STAMPS.pack(*marked)))
        await self._promise([Put(key, wrap(key, data)), Put(_LATEST, wrap(_LATEST, latest)), stamps])
        self._latest = version
        self._synced = marked

    async def layout(self, version: int) -> bytes | None:
        """Return the record of `version`.

        Raises: StoreCorrupt.
        """
        try:
            return await self._read(_LAYOUT + version.to_bytes(4, "big"))
        except ValueCorrupt as error:
            raise StoreCorrupt("sys", str(error)) from None

    async def latest_layout(self) -> bytes | None:
        """Return the latest record.

        Raises: StoreCorrupt.
        """
        return await self.layout(self._latest) if self._latest else None

    async def save_acceptor(self, state: AcceptorState) -> None:
        """Persist how this node has voted. One at a time: of two that overlap either may be the last."""
        await self._promise([Put(_ACCEPTOR, wrap(_ACCEPTOR, encode(state)))])
        self.acceptor = state

    async def save_leave(self, leave: Leave) -> None:
        """Note durably how far this node is with leaving the cluster."""
        await self._promise([Put(_LEAVING, wrap(_LEAVING, bytes([leave])))])
        self.leave = leave

    async def save_rebalance(self, *, paused: bool) -> None:
        """Note durably whether copies of which there are enough stay where they are."""
        await self._write(_PAUSED, bytes([paused]))
        self.is_rebalance_paused = paused

    # -- what is synced ------------------------------------------------------

    def synced(self, partition: int) -> int:
        """Return the stamp under which this node last synced `partition`, 0 if it never did."""
        return self._synced[partition]

    async def mark_synced(self, partitions: Sequence[int], stamp: int) -> None:
        """Note durably that `partitions` are synced under `stamp`."""
        marked = self._mark(partitions, stamp)
        await self._promise([Put(_SYNCED, wrap(_SYNCED, _STAMPS.pack(*marked)))])
        self._synced = marked

    def _mark(self, partitions: Sequence[int], stamp: int) -> list[int]:
        marked = list(self._marked)
        for partition in partitions:
            marked[partition] = max(marked[partition], stamp)
        self._marked = marked
        return marked

    # -- what was lost -------------------------------------------------------

    def is_lost(self, partition: int) -> bool:
        """Return whether this node must not vote on `partition`: it has lost its rows, and has not synced that one since."""
        return self._synced[partition] < self.lost_at

    async def lose_rows(self) -> None:
        """Note durably that all rows are lost: to be called before there are new ones."""
        self._synced = self._marked = [0] * limits.PARTITIONS
        self._called += _COMMITS_OF_LOST_ROWS
        stamps = Put(_SYNCED, wrap(_SYNCED, _STAMPS.pack(*self._marked)))
        await self._promise([_loss_record(self.losses + 1, self._latest), stamps])
        self.losses, self.lost_at = self.losses + 1, self._latest

    async def rows_recovered(self) -> None:
        """Note durably that all that was lost is here again."""
        await self._promise([_loss_record(self.losses, 0)])
        self.lost_at = 0

    # -- peers ---------------------------------------------------------------

    def peers(self) -> list[PeerInfo]:
        """Return whom this node has met."""
        return list(self._peers.values())

    async def remember_peer(self, node_id: NodeId, name: str, addresses: Sequence[str]) -> None:
        """Remember where a peer listened; nobody new once PEERS_MAX are known."""
        info = PeerInfo(node_id, name, tuple(addresses))
        if self._peers.get(node_id) == info:
            return
        if node_id not in self._peers and len(self._peers) >= PEERS_MAX:
            return
        self._peers[node_id] = info
        await self._write(_PEER + node_id, encode(info))

    # -- lives ---------------------------------------------------------------

    def lives(self) -> dict[NodeId, Life]:
        """Return what is remembered of the lives of others."""
        return dict(self._lives)

    async def remember_lives(self, lives: Mapping[NodeId, Life | None]) -> None:
        """Remember lives of others, in one commit; None forgets."""
        keys = {_LIFE + node_id: life for node_id, life in lives.items()}
        await self._kv.commit([Put(key, wrap(key, encode(life))) if life is not None else Delete(key) for key, life in keys.items()])

    async def give_up(self, reason: str) -> None:
        """Note that this identity must never start again."""
        await self._write(_GIVEN_UP, reason.encode())

    # -- inside --------------------------------------------------------------

    async def _read_lives(self) -> None:
        first = _LIFE
        while pairs := await self._kv.range(first, _LIVES_END, _BATCH):
            for key, value in pairs:
                self._lives[NodeId(key[len(_LIFE) :])] = decode(Life, unwrap(key, value))
            first = pairs[-1][0] + b"\0"

    async def _promise(self, changes: Sequence[Put]) -> None:
        """Commit what others may count on, and count it (`protocol.lives`)."""
        self._called += 1
        number = self._called
        await self._kv.commit([*changes, Put(_COMMITS, wrap(_COMMITS, number.to_bytes(8, "big")))])
        self.commits = max(self.commits, number)

    async def _read(self, key: bytes) -> bytes | None:
        value = await self._kv.get(key)
        return unwrap(key, value) if value is not None else None

    async def _integer(self, key: bytes) -> int:
        body = await self._read(key)
        return int.from_bytes(body, "big") if body is not None else 0

    async def _write(self, key: bytes, body: bytes) -> None:
        await self._kv.commit([Put(key, wrap(key, body))])


def _loss_record(losses: int, lost_at: int) -> Put:
    return Put(_LOSS, wrap(_LOSS, _LOSSES.pack(losses, lost_at)))
