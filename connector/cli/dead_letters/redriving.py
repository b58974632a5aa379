"""`dead-letters redrive` and `park`: what would be done, then, once it is confirmed, done."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.text import Text

from connector.cli.dead_letters.choosing import Chosen, chosen, progress
from connector.cli.dead_letters.reading import tell_none
from connector.cli.dead_letters.showing import console, print_counts, print_json
from connector.cli.errors import CommandError, ExitCode

if TYPE_CHECKING:
    from connector.deadletters.deciding import Known, Plan, Rules, Survey
    from connector.deadletters.progressing import Place
    from connector.deadletters.redriving import Written

IN_DOUBT_MEANS: Final = (
    "in_doubt is included: nobody knows whether the platform took these records. Each that it took is taken a second "
    "time, and texts somebody twice or counts money twice."
)


class Include(StrEnum):
    """What is left out unless it is asked for."""

    IN_DOUBT = "in_doubt"


Name = Annotated[
    str | None,
    typer.Option(
        help="Name under which it can be gone on with and is not done twice; one made of the filters, the target and "
        "the patch when left out.",
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Most records to write, this time.")]
Rate = Annotated[float | None, typer.Option(min=0.1, help="Records a second.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@chosen
def redrive(
    chosen: Chosen,
    *,
    to: Annotated[
        str | None,
        typer.Option(help="Topic to send to, in place of each stream's own (<stream>.redrive).", show_default=False),
    ] = None,
    dry_run: DryRun = False,
    limit: Limit = None,
    rate: Rate = None,
    patch: Annotated[
        str | None,
        typer.Option(
            help="JSON merge patch (RFC 7396) for each value, or @FILE that holds one: '{\"list_number\": null}'.",
            show_default=False,
        ),
    ] = None,
    include: Annotated[
        list[Include] | None, typer.Option(help="Take along what is left out else: in_doubt.", show_default=False)
    ] = None,
    cap: Annotated[int, typer.Option(min=1, help="Redrives of one record, after which it is parked.")] = 3,
    name: Name = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters again, each once: killed and started again it goes on where it was.

    What the platform may have is left: records in doubt, and those whose origin has an outcome `queued`. Exit code 1:
    the filters select none, or it was not confirmed. 4: another redrive took the name over.
    """
    from connector.deadletters.deciding import Rules  # noqa: PLC0415

    include_in_doubt = Include.IN_DOUBT in (include or ())
    rules = Rules(
        {stream.name: stream for stream in chosen.settings.streams},
        to=_topic(to),
        include_in_doubt=include_in_doubt,
        cap=cap,
        patch=_patch(patch),
    )
    if include_in_doubt:
        typer.echo(IN_DOUBT_MEANS, err=True)
    spelled = {"to": to, "patch": rules.patch, "in_doubt": include_in_doubt, "cap": cap}
    run = Run(chosen, rules, spelled, name=name, as_json=as_json)
    with run.foreseen():
        plan = run.plan()
        if plan is not None:
            run.finish(plan, dry_run=dry_run, yes=yes, rate=rate, limit=limit)


@chosen
def park(
    chosen: Chosen,
    *,
    note: Annotated[str, typer.Option(help="Why, for whoever finds them there.")] = "",
    to: Annotated[
        str | None,
        typer.Option(
            help="Topic to put them, in place of the dead-letter topic's <topic>.parking.", show_default=False
        ),
    ] = None,
    dry_run: DryRun = False,
    limit: Limit = None,
    name: Name = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Set dead letters aside, with all their headers and a note, each once.

    They stay where they are as well, and a redrive of them is not prevented by it.
    """
    from connector.deadletters.deciding import Rules  # noqa: PLC0415

    rules = Rules({stream.name: stream for stream in chosen.settings.streams}, to=_topic(to), park=True)
    run = Run(chosen, rules, {"park": True, "to": to, "note": note}, name=name, as_json=as_json)
    with run.foreseen():
        plan = run.plan()
        if plan is not None:
            run.finish(plan, dry_run=dry_run, yes=yes, limit=limit, note=note)


def _topic(name: str | None) -> str | None:
    import re  # noqa: PLC0415

    from connector.config.model import TOPIC_NAME  # noqa: PLC0415

    if name is not None and (re.fullmatch(TOPIC_NAME, name) is None or name in {".", ".."}):
        raise CommandError("--to is no name of a topic", ExitCode.BAD_SETTINGS)
    return name


def _patch(text: str | None) -> dict[str, Any] | None:
    from connector.deadletters.patching import read_patch  # noqa: PLC0415

    if text is None:
        return None
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"--patch cannot be read: {error}", ExitCode.BAD_SETTINGS) from error
    try:
        return read_patch(text)
    except ValueError as error:
        raise CommandError(f"--patch {error}", ExitCode.BAD_SETTINGS) from error


class Run:
    """One redrive, from what it is to do to what it did. `spelled` is what tells its selection from another."""

    def __init__(
        self, chosen: Chosen, rules: "Rules", spelled: dict[str, Any], *, name: str | None, as_json: bool
    ) -> None:
        import re  # noqa: PLC0415

        from connector.deadletters.preparing import automatic_of, selection_of, with_limits  # noqa: PLC0415

        self.chosen = chosen
        self.selection = selection_of({**chosen.as_spelled, **spelled})
        self.name = name or self.selection
        if re.fullmatch(r"[A-Za-z0-9._-]{1,100}", self.name) is None:
            raise CommandError("--name must be letters, digits, dots, dashes and underscores", ExitCode.BAD_SETTINGS)
        self._as_json = as_json
        _ = chosen.criteria  # before Kafka is asked anything
        self.spans = chosen.spans(whole=True)
        if not rules.park:
            rules = with_limits(replace(rules, automatic=automatic_of(chosen.settings, self.spans)), chosen.settings)
        self.rules = rules
        self.found: Survey | None = None
        self.places: dict[Any, Place] = {}

    @contextmanager
    def foreseen(self) -> Iterator[None]:
        """Tell what can go wrong with a redrive, and the way out."""
        from connector.deadletters.preparing import NameTakenError  # noqa: PLC0415
        from connector.kafka.errors import KafkaTroubleError  # noqa: PLC0415

        try:
            yield
        except NameTakenError as error:
            raise CommandError(str(error), ExitCode.BAD_SETTINGS, way_out="give another --name") from error
        except KafkaTroubleError as error:
            if error.fenced:
                raise CommandError(
                    f"another redrive took the name {self.name} over and goes on where this one was",
                    ExitCode.INSTANCE_ID_IN_USE,
                    way_out="let it finish, or give this one another --name and other filters",
                ) from error
            raise

    def plan(self) -> "Plan | None":
        """Return what there is to do; None where there is nothing, which is said."""
        from connector.deadletters.deciding import Known, plan  # noqa: PLC0415

        found = self.look()
        if found is None:
            return None
        known = Known() if self.rules.park else self.known(found)
        return plan(found, known, self.rules)

    def look(self) -> "Survey | None":
        """Look at all dead letters; None where there are none, which is said."""
        from connector.deadletters.deciding import Survey  # noqa: PLC0415
        from connector.deadletters.jobs import SurveyJob  # noqa: PLC0415
        from connector.deadletters.preparing import places_of  # noqa: PLC0415

        chosen = self.chosen
        self.places = places_of(chosen.settings, self.name, self.selection, self.spans)
        done = {partition: place.done for partition, place in self.places.items()}
        found = self.found = Survey()
        job = SurveyJob(chosen.criteria, self.rules, done)
        for part in chosen.work(self.spans, job, "reading dead letters", quiet=self._as_json):
            found.add(part)
        chosen.refuse_unknown_reasons(found.seen)
        if not found.matched:
            tell_none(chosen, any_there=bool(found.seen), quiet=self._as_json)
            if self._as_json:
                print_json({"name": self.name, "selected": 0, "would_redrive": 0})
            return None
        return found

    def known(self, found: "Survey") -> "Known":
        """Read what became of the records that are meant."""
        from connector.deadletters.deciding import Known  # noqa: PLC0415
        from connector.deadletters.preparing import questions, streams_of  # noqa: PLC0415

        known = Known()
        oldest = streams_of(found.candidates, self.rules)
        for question in questions(self.chosen.settings, oldest):
            for part in self.chosen.work(
                question.spans, question.job, f"reading {question.topic}", quiet=self._as_json
            ):
                known.add(part)
        return known

    def blind(self, plan: "Plan") -> list[str]:
        """Return streams that are sent to and whose outcomes do not tell what the platform took."""
        from connector.deadletters.deciding import Actions  # noqa: PLC0415
        from connector.deadletters.preparing import streams_of  # noqa: PLC0415

        assert self.found is not None
        none = Actions()
        sent = [c for c in self.found.candidates if c.offset in plan.actions.get(c.partition, none).redrive]
        names = streams_of(sent, self.rules)
        return sorted(name for name in names if self.rules.streams[name].outcomes.records == "failures")

    def finish(
        self,
        plan: "Plan",
        *,
        dry_run: bool,
        yes: bool,
        rate: float | None = None,
        limit: int | None = None,
        note: str = "",
    ) -> None:
        """Say what would be done and, unless that is all, have it confirmed and do it."""
        told = self._told(plan)
        blind = self.blind(plan)
        if not self._as_json:
            self._print(plan)
        if blind:
            typer.echo(
                f"{', '.join(blind)}: outcomes are written of failures only (outcomes.records), so that nothing tells "
                "which of these records the platform took since. What was sent again before is left all the same.",
                err=True,
            )
        count = plan.count if limit is None else min(plan.count, limit)
        if dry_run or not count:
            if self._as_json:
                print_json(told)
            elif not count:
                typer.echo("nothing is left to do")
                if not dry_run:
                    self._carry_out(plan, rate, limit, note)  # what was looked at is not looked at again
            return
        if not yes:
            question = f"{'Set aside' if self.rules.park else 'Write'} {count:,} records?"
            if not typer.confirm(question, err=True):
                raise CommandError("not confirmed; nothing was written", ExitCode.FAILED)
        started = time.monotonic()
        written = self._carry_out(plan, rate, limit, note)
        took = time.monotonic() - started
        if self._as_json:
            print_json(told | {"written": dict(written.by_action), "took_secs": round(took, 3)})
            return
        did = {"redrive": "sent again", "park": "parked", "accept": "settled as queued"}
        what = ", ".join(f"{number:,} {did[action]}" for action, number in written.by_action.items()) or "nothing"
        typer.echo(f"{what} in {took:.1f} s ({written.total / max(took, 1e-9):,.0f} records/s)")

    def _carry_out(self, plan: "Plan", rate: float | None, limit: int | None, note: str) -> "Written":
        from connector.deadletters.preparing import ensure, targets_of  # noqa: PLC0415
        from connector.deadletters.redriving import Order, carry_out  # noqa: PLC0415

        assert self.found is not None
        settings = self.chosen.settings
        partitions = max((partition.number + 1 for partition in self.spans), default=1)
        targets = ensure(settings, targets_of(self.found, plan, self.rules), partitions=partitions)
        order = Order(
            settings.kafka,
            self.name,
            self.selection,
            self.rules,
            self.spans,
            plan.actions,
            targets,
            note=note,
            rate=rate,
            limit=limit,
        )
        with progress("writing", plan.count if limit is None else min(limit, plan.count), quiet=self._as_json) as told:
            return carry_out(order, told)

    def _told(self, plan: "Plan") -> dict[str, Any]:
        assert self.found is not None
        return {
            "name": self.name,
            "selected": self.found.matched,
            "done_before": self.found.matched - len(self.found.candidates),
            "would_redrive": plan.redrive.total(),
            "redrive": dict(plan.redrive.most_common()),
            "would_park": plan.park.total(),
            "park": dict(plan.park.most_common()),
            "would_accept": plan.accept.total(),
            "would_skip": plan.skipped.total(),
            "skipped": dict(plan.skipped.most_common()),
        }

    def _print(self, plan: "Plan") -> None:
        from connector.deadletters.deciding import WHY  # noqa: PLC0415

        assert self.found is not None
        out = console()
        done = self.found.matched - len(self.found.candidates)
        out.print(Text(f"redrive {self.name}: {self.found.matched:,} selected", style="bold"))
        if done:
            out.print(Text(f"{done:,} of them were dealt with before, under this name"))
        for title, rows in (
            ("to be sent again", plan.redrive),
            (
                "to be parked" if self.rules.park else f"to be parked, sent again {self.rules.cap} times before",
                plan.park,
            ),
            ("to be settled as queued, by evidence", plan.accept),
        ):
            if rows:
                print_counts(title, dict(rows.most_common()))
        if plan.skipped:
            reasons = {f"{why}: {WHY[why]}": count for why, count in plan.skipped.most_common()}
            print_counts("would be skipped, because", reasons)
