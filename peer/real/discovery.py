"""Multicast DNS by python-zeroconf: a source of hints, nothing more.

Owns the service that a node announces, the filter for its own key, and the watching of interfaces (the library does
not do that by itself). A record outlives its machine by minutes and "removed" events mean nothing: nobody concludes anything
from silence here.
"""

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from peer.real.interfaces import chosen_addresses
from peer.real.keys import ClusterKey
from peer.real.network import join_address, split_address
from peer.seams import Announcement

SERVICE_TYPE: Final = "_shoal._tcp.local."
TXT_VERSION: Final = "1"
POLL_SECONDS: Final = 5.0
"""How often the interfaces are looked at, and this node is announced again."""
RESOLVE_MILLISECONDS: Final = 3000
HINTS_MAX: Final = 256
RESOLVING_MAX: Final = 32

log = logging.getLogger(__name__)
logging.getLogger("zeroconf").setLevel(logging.ERROR)  # it warns of packets that an interface did not take, which the next look mends


@dataclass(frozen=True, slots=True)
class Sighting:
    """A node that was heard on the network, of this cluster or another. Nothing of it is proven."""

    label: str
    """The name of its record: the node's id in hexadecimal."""
    tag: str
    """What its key is told apart by (`ClusterKey.tag`)."""
    addresses: tuple[str, ...]


class ZeroconfDiscovery:
    """`peer.seams.Discovery` on some interfaces of this machine."""

    def __init__(self, key: ClusterKey, interfaces: Sequence[str] = ()) -> None:
        """`interfaces` are names or addresses; none means those of the LAN and the loopback."""
        self._tag = key.tag
        self._choice = tuple(interfaces)
        self._addresses: list[str] = []
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._info: AsyncServiceInfo | None = None
        self._announcement: Announcement | None = None
        self._announced: Announcement | None = None
        self._sightings: asyncio.Queue[Sighting] = asyncio.Queue(HINTS_MAX)
        self._resolving: dict[str, asyncio.Task[None]] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def announce(self, announcement: Announcement) -> None:
        """Begin to announce this node, or change what is announced."""
        self._announcement = announcement
        await self._refresh()
        self._watch()

    async def hints(self) -> AsyncIterator[tuple[str, ...]]:
        """Yield addresses of possible peers."""
        async for heard in self.sightings():
            if heard.tag == self._tag:
                yield heard.addresses

    async def sightings(self) -> AsyncIterator[Sighting]:
        """Yield every node that is heard, also those of other keys."""
        await self._refresh()
        self._watch()
        while True:
            yield await self._sightings.get()

    async def close(self) -> None:
        """Say goodbye and stop."""
        tasks = [*self._resolving.values()]
        if self._watcher is not None:
            tasks.append(self._watcher)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with self._lock:
            await self._stop()

    def _watch(self) -> None:
        if self._watcher is None:
            self._watcher = asyncio.get_running_loop().create_task(self._poll())

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self._refresh()

    async def _refresh(self) -> None:
        """Bring sockets, browser and announcement in line with the interfaces that there are now."""
        async with self._lock:
            addresses = chosen_addresses(self._choice)
            try:
                if addresses != self._addresses:
                    await self._stop()
                    self._addresses = addresses
                    if addresses:
                        self._start(addresses)
                if self._zeroconf is not None:
                    await self._register(self._zeroconf)
            except OSError as error:
                log.warning("discovery on %s does not work: %s", ", ".join(addresses), error)
                await self._stop()
                self._addresses = []

    def _start(self, addresses: list[str]) -> None:
        self._zeroconf = AsyncZeroconf(interfaces=list(addresses), ip_version=IPVersion.V4Only)
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE_TYPE, handlers=[self._changed])

    async def _stop(self) -> None:
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._zeroconf is not None:
            await self._zeroconf.async_close()
        self._zeroconf = self._browser = self._info = None

    async def _register(self, zeroconf: AsyncZeroconf) -> None:
        if self._announcement is None:
            return
        if self._info is None:
            self._info = self._make_info(self._announcement)
            await zeroconf.async_register_service(self._info, cooperating_responders=True)
        elif self._announced != self._announcement:
            self._info = self._make_info(self._announcement)
            await zeroconf.async_update_service(self._info)
        else:
            # A listener asks a few times when it starts and never again: it may have started before the cable was plugged in.
            zeroconf.zeroconf.async_send(zeroconf.zeroconf.generate_service_broadcast(self._info, None))
        self._announced = self._announcement

    def _make_info(self, announcement: Announcement) -> AsyncServiceInfo:
        label = announcement.node_id.hex()
        reachable = [split_address(address) for address in announcement.addresses]
        return AsyncServiceInfo(
            SERVICE_TYPE,
            f"{label}.{SERVICE_TYPE}",
            port=reachable[0][1],
            addresses=[ipaddress.ip_address(host).packed for host, _ in reachable],
            server=f"{label}.local.",
            properties={"v": TXT_VERSION, "tag": self._tag, "id": label[:8]},
        )

    def _changed(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        if state_change is ServiceStateChange.Removed or name in self._resolving:
            return
        if len(self._resolving) >= RESOLVING_MAX:
            return
        task = asyncio.get_running_loop().create_task(self._resolve(zeroconf, name))
        self._resolving[name] = task
        task.add_done_callback(lambda _: self._resolving.pop(name, None))

    async def _resolve(self, zeroconf: Zeroconf, name: str) -> None:
        info = AsyncServiceInfo(SERVICE_TYPE, name)
        if not await info.async_request(zeroconf, RESOLVE_MILLISECONDS):
            return
        if not info.port:
            return
        tag = (info.properties.get(b"tag") or b"").decode(errors="replace")
        addresses = tuple(
            join_address(str(address), info.port) for address in info.ip_addresses_by_version(IPVersion.V4Only)
        )
        if addresses and not self._sightings.full():
            self._sightings.put_nowait(Sighting(name.partition(".")[0], tag, addresses))
