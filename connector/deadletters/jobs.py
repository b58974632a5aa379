"""Scans of one piece of a topic; each job can run in another process."""

from collections.abc import Iterator
from itertools import chain

from connector.core.chunks import Chunk, Partition
from connector.core.progress import RangeSet, runs
from connector.core.records import REDRIVES, origin_of, outcomes_in, redrives_of
from connector.deadletters.addresses import json_of
from connector.deadletters.deciding import Known
from connector.deadletters.evidence import Event, event_of
from connector.deadletters.letters import Facts, Letter, letters_of
from connector.deadletters.selection import Criteria, Seen
from connector.deadletters.sums import Sums


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


def find_events(chunks: Iterator[Chunk]) -> list[Event]:
    """Return the platform's delivery events; other records are skipped."""
    events = (event_of(json_of(value)) for chunk in chunks for value in chunk.values)
    return [event for event in events if event is not None]
