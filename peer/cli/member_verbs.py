"""The verbs about who is a member: `leave` takes the machine of this home out of its cluster, `forget` one that is dead, and `rebalance`
says whether copies move for who has come or gone.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import click

from peer.cli.output import Output
from peer.cli.progress import Transfer
from peer.cli.settings import Settings, Verb, VerbGroup, pass_settings
from peer.cli.status import notices_of
from peer.cli.text import count_text, printable, size_text
from peer.cli.world import client_of
from peer.client.asynchronous import Client
from peer.client.home_files import key_for_client, node_addresses, node_identifier
from peer.client.reach import HOME_NODE_SECONDS, open_session
from peer.errors import LinkLost, NoSuchPath, OutcomeUnknown, RequestFailed, ShoalError, Unavailable, WrongUsage
from peer.files.cluster_status import ClusterStatus, MemberStatus
from peer.real.loop import run
from peer.session import Session
from protocol.errors import ErrorCode
from protocol.identity import NodeId, short
from protocol.limits import PARTITIONS
from protocol.messages import Leave, Leaving

ASK_SECONDS = 5.0
LOOK_SECONDS = 0.5
FORGET_SECONDS = 60.0
ID_DIGITS_MIN = 4
SAY_SECONDS = 10.0
"""How often it is said how far it is, where no line shows it."""
SILENT_SECONDS = 10.0
"""A node that does not answer for so long has stopped."""


@click.command(
    cls=Verb,
    short_help="Leave the cluster with this machine, for good.",
    examples=(
        "shoal leave                         # beside the running node of this home",
        "shoal leave --json",
    ),
)
@pass_settings
def leave(settings: Settings) -> None:
    """Take the node of this home out of its cluster: the others take over what it holds, then it stops.

    It serves until then. Ctrl-C ends this command and not the leaving; the same command again shows how far it is.
    """
    if settings.node:
        raise WrongUsage("--node: a machine leaves by itself: run `shoal leave` there, beside its node")
    output = Output(settings)
    try:
        run(watch_leaving(settings, output))
    except KeyboardInterrupt:
        output.note("the node goes on leaving: `shoal leave` shows how far it is")
        raise


@click.command(
    cls=Verb,
    short_help="Leave a member that is dead out, without waiting.",
    examples=(
        "shoal forget ben                    # by its name",
        "shoal forget 5f1c09ab               # or by its id, as `shoal status` has it",
        "shoal forget --force ben cleo dora  # three of five are lost",
    ),
)
@click.argument("members", metavar="MEMBER...", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Most machines are gone for good: go on without MEMBERs, as another cluster.")
@click.option("--yes", is_flag=True, help="Do not ask before --force does it.")
@pass_settings
def forget(settings: Settings, members: tuple[str, ...], force: bool, yes: bool) -> None:
    """Leave each MEMBER out, which is dead and does not come back: what it held is copied to the others at once.

    Without it that happens when it has been dead for ten minutes. If it does come back, it is let in as a newcomer.

    Where most machines are gone nobody decides that any more. With --force the others go on as another cluster with all that they have, and
    those that are off now as soon as they meet it. It says before what that costs. A MEMBER that does come back is refused, and has
    to be begun anew (without `identity` in its data folder); so do not name one that only cannot be reached now. Run it on ONE machine: two
    that are forced become two clusters.
    """
    output = Output(settings)
    if not force:
        run(forget_and_watch(settings, output, members))
        return
    gone = run(tell_cost(settings, output.note if yes else output.before_asking, members))
    if not yes:
        if not may_ask():
            raise WrongUsage("--force asks before it does it: where nobody answers say --yes as well")
        if not click.confirm("Go on without them, for good?", err=True):
            raise ShoalError("nothing was changed")
    run(go_on_without(settings, output, gone))


def may_ask() -> bool:
    """Return whether somebody is there to answer."""
    return sys.stdin.isatty()


async def tell_cost(settings: Settings, say: Callable[[str], None], members: Sequence[str]) -> list[MemberStatus]:
    """Say what it costs to go on by force without some members and which other clusters are known of, and return who they are.

    Raises: NoSuchPath (there is no such member), WrongUsage (one is there, several are meant, or nothing has to be forced), Unavailable.
    """
    async with client_of(settings) as client:
        found = await client.status()
        gone = [member_of(found, who) for who in members]
        cost = await client.force([member.node_id for member in gone], begin=False)
    staying = [member for member in found.members if member.is_member and member not in gone]
    say(f"{names_of(staying)} would go on as another cluster, without {names_of(gone)}")
    away = [member for member in staying if member.state == "dead"]
    if away:
        say(f"kept, though away now: {names_of(away)}: they follow by themselves when they are back")
    for notice in notices_of(found):
        say(notice)
    if cost.short:
        text = count_text(cost.short, "partition has lost most of its replicas", "partitions have lost most of their replicas")
        say(f"{text}: what was written last may be missing there, or be older than it was")
    if cost.lost:
        say(f"{count_text(cost.lost, 'partition has', 'partitions have')} no replica left: the entries of those folders are lost")
    if cost.homeless:
        share = PARTITIONS // cost.homeless
        say(f"about one chunk in {share} lay on machines that are gone alone: the files that it belongs to are lost")
    return gone


def names_of(members: Sequence[MemberStatus]) -> str:
    """Return the names of some members, in order."""
    return ", ".join(sorted(member.name for member in members))


async def go_on_without(settings: Settings, output: Output, gone: Sequence[MemberStatus]) -> None:
    """Have one node go on by force without some members, and return when it has.

    Raises: WrongUsage, Unavailable, OutcomeUnknown.
    """
    ids = [member.node_id for member in gone]
    give_up_at = asyncio.get_running_loop().time() + FORGET_SECONDS
    before = b""
    while True:
        async with client_of(settings) as client:
            found = await client.status()
            before = before or found.cluster_id
            if found.cluster_id != before:
                break
            if asyncio.get_running_loop().time() >= give_up_at:
                raise OutcomeUnknown("no other cluster has begun yet: see `shoal status`")
            with suppress(OutcomeUnknown):
                await client.force(ids, begin=True)
        await asyncio.sleep(LOOK_SECONDS)
    staying = [member.name for member in found.members if member.is_member]
    document: dict[str, object] = {
        "event": "forced",
        "cluster": found.cluster_id.hex(),
        "former": before.hex(),
        "members": staying,
        "forgotten": [member.name for member in gone],
    }
    cluster, names = short(found.cluster_id), printable(", ".join(staying))
    output.done(document, f"cluster {cluster} goes on from {short(before)} with {names}: `shoal status` shows how it recovers")


@click.group(
    cls=VerbGroup,
    short_help="Pause and resume the moving of copies.",
    examples=(
        "shoal rebalance pause               # before a long evening with large files",
        "shoal rebalance resume",
    ),
)
def rebalance() -> None:
    """Pause and resume the moving of copies to where they belong, as after a machine has joined.

    What has fewer copies than wanted is copied all the same. `shoal status` shows what is still to be moved.
    """


@rebalance.command(
    short_help="Leave copies where they are.",
    examples=(
        "shoal rebalance pause",
        "shoal status                        # what waits, and who is paused",
    ),
)
@pass_settings
def pause(settings: Settings) -> None:
    """Leave copies where they are, as long as there are enough: on all members, until `shoal rebalance resume`, restarts included."""
    run(set_rebalance(settings, Output(settings), paused=True))


@rebalance.command(
    short_help="Go on moving copies to where they belong.",
    examples=(
        "shoal rebalance resume",
        "shoal status --watch                # see it come to its end",
    ),
)
@pass_settings
def resume(settings: Settings) -> None:
    """Go on moving copies to where they belong, on all members."""
    run(set_rebalance(settings, Output(settings), paused=False))


async def set_rebalance(settings: Settings, output: Output, *, paused: bool) -> None:
    """Tell all members.

    Raises: OutcomeUnknown (some did not answer, the others know it).
    """
    async with client_of(settings) as client:
        silent = await client.set_rebalance(paused=paused)
    if silent:
        names = ", ".join(map(printable, silent))
        raise OutcomeUnknown(f"the others know it, but no answer came from {names}: run it again when `shoal status` shows them alive")
    if paused:
        output.done({"event": "paused"}, "rebalancing is paused: copies stay where they are, and what has too few is copied all the same")
    else:
        output.done({"event": "resumed"}, "rebalancing goes on")


async def forget_and_watch(settings: Settings, output: Output, members: Sequence[str]) -> None:
    """Have members left out, one after another, and return when that is decided.

    Raises: NoSuchPath (there is no such member), WrongUsage (it is there, or several are meant), Unavailable.
    """
    async with client_of(settings) as client:
        for who in members:
            await forget_one(client, output, who)


async def forget_one(client: Client, output: Output, who: str) -> None:
    """Have a member left out. Raises: as `forget_and_watch`."""
    found = await client.status()
    chosen = member_of(found, who)
    give_up_at = asyncio.get_running_loop().time() + FORGET_SECONDS
    while any(each.node_id == chosen.node_id and each.is_member for each in found.members) and chosen.name not in found.departing:
        if asyncio.get_running_loop().time() >= give_up_at:
            raise Unavailable(f"{chosen.name} is a member still: the others have not decided on it, see `shoal status`")
        try:
            await client.forget(chosen.node_id)
        except Unavailable:
            for notice in notices_of(found):  # who is not back may have gone on without this machine
                output.note(notice)
            raise
        await asyncio.sleep(LOOK_SECONDS)
        found = await client.status()
    name = printable(chosen.name)
    document: dict[str, object] = {"event": "forgotten", "name": chosen.name, "id": chosen.node_id.hex()}
    output.done(document, f"{name} is left out: what it held is copied to the others")


def member_of(found: ClusterStatus, who: str) -> MemberStatus:
    """Return the member of this name, or whose id begins so.

    Raises: NoSuchPath, WrongUsage.
    """
    members = [member for member in found.members if member.is_member]
    chosen = [member for member in members if member.name == who] or [
        member for member in members if len(who) >= ID_DIGITS_MIN and member.node_id.hex().startswith(who.lower())
    ]
    if not chosen:
        raise NoSuchPath(f"{who}: there is no such member: `shoal status` lists them")
    if len(chosen) > 1:
        raise WrongUsage(f"{who}: {len(chosen)} members are called that: say the id of the one that is meant")
    return chosen[0]


async def watch_leaving(settings: Settings, output: Output) -> None:
    """Have the node leave, and return when it has.

    Raises: Unavailable (no node runs, it is needed, or it ended before it had left), NotAllowed, ShoalError.
    """
    async with session_of_home(settings) as (session, node_id):
        last = await ask(session, node_id)
        loop = asyncio.get_running_loop()
        said_at = answered_at = loop.time()
        with output.transfer("leaving") as transfer, transfer.only_file(last.chunk_bytes) as progress:
            say(output, transfer, last)
            while not last.has_left:
                await asyncio.sleep(LOOK_SECONDS)
                try:
                    now = await ask(session, node_id)
                except (LinkLost, TimeoutError):
                    if loop.time() >= answered_at + SILENT_SECONDS:
                        raise Unavailable("the node stopped before it had left: start it again with `shoal up`, it goes on") from None
                    continue
                answered_at = loop.time()
                progress(max(0, last.chunk_bytes - now.chunk_bytes))
                if loop.time() >= said_at + SAY_SECONDS or now.waits_for != last.waits_for:
                    said_at = loop.time()
                    say(output, transfer, now)
                last = now
        output.done({"event": "left"}, "left the cluster: this machine holds nothing any more")


def say(output: Output, transfer: Transfer, how_far: Leaving) -> None:
    """Say how far it is."""
    left = transfer.seconds_left
    document = {
        "event": "leaving",
        "partitions": how_far.partitions,
        "chunks": how_far.chunks,
        "bytes": how_far.chunk_bytes,
        "seconds_left": round(left) if left is not None else None,
        "waits_for": how_far.waits_for or None,
    }
    if output.is_json:
        output.event(document, "")
        return
    held = f"{count_text(how_far.partitions, 'partition')} and {count_text(how_far.chunks, 'chunk')} ({size_text(how_far.chunk_bytes)})"
    eta = f", {timedelta(seconds=round(left))} left" if left is not None else ""
    waits = f"; {how_far.waits_for}" if how_far.waits_for else ""
    output.note(f"leaving: {held} still to be handed over{eta}{waits}")


@asynccontextmanager
async def session_of_home(settings: Settings) -> AsyncIterator[tuple[Session, NodeId]]:
    """Yield a session with the node of this home, and who that is.

    Raises: Unavailable, NotAllowed.
    """
    addresses, identifier = node_addresses(settings.home), node_identifier(settings.home)
    if not addresses or not identifier:
        raise Unavailable(f"no node of {settings.home} runs: start it with `shoal up`, for it leaves by handing over what it holds")
    session = await open_session(key_for_client(settings.home), addresses, HOME_NODE_SECONDS)
    try:
        yield session, NodeId(bytes.fromhex(identifier))
    finally:
        await session.close()


async def ask(session: Session, node_id: NodeId) -> Leaving:
    """Have the node leave, and return how far it is.

    Raises: Unavailable (it cannot leave now, and says why), ShoalError, LinkLost, TimeoutError.
    """
    try:
        reply = await session.request(node_id, Leave(int(ASK_SECONDS * 1000)), timeout_seconds=ASK_SECONDS)
    except RequestFailed as failed:
        if failed.code in (ErrorCode.UNAVAILABLE, ErrorCode.NO_CLUSTER):
            raise Unavailable(failed.reason) from None
        raise ShoalError(f"the node does not leave: {failed.reason}") from None
    assert isinstance(reply.message, Leaving)
    return reply.message
