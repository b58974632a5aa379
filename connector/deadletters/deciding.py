"""What becomes of each selected dead letter: sent again, parked, or left, and why.

Nobody should be texted twice. So whatever may have been accepted is left, unless the operator says otherwise: records
in doubt, records with an outcome `queued` under their origin, and records that were sent again before. Looking at a
record alone gives a `Candidate`; what is known of its origin decides. If several streams read the topic of the origin,
each of them has a record there, and what became of it in one stream says nothing about the others.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple

from connector.config.streams import StreamSettings
from connector.core.chunks import Chunk, Partition
from connector.core.ranges import RangeSet
from connector.deadletters.evidence import Finding
from connector.deadletters.headers import redriven_fits
from connector.deadletters.letters import Letter, Position, letters_of, read_again, spelled
from connector.deadletters.patching import UnpatchableError, patched
from connector.deadletters.selection import Criteria, Seen
from connector.shaping.decoded import Decoder, FormatAwayError
from connector.shaping.formats import decoder_for
from connector.shaping.shaper import Shaper, shaper_of
from connector.trackly.operations import Operation, operation_of

WHY: Final[Mapping[str, str]] = {
    "queued": "the platform accepted the record: an outcome `queued` names its origin, and nothing is to be done",
    "redriven": "was already sent again: it waits in the redrive topic, or its later result replaces this one",
    "superseded": "was sent again and failed again; the later dead letter replaces it",
    "in_doubt": "the platform may have it; `--include in_doubt` sends it anyway",
    "still_in_doubt": "the evidence settles nothing: the number occurs twice or is unknown, the event may be about an "
    "earlier text or names another list than the settings, or events of that time have been removed",
    "automatic": "its stream sends it again by itself (`dead_letters.redrive`)",
    "parked": "was sent again as often as `--cap` allows, and is parked where it is; a larger `--cap` sends it",
    "value_omitted": "has no value here, as it was too large; produce it from its source",
    "no_stream": "no header says which stream it belongs to; name a topic with `--to`",
    "unknown_stream": "its stream is not in the settings; name a topic with `--to`",
    "patch_not_json": "its value is not JSON, so it cannot be patched; export it, fix it, import it",
    "patch_invalid": "with the patch it would not be a valid event of its stream; it needs another patch",
    "too_large": "is larger than the target topic allows; raise its `max.message.bytes`",
}
"""Why a selected dead letter is left, in words."""

MAY_CHANGE: Final = frozenset(
    {"automatic", "no_stream", "parked", "patch_invalid", "still_in_doubt", "too_large", "unknown_stream"}
)
"""Causes that depend on settings, options and other records in doubt, so that the same redrive looks at the dead letter
again; all other causes are final."""

DEFAULT_CAP: Final = 3
"""Redrives of one record, after which it is parked."""


def parking_topic(topic: str) -> str:
    """Return the parking topic for dead letters of a topic."""
    return topic if topic.endswith(".parking") else f"{topic}.parking"


@dataclass(frozen=True, slots=True)
class Automatic:
    """What a stream sends again automatically: reasons, up to how many redrives, and from which offsets on."""

    reasons: frozenset[str]
    max_redrives: int
    begins: Mapping[Partition, int]


@dataclass(frozen=True)
class Rules:
    """What a redrive may do."""

    streams: Mapping[str, StreamSettings]
    to: str | None = None
    include_in_doubt: bool = False
    cap: int = DEFAULT_CAP
    patch: dict[str, Any] | None = None
    park: bool = False
    """Everything is parked, and nothing is sent again."""
    automatic: Mapping[str, Sequence[Automatic]] = field(default_factory=dict)
    """By stream."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """Largest record in bytes that a topic accepts, if known."""

    def parking(self, topic: str) -> str:
        """Return the parking topic for dead letters of a topic."""
        return self.to if self.park and self.to is not None else parking_topic(topic)

    def target(self, letter: Letter) -> str | None:
        """Return the topic that a record is sent to, None if it is unknown."""
        if self.to is not None:
            return self.to
        stream = self.streams.get(letter.stream or "")
        return None if stream is None else stream.redrive_topic

    @cached_property
    def receivers(self) -> frozenset[str]:
        """Return the streams that read the topic given by `to`."""
        to = self.to
        if to is None:
            return frozenset()
        return frozenset(n for n, stream in self.streams.items() if stream.redrive_topic == to or stream.reads(to))

    def strangers(self, stream: str, topic: str) -> frozenset[str]:
        """Return the streams that read the topic of an origin themselves: their record there is a different one.

        A record that was sent to a stream from elsewhere, by `to`, is the sender's record.
        """
        if (stream, topic) not in self._strangers:
            readers = frozenset(name for name, settings in self.streams.items() if settings.reads(topic))
            own = {stream, *self.receivers}
            self._strangers[stream, topic] = readers - own if readers & own else frozenset()
        return self._strangers[stream, topic]

    @cached_property
    def _strangers(self) -> dict[tuple[str, str], frozenset[str]]:
        return {}

    @cached_property
    def _operations(self) -> dict[str, Operation]:
        return {name: operation_of(stream) for name, stream in self.streams.items()}

    @cached_property
    def _shapers(self) -> dict[str, Shaper | None]:
        return {name: shaper_of(stream, _decoder) for name, stream in self.streams.items()}

    def first_look(self, letter: Letter) -> str:
        """Return why a dead letter is left, judged by itself only; empty if nothing is against sending it."""
        if self.park:
            return ""
        topic = self.target(letter)
        if letter.value_omitted:
            return "value_omitted"
        if letter.may_be_taken and not self.include_in_doubt:
            return "in_doubt"
        if topic is None:
            return "no_stream" if letter.stream is None else "unknown_stream"
        if self._is_automatic(letter):
            return "automatic"
        try:
            value = self.value(letter)
        except UnpatchableError:
            return "patch_not_json"
        if self.patch is not None and not self._is_valid(letter, value):
            return "patch_invalid"
        limit = self.limits.get(topic)
        return "" if limit is None or redriven_fits(letter, value, limit) else "too_large"

    def value(self, letter: Letter) -> bytes | None:
        """Return the value to send; raises `UnpatchableError`."""
        return letter.value if self.patch is None else patched(letter.value, self.patch)

    def _is_automatic(self, letter: Letter) -> bool:
        return not letter.may_be_taken and any(
            letter.reason in rule.reasons
            and letter.redrives < rule.max_redrives
            and letter.offset >= rule.begins.get(letter.partition, letter.offset + 1)
            for rule in self.automatic.get(letter.stream or "", ())
        )

    def _is_valid(self, letter: Letter, value: bytes | None) -> bool:
        """Return whether a patched value is a valid event of the stream it is sent to, if that is known."""
        name = next((n for n, s in self.streams.items() if s.redrive_topic == self.to), letter.stream or "")
        operation = self._operations.get(name)
        if operation is None:
            return True
        again = read_again(letter, value, self.streams[name].redrive_topic)
        shaper = self._shapers[name]
        try:
            shaped = None if shaper is None else shaper.shape(again)
        except FormatAwayError:
            return True  # unknown now; the stream keeps what it cannot shape
        return operation.prepare(again, now_ms=0, shaped=shaped).settled is None


def _decoder(stream: StreamSettings) -> Decoder | None:
    """Return the decoder of patched values, which are JSON: they have no frame and need no registry."""
    return None if stream.format.framed is not None else decoder_for(stream.format, None)


class Candidate(NamedTuple):
    """A selected dead letter, judged by itself only."""

    partition: Partition
    offset: int
    failed_ms: int
    """0 if unknown: a foreign one may have the timestamp of its record, by a clock that is wrong."""
    reason: str
    stream: str
    origin: Position
    redrives: int
    why: str


@dataclass(slots=True)
class Survey:
    """The result of a scan of a topic, collected piece by piece."""

    seen: Seen = field(default_factory=Seen)
    matched: int = 0
    """Selected dead letters, whether dealt with before or not."""
    candidates: list[Candidate] = field(default_factory=list)
    latest: dict[str, dict[Position, int]] = field(default_factory=dict)
    """For records that were sent again and failed again, by stream: their origin, and the highest number of
    redrives."""
    open: dict[Partition, RangeSet] = field(default_factory=dict)
    """Dead letters that are not selected now but may be later, with the same filters."""

    def add(self, other: "Survey") -> None:
        """Add the result of another piece."""
        self.seen.add(other.seen)
        self.matched += other.matched
        self.candidates += other.candidates
        for partition, ranges in other.open.items():
            self.open.setdefault(partition, RangeSet()).update(ranges)
        for stream, latest in other.latest.items():
            known = self.latest.setdefault(stream, {})
            for origin, redrives in latest.items():
                known[origin] = max(redrives, known.get(origin, 0))


def survey(
    chunks: Iterable[Chunk],
    *,
    criteria: Criteria,
    rules: Rules,
    done: Mapping[Partition, tuple[int, RangeSet]],
) -> Survey:
    """Scan chunks of a dead-letter topic; `done` says which offsets are dealt with."""
    found = Survey()
    last_open: dict[Partition, int] = {}
    reasons: dict[str, str] = {}
    streams: dict[str, str] = {}
    partitions: dict[Partition, Partition] = {}
    with criteria.judging(found.seen) as (matches, may_yet_match):
        for chunk in chunks:
            base, settled = done.get(chunk.partition, (0, RangeSet()))
            for letter in letters_of(chunk):
                # Shared objects for the few different words and names keep what goes to another process small.
                reason = letter.reason
                reason = reasons.setdefault(reason, reason)
                redrives = letter.redrives
                if redrives:
                    latest = found.latest.setdefault(letter.stream or "", {})
                    latest[letter.origin] = max(redrives, latest.get(letter.origin, 0))
                is_done = letter.offset < base or letter.offset in settled
                if matches is not None and not matches(letter):
                    if not is_done and may_yet_match(letter):
                        # From the last one on: offsets in between may hold no records.
                        start = last_open.get(chunk.partition, letter.offset)
                        found.open.setdefault(chunk.partition, RangeSet()).add(start, letter.offset + 1)
                        last_open[chunk.partition] = letter.offset
                    else:
                        last_open.pop(chunk.partition, None)
                    continue
                last_open.pop(chunk.partition, None)
                found.matched += 1
                if is_done:
                    continue
                stream = letter.stream or ""
                source, offset = letter.origin
                found.candidates.append(
                    Candidate(
                        chunk.partition,
                        letter.offset,
                        letter.failed_ms if stream else 0,
                        reason,
                        streams.setdefault(stream, stream),
                        (partitions.setdefault(source, source), offset),
                        redrives,
                        rules.first_look(letter),
                    )
                )
    found.seen.reasons.update(reasons)
    return found


@dataclass(slots=True)
class Known:
    """What is known of origins: which have an outcome `queued`, and which were sent again how often."""

    queued: dict[str, dict[Partition, RangeSet]] = field(default_factory=dict)
    """By the stream of the outcome, empty if it names none."""
    redriven: dict[str, dict[Partition, dict[int, int]]] = field(default_factory=dict)
    """By the topic they were sent to, then by partition and offset."""

    def add(self, other: "Known") -> None:
        """Add the result of another piece of a topic."""
        for stream, queued in other.queued.items():
            known = self.queued.setdefault(stream, {})
            for partition, ranges in queued.items():
                known.setdefault(partition, RangeSet()).update(ranges)
        for topic, redriven in other.redriven.items():
            places = self.redriven.setdefault(topic, {})
            for partition, counts in redriven.items():
                before = places.setdefault(partition, {})
                for offset, redrives in counts.items():
                    before[offset] = max(redrives, before.get(offset, 0))

    def was_queued(self, origin: Position, strangers: Collection[str] = ()) -> bool:
        """Return whether an origin has an outcome `queued` of a stream that is not among the strangers."""
        partition, offset = origin
        there = [queued.get(partition) for stream, queued in self.queued.items() if stream not in strangers]
        return any(ranges is not None and offset in ranges for ranges in there)

    def was_redriven(self, origin: Position, redrives: int, elsewhere: Collection[str] = ()) -> bool:
        """Return whether a dead letter of an origin, redriven `redrives` times before, was sent again.

        Topics in `elsewhere` do not count.
        """
        partition, offset = origin
        there = [redriven.get(partition, {}) for topic, redriven in self.redriven.items() if topic not in elsewhere]
        return any(counts.get(offset, 0) > redrives for counts in there)


Action = Literal["redrive", "park", "accept"]
"""What is written for a dead letter: it is sent again, parked, or settled as queued."""

DID: Final[Mapping[Action, str]] = {"redrive": "sent again", "park": "parked", "accept": "settled as queued"}
"""What was done, in words."""


@dataclass(slots=True)
class Actions:
    """What is written for which offsets of one partition, and which offsets are left to be looked at again."""

    by_offset: dict[int, Action] = field(default_factory=dict)
    leave: RangeSet = field(default_factory=RangeSet)


@dataclass(slots=True)
class Plan:
    """What a redrive will do, with counts by reason and by why selected dead letters are left."""

    actions: dict[Partition, Actions] = field(default_factory=dict)
    reasons: defaultdict[Action, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """Records that will be written."""
        return sum(len(actions.by_offset) for actions in self.actions.values())

    def action_for(self, candidate: Candidate) -> Action | None:
        """Return what is written for a dead letter, None for one that is left."""
        actions = self.actions.get(candidate.partition)
        return None if actions is None else actions.by_offset.get(candidate.offset)

    def confirmed(self, then: "Plan") -> None:
        """Keep only what is in the confirmed plan; the rest is left, to be looked at again."""
        for partition, actions in self.actions.items():
            meant = then.actions.get(partition, Actions()).by_offset
            for offset in [at for at, action in actions.by_offset.items() if meant.get(at) != action]:
                del actions.by_offset[offset]
                actions.leave.add(offset, offset + 1)

    def put(self, candidate: Candidate, action: Action) -> None:
        """Add what is written for one dead letter."""
        self.actions.setdefault(candidate.partition, Actions()).by_offset[candidate.offset] = action
        self.reasons[action][candidate.reason] += 1

    def leave(self, candidate: Candidate, why: str) -> None:
        """Add one dead letter that is left."""
        self.skipped[why] += 1
        if why in MAY_CHANGE:
            leave = self.actions.setdefault(candidate.partition, Actions()).leave
            leave.add(candidate.offset, candidate.offset + 1)


def why_settled(candidate: Candidate, known: Known, latest: Mapping[str, Mapping[Position, int]], rules: Rules) -> str:
    """Return by what a dead letter was settled since, as far as is known: a name of `WHY`, empty where it was not."""
    origin, redrives = candidate.origin, candidate.redrives
    strangers = rules.strangers(candidate.stream, origin[0].topic)
    if known.was_queued(origin, strangers):
        return "queued"
    if known.was_redriven(origin, redrives, [rules.streams[name].redrive_topic for name in strangers]):
        return "redriven"
    if any(failed.get(origin, 0) > redrives for stream, failed in latest.items() if stream not in strangers):
        return "superseded"
    return ""


def plan(found: Survey, known: Known, rules: Rules, findings: Mapping[str, Finding] | None = None) -> Plan:
    """Return what becomes of all selected dead letters; `findings` is the evidence for each, by position."""
    made = Plan({partition: Actions(leave=ranges.copy()) for partition, ranges in found.open.items()})
    once: set[tuple[str, Position, int]] = set()
    for candidate in found.candidates:
        if rules.park:
            made.put(candidate, "park")
            continue
        finding = _finding_of(candidate, findings)
        why = why_settled(candidate, known, found.latest, rules) or candidate.why
        twin = (rules.to or candidate.stream, candidate.origin, candidate.redrives)
        if not why and finding == "still_in_doubt":
            why = "still_in_doubt"
        elif not why and twin in once:
            why = "superseded"  # the same record twice, written by an import or at-least-once
        if why:
            made.leave(candidate, why)
            continue
        once.add(twin)
        if finding == "accepted":
            made.put(candidate, "accept")
        elif candidate.redrives < rules.cap:
            made.put(candidate, "redrive")
        elif parking_topic(candidate.partition.topic) == candidate.partition.topic:
            made.leave(candidate, "parked")
        else:
            made.put(candidate, "park")
    return made


def _finding_of(candidate: Candidate, findings: Mapping[str, Finding] | None) -> Finding:
    if findings is None:
        return "redrive"
    return findings.get(spelled((candidate.partition, candidate.offset)), "still_in_doubt")
