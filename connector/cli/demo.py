"""`demo`: a real broker, a simulated platform with faults, 100,000 events, and a verification."""

from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from connector.cli.errors import CommandError, ExitCode, reported
from connector.config.hosts import check_servers

if TYPE_CHECKING:
    from connector.demo.demo import Result


def _servers(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return check_servers(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@reported()
def demo(
    *,
    events: Annotated[int, typer.Option(min=1, max=10_000_000, help="How many events to produce.")] = 100_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the events and of the simulator's randomness.")] = 7,
    bootstrap_servers: Annotated[
        str | None,
        typer.Option(
            help="Use this Kafka cluster; otherwise one is started with Java and Maven, or Docker.", callback=_servers
        ),
    ] = None,
    timeout_secs: Annotated[float, typer.Option(min=1, help="How long the whole run may take.")] = 80,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the totals as one JSON object on the last line.")
    ] = False,
) -> None:
    """Show the connector at work: slow replies, errors, an outage, a lost reply, and one event in a hundred bad.

    At the end both result topics are read back and compared with what was produced and with what the platform
    accepted. Exits with 1 if anything was lost, accepted twice, or ended with a wrong result.
    """
    # Imported here: other commands should not load the broker and the platform.
    from connector.demo.demo import DemoError, run_demo
    from connector.demo.events import Events

    console = Console(stderr=as_json)
    try:
        result = run_demo(
            console,
            events=Events(events, seed=seed),
            bootstrap_servers=bootstrap_servers,
            timeout_secs=timeout_secs,
        )
    except DemoError as error:
        raise CommandError(str(error), ExitCode.FAILED, way_out="the end of the log says why") from error
    _show(console, result)
    if as_json:
        typer.echo(orjson.dumps(result.summary()))
    if result.problems:
        raise typer.Exit(ExitCode.FAILED)


def _show(console: Console, result: "Result") -> None:
    found = result.judgement
    table = Table(title="What became of the events", title_justify="left", show_header=False, box=None)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("produced", f"{found.produced:,}")
    table.add_row("queued", f"{found.queued:,}")
    for reason, count in found.dead_letters.items():
        table.add_row(f"dead letter: {reason}", f"{count:,}")
    table.add_row("in doubt", f"{found.in_doubt:,}")
    table.add_row("lost", f"{found.lost:,}")
    table.add_row("accepted twice", f"{found.accepted_twice:,}")
    console.print()
    console.print(table)
    console.print(
        f"{result.seconds:.1f} s, {result.records_per_second:,.0f} records/s, {result.requests:,} requests, an "
        f"outage of {result.outage_secs:.1f} s, lost replies: {result.replies_lost}",
        highlight=False,
        soft_wrap=True,
    )
    for problem in result.problems:
        console.print(problem, style="bold red", markup=False, highlight=False, soft_wrap=True)
    if not result.problems:
        console.print("Nothing lost, nothing accepted twice, every dead letter for its own reason.", style="green")
