"""Carries out the operations of a plan, and writes down what clients saw."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from peer.errors import AlreadyThere, DataLost, NoSuchPath, OutcomeUnknown, ShoalError, Unavailable, WrongUsage
from peer.files.operations import Operations
from sims.history import ABSENT, FAILED, OK, UNKNOWN, History, Listing, Seen, Write, digest_of
from sims.oracles import Oracle, Violation
from sims.plan import Operation, Plan
from sims.world import World, look_at

T = TypeVar("T")

RETRIES_MAX = 4
RETRY_SECONDS = 0.5
CONFLICT_MARK = " (conflict "


@dataclass(slots=True)
class _Client:
    host: str
    operations: Operations | None = None
    connecting: asyncio.Lock = field(default_factory=asyncio.Lock)


class Workload:
    """The clients of one world."""

    def __init__(self, world: World, plan: Plan, history: History, oracles: list[Oracle], hosts: list[str]) -> None:
        """`hosts` are the processes of the clients; one that dies has a successor in its place."""
        self.outcomes: Counter[str] = Counter()
        self.acked = 0
        self._world = world
        self._plan = plan
        self._history = history
        self._oracles = oracles
        self._hosts = hosts
        self._clients: dict[str, _Client] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.under_way: dict[str, float] = {}
        """Operations that have begun and not ended, with the moment of their beginning."""

    def begin(self) -> None:
        """Let the clock of the plan run from now."""
        for number, operation in enumerate(self._plan.operations):
            self._tasks.append(asyncio.get_running_loop().create_task(self._at(number, operation)))

    async def until_done(self, seconds: float) -> None:
        """Wait until every operation has ended, the death of its client included.

        Raises: Violation (I27) when one does not end in time; what an operation raised that is no answer for a user.
        """
        give_up_at = self._world.loop.time() + seconds
        while any(not task.done() for task in self._tasks):
            if self._world.loop.time() > give_up_at:
                what = ", ".join(f"{name} since {began:.1f} s" for name, began in self.under_way.items())
                raise Violation("I27", f"operations do not end: {what}", self._world.loop.time())
            await asyncio.sleep(0.1)
        for task in self._tasks:
            task.result()

    def check(self) -> None:
        """Raise what an operation that has ended raised, if that was no answer for a user."""
        for task in self._tasks:
            if task.done():
                task.result()
        self._tasks = [task for task in self._tasks if not task.done()]

    async def carry_out(self, number: int, operation: Operation) -> str:
        """Carry out one operation now and return what came of it in one word."""
        host = self._hosts[operation.client]
        name = f"{operation.kind} {operation.path} (number {number})"
        self.under_way[name] = self._world.loop.time()
        more: dict[str, int | str] = {"to": operation.target} if operation.target else {"size": operation.size} if operation.size else {}
        self._world.trace.note(host, operation.kind, path=operation.path, n=number, **more)
        try:
            result = await self._as(host, lambda client: self._do(number, operation, client))
        except _Died:
            result = "died"
        except Unavailable:
            result = "no way in"
        del self.under_way[name]
        self.outcomes[f"{operation.kind} {result}"] += 1
        self._world.trace.note(host, "done", n=number, result=result)
        return result

    # -- inside --------------------------------------------------------------

    async def _at(self, number: int, operation: Operation) -> None:
        await asyncio.sleep(operation.at)
        await self.carry_out(number, operation)

    async def _as(self, host: str, work: Callable[[Operations], Awaitable[T]]) -> T:
        """Do `work` as the client process `host`, which connects when it has not yet.

        Raises: _Died when the process dies meanwhile; what `work` raises.
        """
        client = self._clients.setdefault(host, _Client(host))

        async def run() -> T:
            async with client.connecting:
                if client.operations is None:
                    names = list(self._plan.names)
                    turn = self._hosts.index(host) if host in self._hosts else 0
                    session = await self._world.session(host, *names[turn % len(names) :], *names[: turn % len(names)])
                    client.operations = Operations(session)
                operations = client.operations
            return await self._world.on(host, lambda: work(operations))

        task = asyncio.get_running_loop().create_task(run())
        task.add_done_callback(look_at)
        while not task.done():
            if self._world.loop.is_dead(host):
                raise _Died
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await asyncio.shield(task)
        return task.result()

    async def _do(self, number: int, operation: Operation, client: Operations) -> str:
        """Carry out an operation as its client; return what came of it in one word."""
        return await getattr(self, f"_{operation.kind}")(number, operation, client)  # type: ignore[no-any-return]

    async def _put(self, number: int, operation: Operation, client: Operations) -> str:
        content, digest = self._history.made(self._plan.seed, number, operation.size)
        write = self._write(number, operation, operation.path, digest)
        write.size = operation.size

        async def put(who: Operations, op_id: bytes | None) -> Any:
            position = 0

            async def read(count: int) -> bytes:
                nonlocal position
                write.read_by = min(write.read_by, self._now())
                piece = content[position : position + count]
                position += len(piece)
                return piece

            return await who.put(operation.path, read, size=len(content), op_id=op_id)

        return await self._until_known(write, operation, client, put)

    async def _copy(self, number: int, operation: Operation, client: Operations) -> str:
        write = self._write(number, operation, operation.target, None)

        async def copy(who: Operations, op_id: bytes | None) -> Any:
            return await who.copy(operation.path, operation.target, op_id=op_id)

        return await self._until_known(write, operation, client, copy)

    async def _until_known(
        self, write: Write, operation: Operation, client: Operations, attempt: Callable[[Operations, bytes | None], Awaitable[Any]]
    ) -> str:
        """Make an attempt, and others with the same op id while the outcome is not known, these perhaps by another client."""
        op_id: bytes | None = None
        for _ in range(RETRIES_MAX):
            try:
                if op_id is None or operation.retry_by == operation.client:
                    result = await attempt(client, op_id)
                else:
                    other, token = self._hosts[operation.retry_by], op_id
                    result = await self._as(other, lambda who, token=token: attempt(who, token))  # type: ignore[misc]
            except OutcomeUnknown as error:
                op_id = error.op_id
                if operation.retry_by < 0:
                    return UNKNOWN
                await asyncio.sleep(RETRY_SECONDS)
            except _Died:
                return UNKNOWN
            except (Unavailable, AlreadyThere, WrongUsage, NoSuchPath) as error:
                if op_id is not None:  # the second client could not even begin; the first attempt may have taken effect
                    return UNKNOWN
                write.ends(self._now(), FAILED)
                return type(error).__name__
            else:
                write.version, write.copies = result.version, result.copies
                self._acked(write)
                return OK
        return UNKNOWN

    async def _remove(self, number: int, operation: Operation, client: Operations) -> str:
        write = self._write(number, operation, operation.path, ABSENT)
        return await self._removal(write, client.remove(operation.path))

    async def _move(self, number: int, operation: Operation, client: Operations) -> str:
        copy = self._write(number, operation, operation.target, None)
        removal = self._write(number, operation, operation.path, ABSENT)
        try:
            result = await client.move(operation.path, operation.target)
        except OutcomeUnknown:
            return UNKNOWN
        except (Unavailable, AlreadyThere, WrongUsage, NoSuchPath) as error:
            copy.ends(self._now(), FAILED)
            removal.ends(self._now(), FAILED)
            return type(error).__name__
        copy.version, copy.copies = result.version, result.copies
        self._acked(copy)
        self._acked(removal)
        return OK

    async def _removal(self, write: Write, work: Awaitable[int]) -> str:
        try:
            await work
        except OutcomeUnknown:
            return UNKNOWN
        except (Unavailable, AlreadyThere, WrongUsage) as error:
            write.ends(self._now(), FAILED)
            return type(error).__name__
        except NoSuchPath:
            write.ends(self._now(), FAILED)
            self._saw(write.number, write.client, write.path, ABSENT, write.began)
            return ABSENT
        self._acked(write)
        return OK

    async def _get(self, number: int, operation: Operation, client: Operations) -> str:
        return await self._look(number, operation, client.get_bytes(operation.path))

    async def _stat(self, number: int, operation: Operation, client: Operations) -> str:
        return await self._look(number, operation, client.stat(operation.path))

    async def _look(self, number: int, operation: Operation, work: Awaitable[object]) -> str:
        began = self._now()
        try:
            result = await work
        except NoSuchPath:
            self._saw(number, operation.client, operation.path, ABSENT, began)
            return ABSENT
        except (Unavailable, WrongUsage) as error:
            return type(error).__name__
        except DataLost as error:
            raise Violation("I1", f"{operation.path}: {error}", self._now()) from None
        self._saw(number, operation.client, operation.path, digest_of(result) if isinstance(result, bytes) else "", began)
        return OK

    async def _list(self, number: int, operation: Operation, client: Operations) -> str:
        began = self._now()
        try:
            entries = [entry async for entry in client.list(operation.path) if not entry.conflict]
        except (Unavailable, NoSuchPath) as error:
            return type(error).__name__
        if all(entry.path != operation.path for entry in entries):  # a file lists itself
            names = tuple(entry.name for entry in entries)
            self._history.listings.append(Listing(number, operation.client, operation.path, names, began, self._now()))
        return OK

    async def _mkdir(self, number: int, operation: Operation, client: Operations) -> str:
        try:
            await client.make_directory(operation.path)
        except ShoalError as error:
            return type(error).__name__
        return OK

    async def _rmdir(self, number: int, operation: Operation, client: Operations) -> str:
        removal = Write(number, operation.client, operation.path, ABSENT, self._now())
        self._history.folder_removals.append(removal)
        try:
            await client.remove(operation.path)
        except OutcomeUnknown:
            return UNKNOWN
        except ShoalError as error:
            removal.ends(self._now(), OK)  # it may have been gone for a moment: who removes looks once more afterwards
            return type(error).__name__
        removal.ends(self._now(), OK)
        return OK

    def _write(self, number: int, operation: Operation, path: str, digest: str | None) -> Write:
        write = Write(number, operation.client, path, digest, self._now())
        self._history.writes.append(write)
        return write

    def _acked(self, write: Write) -> None:
        write.ends(self._now(), OK)
        self.acked += 1
        for oracle in self._oracles:
            oracle.acked(write)

    def _saw(self, number: int, client: int, path: str, digest: str, began: float) -> None:
        self._history.note_read(Seen(number, client, path, digest, began, self._now()))

    def _now(self) -> float:
        return self._world.loop.time()


class _Died(Exception):
    """The client process died."""
