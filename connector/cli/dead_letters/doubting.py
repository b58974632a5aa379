"""`dead-letters in-doubt`: what a crash left in doubt, and what evidence says about it."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from connector.cli.arguments import AsJson, topic_named
from connector.cli.dead_letters.choosing import Chosen, chosen
from connector.cli.dead_letters.reading import tell_none
from connector.cli.dead_letters.redriving import DryRun, Name, Run, Yes, finite
from connector.cli.dead_letters.showing import print_counts, print_json
from connector.cli.errors import CommandError, why_unread
from connector.cli.printing import console, plain, table
from connector.deadletters.addresses import AddressBook
from connector.deadletters.deciding import WHY, Rules
from connector.deadletters.evidence import (
    NEAR_MS,
    Event,
    Finding,
    Group,
    earliest_ms,
    groups_of,
    posted_ms,
    read_numbers,
    split,
    without,
)
from connector.deadletters.jobs import find_events
from connector.deadletters.letters import IN_DOUBT, Letter, told_time
from connector.deadletters.running import find
from connector.deadletters.selection import Criteria
from connector.deadletters.settling import Settled, settled
from connector.deadletters.working import CLIENT_ID, Work
from connector.kafka.scanning import scanning
from connector.trackly.operations import E164

_MOST_MINS: Final = 525_600
"""A year."""

_MOST: Final = 5_000_000
"""Records in doubt that are examined; a crash leaves at most `delivery.max_in_flight_records` per worker."""

TRUST: Final = (
    "What the evidence does not name is sent again, so the evidence must be complete. A number that occurs "
    "twice stays in doubt where the evidence names it."
)

UNKNOWN_TIMES: Final = (
    "of {count:,} of these records nothing tells when they were posted: an event more than {mins:g} minutes older than "
    "the dead letter leaves them in doubt. If you know for how long at most no worker ran, or a hold lasted, give more "
    "than that with --window-mins: older events are not about them then"
)

GIVEN_TIMES: Final = (
    "of {count:,} of these records nothing tells when they were posted; --window-mins says that it was at most "
    "{mins:g} minutes before the dead letter. If no worker ran for longer, or a hold lasted longer, what was accepted "
    "is sent again"
)

CUT: Final = (
    "retention has removed events of {topic} from before {since}: {count:,} of these records may have been posted "
    "earlier, and stay in doubt unless an event names them"
)

UNKNOWN_NUMBERS: Final = (
    "they stay in doubt; and since any number may be one of theirs, no record is counted as accepted: what the "
    "evidence names stays in doubt too. Fix the settings, or exclude them with --where, which looks at the value"
)


@chosen
def in_doubt(
    chosen: Chosen,
    *,
    evidence: Annotated[
        Path | None,
        typer.Option(
            help="File of phone numbers that are known to have received the text, one per line.", show_default=False
        ),
    ] = None,
    evidence_topic: Annotated[
        str | None,
        typer.Option(help="Topic of the platform's delivery events (webhooks), as JSON.", show_default=False),
    ] = None,
    window_mins: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=_MOST_MINS,
            callback=finite,
            help="How long before its dead letter a record was posted at most, if no header has the time of the post; "
            "without it, what cannot be decided stays in doubt.",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRun = False,
    name: Name = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Show what each crash or lost answer left in doubt, without what was settled since; with evidence, settle it.

    What was accepted becomes an outcome `queued` with source `evidence`; what was not is sent again; a number that
    occurs twice stays in doubt. Without evidence nothing is written.
    """
    if set(chosen.asked["reason"] or ()) - {IN_DOUBT}:
        raise CommandError("--reason can only be in_doubt here", way_out="leave it out; redrive is for other reasons")
    numbers = [] if evidence is None else _numbers(evidence)
    if evidence_topic is not None:
        topic_named("--evidence-topic", evidence_topic)
    with_evidence = evidence is not None or evidence_topic is not None
    narrowed = any(value for name, value in chosen.asked.items() if name != "reason")
    chosen = replace(chosen, asked={**chosen.asked, "reason": [IN_DOUBT]})
    work, spans = chosen.work(quiet=as_json), chosen.spans()
    letters, seen = find(work, spans, chosen.criteria, _MOST)
    with AddressBook(chosen.settings) as addresses:
        groups = groups_of(letters, addresses)
        also = _others(chosen, letters, work) if with_evidence else []
        hidden = groups_of([letter for letter in also if letter.may_be_taken], addresses)
    if not groups:
        chosen.tell_unjudged(seen)
        if as_json:
            print_json({"groups": [], "settled": {}})
        if not seen.reasons or IN_DOUBT in seen.reasons:
            tell_none(chosen, any_there=bool(seen.reasons) and narrowed, quiet=as_json)
        elif not as_json:
            typer.echo("none of the dead letters is in doubt")
        return
    findings: dict[str, Finding] = {}
    window_ms = None if window_mins is None else int(window_mins * 60_000)
    cut_ms: int | None = None
    if with_evidence:
        if evidence_topic is not None:
            events, cut_ms = _events(chosen, evidence_topic, [*groups, *hidden], quiet=as_json)
            numbers = numbers + events
        findings = split([*groups, *hidden], numbers, also=also, window_ms=window_ms, complete_from_ms=cut_ms)
    rules = Rules(chosen.settings.streams_by_name, include_in_doubt=True)
    since = settled(chosen.settings, work, spans, chosen.criteria, rules)
    groups = without(groups, since.by_place, findings)
    told = {"groups": [group.as_json() for group in groups], "settled": dict(since.counts.most_common())}
    if not as_json:
        _show(groups, since)
    elif not with_evidence:
        print_json(told)
    for why in since.unsure:
        typer.echo(f"whether some of these were settled cannot be known: {why}", err=True)
    if not with_evidence:
        chosen.tell_unjudged(seen)
        no_event = sum((group.no_event for group in groups), Counter())
        chosen.tell_no_event(no_event, so="no evidence can settle them")
        return
    chosen.tell_no_event(addresses.no_event, so=UNKNOWN_NUMBERS)
    typer.echo(TRUST, err=True)
    left = [letter for group in groups for letter, _ in group.letters]
    if evidence_topic is not None and (untimed := sum(posted_ms(letter) is None for letter in left)):
        warning = UNKNOWN_TIMES if window_mins is None else GIVEN_TIMES
        mins = NEAR_MS / 60_000 if window_mins is None else window_mins
        typer.echo(warning.format(count=untimed, mins=mins), err=True)
    if cut_ms is not None and (earlier := sum(earliest_ms(letter, window_ms) < cut_ms for letter in left)):
        typer.echo(CUT.format(topic=evidence_topic, since=told_time(cut_ms), count=earlier), err=True)
    spelled = {"evidence": _digest(numbers), "window": window_mins}
    Run(
        chosen,
        rules,
        spelled,
        name=name,
        dry_run=dry_run,
        yes=yes,
        as_json=as_json,
        findings=findings,
        also=told,
    ).carry_through(since.heard)


def _others(chosen: Chosen, letters: Sequence[Letter], work: Work) -> list[Letter]:
    """Return the other dead letters of records that were sent again, which the filters hide: evidence is for each."""
    records = {(letter.stream, letter.origin) for letter in letters if letter.redrives}
    if not records:
        return []
    positions = frozenset((*partition, offset) for _, (partition, offset) in records)
    found, _ = find(work, chosen.spans(whole=True), Criteria(positions=positions), _MOST)
    selected = {letter.place for letter in letters}
    return [one for one in found if one.place not in selected and (one.stream, one.origin) in records]


def _numbers(path: Path) -> list[Event]:
    """Return the evidence in a file."""
    try:
        found = read_numbers(path.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError) as error:
        way_out = "use a text file with one number in E.164 format per line"
        raise CommandError(f"--evidence cannot be used: {path}: {why_unread(error)}", way_out=way_out) from error
    _refuse_none(len(found), f"{path} holds no number")
    return found


def _events(chosen: Chosen, topic: str, groups: Sequence[Group], *, quiet: bool) -> tuple[list[Event], int | None]:
    """Return the evidence in a topic for some groups, and the time since which it is complete, if any was removed.

    The whole topic is read: whoever writes there may have a clock that is wrong.
    """
    with scanning(chosen.settings.kafka, client_id=CLIENT_ID, group=CLIENT_ID) as scanner:
        scanner.require(topic)
        ends = scanner.ends(topic)
        cut_ms = scanner.cut_ms(ends)
    spans = {partition: (low, high) for partition, (low, high) in ends.items() if low < high}
    numbers = {address.number for group in groups for _, address in group.letters if address.number}
    count, events = 0, list[Event]()
    job = partial(find_events, numbers=frozenset(numbers))
    for there, found in chosen.work(quiet=quiet)(spans, job, f"reading {topic}"):
        count += there
        events += found
    _refuse_none(count, f"topic {topic} holds no delivery event")
    if unreadable := sum(E164.fullmatch(event.number) is None for event in events):
        raise CommandError(
            f"topic {topic} cannot be used: the numbers of {unreadable:,} delivery events are not in E.164 format, so "
            "they may be about any record",
            way_out="correct them in another topic, or write all numbers to a file: --evidence FILE",
        )
    return events, cut_ms


def _digest(events: Iterable[Event]) -> str:
    """Return a digest that identifies evidence."""
    told = sorted((event.number, event.list_number or "", event.at_ms or 0) for event in events)
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def _refuse_none(count: int, what: str) -> None:
    """Raise `CommandError` for evidence without entries.

    It would mean to send everything again; but an empty file, or the wrong topic, looks the same.
    """
    if not count:
        way_out = (
            "use complete evidence; if you are certain that nobody got a text, "
            "dead-letters redrive --reason in_doubt --include in_doubt sends all of them again"
        )
        raise CommandError(f"the evidence has no entry: {what}", way_out=way_out)


def _show(groups: Sequence[Group], since: Settled) -> None:
    """Print what is in doubt, with the result of evidence if there is any, and what was settled since."""
    judged: tuple[Finding, ...] = (
        ("accepted", "redrive", "still_in_doubt") if any(group.findings for group in groups) else ()
    )
    headings = (name.replace("still_", "").replace("_", " ") for name in judged)
    rows = table("from (UTC)", "stream", "batch id", "worker", "list", "count", *headings)
    for group in groups:
        batch_id, count = group.batch_id or "none: a crash", len(group.letters)
        row = [told_time(group.first_ms), group.stream, batch_id, group.worker, group.list_number, f"{count:,}"]
        rows.add_row(*map(plain, [*row, *(f"{group.findings[name]:,}" for name in judged)]))
    if groups:
        console().print(rows)
    else:
        typer.echo("nothing is in doubt any more")
    if since.counts:
        print_counts(
            "settled since, and not counted above", {f"{why}: {WHY[why]}": n for why, n in since.counts.most_common()}
        )
