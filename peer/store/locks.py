"""One lock per key, for as long as anybody holds or awaits it. Knows nothing of what the keys stand for."""

import asyncio


class KeyLocks:
    """Locks by key."""

    def __init__(self) -> None:
        self._locks: dict[bytes, tuple[asyncio.Lock, int]] = {}

    def holding(self, key: bytes) -> "Holding":
        """Return a context in which the lock of `key` is held."""
        return Holding(self, key)

    def enter(self, key: bytes) -> asyncio.Lock:
        """Count one more user of a lock."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = lock, users + 1
        return lock

    def leave(self, key: bytes) -> asyncio.Lock:
        """Count one user less."""
        lock, users = self._locks.pop(key)
        if users > 1:
            self._locks[key] = lock, users - 1
        return lock


class Holding:
    """A lock, held between enter and exit. No generator: the tasks of a killed simulated host are collected where they stand."""

    def __init__(self, locks: KeyLocks, key: bytes) -> None:
        self._locks = locks
        self._key = key

    async def __aenter__(self) -> None:
        try:
            await self._locks.enter(self._key).acquire()
        except BaseException:
            self._locks.leave(self._key)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._locks.leave(self._key).release()
