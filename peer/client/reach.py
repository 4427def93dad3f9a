"""How a client finds its way into a cluster: the nodes that were named, else the one of this home, else any that is heard of."""

import asyncio
import platform
from collections.abc import Sequence
from pathlib import Path

from peer.client.home_files import node_addresses
from peer.errors import Unavailable, Waiting, WrongUsage
from peer.real.clock import RealWallClock
from peer.real.compute import RealCompute
from peer.real.discovery import ZeroconfDiscovery
from peer.real.entropy import RealEntropy
from peer.real.faults import NoFaults
from peer.real.keys import ClusterKey
from peer.real.network import RealNetwork
from peer.seams import ClientEnv
from peer.session import Session, connect
from peer.store.home import SEED_BYTES

HOME_NODE_SECONDS = 2.0
"""How long the node of this home may take to answer before discovery is asked."""
DISCOVERY_SECONDS = 4.0
"""How long a client listens for a node."""
CONNECT_SECONDS = 5.0
"""How long a node that was named or found may take to let a client in."""


async def find_session(key: ClusterKey, nodes: Sequence[str], home: Path) -> Session:
    """Return a session with one of `nodes` if any are named, else with the node of `home`, else with one that is found.

    Raises: NotAllowed, Waiting (the node of `home` is the only one, and waits), Unavailable.
    """
    if nodes:
        return await open_session(key, nodes, CONNECT_SECONDS)
    addresses = node_addresses(home)
    waiting: Waiting | None = None
    if addresses:
        # The file of a node that was killed stays behind, so one that does not answer means nothing.
        try:
            return await open_session(key, addresses, HOME_NODE_SECONDS)
        except Waiting as error:
            waiting = error
        except Unavailable:
            pass
    try:
        return await open_session(key, await discover(key), CONNECT_SECONDS)
    except Unavailable as error:
        raise waiting or error from None


async def open_session(key: ClusterKey, addresses: Sequence[str], timeout_seconds: float) -> Session:
    """Return a session with the cluster of one of `addresses`, proving the key with an identity made for it.

    Raises: NotAllowed, Unavailable.
    """
    return await connect(client_env(key), addresses, name=platform.node() or "client", timeout_seconds=timeout_seconds)


def client_env(key: ClusterKey) -> ClientEnv:
    """Return what a client needs of this machine, with an identity made for it."""
    entropy = RealEntropy()
    return ClientEnv(
        network=RealNetwork(key, entropy.token("client identity", SEED_BYTES)),
        wall_clock=RealWallClock(),
        entropy=entropy,
        faults=NoFaults(),
        compute=RealCompute(),
    )


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
        "no node of this cluster is heard on the network: start one with `shoal up`, or name one with --node HOST:PORT; "
        "`shoal doctor` says what keeps it from being heard"
    )


def checked_address(text: str, option: str) -> str:
    """Return `text` if it is HOST:PORT.

    Raises: WrongUsage.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise WrongUsage(f"{option} {text}: an address is HOST:PORT, like 192.168.1.5:7400")
    return text
