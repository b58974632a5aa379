"""`trackly-connector check`: a summary of the settings, or everything that is wrong with them."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from connector.app.loading import load
from connector.cli.arguments import AsJson, SettingsFile
from connector.cli.errors import ExitCode, reported
from connector.cli.printing import console, pairs, table
from connector.config.describe import redacted
from connector.config.problems import Problem, SettingsError
from connector.config.settings import Settings
from connector.config.streams import PaceSettings, StreamSettings
from connector.config.summary import chains, notes

if TYPE_CHECKING:
    from connector.app.online import Finding


@reported()
def check(
    settings: SettingsFile,
    online: Annotated[
        bool, typer.Option("--online", help="Also check the brokers and the platform; nothing is sent or consumed.")
    ] = False,
    of_commands: Annotated[
        bool,
        typer.Option(
            "--dead-letters", help="With --online: check the permissions of the dead-letters commands, not of workers."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check settings and summarise them, without starting anything.

    Exit code 2: the settings cannot be used. With --online it is that of the first finding that is not ok: 3 no broker
    answered, 6 the platform rejected the key, the account or the list, 1 anything else, such as a platform or registry
    that does not answer.
    """
    if of_commands and not online:
        raise typer.BadParameter("needs --online", param_hint="--dead-letters")
    try:
        loaded = load(settings)
    except SettingsError as error:
        if not as_json:
            raise
        _print_json({"ok": False, "problems": [_as_json(problem) for problem in error.problems]})
        raise typer.Exit(ExitCode.BAD_SETTINGS) from error
    findings = _ask(loaded, of_commands=of_commands) if online else []
    if as_json:
        report: dict[str, Any] = {
            "ok": all(finding.ok for finding in findings),
            "settings": redacted(loaded),
            "chains": list(chains(loaded)),
            "notes": list(notes(loaded)),
        }
        _print_json(report | ({"findings": [_as_json(finding) for finding in findings]} if online else {}))
    else:
        _print(settings, loaded, findings)
    failed = next((finding for finding in findings if not finding.ok), None)
    raise typer.Exit(failed.exit_code if failed is not None else ExitCode.OK)


def _ask(settings: Settings, *, of_commands: bool) -> "list[Finding]":
    """Query brokers and platform. Imported here: the offline check must work with nothing but the settings."""
    from connector.app.online import check_online

    return check_online(settings, "dead_letters" if of_commands else "worker")


def _as_json(told: "Problem | Finding") -> dict[str, Any]:
    return {name: value for name, value in asdict(told).items() if name != "exit_code"}


def _print_json(report: dict[str, Any]) -> None:
    typer.echo(json.dumps(report, indent=2, ensure_ascii=False))


def _print(path: Path, settings: Settings, findings: "list[Finding]") -> None:
    """Print for people. Uses Text objects only, so that a pattern of topics is not taken for markup."""
    out = console()
    count = len(settings.streams)
    out.print(Text(f"{path}: valid, {count} stream{'s' if count > 1 else ''}", style="bold"))
    out.print()
    out.print(pairs(_ends(settings)))
    for stream in settings.streams:
        out.print()
        out.print(Text(stream.name, style="bold"))
        out.print(pairs(_stream(stream)))
    _section(out, "Time limits", chains(settings))
    _section(out, "Notes", notes(settings))
    if findings:
        out.print()
        out.print(_findings(findings))


def _ends(settings: Settings) -> list[tuple[str, str]]:
    security = settings.kafka.security
    mechanism = f", {security.sasl_mechanism}" if security.sasl_mechanism else ""
    return [
        ("kafka", f"{settings.kafka.bootstrap_servers} ({security.protocol}{mechanism})"),
        ("platform", settings.trackly.base_url),
        *([("schema registry", settings.schema_registry.url)] if settings.schema_registry is not None else []),
        ("instance id", settings.instance_id or "from the host name"),
        ("workers", str(settings.workers)),
        ("pages", f"{settings.web.host}:{settings.web.port}" if settings.web.enabled else "off"),
    ]


def _stream(stream: StreamSettings) -> list[tuple[str, str]]:
    kind = f" of {stream.history.kind}" if stream.operation == "history" else ""
    batch, limit = stream.batch, stream.delivery.max_in_flight_records
    by = (
        f"batches of {batch.max_records:,} records, {batch.max_bytes:,} bytes or {batch.window_ms} ms"
        if stream.mode == "bulk"
        else "one request per record"
    )
    return [
        ("reads", ", ".join([*stream.topics, *([stream.pattern] if stream.pattern else [])])),
        ("format", _format(stream)),
        ("group", stream.group),
        ("starts", f"where its group has committed; in a topic that is new to the group: {_start(stream)}"),
        ("operation", f"{stream.operation}{kind}, {by}, {stream.concurrency.min} to {stream.ceiling} at once"),
        *([("order", "of each key")] if stream.ordering == "key" else []),
        *([("pace", _pace(stream.pace))] if stream.pace.is_on else []),
        ("guarantee", stream.delivery.guarantee),
        ("in doubt", f"{stream.in_doubt}; at most {limit:,} records per worker after a crash"),
        ("outcomes", f"{stream.outcomes.topic} ({stream.outcomes.records})"),
        ("dead letters", stream.dead_letters.topic),
        ("redrives", f"through {stream.redrive_topic}; {_redrives(stream)}"),
    ]


def _format(stream: StreamSettings) -> str:
    chosen = stream.format
    told = [f"{chosen.type}, data {chosen.data}" if chosen.type == "cloudevents" else chosen.type]
    if stream.transform is not None:
        told.append(f"transform {stream.transform}")
    if stream.mapping is not None:
        told.append("mapping")
    if stream.overrides:
        told.append("overrides for some topics")
    return ", ".join(told)


def _start(stream: StreamSettings) -> str:
    return stream.start if isinstance(stream.start, str) else stream.start.isoformat()


def _pace(pace: PaceSettings) -> str:
    each, own = pace.messages_per_minute, len(pace.lists)
    if each is None:
        return f"of {own:,} list{'s' if own > 1 else ''}"
    return f"{each:,.10g} texts a minute of each list{f'; {own:,} with another' if own else ''}"


def _redrives(stream: StreamSettings) -> str:
    rules = stream.dead_letters.redrive
    told = (f"{', '.join(r.reasons)} after {r.delay_secs:g} s, {r.max_redrives} times at most" for r in rules)
    return f"by itself: {'; '.join(told)}" if rules else "by command only"


def _section(out: Console, title: str, lines: Iterable[str]) -> None:
    rows = [("-", line) for line in lines]
    if rows:
        out.print()
        out.print(Text(title, style="bold"))
        out.print(pairs(rows))


def _findings(findings: "list[Finding]") -> Table:
    rows = table("", "What", "Seen", "What to do", title="Online", ruled=True)
    for finding in findings:
        told = finding.warning or not finding.ok
        rows.add_row(_mark(finding), Text(finding.name), Text(finding.detail), Text(finding.way_out if told else ""))
    return rows


def _mark(finding: "Finding") -> Text:
    if finding.warning:
        return Text("warn", style="yellow")
    return Text("ok", style="green") if finding.ok else Text("FAIL", style="bold red")
