"""The verbs of a node's owner: `up` runs one, `key` shows and makes the key of a cluster."""

import asyncio
import os
import platform
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from peer.cli.output import Output
from peer.cli.service_manager import ServiceManager
from peer.cli.settings import Settings, Verb, VerbGroup, pass_settings
from peer.cli.text import size_of, size_text
from peer.cli.world import build_node_world, discovery_on
from peer.client.home_files import KEY_FILE, key_for_node, key_origin, key_text, parsed, remove_node_file, write_key, write_node_file
from peer.client.reach import checked_address
from peer.config import BACKGROUND_BYTES_PER_SECOND, EVICT_SECONDS, NodeConfig
from peer.errors import ConnectFailed, DiskError, NoSuchPath, NotAllowed, ShoalError, StoreCorrupt, WrongUsage
from peer.node import AddressesChanged, KeyRefused, Left, MembersChanged, Node, NodeEvent, Notice, Ready
from peer.real.interfaces import unknown_interfaces
from peer.real.keys import new_key
from peer.real.loop import run
from peer.real.memory import keep_heap_small
from peer.store.system import Leave
from protocol import limits

DEFAULT_HOST = "0.0.0.0"
DEFAULT_PORT = 7400
EVICT_SECONDS_MIN = 10.0
"""Less, and every restart would move data."""
BACKGROUND_BYTES_MIN = 1 << 20
"""Less, and a large chunk would take longer than anybody waits for it."""
CAPACITY_BYTES_MAX = 1 << 60
"""More than any machine has, and well within what a message can say."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What `shoal up` was told."""

    name: str
    listen: str
    join: tuple[str, ...]
    use_discovery: bool
    discover_on: tuple[str, ...]
    key_file: Path | None
    zone: str
    capacity_bytes: int
    found: bool
    evict_seconds: float
    background_bytes_per_second: int


@click.command(
    cls=Verb,
    short_help="Run a node in the foreground.",
    examples=(
        "shoal up                            # the first machine founds a cluster",
        "shoal up --key-file cluster.key     # the others find and join it",
        "shoal up --join 192.168.1.5:7400    # where multicast does not reach",
    ),
)
@click.option("--name", default="", help="What people call this node (default: the name of this machine).")
@click.option("--listen", default="", metavar="HOST:PORT", help=f"Default {DEFAULT_HOST}:{DEFAULT_PORT}, or the next free port.")
@click.option("--join", multiple=True, metavar="HOST:PORT", help="Also look for the cluster at this address. Repeatable.")
@click.option("--no-discovery", is_flag=True, help="Neither announce this node on the network nor listen for others.")
@click.option("--discover-on", multiple=True, metavar="IFACE|IP", help="Use multicast DNS on these interfaces only. Repeatable.")
@click.option("--key-file", type=click.Path(path_type=Path), help="The cluster's key; it is kept in the home.")
@click.option("--zone", default="", help="Where the machine stands; copies are spread over zones.")
@click.option("--capacity", metavar="SIZE", help="What this node offers, like 500G (default: what its disk has).")
@click.option(
    "--evict-after",
    type=click.FloatRange(min=EVICT_SECONDS_MIN),
    default=EVICT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="A member that is dead for so long is left out, and its copies are made elsewhere.",
)
@click.option(
    "--background-rate",
    metavar="SIZE",
    help=f"Copies move at most at so many bytes a second, each way (default: {size_text(BACKGROUND_BYTES_PER_SECOND)}).",
)
@click.option("--found", is_flag=True, help="Found the cluster of a given key, if this node was never a member of one.")
@pass_settings
def up(
    settings: Settings,
    name: str,
    listen: str,
    join: tuple[str, ...],
    no_discovery: bool,
    discover_on: tuple[str, ...],
    key_file: Path | None,
    zone: str,
    capacity: str | None,
    evict_after: float,
    background_rate: str | None,
    found: bool,
) -> None:
    """Run a node in the foreground.

    Without any key it makes one and founds a cluster. With a key it finds its cluster and joins it.
    """
    if no_discovery and discover_on:
        raise WrongUsage("--no-discovery and --discover-on exclude each other")
    unknown = unknown_interfaces(discover_on)
    if unknown:
        raise WrongUsage(f"--discover-on {unknown[0]}: this machine has no such interface or address")
    options = UpOptions(
        name=checked_name(name or platform.node() or "node", "--name"),
        listen=checked_address(listen, "--listen") if listen else "",
        join=tuple(checked_address(address, "--join") for address in join),
        use_discovery=not no_discovery,
        discover_on=discover_on,
        key_file=key_file,
        zone=checked_name(zone, "--zone") if zone else "",
        capacity_bytes=capacity_bytes(capacity) if capacity is not None else 0,
        found=found,
        evict_seconds=evict_after,
        background_bytes_per_second=background_bytes(background_rate) if background_rate is not None else BACKGROUND_BYTES_PER_SECOND,
    )
    run(run_node(settings, options))


@contextmanager
def starting(home: Path) -> Iterator[None]:
    """Say what keeps a node from starting, and what to do."""
    try:
        yield
    except ConnectFailed as error:
        raise ShoalError(f"cannot listen at {error}: choose another address with --listen") from None
    except DiskError as error:
        raise ShoalError(f"{home}: the node cannot start: {error}" + (": make room, then try again" if error.full else "")) from None
    except StoreCorrupt as error:
        raise ShoalError(f"{home}: {error}: move the folder away to begin anew; what it held is healed from the others") from None


async def run_node(settings: Settings, options: UpOptions) -> None:
    """Run a node until a signal ends it.

    Raises: StorageFailed, NotAllowed, WrongUsage, ShoalError.
    """
    output = Output(settings)
    home = settings.home
    chosen = key_for_node(home, options.key_file)
    discovery = discovery_on(chosen.key, options.discover_on, enabled=options.use_discovery)
    with starting(home):
        env, identity, storage = await build_node_world(chosen.key, home, discovery, any_port=not options.listen)
    config = NodeConfig(
        name=options.name,
        listen=options.listen or f"{DEFAULT_HOST}:{DEFAULT_PORT}",
        zone=options.zone,
        join=options.join,
        found=options.found or chosen.is_new,
        capacity_bytes=options.capacity_bytes,
        evict_seconds=options.evict_seconds,
        background_bytes_per_second=options.background_bytes_per_second,
    )
    stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    stop_on_signals(stop)
    held: list[NodeEvent] = []
    hear: Callable[[NodeEvent], None] = held.append  # until node.json stands: whoever reads "ready" may look for it
    node = Node(config, env, identity, lambda event: hear(event))
    with starting(home):
        await node.start()
    if chosen.is_new:
        write_key(home / KEY_FILE, chosen.key.text)
        output.note(f"a new cluster: its key is {home / KEY_FILE}; whoever has it is in")
    storage.keep_for_cluster(chosen.key.tag)
    if identity.replaced:
        output.warn(
            f"{identity.replaced}: this node begins as a new member and keeps its chunks; "
            "under its old id it stays in the layout and counts as failed; where multicast does not reach the others it needs --join"
        )
    if identity.system.lost_at:
        output.warn(
            f"{identity.lost or 'rows were lost'}: this node stays who it is and fetches its rows from the other members; "
            "until they are here it votes on nothing that they are about"
        )

    def note_event(event: NodeEvent) -> None:
        if isinstance(event, AddressesChanged):
            write_node_file(home, name=options.name, node_id=node.node_id.hex(), addresses=event.addresses)
        tell(output, stop, event)
        manager.tell(event)

    manager = ServiceManager(os.environ)
    write_node_file(home, name=options.name, node_id=node.node_id.hex(), addresses=node.addresses)
    if identity.system.leave is Leave.DRAINING:
        output.note("this node goes on leaving the cluster: `shoal leave` shows how far it is")
    for event in held:
        note_event(event)
    hear = note_event
    if chosen.is_new:
        for line in next_steps(settings, options, node.addresses[0]):
            output.note(line)
    chores = [asyncio.create_task(keep_heap_small()), asyncio.create_task(manager.keep_telling_alive())]
    try:
        await asyncio.wait([stop, node.failed], return_when=asyncio.FIRST_COMPLETED)
    finally:
        manager.tell_stopping()
        for chore in chores:
            chore.cancel()
        remove_node_file(home)
        if not node.failed.done():
            await node.stop()
    if node.failed.done():
        node.failed.result()  # a store that failed takes no more part in anything: no goodbye
    stop.result()


def next_steps(settings: Settings, options: UpOptions, address: str) -> list[str]:
    """Return what somebody who has just begun a cluster can do next."""
    join = "" if options.use_discovery else f" --join {address}"
    home = f" --home {settings.home}" if settings.home_given else ""
    return [
        f"on each other machine, with a copy of that file: shoal up --key-file {KEY_FILE}{join}",
        f"then in another terminal, here or there: shoal{home} put FILE /FILE, shoal{home} ls, shoal{home} status",
    ]


def tell(output: Output, stop: asyncio.Future[None], event: NodeEvent) -> None:
    """Say what has happened to the node; a refused key ends it, and that it has left."""
    match event:
        case Ready(name, node_id, address, members):
            identifier = node_id.hex()
            document = {"event": "ready", "name": name, "id": identifier, "address": address, "members": members}
            output.event(document, f"ready {name} {identifier} {address} members={members}")
        case MembersChanged(before, after):
            output.event({"event": "members", "before": before, "after": after}, f"members {before}->{after}")
        case AddressesChanged(addresses):
            output.note(f"this node is reached at {', '.join(addresses)} from now on")
        case Notice(text):
            output.warn(text)
        case Left():
            output.event({"event": "left"}, "left the cluster: this machine holds nothing any more")
            if not stop.done():
                stop.set_result(None)
        case KeyRefused():
            if not stop.done():
                stop.set_exception(NotAllowed("every address given with --join refuses this key: use the key of that cluster"))


def stop_on_signals(stop: asyncio.Future[None]) -> None:
    """Resolve `stop` on SIGTERM and SIGINT; a second one has its usual effect."""
    loop = asyncio.get_running_loop()

    def finish(number: signal.Signals) -> None:
        loop.remove_signal_handler(number)
        if not stop.done():
            stop.set_result(None)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, finish, number)


def checked_name(text: str, option: str) -> str:
    """Return `text` if it can be the name of a node or zone.

    Raises: WrongUsage.
    """
    if not text.isprintable() or any(letter.isspace() for letter in text) or not 1 <= len(text.encode()) <= limits.NAME_BYTES_MAX:
        raise WrongUsage(f"{option} {text!r}: a name has 1 to {limits.NAME_BYTES_MAX} bytes and no white space")
    return text


def capacity_bytes(text: str) -> int:
    """Return the bytes that --capacity means.

    Raises: WrongUsage.
    """
    try:
        size = size_of(text)
    except ValueError as error:
        raise WrongUsage(f"--capacity: {error}") from None
    if not size:
        raise WrongUsage(f"--capacity {text}: a node offers something: leave it out to offer what the disk has")
    if size > CAPACITY_BYTES_MAX:
        raise WrongUsage(f"--capacity {text}: at most {size_text(CAPACITY_BYTES_MAX)}")
    return size


def background_bytes(text: str) -> int:
    """Return the bytes per second that --background-rate means.

    Raises: WrongUsage.
    """
    try:
        rate = size_of(text)
    except ValueError as error:
        raise WrongUsage(f"--background-rate: {error}") from None
    if not BACKGROUND_BYTES_MIN <= rate <= CAPACITY_BYTES_MAX:
        least, most = size_text(BACKGROUND_BYTES_MIN), size_text(CAPACITY_BYTES_MAX)
        raise WrongUsage(f"--background-rate {text}: from {least} to {most}; `shoal rebalance pause` stops what can wait")
    return rate


@click.group(
    cls=VerbGroup,
    examples=(
        "shoal key show                      # copy it to another machine",
        "shoal key new                       # before `shoal up --found`",
    ),
)
def key() -> None:
    """Show or make the key of a cluster."""


@key.command(
    "show",
    examples=(
        "shoal key show > cluster.key",
        "shoal key show | ssh ben 'umask 077; cat > cluster.key'",
    ),
)
@pass_settings
def key_show(settings: Settings) -> None:
    """Print the key. Whoever has it can read, write and delete everything."""
    text = key_text(settings.home)
    if text is None:
        raise NoSuchPath(f"there is no key in {settings.home}: `shoal up` or `shoal key new` makes one")
    parsed(text, key_origin(settings.home))
    Output(settings).result({"key": text}, text)


@key.command(
    "new",
    examples=(
        "shoal key new && shoal up --found",
        "shoal key new --home /srv/shoal",
    ),
)
@pass_settings
def key_new(settings: Settings) -> None:
    """Make a key in the home, for a cluster that is founded with `shoal up --found`."""
    path = settings.home / KEY_FILE
    write_key(path, new_key().text)
    output = Output(settings)
    output.done({"path": str(path)}, str(path))
    output.note("begin its cluster here with `shoal up --found`; copy it to the others, and there: shoal up --key-file cluster.key")
