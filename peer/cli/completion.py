"""What the Tab key offers: the verb `completion`, which prints the script for a shell, and paths of the cluster.

Paths come from the node of this home (or --node) and only from there: the Tab key must not listen to a network. Whatever goes
wrong, or takes too long, offers nothing.
"""

import asyncio
import re

import click
from click.shell_completion import CompletionItem, get_completion_class

from peer.cli.output import Output
from peer.cli.settings import Settings, Verb, pass_settings, settings_of
from peer.client.asynchronous import Client
from peer.client.home_files import node_addresses
from peer.errors import ShoalError
from peer.files.entries import Entry
from peer.real.loop import run
from protocol.errors import InvalidPath
from protocol.paths import ROOT, normalise

OFFER_SECONDS = 1.5
OFFERS_MAX = 500
_NEEDS_NO_QUOTES = re.compile(r"[\w/.,@%+-]*")
"""The scripts hand a word to the shell as it is: a name that the shell would take apart is not offered."""
COMPLETE_VARIABLE = "_SHOAL_COMPLETE"
INSTALL = {
    "bash": "shoal completion bash > ~/.local/share/bash-completion/completions/shoal",
    "zsh": 'shoal completion zsh > "${fpath[1]}/_shoal"',
    "fish": "shoal completion fish > ~/.config/fish/completions/shoal.fish",
}


@click.command(
    cls=Verb,
    short_help="Print what lets a shell complete commands and paths.",
    examples=(
        "mkdir -p ~/.local/share/bash-completion/completions",
        INSTALL["bash"],
        'eval "$(shoal completion bash)"     # for this shell only',
    ),
)
@click.argument("shell", type=click.Choice(sorted(INSTALL)))
@pass_settings
def completion(settings: Settings, shell: str) -> None:
    """Print the script that lets SHELL complete verbs, options, local paths and, beside a node, remote ones."""
    complete = get_completion_class(shell)
    assert complete is not None
    root = click.get_current_context().find_root().command
    lines = complete(root, {}, "shoal", COMPLETE_VARIABLE).source().strip().splitlines()
    hint = f"# To have it in every new shell: {INSTALL[shell]}"
    lines.insert(1 if lines[0].startswith("#compdef") else 0, hint)  # zsh looks for that in the first line
    Output(settings).result({"shell": shell, "script": "\n".join(lines)}, "\n".join(lines))


def remote_paths(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return what of the cluster begins like `incomplete`; nothing where no node of this home answers at once."""
    settings = settings_of(context)
    addresses = [settings.node] if settings.node else node_addresses(settings.home)
    if not addresses or not incomplete.startswith(ROOT):
        return [CompletionItem(ROOT)] if not incomplete else []
    try:
        return [CompletionItem(path) for path in run(_matches(settings, addresses, incomplete))]
    except (ShoalError, InvalidPath, TimeoutError, OSError):
        return []


def local_paths(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell offer files of this machine."""
    return [CompletionItem(incomplete, type="file")]


def sources_of_put(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return what may follow `shoal put`; the target is known by its / and by not being the first."""
    if _has_operand(context) and incomplete.startswith(ROOT):
        return remote_paths(context, parameter, incomplete)
    return local_paths(context, parameter, incomplete)


def sources_of_get(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return what may follow `shoal get`, as `sources_of_put` does."""
    if _has_operand(context) and not incomplete.startswith(ROOT):
        return local_paths(context, parameter, incomplete)
    return remote_paths(context, parameter, incomplete)


def _has_operand(context: click.Context) -> bool:
    # click gives the only operand so far to the last argument, and more of them to the first as well.
    return any(context.params.get(name) for name in ("local", "remote"))


async def _matches(settings: Settings, addresses: list[str] | tuple[str, ...], incomplete: str) -> list[str]:
    async with asyncio.timeout(OFFER_SECONDS), Client.connect(addresses, home=settings.home) as client:
        found = await _beginning_with(client, incomplete)
        if len(found) == 1 and found[0].endswith("/"):
            # A shell ends a word that is the only one: what is in the folder keeps it open.
            found += await _beginning_with(client, found[0])
        return found


async def _beginning_with(client: Client, incomplete: str) -> list[str]:
    folder = incomplete[: incomplete.rindex("/") + 1]
    found: list[str] = []
    async for entry in client.list(normalise(folder)):
        offered = _offered(folder, entry)
        if offered.startswith(incomplete) and _NEEDS_NO_QUOTES.fullmatch(offered):
            found.append(offered)
            if len(found) == OFFERS_MAX:
                break
    return found


def _offered(folder: str, entry: Entry) -> str:
    return folder + entry.name + ("/" if entry.type == "dir" else "")
