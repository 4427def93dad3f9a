"""Who this node is, from what its data folder says.

The identity is the seed (whose key the certificate proves) and `sys.db` (what was promised under it). They belong together: when one of
them is lost or corrupt the node takes a new identity, keeps its chunks, which verify themselves, and sets its rows aside, because a
voter that forgot must not vote under its old name. So it does where an identity was given up (`peer.cluster.lives`), and where the node has
left the cluster: what it was is done with, and if it joins again it joins as somebody else.

`ns.db` (the rows that were voted with) belongs to the identity as well, and says after which loss it was begun. When it is lost, corrupt or
another one, the node stays who it is: `sys.db` says durably that the rows are lost before an empty `ns.db` takes their place,
and nothing is voted on with rows that are not here again (`peer.cluster.sync`). Only where no other member is that may have them
it begins anew.
"""

from dataclasses import dataclass
from typing import Final

from peer.errors import DiskError, IdentityLost, StorageFailed, StoreCorrupt
from peer.seams import KV, Entropy, Put, Storage
from peer.store.formats import ValueCorrupt, unwrap, wrap
from peer.store.rows import RowStore
from peer.store.system import Leave, SystemStore
from protocol.hashing import plain_hash
from protocol.layout import Layout

SEED_BYTES: Final = 32
_FILE: Final = "identity"
_KEY: Final = b"identity"
_OWNER: Final = b"owner"
"""Key in every database of an identity: whose it is. An empty database in the place of a lost one has none."""
_NOT_HIS: Final = "it belongs to nobody, or to somebody else"


@dataclass(frozen=True, slots=True)
class Home:
    """An opened data folder."""

    seed: bytes
    """Of the node's Ed25519 key."""
    system: SystemStore
    rows: RowStore
    replaced: str = ""
    """What was lost or damaged of an earlier identity in this folder, in whose place this one is; empty if nothing was."""
    lost: str = ""
    """What was found to be wrong with the rows, in whose place there are none now; empty if nothing was."""


async def open_home(storage: Storage, entropy: Entropy) -> Home:
    """Return the identity in `storage` with its databases, or a new one with empty ones. The boot is counted durably.

    Raises: StorageFailed.
    """
    seed, fault = await _read_seed(storage)
    if seed is not None:
        try:
            system = await _open_system(storage, seed)
            if system.leave is not Leave.LEFT:
                return await _with_rows(storage, seed, system)
            await system.close()
        except StoreCorrupt as error:
            fault = _what(error)
        except IdentityLost:
            fault = "the disk was put back or copied"
    return await _begin_anew(storage, entropy, fault)


async def _with_rows(storage: Storage, seed: bytes, system: SystemStore) -> Home:
    """Return the identity with its rows, or with none if they are lost and others may have them.

    Raises: StoreCorrupt.
    """
    try:
        return Home(seed, system, await _open_rows(storage, seed, system))
    except StoreCorrupt as error:
        layout = await system.latest_layout()
        if layout is None or len(Layout.from_bytes(layout).members) == 1:
            await system.close()
            raise
        lost = _what(error)
    await system.lose_rows()
    await storage.set_aside("ns")
    await _begin(storage, "ns", _owner(seed, system.losses))
    return Home(seed, system, await _open_rows(storage, seed, system), lost=lost)


async def _open_system(storage: Storage, seed: bytes) -> SystemStore:
    """Raises: StoreCorrupt, IdentityLost."""
    system = SystemStore(await _open_owned(storage, "sys", _owner(seed)))
    try:
        await system.open()
    except (StoreCorrupt, IdentityLost):
        await system.close()
        raise
    return system


async def _open_rows(storage: Storage, seed: bytes, system: SystemStore) -> RowStore:
    """Raises: StoreCorrupt."""
    rows = RowStore(await _open_owned(storage, "ns", _owner(seed, system.losses)))
    try:
        await rows.open()
    except StoreCorrupt:
        await rows.close()
        raise
    return rows


async def _open_owned(storage: Storage, name: str, owner: bytes) -> KV:
    """Open the database of `owner`.

    Raises: StoreCorrupt.
    """
    database = await storage.open_kv(name)
    if await database.get(_OWNER) != wrap(_OWNER, owner):
        await database.close()
        raise StoreCorrupt(name, _NOT_HIS)
    return database


def _owner(seed: bytes, losses: int = 0) -> bytes:
    """Return whose a database is: of the identity of `seed`, begun after it had lost its rows so many times."""
    return plain_hash(seed + losses.to_bytes(4, "big") if losses else seed)


def _what(error: StoreCorrupt) -> str:
    return f"{error.name}.db was {'lost' if error.reason == _NOT_HIS else 'damaged'}"


async def _begin(storage: Storage, name: str, owner: bytes) -> None:
    """Make an empty database of `owner`."""
    database = await storage.open_kv(name)
    await database.commit([Put(_OWNER, wrap(_OWNER, owner))])
    await database.close()


async def _begin_anew(storage: Storage, entropy: Entropy, fault: str) -> Home:
    seed = entropy.token("identity", SEED_BYTES)
    for name in ("sys", "ns"):
        await storage.set_aside(name)
        await _begin(storage, name, _owner(seed))
    disk = storage.disk
    await disk.write(f"{_FILE}.new", [wrap(_KEY, seed)])
    await disk.sync(f"{_FILE}.new")
    await disk.rename(f"{_FILE}.new", _FILE)
    await disk.sync_directories([""])
    system = await _open_system(storage, seed)
    return Home(seed, system, await _open_rows(storage, seed, system), replaced=fault)


async def _read_seed(storage: Storage) -> tuple[bytes | None, str]:
    """Return the seed of this folder, or None and what is wrong: nothing in a fresh one."""
    try:
        seed = unwrap(_KEY, await storage.disk.read(_FILE))
    except ValueCorrupt:
        return None, "the identity file was damaged"
    except DiskError as error:
        if not error.missing:  # it may well be intact: an identity is not given up because a file could not be opened
            raise StorageFailed(f"the identity cannot be read: {error}: this node stops; check the folder, then start it again") from None
        used = await storage.disk.names("c")
        return None, "the identity file was lost" if used else ""
    return (seed, "") if len(seed) == SEED_BYTES else (None, "the identity file was damaged")
