"""`trackly-connector resume`: end the holds of a stream that wait for a person, on each given worker."""

from typing import Annotated

import typer

from connector.cli.arguments import topic_named
from connector.cli.errors import ExitCode, reported
from connector.cli.workers import AsLines, StreamName, WorkerConfig, WorkerUrls, send_to_workers
from connector.core.chunks import Partition
from connector.stream.holds import ForeignChoice, InDoubtChoice, MissingChoice


@reported()
def resume(
    stream: StreamName,
    *,
    config: WorkerConfig = None,
    url: WorkerUrls = None,
    partition: Annotated[
        list[str] | None,
        typer.Option(help="TOPIC:NUMBER; may be repeated. Only these partitions, and not the stream as a whole."),
    ] = None,
    in_doubt: Annotated[
        InDoubtChoice | None, typer.Option(help="For holds in_doubt: what to do with the records.", show_default=False)
    ] = None,
    foreign_metadata: Annotated[
        ForeignChoice | None,
        typer.Option(
            help="For holds foreign_metadata: start at the committed offset; what was sent above it is sent again.",
            show_default=False,
        ),
    ] = None,
    progress_missing: Annotated[
        MissingChoice | None,
        typer.Option(
            help="For holds progress_missing: begin as start says; what was posted before is posted again, or with "
            "latest what is unread is passed over.",
            show_default=False,
        ),
    ] = None,
    as_json: AsLines = False,
) -> None:
    """End the holds of a stream that wait for a person; holds that end by a probe are probed at once.

    The token is taken from the settings file, or from the variable TRACKLY_CONNECTOR_TOKEN. Exit code 1: a worker
    cannot be reached or rejects the request, a decision is missing, or no worker has a hold on a given partition.
    """
    partitions = [_partition(name) for name in partition or ()]
    form = [("partition", name) for name in partitions]
    decided = {"in_doubt": in_doubt, "foreign_metadata": foreign_metadata, "progress_missing": progress_missing}
    form += [(name, choice) for name, choice in decided.items() if choice is not None]
    answers = send_to_workers(config, url, stream, "resume", form, as_json=as_json)
    not_held = set(partitions).intersection(*(answer.body.get("not_held", ()) for answer in answers))
    if not_held and not as_json:
        typer.echo(f"no worker that was asked has a hold on {', '.join(sorted(not_held))}", err=True)
    if not_held or not all(answer.ok for answer in answers):
        raise typer.Exit(ExitCode.FAILED)


def _partition(name: str) -> str:
    """Return a partition in the spelling of workers, with whose answers it is compared."""
    try:
        partition = Partition.read(name)
    except ValueError as error:
        raise typer.BadParameter(f"{error}, not {name!r}", param_hint="--partition") from None
    topic_named("--partition", partition.topic)
    return str(partition)
