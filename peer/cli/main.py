"""The command `shoal`: its verbs, and the one place where an error becomes a line and an exit code."""

import asyncio
import logging
import sys
from collections.abc import Sequence

import click

from peer.cli.bench import bench
from peer.cli.completion import completion
from peer.cli.demo import demo
from peer.cli.doctor import doctor
from peer.cli.file_verbs import cat, cp, get, ls, mkdir, mv, put, rm, stat, where
from peer.cli.member_verbs import forget, leave, rebalance
from peer.cli.node_verbs import key, up
from peer.cli.output import report_error
from peer.cli.settings import Settings, VerbGroup
from peer.cli.start import INTERRUPTED, INTERRUPTED_CODE, INTERRUPTED_EXIT
from peer.cli.status import status
from peer.cli.tree_verbs import du, find
from peer.errors import ShoalError, WrongUsage
from protocol.errors import InvalidPath

TRACEBACK_VERBOSITY = 2

log = logging.getLogger(__name__)


class Interrupted(ShoalError):
    """Somebody pressed Ctrl-C."""

    exit_code = INTERRUPTED_EXIT
    code = INTERRUPTED_CODE

    def __init__(self) -> None:
        super().__init__(INTERRUPTED)


class Shoal(VerbGroup):
    """The group of all verbs; every invocation ends here, in an exit code."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb; click would write an empty line for an interrupt, and take a reader that has gone for a failure."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted from None
        except BrokenPipeError:
            raise click.exceptions.Exit(0) from None

    def main(self, args: Sequence[str] | None = None, **extra: object) -> None:  # type: ignore[override]  # never returns a value
        """Run one command line and exit."""
        arguments = list(sys.argv[1:] if args is None else args)
        settings = Settings()
        try:
            code = super().main(arguments, prog_name="shoal", standalone_mode=False, obj=settings)
            sys.exit(code if isinstance(code, int) else 0)
        except ShoalError as error:
            fail(error, settings)
        except InvalidPath as error:
            fail(WrongUsage(str(error)), settings)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(error.exit_code)
        except click.ClickException as error:
            settings.json = settings.json or "--json" in arguments
            command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx is not None else "shoal"
            message = " ".join(error.format_message().split()).rstrip(".")
            fail(WrongUsage(f"{message}: see `{command} --help`"), settings)
        except (click.Abort, KeyboardInterrupt, asyncio.CancelledError):
            fail(Interrupted(), settings)
        except OSError as error:
            subject = f"{error.filename}: " if error.filename else ""
            fail(ShoalError(f"{subject}{error.strerror or error}"), settings)
        except Exception as error:  # noqa: BLE001  # the outermost boundary: a bug is one line too, and a traceback with -vv
            fail(ShoalError(f"a bug in shoal: {type(error).__name__}: {error}; run it again with -vv and report what it shows"), settings)


def fail(error: ShoalError, settings: Settings) -> None:
    """Report an error that is being handled, and exit with its code."""
    if settings.verbosity >= TRACEBACK_VERBOSITY:
        log.debug("where it happened", exc_info=True)
    report_error(error, as_json=settings.json)
    sys.exit(error.exit_code)


@click.group(
    cls=Shoal,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples=(
        "shoal up                            # a node; the first one founds a cluster",
        "shoal put film.mp4 /films/          # a file into it, from any machine of it",
        "shoal status                        # how it is",
    ),
)
@click.version_option(package_name="shoal")
def main() -> None:
    """A replicated file network for the machines of a LAN."""


@main.result_callback()
def _finished(code: int | None) -> int | None:
    return code


for verb in (
    up, leave, key, put, get, cat, ls, stat, rm, mkdir, cp, mv, du, find, where, status, forget, rebalance, doctor, demo, bench, completion,
):  # fmt: skip
    main.add_command(verb)
