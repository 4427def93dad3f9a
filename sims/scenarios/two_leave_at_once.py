"""Two of five machines leave at once, while a file is read and written by whom the change has not reached yet.

Some machines learn a layout late, and clients only when they are told that theirs is old. Each read and write reaches no more replicas
than it must: a read mostly those that the last write did not. What was acknowledged, or read, is in every later read that succeeds.
"""

import asyncio

from peer.files.operations import Operations
from sims.formed import switch_on
from sims.scenarios._common import NAMES, chain_judged, expect, put_for_certain, start_all, until
from sims.scenarios._traffic import Register, Traffic
from sims.world import World

PATH = "/register"
WAIT_SECONDS = 60.0
TOLD_SECONDS = 1.0
"""Everybody knows of both who want to leave."""


async def story(world: World) -> None:
    """Live through it."""
    switch_on(world, NAMES)
    with chain_judged(world):
        await start_all(world, NAMES)
        await _Story(world).live()


class _Story:
    def __init__(self, world: World) -> None:
        self.world = world
        self.random = world.random
        self.leavers = self.random.sample(NAMES, 2)
        self.stayers = [name for name in NAMES if name not in self.leavers]
        self.traffic = Traffic(world, PATH)
        self.register = Register(world, self.traffic, PATH)
        self.clients: list[Operations] = []
        """The first has the layout of before, and each further one that of a later stage, until somebody tells it that it is old."""

    async def live(self) -> None:
        world, random, traffic = self.world, self.random, self.traffic
        await until(WAIT_SECONDS, self.is_linked, "somebody is held to be away")
        traffic.highest = first = world.node("a").layout.version
        self.clients.append(await world.client("a"))
        await self.register.write(self.clients[0], NAMES)
        is_partial, is_quiet = random.random() < 0.4, random.random() < 0.5
        await self.write(self.clients[0], is_partial=is_partial)
        if not is_partial:
            traffic.held = dict.fromkeys(self.leavers[: random.choice((0, 1, 2, 2))], first)
        for name in self.leavers:
            await world.on(world.machines[name].host, world.node(name).leaver.ask)
        await asyncio.sleep(TOLD_SECONDS)
        for name in NAMES:
            traffic.sources[name] = self.sources(name)
        await self.advance(first + 1)
        if random.random() < 0.3:
            await self.use(1)
        if random.random() < 0.8:
            await until(WAIT_SECONDS, self.is_synced, "nobody is synced")
        for _ in range(3 if is_partial else 0 if is_quiet else 2):
            if not (is_partial and self.register.is_settled):
                await self.use(1)
        late = [*self.leavers, random.choice(self.stayers)][: random.choice((0, 1, 2, 3, 3))]
        traffic.held = dict.fromkeys(late, first + 1) | traffic.held
        await self.advance(first + 2)
        if self.register.is_settled and not (is_partial or is_quiet):
            await self.write(self.clients[-1])
        await self.use(4)
        traffic.open()
        client = await world.client(*NAMES)
        await self.register.read(client, NAMES)
        await put_for_certain(client, "/after", b"after")
        await expect(world, "/after", b"after")

    def is_linked(self) -> bool:
        """Return whether everybody holds everybody to be alive."""
        ids = [self.world.node(name).node_id for name in NAMES]
        return all(self.world.node(name).detector.is_alive(node_id) for name in NAMES for node_id in ids)

    def is_synced(self) -> bool:
        """Return whether those who stay have synced."""
        return not any(self.world.node(name).sync.unsynced() for name in self.stayers)

    async def advance(self, version: int) -> None:
        """Let a layout be decided, and learned by all who are not late."""
        self.traffic.highest = version
        prompt = [name for name in NAMES if self.traffic.held.get(name, version) >= version]
        await until(WAIT_SECONDS, lambda: all(self.world.node(name).layout.version >= version for name in prompt), "it is not decided")
        self.clients.append(await self.world.client(*prompt))

    def sources(self, name: str) -> list[str]:
        """Return as few old owners as a new one needs, itself if it is one: those without what was written last, where that is possible."""
        holders, late = self.register.holders(), self.traffic.held
        order = sorted(self.random.sample(NAMES, len(NAMES)), key=lambda each: (each in late, each != name, each in holders))
        return self.register.quorum(self.clients[0], order)

    def order(self, client: Operations) -> list[str]:
        """Return all machines in any order, but last those that cannot serve a client, as they do not know its layout."""
        version, held = client._access.layout.version, self.traffic.held
        return sorted(self.random.sample(NAMES, len(NAMES)), key=lambda name: held.get(name, version) < version)

    async def use(self, count: int) -> None:
        """Read and write so many times, with the latest layout or an older one."""
        random, register = self.random, self.register
        for _ in range(count):
            client = random.choice((self.clients[-1], random.choice(self.clients)))
            if register.is_settled and random.random() < 0.2:
                await self.write(client)
                continue
            order, holders = self.order(client), register.holders()
            is_sought = not register.is_settled and random.random() < 0.7
            replicas = register.quorum(client, sorted(order, key=lambda name: (name in holders) != is_sought))
            repaired = sorted(order, key=lambda name: name not in self.leavers)[: len(NAMES) // 2 + 1]
            await register.read(client, replicas, repaired if random.random() < 0.7 else None)

    async def write(self, client: Operations, *, is_partial: bool = False) -> None:
        """Write, mostly by those who leave as far as that is possible; `is_partial`: it comes no further than to the coordinator."""
        order = self.order(client)
        if self.random.random() < 0.8:
            order.sort(key=lambda name: name not in self.leavers)
        await self.register.write(client, self.register.quorum(client, order), is_partial=is_partial)
