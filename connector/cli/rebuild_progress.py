"""`trackly-connector rebuild-progress`: rebuilds the progress of a group whose commits Kafka has deleted.

Not a decision for workers on hold, like `resume`: each of them would read all results, and need permission to read dead
letters. It runs while no worker does, since Kafka accepts offsets only for a group without members.
"""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import typer

from connector.app.loading import load
from connector.cli.arguments import AsJson, SettingsFile, StreamOption, is_confirmed, stream_meant
from connector.cli.errors import CommandError, ExitCode, reported
from connector.cli.printing import console, json_text, plain, table
from connector.clock import now_ms
from connector.config.streams import StreamSettings
from connector.core.chunks import Partition
from connector.telemetry.logging import silence_client

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connector.deadletters.rebuilding import Asked, Planned, Rebuild

BECOMES: Final = {
    "dead_letter": "will become dead letters (in_doubt) when the stream starts",
    "resend": "will be posted again when the stream starts",
    "hold": "will hold their partitions when the stream starts, until you decide",
}


@reported()
def rebuild_progress(
    settings: SettingsFile,
    *,
    stream: StreamOption = None,
    stopped_cleanly: Annotated[
        bool,
        typer.Option(
            "--stopped-cleanly",
            help="Each worker logged left_in_flight=0 at its end, and none held in_doubt: send what has no result.",
        ),
    ] = False,
    stopped_at: Annotated[
        str | None,
        typer.Option(
            help="When the last worker stopped (ISO 8601, or how long ago: 7d); what was produced later is sent.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Take what was produced before this time as settled, instead of the setting start; like --stopped-at.",
            show_default=False,
        ),
    ] = None,
    formerly: Annotated[
        list[str] | None, typer.Option(help="A former name of the stream; may be repeated.", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be committed, and commit nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Rebuild the progress of a group that Kafka has forgotten, from outcomes and dead letters. No worker may run.

    A record that has a result is not sent again. One without a result is in doubt, unless --stopped-cleanly or
    --stopped-at say that it was not posted. Exit code 1: the progress cannot be determined, or was not confirmed.
    """
    from connector.cli.progress import worked
    from connector.deadletters.rebuilding import NotRebuiltError, Rebuild

    if stopped_cleanly and stopped_at is not None:
        raise typer.BadParameter("is not needed where nothing was in flight", param_hint="--stopped-at")
    loaded = load(settings, asks={"kafka"})
    silence_client()
    flow = stream_meant(settings, loaded.streams, stream)
    asked = _asked(since, stopped_at, formerly, clean=stopped_cleanly)
    try:
        rebuild = Rebuild(loaded, flow, asked, partial(worked, loaded.kafka, quiet=as_json))
        plan = rebuild.plan()
        _tell(rebuild, flow, plan, as_json=as_json)
        if dry_run:
            return
        if not yes and not is_confirmed(f"Commit this progress to group {flow.group}?"):
            way_out = "answer with y, or give --yes"
            raise CommandError("not confirmed; nothing was committed", ExitCode.FAILED, way_out=way_out)
        rebuild.commit(plan)
    except NotRebuiltError as error:
        way_out = "nothing was committed; see docs/runbook/hold-progress-missing.md"
        raise CommandError(str(error), ExitCode.FAILED, way_out=way_out) from error
    if not as_json:
        typer.echo(f"committed {len(plan)} partitions; start the stream")


def _asked(since: str | None, stopped_at: str | None, formerly: list[str] | None, *, clean: bool) -> "Asked":
    from connector.deadletters.rebuilding import Asked
    from connector.deadletters.selection import InvalidFilterError, read_time

    at_ms = now_ms()
    try:
        return Asked(
            since_ms=read_time("--since", since, now_ms=at_ms),
            stopped_ms=read_time("--stopped-at", stopped_at, now_ms=at_ms),
            clean=clean,
            formerly=frozenset(formerly or ()),
        )
    except InvalidFilterError as error:
        raise CommandError(str(error), way_out="correct it, see --help") from error


def _tell(rebuild: "Rebuild", flow: StreamSettings, plan: "Mapping[Partition, Planned]", *, as_json: bool) -> None:
    told = {str(partition): planned.as_json() for partition, planned in plan.items()}
    in_doubt = sum(planned.progress.in_flight.count for planned in plan.values())
    if as_json:
        whole = {
            "stream": flow.name,
            "group": flow.group,
            "results_by_stream": dict(rebuild.names),
            "in_doubt": in_doubt,
            "in_doubt_policy": flow.in_doubt,
            "partitions": told,
        }
        typer.echo(json_text(whole, indent=2))
        return
    rows = table(
        "partition", "commit at", "results", "done above", "without result between", "in doubt behind", "unread"
    )
    for partition, numbers in told.items():
        rows.add_row(plain(partition), *(plain(f"{number:,}") for number in numbers.values()))
    console().print(rows)
    if in_doubt:
        typer.echo(
            f"{in_doubt:,} offsets are in doubt and {BECOMES[flow.in_doubt]} (delivery.in_doubt: {flow.in_doubt})"
        )
    else:
        typer.echo("nothing is in doubt: records without a result will be sent")
