"""The digests of the rows of each partition, kept with the rows themselves.

Theory of operation
-------------------
One record per partition that has had rows: key `d` and the partition (two bytes), value the digests of its buckets. The commit that changes
rows carries the record as it is behind them, so after any crash record and rows are of the same moment. Commits take effect in the order
of their calls: what is held here in memory is the state behind the last call, and whoever changes rows calls `replaced` and then `commit`
without an await between the two. So writers of different rows never wait for each other, and no record is read before it is written.

A partition whose record is not to be trusted is *unknown*: it has rows and no readable record (a store from before there were digests), or
a row was replaced of which nobody knows what it had contributed (a damaged one). An unknown partition has no record, on disk either, until
`RowStore.rebuild_digests` has read all its rows, and is compared with nobody meanwhile.

Knows nothing of rows but their paths and digests. Used by `peer.store.rows` alone; read by `peer.care.reconcile`.
"""

from collections.abc import Iterable
from typing import Final

from peer.seams import KV, Delete, Put
from peer.store.formats import ValueCorrupt, unwrap, wrap
from protocol.digest import PartitionDigest

_PREFIX: Final = b"d"
_END: Final = b"e"
_BATCH: Final = 256
_NO_ROWS: Final = PartitionDigest()

Change = tuple[str, bytes, bytes]
"""Path, row digest before and row digest after; empty where there is no row."""


class RowDigests:
    """Digests by partition, as they will be when all commits that were called are durable."""

    def __init__(self) -> None:
        self._known: dict[int, PartitionDigest] = {}
        self._unknown: dict[int, None] = {}

    async def open(self, kv: KV, populated: Iterable[int]) -> None:
        """Read all records; `populated` are the partitions that have rows."""
        first = _PREFIX
        while pairs := await kv.range(first, _END, _BATCH):
            for key, value in pairs:
                try:
                    self._known[int.from_bytes(key[1:], "big")] = PartitionDigest(unwrap(key, value))
                except (ValueCorrupt, ValueError):
                    self._unknown[int.from_bytes(key[1:], "big")] = None
            first = pairs[-1][0] + b"\0"
        self._unknown.update((partition, None) for partition in populated if partition not in self._known)

    def unknown(self) -> list[int]:
        """Return the partitions that are unknown, ascending."""
        return sorted(self._unknown)

    def of(self, partition: int) -> PartitionDigest | None:
        """Return the digest of a partition, to be read only; None while it is unknown."""
        if partition in self._unknown:
            return None
        return self._known.get(partition, _NO_ROWS)

    def after(self, partition: int) -> int | None:
        """Return the next known partition behind `partition` that has had rows, the first one at the end, None if there is none."""
        known = sorted(self._known)
        return next((each for each in known if each > partition), known[0] if known else None)

    def total(self, bitmap: bytes) -> int:
        """Return the sum of the digests of those of the partitions in `bitmap` that are known."""
        return sum(digest.total for partition, digest in self._known.items() if bitmap[partition >> 3] >> (partition & 7) & 1)

    def replaced(self, partition: int, changes: Iterable[Change]) -> list[Put]:
        """Note changes of rows of one partition; return what belongs into the very commit that makes them, called next."""
        if partition in self._unknown:
            return []
        digest = self._known.get(partition)
        if digest is None:
            digest = self._known[partition] = PartitionDigest()
        for path, before, after in changes:
            digest.replace(path, before, after)
        return [_record(partition, digest)]

    def forgotten(self, partition: int) -> list[Delete]:
        """Let a partition be unknown from now on; return what belongs into the commit that makes it so, called next."""
        self._known.pop(partition, None)
        self._unknown[partition] = None
        return [Delete(_key(partition))]

    def rebuilt(self, partition: int, digest: PartitionDigest) -> list[Put]:
        """Let a partition that was unknown have this digest; return what is to be committed next."""
        del self._unknown[partition]
        self._known[partition] = digest
        return [_record(partition, digest)]


def _key(partition: int) -> bytes:
    return _PREFIX + partition.to_bytes(2, "big")


def _record(partition: int, digest: PartitionDigest) -> Put:
    key = _key(partition)
    return Put(key, wrap(key, digest.pack()))
