"""Carries a plan out: records and the redrive's own progress in one transaction after another.

A redrive has a name. Its progress stands in a consumer group of that name, so that one that was killed goes on where
it was; its producers have transactional ids of that name, so that of two under one name the later one stops the
earlier. Partitions are dealt out over a fixed number of lanes, each with a producer of its own: with the same number
always, each lane of a newcomer fences the same lane of whoever was there.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from threading import Event, Lock
from typing import Final, assert_never

from connector.clock import now_ms
from connector.config.kafka import KafkaSettings
from connector.core.chunks import Chunk, Partition
from connector.core.progress import RangeSet
from connector.core.records import evidence_outcome
from connector.deadletters.deciding import Action, Actions, Rules
from connector.deadletters.headers import fits, parked_headers, redriven_headers
from connector.deadletters.letters import Letter, letters_of
from connector.deadletters.progressing import Place, place_at, read_place
from connector.deadletters.working import ALONE, CLIENT_ID, Spans, Told, elsewhere, is_stopped, processors, tell
from connector.kafka import configs
from connector.kafka.configs import MAX_BATCH_BYTES
from connector.kafka.errors import AbortableError, FatalError, RetriableError
from connector.kafka.publisher import Offsets, Publisher, TransactionalPublisher
from connector.kafka.scanning import Scanner, config_of
from connector.kafka.source import Membership
from connector.kafka.topics import TopicFacts

LANES: Final = 4
"""Producers of a redrive. Never changed while redrives of an older version may run: they would not be fenced."""

MAX_RECORDS, MAX_BYTES = 10_000, 16_000_000
"""Of one transaction: a second of work at most, far below the time that a transaction may take."""

OPEN: Final = 0.25
"""Of the time that a transaction may take, after which it is committed: the records wanted may lie far apart."""

PACE_SECS: Final = 0.1
"""With a rate, a transaction holds what may be written in so much time."""

OVERTAKEN_SECS: Final = 5.0
"""In so much time whoever has taken a name over has committed something, or nobody has."""

AGAIN_SECS: Final = 0.2
"""Pause before Kafka is asked once more for what it did not answer."""

TOPIC_PREFIX: Final = "trackly-connector.redrive."


def group_of(name: str) -> str:
    """Return the consumer group that holds the progress of a redrive."""
    return f"{TOPIC_PREFIX}{name}"


@dataclass(frozen=True)
class Order:
    """A redrive to be carried out. Can be sent to another process."""

    kafka: KafkaSettings
    name: str
    selection: str
    rules: Rules
    spans: Spans
    actions: Mapping[Partition, Actions]
    targets: Mapping[str, TopicFacts]
    """Every topic that is written to."""
    note: str = ""
    rate: float | None = None
    limit: int | None = None


@dataclass(slots=True)
class Written:
    """What was written and committed."""

    by_action: Counter[Action] = field(default_factory=Counter)
    too_large: int = 0
    """Those that were left, as their topic takes no record of that size."""

    @property
    def total(self) -> int:
        """Records in all."""
        return self.by_action.total()

    def add(self, other: "Written") -> None:
        """Take in what another lane has written."""
        self.by_action.update(other.by_action)
        self.too_large += other.too_large


class Pace:
    """Keeps to a rate, over all that is written from the first record on."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._started: float | None = None
        self._written = 0

    @property
    def quota(self) -> int:
        """Records that the next transaction may hold."""
        return MAX_RECORDS if self._rate is None else max(1, min(int(self._rate * PACE_SECS), MAX_RECORDS))

    def begin(self) -> None:
        """Count the time from now on, unless it is counted already."""
        if self._started is None:
            self._started = time.monotonic()

    def wait(self, written: int) -> None:
        """Count what was committed, and wait until the next may be."""
        if self._rate is None or self._started is None:
            return
        self._written += written
        time.sleep(max(self._started + self._written / self._rate - time.monotonic(), 0.0))


def carry_out(order: Order, told: Told) -> Written:
    """Write what the plan says. Raises `KafkaTroubleError`, fenced where another redrive has taken the name over."""
    processes = min(LANES, processors())
    count = sum(len(actions.by_offset) for actions in order.actions.values())
    if processes == 1 or count <= ALONE or order.rate is not None or order.limit is not None:
        return _run(order, range(LANES), told)
    written = Written()
    tasks = [partial(_run, order, range(first, LANES, processes), tell) for first in range(processes)]
    for part in elsewhere(order.kafka, tasks, told):
        written.add(part)
    return written


def _run(order: Order, numbers: Sequence[int], told: Told) -> Written:
    """Run lanes side by side, or under a limit or a rate over all of them one after another."""
    pace, written, lock, stop = Pace(order.rate), Written(), Lock(), Event()

    def tell_one_at_a_time(count: int) -> None:
        with lock:
            told(count)

    with ExitStack() as stack, ThreadPoolExecutor(LANES) as threads:
        lanes = [stack.enter_context(closing(_Lane(order, lane, pace, tell_one_at_a_time, stop))) for lane in numbers]
        list(threads.map(_Lane.start, lanes))  # each waits for a coordinator; all are taken over before any writes
        if order.rate is None and order.limit is None:
            try:
                list(threads.map(_Lane.copy, lanes))  # while one waits for its commit another makes records ready
            except BaseException:
                stop.set()  # Ctrl-C, which threads do not hear of, or one of them has failed
                raise
        else:
            left = order.limit
            for lane in lanes:
                lane.copy(left)
                left = None if left is None else left - lane.written.total
        for lane in lanes:
            written.add(lane.written)
    return written


class _Lane:
    """The partitions of one lane, and the producer that may write about them."""

    def __init__(self, order: Order, lane: int, pace: Pace, told: Told, stop: Event) -> None:
        self._order = order
        self._pace = pace
        self._told = told
        self._stop = stop
        self._limit: int | None = None
        self._spans = {p: span for p, span in order.spans.items() if p.number % LANES == lane}
        group = group_of(order.name)
        client_id = f"{CLIENT_ID}-{order.name}-{lane}"
        self._scanner = Scanner(
            config_of(order.kafka, client_id=client_id, group=group), order.kafka.request_timeout_secs
        )
        self._publisher: Publisher = TransactionalPublisher(
            configs.producer(
                order.kafka,
                client_id=client_id,
                transactional_id=f"{group}.{lane}",
                batch_bytes=min((there.batch_bytes for there in order.targets.values()), default=MAX_BATCH_BYTES),
            ),
            next(iter(order.targets), None),
        )
        self._places: defaultdict[Partition, Place] = defaultdict(Place)
        self._at: dict[Partition, int] = {}
        self._open: Counter[Action] = Counter()
        self._bytes = 0
        self._begun_at: float | None = None
        """Since when a transaction is open."""
        self.written = Written()

    def start(self) -> None:
        """Take the lane over from whoever had it, and read how far it came."""
        self._publisher.start(self._order.kafka.request_timeout_secs)
        for partition, there in self._scanner.committed(self._spans).items():
            self._places[partition] = read_place(there.offset, there.metadata)

    def close(self) -> None:
        """Throw away what is not committed, and let go."""
        self._publisher.close()
        self._scanner.close()

    def copy(self, limit: int | None = None) -> None:
        """Write what is to be written in the lane's partitions, `limit` records at most, until it is stopped."""
        self._limit = limit
        if limit is not None and limit <= 0:
            return
        wanted = {p: self._wanted(p) for p in self._spans}
        reach = {p: (min(offsets), max(offsets) + 1) for p, offsets in wanted.items() if offsets}
        for chunks in self._scanner.steps(reach):
            for chunk in chunks:
                offsets = wanted[chunk.partition]
                picked = chunk.pick([i for i, offset in enumerate(chunk.offsets) if offset in offsets])
                if not self._write(picked):
                    return
                self._at[chunk.partition] = chunk.offsets[-1] + 1
                if self._bytes >= MAX_BYTES:
                    self._commit()
            if self._stop.is_set() or is_stopped():
                if self._begun_at is not None:
                    self._publisher.abort(self._order.kafka.request_timeout_secs)
                return
            # Few may be wanted of very many: it is committed in time however little it holds.
            longest = self._order.kafka.transaction_timeout_secs * OPEN
            if self._begun_at is not None and time.monotonic() - self._begun_at > longest:
                self._commit()
        self._at.update({p: stop for p, (_, stop) in self._spans.items()})
        self._commit()

    def _wanted(self, partition: Partition) -> set[int]:
        """Return the offsets to write about that nobody has dealt with meanwhile."""
        base, settled = self._places[partition].done
        actions = self._order.actions.get(partition, Actions())
        return {offset for offset in actions.by_offset if offset >= base and offset not in settled}

    def _write(self, chunk: Chunk) -> bool:
        """Write the records of a chunk; return False once the limit is reached."""
        actions = self._order.actions[chunk.partition] if len(chunk) else Actions()
        for letter in letters_of(chunk):
            if self._begun_at is None:
                self._pace.begin()
                self._publisher.begin()
                self._begun_at = time.monotonic()
            action = actions.by_offset[letter.offset]
            self._at[chunk.partition] = letter.offset + 1
            if not self._put(letter, action):
                self.written.too_large += 1
                actions.leave.add(letter.offset, letter.offset + 1)
                continue
            self._open[action] += 1
            full = self._limit is not None and self.written.total + self._open.total() >= self._limit
            if full or self._open.total() >= self._pace.quota:
                self._commit()
            if full:
                return False
        return True

    def _put(self, letter: Letter, action: Action) -> bool:
        """Write what is to be written about a dead letter; return False for what is too large for its topic."""
        rules, order = self._order.rules, self._order
        partition = letter.origin[0].number
        match action:
            case "park":
                topic = rules.parking(letter.partition.topic)
                value, headers = letter.value, parked_headers(letter, order.note, now_ms=now_ms())
                partition = letter.partition.number
            case "accept":
                stream = rules.streams[letter.stream or ""]
                topic = stream.outcomes.topic
                told = evidence_outcome(
                    stream.name,
                    stream.operation,
                    letter.source or letter.origin,
                    letter.origin,
                    letter.redrives,
                    now_ms=now_ms(),
                )
                value, headers = told.encode(), []
            case "redrive":
                named = rules.target(letter)
                assert named is not None
                topic, value, headers = named, rules.value(letter), redriven_headers(letter)
            case _:
                assert_never(action)
        there = order.targets[topic]
        # A transaction with a record that its topic refuses is aborted, at each next try as well. Where records go that
        # are parked, and how much a topic takes that was made just now, was not known when all this was planned.
        if not fits(letter, value, headers, there.max_message_bytes):
            return False
        self._bytes += len(value or b"") + len(letter.key or b"") + 300
        number = partition % there.partitions
        self._publisher.write(topic, number, key=letter.key, value=value, headers=headers)
        return True

    def _commit(self) -> None:
        """Commit what was written, with how far each partition has come."""
        order = self._order
        offsets: Offsets = {}
        places = {}
        for partition, at in self._at.items():
            before = self._places[partition]
            leave = RangeSet(_below(order.actions.get(partition, Actions()).leave, at))
            offset, metadata = place_at(before, max(at, before.base), leave, order.selection)
            places[partition] = read_place(offset, metadata)
            if places[partition] != before:
                offsets[partition] = (offset, metadata)
        self._at = {}
        if self._begun_at is None:
            if not offsets:
                return
            self._publisher.begin()
        try:
            commit(self._publisher, offsets, self._scanner.membership(), order.kafka.request_timeout_secs, self._stop)
        except (FatalError, AbortableError) as error:
            # A broker that is asked to end a transaction while a newcomer takes it over may answer that it does not
            # know what went wrong.
            error.fenced = error.fenced or self._is_overtaken(places)
            raise
        self._places.update(places)
        count = self._open.total()
        self.written.by_action.update(self._open)
        self._begun_at, self._open, self._bytes = None, Counter(), 0
        self._told(count)
        self._pace.wait(count)

    def _is_overtaken(self, tried: Mapping[Partition, Place]) -> bool:
        """Tell whether somebody has come to a place where this lane neither was nor tried to be."""
        deadline = time.monotonic() + OVERTAKEN_SECS
        while True:
            for partition, there in self._scanner.committed(self._spans).items():
                was = self._places[partition]
                if read_place(there.offset, there.metadata) not in (was, tried.get(partition, was)):
                    return True
            if time.monotonic() > deadline:
                return False
            time.sleep(AGAIN_SECS)


def commit(publisher: Publisher, offsets: Offsets, group: Membership, timeout_secs: float, stop: Event) -> None:
    """Commit, again where no answer came in time, unless told to stop: to abort could undo what has committed."""
    deadline = time.monotonic() + 3 * timeout_secs
    while True:
        try:
            publisher.commit(offsets, group, timeout_secs)
        except RetriableError:
            if stop.wait(AGAIN_SECS) or time.monotonic() > deadline:
                raise
            offsets = {}
        else:
            return


def _below(ranges: RangeSet, at: int) -> Iterator[tuple[int, int]]:
    return ((start, min(stop, at)) for start, stop in ranges if start < at)
