"""The data folder of a node: locked for one process, of one format.

    LOCK       held by the running node
    format     version of the layout of this folder
    cluster    tag of the key under which this folder is used
    identity   who the node is        sys.db ns.db chunk.db   its databases       c/ tmp/ quarantine/   its chunks
"""

import fcntl
import os
from pathlib import Path

from peer.errors import ShoalError, WrongUsage
from peer.real.disk import RealDisk
from peer.real.sqlite_kv import SqliteKV

FORMAT_VERSION = 1


class RealStorage:
    """`peer.seams.Storage` on a folder of this machine."""

    def __init__(self, root: Path) -> None:
        """Lock `root`, creating it if need be.

        Raises: WrongUsage when another process runs on it, or a newer version has written it; ShoalError when it cannot be used.
        """
        self._root = root
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(root / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ShoalError(f"{root}: {error.strerror}: choose another folder with --home") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise WrongUsage(
                f"{root} is in use by another node: stop that one, or give this one a folder of its own with --home"
            ) from None
        try:
            self._check_format()
        except OSError as error:
            os.close(self._lock)
            raise ShoalError(f"{root}: {error.strerror}: choose another folder with --home") from None
        except WrongUsage:
            os.close(self._lock)
            raise
        self.disk = RealDisk(root)

    def refuse_other_cluster(self, tag: str) -> None:
        """Make sure that this folder is not kept for the cluster of another key than the one with this tag.

        Raises: WrongUsage, ShoalError.
        """
        path = self._root / "cluster"
        try:
            known = path.read_text(errors="replace").strip()
        except FileNotFoundError:
            return
        except OSError as error:
            raise ShoalError(f"{path}: {error.strerror}: choose another folder with --home") from None
        if known != tag:
            raise WrongUsage(
                f"{self._root} belongs to the cluster of another key: put that key back, or give this node another --home"
            )

    def keep_for_cluster(self, tag: str) -> None:
        """Keep this folder for the cluster whose key has this tag. Only once that key is kept as well: nobody could put it back.

        Raises: ShoalError.
        """
        path = self._root / "cluster"
        try:
            if not path.exists():
                self._write_line(path, tag)
        except OSError as error:
            raise ShoalError(f"{path}: {error.strerror}: choose another folder with --home") from None

    async def open_kv(self, name: str) -> SqliteKV:
        """Open a database."""
        kv = SqliteKV(self._root / f"{name}.db")
        await kv.open()
        return kv

    async def set_aside(self, name: str) -> None:
        """Rename the files of a database to the first free `.lost-N`."""
        number = 1
        while list(self._root.glob(f"{name}.db*.lost-{number}")):
            number += 1
        for suffix in ("", "-wal", "-shm"):
            path = self._root / f"{name}.db{suffix}"
            if path.exists():
                path.rename(self._root / f"{name}.db{suffix}.lost-{number}")

    async def close(self) -> None:
        """Unlock."""
        self.disk.close()
        os.close(self._lock)

    def _check_format(self) -> None:
        path = self._root / "format"
        if not path.exists():
            self._write_line(path, str(FORMAT_VERSION))
            return
        text = path.read_text(errors="replace").strip()
        if text != str(FORMAT_VERSION):
            raise WrongUsage(
                f"{self._root} has format {text[:20]!r} and this version of shoal knows {FORMAT_VERSION}: install a newer shoal"
            )

    def _write_line(self, path: Path, text: str) -> None:
        """Durable and whole at once: an empty file after a power cut would look like a format of the future, or another cluster."""
        fresh = path.with_suffix(".new")
        with fresh.open("w") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
        folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
