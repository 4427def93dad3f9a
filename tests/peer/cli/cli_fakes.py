"""A client that keeps its files in memory, and statuses to show."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from peer.errors import NoSuchPath, OutcomeUnknown, ShoalError, WrongUsage
from peer.files.cluster_status import ClusterStatus, MemberStatus
from peer.files.entries import ChunkPlace, Entry, PutResult, Stat
from protocol.identity import ChunkId, ClusterId, NodeId
from protocol.layout import Former
from protocol.messages import Forced, Status
from protocol.paths import ROOT, name_of, parent_of


@dataclass
class FakeClient:
    """What the verbs need of `peer.client.asynchronous.Client`."""

    files: dict[str, bytes] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    failure: ShoalError | None = None
    versions: dict[str, str] = field(default_factory=dict)
    begins: list[int] = field(default_factory=list)
    status_found: ClusterStatus | None = None
    is_rebalance_paused: bool | None = None
    silent: tuple[str, ...] = ()
    """Members that do not answer."""
    refused: ShoalError | None = None
    """Why nobody is forgotten."""

    def made(self, path: str) -> Entry:
        kind = "dir" if path in self.folders else "file"
        size = len(self.files.get(path, b""))
        return Entry(path, name_of(path), kind, size, 1_700_000_000_123, 0o640, self.versions.get(path, "abcd1234.17"), "ada", False)

    async def put(self, path, read, *, size, mode=0o644, modified_milliseconds=None, on_progress=None, op_id=None):
        data = b""
        while piece := await read(4096):
            data += piece
        self._fail()
        self.files[path] = data
        return PutResult(path, "abcd1234.17", len(data), 3)

    async def get(self, path, write, *, on_progress=None, begin=0, end=None):
        self._fail()
        self.begins.append(begin)
        await write(memoryview(self.files[path])[begin:end])
        return self.made(path)

    async def verified_prefix(self, path, read_local):
        """Compare in chunks of two bytes."""
        self._fail()
        data, verified = self.files[path], 0
        while verified < len(data) and await read_local(verified, len(data[verified : verified + 2])) == data[verified : verified + 2]:
            verified += len(data[verified : verified + 2])
        return self.made(path), verified

    async def entry(self, path: str) -> Entry:
        self._fail()
        if path not in self.files and path not in self.folders:
            raise NoSuchPath(f"{path}: no such file or folder")
        return self.made(path)

    async def stat(self, path: str) -> Stat:
        return Stat(await self.entry(path), 2, 3, ())

    async def list(self, path: str, *, recursive: bool = False) -> AsyncIterator[Entry]:
        self._fail()
        prefix = path if path == ROOT else path + "/"
        for name in sorted([*self.files, *self.folders]):
            if name.startswith(prefix) and (recursive or parent_of(name) == path):
                yield self.made(name)

    async def remove(self, path: str, *, recursive: bool = False) -> int:
        self._fail()
        gone = [name for name in [*self.files, *self.folders] if name == path or name.startswith(path + "/")]
        if not gone:
            raise NoSuchPath(f"{path}: no such file or folder")
        for name in gone:
            self.files.pop(name, None)
        return len(gone)

    async def copy(self, source: str, target: str) -> PutResult:
        self._fail()
        if source not in self.files:
            raise NoSuchPath(f"{source}: no such file or folder")
        self.files[target] = self.files[source]
        return PutResult(target, "abcd1234.18", len(self.files[source]), 3)

    async def move(self, source: str, target: str) -> PutResult:
        result = await self.copy(source, target)
        del self.files[source]
        return result

    async def make_directory(self, path: str) -> None:
        self._fail()
        self.folders.append(path)

    async def where(self, path: str) -> AsyncIterator[ChunkPlace]:
        self._fail()
        yield ChunkPlace(0, ChunkId(b"\x01" + bytes(31) + b"\xff"), 1024, ("ada", "ben", "cleo"))

    async def status(self) -> ClusterStatus:
        self._fail()
        assert self.status_found is not None
        return self.status_found

    async def forget(self, node_id: NodeId) -> None:
        self._fail()
        assert self.status_found is not None
        members = {each.node_id: each for each in self.status_found.members}
        if self.refused is not None:
            raise self.refused
        if members[node_id].state != "dead":
            raise WrongUsage(f"{members[node_id].name} is there")
        staying = tuple(each for each in self.status_found.members if each.node_id != node_id)
        self.status_found = replace(self.status_found, members=staying)

    async def force(self, gone: Sequence[NodeId], *, begin: bool) -> Forced:
        self._fail()
        assert self.status_found is not None
        if any(each.node_id in gone and each.state != "dead" for each in self.status_found.members):
            raise WrongUsage("somebody is there")
        if begin:
            staying = tuple(each for each in self.status_found.members if each.node_id not in gone)
            former = (Former(ClusterId(self.status_found.cluster_id), 4),)
            self.status_found = replace(self.status_found, cluster_id=b"\xee" * 16, members=staying, former=former)
            raise OutcomeUnknown("the link has ended")  # as it may, once it is done
        return Forced(4096, 12, 410)

    async def set_rebalance(self, *, paused: bool) -> tuple[str, ...]:
        self._fail()
        self.is_rebalance_paused = paused
        return self.silent

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


def member(name: str, state: str = "alive", **numbers: int) -> MemberStatus:
    """Return a member; one that is not alive says nothing of itself."""
    node_id = NodeId(name.encode().ljust(16, b"\0"))
    figures = {"chunks": 10, "chunk_bytes": 4096, "free_bytes": 1 << 30, "owed_chunks": 0, "corrupt_chunks": 0, "lost_partitions": 0}
    own = Status(
        node_id=node_id, name=name, cluster_id=bytes(16), layout_version=4, uptime_seconds=60, rows=3,
        capacity_bytes=1 << 40, unsynced_partitions=0, evict_seconds=600, peers=(), notices=(), **figures | numbers,
    )  # fmt: skip
    return MemberStatus(name, node_id, "10.0.0.1:7400", state, "", 8, own if state == "alive" else None)
