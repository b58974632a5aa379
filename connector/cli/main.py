"""The command line's entry: all commands under one name."""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from connector import __version__
from connector.cli.acls import acls
from connector.cli.check import check
from connector.cli.demo import demo
from connector.cli.explain import explain
from connector.cli.output import written
from connector.cli.pause import pause
from connector.cli.printing import ENDLESS
from connector.cli.rebuild_progress import rebuild_progress
from connector.cli.resume import resume
from connector.cli.run import run, worker
from connector.cli.schema import schema
from connector.cli.simulate import simulate


class _Commands(TyperGroup):
    """All commands, with errors in arguments reported in our own words."""

    def invoke(self, ctx: Any) -> Any:
        """Run the named command."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise


class _DeadLetters(TyperGroup):
    """The commands on dead letters, which load a Kafka client: not before one of them, or their help, is requested."""

    _loaded: Any = None

    @property
    def commands(self) -> Any:
        """Return the commands by name."""
        if self._loaded is None:
            from connector.cli.dead_letters.group import dead_letters

            dead_letters.rich_markup_mode = self.rich_markup_mode
            self._loaded = typer.main.get_group(dead_letters).commands
        return self._loaded

    @commands.setter
    def commands(self, none: Any) -> None:
        """Ignore what typer sets before."""


app = typer.Typer(
    name="trackly-connector",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    # Plain tracebacks: pretty ones print local variables, which contain keys and payloads.
    pretty_exceptions_enable=False,
    help="Kafka to Trackly SMS: events in, bulk requests out, one outcome or dead letter per record.",
    epilog="Exit codes: 0 ok, 1 failed, 2 bad settings or arguments, 3 no broker answered, 4 instance id in use, "
    "5 stopped with records in doubt, 6 rejected by the platform, 130 interrupted by Ctrl-C.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trackly-connector {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Define the options before a command; typer prints the application's own help instead of this."""


app.add_typer(
    typer.Typer(cls=_DeadLetters, no_args_is_help=True),
    name="dead-letters",
    help="Find dead letters, understand, fix and send them again.",
)
for command in (run, check, explain, acls, pause, resume, rebuild_progress, simulate, demo, schema):
    app.command()(command)
app.command(hidden=True)(worker)


def main() -> None:
    """Run the command that the arguments name.

    Help and errors in arguments have frames on a terminal only: in a log each is one line, however long.
    """
    on_terminal = all(stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr))
    with written():
        if on_terminal:
            app()
        else:
            app.rich_markup_mode = None
            app(terminal_width=ENDLESS)
