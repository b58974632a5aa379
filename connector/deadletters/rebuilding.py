"""Rebuilds the progress of a group whose commits Kafka has deleted, from both result topics.

It only matters that a record has a result, not which. Whatever could make that wrong is checked first, and leads to an
error: results removed by retention or compaction, results of another topic with the same name, of an unknown stream, or
in open transactions. Only the group's offsets are written.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from connector.config.kafka import KafkaSettings
from connector.config.settings import Settings
from connector.config.streams import StreamSettings, naming
from connector.core.chunks import Partition
from connector.core.progress import MAX_METADATA, ForeignMetadataError, Progress, decode, encode
from connector.core.ranges import Range
from connector.core.rebuilding import Gathered, gaps, rebuilt, without_result
from connector.deadletters.jobs import Results, Wanted, find_in_letters, find_in_outcomes, find_records
from connector.deadletters.letters import CLOCKS_MS, told_time
from connector.deadletters.preparing import topics_of
from connector.deadletters.working import CLIENT_ID, Spans, Work
from connector.kafka import configs
from connector.kafka.commits import Committed
from connector.kafka.errors import KafkaTroubleError
from connector.kafka.groups import Member, members, set_offsets
from connector.kafka.scanning import Scanner, scanning, until_aborted

_AGAIN_SECS: Final = 0.5
"""Pause before Kafka is queried again."""


class NotRebuiltError(Exception):
    """Progress cannot be determined or committed: why, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The new progress of a partition, and what it means for its offsets."""

    progress: Progress
    metadata: str
    results: int
    """Existing records with a result."""
    between: int
    """Offsets between them without a result."""
    doubt_behind: int
    """Offsets after the last result that may have been posted."""
    unread: int
    """Offsets that were certainly not posted, and will be read."""

    def as_json(self) -> dict[str, Any]:
        """Return a summary as JSON-ready values."""
        return {
            "commit": self.progress.base,
            "results": self.results,
            "done_above": self.progress.settled.count,
            "without_result_between": self.between,
            "in_doubt_behind": self.doubt_behind,
            "unread": self.unread,
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """What only the operator knows."""

    since_ms: int | None = None
    """What was produced earlier is dealt with, instead of the setting `start`."""
    stopped_ms: int | None = None
    """When the group's last worker ended: what was produced later was not posted."""
    clean: bool = False
    """It ended with nothing in flight."""
    formerly: frozenset[str] = frozenset()
    """Earlier names of the stream."""


class Rebuild:
    """Rebuilds a group's progress; raises `NotRebuiltError`, `NoSuchTopicError`, `KafkaTroubleError`.

    Partitions that have a commit stay as they are.
    """

    def __init__(self, settings: Settings, stream: StreamSettings, asked: Asked, work: Work) -> None:
        self._settings = settings
        self._kafka: KafkaSettings = settings.kafka
        self._stream = stream
        self._asked = asked
        self._work = work
        self.names: Counter[str] = Counter()
        """Results by the name of the stream that wrote them."""
        self._births: dict[str, int] = {}

    def plan(self) -> dict[Partition, Planned]:
        """Return what to commit, in the order of partitions."""
        stream = self._stream
        self._refuse_settings()
        self._refuse_members()
        with scanning(self._kafka, client_id=CLIENT_ID, group=stream.group) as scanner:
            topics = (stream.outcomes.topic, stream.dead_letters.topic)
            for topic in topics:
                scanner.require(topic)
            self._refuse_compacted(topics)
            spans = self._forgotten(scanner)
            starts = {partition: self._start(scanner, partition, span) for partition, span in spans.items()}
            results_in = {topic: self._ends(scanner, topic) for topic in topics}
            cut_ms = scanner.cut_ms({p: span for ends in results_in.values() for p, span in ends.items()})
            wanted = Wanted(
                stream.operation,
                frozenset({stream.name, *self._asked.formerly}),
                frozenset({one.name for one in self._settings.streams} - {stream.name} - self._asked.formerly),
                {partition: low for partition, (low, _) in spans.items()},
            )
            done, results = self._read_results(results_in, wanted)
            self._refuse_results(results)
            self._refuse_other_topic(scanner, spans, done, results)
            opened = {p: gaps(done.get(p, ()), start) for p, start in starts.items()}
            between = self._without_result({p: those for p, (those, _) in opened.items() if those})
            plan = {}
            for partition, (_, end) in sorted(spans.items()):
                known = _Known(
                    partition,
                    starts[partition],
                    opened[partition][1],
                    end,
                    done.get(partition, []),
                    between.get(partition, []),
                )
                if cut_ms is not None:
                    _refuse_cut(known, min(scanner.offset_at(partition, cut_ms + CLOCKS_MS), end), cut_ms)
                plan[partition] = self._planned(known, self._until(scanner, known))
        return plan

    def commit(self, plan: Mapping[Partition, Planned]) -> None:
        """Commit a plan, unless the group has members by now or anything was committed meanwhile."""
        self._refuse_members()
        group, config = self._stream.group, configs.asking(self._kafka, CLIENT_ID)
        with scanning(self._kafka, client_id=CLIENT_ID, group=group) as scanner:
            committed = scanner.committed(plan, within_secs=until_aborted(self._kafka))
        if begun := [partition for partition, there in committed.items() if there.offset is not None]:
            raise NotRebuiltError(
                f"{', '.join(map(str, sorted(begun)))}: a worker has started since the plan was made; "
                "stop it, then run the command again"
            )
        offsets = {partition: (planned.progress.base, planned.metadata) for partition, planned in plan.items()}
        set_offsets(config, group, offsets, self._kafka.request_timeout_secs)

    def _refuse_members(self) -> None:
        """Raise `NotRebuiltError` while the group has members, which would change the facts."""
        if there := self._members():
            raise NotRebuiltError(
                f"group {self._stream.group} has {len(there)} members; "
                "stop all workers of the stream, wait for kafka.session_timeout_secs, then run the command again"
            )

    def _members(self) -> list[Member]:
        config = configs.asking(self._kafka, CLIENT_ID)
        deadline = time.monotonic() + until_aborted(self._kafka)
        while True:
            try:
                return members(config, self._stream.group, self._kafka.request_timeout_secs)
            except KafkaTroubleError as error:
                if not error.unreachable or time.monotonic() > deadline:
                    raise
            time.sleep(_AGAIN_SECS)  # a new cluster has no coordinator at once

    # -------------------------------------------------------------- what exists

    def _refuse_settings(self) -> None:
        stream, asked = self._stream, self._asked
        if stream.outcomes.records == "failures":
            raise NotRebuiltError(
                "outcomes.records is failures: accepted records have left no result; "
                "use resume --progress-missing begin, or set the group's offsets from what you know otherwise"
            )
        if stream.start == "latest" and asked.since_ms is None:
            raise NotRebuiltError(
                "start is latest: records from before the stream first started have no result, and were not meant to "
                "be sent; give the time when it first started with --since"
            )

    def _refuse_compacted(self, results: Sequence[str]) -> None:
        if compacted := topics_of(self._settings).compacted(results):
            raise NotRebuiltError(
                f"{', '.join(sorted(compacted))}: a compacted topic keeps only one result per key; "
                "set its cleanup.policy to delete for the future; this time, set the group's offsets yourself"
            )

    def _forgotten(self, scanner: Scanner) -> dict[Partition, Range]:
        """Return the partitions without a commit that hold records; notes the births in other partitions' commits."""
        stream = self._stream
        is_read = naming((*stream.sources, stream.redrive_topic))
        spans: dict[Partition, Range] = {}
        for topic in filter(is_read, topics_of(self._settings).names()):
            ends = scanner.ends(topic)
            committed = scanner.committed(ends, within_secs=until_aborted(self._kafka))
            births = [born for there in committed.values() if (born := _birth(there)) > 0]
            self._births[topic] = min(births, default=len(ends))
            spans |= {p: (low, high) for p, (low, high) in ends.items() if committed[p].offset is None and low < high}
        if not spans:
            raise NotRebuiltError(
                f"Kafka has a commit of group {stream.group} for each partition that holds records; "
                "there is nothing to rebuild: start the stream"
            )
        return spans

    def _start(self, scanner: Scanner, partition: Partition, span: Range) -> int:
        """Return the first existing offset that was meant for the stream."""
        low, high = span
        start = self._stream.start
        is_own = partition.topic == self._stream.redrive_topic or partition.number >= self._births[partition.topic]
        since_ms = self._asked.since_ms
        if since_ms is None and isinstance(start, datetime) and not is_own:
            since_ms = int(start.timestamp() * 1_000)
        return low if since_ms is None else min(max(scanner.offset_at(partition, since_ms), low), high)

    def _ends(self, scanner: Scanner, topic: str) -> Spans:
        """Return the ends of a result topic, once no transaction is open in it."""
        written = scanner.written_ends(topic)
        deadline = time.monotonic() + until_aborted(self._kafka)
        while True:
            ends = scanner.ends(topic)
            hidden = [p for p, (_, stop) in ends.items() if stop < written.get(p, 0)]
            if not hidden:
                return ends
            if time.monotonic() > deadline:
                raise NotRebuiltError(
                    f"{', '.join(map(str, hidden))}: an open transaction hides results; "
                    "stop whatever writes there, wait for its transaction.timeout.ms, then run the command again"
                )
            time.sleep(_AGAIN_SECS)

    def _read_results(self, ends: Mapping[str, Spans], wanted: Wanted) -> tuple[dict[Partition, list[Range]], Results]:
        """Return the sorted ranges of records with results, and what the results say otherwise."""
        outcomes, letters = self._stream.outcomes.topic, self._stream.dead_letters.topic
        gathered: dict[Partition, Gathered] = {}
        together = Results()
        for topic, job in ((outcomes, find_in_outcomes), (letters, find_in_letters)):
            spans = {partition: span for partition, span in ends[topic].items() if span[0] < span[1]}
            for part in self._work(spans, partial(job, wanted=wanted), f"reading {topic}"):
                for partition, ranges in part.found.items():
                    gathered.setdefault(partition, Gathered()).add(ranges)
                for partition, ms in part.first_ms.items():
                    together.first_ms[partition] = min(ms, together.first_ms.get(partition, ms))
                together.last_ms = max(together.last_ms, part.last_ms)
                together.names.update(part.names)
        self.names = together.names
        return {partition: ranges.ranges() for partition, ranges in gathered.items()}, together

    def _without_result(self, opened: Mapping[Partition, list[Range]]) -> dict[Partition, list[Range]]:
        """Return which gaps between results hold records, read from the first gap to the last."""
        spans = {partition: (those[0][0], those[-1][1]) for partition, those in opened.items()}
        there: dict[Partition, Gathered] = {}
        for part in self._work(spans, find_records, "reading what has no result"):
            for partition, ranges in part.items():
                there.setdefault(partition, Gathered()).add(ranges)
        return {p: without_result(opened[p], there[p].ranges() if p in there else ()) for p in spans}

    def _until(self, scanner: Scanner, known: "_Known") -> int | None:
        """Return the offset up to which records without a result may have been posted; None: nothing was in flight."""
        if self._asked.clean:
            return None
        stopped_ms = self._asked.stopped_ms
        if stopped_ms is None:
            return known.end
        return min(scanner.offset_at(known.partition, stopped_ms + CLOCKS_MS), known.end)

    def _planned(self, known: "_Known", until: int | None) -> Planned:
        birth = self._births[known.partition.topic]
        progress = rebuilt(known.between, start=known.start, top=known.top, until=until, birth=birth)
        metadata = encode(progress)
        if len(metadata) > MAX_METADATA:
            raise NotRebuiltError(
                f"{known.partition}: results are so scattered that the progress takes {len(metadata):,} characters, "
                f"and a commit holds at most {MAX_METADATA:,}; give --stopped-cleanly or --stopped-at if you can: "
                "the less is in doubt, the shorter it is"
            )
        behind = 0 if until is None else max(until - known.top, 0)
        unread = known.end - known.top - behind
        return Planned(progress, metadata, _count(known.done), _count(known.between), behind, unread)

    # -------------------------------------------------------------- what would make it wrong

    def _refuse_results(self, results: Results) -> None:
        mine = {self._stream.name, *self._asked.formerly}
        if unknown := sorted(results.names.keys() - mine):
            raise NotRebuiltError(
                f"streams that are not in the settings have results of these records: {', '.join(unknown)}; "
                "if that is a former name of the stream, give it with --formerly; if it is another one, only you know "
                "whether its results count: set the group's offsets yourself"
            )
        if not results.names:
            raise NotRebuiltError(
                "no record that its topics hold has an outcome or a dead letter; "
                "the stream is new as far as Kafka and its results can tell: start it"
            )
        stopped_ms = self._asked.stopped_ms
        if stopped_ms is not None and results.last_ms > stopped_ms + CLOCKS_MS:
            raise NotRebuiltError(
                f"a result was written at {told_time(results.last_ms)}, later than --stopped-at; "
                "give the time when the last worker stopped"
            )

    def _refuse_other_topic(
        self, scanner: Scanner, spans: Spans, done: Mapping[Partition, list[Range]], results: Results
    ) -> None:
        """Raise `NotRebuiltError` if results are of an earlier topic with the same name."""
        for partition, ranges in done.items():
            span = spans[partition]
            why = ""
            if ranges[-1][1] > span[1]:
                why = f"results go up to offset {ranges[-1][1] - 1}, but the topic ends before {span[1]}"
            else:
                oldest_ms, first_ms = scanner.first_ms(partition, span), results.first_ms.get(partition)
                if oldest_ms is not None and first_ms is not None and first_ms < oldest_ms - CLOCKS_MS:
                    why = (
                        f"a result of one of its records was written at {told_time(first_ms)}, but the oldest of these "
                        f"records at {told_time(oldest_ms)}"
                    )
            if why:
                raise NotRebuiltError(
                    f"{partition}: {why}: the topic was recreated; set the group's offsets of that topic yourself"
                )


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a partition."""

    partition: Partition
    start: int
    top: int
    """The offset after the last result."""
    end: int
    done: list[Range]
    """Ranges with results, sorted."""
    between: list[Range]
    """Ranges between them that hold records without a result."""


def _refuse_cut(known: _Known, complete: int, cut_ms: int) -> None:
    """Raise `NotRebuiltError` if a record without a result may have had one that was removed.

    Records from `complete` on were produced after the last removed result, at `cut_ms`.
    """
    unsure = sum(max(min(stop, complete) - begin, 0) for begin, stop in known.between)
    unsure += max(complete - known.top, 0)
    if unsure:
        at = told_time(cut_ms + CLOCKS_MS)
        raise NotRebuiltError(
            f"{known.partition}: {unsure:,} offsets have no result, and results of that age have been removed; "
            f"if everything produced before {at} is settled: --since {at}"
        )


def _birth(committed: Committed) -> int:
    """Return the partition count at the group's birth, according to a commit; 0 if it does not say."""
    try:
        return 0 if committed.offset is None else decode(committed.offset, committed.metadata).birth
    except ForeignMetadataError:
        return 0


def _count(ranges: list[Range]) -> int:
    return sum(stop - start for start, stop in ranges)
