"""The world as a node sees it: every way out of the process, as one interface each.

Time, tasks and byte streams are asyncio's own (a simulation brings its own event loop). Everything else
that is not computation reaches a node through `Env`. `peer.real` implements these for a machine, `sims` for a
simulated one; `tests/contracts/` holds both to the same suite. Nothing here knows what shoal is.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from protocol.hashing import Buffer
from protocol.identity import NodeId

T = TypeVar("T")

Endpoint = Callable[[NodeId], asyncio.BufferedProtocol]
"""Makes the protocol of a new connection, given the identity that the peer has proven."""


class Listener(Protocol):
    """An open port."""

    @property
    def addresses(self) -> Sequence[str]:
        """`HOST:PORT` under which others can reach it now, most likely first; never a wildcard address."""

    async def close(self) -> None:
        """Stop accepting. Connections that exist stay."""


class Network(Protocol):
    """Connections to proven peers. TLS, certificates and sockets are behind it."""

    @property
    def node_id(self) -> NodeId:
        """Who this side proves to be."""

    async def listen(self, address: str, endpoint: Endpoint) -> Listener:
        """Accept connections at `HOST:PORT` (port 0: any), handing each to `endpoint` once the peer's identity is proven.

        Raises: ConnectFailed when the address is taken or not ours.
        """

    async def connect(self, address: str, endpoint: Endpoint, *, timeout_seconds: float) -> asyncio.BufferedProtocol:
        """Connect to `address` and return the protocol, whose `connection_made` has been called.

        Raises: ConnectFailed.
        """


class Disk(Protocol):
    """One folder of files. Names are relative, `/`-separated.

    Nothing written is durable before `sync`, no name (new, replaced or removed) before `sync_directories` with its folder.
    Every method raises `DiskError` when the operation failed harmlessly, `StorageFailed` when an input or output error means that
    what was believed written may be lost; after the first `StorageFailed` every further call raises it.
    """

    async def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return the bytes of a file from `offset`: `length` of them, or fewer at its end; all without a length."""

    async def write(self, path: str, parts: Sequence[Buffer]) -> None:
        """Create or replace the file with the concatenation of `parts`. Not atomic: write under a temporary name."""

    async def sync(self, path: str) -> None:
        """Make the content of the file durable."""

    async def rename(self, source: str, target: str) -> None:
        """Rename a file atomically, replacing `target`."""

    async def place(self, temporary: str, path: str, parts: Sequence[Buffer]) -> None:
        """Write `parts` as `temporary`, sync it, and rename it to `path`: these three steps, in this order. Where one fails,
        `temporary` may be left.
        """

    async def sync_directories(self, paths: Sequence[str]) -> None:
        """Make the names in each of these folders durable (`""`: the root folder)."""

    async def remove(self, path: str) -> None:
        """Remove a file; a file that is not there is no error."""

    async def make_directory(self, path: str) -> None:
        """Create a folder and those above it; one that exists is no error."""

    async def names(self, path: str) -> list[str]:
        """Return the names in a folder, sorted; empty if there is no such folder."""

    async def space(self) -> tuple[int, int]:
        """Return (total, free) bytes."""


@dataclass(frozen=True, slots=True)
class Put:
    """Set `key` to `value`."""

    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove `key`, if it is there."""

    key: bytes


class KV(Protocol):
    """Ordered bytes to bytes, one consistent state, many commits grouped into one sync.

    Reads see every commit that has resolved, and nothing that is not durable. Raises `StorageFailed` as `Disk` does.
    """

    async def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`."""

    async def range(self, first: bytes, end: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
        """Return up to `limit` pairs with first <= key < end (None: no end) in ascending order."""

    async def count(self, first: bytes, end: bytes | None) -> int:
        """Return the number of keys with first <= key < end."""

    async def commit(self, changes: Sequence[Put | Delete]) -> None:
        """Apply all changes or none; when this returns they are durable. Commits take effect in the order of their calls."""

    async def close(self) -> None:
        """Finish what is under way and release the files."""


class Storage(Protocol):
    """A node's data folder, locked for this process."""

    @property
    def disk(self) -> Disk:
        """Its files."""

    async def open_kv(self, name: str) -> KV:
        """Open the database `name`, creating it empty if it does not exist.

        Raises: StoreCorrupt when what is there cannot be read as a database.
        """

    async def set_aside(self, name: str) -> None:
        """Keep the closed database `name` under another name, where nothing reads it, so that it opens empty."""

    async def close(self) -> None:
        """Unlock."""


class WallClock(Protocol):
    """Time for people, never for order."""

    def milliseconds(self) -> int:
        """Milliseconds since 1970, UTC; may jump either way."""


class Entropy(Protocol):
    """Randomness in streams: what one part draws never changes what another part sees."""

    def token(self, label: str, count: int) -> bytes:
        """Return `count` unpredictable bytes."""

    def uniform(self, label: str, low: float, high: float) -> float:
        """Return a number from [low, high): for jitter and choice, not for secrets."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """What a node says of itself on the LAN."""

    node_id: NodeId
    addresses: tuple[str, ...]


class Discovery(Protocol):
    """Hints where peers of the same key may listen. Late, stale, doubled, missing: never a membership, never a failure detector."""

    async def announce(self, announcement: Announcement) -> None:
        """Begin to announce this node, or change what is announced."""

    def hints(self) -> AsyncIterator[tuple[str, ...]]:
        """Yield the addresses of one possible peer at a time (the own ones as well), for as long as it is iterated."""

    async def close(self) -> None:
        """Say goodbye and stop."""


class Faults(Protocol):
    """Lets a simulation make rare paths common (FoundationDB's "buggify")."""

    def sometimes(self, label: str) -> bool:
        """Return False; in a simulation, for some runs and some labels, now and then True."""


class Compute(Protocol):
    """CPU work that would block the loop: hashing a chunk, above all."""

    async def run(self, work: Callable[[], T]) -> T:
        """Return `work()`, computed off the loop (inline in a simulation). `work` touches nothing that others change."""


@dataclass(frozen=True, slots=True)
class Env:
    """One machine, as seen by one node."""

    network: Network
    storage: Storage
    wall_clock: WallClock
    entropy: Entropy
    discovery: Discovery
    faults: Faults
    compute: Compute


@dataclass(frozen=True, slots=True)
class ClientEnv:
    """What a client needs of a machine: no storage, no listening."""

    network: Network
    wall_clock: WallClock
    entropy: Entropy
    faults: Faults
    compute: Compute
