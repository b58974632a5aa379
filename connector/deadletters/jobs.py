"""Scans of one piece of a topic; each job can run in another process."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from connector.core.chunks import Chunk, Partition
from connector.core.ranges import Range, RangeSet, runs
from connector.core.records import REDRIVES, origin_of, outcome_in, outcomes_in, redrives_of
from connector.deadletters.addresses import json_of
from connector.deadletters.deciding import Known
from connector.deadletters.evidence import Event, event_of
from connector.deadletters.letters import Facts, Letter, letters_of, text_of
from connector.deadletters.selection import Criteria, Seen
from connector.deadletters.sums import Sums
from connector.trackly.operations import E164


def count_matching(chunks: Iterator[Chunk], *, criteria: Criteria) -> tuple[Sums, Seen]:
    """Return counts of the dead letters that match, and what was seen if there are filters."""
    sums, seen = Sums(), Seen()
    with criteria.judging(seen) as (matches, _):
        for chunk in chunks:
            if matches is None:
                sums.add(chunk)
                continue
            letters = list(letters_of(chunk))
            seen.reasons.update([letter.reason for letter in letters])
            sums.add_letters([letter for letter in letters if matches(letter)])
    return sums, seen


def find_matching(chunks: Iterator[Chunk], *, criteria: Criteria, most: int) -> tuple[list[Letter], Seen]:
    """Return the first dead letters that match, and what was seen; stops reading once it has `most`."""
    found: list[Letter] = []
    seen = Seen()
    with criteria.judging(seen) as (matches, _):
        for letter in chain.from_iterable(map(letters_of, chunks)):
            seen.reasons.add(letter.reason)
            if matches is None or matches(letter):
                found.append(letter)
                if len(found) >= most:
                    break
    return found, seen


def find_queued(chunks: Iterator[Chunk]) -> Known:
    """Return which records have an outcome `queued`, as ranges of their origins.

    Values that are not outcomes of the connector are skipped.
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
    """Return which records were sent again, and how often, by their origins."""
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


def find_events(chunks: Iterator[Chunk], *, numbers: Collection[str]) -> tuple[int, list[Event]]:
    """Return how many delivery events of the platform there are, and those for some numbers; other records are skipped.

    An event whose number is none in international form may be for any of them.
    """
    events = [event for chunk in chunks for value in chunk.values if (event := event_of(json_of(value))) is not None]
    return len(events), [e for e in events if e.number in numbers or not E164.fullmatch(e.number)]


# ------------------------------------------------------------------ for the rebuilding of progress


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which results count: of an operation, by stream names, for records that exist."""

    operation: str
    names: frozenset[str]
    others: frozenset[str]
    """Other streams of the settings, which may use the same operation on the same records."""
    lows: Mapping[Partition, int]
    """The first existing offset of each partition that results are wanted for."""


@dataclass(slots=True)
class Results:
    """The results in a piece of a result topic, or in all of them."""

    found: dict[Partition, list[Range]] = field(default_factory=dict)
    """Sorted if from one piece."""
    first_ms: dict[Partition, int] = field(default_factory=dict)
    """When the earliest result of each partition was written."""
    last_ms: int = 0
    """When the latest result was written."""
    names: Counter[str] = field(default_factory=Counter)
    """Number of results by stream name."""


_Told = tuple[str, str, Partition, int, int | None]
"""Stream, operation, position of the source, and time of writing; None if that differs from when the result came
about."""


def find_in_outcomes(chunks: Iterator[Chunk], *, wanted: Wanted) -> Results:
    """Return the results in outcomes; other values are skipped."""

    def told() -> Iterator[_Told]:
        for chunk in chunks:
            assert chunk.timestamps is not None
            for one, ms in zip(map(outcome_in, chunk.values), chunk.timestamps, strict=True):
                if one is not None:
                    place = Partition(one.topic, one.partition)
                    yield one.stream, one.operation, place, one.offset, None if one.source else ms

    return _results(told(), wanted)


def find_in_letters(chunks: Iterator[Chunk], *, wanted: Wanted) -> Results:
    """Return the results in dead letters, by the position of their source; foreign ones are skipped."""

    def told() -> Iterator[_Told]:
        for chunk in chunks:
            for letter in letters_of(chunk):
                source, stream = letter.source, letter.stream
                if source is not None and stream is not None:
                    operation = text_of(letter.facts, "trackly.operation") or ""
                    yield stream, operation, *source, letter.timestamp_ms

    return _results(told(), wanted)


def _results(told: Iterator[_Told], wanted: Wanted) -> Results:
    results, offsets = Results(), dict[Partition, list[int]]()
    lows, names = wanted.lows, wanted.names
    for stream, operation, place, offset, ms in told:
        if operation != wanted.operation or stream in wanted.others or offset < lows.get(place, offset + 1):
            continue
        results.names[stream] += 1
        if stream not in names:
            continue
        offsets.setdefault(place, []).append(offset)
        if ms is not None:
            results.first_ms[place] = min(ms, results.first_ms.get(place, ms))
            results.last_ms = max(ms, results.last_ms)
    results.found = {place: runs(sorted(set(those))) for place, those in offsets.items()}
    return results


def find_records(chunks: Iterator[Chunk]) -> dict[Partition, list[Range]]:
    """Return the offsets that hold records."""
    found: dict[Partition, list[Range]] = {}
    for chunk in chunks:
        found.setdefault(chunk.partition, []).extend(runs(chunk.offsets))
    return found
