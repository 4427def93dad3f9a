"""Ordered keys and values on SQLite: one connection, one thread, many commits in one transaction.

Owns the group commit: whatever waits in the queue when the thread is free becomes one transaction, one sync. Nobody waits for
company: while one group syncs the next one gathers. Reads run between groups in the same thread, so they never see what is not durable.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from peer.errors import StorageFailed, StoreCorrupt
from peer.real.threads import Outcome, settle
from peer.seams import Delete, Put

GROUP_MAX = 256
"""Operations in one transaction."""
_PRAGMAS = (
    "PRAGMA locking_mode=EXCLUSIVE",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA cell_size_check=ON",
    "PRAGMA fullfsync=ON",
    "PRAGMA cache_size=-4096",
)
_OF_THE_MACHINE = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_NOMEM,
    }
)
"""Errors that say nothing of what is in the file: taking them for damage would give up an identity."""

_Work = tuple[str, Callable[[sqlite3.Connection], Any], "asyncio.Future[Any]"]


class SqliteKV:
    """`peer.seams.KV` in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._failure: StorageFailed | None = None
        self._thread = threading.Thread(target=self._run, name=f"kv {path.name}", daemon=True)
        self._connection: sqlite3.Connection
        self._loop: asyncio.AbstractEventLoop

    async def open(self) -> None:
        """Open or create the file.

        Raises: StoreCorrupt; StorageFailed when it is the machine that fails, not what is in the file.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await self._loop.run_in_executor(None, self._open)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in _OF_THE_MACHINE:
                raise self._fail(error) from None
            raise StoreCorrupt(self._path.stem, str(error)) from None
        self._thread.start()

    async def get(self, key: bytes) -> bytes | None:
        """Return a value."""
        return cast(bytes | None, await self._submit("read", lambda connection: _get(connection, key)))

    async def range(self, first: bytes, end: bytes | None, limit: int) -> list[tuple[bytes, bytes]]:
        """Return pairs in order."""
        pairs = await self._submit("read", lambda connection: _range(connection, first, end, limit))
        return cast(list[tuple[bytes, bytes]], pairs)

    async def count(self, first: bytes, end: bytes | None) -> int:
        """Return the number of keys in a range."""
        return cast(int, await self._submit("read", lambda connection: _count(connection, first, end)))

    async def commit(self, changes: Sequence[Put | Delete]) -> None:
        """Apply changes durably."""
        await self._submit("write", lambda connection: _apply(connection, changes))

    async def close(self) -> None:
        """Finish the queue and release the file."""
        self._queue.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    async def _submit(self, kind: str, work: Callable[[sqlite3.Connection], Any]) -> Any:
        if self._failure is not None:
            raise self._failure
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue.put((kind, work, future))
        return await future

    def _open(self) -> None:
        self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            for pragma in _PRAGMAS:
                self._connection.execute(pragma).fetchall()
            faults = self._connection.execute("PRAGMA quick_check(1)").fetchall()
            if faults != [("ok",)]:
                raise _corrupt(str(faults[0][0]))
            self._connection.execute("CREATE TABLE IF NOT EXISTS pairs (key BLOB NOT NULL, value BLOB NOT NULL)")
            self._connection.execute("CREATE UNIQUE INDEX IF NOT EXISTS pairs_by_key ON pairs (key)")
        except sqlite3.Error:
            self._connection.close()  # now: one that is collected later would remove the log of what is opened in its place
            raise

    def _run(self) -> None:
        stopping = False
        while not stopping:
            works: list[_Work] = []
            item = self._queue.get()
            while True:
                if item is None:
                    stopping = True
                    break
                works.append(item)
                if len(works) >= GROUP_MAX:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            self._do(works)
        self._connection.close()

    def _do(self, works: list[_Work]) -> None:
        """Serve one group: reads first, they were asked of what is durable; then all writes in one transaction."""
        outcomes: list[Outcome] = []
        writes = []
        for each in works:
            kind, work, future = each
            if kind == "write":
                writes.append(each)
                continue
            try:
                if self._failure is not None:
                    raise self._failure
                outcomes.append((future, work(self._connection), None))
            except sqlite3.Error as error:
                outcomes.append((future, None, self._fail(error)))
            except StorageFailed as error:
                outcomes.append((future, None, error))
        self._tell(outcomes)
        if not writes:
            return
        try:
            if self._failure is not None:
                raise self._failure
            self._connection.execute("BEGIN IMMEDIATE")
            for _, work, _ in writes:
                work(self._connection)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._fail(error)
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
        except StorageFailed:
            pass
        self._tell([(future, None, self._failure) for _, _, future in writes])

    def _tell(self, outcomes: list[Outcome]) -> None:
        if outcomes:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(settle, outcomes)

    def _fail(self, error: sqlite3.Error) -> StorageFailed:
        if self._failure is None:
            self._failure = StorageFailed(f"{self._path}: {error}: this node stops; check the disk, then start it again")
        return self._failure


def _corrupt(reason: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(reason)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _get(connection: sqlite3.Connection, key: bytes) -> bytes | None:
    row = connection.execute("SELECT value FROM pairs WHERE key = ?", (key,)).fetchone()
    return row[0] if row is not None else None


def _range(
    connection: sqlite3.Connection, first: bytes, end: bytes | None, limit: int
) -> list[tuple[bytes, bytes]]:
    if end is None:
        return connection.execute(
            "SELECT key, value FROM pairs WHERE key >= ? ORDER BY key LIMIT ?", (first, limit)
        ).fetchall()
    return connection.execute(
        "SELECT key, value FROM pairs WHERE key >= ? AND key < ? ORDER BY key LIMIT ?", (first, end, limit)
    ).fetchall()


def _count(connection: sqlite3.Connection, first: bytes, end: bytes | None) -> int:
    if end is None:
        row = connection.execute("SELECT count(*) FROM pairs WHERE key >= ?", (first,)).fetchone()
    else:
        row = connection.execute("SELECT count(*) FROM pairs WHERE key >= ? AND key < ?", (first, end)).fetchone()
    return int(row[0])


def _apply(connection: sqlite3.Connection, changes: Sequence[Put | Delete]) -> None:
    for change in changes:
        if isinstance(change, Put):
            connection.execute(
                "INSERT INTO pairs (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (bytes(change.key), bytes(change.value)),
            )
        else:
            connection.execute("DELETE FROM pairs WHERE key = ?", (bytes(change.key),))
