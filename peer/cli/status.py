"""The verb `status`: the cluster on one screen, and its health in numbers; once, or again and again."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import click
from rich.console import Group, RenderableType
from rich.text import Text

from peer.cli.output import Output, plain_table
from peer.cli.settings import Settings, Verb, pass_settings
from peer.cli.text import count_text, printable, size_text
from peer.cli.world import client_of
from peer.errors import ShoalError
from peer.files.cluster_status import ClusterStatus, MemberStatus
from peer.files.confirmed import PAIR
from peer.real.loop import run
from protocol.identity import short
from protocol.messages import Status

STATE_STYLES = {
    "alive": "green",
    "joining": "yellow",
    "recovering": "yellow",
    "suspect": "yellow",
    "leaving": "yellow",
    "dead": "red",
    "left": "red",
}
WATCH_SECONDS = 2.0


@click.command(
    cls=Verb,
    short_help="Show the members, and how well the data is kept.",
    examples=(
        "shoal status",
        "shoal status --watch",
        "shoal status --json | jq .health.alive",
    ),
)
@click.option("--watch", is_flag=True, help=f"Show it anew every {WATCH_SECONDS:.0f} s, until Ctrl-C (exit 0).")
@pass_settings
def status(settings: Settings, watch: bool) -> None:
    """Show the members of the cluster, and how well the data is kept."""
    output = Output(settings)
    if watch:
        with suppress(KeyboardInterrupt):  # it has no other end
            run(keep_watching(settings, output))
    else:
        found = run(look(settings))
        if output.is_json:
            output.result(status_document(found), "")
        else:
            output.print(status_view(found))


async def look(settings: Settings) -> ClusterStatus:
    """Ask once.

    Raises: ShoalError.
    """
    async with client_of(settings) as client:
        return await client.status()


async def keep_watching(settings: Settings, output: Output) -> None:
    """Show the status again and again; once a node has answered, that none does is shown as well.

    Raises: ShoalError when no node answers at the beginning.
    """
    async with client_of(settings) as client:
        with output.screen() as show:
            while True:
                try:
                    found = await client.status()
                except ShoalError as error:
                    if output.is_json:
                        output.error(error)
                    else:
                        show(watched(Text(printable(str(error)), style="red")))
                else:
                    if output.is_json:
                        output.result(status_document(found), "")
                    else:
                        show(watched(status_view(found)))
                await asyncio.sleep(WATCH_SECONDS)


def watched(what: RenderableType) -> Group:
    """Return what is seen with the time at which it was."""
    return Group(Text(f"{datetime.now():%H:%M:%S}  every {WATCH_SECONDS:.0f} s, Ctrl-C ends it", style="dim"), what)


def status_view(found: ClusterStatus) -> Group:
    """Return a status as a table and what follows from it."""
    alive = count_alive(found)
    members = count_text(count_members(found), "member")
    table = plain_table("name", "id", "address", "state", "zone", ">weight", ">chunks", ">data", ">free")
    for member in found.members:
        own = member.status
        table.add_row(
            Text(printable(member.name)),
            short(member.node_id),
            member.address,
            Text(member.state, style=STATE_STYLES[member.state]),
            Text(printable(member.zone) or "-"),
            str(member.weight),
            str(own.chunks) if own is not None else "?",
            size_text(own.chunk_bytes) if own is not None else "?",
            size_text(own.free_bytes) if own is not None else "?",
        )
    begun = f" (by force from {short(found.former[-1].cluster_id)})" if found.former else ""
    first = f"cluster {short(found.cluster_id)}{begun}  layout {found.layout_version}  {alive} of {members} alive"
    return Group(Text(first), table, *(Text(printable(line)) for line in health_lines(found)))


def status_document(found: ClusterStatus) -> dict[str, object]:
    """Return the JSON shape of a status. What a member that does not answer would say of itself is null."""
    return {
        "cluster": found.cluster_id.hex(),
        "layout": found.layout_version,
        "former": [{"cluster": former.cluster_id.hex(), "layout": former.version} for former in found.former],
        "members": [member_document(member, found) for member in found.members],
        "changing": {"entering": list(found.entering), "leaving": list(found.departing), "partitions": found.moving_partitions},
        "health": health_document(found),
    }


def member_document(member: MemberStatus, found: ClusterStatus) -> dict[str, object]:
    """Return the JSON shape of a member."""
    own = member.status
    is_dead = member.state == "dead"
    return {
        "name": member.name,
        "id": member.node_id.hex(),
        "address": member.address,
        "state": member.state,
        "zone": member.zone,
        "weight": member.weight,
        "chunks": own.chunks if own is not None else None,
        "bytes": own.chunk_bytes if own is not None else None,
        "free": own.free_bytes if own is not None else None,
        "missing_chunks": own.missing_chunks if own is not None else None,
        "surplus_chunks": own.surplus_chunks if own is not None else None,
        "rebalance_paused": own.is_rebalance_paused if own is not None else None,
        "uptime_seconds": own.uptime_seconds if own is not None else None,
        "away_seconds": member.away_seconds if is_dead else None,
        "evicted_in_seconds": seconds_until_eviction(member, found) if is_dead and not found.eviction_hold else None,
    }


def health_document(found: ClusterStatus) -> dict[str, object]:
    """Return the health of the cluster in numbers, summed over the members that answer."""
    answers = [member.status for member in found.members if member.status is not None]
    return {
        "copies_wanted": found.copies_wanted,
        "copies_needed": found.copies_needed,
        "alive": count_alive(found),
        "moving_partitions": found.moving_partitions,
        "owed_chunks": sum(answer.owed_chunks for answer in answers),
        "missing_chunks": sum(answer.missing_chunks for answer in answers),
        "surplus_chunks": sum(answer.surplus_chunks for answer in answers),
        "corrupt_chunks": sum(answer.corrupt_chunks for answer in answers),
        "unsynced_partitions": sum(answer.unsynced_partitions for answer in answers),
        "lost_partitions": sum(answer.lost_partitions for answer in answers),
        "notices": notices_of(found),
    }


def notices_of(found: ClusterStatus) -> list[str]:
    """Return what the members that answer want people to know, each once."""
    return sorted({notice for member in found.members if member.status is not None for notice in member.status.notices})


def count_alive(found: ClusterStatus) -> int:
    """Return how many members are there without a doubt."""
    return sum(member.is_member and member.state in ("alive", "leaving", "recovering") for member in found.members)


def count_members(found: ClusterStatus) -> int:
    """Return how many members the cluster has; who is joining is none yet."""
    return sum(member.is_member for member in found.members)


def count_sources(found: ClusterStatus) -> int:
    """Return how many members are there and have their rows."""
    return sum(member.is_member and member.state in ("alive", "leaving") for member in found.members)


def seconds_until_eviction(member: MemberStatus, found: ClusterStatus) -> int:
    """Return how long a dead member stays a member."""
    return max(0, round(found.evict_seconds) - member.away_seconds)


def health_lines(found: ClusterStatus) -> list[str]:
    """Return what a person should know of the health, the worst first."""
    answers = [member.status for member in found.members if member.status is not None]
    alive = count_alive(found)
    away = count_members(found) - alive
    lines = []
    if alive < found.copies_needed:
        what = "nothing is read or written: that"
        if alive and count_members(found) == PAIR:
            what = "nothing is written, and only what both are known to have is read: more"
        lines.append(f"{what} needs {count_text(found.copies_needed, 'machine')} and {alive} can be reached")
    elif count_sources(found) < min(found.copies_needed, found.recovery_sources):
        needed = count_text(found.copies_needed, "machine")
        lines.append(f"nothing is read or written: that needs {needed} with their rows, and {count_sources(found)} can be reached")
    elif away:
        copies = count_text(min(found.copies_wanted, alive), "copy", "copies")
        later = "; what is missing then is copied when they return" if alive < found.copies_wanted else ""
        lines.append(f"{count_text(away, 'member')} away: new files are kept in {copies}{later}")
    lines.extend(dead_line(member, found) for member in found.members if member.state == "dead")
    lines.extend(recovering_line(member, found) for member in found.members if member.state == "recovering")
    owed = sum(answer.owed_chunks for answer in answers)
    if owed:
        return_or_go = "return" if found.eviction_hold else "return or are left out"
        how = f"until the members that are away {return_or_go}" if away else "they are being repaired"
        lines.append(f"{count_text(owed, 'chunk')} with fewer than {found.copies_wanted} copies: {how}")
    lines.extend(rebalance_lines(answers))
    if found.moving_partitions:
        lines.append(moving_line(found, sum(answer.unsynced_partitions for answer in answers)))
    corrupt = sum(answer.corrupt_chunks for answer in answers)
    if corrupt:
        lines.append(f"damaged on disk and set aside since the start: {count_text(corrupt, 'copy', 'copies')}")
    lines.extend(notices_of(found))
    if not lines:
        lines.append(f"healthy: new files are kept in {count_text(found.copies_wanted, 'copy', 'copies')}")
    return lines


def rebalance_lines(answers: Sequence[Status]) -> list[str]:
    """Return what copies are not where they belong, and who leaves them there."""
    missing, surplus = sum(each.missing_chunks for each in answers), sum(each.surplus_chunks for each in answers)
    lines = []
    if missing:
        after = f", {surplus} elsewhere to be given up after that" if surplus else ""
        lines.append(f"{count_text(missing, 'copy', 'copies')} still to come to where they belong{after}")
    elif surplus:
        lines.append(f"{count_text(surplus, 'copy', 'copies')} elsewhere to be given up, once those who are to have them have confirmed it")
    paused = sorted(printable(each.name) for each in answers if each.is_rebalance_paused)
    if paused:
        lines.append(f"rebalancing is paused on {', '.join(paused)}: `shoal rebalance resume` lets it go on")
    return lines


def dead_line(member: MemberStatus, found: ClusterStatus) -> str:
    """Return what becomes of a dead member."""
    if found.eviction_hold:
        return f"{member.name} is dead and stays a member: {found.eviction_hold}"
    then = timedelta(seconds=seconds_until_eviction(member, found))
    return f"{member.name} is dead: in {then} it is left out, and what it held is copied to the others"


def recovering_line(member: MemberStatus, found: ClusterStatus) -> str:
    """Return how far a member is that has lost its rows, or what it waits for."""
    left = count_text(member.status.lost_partitions if member.status is not None else 0, "partition")
    sources = count_sources(found)
    if sources < found.recovery_sources:
        needed = count_text(found.recovery_sources, "other member")
        return (
            f"{member.name} has lost its rows and votes on nothing: it needs {needed} that have theirs, and {sources} can be reached; "
            "where no more come back, stop it and name it to `shoal forget --force`"
        )
    return f"{member.name} has lost its rows and fetches them from the others: {left} to go, on which it does not vote"


def moving_line(found: ClusterStatus, unsynced: int) -> str:
    """Return what moves, and for whom; `unsynced` is what new owners still lack, counted for each of them."""
    who = [*(f"{name} comes in" for name in found.entering), *(f"{name} goes out" for name in found.departing)]
    because = f" ({', '.join(who)})" if who else ""
    left = f", {unsynced} to be synced" if unsynced else ""
    return f"moving to new owners: {count_text(found.moving_partitions, 'partition')}{because}{left}"
