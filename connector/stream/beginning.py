"""Where partitions start: at what their last owner committed, and as the operator decided about it.

The queries to Kafka take time, so they run in threads of their own while retained partitions are read. A partition
whose broker is unreachable must not keep others from starting; none starts before its progress is known.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal

from connector.clock import now
from connector.config.streams import InDoubt, Start
from connector.core.chunks import Partition
from connector.core.progress import ForeignMetadataError, Progress, decode
from connector.core.ranges import RangeSet
from connector.kafka.commits import Committed
from connector.kafka.errors import KafkaTroubleError
from connector.kafka.leader_epochs import NO_EPOCH
from connector.kafka.source import Source
from connector.kafka.topics import TopicId
from connector.stream.holds import Decision, InDoubtChoice, hold_for_doubt
from connector.stream.identities import Identities
from connector.stream.state import State
from connector.telemetry.logging import get_logger

_FIRST_WAIT_SECS, _MAX_WAIT_SECS = 0.1, 5.0
"""First and longest wait before the progress of partitions is queried again."""

_FIND_OUT = (
    "there may be dead letters of later records, and records before it without a result: stop the stream, and "
    "trackly-connector rebuild-progress finds out"
)
"""Continuing after the last outcome would post again what is in doubt in a dead letter, and lose records that had
waited."""


LastSettled = Callable[[Callable[[], bool]], Mapping[Partition, int]]
"""Returns the highest offset of each partition in the last outcomes; reads until it should stop, which may take long.

Raises `KafkaTroubleError`.
"""


@dataclass(frozen=True, slots=True)
class BeginOptions:
    """What is read, and where it starts."""

    topics: tuple[str, ...]
    group: str
    start: Start
    on_missing: Literal["hold", "continue"]
    in_doubt: InDoubt
    call_secs: float
    from_beginning: frozenset[str] = frozenset()
    """Topics whose records are all meant for this group, so that it starts at their first one, whatever `start`
    says."""


@dataclass(slots=True)
class Beginning:
    """What was found about a partition under an assignment; without `progress` it does not start, see `hold`."""

    partition: Partition
    epoch: int
    progress: Progress | None
    topic: TopicId | None = None
    """The topic's id, if known."""
    leader_epoch: int = NO_EPOCH
    """The committed epoch, if what was read before is all there."""
    new: bool = False
    committed: int = 0
    """The committed offset, unless the partition is new."""
    missing: int = 0
    """How many records were removed before they were read."""
    vanished: int = 0
    """How many records in doubt no longer exist."""
    in_doubt: InDoubtChoice | None = None
    """What the operator decided about its records in doubt, instead of the setting."""
    hold: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class _Later:
    """Partitions about which nothing could be found out yet, the time of the next attempt, and the wait after that."""

    at: float
    epochs: Mapping[Partition, int]
    wait_secs: float


class _Outcomes:
    """What outcomes say about partitions without a commit; read once for all that start together, even if it fails.

    Raises `KafkaTroubleError`.
    """

    def __init__(
        self, last_settled: Callable[[], Mapping[Partition, int]], source: Source, options: BeginOptions
    ) -> None:
        self._last_settled = last_settled
        self._source = source
        self._options = options

    @cached_property
    def _answer(self) -> Mapping[Partition, int] | KafkaTroubleError:
        try:
            return self._last_settled()
        except KafkaTroubleError as error:
            return error

    @property
    def last(self) -> Mapping[Partition, int]:
        """The highest offset of each partition that occurs in the last outcomes."""
        if isinstance(self._answer, KafkaTroubleError):
            raise self._answer
        return self._answer

    @cached_property
    def forgotten(self) -> Partition | None:
        """A partition of the stream that occurs in outcomes and has no commit of the group, or None.

        If there is one, other partitions without a commit are not new either: they may have had no records lately.
        """
        there = self._source.all_partitions(self._options.topics, self._options.call_secs) if self.last else ()
        committed = self._source.committed(sorted(self.last.keys() & there), self._options.call_secs)
        return next((partition for partition, found in committed.items() if found.offset is None), None)


@dataclass(slots=True)
class _Choice:
    """What the operator decided about a partition, by the reason of its holds; used up when it starts."""

    in_doubt: InDoubtChoice | None = None
    discard_metadata: bool = False
    pass_missing: bool = False
    begin: bool = False
    """Start where the settings say, although there was progress."""

    def add(self, reason: str, decision: Decision) -> None:
        """Add a decision about a hold; reasons that need none change nothing."""
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
    """Finds out where partitions start; `found` is what was found and not taken yet.

    `epoch_of` returns the number of a partition's assignment, None if it is gone; `identities` knows the topic ids.
    """

    def __init__(
        self,
        state: State,
        options: BeginOptions,
        *,
        name: str,
        fail: Callable[[BaseException], None],
        epoch_of: Callable[[Partition], int | None],
        last_settled: LastSettled,
        identities: Identities,
    ) -> None:
        self.found: deque[Beginning] = deque()
        self.truncated: dict[Partition, int | None] = {}
        """From which offset on what was read is not there any more, None if brokers do not tell; until the partition
        starts."""
        self.total = 0
        """Number of partitions of all topics of the stream, whoever owns them; only counted with a pace."""
        self._state = state
        self._options = options
        self._fail = fail
        self._epoch_of = epoch_of
        self._last_settled = last_settled
        self._identities = identities
        self._choices: dict[Partition, _Choice] = {}
        self._closing = threading.Event()
        self._later: deque[_Later] = deque()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix=f"{name}-progress")
        self._log = get_logger("reader").bind(stream=name)

    def look_up(self, source: Source, epochs: Mapping[Partition, int]) -> None:
        """Find out where partitions start, each under the number of its assignment; returns at once.

        Without partitions it only updates `total`.
        """
        if not self._closing.is_set():  # a stream that stops early may be assigned something while it leaves
            self._threads.submit(self._load, source, epochs, _FIRST_WAIT_SECS)

    def look_again(self, source: Source) -> None:
        """Query partitions again for which nothing was found out, once their wait is over.

        Meanwhile they occupy no thread: the brokers of partitions that come later may answer.
        """
        for _ in range(len(self._later)):
            later = self._later.popleft()
            if now() < later.at:
                self._later.append(later)
            else:
                self._threads.submit(self._load, source, later.epochs, later.wait_secs)

    def rule(self, partition: Partition, reason: str, decision: Decision) -> None:
        """Note the operator's decision about a hold, for when the partition is looked up again."""
        self._choices.setdefault(partition, _Choice()).add(reason, decision)

    def forget(self, partition: Partition) -> None:
        """Forget the decisions about a partition: it has started, or belongs to another worker."""
        self._choices.pop(partition, None)

    def close(self) -> None:
        """Return when no call is running: a call never returns if its consumer is closed meanwhile."""
        self._closing.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    # ------------------------------------------------------------------ threads of its own

    def _load(self, source: Source, epochs: Mapping[Partition, int], wait_secs: float) -> None:
        """Read the committed progress of new partitions; those for which this fails are queried again later."""
        mine = [p for p, epoch in epochs.items() if self._epoch_of(p) == epoch]
        if self._closing.is_set() or (epochs and not mine):
            return
        try:
            found, left, trouble = self._ask(source, mine, epochs)
        except Exception as error:  # noqa: BLE001 (in a thread of its own there is no caller to raise to)
            self._fail(error)
            return
        if found:
            self.found.extend(found)
            with self._state.changed:
                self._state.changed.notify_all()
        if trouble is None or self._closing.is_set():
            return
        self._state.note_trouble(trouble, for_secs=2 * self._options.call_secs + 10.0)
        where = str(left[-1]) if left else ""
        self._log.warning("progress not read yet", code=trouble.code, error=str(trouble), partition=where)
        next_wait = min(2 * wait_secs, _MAX_WAIT_SECS)
        self._later.append(_Later(now() + wait_secs, {p: epochs[p] for p in left}, next_wait))

    def _ask(
        self, source: Source, mine: list[Partition], epochs: Mapping[Partition, int]
    ) -> tuple[list[Beginning], list[Partition], KafkaTroubleError | None]:
        """Return what was found about these partitions, those to query again, and why; one must not block the others.

        If brokers are unreachable, querying stops, since each call would wait; the partition at fault goes last next
        time.
        """
        secs = self._options.call_secs
        if self._state.admission.pacer is not None:
            try:
                self.total = len(source.all_partitions(self._options.topics, secs))
            except KafkaTroubleError as error:
                return [], mine, error
        # Ids come first: if a topic is replaced in between, the next look at the ids finds out.
        topics = self._identities.ask(partition.topic for partition in mine)
        try:
            committed = source.committed(mine, secs)
        except KafkaTroubleError as error:
            if error.unreachable:
                return [], mine, error
            committed = {}  # one of the partitions is at fault
        found: list[Beginning] = []
        failed: list[Partition] = []
        trouble = None
        outcomes = _Outcomes(partial(self._last_settled, self._closing.is_set), source, self._options)
        for at, partition in enumerate(mine):
            if self._closing.is_set():  # with hundreds of partitions, finishing would take longer than a stop may
                break
            try:
                there = committed.get(partition) or source.committed([partition], secs)[partition]
                blank = Beginning(partition, epochs[partition], None, topics.get(partition.topic))
                found.append(self._start_of(source, blank, there, outcomes))
            except KafkaTroubleError as error:
                failed.append(partition)
                trouble = error
                if error.unreachable:
                    return found, [*mine[at + 1 :], *failed], trouble
        return found, failed, trouble

    def _start_of(
        self,
        source: Source,
        found: Beginning,
        committed: Committed,
        outcomes: _Outcomes,
    ) -> Beginning:
        """Return what was found about a partition, given a `Beginning` with the basics."""
        partition = found.partition
        low, high = source.bounds(partition, self._options.call_secs)
        choice = self._choices.get(partition) or _Choice()
        if committed.offset is None:
            return self._start_of_new(source, found, low, high, outcomes, begins=choice.begin)
        found.committed, found.in_doubt = committed.offset, choice.in_doubt
        try:
            progress = decode(committed.offset, committed.metadata)
        except ForeignMetadataError as error:
            if not choice.discard_metadata:
                reset = self._reset(partition, "--to-current")
                way_out = f"resume with --foreign-metadata discard, or {reset}"
                detail = f"{error}; to start at the committed offset: {way_out}"
                return replace(found, hold=("foreign_metadata", detail))
            progress = Progress(committed.offset)
        if not progress.birth:
            # Committed by others, as when offsets are reset. From now on it is ours, and the present partition count is
            # taken as that at the group's birth: partitions that are added later are read from their beginning.
            progress = replace(progress, birth=source.partition_count(partition.topic, self._options.call_secs))
            found.new = True
        sure = self._identities.read_of_another(partition, found.topic)
        if sure is not None and (unsettled := self._unsettled(partition, progress)) is not None:
            # Records in doubt hold the partition once it has started; until then this commit is taken for one of the
            # new topic.
            return replace(found, progress=_of_the_next(progress, sure, low, high), new=True, missing=unsettled)
        if _top(progress) > high:  # as when a tool resets offsets and counts records of open transactions
            high = source.written_end(partition, self._options.call_secs)
        if _top(progress) > high and committed.leader_epoch != NO_EPOCH and partition not in self.truncated:
            # To begin is the only way to ask from where on it was discarded: brokers tell it of the committed offset,
            # and what is behind that has later epochs. The partition is looked up again then.
            return replace(found, progress=progress, leader_epoch=committed.leader_epoch)
        found.missing, detail = self._missing(partition, progress, low, high)
        begins = progress
        cut = self.truncated.get(partition)
        if cut is not None and cut < _top(progress):
            found.missing, detail = 1, self._cut_off(partition, progress, cut)
            begins = _below(progress, cut)
        if found.missing and self._options.on_missing == "hold" and not choice.pass_missing:
            return replace(found, hold=("records_missing", detail))
        left = _within(begins, low, high)
        # What was in doubt and no longer exists is settled: there is nothing left to write to a dead letter.
        found.vanished = progress.in_flight.count - left.in_flight.count
        if self._options.in_doubt == "hold" and choice.in_doubt is None and (count := self._in_doubt(found, left)):
            return replace(found, hold=hold_for_doubt(count))
        found.progress = left
        if begins is progress and progress.base <= high:
            found.leader_epoch = committed.leader_epoch
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
        """Return what was found about a partition without a commit; `begins` if the operator decided that it is new."""
        partition = found.partition
        # The commits of a topic are deleted with it, and the first owner of its successor commits before anything is
        # sent.
        replaced = self._identities.was_replaced(partition.topic, found.topic)
        progress = self._first_progress(source, partition, low, high, all_is_new=replaced)
        known = begins or replaced
        if not known and (detail := self._forgotten(partition, progress.base, low, high, outcomes)):
            return replace(found, hold=("progress_missing", detail))
        return replace(found, progress=progress, new=True)

    def _missing(self, partition: Partition, progress: Progress, low: int, high: int) -> tuple[int, str]:
        """Return how many unread records are gone (1 if unknown), and the detail of a hold."""
        base, top = progress.base, _top(progress)
        unread = max(low - base, 0) - _count_below(progress.settled, low) - _count_below(progress.in_flight, low)
        go_on = "the oldest available record"
        if base > high:
            unread, go_on = 1, f"{go_on}, which posts all of them, even those that were posted before"
            why = (
                f"offset {base} is beyond the end {high}: the topic was recreated, or an unclean leader election has "
                "truncated it, and then only what was written since is new; to continue with that, at the offset from "
                f"which its leader says in the broker's log that it starts, {self._reset(partition, '--to-offset N')}"
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

    def _cut_off(self, partition: Partition, progress: Progress, cut: int) -> str:
        """Return the detail of a hold whose partition does not have what was read, and may have as many records."""
        if cut == 0:
            copied = self._reset(partition, f"--to-offset {progress.base}")
            return (
                f"nothing of what was read up to offset {_top(progress) - 1} is there: the topic was recreated; to "
                "continue with the oldest available record, which posts all of them: resume, or on_missing: continue; "
                f"if they are copies of those that were read: {copied}"
            )
        return (
            f"what was read from offset {cut} up to {_top(progress) - 1} was discarded by an unclean leader election, "
            "and what has these offsets now is new; to continue with that: resume, or on_missing: continue"
        )

    def _forgotten(self, partition: Partition, base: int, low: int, high: int, outcomes: _Outcomes) -> str:
        """Return why starting at `base` would be wrong, according to outcomes of the stream; empty if it is fine.

        A `start` time later than the last outcome was set on purpose, to skip older records; `latest` may be an old
        setting.
        """
        passes_over = self._options.start == "latest" and base == high
        if low >= high or (base >= high and not passes_over):  # nothing can be posted again or skipped
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
        """Return how many records this worker had read and not settled; None if this is not its own last commit."""
        with self._state.lock:
            remembered = self._state.flow.remembered
            return remembered.unsettled(partition) if remembered.is_ours(partition, progress) else None

    def _reset(self, partition: Partition, where: str) -> str:
        """Return the command with which an operator sets the group's offset of a partition."""
        return (
            "stop the connector, wait kafka.session_timeout_secs, then kafka-consumer-groups.sh "
            f"--group {self._options.group} --reset-offsets {where} --execute --topic {partition}"
        )

    def _first_progress(
        self, source: Source, partition: Partition, low: int, high: int, *, all_is_new: bool
    ) -> Progress:
        """Return where a partition without a commit starts: as set if the group is new, otherwise at its beginning."""
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
            return Progress(low, birth)  # added to the topic after the group's birth: none of it is old
        start = self._options.start
        if all_is_new or start == "earliest" or partition.topic in self._options.from_beginning:
            return Progress(low, birth)
        if start == "latest":
            return Progress(high, birth)
        return Progress(source.offset_at(partition, int(start.timestamp() * 1000), timeout), birth)


def _count_below(ranges: RangeSet, limit: int) -> int:
    return sum(max(min(stop, limit) - start, 0) for start, stop in ranges)


def _top(progress: Progress) -> int:
    """Return the offset after everything that was read."""
    return max(progress.base, progress.settled.stop, progress.in_flight.stop)


def _below(progress: Progress, end: int) -> Progress:
    """Return the progress of the offsets below `end`; at the others there are different records now."""
    settled, in_flight = progress.settled.copy(), progress.in_flight.copy()
    for ranges in (settled, in_flight):
        ranges.discard(end, max(ranges.stop, end))
    return Progress(min(progress.base, end), progress.birth, 0, settled, in_flight)


def _within(progress: Progress, low: int, high: int) -> Progress:
    """Return the progress without offsets that no longer exist.

    Otherwise new records at these offsets would be taken for the ones that were read, and be skipped.
    """
    if progress.base > high:
        return Progress(low, progress.birth)
    if progress.base >= low and _top(progress) <= high:
        return progress
    left = _below(progress, high)
    left.in_flight.discard(0, low)
    return replace(left, base=left.settled.advance(max(left.base, low)))


def _of_the_next(progress: Progress, sure: int, low: int, high: int) -> Progress:
    """Return the progress for a topic that replaced another; everything read below `sure` was of the old one.

    What was posted from there on may have been of either, so it is in doubt.
    """
    doubt = progress.settled.copy()
    doubt.update(progress.in_flight)
    doubt.add(sure, progress.base)
    doubt.discard(0, max(sure, low))
    doubt.discard(high, max(doubt.stop, high))
    return Progress(low, progress.birth, in_flight=doubt)
