"""The global options, which stand before or after the verb.

Owns `Settings` (one per invocation, in click's context object) and the class of every verb.
"""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from peer.client.home_files import default_home


@dataclass(slots=True)
class Settings:
    """What the global options say; filled in while click parses, before the verb runs."""

    home_given: str = ""
    node: str = ""
    json: bool = False
    quiet: bool = False
    verbosity: int = 0

    @property
    def home(self) -> Path:
        """The folder of key, node address and data."""
        return Path(self.home_given) if self.home_given else default_home()


def settings_of(context: click.Context) -> Settings:
    """Return the settings of this invocation."""
    return context.ensure_object(Settings)


def _store(context: click.Context, parameter: click.Parameter, value: object) -> None:
    # The same option exists on the group and on the verb: only the one that was typed may speak.
    if not value:
        return
    settings = settings_of(context)
    assert parameter.name is not None
    if parameter.name == "verbosity":
        assert isinstance(value, int)
        settings.verbosity += value
    else:
        setattr(settings, parameter.name, value)


def global_options() -> list[click.Parameter]:
    """Return the options that every verb and the command itself take."""
    return [
        click.Option(
            ["--home", "home_given"],
            metavar="DIR",
            expose_value=False,
            callback=_store,
            help="Folder of key and data (env SHOAL_HOME).",
        ),
        click.Option(
            ["--node"],
            metavar="HOST:PORT",
            expose_value=False,
            callback=_store,
            help="Talk to this node (default: the one of this home, else any that is found).",
        ),
        click.Option(["--json"], is_flag=True, expose_value=False, callback=_store, help="JSON on stdout, nothing else."),
        click.Option(["--quiet"], is_flag=True, expose_value=False, callback=_store, help="Errors, and what was asked for; nothing else."),
        click.Option(
            ["-v", "verbosity"], count=True, expose_value=False, callback=_store, help="Say more; -vv also shows tracebacks."
        ),
    ]


def write_examples(formatter: click.HelpFormatter, examples: tuple[str, ...]) -> None:
    """End a help text with lines that can be typed as they stand."""
    with formatter.section("Examples"):
        for example in examples:
            formatter.write(f"{'':{formatter.current_indent}}{example}\n")


class Verb(click.Command):
    """A verb, which takes the global options as well and whose help ends with examples."""

    def __init__(self, *args: object, examples: tuple[str, ...], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # click.Command's own signature
        self.params.extend(global_options())
        self.examples = examples

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb, with the log going where -v says."""
        start_logging(settings_of(ctx).verbosity)
        return super().invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the end of the help."""
        write_examples(formatter, self.examples)


class VerbGroup(click.Group):
    """A verb with verbs of its own."""

    command_class = Verb

    def __init__(self, *args: object, examples: tuple[str, ...], **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # click.Group's own signature
        self.params.extend(global_options())
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the end of the help."""
        write_examples(formatter, self.examples)


def start_logging(verbosity: int) -> None:
    """Send the log to stderr: warnings, with -v what happens, with -vv everything."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)]
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr, force=True)
    logging.getLogger("asyncio").setLevel(max(level, logging.INFO))


pass_settings: Callable[..., Callable[..., object]] = click.make_pass_decorator(Settings, ensure=True)
