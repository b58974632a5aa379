"""`dead-letters in-doubt`: what a crash left in doubt, and what evidence makes of it."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from connector.cli.dead_letters.choosing import Chosen, chosen
from connector.cli.dead_letters.reading import tell_none
from connector.cli.dead_letters.redriving import AsJson, DryRun, Name, Run, Yes
from connector.cli.dead_letters.showing import print_json
from connector.cli.errors import CommandError, ExitCode
from connector.cli.printing import console, plain, table
from connector.cli.topics import topic_named

if TYPE_CHECKING:
    from connector.deadletters.evidence import Event, Group
    from connector.deadletters.jobs import Seen
    from connector.deadletters.letters import Letter

_MOST_MINS: Final = 525_600
"""A year."""

_MOST: Final = 5_000_000
"""Records in doubt that are looked at; a crash leaves `delivery.max_in_flight_records` at most."""

TRUST: Final = (
    "What the evidence does not name is sent again: this is as right as the evidence is complete. A number that stands "
    "twice stays in doubt where the evidence names it."
)

UNKNOWN_NUMBERS: Final = (
    "they stay in doubt; and since any number may be one of theirs as well, no record is taken for accepted: what the "
    "evidence names stays in doubt too. Mend the settings, or choose others by --where, which looks at the value"
)


@chosen
def in_doubt(
    chosen: Chosen,
    *,
    evidence: Annotated[
        Path | None,
        typer.Option(help="File of phone numbers that are known to have got the text, one a line.", show_default=False),
    ] = None,
    evidence_topic: Annotated[
        str | None,
        typer.Option(help="Topic of the platform's delivery events (webhooks), as JSON.", show_default=False),
    ] = None,
    window_mins: Annotated[
        float,
        typer.Option(
            min=0,
            max=_MOST_MINS,
            help="Events count up to so long before the dead letter where no header tells the post.",
        ),
    ] = 15,
    dry_run: DryRun = False,
    name: Name = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Show what each crash or lost answer left in doubt; with evidence, settle it.

    Who is known to have it becomes an outcome `queued` with source `evidence`; who is not is sent again; a number that
    stands twice stays in doubt. Without evidence nothing is written.
    """
    from connector.deadletters.deciding import Rules, plan  # noqa: PLC0415
    from connector.deadletters.evidence import groups_of, split  # noqa: PLC0415
    from connector.deadletters.letters import IN_DOUBT  # noqa: PLC0415
    from connector.deadletters.running import addresses_of  # noqa: PLC0415

    if set(chosen.asked["reason"] or ()) - {IN_DOUBT}:
        raise CommandError(
            "--reason can only be in_doubt here",
            ExitCode.BAD_SETTINGS,
            way_out="leave it out; redrive is for other reasons",
        )
    narrowed = any(value for name, value in chosen.asked.items() if name != "reason")
    chosen = replace(chosen, asked={**chosen.asked, "reason": [IN_DOUBT]})
    letters, seen = _found(chosen, quiet=as_json)
    with addresses_of(chosen.settings) as addresses:
        groups = groups_of(letters, addresses)
    if not groups:
        chosen.tell_unjudged(seen)
        if as_json:
            print_json({"groups": []})
        elif seen.reasons and IN_DOUBT not in seen.reasons:
            typer.echo("none of the dead letters is in doubt")
        else:
            tell_none(chosen, any_there=IN_DOUBT in seen.reasons and narrowed)
        return
    events, digest = _evidence(chosen, evidence, evidence_topic, groups, window_mins, quiet=as_json)
    if events is None:
        _show(groups, as_json=as_json)
        chosen.tell_unjudged(seen)
        chosen.tell_no_event(addresses.no_event, so="no evidence can settle them")
        return
    findings = split(groups, events, window_ms=int(window_mins * 60_000))
    if not as_json:
        _show(groups, as_json=False)
    chosen.tell_no_event(addresses.no_event, so=UNKNOWN_NUMBERS)
    typer.echo(TRUST, err=True)
    rules = Rules({stream.name: stream for stream in chosen.settings.streams}, include_in_doubt=True)
    run = Run(chosen, rules, {"evidence": digest, "window": window_mins}, name=name, as_json=as_json)
    with run.foreseen():
        found = run.look()
        if found is not None:
            run.finish(plan(found, run.known(), run.rules, findings), dry_run=dry_run, yes=yes)


def _found(chosen: Chosen, *, quiet: bool) -> tuple[list["Letter"], "Seen"]:
    """Return the dead letters in doubt, and what was seen on the way."""
    from connector.deadletters.jobs import FindJob, Seen  # noqa: PLC0415

    found: list[Letter] = []
    seen = Seen()
    job = FindJob(chosen.criteria, _MOST)
    for letters, part in chosen.work(chosen.spans(), job, "reading", quiet=quiet):
        found += letters
        seen.add(part)
    return found, seen


def _evidence(
    chosen: Chosen,
    path: Path | None,
    topic: str | None,
    groups: Iterable["Group"],
    window_mins: float,
    *,
    quiet: bool,
) -> tuple[list["Event"] | None, str]:
    """Return the evidence that was brought, None without any, and what tells it from other evidence."""
    import hashlib  # noqa: PLC0415

    from connector.deadletters.evidence import read_numbers  # noqa: PLC0415
    from connector.deadletters.jobs import EventsJob  # noqa: PLC0415
    from connector.deadletters.letters import told_time  # noqa: PLC0415
    from connector.deadletters.working import CLIENT_ID  # noqa: PLC0415
    from connector.kafka.scanning import scanning  # noqa: PLC0415

    if path is None and topic is None:
        return None, ""
    events: list[Event] = []
    if path is not None:
        try:
            events += read_numbers(path.read_text(encoding="utf-8").splitlines())
        except (OSError, ValueError) as error:
            way_out = "give a text file with one number in E.164 form on each line"
            raise CommandError(f"--evidence cannot be used: {error}", ExitCode.BAD_SETTINGS, way_out=way_out) from error
        _refuse_none(events, f"{path} holds no number")
    if topic is not None:
        topic_named("--evidence-topic", topic)
        with scanning(chosen.settings.kafka, client_id=CLIENT_ID, group=CLIENT_ID) as scanner:
            if scanner.partitions(topic) is None:
                raise CommandError(
                    f"topic {topic} does not exist", ExitCode.BAD_SETTINGS, way_out="name another with --evidence-topic"
                )
            since = min(group.first_ms for group in groups) - int(window_mins * 60_000)
            spans = scanner.spans(topic, since_ms=since)
        told_by_topic: list[Event] = []
        for part in chosen.work(spans, EventsJob(), f"reading {topic}", quiet=quiet):
            told_by_topic += part
        _refuse_none(told_by_topic, f"topic {topic} holds no delivery event from {told_time(since) or 'then'} on")
        events += told_by_topic
    told = sorted((event.number, event.list_number or "", event.at_ms or 0) for event in events)
    return events, hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def _refuse_none(events: list["Event"], what: str) -> None:
    """Raise `CommandError` for evidence without an entry.

    By it everything would be sent again; but a file that was not filled, or a topic of something else, looks the same.
    """
    if not events:
        way_out = (
            "give evidence that is complete; where it is certain that nobody got a text, "
            "dead-letters redrive --reason in_doubt --include in_doubt sends all again"
        )
        raise CommandError(f"the evidence has no entry: {what}", ExitCode.BAD_SETTINGS, way_out=way_out)


def _show(groups: Iterable["Group"], *, as_json: bool) -> None:
    listed = list(groups)
    if as_json:
        print_json({"groups": [group.as_json() for group in listed]})
        return
    rows = table("from (UTC)", "stream", "batch id", "worker", "list", "count", "accepted", "redrive", "in doubt")
    for group in listed:
        told, findings = group.as_json(), group.findings
        counted = [findings["accepted"], findings["redrive"], findings["still_in_doubt"]] if findings else [""] * 3
        row = [told["from"], group.stream, group.batch_id or "none: a crash", group.worker, group.list_number]
        rows.add_row(*map(plain, [*row, len(group.letters), *counted]))
    console().print(rows)
