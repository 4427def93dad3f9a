"""Judge of repair: what faults took away is made again, and lies where it belongs."""

from protocol.identity import NodeId
from protocol.layout import Layout
from protocol.manifest import ChunkTag, chunk_id_of, chunk_partition
from sims.oracles.base import Oracle
from sims.oracles.disks import chunks_of, has_chunk, latest_layout, running
from sims.world import Machine


class ChunksAreHome(Oracle):
    """I12: once it has been quiet for long enough, every chunk of what can be read lies at each of its homes that still exists."""

    async def finish(self) -> None:
        """Go through what the last look has read, and look for each chunk on the disks."""
        machines = running(self.world)
        layout = latest_layout(machines.values())
        for path, versions in self.history.finals.items():
            for digest in versions:
                for chunk in chunks_of(self.history.contents[digest]):
                    self._look_for(chunk, path, layout, machines)

    def _look_for(self, chunk: bytes, path: str, layout: Layout, machines: dict[NodeId, Machine]) -> None:
        chunk_id = chunk_id_of(ChunkTag.DATA, chunk)
        for home in layout.homes(chunk_partition(chunk_id)):
            machine = machines.get(home)
            if machine is None or machine.lossy_at >= 0:
                continue  # gone for good; or its disk forgot what it had promised, and nobody reads just to check
            if not has_chunk(machine, chunk):
                raise self.violated("I12", f"{machine.name} is a home of a chunk of {path}, {chunk_id.hex()[:12]}, and does not have it")
