"""Which dead letters are selected: the filters of all commands, and what `--where` sees.

A filter is data first (`Criteria`), so that it is checked when it is created and can be pickled; in the process that
scans it becomes a function.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from connector.config.settings import Settings
from connector.core.chunks import Partition
from connector.deadletters.addresses import AddressBook, json_of
from connector.deadletters.letters import Letter, Position
from connector.mapping.expressions import (
    Evaluate,
    EvaluationError,
    InvalidSourceError,
    evaluator,
    is_true,
    parse,
    refuse_strangers,
    roots_of,
)

_NUMBER = re.compile(r"[0-9]{1,18}")
_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_TIME_FORM = "should be a time such as 2026-01-31T08:00:00Z, or how long ago: 90m, 24h, 7d"
_POSITION_FORM = "should be TOPIC:PARTITION:OFFSET, or PARTITION:OFFSET in the dead-letter topic"

_TOLD: Final = ("reason", "code", "text", "status", "attempts", "redrives", "stream", "timestamp_ms")
NAMES: Final = ("value", "headers", "key", *_TOLD)
"""What `--where` sees of a dead letter."""

Matches = Callable[[Letter], bool]


class InvalidFilterError(ValueError):
    """A filter is invalid; the message begins with the option to fix."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(f"{option} {message}")


def read_time(option: str, text: str | None, *, now_ms: int) -> int | None:
    """Return a time, given in ISO 8601 or as an age, in milliseconds since 1970; None if none is given."""
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now_ms - int(ago[1]) * _UNIT_MS[ago[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidFilterError(option, _TIME_FORM) from None
    if moment.utcoffset() is None:
        raise InvalidFilterError(option, "must say its offset from UTC, such as 2026-01-31T08:00:00Z")
    return int(moment.timestamp() * 1_000)


def read_position(option: str, text: str) -> tuple[str | None, int, int]:
    """Return a position as topic (None: the dead-letter topic itself), partition and offset."""
    place, _, offset = text.rpartition(":")
    try:
        topic, number = (None, int(place)) if _NUMBER.fullmatch(place) else Partition.read(place)
    except ValueError:
        raise InvalidFilterError(option, _POSITION_FORM) from None
    if not _NUMBER.fullmatch(offset):
        raise InvalidFilterError(option, _POSITION_FORM)
    return topic, number, int(offset)


@dataclass(slots=True)
class Seen:
    """What was seen while reading."""

    reasons: set[str] = field(default_factory=set)
    """Reasons of all dead letters."""
    no_event: Counter[str] = field(default_factory=Counter)
    """How many a filter could not judge because no event can be shaped from them now, by cause."""
    where_failed: Counter[str] = field(default_factory=Counter)
    """On how many `--where` failed, by cause."""

    def add(self, other: "Seen") -> None:
        """Add what was seen in another piece."""
        self.reasons |= other.reasons
        self.no_event.update(other.no_event)
        self.where_failed.update(other.where_failed)


@dataclass(frozen=True, slots=True)
class Criteria:
    """What a dead letter must match to be selected; empty fields match all. Times are milliseconds since 1970."""

    reasons: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()
    statuses: frozenset[int] = frozenset()
    source_topics: frozenset[str] = frozenset()
    list_numbers: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    streams: frozenset[str] = frozenset()
    positions: frozenset[tuple[str | None, int, int]] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None
    min_redrives: int | None = None
    max_redrives: int | None = None
    where: str | None = None
    settings: Settings | None = field(default=None, repr=False)
    """The streams: the list of events that name none, and how to shape records that are not events."""

    def __post_init__(self) -> None:
        if self.where is not None:
            _compiled(self.where)
        if self.since_ms is not None and self.until_ms is not None and self.since_ms >= self.until_ms:
            raise InvalidFilterError("--until", "must be later than --since")
        if self.min_redrives is not None and self.max_redrives is not None and self.min_redrives > self.max_redrives:
            raise InvalidFilterError("--max-redrives", "must not be less than --min-redrives")

    @contextmanager
    def judging(self, seen: Seen) -> Iterator[tuple[Matches | None, Matches]]:
        """Yield a function for whether a dead letter is selected, None for all, and one for whether it may be later.

        The second is called for dead letters that were not selected: one may be too young for a filter by age, or have
        no event with the present settings. Dead letters that cannot be judged are counted at the end, and are not
        selected.
        """
        with AddressBook(self.settings) as addresses:
            until = self.until_ms
            yield (
                self._matcher(addresses, seen.where_failed),
                lambda letter: (until is not None and letter.timestamp_ms >= until) or addresses.just_missed(letter),
            )
            seen.no_event = addresses.no_event

    def _matcher(self, addresses: AddressBook, where_failed: Counter[str]) -> Matches | None:
        tests = list(self._tests(addresses, where_failed))
        match tests:
            case []:
                return None
            case [test]:
                return test
            case _:
                return lambda letter: all(test(letter) for test in tests)

    def _tests(self, addresses: AddressBook, where_failed: Counter[str]) -> Iterator[Matches]:
        """Yield the tests, the cheapest first, those that need an event last."""
        since, until, positions, lists = self.since_ms, self.until_ms, self.positions, self.list_numbers
        reasons, codes, statuses, topics = self.reasons, self.codes, self.statuses, self.source_topics
        least, most, streams = self.min_redrives, self.max_redrives, self.streams
        if since is not None:
            yield lambda letter: letter.timestamp_ms >= since
        if until is not None:
            yield lambda letter: letter.timestamp_ms < until
        if positions:
            yield lambda letter: _stands_at(letter, positions)
        if self.keys:
            # A shell passes arguments that are not text as raw bytes; they are compared as such.
            keys = frozenset(key.encode(errors="surrogateescape") for key in self.keys)
            yield lambda letter: letter.key in keys
        if reasons:
            yield lambda letter: letter.reason in reasons
        if streams:
            yield lambda letter: letter.stream in streams
        if codes:
            yield lambda letter: letter.code in codes
        if statuses:
            yield lambda letter: letter.status in statuses
        if topics:
            yield lambda letter: letter.origin[0].topic in topics or _topic(letter.source) in topics
        if least is not None:
            yield lambda letter: letter.redrives >= least
        if most is not None:
            yield lambda letter: letter.redrives <= most
        if self.where is not None:
            evaluate = _compiled(self.where)
            yield lambda letter: is_true(_evaluated(evaluate, letter, where_failed))
        if lists:
            yield lambda letter: addresses.of(letter).list_number in lists


def _compiled(where: str) -> Evaluate:
    try:
        ast = parse(where)
        refuse_strangers(roots_of(ast, NAMES), where, NAMES, what="a dead letter")
        return evaluator(ast)
    except InvalidSourceError as error:
        raise InvalidFilterError("--where", str(error)) from None


def _evaluated(evaluate: Evaluate, letter: Letter, failed: Counter[str]) -> Any:
    try:
        return evaluate(document_of(letter))
    except EvaluationError as error:  # for instance a function that does not accept this value
        failed[str(error)] += 1
        return None


def _topic(position: Position | None) -> str | None:
    return None if position is None else position[0].topic


def _stands_at(letter: Letter, positions: frozenset[tuple[str | None, int, int]]) -> bool:
    own, source, origin = (letter.partition, letter.offset), letter.source, letter.origin
    if (None, letter.partition.number, letter.offset) in positions:
        return True
    return any((*place[0], place[1]) in positions for place in (own, source, origin) if place is not None)


def document_of(letter: Letter) -> dict[str, Any]:
    """Return what `--where` sees of a dead letter: value, headers, and what the other filters use."""
    return {
        "value": json_of(letter.value),
        "headers": {name: None if raw is None else raw.decode(errors="replace") for name, raw in letter.headers},
        "key": None if letter.key is None else letter.key.decode(errors="replace"),
        **{name: getattr(letter, name) for name in _TOLD},
    }
