"""Carries out a plan: records and the redrive's progress, in one transaction after another.

A redrive has a name. Its progress is stored in a consumer group of that name, so that one that was killed continues
where it was. Its producers have transactional ids of that name, so that of two redrives with one name the later one
stops the earlier. Partitions are distributed over a fixed number of lanes, each with its own producer: since that
number never changes, each lane of the later one fences the same lane of the earlier one.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from threading import Event, Lock
from typing import Final, assert_never

from connector.clock import now_ms
from connector.config.kafka import KafkaSettings
from connector.core.chunks import Chunk, Partition
from connector.core.records import evidence_outcome
from connector.deadletters.deciding import Action, Actions, Rules
from connector.deadletters.headers import fits, parked_headers, redriven_headers
from connector.deadletters.letters import Letter, letters_of
from connector.deadletters.progressing import Place, place_at, read_place
from connector.deadletters.working import ALONE, CLIENT_ID, Spans, Told, elsewhere, is_stopped, processors, tell
from connector.kafka import configs
from connector.kafka.commits import Membership
from connector.kafka.configs import MAX_BATCH_BYTES
from connector.kafka.errors import AbortableError, FatalError, RetriableError
from connector.kafka.publisher import Offsets, Publisher, TransactionalPublisher
from connector.kafka.scanning import Scanner, config_of
from connector.kafka.topics import TopicFacts

LANES: Final = 4
"""Producers of a redrive. Must not change while redrives of an older version may run: they would not be fenced."""

MAX_RECORDS, MAX_BYTES = 10_000, 16_000_000
"""Per transaction: at most a second of work, far below the transaction timeout."""

OPEN: Final = 0.25
"""Share of the transaction timeout after which it is committed: selected records may be far apart."""

PACE_SECS: Final = 0.1
"""With a rate, a transaction holds what may be written in this time."""

OVERTAKEN_SECS: Final = 5.0
"""Within this time, a redrive that has taken over the name has committed something."""

AGAIN_SECS: Final = 0.2
"""Pause before a query to Kafka is repeated."""

REDRIVE_PREFIX: Final = "trackly-connector.redrive."


def group_of(name: str) -> str:
    """Return the consumer group with the progress of a redrive."""
    return f"{REDRIVE_PREFIX}{name}"


@dataclass(frozen=True)
class Order:
    """A redrive to be carried out. Can be pickled."""

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
    """Records that were left because their topic accepts none of that size."""

    @property
    def total(self) -> int:
        """All records."""
        return self.by_action.total()

    def add(self, other: "Written") -> None:
        """Add what another lane has written."""
        self.by_action.update(other.by_action)
        self.too_large += other.too_large


class Pace:
    """Keeps to a rate, over everything that is written since the first record."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._started: float | None = None
        self._written = 0

    @property
    def quota(self) -> int:
        """How many records the next transaction may hold."""
        return MAX_RECORDS if self._rate is None else max(1, min(int(self._rate * PACE_SECS), MAX_RECORDS))

    def begin(self) -> None:
        """Start the clock, unless it is running."""
        if self._started is None:
            self._started = time.monotonic()

    def wait(self, written: int) -> None:
        """Count what was committed, and wait until the next transaction may start."""
        if self._rate is None or self._started is None:
            return
        self._written += written
        time.sleep(max(self._started + self._written / self._rate - time.monotonic(), 0.0))


def carry_out(order: Order, told: Told) -> Written:
    """Carry out an order. Raises `KafkaTroubleError`, fenced if another redrive has taken over the name."""
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
    """Run lanes in parallel, or one after another if they share a limit or a rate."""
    pace, written, lock, stop = Pace(order.rate), Written(), Lock(), Event()

    def tell_one_at_a_time(count: int) -> None:
        with lock:
            told(count)

    with ExitStack() as stack, ThreadPoolExecutor(LANES) as threads:
        lanes = [stack.enter_context(closing(_Lane(order, lane, pace, tell_one_at_a_time, stop))) for lane in numbers]
        list(threads.map(_Lane.start, lanes))  # each waits for a coordinator; all are taken over before any writes
        if order.rate is None and order.limit is None:
            try:
                list(threads.map(_Lane.copy, lanes))  # while one waits for its commit, another prepares records
            except BaseException:
                stop.set()  # Ctrl-C, which threads do not get, or one of them failed
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
    """The partitions of one lane, and its producer."""

    def __init__(self, order: Order, lane: int, pace: Pace, told: Told, stop: Event) -> None:
        self._order = order
        self._pace = pace
        self._told = told
        self._stop = stop
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
        """Take over the lane from an earlier run, and read its progress."""
        self._publisher.start(self._order.kafka.request_timeout_secs)
        for partition, there in self._scanner.committed(self._spans).items():
            self._places[partition] = read_place(there.offset, there.metadata)

    def close(self) -> None:
        """Discard what is not committed, and close."""
        self._publisher.close()
        self._scanner.close()

    def copy(self, limit: int | None = None) -> None:
        """Write what is planned for the lane's partitions, at most `limit` records, until stopped."""
        if limit is not None and limit <= 0:
            return
        wanted = {p: self._wanted(p) for p in self._spans}
        reach = {p: (min(offsets), max(offsets) + 1) for p, offsets in wanted.items() if offsets}
        for chunks in self._scanner.steps(reach):
            for chunk in chunks:
                offsets = wanted[chunk.partition]
                picked = chunk.pick([i for i, offset in enumerate(chunk.offsets) if offset in offsets])
                if not self._write(picked, limit):
                    return
                self._at[chunk.partition] = chunk.offsets[-1] + 1
                if self._bytes >= MAX_BYTES:
                    self._commit()
            if self._stop.is_set() or is_stopped():
                if self._begun_at is not None:
                    self._publisher.abort(self._order.kafka.request_timeout_secs)
                return
            # Selected records may be rare: commit in time, however few there are.
            longest = self._order.kafka.transaction_timeout_secs * OPEN
            if self._begun_at is not None and time.monotonic() - self._begun_at > longest:
                self._commit()
        self._at.update({p: stop for p, (_, stop) in self._spans.items()})
        self._commit()

    def _wanted(self, partition: Partition) -> set[int]:
        """Return the planned offsets that were not dealt with meanwhile."""
        base, settled = self._places[partition].done
        actions = self._order.actions.get(partition, Actions())
        return {offset for offset in actions.by_offset if offset >= base and offset not in settled}

    def _write(self, chunk: Chunk, limit: int | None) -> bool:
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
            full = limit is not None and self.written.total + self._open.total() >= limit
            if full or self._open.total() >= self._pace.quota:
                self._commit()
            if full:
                return False
        return True

    def _put(self, letter: Letter, action: Action) -> bool:
        """Write what is planned for a dead letter; return False if it is too large for its topic."""
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
        # A transaction with a record that its topic rejects is aborted, on every retry as well. The parking topic, and
        # the limits of a topic that was just created, were not known when this was planned.
        if not fits(letter, value, headers, there.max_message_bytes):
            return False
        self._bytes += len(value or b"") + len(letter.key or b"") + 300
        number = partition % there.partitions
        self._publisher.write(topic, number, key=letter.key, value=value, headers=headers)
        return True

    def _commit(self) -> None:
        """Commit what was written, with the progress of each partition."""
        order = self._order
        offsets: Offsets = {}
        places = {}
        for partition, at in self._at.items():
            before = self._places[partition]
            leave = order.actions.get(partition, Actions()).leave.copy()
            leave.discard(at, leave.stop)
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
            # A broker that is ending a transaction while a later run takes over may answer with an unknown error.
            error.fenced = error.fenced or self._is_overtaken(places)
            raise
        self._places.update(places)
        count = self._open.total()
        self.written.by_action.update(self._open)
        self._begun_at, self._open, self._bytes = None, Counter(), 0
        self._told(count)
        self._pace.wait(count)

    def _is_overtaken(self, tried: Mapping[Partition, Place]) -> bool:
        """Return whether someone has committed progress that this lane neither had nor tried to commit."""
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
    """Commit, repeated after a timeout unless stopped: an abort could undo what has committed."""
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
