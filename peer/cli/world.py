"""The real world of a node, put together, and how a verb runs: its client, its loop, its exit code."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import click

from peer.cli.output import Output
from peer.cli.settings import Settings
from peer.client.asynchronous import Client
from peer.client.home_files import DATA_FOLDER
from peer.errors import ConnectFailed
from peer.real.clock import RealWallClock
from peer.real.compute import RealCompute
from peer.real.discovery import ZeroconfDiscovery
from peer.real.entropy import RealEntropy
from peer.real.faults import NoFaults
from peer.real.keys import ClusterKey
from peer.real.loop import run
from peer.real.network import RealListener, RealNetwork, split_address
from peer.real.storage import RealStorage
from peer.seams import Announcement, Discovery, Endpoint, Env
from peer.store.home import Home, open_home

PORTS_TRIED_MAX = 100


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


class NextPortNetwork(RealNetwork):
    """A network that listens at the next free port where the given one is taken.

    Tried by listening itself: between a look and that, another node of this machine may take the port.
    """

    async def listen(self, address: str, endpoint: Endpoint) -> RealListener:
        """Accept connections at an address, or at one of the ports behind it.

        Raises: ConnectFailed when PORTS_TRIED_MAX are taken, or at once for any other reason.
        """
        host, port = split_address(address)
        for candidate in range(port, port + PORTS_TRIED_MAX - 1):
            try:
                return await super().listen(f"{host}:{candidate}", endpoint)
            except ConnectFailed as error:
                if not error.refused:
                    raise
        return await super().listen(f"{host}:{port + PORTS_TRIED_MAX - 1}", endpoint)


def discovery_on(key: ClusterKey, interfaces: Sequence[str], *, enabled: bool) -> Discovery:
    """Return discovery on `interfaces` (none: those of the LAN), or none at all."""
    return ZeroconfDiscovery(key, interfaces) if enabled else NoDiscovery()


async def build_node_world(key: ClusterKey, home: Path, discovery: Discovery, *, any_port: bool) -> tuple[Env, Home, RealStorage]:
    """Open the data folder of `home` and return the node's world and identity, and the folder.

    With `any_port` a port that is taken is no fault.

    Raises: WrongUsage when the folder is in use, of a newer format or of another cluster, ShoalError, StorageFailed.
    """
    storage = RealStorage(home / DATA_FOLDER)
    storage.refuse_other_cluster(key.tag)
    entropy = RealEntropy()
    identity = await open_home(storage, entropy)
    env = Env(
        network=(NextPortNetwork if any_port else RealNetwork)(key, identity.seed),
        storage=storage,
        wall_clock=RealWallClock(),
        entropy=entropy,
        discovery=discovery,
        faults=NoFaults(),
        compute=RealCompute(),
    )
    return env, identity, storage


@asynccontextmanager
async def client_of(settings: Settings) -> AsyncIterator[Client]:
    """Yield a client of the cluster that the settings point at. It says once, on stderr, what the command waits for.

    Raises: NotAllowed, Unavailable, WrongUsage.
    """
    async with Client.connect(settings.node, home=settings.home) as client:
        said: list[str] = []

        def say(text: str) -> None:
            if not said:
                Output(settings).note(text)
            said.append(text)

        client.on_wait = say
        yield client


def finish(work: Coroutine[object, object, int | None]) -> None:
    """Run the work of a verb; a code that is not 0 becomes the exit code, after all was said."""
    code = run(work)
    if code:
        raise click.exceptions.Exit(code)
