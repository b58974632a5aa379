"""Verifies what became of every produced record, from the topics and the platform's ledger.

It trusts no counters. Outcomes and dead letters are read back like any `read_committed` reader does, dead letters are
compared with the source topic byte for byte, and the simulator's ledger shows what was accepted how often. It keeps one
byte per position, so that it can verify millions of records.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import msgspec
from confluent_kafka import Message

from connector.demo.events import QUEUED
from connector.demo.topics import Position, position_of, read_topic

IN_DOUBT: Final = "in_doubt"

_PRODUCED: Final = 0x80
_RESULTS: Final = 0x7F  # how many results a position has; more than 127 are counted as 127
_EXAMPLES: Final = 5
# Headers about the failure differ between a record and its dead letter; all others must not.
_FAILURE_HEADERS: Final = ("__connect.errors.", "__dlq.errors.", "trackly.")


class Produced:
    """The produced positions, the expected result of each, and how many results it has so far."""

    def __init__(self) -> None:
        self._bytes: dict[tuple[str, int], bytearray] = {}
        self._expected: dict[Position, str] = {}

    def add(self, position: Position, expected: str = QUEUED) -> None:
        """Note a produced record; `expected` is `queued`, `skipped`, or the reason of its dead letter."""
        self._of(position)[position.offset] |= _PRODUCED
        if expected != QUEUED:
            self._expected[position] = expected

    def add_all(self, positions: Iterable[Position], expected: str = QUEUED) -> None:
        """Note records that all have the same expected result."""
        for position in positions:
            self.add(position, expected)

    def expected(self, position: Position) -> str:
        """Return the expected result of the record at a position."""
        return self._expected.get(position, QUEUED)

    @property
    def topics(self) -> list[str]:
        """The source topics."""
        return sorted({topic for topic, _ in self._bytes})

    @property
    def count(self) -> int:
        """How many records were produced."""
        return sum(times for value, times in self.histogram().items() if value & _PRODUCED)

    def settle(self, position: Position) -> None:
        """Count one result for that position."""
        results = self._of(position)
        if results[position.offset] & _RESULTS < _RESULTS:
            results[position.offset] += 1

    def forget_results(self) -> None:
        """Reset the results for another verification."""
        without = bytes(value & _PRODUCED for value in range(256))
        self._bytes = {key: results.translate(without) for key, results in self._bytes.items()}

    def histogram(self) -> Counter[int]:
        """Return how many positions have each byte: 0x80 if produced, plus the number of results."""
        total: Counter[int] = Counter()
        for results in self._bytes.values():
            total.update(results)
        return total

    def unsettled(self) -> Iterator[Position]:
        """Yield the produced positions that have no result."""
        for (topic, partition), results in self._bytes.items():
            offset = results.find(_PRODUCED)
            while offset >= 0:
                yield Position(topic, partition, offset)
                offset = results.find(_PRODUCED, offset + 1)

    def _of(self, position: Position) -> bytearray:
        topic, partition, offset = position
        results = self._bytes.get((topic, partition))
        if results is None:
            results = self._bytes[topic, partition] = bytearray()
        if offset >= len(results):
            results.extend(bytes(offset + 1 - len(results)))
        return results


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What became of all records. All numbers from `lost` on must be 0, except `in_doubt` where it is allowed."""

    produced: int
    queued: int
    skipped: int
    dead_letters: Mapping[str, int]
    """By reason, including `in_doubt`."""
    accepted: int | None
    """Records that were accepted according to the ledger; None without a ledger, as for all numbers based on it."""
    lost: int
    """Produced records with neither outcome nor dead letter."""
    duplicates: int
    """Results beyond the first one of a position."""
    strays: int
    """Results for positions at which nothing was produced."""
    malformed: int
    """Outcomes and dead letters that do not name their record."""
    altered: int
    """Dead letters whose key, value or own headers differ from those of the source record."""
    otherwise: Mapping[str, int]
    """Results that differ from the expected one (`queued, not invalid_phone`), except those in doubt."""
    accepted_twice: int | None
    """Records that the platform accepted more than once."""
    never_accepted: int | None
    """Outcomes `queued` of records that the platform did not accept."""
    accepted_but_failed: int | None
    """Dead letters with a reason other than `in_doubt`, of records that the platform accepted."""
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Some of the violations, by the name of the number above."""

    @property
    def in_doubt(self) -> int:
        """Dead letters of records whose fate is unknown."""
        return self.dead_letters.get(IN_DOUBT, 0)

    def problems(self, *, repeats_allowed: bool = False) -> list[str]:
        """Return violations of the guarantees, one sentence each; empty if there are none.

        `repeats_allowed`: with at-least-once delivery, results may be repeated.
        """
        wrong = {
            "lost": "produced records have neither outcome nor dead letter",
            "duplicates": "results are there beyond the one that each record has",
            "strays": "results name a position at which nothing was produced",
            "malformed": "results do not say which record they are about",
            "altered": "dead letters are not byte for byte what was produced",
            "accepted_twice": "records were accepted by the platform more than once",
            "never_accepted": "records are called queued that the platform did not accept",
            "accepted_but_failed": "records are called failed that the platform accepted",
        }
        if repeats_allowed:
            del wrong["duplicates"]
        found = [f"{getattr(self, name)} {text}" for name, text in wrong.items() if getattr(self, name)]
        found += [f"{count} became {change}" for change, count in sorted(self.otherwise.items())]
        return found + [f"for example, {name}: {'; '.join(some)}" for name, some in self.examples.items() if found]


class _Outcome(msgspec.Struct, gc=False):
    """The fields of an outcome that are needed here."""

    status: str
    topic: str
    partition: int
    offset: int


class _Trial:
    """The counts while the topics are read."""

    def __init__(self, produced: Produced, accepted: Mapping[bytes, int] | None) -> None:
        self.produced = produced
        self.accepted: Mapping[bytes, int] = accepted if accepted is not None else {}
        self.has_ledger = accepted is not None
        self.statuses: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.otherwise: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.fingerprints: dict[Position, tuple[int, ...]] = {}
        """Of dead letters that are still to be compared with their source."""
        self._decode = msgspec.json.Decoder(_Outcome).decode

    def hear_outcome(self, message: Message) -> None:
        try:
            outcome = self._decode(message.value() or b"")
        except msgspec.DecodeError as error:
            self.blame("malformed", f"outcome {_place(position_of(message))}: {error}")
            return
        position = Position(outcome.topic, outcome.partition, outcome.offset)
        self.statuses[outcome.status] += 1
        self._settle(position, outcome.status)
        if self.has_ledger and outcome.status == QUEUED and not self.accepted.get(message.key() or b""):
            self.blame("never_accepted", _place(position))

    def hear_dead_letter(self, message: Message) -> None:
        headers = dict(message.headers() or ())
        try:
            reason = _text(headers, "trackly.reason")
            position = Position(
                _text(headers, "__connect.errors.topic"),
                int(_text(headers, "__connect.errors.partition")),
                int(_text(headers, "__connect.errors.offset")),
            )
        except (LookupError, ValueError) as error:
            self.blame("malformed", f"dead letter {_place(position_of(message))}: {error}")
            return
        self.reasons[reason] += 1
        self._settle(position, reason)
        if "trackly.value_omitted" not in headers:  # too large for the topic, and marked as such
            self.fingerprints[position] = (*self.fingerprints.get(position, ()), _fingerprint(message))
        if self.has_ledger and reason != IN_DOUBT and self.accepted.get(message.key() or b""):
            self.blame("accepted_but_failed", f"{_place(position)} ({reason})")

    def compare_source(self, message: Message) -> None:
        position = position_of(message)
        fingerprints = self.fingerprints.pop(position, ())
        own = _fingerprint(message) if fingerprints else None
        for _ in (fingerprint for fingerprint in fingerprints if fingerprint != own):
            self.blame("altered", _place(position))

    def blame(self, name: str, example: str) -> None:
        self.counts[name] += 1
        some = self.examples.setdefault(name, [])
        if len(some) < _EXAMPLES:
            some.append(example)

    def _settle(self, position: Position, result: str) -> None:
        self.produced.settle(position)
        expected = self.produced.expected(position)
        if result not in (expected, IN_DOUBT):
            self.otherwise[f"{result}, not {expected}"] += 1


def judge(
    bootstrap_servers: str,
    produced: Produced,
    *,
    outcomes: str,
    dead_letters: str,
    accepted: Mapping[bytes, int] | None = None,
    failures_only: bool = False,
    deleted: Collection[str] = (),
    timeout_secs: float = 60,
) -> Judgement:
    """Read both result topics and the sources, and return what became of the produced records.

    `accepted` is the platform's ledger: how often the record with each key was accepted; keys must be unique then.
    `failures_only`: the stream writes no outcomes, so only records that must fail can be lost. `deleted`: source topics
    that were deleted, with everything that had no result yet. Raises `TimeoutError` if a topic cannot be read to its
    end in `timeout_secs`.
    """
    trial = _Trial(produced, accepted)
    produced.forget_results()
    for chunk in read_topic(bootstrap_servers, outcomes, timeout_secs=timeout_secs):
        for message in chunk:
            trial.hear_outcome(message)
    for chunk in read_topic(bootstrap_servers, dead_letters, timeout_secs=timeout_secs):
        for message in chunk:
            trial.hear_dead_letter(message)
    if trial.fingerprints:
        for topic in set(produced.topics).difference(deleted):
            for chunk in read_topic(bootstrap_servers, topic, timeout_secs=timeout_secs):
                for message in chunk:
                    trial.compare_source(message)

    left = (at for at in produced.unsettled() if at.topic not in deleted)
    for position in (at for at in left if not failures_only or produced.expected(at) != QUEUED):
        trial.blame("lost", _place(position))
    results = produced.histogram()
    twice = [key for key, times in trial.accepted.items() if times > 1]
    if twice:
        trial.examples["accepted_twice"] = [repr(key) for key in islice(twice, _EXAMPLES)]
    return Judgement(
        produced=produced.count,
        queued=trial.statuses["queued"],
        skipped=trial.statuses["skipped"],
        dead_letters=dict(sorted(trial.reasons.items())),
        accepted=len(trial.accepted) if trial.has_ledger else None,
        lost=trial.counts["lost"],
        duplicates=sum(((value & _RESULTS) - 1) * n for value, n in results.items() if value > _PRODUCED),
        strays=sum(value * n for value, n in results.items() if value < _PRODUCED),
        malformed=trial.counts["malformed"],
        altered=trial.counts["altered"],
        otherwise=dict(trial.otherwise),
        accepted_twice=len(twice) if trial.has_ledger else None,
        never_accepted=trial.counts["never_accepted"] if trial.has_ledger else None,
        accepted_but_failed=trial.counts["accepted_but_failed"] if trial.has_ledger else None,
        examples={name: tuple(some) for name, some in trial.examples.items()},
    )


def _text(headers: Mapping[str, bytes | str | None], name: str) -> str:
    value = headers.get(name)
    if value is None:
        raise LookupError(f"no header {name}")
    return value if isinstance(value, str) else value.decode()


def _fingerprint(message: Message) -> int:
    """Return a number that is equal for a record and its unchanged dead letter."""
    headers = tuple(item for item in message.headers() or () if not item[0].startswith(_FAILURE_HEADERS))
    return hash((message.key(), message.value(), headers))


def _place(position: Position) -> str:
    return f"{position.topic}:{position.partition}:{position.offset}"
