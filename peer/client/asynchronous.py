"""The asynchronous client.

    from peer import Client

    async with Client.connect() as client:
        await client.put_file("film.mp4", "/films/film.mp4")
        async for entry in client.list("/films"):
            print(entry.name, entry.size)
        async with await client.open("/films/film.mp4") as film:
            head = await film.read_at(0, 1024)
"""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from peer.client.home_files import default_home, key_for_client, parsed
from peer.client.local_files import get_file, put_file
from peer.client.reach import checked_address, find_session
from peer.client.streams import RemoteReader, RemoteWriter
from peer.files.entries import Entry, PutResult
from peer.files.operations import Operations


class Client(Operations):
    """A client of one cluster, as `Client.connect` gives it.

    It talks to all members directly: a node that dies in the middle of a transfer is passed over, whichever one the client came in by.
    Every error is a `peer.ShoalError` of one line; the classes are the exit codes of the command line. (An argument that no call can mean,
    like a negative offset, is a ValueError or TypeError, as everywhere in Python.) Belongs to one event loop; any number of its operations
    may be under way at a time. `peer/client/README.md` is the guide.
    """

    @staticmethod
    @asynccontextmanager
    async def connect(
        node: str | Sequence[str] = (), *, home: str | os.PathLike[str] | None = None, key: str | None = None
    ) -> "AsyncIterator[Client]":
        """Yield a client of the cluster that `key` (default: the environment's, else that of `home`) opens.

        It comes in by `node`, one HOST:PORT or several; without any by the node of `home`, else by one that multicast DNS finds.

        Raises: WrongUsage, NotAllowed (no key, or one that is refused), Unavailable (no node answers).
        """
        folder = Path(home) if home is not None else default_home()
        cluster_key = key_for_client(folder) if key is None else parsed(key, "key")
        nodes = [node] if isinstance(node, str) else list(node)
        session = await find_session(cluster_key, [checked_address(each, "node") for each in nodes if each], folder)
        try:
            yield Client(session)
        finally:
            await session.close()

    async def put_file(
        self,
        local: str | os.PathLike[str],
        path: str,
        *,
        on_progress: Callable[[int], None] | None = None,
        op_id: bytes | None = None,
    ) -> PutResult:
        """Store the file `local` of this machine as `path`, with its mode and time; the folders above are made where they are missing.

        `on_progress` is called with the number of bytes that became durable since its last call. After an `OutcomeUnknown`
        repeat it with the error's `op_id`: it takes effect once at most.

        Raises: LocalFault (it cannot be read, or changed meanwhile), SourceChanged, and what `put` raises.
        """
        return await put_file(self, Path(local), path, on_progress or _no_progress, op_id)

    async def get_file(
        self, path: str, local: str | os.PathLike[str], *, on_progress: Callable[[int], None] | None = None
    ) -> Entry:
        """Fetch the file `path` into `local`, which shows it whole or not at all; what an interrupted try has already is kept and verified.

        `on_progress` is called with the number of bytes that arrived, or were there, since its last call.

        Raises: LocalFault, NoSuchPath, WrongUsage (it is a folder), Unavailable, DataLost.
        """
        entry = (await self.content(path)).entry
        return await get_file(self, entry, Path(local), on_progress or _no_progress)

    async def open(self, path: str) -> RemoteReader:
        """Open the file `path`, as it is now, for reading: in order, at any offset, or block by block with ``async for``.

        Raises: NoSuchPath, WrongUsage (it is a folder), Unavailable.
        """
        return RemoteReader(await self.content(path))

    def create(self, path: str, *, op_id: bytes | None = None) -> RemoteWriter:
        """Write the file `path` piece by piece. It appears when the writer is closed, and supersedes what is there now."""
        return RemoteWriter(self, path, op_id)


def _no_progress(count: int) -> None:
    """Nobody watches."""
