"""Laws of the flow: workers read, tick, post, lose partitions and crash in any order; ledgers judge the result.

The model keeps three ledgers. The broker's: what is committed with which progress, and every result that a committed
tick wrote. The platform's: which records were posted, and which posts are known not to have been accepted. The topic's:
which offsets exist. Whatever happens in whatever order, a post was listed before it was made, nothing is posted again
that may have been accepted, and in the end each record has one result.

With ordering by key, every earlier record of a key is settled before a post, so that no two of a key are ever posted at
once, and the platform gets them in order, if it accepts them at all.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from connector.core.admission import Admission
from connector.core.batching import Batch, Batcher, BatchLimits
from connector.core.chunks import Chunk, Partition
from connector.core.flow import Flow, FlowLimits, Tick
from connector.core.ordering import KeyQueues, LaneChunk
from connector.core.pacing import Pace, Pacer
from connector.core.progress import decode
from connector.core.remembered import Remembered
from connector.core.results import Finished
from connector.core.verdicts import QUEUED, SKIPPED, Verdict, Verdicts
from tests.core.making import A, B, C, Position, positions, weighted

ENVELOPE = 10
PARTITIONS = (A, B, C)
DRAIN_TURNS_PER_RECORD = 4
"""A tick that lists it, one that settles it, and as many again for what is cut: anything slower is stuck."""

DOUBT = Verdict("dead_letter", "in_doubt")
REFUSED = Verdict("dead_letter", "invalid_phone")
MALFORMED = Verdict("dead_letter", "not_json")
EXPIRED = Verdict("dead_letter", "expired")

Answer = Literal["taken", "not_taken", "halved", "judged", "lost", "silent", "too_late"]


@dataclass
class Topic:
    """A partition's log: kinds of records by offset (`l`, `r`: lanes; `x`: malformed; `0`: null), without the holes.

    Keys are `a`, `b` and so on; `-` is none.
    """

    kinds: dict[int, str] = field(default_factory=dict)
    keys: dict[int, str] = field(default_factory=dict)
    times: dict[int, int] = field(default_factory=dict)
    end: int = 0


@dataclass
class Worker:
    """What is lost in a crash."""

    flow: Flow
    batcher: Batcher
    admission: Admission
    epochs: dict[Partition, int] = field(default_factory=dict)
    read_to: dict[Partition, int] = field(default_factory=dict)
    running: Tick | None = None
    fate: bool | None = None
    """The result of the running tick, if the broker knows it before the worker does."""
    listed: dict[int, Batch] = field(default_factory=dict)
    posted: dict[int, Batch] = field(default_factory=dict)
    began: dict[int, float] = field(default_factory=dict)
    quarantine: list[Finished] = field(default_factory=list)
    knows: dict[Partition, int] = field(default_factory=dict)
    """The topics that it has read partitions of, by their first assignment."""
    told: set[Position] = field(default_factory=set)
    """Records whose answer it knows."""


def is_ticking(worker: Worker) -> bool:
    """Return whether a tick of a worker is running."""
    return worker.running is not None


numbers = st.integers(0, 1_000)
"""Drawn before anything changes, and taken modulo what there is to choose from."""


def numbers_in_request(chunks: Iterable[Chunk]) -> list[int]:
    """Return the indices in the request that results contain."""
    numbers: list[int] = []
    for chunk in chunks:
        numbers += range(len(numbers), len(numbers) + len(chunk)) if chunk.indices is None else chunk.indices
    return numbers


class DeliveryMachine(RuleBasedStateMachine):
    """Two workers of one group, three partitions, one platform."""

    by_key: ClassVar[bool] = False

    @initialize(
        max_in_flight=st.sampled_from([1, 6, 1_000]),
        max_tick=st.sampled_from([1, 8, 1_000]),
        max_metadata=st.sampled_from([16, 24, 40, 100, 4_000]),
        batch_records=st.sampled_from([1, 3, 10]),
        in_doubt=st.sampled_from(["dead_letter", "resend", "hold"]),
        spread=st.booleans(),
        per_minute=st.sampled_from([None, 60, 3_000]),
        kinds=weighted("llllrrx0", max_size=12),
    )
    def begin(  # noqa: PLR0917 (drawn by name)
        self,
        max_in_flight: int,
        max_tick: int,
        max_metadata: int,
        batch_records: int,
        in_doubt: Literal["dead_letter", "resend", "hold"],
        spread: bool,
        per_minute: int | None,
        kinds: str,
    ) -> None:
        self.limits = FlowLimits(max_in_flight, max_tick, 600 * max_tick, max_metadata)
        self.batch_limits = BatchLimits(batch_records, 200, 1.0, ENVELOPE)
        self.in_doubt = in_doubt
        self.pace = Pace(per_minute) if self.by_key else Pace(None)
        self.now = 0.0
        self.epoch = self.made = self.clock_ms = 0
        self.topics = {partition: Topic() for partition in PARTITIONS}
        self.committed: dict[Partition, tuple[int, str]] = dict.fromkeys(PARTITIONS, (0, ""))
        self.results: defaultdict[Position, list[Verdict]] = defaultdict(list)
        self.perhaps_taken: Counter[Position] = Counter()
        self.taken: set[Position] = set()
        self.resent: Counter[Position] = Counter()
        self.requests: dict[str, list[Position]] = {}
        """What was posted last under each batch id, record by record."""
        self.recreated: Counter[Partition] = Counter()
        """The first assignment under which a partition is read of the topic that there is."""
        self.given_up: set[Position] = set()
        """Records in doubt that nobody posts again: their dead letters may be written at any time."""
        self.owner: dict[Partition, Worker] = {}
        self.workers = [self.new_worker(), self.new_worker()]
        for number, partition in enumerate(PARTITIONS):
            self.take_over(self.workers[number % 2 if spread else 0], partition)
            self.produce(number, kinds, "aab-aabcaab-", 0)

    def one_that(self, may: Callable[[Worker], object], who: int) -> Worker:
        """Return a worker that may do something; that there is one is a precondition."""
        able = [worker for worker in self.workers if may(worker)]
        return able[who % len(able)]

    def new_worker(self) -> Worker:
        self.made += 1
        batcher = Batcher(self.batch_limits, f"w{self.made}")
        key_queues = KeyQueues() if self.by_key else None
        pacer = Pacer(self.pace, max_lot=self.batch_limits.max_records) if self.by_key else None
        flow = Flow(self.limits)
        flow.remembered = Remembered(1_000_000)  # that of too many some are forgotten is a fact of its own
        return Worker(flow, batcher, Admission(batcher, key_queues=key_queues, pacer=pacer))

    # ------------------------------------------------------------------ records come

    @rule(
        at=numbers,
        kinds=weighted("llllrrx0", min_size=1, max_size=12),
        keys=weighted("aaabc-", min_size=12, max_size=12),
        hole=st.sampled_from([0, 0, 0, 1, 5]),
    )
    def produce(self, at: int, kinds: str, keys: str, hole: int) -> None:
        topic = self.topics[PARTITIONS[at % 3]]
        topic.end += hole
        for kind, key in zip(kinds, keys, strict=False):
            topic.kinds[topic.end] = kind
            topic.keys[topic.end] = key
            self.clock_ms += 1
            topic.times[topic.end] = self.clock_ms
            topic.end += 1

    @rule(at=numbers, count=st.integers(1, 3))
    def produce_what_cannot_be_read(self, at: int, count: int) -> None:
        """Add what takes offsets and is no record: a transaction's marker, or what was aborted."""
        self.topics[PARTITIONS[at % 3]].end += count

    @rule(at=numbers, gone=st.sets(st.integers(0, 60), max_size=8))
    def compact(self, at: int, gone: set[int]) -> None:
        """Remove records from the topic that have their result, or were never read by the present workers."""
        partition = PARTITIONS[at % 3]
        topic = self.topics[partition]
        read_to = max((worker.read_to.get(partition, 0) for worker in self.workers), default=0)
        for offset in gone:
            settled = bool(self.results[partition, offset])
            if offset in topic.kinds and (settled or offset >= read_to):
                del topic.kinds[offset]

    @rule(
        who=numbers,
        at=numbers,
        count=st.integers(1, 15),
        back=st.sampled_from([0, 0, 0, 4]),
        stale=st.booleans(),
        guarded=st.booleans(),
    )
    def read(self, who: int, at: int, count: int, *, back: int, stale: bool, guarded: bool) -> None:
        worker = self.workers[who % 2]
        mine = sorted(worker.epochs)
        if mine:
            partition = mine[at % len(mine)]
            if stale and worker.epochs[partition] > 1:
                self.take(worker, partition, count, epoch=worker.epochs[partition] - 1)
            else:
                worker.read_to[partition] = max(worker.read_to[partition] - back, 0)
                self.take(worker, partition, count, epoch=worker.epochs[partition], guarded=guarded)

    @rule(at=numbers)
    def reach(self, at: int) -> None:
        """Have the owner told how far it has come where no record is left to be read."""
        partition = PARTITIONS[at % 3]
        if partition in self.owner:
            self.pass_over(self.owner[partition], partition)

    def pass_over(self, worker: Worker, partition: Partition) -> None:
        topic, at = self.topics[partition], worker.read_to[partition]
        reached = min((offset for offset in topic.kinds if offset >= at), default=max(topic.end, at))
        state = worker.flow.partitions[partition]
        doubted, begins = state.doubt.count, max(state.base, state.next_read)
        vanished, passed_over = worker.flow.pass_over(partition, reached)
        assert vanished == doubted - state.doubt.count
        assert passed_over in {0, reached - begins}
        worker.read_to[partition] = reached

    def take(self, worker: Worker, partition: Partition, count: int, *, epoch: int, guarded: bool = False) -> None:
        topic, start = self.topics[partition], worker.read_to[partition]
        offsets = sorted(offset for offset in topic.kinds if offset >= start)[:count]
        if not offsets:
            return
        values: list[bytes | None] = [
            None if topic.kinds[o] == "0" else f"{partition.topic}@{o}".encode() for o in offsets
        ]
        keys = [None if topic.keys[o] == "-" else topic.keys[o].encode() for o in offsets]
        chunk = Chunk(
            partition,
            epoch,
            offsets,
            values,
            keys=None if keys.count(None) == len(keys) else keys,
            oldest_ms=topic.times[offsets[0]],
        )
        intake = worker.flow.intake(chunk)
        if epoch != worker.epochs[partition]:
            assert not intake.fresh
            assert not intake.doubtful
            return
        worker.read_to[partition] = offsets[-1] + 1
        for item in intake.answered:
            self.settle(worker, item, guarded=guarded)
        assert worker.told.isdisjoint(positions(intake.doubtful)), "it doubts what it was told"
        pieces = intake.fresh
        if self.resends(partition):  # first, as the reader has it: of its key, what was in flight is the earliest
            pieces = (*intake.doubtful, *intake.fresh)
            for doubtful in intake.doubtful:
                doubtful.resent = True
                self.resent.update(positions([doubtful]))
        elif intake.doubtful:
            self.given_up.update(positions(intake.doubtful))
            worker.flow.settle(Finished(intake.doubtful, Verdicts(DOUBT)))
        for piece in pieces:
            self.prepare(worker, piece, guarded=guarded)

    def resends(self, partition: Partition) -> bool:
        """Tell whether records in doubt are posted again; the operator decides about each assignment of its own."""
        if self.in_doubt == "hold":
            return self.owner[partition].epochs[partition] % 2 == 0
        return self.in_doubt == "resend"

    def settle(self, worker: Worker, item: Finished, *, guarded: bool) -> None:
        """Queue results of records that were not posted under this assignment."""
        queued = worker.flow.settle(item)
        if queued is not None and guarded:
            self.keep_back(worker, queued)

    def keep_back(self, worker: Worker, item: Finished) -> None:
        """Have the storm guard keep dead letters of an item from being written."""
        for reason in (REFUSED.reason, MALFORMED.reason):
            if item.reasons()[reason]:
                apart, rest = worker.flow.set_aside(item, reason)
                assert apart is not None
                worker.told.difference_update(positions(apart.chunks))  # written nowhere, read again
                worker.quarantine.append(apart)
                if rest is None:
                    return
                item = rest

    def prepare(self, worker: Worker, piece: Chunk, *, guarded: bool = False) -> None:
        """Do what an operation does: settle what cannot be posted, send the rest to its lane."""
        kinds = [self.topics[piece.partition].kinds[offset] for offset in piece.offsets]
        wrong = [index for index, kind in enumerate(kinds) if kind in "x0"]
        if wrong:
            exceptions = {at: SKIPPED if kinds[index] == "0" else MALFORMED for at, index in enumerate(wrong)}
            self.settle(worker, Finished((piece.pick(wrong),), Verdicts(QUEUED, exceptions)), guarded=guarded)
        lanes: list[LaneChunk] = []
        for lane in "lr":
            chosen = [index for index, kind in enumerate(kinds) if kind == lane]
            if chosen:
                picked = piece.pick(chosen)
                lanes.append((lane, replace(picked, wire=picked.values)))  # type: ignore[arg-type] # nulls were wrong
        worker.flow.add_ready(worker.admission.take(lanes, now=self.now))

    @rule(who=numbers, secs=st.sampled_from([0.1, 1.5]), everything=st.booleans(), room=st.sampled_from([0, 1, 9]))
    def wait(self, who: int, secs: float, everything: bool, room: int) -> None:
        self.now += secs
        worker = self.workers[who % 2]
        closed = worker.admission.due(now=self.now, may_start=not everything, at_most=room)
        closed += worker.batcher.drain() if everything else []
        worker.flow.add_ready(closed)

    # ------------------------------------------------------------------ ticks

    @precondition(lambda self: not all(map(is_ticking, self.workers)))
    @rule(who=numbers, slots=st.integers(0, 6), trial=st.booleans(), reads=st.sampled_from([0, 4, 10]))
    def plan(self, who: int, slots: int, trial: bool, reads: int) -> None:
        worker = self.one_that(lambda worker: not is_ticking(worker), who)
        if reads:
            self.read_all(worker, reads)
        slots = min(slots, 1) if trial else slots
        wanted = worker.flow.wants_tick(now=self.now, slots=slots)
        worker.running = worker.flow.plan(now=self.now, slots=slots, trial=trial)
        if worker.running is not None:
            assert wanted
            self.check_limits(worker, worker.running, slots, trial=trial)

    @precondition(lambda self: any(map(is_ticking, self.workers)))
    @rule(who=numbers, slots=st.integers(0, 6), trial=st.booleans())
    def extend(self, who: int, slots: int, trial: bool) -> None:
        """Let a tick whose results are written add what may start by now, or be aborted."""
        worker = self.one_that(is_ticking, who)
        if worker.running is not None and worker.fate is None:
            slots = min(slots, 1) if trial else slots
            extended = worker.flow.extend(worker.running, now=self.now, slots=slots, trial=trial)
            if extended is None:
                self.resolve(worker, commits=False)
            else:
                if not worker.running.start:
                    self.check_limits(worker, extended, slots, trial=trial)
                worker.running = extended

    def check_limits(self, worker: Worker, tick: Tick, slots: int, *, trial: bool) -> None:
        """Check what was just planned: of what bounds it, it passes nothing but with a single item, or batch."""
        flow, limits = worker.flow, self.limits
        assert len(tick.settle) <= 1 or sum(item.count for item in tick.settle) <= limits.max_tick_records
        assert len(tick.settle) <= 1 or sum(item.written_bytes for item in tick.settle) <= limits.max_tick_bytes
        under_way = [*flow.active.values(), *(batch for _, batch in tick.start)]
        assert len(under_way) <= 1 or sum(batch.count for batch in under_way) <= limits.max_in_flight_records
        assert len(tick.start) <= slots
        assert not trial or sum(batch.count for _, batch in tick.start) <= 1
        if any(batch.suspect for _, batch in tick.start):
            assert sum(batch.suspect for batch in under_way) <= max((len(flow.active) + slots) // 2, 1)
        # One batch at most tries for more records than were answered, and for twice as many.
        limit = worker.flow.size.limit
        if limit is None:
            return
        larger = [batch for _, batch in tick.start if batch.count > limit]
        assert len(larger) <= 1
        assert all(batch.count <= 2 * limit and not batch.was_posted for batch in larger)

    @precondition(lambda self: any(map(is_ticking, self.workers)))
    @rule(who=numbers)
    def commit(self, who: int) -> None:
        self.resolve(self.one_that(is_ticking, who), commits=True)

    @precondition(lambda self: any(map(is_ticking, self.workers)))
    @rule(who=numbers)
    def abort(self, who: int) -> None:
        self.resolve(self.one_that(is_ticking, who), commits=False)

    def resolve(self, worker: Worker, *, commits: bool) -> None:
        """Let the worker learn the result of its tick: as drawn, unless the broker has decided it before."""
        tick = worker.running
        assert tick is not None
        if worker.fate is None:
            self.decide(worker, commits=commits)
        has_committed, worker.running, worker.fate = worker.fate, None, None
        if has_committed:
            for serial, batch in worker.flow.committed(tick):
                for partition, offset in positions(batch.chunks):
                    assert offset in decode(*self.committed[partition]).in_flight
                worker.listed[serial] = batch
            worker.flow.add_ready(worker.admission.settled(tick.settle, now=self.now))
            self.check_age(worker)
        else:
            worker.flow.aborted(tick)

    def check_age(self, worker: Worker) -> None:
        """Check that no record that was read and has no result is older than what is told, and that none has an age."""
        times = [
            self.topics[state.partition].times[offset]
            for state in worker.flow.partitions.values()
            for offset in self.topics[state.partition].kinds
            if state.base <= offset < state.next_read and not self.results[state.partition, offset]
        ]
        oldest_ms = worker.flow.oldest_ms()
        assert oldest_ms is not None or not times
        assert oldest_ms is None or oldest_ms <= min(times, default=oldest_ms)
        if all(state.base >= state.next_read for state in worker.flow.partitions.values()):
            assert oldest_ms is None

    def decide(self, worker: Worker, *, commits: bool) -> None:
        """Let the broker commit or abort the running tick."""
        tick = worker.running
        assert tick is not None
        worker.fate = commits
        if not commits:
            return
        for partition, (offset, metadata) in tick.offsets.items():
            assert self.owner[partition] is worker
            assert tick.epochs[partition] == worker.epochs[partition]
            assert len(metadata) <= self.limits.max_metadata
            assert offset >= self.committed[partition][0]
            self.committed[partition] = (offset, metadata)
        for item in tick.settle:
            for index, position in enumerate(positions(item.chunks)):
                assert not self.results[position]
                verdict = item.verdicts.of(index)
                refused = verdict == REFUSED
                assert not (refused and self.perhaps_taken[position]) or self.resent[position], "it may have been taken"
                self.results[position].append(verdict)
            if item.sent_ms:
                request = self.requests[item.batch_id]
                assert [request[number] for number in numbers_in_request(item.chunks)] == positions(item.chunks)
        for partition in tick.offsets:
            self.compare(partition)

    def compare(self, partition: Partition) -> None:
        """Check that the committed progress is correct for each record."""
        progress = decode(*self.committed[partition])
        for offset in self.topics[partition].kinds:
            has_result = bool(self.results[partition, offset])
            assert has_result == (offset < progress.base or offset in progress.settled)
            assert not (has_result and offset in progress.in_flight)

    # ------------------------------------------------------------------ posts and answers

    @precondition(lambda self: any(worker.listed for worker in self.workers))
    @rule(who=numbers, at=numbers)
    def post(self, who: int, at: int) -> None:
        worker = self.one_that(lambda worker: worker.listed, who)
        self.write(worker, sorted(worker.listed)[at % len(worker.listed)])

    def write(self, worker: Worker, serial: int) -> None:
        batch = worker.posted[serial] = worker.listed.pop(serial)
        worker.began[serial] = self.now
        self.requests[batch.id] = positions(batch.chunks)
        for position in self.positions(batch.chunks):
            assert self.perhaps_taken[position] <= self.resent[position]
            # A worker that sleeps between tick and post may be late: what its successor reported as in doubt is still a
            # post.
            assert self.resent[position] or self.results[position] in ([], [DOUBT]), "posted when it had its result"
            self.perhaps_taken[position] += 1
        if self.by_key:
            for position in self.positions(batch.chunks):
                self.check_turn(*position)

    def check_turn(self, partition: Partition, offset: int) -> None:
        """Check that no earlier record with the key of a posted one may still be accepted."""
        topic = self.topics[partition]
        for earlier, kind in topic.kinds.items():
            if earlier < offset and kind in "lr" and topic.keys[earlier] == topic.keys[offset] != "-":
                answered = any((partition, earlier) in worker.told for worker in self.workers)
                assert answered or self.results[partition, earlier] or (partition, earlier) in self.given_up

    @rule(who=numbers)
    def get_going(self, who: int) -> None:
        """Do at once what takes many steps to reach."""
        worker = self.workers[who % 2]
        if worker.running is None:
            self.post_all(worker)

    @precondition(lambda self: any(worker.listed or worker.posted for worker in self.workers))
    @rule(
        who=numbers,
        at=numbers,
        how=st.sampled_from(["taken", "not_taken", "halved", "judged", "judged", "lost", "silent", "too_late"]),
        codes=weighted("qqqdat", min_size=10, max_size=10),
        guarded=st.booleans(),
        suspect=st.booleans(),
    )
    def answer(self, who: int, at: int, how: Answer, *, codes: str, guarded: bool, suspect: bool) -> None:
        worker = self.one_that(lambda worker: worker.listed or worker.posted, who)
        waiting = worker.listed if how == "too_late" else worker.posted
        if waiting:
            serial = sorted(waiting)[at % len(waiting)]
            if how in ("not_taken", "halved"):
                waiting[serial].suspect |= suspect
            self.carry_out(worker, serial, waiting.pop(serial), how, codes=codes, guarded=guarded)

    def carry_out(
        self, worker: Worker, serial: int, batch: Batch, how: Answer, *, codes: str = "", guarded: bool = False
    ) -> None:
        """Do what the sender does with an answer."""
        flow = worker.flow
        if how != "too_late":
            batch.attempts, batch.sent_ms = batch.attempts + 1, 1
        if how == "lost":
            flow.size.lost(batch.count, began=worker.began.get(serial, self.now), due=self.now, now=self.now)
        match how:
            case "taken":
                flow.size.answered(batch.count, now=self.now)
                self.believe_taken(batch.chunks)
                self.finish(worker, serial, batch.chunks, Verdicts(QUEUED))
            case "not_taken":
                self.believe_not_taken(batch.chunks)
                flow.again(flow.withdraw(serial), at=self.now + 1)
            case "too_late":
                flow.again(flow.withdraw(serial), at=self.now)
            case "halved":
                self.believe_not_taken(batch.chunks)
                if batch.count == 1:
                    self.finish(worker, serial, batch.chunks, Verdicts(REFUSED))
                else:
                    whole = flow.withdraw(serial)
                    for half in whole.parts(2):
                        flow.again(self.piece(worker, whole, half), at=self.now)
            case "judged":
                self.judge(worker, serial, batch, (codes * batch.count)[: batch.count], guarded=guarded)
            case "lost" if self.in_doubt == "resend":
                flow.doubt(batch.chunks)
                flow.again(self.resending(flow.withdraw(serial)), at=self.now + 1)
            case "lost" if self.in_doubt == "hold":
                flow.doubt(batch.chunks)
                flow.withdraw(serial)
                self.hold_partitions(worker, batch.chunks)
            case "lost":
                self.finish(worker, serial, batch.chunks, Verdicts(DOUBT))
            case "silent":
                worker.posted[serial] = batch

    def judge(self, worker: Worker, serial: int, batch: Batch, codes: str, *, guarded: bool) -> None:
        """Answer by index: `q` queued, `d` dead letter, `a` not accepted and sent again, `t` unknown."""
        flow = worker.flow
        again = [index for index, code in enumerate(codes) if code == "a"]
        doubt = [index for index, code in enumerate(codes) if code == "t"]
        rest = [index for index, code in enumerate(codes) if code in "qd"]
        self.believe_taken(batch.split([i for i, code in enumerate(codes) if code == "q"])[0])
        self.believe_not_taken(batch.split([i for i, code in enumerate(codes) if code in "da"])[0])
        verdicts = Verdicts(QUEUED, {i: REFUSED for i, code in enumerate(codes) if code == "d"})
        if doubt:
            flow.doubt(batch.split(doubt)[0])
        if len(rest) == batch.count:
            self.finish(worker, serial, batch.chunks, verdicts, guarded=guarded)
        elif rest:
            self.finish(worker, serial, batch.split(rest)[0], verdicts.picked(rest), guarded=guarded)
        else:
            flow.withdraw(serial)
        if again:
            flow.again(self.piece(worker, batch, batch.split(again)[0]), at=self.now + 1)
        if doubt:
            chunks = batch.split(doubt)[0]
            if self.in_doubt == "hold":
                self.hold_partitions(worker, chunks)
            elif self.in_doubt == "resend":
                flow.again(self.resending(self.piece(worker, batch, chunks)), at=self.now)
            else:
                flow.settle(Finished(chunks, Verdicts(DOUBT), batch.id, sent_ms=1))

    def finish(
        self,
        worker: Worker,
        serial: int,
        chunks: tuple[Chunk, ...],
        verdicts: Verdicts,
        *,
        guarded: bool = False,
    ) -> None:
        item = worker.flow.finish(serial, chunks, verdicts, attempts=1, sent_ms=1, answered_ms=2)
        if verdicts.default != DOUBT:
            worker.told.update(self.positions(chunks))
        if item is not None and guarded:
            self.keep_back(worker, item)

    def resending(self, batch: Batch) -> Batch:
        for chunk in batch.chunks:
            chunk.resent = True
        self.resent.update(self.positions(batch.chunks))
        return batch

    def piece(self, worker: Worker, batch: Batch, chunks: tuple[Chunk, ...]) -> Batch:
        return batch.piece(chunks, worker.batcher.next_id()[0], envelope_bytes=ENVELOPE)

    def believe_taken(self, chunks: Iterable[Chunk]) -> None:
        self.taken.update(self.positions(chunks))

    def believe_not_taken(self, chunks: Iterable[Chunk]) -> None:
        self.perhaps_taken.subtract(self.positions(chunks))

    @rule(who=numbers, each=st.integers(1, 4), chance=st.booleans())
    def expire(self, who: int, each: int, chance: bool) -> None:
        """Take out some of what waits, as too old; not each time, or little would ever be posted."""
        flow = self.workers[who % 2].flow
        if not chance:
            return
        for old in flow.take_out(
            lambda batch: [i for i, (_, at) in enumerate(positions(batch.chunks)) if not at % each]
        ):
            assert all(offset % each == 0 for _, offset in positions(old.chunks))
            flow.settle(Finished(old.chunks, Verdicts(EXPIRED), old.id, attempts=old.attempts, unlisted=True))

    @precondition(lambda self: any(worker.quarantine for worker in self.workers))
    @rule(who=numbers)
    def resume(self, who: int) -> None:
        self.release(self.one_that(lambda worker: worker.quarantine, who))

    def release(self, worker: Worker) -> None:
        """Write what the storm guard kept back."""
        for item in worker.quarantine:
            worker.flow.settle(item)
            if not item.unlisted:  # recalled: still listed, and its answer counts again
                worker.told.update(self.positions(item.chunks))
        worker.quarantine = []

    # ------------------------------------------------------------------ partitions come and go

    @rule(at=numbers)
    def revoke(self, at: int) -> None:
        partition = PARTITIONS[at % 3]
        if partition in self.owner:
            worker = self.owner[partition]
            worker.flow.begin_revoke([partition])
            worker.admission.keep(worker.flow.may_start)

    @rule(at=numbers)
    def hold(self, at: int) -> None:
        partition = PARTITIONS[at % 3]
        if partition in self.owner:
            worker = self.owner[partition]
            worker.flow.hold(partition)
            worker.admission.keep(worker.flow.may_start)

    def hold_partitions(self, worker: Worker, chunks: Iterable[Chunk]) -> None:
        """Do what is done of an answer that is lost, where the operator is to decide."""
        for chunk in chunks:
            if worker.flow.is_alive(chunk):
                worker.flow.hold(chunk.partition)
        worker.admission.keep(worker.flow.may_start)

    @rule(at=numbers, who=numbers, commits=st.booleans())
    def hand_over(self, at: int, who: int, commits: bool) -> None:
        partition = PARTITIONS[at % 3]
        if partition in self.owner:
            self.give_up(partition, commits=commits)
        self.take_over(self.workers[who % 2], partition)

    @rule(at=numbers)
    def recreate(self, at: int) -> None:
        """Delete a topic and create it again; its owner notices once all that it read is settled, and begins anew.

        What is posted of the old one belongs to nobody's ledger any more: answers may come at any time.
        """
        partition = PARTITIONS[at % 3]
        worker = self.owner.get(partition)
        if worker is None or (worker.running is not None and partition in worker.running.offsets):
            return
        worker.flow.begin_revoke([partition])
        worker.admission.keep(worker.flow.may_start)
        if not worker.flow.is_drained([partition]) or worker.quarantine:
            return
        self.give_up(partition, commits=False)
        self.topics[partition] = Topic()
        self.recreated[partition] = self.epoch + 1
        self.committed[partition] = (0, "")  # that is committed before anything is posted
        for ledger in (self.results, self.perhaps_taken, self.resent):
            for position in [position for position in ledger if position[0] == partition]:
                del ledger[position]
        for names in (self.taken, self.given_up, *(each.told for each in self.workers)):
            names.difference_update([position for position in names if position[0] == partition])
        self.take_over(worker, partition)

    def positions(self, chunks: Iterable[Chunk]) -> list[Position]:
        """Return where records stand, without those of topics that were deleted."""
        return positions(chunk for chunk in chunks if chunk.epoch >= self.recreated[chunk.partition])

    @rule(at=numbers, commits=st.booleans(), late=st.sampled_from(["silent", "taken", "not_taken", "judged", "lost"]))
    def lose_and_regain(self, at: int, commits: bool, late: Answer) -> None:
        """Take a partition from a worker that lives on, and give it back, as after an outage of the brokers.

        Nobody else has posted anything, so nothing is in doubt that was certainly not accepted.
        """
        partition = PARTITIONS[at % 3]
        if partition in self.owner:
            worker = self.owner[partition]
            inherited = worker.flow.partitions[partition].doubt.copy()
            self.give_up(partition, commits=commits)
            for serial in sorted(worker.posted):
                self.carry_out(worker, serial, worker.posted.pop(serial), late, codes="qdat")
            listed = {position for batch in worker.listed.values() for position in positions(batch.chunks)}
            self.take_over(worker, partition)
            doubt = worker.flow.partitions[partition].doubt
            for offset in self.topics[partition].kinds:
                position = partition, offset
                if offset in doubt and offset not in inherited and position not in listed | worker.told:
                    assert self.perhaps_taken[position], "it doubts what was surely not taken"

    def give_up(self, partition: Partition, *, commits: bool) -> None:
        """Let the owner give a partition up, drained or not; by then its running tick is resolved or abandoned."""
        worker = self.owner[partition]
        running = worker.running is not None and partition in worker.running.offsets
        if running and worker.fate is None:
            self.decide(worker, commits=commits)
        if worker.flow.is_drained([partition]) and not running:
            progress = decode(*self.committed[partition])
            if self.limits.max_metadata == 4_000:
                assert progress.in_flight == worker.flow.partitions[partition].doubt
        worker.flow.release([partition])
        worker.admission.keep(worker.flow.is_alive)
        del self.owner[partition], worker.epochs[partition], worker.read_to[partition]

    def take_over(self, worker: Worker, partition: Partition) -> None:
        if worker.running is not None and partition in worker.running.offsets:
            self.resolve(worker, commits=False)  # before that it does not begin again: its results may be needed
        self.epoch += 1
        progress = decode(*self.committed[partition])
        topic, worker.knows[partition] = worker.knows.get(partition, 0), self.recreated[partition]
        if topic != self.recreated[partition]:
            worker.flow.remembered.replaced(partition, self.epoch)
        unknown = worker.flow.remembered.unknown(partition, progress)
        state = worker.flow.assign(partition, self.epoch, progress)
        assert state.base == progress.base
        for offset in self.topics[partition].kinds:
            assert (offset in unknown) == (offset in state.doubt and (partition, offset) not in worker.told)
        self.owner[partition] = worker
        worker.epochs[partition] = self.epoch
        worker.read_to[partition] = progress.base

    @rule(who=numbers, commits=st.booleans(), heir=numbers)
    def crash(self, who: int, commits: bool, heir: int) -> None:
        """Kill a worker at any point: only what the broker has is left, and others continue from there."""
        dead = self.workers[who % 2]
        if dead.running is not None and dead.fate is None:
            self.decide(dead, commits=commits)
        self.workers[who % 2] = self.new_worker()
        for partition in [partition for partition, worker in self.owner.items() if worker is dead]:
            self.take_over(self.workers[heir % 2], partition)

    # ------------------------------------------------------------------ what holds at any time

    @invariant()
    def what_is_committed_past_is_settled(self) -> None:
        for partition, (base, _) in self.committed.items():
            for offset in self.topics[partition].kinds:
                assert offset >= base or len(self.results[partition, offset]) == 1

    @invariant()
    def bytes_are_never_owed(self) -> None:
        for worker in self.workers:
            assert worker.flow.held_bytes >= 0
            assert worker.admission.held_bytes >= worker.batcher.open_bytes >= 0
            assert worker.flow.active_records == sum(batch.count for batch in worker.flow.active.values())

    # ------------------------------------------------------------------ the end

    def teardown(self) -> None:
        """Let everything settle: held or revoking partitions are assigned again, and all posts are accepted."""
        if not hasattr(self, "workers"):
            return
        for worker in self.workers:
            self.release(worker)
            if worker.running is not None:
                self.resolve(worker, commits=True)
        for partition, worker in list(self.owner.items()):
            state = worker.flow.partitions[partition]
            if state.revoking or state.held:
                self.give_up(partition, commits=True)
                self.take_over(worker, partition)
        records = sum(len(topic.kinds) for topic in self.topics.values())
        for _ in range(10 + DRAIN_TURNS_PER_RECORD * records):
            if all(self.turn(worker) for worker in self.workers):
                break
        for partition, topic in self.topics.items():
            for offset in topic.kinds:
                assert len(self.results[partition, offset]) == 1, f"{partition}@{offset} is left"
            base, _ = self.committed[partition]
            assert not [offset for offset in topic.kinds if offset >= base]
        for position, verdicts in self.results.items():
            assert (verdicts == [QUEUED]) <= (position in self.taken)
        for worker in self.workers:
            assert (worker.flow.held_bytes, worker.admission.held_bytes, worker.flow.active_records) == (0, 0, 0)
            assert not (worker.flow.active)
            assert not (worker.flow.ready)
            assert not (worker.flow.waiting)
            assert not (worker.flow.finished)

    def turn(self, worker: Worker) -> bool:
        """Do one round of everything a worker does; return whether nothing was left to do."""
        before = dict(worker.read_to)
        self.post_all(worker)
        for serial in sorted(worker.posted):
            self.carry_out(worker, serial, worker.posted.pop(serial), "taken")
        flow = worker.flow
        idle = not (flow.active or flow.finished or flow.ready or flow.waiting or worker.admission.held_bytes)
        return idle and worker.running is None and before == worker.read_to

    def post_all(self, worker: Worker) -> None:
        """Post whatever can be read, and what waits."""
        self.now += 2
        self.read_all(worker, 10)
        wanted = worker.flow.wants_tick(now=self.now, slots=4)
        worker.running = self.planned(worker)
        if worker.running is not None:
            assert wanted
            self.resolve(worker, commits=True)
        for serial in sorted(worker.listed):
            self.write(worker, serial)

    def read_all(self, worker: Worker, count: int) -> None:
        """Read on in all partitions, and close what is open."""
        for partition, epoch in worker.epochs.items():
            self.take(worker, partition, count, epoch=epoch)
            self.pass_over(worker, partition)
        worker.flow.add_ready(worker.admission.due(now=self.now, may_start=True) + worker.batcher.drain())

    def planned(self, worker: Worker) -> Tick | None:
        """Return the next tick as the ticker makes it: results first, and what may start once they are written."""
        tick = worker.flow.plan(now=self.now, slots=0) if worker.flow.finished else None
        if tick is None:
            tick = worker.flow.plan(now=self.now, slots=4)
        return tick and worker.flow.extend(tick, now=self.now, slots=4)


TestDelivery = DeliveryMachine.TestCase
TestDelivery.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)


class OrderedDeliveryMachine(DeliveryMachine):
    """The same with ordering by key, and with the pace of lists."""

    by_key = True


TestOrderedDelivery = OrderedDeliveryMachine.TestCase
TestOrderedDelivery.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
