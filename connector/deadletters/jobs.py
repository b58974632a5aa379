"""What is looked for in a topic, piece by piece; each job can run in another process."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

from connector.core.chunks import Chunk, Partition
from connector.core.progress import RangeSet, runs
from connector.core.records import REDRIVES, origin_of, outcomes_in, redrives_of
from connector.deadletters.addresses import json_of
from connector.deadletters.deciding import Known, Rules, Survey, survey
from connector.deadletters.evidence import Event, event_of
from connector.deadletters.letters import Facts, Letter, letters_of
from connector.deadletters.selection import Criteria, Matches
from connector.deadletters.sums import Sums


@dataclass(slots=True)
class Seen:
    """What was read on the way to what matches."""

    reasons: set[str] = field(default_factory=set)
    """Those of all."""
    no_event: Counter[str] = field(default_factory=Counter)
    """How many a filter could not judge, since no event can be made of them now, by why."""
    where_failed: Counter[str] = field(default_factory=Counter)
    """On how many `--where` fails, by why."""

    def add(self, other: "Seen") -> None:
        """Take in what was seen in another piece."""
        self.reasons |= other.reasons
        self.no_event.update(other.no_event)
        self.where_failed.update(other.where_failed)

    @contextmanager
    def judging(self, criteria: Criteria) -> Iterator[Matches | None]:
        """Yield what tells whether a dead letter is meant, None when all are; what it could not judge is seen then."""
        with criteria.addresses() as addresses:
            yield criteria.matcher(addresses, self.where_failed)
            self.no_event = addresses.no_event


@dataclass(frozen=True, slots=True)
class CountJob:
    """Counts what matches."""

    criteria: Criteria

    def __call__(self, chunks: Iterator[Chunk], /) -> tuple[Sums, Seen]:
        """Return the counts, and what was seen where there are filters."""
        sums, seen = Sums(), Seen()
        with seen.judging(self.criteria) as matches:
            for chunk in chunks:
                if matches is None:
                    sums.add(chunk)
                    continue
                letters = list(letters_of(chunk))
                seen.reasons.update([letter.reason for letter in letters])
                sums.add_letters([letter for letter in letters if matches(letter)])
        return sums, seen


@dataclass(frozen=True, slots=True)
class FindJob:
    """Finds the first that match; stops reading once it has them."""

    criteria: Criteria
    most: int

    def __call__(self, chunks: Iterator[Chunk], /) -> tuple[list[Letter], Seen]:
        """Return them, and what was seen."""
        found: list[Letter] = []
        seen = Seen()
        with seen.judging(self.criteria) as matches:
            for letter in chain.from_iterable(map(letters_of, chunks)):
                seen.reasons.add(letter.reason)
                if matches is None or matches(letter):
                    found.append(letter)
                    if len(found) >= self.most:
                        break
        return found, seen


@dataclass(frozen=True)
class SurveyJob:
    """Looks at dead letters for a redrive."""

    criteria: Criteria
    rules: Rules
    done: Mapping[Partition, tuple[int, RangeSet]] = field(default_factory=dict)

    def __call__(self, chunks: Iterator[Chunk], /) -> Survey:
        """Return what was seen and is meant."""
        with self.criteria.addresses() as addresses:
            failed, criteria = Counter[str](), self.criteria
            may_yet_match = criteria.opener(addresses)
            found = survey(chunks, criteria.matcher(addresses, failed), self.rules, self.done, may_yet_match)
            found.no_event, found.where_failed = addresses.no_event, failed
        return found


def find_queued(chunks: Iterator[Chunk]) -> Known:
    """Return which records have an outcome `queued`, as ranges of the places where they first failed.

    What is no outcome of the connector is passed over.
    """
    found: dict[str, dict[Partition, list[int]]] = {}
    for outcome in outcomes_in(chunks):
        if outcome.status == "queued":
            place = outcome.origin or outcome
            queued = found.setdefault(outcome.stream, {})
            queued.setdefault(Partition(place.topic, place.partition), []).append(place.offset)
    return Known(
        queued={
            stream: {partition: RangeSet(runs(sorted(set(offsets)))) for partition, offsets in queued.items()}
            for stream, queued in found.items()
        }
    )


def find_redriven(chunks: Iterator[Chunk]) -> Known:
    """Return which records were sent again, and how often, by the place where they first failed."""
    known = Known()
    for chunk in chunks:
        redriven = known.redriven.setdefault(chunk.partition.topic, {})
        for headers in chunk.headers or ():
            facts = Facts(headers or [])
            origin = origin_of(facts) if REDRIVES in facts else None
            if origin is not None:
                counts = redriven.setdefault(origin[0], {})
                counts[origin[1]] = max(redrives_of(facts), counts.get(origin[1], 0))
    return known


def find_events(chunks: Iterator[Chunk]) -> list[Event]:
    """Return the platform's delivery events; what is none is passed over."""
    found = []
    for chunk in chunks:
        for value in chunk.values:
            event = event_of(json_of(value))
            if event is not None:
                found.append(event)
    return found
