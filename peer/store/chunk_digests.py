"""What is held of each partition, as a number of chunks and one digest: by what homes find out where they differ.

The digest of a set of chunks is the sum of the last 16 bytes of their ids modulo 2^128 (`protocol.digest` says why a sum will do). It is
kept in memory alone: the whole index is read at every start anyway, and a sum made of it cannot contradict it, whatever a disk has
done to either. From then on it never says more than is durable: a chunk is in it once the commit of its index row is done, and out of it
before the commit begins that removes that row.

There are no buckets as for rows: a partition has some hundred chunks, and their ids cost little beside the one that is missing.
"""

from protocol.digest import digest_of_total
from protocol.identity import ChunkId
from protocol.manifest import chunk_partition


class ChunkDigests:
    """Counts and digests of the chunks of one node by partition."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[int, int]] = {}

    def add(self, chunk_id: ChunkId) -> None:
        """Note that a chunk is here."""
        self._change(chunk_id, 1)

    def remove(self, chunk_id: ChunkId) -> None:
        """Note that a chunk is here no longer."""
        self._change(chunk_id, -1)

    def partitions(self) -> list[int]:
        """Return the partitions of which anything is held, ascending."""
        return sorted(self._held)

    def count(self, partition: int) -> int:
        """Return how many chunks of a partition are held."""
        return self._held.get(partition, (0, 0))[0]

    def total(self, partition: int) -> int:
        """Return the sum over the chunks of a partition, not reduced yet."""
        return self._held.get(partition, (0, 0))[1]

    def of(self, partition: int) -> bytes:
        """Return the digest of a partition."""
        return digest_of_total(self.total(partition))

    def _change(self, chunk_id: ChunkId, sign: int) -> None:
        partition = chunk_partition(chunk_id)
        count, total = self.count(partition) + sign, self.total(partition) + sign * int.from_bytes(chunk_id[-16:], "big")
        if count:
            self._held[partition] = count, total
        else:
            del self._held[partition]
