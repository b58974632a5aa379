"""What is looked for in a topic, piece by piece; each job can run in another process."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

import msgspec

from connector.core.chunks import Chunk, Partition
from connector.core.progress import RangeSet, runs
from connector.core.records import REDRIVES, origin_of, redrives_of
from connector.deadletters.deciding import Known, Rules, Survey, survey
from connector.deadletters.evidence import Event, event_of
from connector.deadletters.letters import Facts, Letter, letters_of
from connector.deadletters.selection import Criteria
from connector.deadletters.sums import Sums


@dataclass(frozen=True, slots=True)
class CountJob:
    """Counts what matches."""

    criteria: Criteria

    def __call__(self, chunks: Iterator[Chunk], /) -> tuple[Sums, frozenset[str]]:
        """Return the counts, and the reasons of all that was read."""
        sums, matches = Sums(), self.criteria.matcher()
        seen: set[str] = set()
        for chunk in chunks:
            if matches is None:
                sums.add(chunk)
                continue
            letters = list(letters_of(chunk))
            seen.update([letter.reason for letter in letters])
            sums.add_letters([letter for letter in letters if matches(letter)])
        return sums, frozenset(seen)


@dataclass(frozen=True, slots=True)
class FindJob:
    """Finds the first that match; stops reading once it has them."""

    criteria: Criteria
    most: int

    def __call__(self, chunks: Iterator[Chunk], /) -> tuple[list[Letter], frozenset[str]]:
        """Return them, and the reasons of all that was read."""
        found: list[Letter] = []
        seen: set[str] = set()
        matches = self.criteria.matcher()
        for letter in chain.from_iterable(map(letters_of, chunks)):
            seen.add(letter.reason)
            if matches is None or matches(letter):
                found.append(letter)
                if len(found) >= self.most:
                    break
        return found, frozenset(seen)


@dataclass(frozen=True)
class SurveyJob:
    """Looks at dead letters for a redrive."""

    criteria: Criteria
    rules: Rules
    done: Mapping[Partition, tuple[int, RangeSet]] = field(default_factory=dict)

    def __call__(self, chunks: Iterator[Chunk], /) -> Survey:
        """Return what was seen and is meant."""
        return survey(chunks, self.criteria.matcher(), self.rules, self.done)


class _Origin(msgspec.Struct, gc=False):
    topic: str
    partition: int
    offset: int


class _Outcome(msgspec.Struct, gc=False):
    status: str
    topic: str
    partition: int
    offset: int
    origin: _Origin | None = None


@dataclass(frozen=True, slots=True)
class OutcomesJob:
    """Finds which records have an outcome `queued`, under the place where they first failed."""

    def __call__(self, chunks: Iterator[Chunk], /) -> Known:
        """Return them as ranges; what is no outcome of the connector is passed over."""
        found: dict[Partition, list[int]] = {}
        decode = msgspec.json.Decoder(_Outcome).decode
        for chunk in chunks:
            for value in chunk.values:
                try:
                    outcome = decode(value or b"")
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    continue
                if outcome.status == "queued":
                    place = outcome.origin or outcome
                    found.setdefault(Partition(place.topic, place.partition), []).append(place.offset)
        return Known(queued={p: RangeSet(runs(sorted(set(offsets)))) for p, offsets in found.items()})


@dataclass(frozen=True, slots=True)
class RedrivenJob:
    """Finds which records were sent again, and how often."""

    def __call__(self, chunks: Iterator[Chunk], /) -> Known:
        """Return them by the place where they first failed."""
        known = Known()
        for chunk in chunks:
            for headers in chunk.headers or ():
                facts = Facts(headers or [])
                origin = origin_of(facts) if REDRIVES in facts else None
                if origin is not None:
                    known.redriven[origin] = max(redrives_of(facts), known.redriven.get(origin, 0))
        return known


@dataclass(frozen=True, slots=True)
class EventsJob:
    """Finds the platform's delivery events."""

    def __call__(self, chunks: Iterator[Chunk], /) -> list[Event]:
        """Return them; what is none is passed over."""
        found = []
        for chunk in chunks:
            for value in chunk.values:
                try:
                    event = event_of(msgspec.json.decode(value or b""))
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    continue
                if event is not None:
                    found.append(event)
        return found
