"""Where partitions begin: what their last owner committed, and what the operator decided about it.

The questions to Kafka take their time, so that they are asked in threads of their own, while partitions that stay are
read on. One whose broker is away must not keep the others from beginning; none begins before its progress is known.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from connector.clock import now
from connector.config.streams import InDoubt, Start
from connector.core.chunks import Partition
from connector.core.progress import ForeignMetadataError, Progress, RangeSet, decode
from connector.kafka.errors import KafkaTroubleError
from connector.kafka.source import Committed, Source
from connector.kafka.topics import TopicId
from connector.stream.holds import Decision, InDoubtChoice, hold_for_doubt
from connector.stream.identities import Identities
from connector.stream.state import State
from connector.telemetry.logging import get_logger

_FIRST_WAIT_SECS, _MAX_WAIT_SECS = 0.1, 5.0
"""Before partitions that nothing could be learned of are asked about again: at first, and at most."""

_FIND_OUT = (
    "there may be dead letters of later records, and records before it without a result: stop the stream, and "
    "trackly-connector rebuild-progress finds out"
)
"""To go on behind the last outcome would send again what is in doubt by a dead letter, and lose what had to wait."""


@dataclass(frozen=True, slots=True)
class BeginOptions:
    """What is read, and where it begins."""

    topics: tuple[str, ...]
    group: str
    start: Start
    on_missing: Literal["hold", "continue"]
    in_doubt: InDoubt
    call_secs: float
    from_beginning: frozenset[str] = frozenset()
    """Topics whose records were all meant for this group, so that it begins with their first, whatever `start` says."""


@dataclass(slots=True)
class Beginning:
    """What was found of a partition under an assignment; without progress it does not begin, and `hold` says why."""

    partition: Partition
    epoch: int
    progress: Progress | None
    topic: TopicId | None = None
    """Which topic it is of, where that was told."""
    new: bool = False
    committed: int = 0
    """Where it stands committed, unless it is new."""
    missing: int = 0
    """Records that were removed before they were read."""
    vanished: int = 0
    """Records in doubt that are no longer there."""
    in_doubt: InDoubtChoice | None = None
    """What the operator decided about its records in doubt, in place of the setting."""
    hold: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class _Later:
    """Partitions that nothing could be learned of yet, when they are asked about again, and how long to wait then."""

    at: float
    epochs: Mapping[Partition, int]
    wait_secs: float


class _Outcomes:
    """What outcomes tell of partitions without a commit; asked once for all that begin together, if at all.

    Raises `KafkaTroubleError`.
    """

    def __init__(
        self, last_settled: Callable[[], Mapping[Partition, int]], source: Source, options: BeginOptions
    ) -> None:
        self._last_settled = last_settled
        self._source = source
        self._options = options

    @cached_property
    def last(self) -> Mapping[Partition, int]:
        """The highest offset of each partition that the last outcomes name."""
        return self._last_settled()

    @cached_property
    def forgotten(self) -> Partition | None:
        """A partition of the stream that they name and of which its group has no commit, if there is any.

        Then what else has no commit is not new either: it may have been quiet for longer than they reach back.
        """
        there = self._source.all_partitions(self._options.topics, self._options.call_secs) if self.last else ()
        committed = self._source.committed(sorted(self.last.keys() & there), self._options.call_secs)
        return next((partition for partition, found in committed.items() if found.offset is None), None)


@dataclass(slots=True)
class _Ruling:
    """What the operator decided about a partition that is begun again, hold by hold; spent once it has begun."""

    in_doubt: InDoubtChoice | None = None
    discard_metadata: bool = False
    pass_missing: bool = False
    begin: bool = False
    """Begin where the settings say, although there was progress."""

    def add(self, reason: str, decision: Decision) -> None:
        """Take in what was decided about a hold; a reason that nobody was asked about changes nothing."""
        match reason:
            case "in_doubt":
                self.in_doubt = decision.in_doubt
            case "foreign_metadata":
                self.discard_metadata = decision.foreign_metadata == "discard"
            case "records_missing":
                self.pass_missing = True
            case "progress_missing":
                self.begin = decision.progress_missing == "begin"
            case _:
                pass


class Beginnings:
    """Finds out where partitions begin; `found` is what it has found and nobody has taken yet.

    `epoch_of` gives the number of a partition's assignment, None for one that is gone. `last_settled` tells what the
    outcome topic remembers, and raises `KafkaTroubleError`; `identities` which topics stand behind the names.
    """

    def __init__(
        self,
        state: State,
        options: BeginOptions,
        *,
        name: str,
        fail: Callable[[BaseException], None],
        epoch_of: Callable[[Partition], int | None],
        last_settled: Callable[[], Mapping[Partition, int]],
        identities: Identities,
    ) -> None:
        self.found: deque[Beginning] = deque()
        self.total = 0
        """Partitions of all topics that the stream reads, whoever has them; only counted where lists have a pace."""
        self._state = state
        self._options = options
        self._fail = fail
        self._epoch_of = epoch_of
        self._last_settled = last_settled
        self._identities = identities
        self._rulings: dict[Partition, _Ruling] = {}
        self._closing = threading.Event()
        self._later: deque[_Later] = deque()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix=f"{name}-progress")
        self._log = get_logger("reader").bind(stream=name)

    def look_up(self, source: Source, epochs: Mapping[Partition, int]) -> None:
        """Find out where partitions begin, each under its assignment's number; returns at once.

        With none of them it only counts the partitions that there are.
        """
        if not self._closing.is_set():  # a stream that stops early may be assigned something as it leaves
            self._threads.submit(self._load, source, epochs, _FIRST_WAIT_SECS)

    def look_again(self, source: Source) -> None:
        """Ask again about partitions that nothing could be learned of, when their time has come.

        In between they take no thread: those that come later may have brokers that answer.
        """
        for _ in range(len(self._later)):
            later = self._later.popleft()
            if now() < later.at:
                self._later.append(later)
            else:
                self._threads.submit(self._load, source, later.epochs, later.wait_secs)

    def rule(self, partition: Partition, reason: str, decision: Decision) -> None:
        """Take note of what the operator decided about a hold, for when the partition is looked up again."""
        self._rulings.setdefault(partition, _Ruling()).add(reason, decision)

    def forget(self, partition: Partition) -> None:
        """Forget what was decided: it has begun, or is another worker's."""
        self._rulings.pop(partition, None)

    def close(self) -> None:
        """Return when no call is under way: one that its consumer is closed under never returns."""
        self._closing.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    # ------------------------------------------------------------------ threads of its own

    def _load(self, source: Source, epochs: Mapping[Partition, int], wait_secs: float) -> None:
        """Read what is committed for new partitions, if there are any; what stays unknown is asked for again later."""
        mine = [p for p, epoch in epochs.items() if self._epoch_of(p) == epoch]
        if self._closing.is_set() or (epochs and not mine):
            return
        try:
            found, left, trouble = self._ask(source, mine, epochs)
        except Exception as error:  # noqa: BLE001 (a thread of its own has nobody else to tell)
            self._fail(error)
            return
        if found:
            self.found.extend(found)
            with self._state.changed:
                self._state.changed.notify_all()
        if trouble is None:
            return
        self._state.troubled(trouble, for_secs=2 * self._options.call_secs + 10.0)
        where = str(left[-1]) if left else ""
        self._log.warning("progress not read yet", code=trouble.code, error=str(trouble), partition=where)
        next_wait = min(2 * wait_secs, _MAX_WAIT_SECS)
        self._later.append(_Later(now() + wait_secs, {p: epochs[p] for p in left}, next_wait))

    def _ask(
        self, source: Source, mine: list[Partition], epochs: Mapping[Partition, int]
    ) -> tuple[list[Beginning], list[Partition], KafkaTroubleError | None]:
        """Return what is found of these partitions, those to ask for again, and why: one must not keep the others.

        Whose brokers are away is asked for last the next time, and nothing more is asked now: each call would wait.
        """
        secs = self._options.call_secs
        if self._state.admission.pacer is not None:
            try:
                self.total = len(source.all_partitions(self._options.topics, secs))
            except KafkaTroubleError as error:
                return [], mine, error
        # First, so that a topic that is replaced meanwhile is found out when the ids are asked for next.
        topics = self._identities.ask(partition.topic for partition in mine)
        try:
            committed = source.committed(mine, secs)
        except KafkaTroubleError as error:
            if error.away:
                return [], mine, error
            committed = {}  # one of them is to blame
        found: list[Beginning] = []
        failed: list[Partition] = []
        trouble = None
        outcomes = _Outcomes(self._last_settled, source, self._options)
        for at, partition in enumerate(mine):
            if self._closing.is_set():  # of hundreds, the rest would take longer than a stop may
                break
            try:
                there = committed.get(partition) or source.committed([partition], secs)[partition]
                blank = Beginning(partition, epochs[partition], None, topics.get(partition.topic))
                found.append(self._start_of(source, blank, there, outcomes))
            except KafkaTroubleError as error:
                failed.append(partition)
                trouble = error
                if error.away:
                    return found, [*mine[at + 1 :], *failed], trouble
        return found, failed, trouble

    def _start_of(
        self,
        source: Source,
        found: Beginning,
        committed: Committed,
        outcomes: _Outcomes,
    ) -> Beginning:
        """Return what is found of a partition, given its beginning without it."""
        partition = found.partition
        low, high = source.bounds(partition, self._options.call_secs)
        ruling = self._rulings.get(partition) or _Ruling()
        if committed.offset is None:
            return self._start_of_new(source, found, low, high, outcomes, begins=ruling.begin)
        found.committed, found.in_doubt = committed.offset, ruling.in_doubt
        try:
            progress = decode(committed.offset, committed.metadata)
        except ForeignMetadataError as error:
            if not ruling.discard_metadata:
                reset = self._reset(partition, "--to-current")
                detail = f"{error}; to start at the committed offset: resume, or {reset}"
                return replace(found, hold=("foreign_metadata", detail))
            progress = Progress(committed.offset)
        if not progress.birth:
            # Committed by others, as when offsets are reset. From now on it is ours, and the partitions that there are
            # count as those there were at first: what is added later is read from its beginning.
            progress = replace(progress, birth=source.partition_count(partition.topic, self._options.call_secs))
            found.new = True
        sure = self._identities.read_of_another(partition, found.topic)
        if sure is not None and (unsettled := self._unsettled(partition, progress)) is not None:
            # What is in doubt holds it once it has begun: until then the commit is taken for one of the new topic.
            return replace(found, progress=_of_the_next(progress, sure, low, high), new=True, missing=unsettled)
        if _top(progress) > high:  # as tools reset them that count what is in open transactions
            high = source.written_end(partition, self._options.call_secs)
        found.missing, detail = self._missing(partition, progress, low, high)
        if found.missing and self._options.on_missing == "hold" and not ruling.pass_missing:
            return replace(found, hold=("records_missing", detail))
        left = _within(progress, low, high)
        # What was in doubt and is gone is settled: there is nothing left to write a dead letter of.
        found.vanished = progress.in_flight.count - left.in_flight.count
        if self._options.in_doubt == "hold" and ruling.in_doubt is None and (count := self._in_doubt(found, left)):
            return replace(found, hold=hold_for_doubt(count))
        found.progress = left
        return found

    def _start_of_new(
        self,
        source: Source,
        found: Beginning,
        low: int,
        high: int,
        outcomes: _Outcomes,
        *,
        begins: bool,
    ) -> Beginning:
        """Return what is found of a partition without a commit; what is forgotten `begins` if the operator said so."""
        partition = found.partition
        # The commits of a topic go with it, and whoever begins the next one commits that before anything is sent.
        replaced = self._identities.was_replaced(partition.topic, found.topic)
        progress = self._first_progress(source, partition, low, high, all_is_new=replaced)
        known = begins or replaced
        if not known and (detail := self._forgotten(partition, progress.base, low, high, outcomes)):
            return replace(found, hold=("progress_missing", detail))
        return replace(found, progress=progress, new=True)

    def _missing(self, partition: Partition, progress: Progress, low: int, high: int) -> tuple[int, str]:
        """Return how many records are gone that were not read, 1 where that cannot be known, and what a hold says."""
        base, top = progress.base, _top(progress)
        unread = max(low - base, 0) - _below(progress.settled, low) - _below(progress.in_flight, low)
        go_on = "the oldest available record"
        if base > high:
            unread, go_on = 1, f"{go_on}, which posts all of them, even those that were posted before"
            why = (
                f"offset {base} is beyond the end {high}: the topic was recreated, or an unclean leader election has "
                "truncated it, and then what it has now was read before; to continue at its end, "
                f"{self._reset(partition, '--to-latest')}"
            )
        elif unread:
            why = f"retention removed {unread} records before they were read"
        elif top > high:
            unread, go_on = 1, "what is there" if base >= low else go_on
            why = (
                f"what was read up to offset {top - 1} is beyond the end {high}: an unclean leader election has "
                "truncated it, or the topic was recreated; what has been written there since is new"
            )
        else:
            return 0, ""
        return unread, f"{why}; to continue with {go_on}: resume, or on_missing: continue"

    def _forgotten(self, partition: Partition, base: int, low: int, high: int, outcomes: _Outcomes) -> str:
        """Return what beginning at `base` would do to records by which outcomes know that the stream is not new.

        A time that lies behind the last of them was set since, to pass over what is older; `latest` stood there before.
        """
        passes_over = self._options.start == "latest" and base == high
        if low >= high or (base >= high and not passes_over):  # nothing can be posted again, or be passed over
            return ""
        last = outcomes.last.get(partition, -1)
        was_recreated = last >= high
        if was_recreated and not passes_over:
            return ""
        known, way = f"outcomes have results up to offset {last}", _FIND_OUT
        if last < 0:
            if (other := outcomes.forgotten) is None:
                return ""
            known = f"the last outcomes have none of this partition, but of {other}, whose commit is gone too"
            harm = f"from `start` on, {high - base:,} offsets would be posted, even those that were posted before"
            if passes_over:
                harm = f"with `start: latest`, its {high - low:,} offsets would be skipped"
        elif was_recreated:
            known += ", so the topic was recreated"
            harm = f"with `start: latest`, its {high - low:,} offsets would be skipped"
            way = f"to continue with it: {self._reset(partition, f'--to-offset {low}')}"
        elif base <= last:
            harm = "from `start` on, all would be posted again"
        elif passes_over and (behind := high - max(last + 1, low)):
            harm = f"with `start: latest`, {behind:,} offsets after it would be skipped"
        else:
            return ""
        return f"Kafka has no commit of group {self._options.group}, and {known}; {harm}; {way}"

    def _in_doubt(self, found: Beginning, progress: Progress) -> int:
        with self._state.lock:
            return self._state.flow.remembered.unknown(found.partition, progress).count

    def _unsettled(self, partition: Partition, progress: Progress) -> int | None:
        """Return how many records this worker had read and not settled; None where it is not what it committed last."""
        with self._state.lock:
            remembered = self._state.flow.remembered
            return remembered.unsettled(partition) if remembered.is_ours(partition, progress) else None

    def _reset(self, partition: Partition, where: str) -> str:
        """Return how an operator sets the group's offset of a partition, by Kafka's own tool."""
        return (
            "stop the connector, wait kafka.session_timeout_secs, then kafka-consumer-groups.sh "
            f"--group {self._options.group} --reset-offsets {where} --execute --topic {partition}"
        )

    def _first_progress(
        self, source: Source, partition: Partition, low: int, high: int, *, all_is_new: bool
    ) -> Progress:
        """Return where a partition without a commit begins: as set when the group is new, else at its beginning."""
        timeout = self._options.call_secs
        total = source.partition_count(partition.topic, timeout)
        others = source.committed([Partition(partition.topic, n) for n in range(total)], timeout)
        births = []
        for other in others.values():
            if other.offset is not None:
                try:
                    births.append(decode(other.offset, other.metadata).birth)
                except ForeignMetadataError:
                    continue
        birth = min((b for b in births if b > 0), default=total)
        if partition.number >= birth:
            return Progress(low, birth)  # added to the topic after the group began: nothing of it is old
        start = self._options.start
        if all_is_new or start == "earliest" or partition.topic in self._options.from_beginning:
            return Progress(low, birth)
        if start == "latest":
            return Progress(high, birth)
        return Progress(source.offset_at(partition, int(start.timestamp() * 1000), timeout), birth)


def _below(ranges: RangeSet, limit: int) -> int:
    return sum(max(min(stop, limit) - start, 0) for start, stop in ranges)


def _top(progress: Progress) -> int:
    """Return the end of all that was read."""
    return max(progress.base, progress.settled.stop, progress.in_flight.stop)


def _within(progress: Progress, low: int, high: int) -> Progress:
    """Return the progress without what is not there any more.

    Else new records under these offsets would be taken for those that were read, and be passed over.
    """
    if progress.base > high:
        return Progress(low, progress.birth)
    if progress.base >= low and _top(progress) <= high:
        return progress
    settled, in_flight = progress.settled.copy(), progress.in_flight.copy()
    for ranges in (settled, in_flight):
        ranges.discard(high, max(ranges.stop, high))
    in_flight.discard(0, low)
    return Progress(settled.advance(max(progress.base, low)), progress.birth, 0, settled, in_flight)


def _of_the_next(progress: Progress, sure: int, low: int, high: int) -> Progress:
    """Return the progress of a topic that took the place of another, of which all that was read below `sure` was.

    What was posted from there on may have been of either, so it is in doubt.
    """
    doubt = progress.settled.copy()
    doubt.update(progress.in_flight)
    doubt.add(sure, progress.base)
    doubt.discard(0, max(sure, low))
    doubt.discard(high, max(doubt.stop, high))
    return Progress(low, progress.birth, in_flight=doubt)
