"""Judge of damage: what a disk did to a copy stays with that copy."""

from peer.errors import LinkLost, RequestFailed
from peer.link import Reply
from peer.session import Session
from protocol.identity import ChunkId, NodeId
from protocol.manifest import chunk_matches
from protocol.messages import ChunkGet, ListFetch, ListPage, Request, RowFetch, RowIs
from protocol.paths import join
from sims.oracles.base import Oracle
from sims.oracles.disks import CHUNK_HEADER_BYTES, is_rotten, rows_of
from sims.world import Machine

ASK_MILLISECONDS = 10_000


class CorruptionIsContained(Oracle):
    """I25: no damaged chunk is served, no damaged row votes, and nothing is damaged on a disk that nobody has damaged."""

    async def look(self) -> None:
        """Ask every node for the rows that its disk has damaged."""
        session = await self._session("judge#1")
        for machine in self._up():
            database = machine.storage.databases["ns"]
            for key in [key for key in database.rotten if key.startswith(b"r")]:
                folder, _, name = key[3:].decode().partition("\0")
                partition = int.from_bytes(key[1:3], "big")
                stamp = session.layout.cfg(partition)
                listing = ListFetch(ASK_MILLISECONDS, partition, stamp, folder, "", "", full=True)
                reply = await self._ask("judge#1", session, machine, listing)
                if reply is not None and isinstance(reply.message, ListPage):
                    is_in_range = not reply.message.last or name.encode() <= reply.message.last.encode()
                    if is_in_range and all(row.path != join(folder, name) for row in reply.message.rows):
                        raise self.violated("I25", f"{machine.name} lists {folder} without {name}; its row there is damaged")
                message = RowFetch(ASK_MILLISECONDS, partition, stamp, join(folder, name), full=False)
                reply = await self._ask("judge#1", session, machine, message)
                if reply is not None and isinstance(reply.message, RowIs) and not reply.message.digest:
                    raise self.violated("I25", f"{machine.name} says that {join(folder, name)} does not exist; its row there is damaged")

    async def finish(self) -> None:
        """Read every disk, then ask every node for every chunk that it might have."""
        for machine in self.world.machines.values():
            self._read(machine)
        chunks = sorted({path for machine in self.world.machines.values() for path in machine.storage.state.chunk_files()})
        session = await self._session("judge#2")
        for machine in self._up():
            for path in chunks:
                chunk_id = ChunkId(bytes.fromhex(path.rpartition("/")[2]))
                reply = await self._ask("judge#2", session, machine, ChunkGet(ASK_MILLISECONDS, chunk_id))
                if reply is None:
                    continue
                good = chunk_matches(chunk_id, reply.payload)
                reply.release()
                if not good:
                    raise self.violated("I25", f"{machine.name} served other bytes than those of chunk {chunk_id.hex()[:12]}")

    def _up(self) -> list[Machine]:
        return [machine for machine in self.world.machines.values() if machine.node is not None]

    async def _session(self, host: str) -> Session:
        return await self.world.session(host, *(machine.name for machine in self._up()))

    async def _ask(self, host: str, session: Session, machine: Machine, message: Request) -> Reply | None:
        """Return the answer of one machine, None if it has none to give."""
        node_id: NodeId = self.world.node(machine.name).node_id

        async def ask() -> Reply:
            return await session.request(node_id, message, timeout_seconds=ASK_MILLISECONDS / 1000)

        try:
            return await self.world.on(host, ask)
        except (LinkLost, RequestFailed, TimeoutError):
            return None

    def _read(self, machine: Machine) -> None:
        disk = machine.storage.state
        for path in disk.chunk_files():
            file = disk.names[path]
            chunk_id = ChunkId(bytes.fromhex(path.rpartition("/")[2]))
            is_sound = machine.lossy_at < 0 and self._is_indexed(machine, chunk_id)
            if is_sound and not chunk_matches(chunk_id, file.content[CHUNK_HEADER_BYTES:]):
                raise self.violated("I25", f"{machine.name} has a damaged copy of {path[:17]}, and its disk did no harm")
        for key, row in rows_of(machine):
            if row is None and not is_rotten(machine, key):
                raise self.violated("I25", f"{machine.name} has a damaged row, and its disk did no harm")

    def _is_indexed(self, machine: Machine, chunk_id: ChunkId) -> bool:
        index = machine.storage.databases.get("chunk")
        return index is not None and bytes(chunk_id) in index.values
