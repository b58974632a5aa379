"""`dead-letters redrive` and `park`: what would be done, and after confirmation, done."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from rich.text import Text

from connector.cli.arguments import AsJson, is_confirmed, topic_named
from connector.cli.dead_letters.choosing import Chosen, chosen
from connector.cli.dead_letters.reading import tell_none
from connector.cli.dead_letters.showing import print_counts, print_json
from connector.cli.errors import CommandError, ExitCode, why_unread
from connector.cli.printing import console
from connector.cli.progress import progress
from connector.deadletters.deciding import DEFAULT_CAP, DID, WHY, Plan, Rules, parking_topic
from connector.deadletters.evidence import Finding
from connector.deadletters.landing import why_not_sent_from, why_not_sent_to, why_not_set_aside_in
from connector.deadletters.patching import read_patch
from connector.deadletters.preparing import NameTakenError
from connector.deadletters.redriving import Written
from connector.deadletters.running import InvalidNameError, Redrive
from connector.deadletters.settling import Heard
from connector.kafka.errors import KafkaTroubleError
from connector.kafka.topics import TopicsMissingError

IN_DOUBT_MEANS: Final = (
    "in_doubt is included: nobody knows whether the platform accepted these records. Those that it did accept are "
    "accepted a second time: people are texted twice, or revenue is counted twice."
)


def finite(value: float | None) -> float | None:
    """Refuse `inf` and `nan`; typer before 0.29 accepts `nan` within any bounds."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no number to reckon with")
    return value


Name = Annotated[
    str | None,
    typer.Option(
        help="Name under which it can be gone on with and is not done twice; one made of the filters, the target and "
        "the patch when left out.",
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, without doing it.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
Limit = Annotated[int | None, typer.Option(min=1, help="How many records to write at most, this time.")]
Rate = Annotated[float | None, typer.Option(min=0.1, callback=finite, help="Records per second.")]


@chosen
def redrive(
    chosen: Chosen,
    *,
    to: Annotated[
        str | None,
        typer.Option(help="Topic to send to, instead of each stream's own (<stream>.redrive).", show_default=False),
    ] = None,
    dry_run: DryRun = False,
    limit: Limit = None,
    rate: Rate = None,
    patch: Annotated[
        str | None,
        typer.Option(
            help="JSON merge patch (RFC 7396) for each value, or @FILE with one: '{\"list_number\": null}'.",
            show_default=False,
        ),
    ] = None,
    include: Annotated[
        Literal["in_doubt"] | None,
        typer.Option(help="Include what is otherwise left: in_doubt.", show_default=False),
    ] = None,
    cap: Annotated[
        int, typer.Option(min=1, help="Number of redrives of a record after which it is parked.")
    ] = DEFAULT_CAP,
    name: Name = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters again, each once; if it is killed and restarted, it continues where it stopped.

    What the platform may have is left: records in doubt, and those whose origin has an outcome `queued`. Exit code 1:
    the filters select none, or it was not confirmed. 4: another redrive took over the name.
    """
    include_in_doubt = include is not None
    rules = Rules(
        chosen.settings.streams_by_name,
        to=None if to is None else topic_named("--to", to),
        include_in_doubt=include_in_doubt,
        cap=cap,
        patch=_patch(patch),
    )
    _refuse_topic_that_is_read(chosen)
    _refuse_topic_of_results(chosen, to)
    if include_in_doubt:
        typer.echo(IN_DOUBT_MEANS, err=True)
    spelled = {"to": to, "patch": rules.patch, "in_doubt": include_in_doubt, "cap": cap}
    Run(
        chosen, rules, spelled, name=name, dry_run=dry_run, yes=yes, as_json=as_json, rate=rate, limit=limit
    ).carry_through()


@chosen
def park(
    chosen: Chosen,
    *,
    note: Annotated[str, typer.Option(help="The reason, for whoever finds them there.")] = "",
    to: Annotated[
        str | None,
        typer.Option(help="Topic to write to, instead of <dead-letter topic>.parking.", show_default=False),
    ] = None,
    dry_run: DryRun = False,
    limit: Limit = None,
    name: Name = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Copy dead letters to a parking topic, with all their headers and a note, each once.

    They also stay where they are, and can still be redriven from there.
    """
    rules = Rules(
        chosen.settings.streams_by_name,
        to=None if to is None else topic_named("--to", to),
        park=True,
    )
    _refuse_parking_where_it_is_read(chosen, to)
    spelled = {"park": True, "to": to, "note": note}
    Run(
        chosen, rules, spelled, name=name, dry_run=dry_run, yes=yes, as_json=as_json, limit=limit, note=note
    ).carry_through()


def _refuse_topic_that_is_read(chosen: Chosen) -> None:
    for topic in chosen.dead_letter_topics:
        if why := why_not_sent_from(chosen.settings, topic):
            way_out = "name a dead-letter topic, or omit --topic, to use those of the settings"
            raise CommandError(f"--topic {topic} holds no dead letters: it {why}", way_out=way_out)


def _refuse_topic_of_results(chosen: Chosen, to: str | None) -> None:
    why = to is not None and why_not_sent_to(chosen.settings, to, chosen.dead_letter_topics)
    if why:
        way_out = "omit --to, to use each stream's own redrive topic, or name a topic that a stream reads"
        raise CommandError(f"--to {to} cannot be the target of a redrive: it {why}", way_out=way_out)


def _refuse_parking_where_it_is_read(chosen: Chosen, to: str | None) -> None:
    """Raise `CommandError` for a parking topic that cannot be one, given or by default."""
    reading = chosen.dead_letter_topics
    for topic in [parking_topic(topic) for topic in reading] if to is None else [to]:
        why = why_not_set_aside_in(chosen.settings, topic, reading)
        if why:
            way_out = (
                "with --to, name a topic that no stream reads and that is not being read now, such as TOPIC.parking"
            )
            raise CommandError(f"topic {topic} cannot be the target for parked records: it {why}", way_out=way_out)


def _patch(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    if text.startswith("@"):
        path = Path(text[1:])
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            way_out = "after @, give the path of a UTF-8 file"
            raise CommandError(f"--patch cannot be read: {path}: {why_unread(error)}", way_out=way_out) from error
    try:
        return read_patch(text)
    except ValueError as error:
        way_out = "give a JSON merge patch, in single quotes for the shell"
        raise CommandError(f"--patch {error}", way_out=way_out) from error


class Run:
    """One redrive on the command line: what is printed, and asked.

    `spelled` identifies its selection; `also` is added to its JSON.
    """

    def __init__(
        self,
        chosen: Chosen,
        rules: Rules,
        spelled: dict[str, Any],
        *,
        name: str | None,
        dry_run: bool,
        yes: bool,
        as_json: bool,
        rate: float | None = None,
        limit: int | None = None,
        note: str = "",
        findings: Mapping[str, Finding] | None = None,
        also: Mapping[str, Any] | None = None,
    ) -> None:
        self._chosen = chosen
        self._also = dict(also or {})
        self._dry_run, self._yes, self._as_json = dry_run, yes, as_json
        self._rate, self._limit, self._note = rate, limit, note
        criteria = chosen.criteria  # before any query to Kafka
        try:
            self._redrive = Redrive(
                chosen.settings,
                chosen.dead_letter_topics,
                criteria,
                rules,
                {**chosen.as_spelled, **spelled},
                name=name,
                work=chosen.work(quiet=as_json),
                findings=findings,
            )
        except InvalidNameError as error:
            raise CommandError(f"--name {error}", way_out="choose another name") from error

    def carry_through(self, heard: Heard | None = None) -> None:
        """Print the plan and, unless that is all, carry it out after confirmation; `heard` is as in `Redrive.plan`."""
        try:
            plan = self._plan(heard)
            if plan is not None:
                self._finish(plan)
        except NameTakenError as error:
            raise CommandError(str(error), way_out="use another --name, or the same options as at first") from error
        except KafkaTroubleError as error:
            if error.fenced:
                raise CommandError(
                    f"another redrive took the name {self._redrive.name} over and continues where this one stopped",
                    ExitCode.INSTANCE_ID_IN_USE,
                    way_out="let it finish, or give this one another --name and other filters",
                ) from error
            raise

    def _plan(self, heard: Heard | None) -> Plan | None:
        """Return the plan; None if there is nothing to do, which is reported."""
        found = self._redrive.look()
        self._chosen.refuse_unknown_reasons(found.seen.reasons)
        self._chosen.tell_unjudged(found.seen)
        if not found.matched:
            tell_none(self._chosen, any_there=bool(found.seen.reasons), quiet=self._as_json)
            if self._as_json:
                print_json(self._told(Plan()) | {"written": {}})
            return None
        return self._redrive.plan(heard)

    def _finish(self, plan: Plan) -> None:
        told = self._told(plan)
        if not self._as_json:
            self._print(plan)
        for warning in self._redrive.warnings(plan):
            typer.echo(warning, err=True)
        count = self._count(plan)
        if count < plan.count and not self._as_json:
            typer.echo(f"of these {count:,} this time (--limit)")
        if count:
            self._refuse_missing(plan)
        if self._dry_run or not count:
            if self._as_json:
                print_json(told | {"written": {}})
            elif not count:
                typer.echo("nothing left to do")
            if not self._dry_run:
                self._carry_out(plan)  # it was just made, so it needs no second look
            return
        if not self._yes:
            question = f"{'Set aside' if self._redrive.rules.park else 'Write'} {count:,} records?"
            if not is_confirmed(question):
                raise CommandError(
                    "not confirmed; nothing was written", ExitCode.FAILED, way_out="answer with y, or give --yes"
                )
            still = self._redrive.look_again(plan)
            if by_others := plan.count - still.count:
                typer.echo(f"{by_others:,} left: handled by others since the plan was made", err=True)
            plan = still
        started = time.monotonic()
        written = self._carry_out(plan)
        took = time.monotonic() - started
        if self._as_json:
            left = {"too_large": written.too_large} if written.too_large else {}
            print_json(told | {"written": dict(written.by_action), **left, "took_secs": round(took, 3)})
            return
        what = ", ".join(f"{number:,} {DID[action]}" for action, number in written.by_action.items()) or "nothing"
        typer.echo(f"{what} in {took:.1f} s ({written.total / max(took, 1e-9):,.0f} records/s)")
        if written.too_large:
            typer.echo(f"{written.too_large:,} left: {WHY['too_large']}", err=True)

    def _told(self, plan: Plan) -> dict[str, Any]:
        """Return the plan as JSON-ready values."""
        return self._also | self._redrive.told(plan) | {"this_time": self._count(plan)}

    def _count(self, plan: Plan) -> int:
        """Return how many records are written in this run."""
        return plan.count if self._limit is None else min(plan.count, self._limit)

    def _refuse_missing(self, plan: Plan) -> None:
        """Raise `TopicsMissingError` before asking for confirmation; in a dry run, only report it."""
        try:
            self._redrive.refuse_missing(plan)
        except TopicsMissingError as error:
            if not self._dry_run:
                raise
            typer.echo(str(error), err=True)

    def _carry_out(self, plan: Plan) -> Written:
        count = self._count(plan)
        with progress("writing", count, quiet=self._as_json or not count) as told:
            return self._redrive.carry_out(plan, told, rate=self._rate, limit=self._limit, note=self._note)

    def _print(self, plan: Plan) -> None:
        out, found, rules = console(), self._redrive.found, self._redrive.rules
        done = found.matched - len(found.candidates)
        what = "park" if rules.park else "redrive"
        out.print(Text(f"{what} {self._redrive.name}: {found.matched:,} selected", style="bold"))
        if done:
            out.print(Text(f"{done:,} of them were already handled, under this name"))
        for title, rows in (
            ("to be sent again", plan.reasons["redrive"]),
            (
                "to be parked" if rules.park else f"to be parked, sent again as often as --cap {rules.cap} allows",
                plan.reasons["park"],
            ),
            ("to be settled as queued, by evidence", plan.reasons["accept"]),
        ):
            if rows:
                print_counts(title, dict(rows.most_common()))
        if plan.skipped:
            reasons = {f"{why}: {WHY[why]}": count for why, count in plan.skipped.most_common()}
            print_counts("would be skipped, because", reasons)
