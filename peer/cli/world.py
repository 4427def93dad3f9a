"""The real world, put together: the only place that builds an `Env` from `peer.real`.

Owns how a command finds a node to talk to: the one that was named, else the one of this home if it answers, else
any that discovery hears of.
"""

import asyncio
import platform
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from peer.cli.home_files import DATA_FOLDER, key_for_client, node_addresses
from peer.cli.settings import Settings
from peer.cli.text import checked_address
from peer.client import Client
from peer.errors import Unavailable
from peer.real.clock import RealWallClock
from peer.real.compute import RealCompute
from peer.real.discovery import ZeroconfDiscovery
from peer.real.entropy import RealEntropy
from peer.real.faults import NoFaults
from peer.real.keys import ClusterKey
from peer.real.network import RealNetwork
from peer.real.storage import RealStorage
from peer.seams import Announcement, ClientEnv, Discovery, Env
from peer.session import Session, connect
from peer.store.home import SEED_BYTES, Home, open_home

HOME_NODE_SECONDS = 2.0
"""How long the node of this home may take to answer before discovery is asked."""
DISCOVERY_SECONDS = 4.0
"""How long a command listens for a node."""
CONNECT_SECONDS = 5.0
"""How long a node that was named or found may take to let a client in."""


class NoDiscovery:
    """`peer.seams.Discovery` of a node that was told to use none."""

    async def announce(self, announcement: Announcement) -> None:
        """Say nothing."""

    async def hints(self) -> AsyncIterator[tuple[str, ...]]:
        """Wait for ever, without a hint."""
        await asyncio.get_running_loop().create_future()
        yield ()

    async def close(self) -> None:
        """Nothing was opened."""


def discovery_on(key: ClusterKey, interfaces: Sequence[str], *, enabled: bool) -> Discovery:
    """Return discovery on `interfaces` (none: those of the LAN), or none at all."""
    return ZeroconfDiscovery(key, interfaces) if enabled else NoDiscovery()


async def build_node_world(key: ClusterKey, home: Path, discovery: Discovery) -> tuple[Env, Home]:
    """Open the data folder of `home` and return the node's world and identity.

    Raises: WrongUsage when the folder is in use or of a newer format, ShoalError, StorageFailed.
    """
    storage = RealStorage(home / DATA_FOLDER)
    entropy = RealEntropy()
    identity = await open_home(storage, entropy)
    env = Env(
        network=RealNetwork(key, identity.seed),
        storage=storage,
        wall_clock=RealWallClock(),
        entropy=entropy,
        discovery=discovery,
        faults=NoFaults(),
        compute=RealCompute(),
    )
    return env, identity


@asynccontextmanager
async def client_of(settings: Settings) -> AsyncIterator[Client]:
    """Yield a client of the cluster that the settings point at.

    Raises: NotAllowed, Unavailable, WrongUsage.
    """
    key = key_for_client(settings.home)
    session = await find_session(key, settings)
    try:
        yield Client(session)
    finally:
        await session.close()


async def find_session(key: ClusterKey, settings: Settings) -> Session:
    """Return a session with the node that was named, else with the one of this home, else with one that is found.

    Raises: WrongUsage, NotAllowed, Unavailable.
    """
    if settings.node:
        checked_address(settings.node, "--node")
        return await open_session(key, [settings.node], CONNECT_SECONDS)
    addresses = node_addresses(settings.home)
    if addresses:
        # The file of a node that was killed stays behind, so one that does not answer means nothing.
        with suppress(Unavailable):
            return await open_session(key, addresses, HOME_NODE_SECONDS)
    return await open_session(key, await discover(key), CONNECT_SECONDS)


async def open_session(key: ClusterKey, addresses: Sequence[str], timeout_seconds: float) -> Session:
    """Return a session with the cluster of one of `addresses`, proving the key with an identity made for it.

    Raises: NotAllowed, Unavailable.
    """
    entropy = RealEntropy()
    env = ClientEnv(
        network=RealNetwork(key, entropy.token("client identity", SEED_BYTES)),
        wall_clock=RealWallClock(),
        entropy=entropy,
        compute=RealCompute(),
    )
    return await connect(env, addresses, name=platform.node() or "client", timeout_seconds=timeout_seconds)


async def discover(key: ClusterKey) -> list[str]:
    """Return the addresses of the first node of this key that is heard of.

    Raises: Unavailable.
    """
    discovery = ZeroconfDiscovery(key)
    try:
        async with asyncio.timeout(DISCOVERY_SECONDS):
            async for addresses in discovery.hints():
                if addresses:
                    return list(addresses)
    except TimeoutError:
        pass
    finally:
        await discovery.close()
    raise Unavailable(
        "no node of this cluster is heard on the network: start one with `shoal up`, or name one with --node HOST:PORT"
    )
