"""`trackly-connector explain`: what a stream would do with records, and why; nothing is sent."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from connector.app.loading import load
from connector.cli.arguments import AsJson, SettingsFile, StreamOption, stream_meant, topic_named
from connector.cli.errors import CommandError, ExitCode, reported
from connector.cli.printing import console, json_text, pairs, plain, table
from connector.config.settings import Settings
from connector.config.streams import StreamSettings
from connector.core.chunks import Chunk
from connector.telemetry.logging import silence_client
from connector.telemetry.runbook import runbook_of


@reported()
def explain(
    settings: SettingsFile,
    *,
    stream: StreamOption = None,
    sample: Annotated[
        Path | None,
        typer.Option(help="File with one value per line (NDJSON), or - for standard input.", allow_dash=True),
    ] = None,
    records: Annotated[
        bool,
        typer.Option(
            "--records",
            help="With --sample: lines are records: {value, key, headers, topic}, as written by dead-letters export.",
        ),
    ] = False,
    topic: Annotated[
        str | None, typer.Option(help="Topic to read from; with --sample, the topic that the values belong to.")
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(min=1, max=1_000, help="With --topic alone: how many of its last records; 10 unless given."),
    ] = None,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show numbers, addresses, texts and keys, which are otherwise hidden.")
    ] = False,
    verdicts: Annotated[
        bool, typer.Option("--verdicts", help="Print what each answer would mean; always included with --json.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a stream would make of records: events, segments, batches, requests and verdicts. Nothing is sent.

    Exit code 1: the records cannot be decoded or mapped now; the stream would hold.
    """
    from connector.app.explaining import NotExplainedError, explain

    if sample is not None and last is not None:
        raise typer.BadParameter("is only for a topic; with --sample everything is shown", param_hint="--last")
    if sample is None and records:
        raise typer.BadParameter("needs --sample: a topic holds records anyway", param_hint="--records")
    loaded = load(settings, asks={"registry"} if sample is not None else {"kafka", "registry"})
    flow = stream_meant(settings, loaded.streams, stream)
    if topic is not None:
        topic_named("--topic", topic)
    elif sample is None:
        raise CommandError("there is nothing to explain", way_out="give --sample or --topic")
    if sample is not None:
        chunks = _sampled(flow, sample, topic, records=records)
    else:
        chunks = _read(loaded, topic or "", 10 if last is None else last)
    try:
        report = explain(loaded, flow, chunks, reveal=reveal)
    except NotExplainedError as error:
        page = runbook_of(error.reason, loaded.docs_url)
        way_out = f"see {page}, then try again"
        raise CommandError(str(error), ExitCode.FAILED, way_out=way_out) from error
    if as_json:
        typer.echo(json_text(report, indent=2))
        return
    if not chunks:
        typer.echo(f"no records in {topic}")
    _print(report, verdicts=verdicts)


def _sampled(flow: StreamSettings, sample: Path, topic: str | None, *, records: bool) -> list[Chunk]:
    from connector.app.samples import InvalidSampleError, read_samples

    name = topic or (flow.topics[0] if flow.topics else "sample")
    try:
        with nullcontext(sys.stdin.buffer) if str(sample) == "-" else sample.open("rb") as lines:
            chunks = read_samples(lines, records=records, topic=name)
    except OSError as error:
        raise CommandError(
            f"cannot read {sample}: {error.strerror}", way_out="name another file with --sample"
        ) from error
    except InvalidSampleError as error:
        way_out = "write one JSON value per line; with --records, one record per line, as dead-letters export does"
        raise CommandError(f"{sample}: {error}", way_out=way_out) from error
    if not chunks:
        raise CommandError(f"{sample} contains no sample", way_out="write one value per line")
    return chunks


def _read(loaded: Settings, topic: str, last: int) -> list[Chunk]:
    from connector.app.explaining import last_records

    silence_client()
    return last_records(loaded, topic, last)


def _print(report: dict[str, Any], *, verdicts: bool) -> None:
    """Print for people."""
    out = console()
    for record in report["records"]:
        out.print(plain(f"{record['topic']}:{record['partition']}:{record['offset']}", style="bold"))
        out.print(pairs(_of_record(record)))
        out.print()
    for batch in report["batches"]:
        request = batch["request"]
        out.print(Text(f"batch {batch['number']}", style="bold"))
        rows = [
            ("holds", f"{batch['records']:,} record{'s' if batch['records'] > 1 else ''}, {batch['bytes']:,} bytes"),
            ("closes by", f"{batch['closed_by']}: {batch['why']}"),
            ("request", f"{request['method']} {request['url']}"),
            *(("", f"{name}: {value}") for name, value in request["headers"].items()),
            ("", request["body"]),
        ]
        out.print(pairs(rows))
        out.print()
    if verdicts:
        out.print(_verdicts(report["verdicts"]))
        return
    out.print(Text("what this stream's settings make of answers", style="bold"))
    out.print(pairs([*report["in_effect"].items(), ("all else", "is the same for every stream: --verdicts prints it")]))


def _verdicts(rows: list[dict[str, str]]) -> Table:
    title = "What an answer would mean (the first row that fits)"
    found = table("Answer", "What becomes of the records", title=title, ruled=True)
    for row in rows:
        found.add_row(plain(row["when"]), plain(row["verdict"]))
    return found


def _of_record(record: dict[str, Any]) -> list[tuple[str, str]]:
    if (verdict := record.get("verdict")) is not None:
        text = f": {verdict['text']}" if verdict["text"] else ""
        return [("ends as", f"{verdict['status']} ({verdict['reason']}{text})")]
    rows = [("event", json.dumps(record["event"], ensure_ascii=False))]
    rows += [(f"  {name}", f"from {source}") for name, source in record["fields"].items()]
    if (found := record.get("segments")) is not None:
        rows.append(("segments", f"{found['count']} ({found['encoding']}, {found['units']} units); {found['price']}"))
    return [*rows, ("joins", f"batch {record['batch']}, with {record['bytes']:,} bytes")]
