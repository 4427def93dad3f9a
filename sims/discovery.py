"""Multicast as a source of hints that come late, twice, or not at all."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

from peer.seams import Announcement
from sims.loop import context_of

DELAY_SECONDS = (0.01, 1.0)
TWICE_SHARE = 0.2
HINTS_MAX = 256


class Airwaves:
    """What is announced on the LAN, and who listens."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._announced: dict[str, tuple[str, ...]] = {}
        self._listeners: dict[str, SimDiscovery] = {}

    def announce(self, host: str, addresses: tuple[str, ...]) -> None:
        """Tell every listener, each after a delay of its own."""
        self._announced[host] = addresses
        for listener in self._listeners.values():
            self._tell(listener, addresses)

    def listen(self, host: str, listener: "SimDiscovery") -> None:
        """Tell a new listener what is announced: also what has died since."""
        if host not in self._listeners:
            self._listeners[host] = listener
            for addresses in self._announced.values():
                self._tell(listener, addresses)

    def forget(self, host: str) -> None:
        """Tell this host nothing more. What it announced stays, as it does on a real LAN."""
        self._listeners.pop(host, None)

    def _tell(self, listener: "SimDiscovery", addresses: tuple[str, ...]) -> None:
        times = 2 if self._random.random() < TWICE_SHARE else 1
        for _ in range(times):
            delay = self._random.uniform(*DELAY_SECONDS)
            asyncio.get_running_loop().call_later(delay, listener.hear, addresses, context=context_of(listener.host))


class SimDiscovery:
    """`peer.seams.Discovery` of one incarnation of one machine."""

    def __init__(self, airwaves: Airwaves, host: str) -> None:
        self._airwaves = airwaves
        self.host = host
        self._hints: asyncio.Queue[tuple[str, ...]] = asyncio.Queue(HINTS_MAX)

    async def announce(self, announcement: Announcement) -> None:
        """Announce this node."""
        self._airwaves.announce(self.host, announcement.addresses)

    async def hints(self) -> AsyncIterator[tuple[str, ...]]:
        """Yield what is heard."""
        self._airwaves.listen(self.host, self)
        while True:
            yield await self._hints.get()

    def hear(self, addresses: tuple[str, ...]) -> None:
        """Take a hint."""
        if not self._hints.full():
            self._hints.put_nowait(addresses)

    async def close(self) -> None:
        """Stop."""
        self._airwaves.forget(self.host)
