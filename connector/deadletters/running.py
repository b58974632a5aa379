"""One run over dead letters, from what to read to what was done: the same for the command line and the console.

The caller says how topics are scanned (`Work`: with a progress bar, or reporting to a page), so nothing is printed
here.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from connector.config.settings import Settings
from connector.core.chunks import Partition
from connector.deadletters.deciding import Plan, Rules, Survey, plan, survey
from connector.deadletters.evidence import Finding
from connector.deadletters.jobs import count_matching, find_matching
from connector.deadletters.letters import Letter
from connector.deadletters.preparing import automatic_of, ensure, places_of, selection_of, targets_of, with_limits
from connector.deadletters.redriving import Order, Written, carry_out
from connector.deadletters.selection import Criteria, Seen
from connector.deadletters.settling import Heard, ask, streams_of
from connector.deadletters.sums import Sums
from connector.deadletters.working import CLIENT_ID, Spans, Told, Work, size_of
from connector.kafka.scanning import scanning

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")


class InvalidNameError(ValueError):
    """The name of a redrive cannot be part of a consumer group's name."""


def topics_of_streams(settings: Settings, streams: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the dead-letter topics of some streams, or of all if none is named, without duplicates."""
    wanted = frozenset(streams)
    found = [s.dead_letters.topic for s in settings.streams if not wanted or s.name in wanted]
    return tuple(dict.fromkeys(found))


def spans_of(settings: Settings, topics: Iterable[str], *, since_ms: int | None = None) -> Spans:
    """Return the offsets to read of topics, from a time on; raises `NoSuchTopicError`."""
    spans: dict[Partition, tuple[int, int]] = {}
    with scanning(settings.kafka, client_id=CLIENT_ID, group=CLIENT_ID) as scanner:
        for topic in topics:
            scanner.require(topic)
            spans |= scanner.spans(topic, since_ms=since_ms)
    return spans


def count(work: Work, spans: Spans, criteria: Criteria) -> tuple[Sums, Seen]:
    """Return counts of the dead letters that match, and what was seen."""
    sums, seen = Sums(), Seen()
    for part, there in work(spans, partial(count_matching, criteria=criteria), "counting"):
        sums.rows.update(part.rows)
        seen.add(there)
    return sums, seen


def find(work: Work, spans: Spans, criteria: Criteria, most: int) -> tuple[list[Letter], Seen]:
    """Return the first dead letters that match, by position, and what was seen until then.

    Partitions are read one after another, so that the result is always the same and reading can end early; in parallel
    if it cannot.
    """
    found: list[Letter] = []
    seen = Seen()
    one_by_one = [{partition: span} for partition, span in sorted(spans.items())]
    for step in one_by_one if size_of(spans) > most else [spans]:
        job = partial(find_matching, criteria=criteria, most=most - len(found))
        for letters, part in work(step, job, "reading dead letters"):
            found += letters
            seen.add(part)
        if len(found) >= most:
            break
    return sorted(found, key=lambda letter: (letter.partition, letter.offset))[:most], seen


def find_at(work: Work, spans: Spans, criteria: Criteria, position: tuple[str | None, int, int]) -> list[Letter]:
    """Return the dead letters at a position, or whose source or origin it is, oldest first."""
    topic, number, offset = position
    topics = {partition.topic for partition in spans}
    wanted: dict[Partition, tuple[int, int]] = {}
    for partition, (start, stop) in spans.items():
        if topic in {None, partition.topic}:  # its own position: nothing else needs to be read
            if partition.number == number and start <= offset < stop:
                wanted[partition] = (offset, offset + 1)
        elif topic not in topics:
            wanted[partition] = (start, stop)
    job = partial(find_matching, criteria=replace(criteria, positions=frozenset({position})), most=100)
    found = [letter for letters, _ in work(wanted, job, "looking") for letter in letters]
    return sorted(found, key=lambda letter: letter.timestamp_ms)


class Redrive:
    """One redrive, or one parking. `spelled` identifies its selection.

    `findings` is the evidence for each dead letter, by position, if there is any.

    The constructor raises `InvalidNameError`; a look raises `NoSuchTopicError` for a missing topic, and
    `NameTakenError` if its name was used with another selection.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Iterable[str],
        criteria: Criteria,
        rules: Rules,
        spelled: Mapping[str, Any],
        *,
        name: str | None,
        work: Work,
        findings: Mapping[str, Finding] | None = None,
    ) -> None:
        self.selection = selection_of(spelled)
        self.name = self.selection if name is None else name
        if _NAME.fullmatch(self.name) is None:
            raise InvalidNameError("must be 1 to 100 letters, digits, dots, dashes and underscores")
        self.settings = settings
        self.criteria = criteria
        self.topics = frozenset(topics)
        self.spans = spans_of(settings, self.topics)
        if not rules.park:
            rules = with_limits(replace(rules, automatic=automatic_of(settings, self.spans)), settings)
        self.rules = rules
        self.found = Survey()
        self._findings = findings
        self._heard = Heard()
        self._work = work

    def look(self) -> Survey:
        """Look at all dead letters."""
        places = places_of(self.settings, self.name, self.selection, self.spans)
        done = {partition: place.done for partition, place in places.items()}
        job = partial(survey, criteria=self.criteria, rules=self.rules, done=done)
        self.found = Survey()
        for part in self._work(self.spans, job, "reading dead letters"):
            self.found.add(part)
        return self.found

    def plan(self, heard: Heard | None = None) -> Plan:
        """Return what there is to do with what was found; `heard` is what was asked of it just before, if it was."""
        if heard is None:
            heard = Heard()
            if not self.rules.park:
                ask(self.settings, self._work, self.found.candidates, self.rules, heard=heard)
        self._heard = heard
        return plan(self.found, heard.known, self.rules, self._findings)

    def look_again(self, confirmed: Plan) -> Plan:
        """Return what remains of a plan whose confirmation took time.

        What others have sent again meanwhile is not sent twice.
        """
        self.look()
        still = self.plan()
        still.confirmed(confirmed)
        return still

    def warnings(self, plan: Plan) -> list[str]:
        """Return warnings about what outcomes cannot show of the records that a plan sends again."""
        sent = [candidate for candidate in self.found.candidates if plan.action_for(candidate) == "redrive"]
        outcomes = {name: self.rules.streams[name].outcomes for name in sorted(streams_of(sent, self.rules))}
        warnings = []
        if blind := [name for name, settings in outcomes.items() if settings.records == "failures"]:
            warnings.append(
                f"{', '.join(blind)}: outcomes are written of failures only (outcomes.records), so that nothing tells "
                "which of these records the platform took since. What was sent again before is left all the same."
            )
        warnings += [
            f"{topic}: retention has removed outcomes of the time since the oldest of these dead letters, so that "
            "nothing tells whether the platform took some of them since. What was sent again before is left, as far as "
            "the redrive topic reaches."
            for topic in sorted({settings.topic for settings in outcomes.values()} & self._heard.lacking)
        ]
        return warnings

    def refuse_missing(self, plan: Plan) -> None:
        """Raise `TopicsMissingError` if a plan writes to a topic that does not exist and may not be created."""
        ensure(self.settings, targets_of(self.found, plan, self.rules), read=self.topics, create=False)

    def carry_out(
        self, plan: Plan, told: Told, *, rate: float | None = None, limit: int | None = None, note: str = ""
    ) -> Written:
        """Carry out a plan; raises `TopicsMissingError`, and `KafkaTroubleError` as `carry_out` does."""
        targets = ensure(self.settings, targets_of(self.found, plan, self.rules), read=self.topics)
        order = Order(
            self.settings.kafka,
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
        return carry_out(order, told)

    def told(self, plan: Plan) -> dict[str, Any]:
        """Return a summary of a plan as JSON-ready values."""
        return {
            "name": self.name,
            "selected": self.found.matched,
            "done_before": self.found.matched - len(self.found.candidates),
            "would_redrive": plan.reasons["redrive"].total(),
            "redrive": dict(plan.reasons["redrive"].most_common()),
            "would_park": plan.reasons["park"].total(),
            "park": dict(plan.reasons["park"].most_common()),
            "would_accept": plan.reasons["accept"].total(),
            "would_skip": plan.skipped.total(),
            "skipped": dict(plan.skipped.most_common()),
            "no_event": dict(self.found.seen.no_event.most_common()),
        }
