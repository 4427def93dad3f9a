"""One lock per key, for as long as anybody holds or awaits it. Knows nothing of what the keys stand for."""

import asyncio
from collections.abc import Sequence


class KeyLocks:
    """Locks by key."""

    def __init__(self) -> None:
        self._locks: dict[bytes, tuple[asyncio.Lock, int]] = {}

    def holding(self, *keys: bytes) -> "Holding":
        """Return a context in which the locks of `keys` are held; in ascending order, so that two holders cannot wait for each other."""
        return Holding(self, keys)

    async def acquire(self, key: bytes) -> None:
        """Wait until the lock of `key` is free, and take it."""
        lock, users = self._locks.get(key, (None, 0))
        lock = lock or asyncio.Lock()
        self._locks[key] = lock, users + 1
        try:
            await lock.acquire()
        except BaseException:
            self._leave(key)
            raise

    def release(self, key: bytes) -> None:
        """Give the lock of `key` back."""
        self._leave(key).release()

    def _leave(self, key: bytes) -> asyncio.Lock:
        lock, users = self._locks.pop(key)
        if users > 1:
            self._locks[key] = lock, users - 1
        return lock


class Holding:
    """Locks, held between enter and exit. No generator: the tasks of a killed simulated host are collected where they stand."""

    def __init__(self, locks: KeyLocks, keys: Sequence[bytes]) -> None:
        self._locks = locks
        self._keys = keys
        self._held = 0

    async def __aenter__(self) -> None:
        try:
            for key in self._keys:
                await self._locks.acquire(key)
                self._held += 1
        except BaseException:
            self._release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        for key in self._keys[: self._held]:
            self._locks.release(key)
