"""Judge of damage: what a disk did to a copy stays with that copy."""

from peer.errors import LinkLost, RequestFailed
from protocol.codec import decode_own
from protocol.errors import RemoteProtocolError
from protocol.identity import ChunkId
from protocol.manifest import chunk_matches
from protocol.messages import ChunkGet
from protocol.versions import Row
from sims.oracles.base import Oracle
from sims.oracles.durability import CHUNK_HEADER_BYTES, VALUE_HEADER_BYTES
from sims.world import Machine

ASK_SECONDS = 10.0


class CorruptionIsContained(Oracle):
    """I25: no damaged chunk is served, and no chunk or row is damaged on a disk that nobody has damaged."""

    async def finish(self) -> None:
        """Read every disk, then ask every node for every chunk that it might have."""
        for machine in self.world.machines.values():
            self._read(machine)
        chunks = sorted({path for machine in self.world.machines.values() for path in machine.storage.state.chunk_files()})
        up = [machine for machine in self.world.machines.values() if machine.node is not None]
        session = await self.world.session("judge#1", *(machine.name for machine in up))
        for machine in up:
            assert machine.node is not None
            node_id = machine.node.node_id
            for path in chunks:
                chunk_id = ChunkId(bytes.fromhex(path.rpartition("/")[2]))
                message = ChunkGet(int(ASK_SECONDS * 1000), chunk_id)

                async def ask(message: ChunkGet = message, node_id=node_id):  # type: ignore[no-untyped-def]
                    return await session.request(node_id, message, timeout_seconds=ASK_SECONDS)

                try:
                    reply = await self.world.on("judge#1", ask)
                except (LinkLost, RequestFailed, TimeoutError):
                    continue
                good = chunk_matches(chunk_id, reply.payload)
                reply.release()
                if not good:
                    raise self.violated("I25", f"{machine.name} served other bytes than those of chunk {chunk_id.hex()[:12]}")

    def _read(self, machine: Machine) -> None:
        disk = machine.storage.state
        for path in disk.chunk_files():
            file = disk.names[path]
            chunk_id = ChunkId(bytes.fromhex(path.rpartition("/")[2]))
            is_sound = machine.name not in self.plan.fragile and self._is_indexed(machine, chunk_id)
            if is_sound and not chunk_matches(chunk_id, file.content[CHUNK_HEADER_BYTES:]):
                raise self.violated("I25", f"{machine.name} has a damaged copy of {path[:17]}, and its disk did no harm")
        database = machine.storage.databases.get("ns")
        for key, value in database.values.items() if database is not None else ():
            if key.startswith(b"r") and key not in (database.rotten if database is not None else ()):
                try:
                    decode_own(Row, value[VALUE_HEADER_BYTES:])
                except RemoteProtocolError as error:
                    raise self.violated("I25", f"{machine.name} has a damaged row, and its disk did no harm: {error}") from None

    def _is_indexed(self, machine: Machine, chunk_id: ChunkId) -> bool:
        index = machine.storage.databases.get("chunk")
        return index is not None and bytes(chunk_id) in index.values
