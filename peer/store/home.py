"""Who this node is, from what its data folder says.

The identity is the seed (whose key the certificate proves), `sys.db` (what was promised under it) and `ns.db` (the rows that were
voted with). They belong together: when one of them is lost or corrupt the node takes a new identity, keeps its chunks, which verify
themselves, and sets its rows aside, because a replica that forgot must not vote under its old name. So it does where an identity was
given up (`peer.cluster.lives`), and where the node has left the cluster: what it was is done with, and if it joins again it joins as
somebody else.
"""

from dataclasses import dataclass
from typing import Final

from peer.errors import DiskError, IdentityLost, StorageFailed, StoreCorrupt
from peer.seams import KV, Entropy, Put, Storage
from peer.store.formats import ValueCorrupt, unwrap, wrap
from peer.store.rows import RowStore
from peer.store.system import Leave, SystemStore
from protocol.hashing import plain_hash

SEED_BYTES: Final = 32
_FILE: Final = "identity"
_KEY: Final = b"identity"
_OWNER: Final = b"owner"
"""Key in every database of an identity: whose it is. An empty database in the place of a lost one has none."""


@dataclass(frozen=True, slots=True)
class Home:
    """An opened data folder."""

    seed: bytes
    """Of the node's Ed25519 key."""
    system: SystemStore
    rows: RowStore
    replaced: str = ""
    """What was lost or damaged of an earlier identity in this folder, in whose place this one is; empty if nothing was."""


async def open_home(storage: Storage, entropy: Entropy) -> Home:
    """Return the identity in `storage` with its databases, or a new one with empty ones. The boot is counted durably.

    Raises: StorageFailed.
    """
    seed, fault = await _read_seed(storage)
    if seed is not None:
        databases = await _open_owned(storage, seed)
        if isinstance(databases, str):
            fault = databases
        else:
            try:
                home = await _opened(seed, *databases, fault="")
                if home.system.leave is not Leave.LEFT:
                    return home
                await home.rows.close()
                await home.system.close()
            except (StoreCorrupt, IdentityLost) as error:
                fault = f"{error.name}.db was damaged" if isinstance(error, StoreCorrupt) else "the disk was put back or copied"
                for database in databases:
                    await database.close()
    return await _begin_anew(storage, entropy, fault)


async def _opened(seed: bytes, sys: KV, ns: KV, *, fault: str) -> Home:
    home = Home(seed, SystemStore(sys), RowStore(ns), fault)
    await home.system.open()
    await home.rows.open()
    return home


async def _open_owned(storage: Storage, seed: bytes) -> tuple[KV, KV] | str:
    """Open both databases if both belong to the identity of `seed`; else return what is wrong."""
    opened: list[KV] = []
    fault = ""
    for name in ("sys", "ns"):
        try:
            database = await storage.open_kv(name)
            opened.append(database)
            if await database.get(_OWNER) != wrap(_OWNER, plain_hash(seed)):
                fault = f"{name}.db was lost"
        except StoreCorrupt:
            fault = f"{name}.db was damaged"
        if fault:
            break
    else:
        return opened[0], opened[1]
    for database in opened:
        await database.close()
    return fault


async def _begin_anew(storage: Storage, entropy: Entropy, fault: str) -> Home:
    seed = entropy.token("identity", SEED_BYTES)
    databases = []
    for name in ("sys", "ns"):
        await storage.set_aside(name)
        database = await storage.open_kv(name)
        await database.commit([Put(_OWNER, wrap(_OWNER, plain_hash(seed)))])
        databases.append(database)
    disk = storage.disk
    await disk.write(f"{_FILE}.new", [wrap(_KEY, seed)])
    await disk.sync(f"{_FILE}.new")
    await disk.rename(f"{_FILE}.new", _FILE)
    await disk.sync_directories([""])
    return await _opened(seed, databases[0], databases[1], fault=fault)


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
