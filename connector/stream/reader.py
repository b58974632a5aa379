"""Reads, and passes on what it read: the thread that owns the consumer.

Partitions are assigned paused; their committed progress is read in another thread while retained partitions continue;
then they start where the progress says. Reading stops while the byte budget is used up or the stream holds: at first
the thread only waits, and after a second it pauses the partitions, because a pause discards what was prefetched.
"""

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import count

from connector.clock import now
from connector.config.streams import InDoubt
from connector.core.chunks import Chunk, Partition, in_order
from connector.core.results import Finished
from connector.core.verdicts import Verdicts, in_doubt
from connector.core.watchdog import Position
from connector.kafka.errors import FatalError, KafkaTroubleError
from connector.kafka.leader_epochs import NO_EPOCH
from connector.kafka.source import Source
from connector.kafka.topics import IdsAsked, TopicId
from connector.stream.beginning import Beginning, Beginnings, BeginOptions, LastSettled
from connector.stream.broker_queries import BrokerQueries, Sources
from connector.stream.holds import Decision, hold_for_doubt
from connector.stream.identities import Identities, Positions
from connector.stream.preparing import Preparer
from connector.stream.state import State
from connector.stream.tick import Ticker
from connector.stream.troubles import Troubles
from connector.telemetry.logging import get_logger

POLL_SECS = 0.5
"""Longest wait of one poll; after it, requests to this thread are handled."""

READ_RECORDS = 2_000
"""Most records that one poll returns."""

SATURATED_SECS = 0.01
"""Longest wait of one poll while batches are due but all slots for requests are taken."""

REJOIN_SECS = 5.0
"""Wait before rejoining a group that does not accept us yet."""

REJECTED_SECS = 60.0
"""How long a rejection explains what stands still: a client that is rejected again says so at least every 30 s."""

REJECTED = "a password or a certificate is not accepted, and new ones are read only at a start"

LONG_WAIT_SECS = 1.0
"""A shorter wait for room is not worth losing the prefetched records."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What is read, how much is kept in memory, and how long things may take."""

    begin: BeginOptions
    buffer_bytes: int
    drain_secs: float
    fence_secs: float
    """If a consumer fails twice within this time, another worker has its instance id, or a third would not help
    either."""
    probe_secs: float = 2.0
    """First wait before checking whether Kafka allows reads that it denied; it doubles up to the next."""
    probe_max_secs: float = 60.0


@dataclass(slots=True)
class _Assigned:
    """An assigned partition: the number of its assignment, and how far it is on its way to being read.

    It is looked up once no tick names it, waits at `begin_at` until librdkafka is ready, and is read once it has begun.
    To restart, it is drained and looked up under a new number.
    """

    epoch: int
    in_doubt: InDoubt
    """What becomes of its records in doubt: the setting, or a decision about this partition."""
    is_looked_up: bool = False
    begin_at: int | None = None
    leader_epoch: int = NO_EPOCH
    """That of what was read before: all below `begin_at`, and some records below `horizon`."""
    horizon: int = 0
    has_begun: bool = False
    restart_by: float | None = None
    """The latest time for its restart, if it is to restart."""


class Reader:
    """Reads the topics of one stream; its rebalance callbacks are here as well."""

    def __init__(
        self,
        state: State,
        preparer: Preparer,
        options: ReadOptions,
        *,
        name: str,
        fail: Callable[[BaseException], None],
        ask_ids: Callable[[Collection[str]], IdsAsked],
        last_settled: LastSettled = lambda _: {},
        may_read: Callable[[Sources], Sources] = lambda _: (),
    ) -> None:
        """Create a reader.

        `ask_ids` starts a query for topic ids; `may_read` returns the sources that Kafka certainly allows us to read.
        """
        self._state = state
        self._preparer = preparer
        self._options = options
        self._fail = fail
        self._source: Source | None = None
        self._ticker: Ticker | None = None
        self._assigned: dict[Partition, _Assigned] = {}
        self._numbers = count(1)
        self._paused = False
        self._renewed_at = float("-inf")
        self._drain_by: float | None = None
        self._drained = threading.Event()
        self._close = threading.Event()
        self._stock_taken_at = float("-inf")
        self._missed: dict[Partition, tuple[int, int]] = {}
        """For each partition the commit after which records were missing, and how many of them are counted."""
        self._decisions: deque[dict[Partition, Decision]] = deque()
        """Decisions of the operator, to be carried out at the next turn."""
        self._stopped: set[Partition] = set()
        """Partitions that were paused because they are held, at the last look."""
        self._broker_queries = BrokerQueries(name, may_read)
        self.troubles = Troubles(
            name,
            self._broker_queries.ask_what_may_be_read,
            probe_secs=options.probe_secs,
            probe_max_secs=options.probe_max_secs,
        )
        self.lag: int | None = None
        """Records between the committed offsets and the ends reported by fetches; None while no end is known."""
        self.turns = 0
        """How many turns were completed."""
        self.positions: dict[Partition, Position] = {}
        """How far the partitions that have begun had come a moment ago."""
        self.in_group = False
        """Whether it has joined its group, and has not lost its partitions since."""
        self._generation = 0
        """The latest generation in which it was in its group; at the start below the first."""
        self.left = 0
        """Records that were listed as in flight when their partitions were released, since the last assignment: for the
        next owner they are in doubt, answered or not."""
        self._identities = Identities(ask_ids)
        self._renewed_for: set[TopicId] = set()
        """Recreated topics for which the consumer was replaced, or is to be."""
        self._is_outdated = False
        """Whether the consumer knows a topic that was recreated since, and is to be replaced."""
        self._beginnings = Beginnings(
            state,
            options.begin,
            name=name,
            fail=fail,
            epoch_of=lambda partition: mine.epoch if (mine := self._assigned.get(partition)) else None,
            last_settled=last_settled,
            identities=self._identities,
        )
        self._log = get_logger("reader").bind(stream=name)
        self._thread = threading.Thread(target=self._run, name=f"{name}-reader", daemon=True)

    def start(self, source: Source, ticker: Ticker) -> None:
        """Join the group and begin to read."""
        self._source, self._ticker = source, ticker
        self._thread.start()

    def epoch_of(self, partition: Partition) -> int | None:
        """Return the number of the assignment under which a partition is read, None before it has begun."""
        mine = self._assigned.get(partition)
        return mine.epoch if mine is not None and mine.has_begun else None

    @property
    def _begun(self) -> list[Partition]:
        return [partition for partition, mine in self._assigned.items() if mine.has_begun]

    def drain(self, deadline: float) -> None:
        """Read no more and let what is in flight finish until `deadline`, or an earlier one; returns at once."""
        self._drain_by = deadline if self._drain_by is None else min(deadline, self._drain_by)
        with self._state.changed:
            self._state.draining = True
            self._state.changed.notify_all()

    def wait_drained(self, timeout_secs: float) -> bool:
        """Wait until all partitions are released; return False on timeout."""
        return self._drained.wait(timeout_secs)

    def close(self, timeout_secs: float) -> None:
        """Leave the group."""
        self._close.set()
        self._thread.join(timeout_secs)

    @property
    def thread(self) -> int | None:
        """The native id of its thread, None if that is not running."""
        return self._thread.native_id if self._thread.is_alive() else None

    @property
    def partitions(self) -> list[Partition]:
        """The partitions that are assigned to this worker."""
        return sorted(self._assigned)

    # ------------------------------------------------------------------ the reader's thread

    def _run(self) -> None:
        source = self._source
        assert source is not None
        try:
            source.subscribe(self._options.begin.topics)
            while self._drain_by is None and not self._close.is_set():
                self._turn(source)
            if self._drain_by is not None:
                self._release(list(self._assigned), self._drain_by)
            self._drained.set()
            # The ticker's last commit may still need our membership: leave only when told to.
            while not self._close.wait(0.05):
                source.read(1, 0.0)
        except BaseException as error:  # noqa: BLE001 (whatever it is, it ends this stream, visibly)
            self._fail(error)
        finally:
            self._drained.set()
            self.lag = 0  # other workers have the partitions from now on, and the process may continue
            # A call never returns if its consumer is closed meanwhile, and would keep the process from exiting.
            self._beginnings.close()
            self._broker_queries.close()
            source.close()

    def _turn(self, source: Source) -> None:
        """Do one turn: start partitions whose progress is known, close due batches, read if there is room."""
        self.turns += 1
        self._beginnings.look_again(source)
        self._look_up_released()
        self._begin_found(source)
        self._reload_decided()
        self._reload_replaced()
        self._reload_drained()
        self._preparer.take_kept()
        self._pause_held(source)
        self._take_stock(source)
        self.troubles.check()
        at = now()
        with self._state.changed:
            self._state.close_due(at)
            deadline = self._state.admission.next_deadline(may_start=self._state.may_start_more(at))
        if not self._wait_for_room(source):
            read = source.read(1, 0.1)  # paused: this only serves rebalances
        else:
            timeout = POLL_SECS if deadline is None else min(max(deadline - now(), 0.0), POLL_SECS)
            if deadline is not None and deadline <= at:  # it is closed once there is room for it
                timeout = SATURATED_SECS
            if self._looks_up:
                timeout = min(timeout, 0.01)
            read = source.read(READ_RECORDS, timeout)
        if self._broker_queries.finds_cut_off(source):
            self._replace_consumer(source, KafkaTroubleError("it had lost its brokers"))
        elif source.was_expelled:
            self._replace_consumer(source, KafkaTroubleError("its group had removed it"))
        elif self._is_outdated and all(mine.restart_by is None for mine in self._assigned.values()):
            self._is_outdated = False
            self._release(list(self._assigned), now() + self._options.drain_secs)
            self._replace_consumer(source, KafkaTroubleError("a topic was recreated"))
        if read.chunks:
            self.troubles.read(read.chunks)
            self._preparer.begin_turn()
        for chunk in read.chunks:
            self._take(chunk, read.at)
        for partition in read.missing:
            mine = self._assigned.get(partition)
            if mine is not None and mine.has_begun and mine.restart_by is None:
                mine.restart_by = float("inf")  # what was read still counts
                self._beginnings.truncated[partition] = read.truncated.get(partition)
        for where, trouble in read.troubles:
            if isinstance(trouble, FatalError):
                self._renew(source, trouble)
                return
            self.troubles.take(where, trouble)
            if trouble.rejected:
                self._state.note_trouble(trouble, for_secs=REJECTED_SECS, why=REJECTED)

    @property
    def _looks_up(self) -> bool:
        """Return whether any partition has yet to begin, except held ones."""
        held = self._state.partition_holds
        return any(p not in held for p, mine in self._assigned.items() if not mine.has_begun)

    def _wait_for_room(self, source: Source) -> bool:
        """Wait a moment while there is no room; return False once the partitions are paused for lack of it."""
        state = self._state
        until = now() + LONG_WAIT_SECS
        with state.changed:
            while (
                (state.should_yield or not self.has_room)
                and now() < until
                and self._drain_by is None
                and not self._paused
            ):
                if self._preparer.is_due:
                    break  # this thread itself has to make room
                state.changed.wait(0.05)
                state.close_due(now())
            room = self.has_room
        if room and self._paused:
            self._paused = False
            resumable = [p for p in self._begun if p not in state.partition_holds]
            source.resume(resumable)
            self._broker_queries.wake(source, resumable)
        elif not room and not self._paused:
            self._paused = True
            source.pause(self._begun)
        return room

    @property
    def has_room(self) -> bool:
        """Return whether there is room for more records, and nothing holds the stream."""
        state = self._state
        return state.may_read and not self._preparer.has_kept and state.held_bytes < self._options.buffer_bytes

    def _take(self, chunk: Chunk, at: float) -> None:
        """Sort the records of a chunk, which arrived at `at`, and prepare those that are to be posted."""
        state = self._state
        with state.changed:
            intake = state.flow.intake(chunk)
            state.counts.vanished += intake.vanished
            state.counts.passed_over += intake.passed_over
            state.counts.records_read += sum(map(len, intake.fresh)) + sum(map(len, intake.doubtful))
            if intake.answered:
                count = sum(item.count for item in intake.answered)
                self._log.info("answers known from before", partition=str(chunk.partition), records=count)
                state.counts.records_read += count
                for item in intake.answered:
                    state.settle(item)
                state.changed.notify_all()
            policy = self._assigned[chunk.partition].in_doubt if intake.doubtful else None
            if policy == "dead_letter":
                state.settle(Finished(intake.doubtful, Verdicts(in_doubt(None))))
                state.changed.notify_all()
            elif policy == "hold":  # it began only because answers were known for all of them then
                state.hold_partition(chunk.partition, *hold_for_doubt(sum(map(len, intake.doubtful))))
                return  # all of it is read again
        fresh = intake.fresh
        if policy == "resend":
            with state.lock:
                state.resend(intake.doubtful)
            fresh = (*intake.doubtful, *fresh)
            if state.admission.key_queues is not None:
                # Before `ordering: key` was set, later records of a key may have been posted than the first one left.
                fresh = tuple(in_order(fresh))
        self._preparer.take(fresh, at)

    def _renew(self, source: Source, error: FatalError) -> None:
        """Rejoin the group with a new consumer; fail if that is needed again within a session timeout.

        A broker that hung may process two joins of the same static member, both ours, and fence it itself. A group of
        the classic protocol accepts us only when its last member has left.
        """
        if error.group_is_classic:
            why = f"group {self._options.begin.group} lets nobody in by the newer protocol before all others have left"
            self._state.note_trouble(error, for_secs=2 * REJOIN_SECS, why=why)
            self._close.wait(REJOIN_SECS)
            self._replace_consumer(source, KafkaTroubleError(why))
            return
        if now() - self._renewed_at < self._options.fence_secs:
            raise error
        self._renewed_at = now()
        self._replace_consumer(source, error)

    def _replace_consumer(self, source: Source, why: KafkaTroubleError) -> None:
        self._log.warning("consumer replaced", code=why.code, error=str(why))
        with self._state.lock:
            self._state.counts.consumers_replaced += 1
        self.lost(list(self._assigned))
        self._paused = False
        source.renew()
        source.subscribe(self._options.begin.topics)

    def _take_stock(self, source: Source) -> None:
        """Once a second, note whether we are in the group, how far the partitions have come and what is unread."""
        if now() - self._stock_taken_at < 1:
            return
        self._stock_taken_at = now()
        self._notice_group(source.generation)
        with self._state.lock:
            states = {p: (s.base, s.next_read) for p, s in self._state.flow.partitions.items()}
        passed = source.passed(list(states)) if states else {}
        positions, unread = {}, 0
        for partition, (base, next_read) in states.items():
            # After the last record there may be a transaction marker or aborted records: nothing to wait for.
            offset = max(base, passed.get(partition, base)) if base >= next_read else base
            mine = self._assigned.get(partition)
            # Before it begins, and while it is to restart, the position is behind records that were dropped.
            if offset > base and mine is not None and mine.has_begun and mine.restart_by is None:
                self._pass_over(partition, offset)
            end = source.known_end(partition)
            positions[partition] = Position(offset, None if end is None else max(end - offset, 0))
            unread += 0 if end is None else max(end - next_read, 0)
        self.positions = positions
        self._share_pace(unread)
        known = [position.lag for position in positions.values() if position.lag is not None]
        has_none = self.in_group and not self._assigned
        self.lag = sum(known) if known or has_none else None

    def _notice_group(self, generation: int) -> None:
        """Note that we have joined our group: with KIP-848 a member without partitions gets no assignment callback."""
        self.in_group |= generation > self._generation
        if self.in_group:
            self._generation = generation

    def _pass_over(self, partition: Partition, offset: int) -> None:
        """Commit that nothing readable is left below an offset."""
        with self._state.changed:
            if partition in self._state.flow.partitions:
                vanished, passed_over = self._state.flow.pass_over(partition, offset)
                self._state.counts.vanished += vanished
                self._state.counts.passed_over += passed_over
                self._state.changed.notify_all()

    def _share_pace(self, unread: int | None = None) -> None:
        """Set our share of each list's pace, by the partitions that have begun, and the number of unread records."""
        pacer = self._state.admission.pacer
        if pacer is not None:
            with self._state.lock:
                pacer.unread = pacer.unread if unread is None else unread
                pacer.set_share(len(self._begun), self._beginnings.total)

    # ------------------------------------------------------------------ partitions come and go

    def assigned(self, partitions: list[Partition]) -> None:
        """Look up the progress of new partitions; they stay paused until it is known."""
        self.in_group = True
        self.left = 0  # what was released has another owner by now, or is ours again
        self.troubles.assigned(partitions, before=self._assigned)
        if partitions:
            self._log.info("partitions assigned", partitions=[str(p) for p in partitions])
            self._look_up(partitions)
        elif self._state.admission.pacer is not None:  # paces depend on how many partitions others have
            assert self._source is not None
            self._beginnings.look_up(self._source, {})

    def _look_up(self, partitions: Iterable[Partition]) -> None:
        """Look partitions up, each under a new number: results under an earlier one are stale."""
        for partition in partitions:
            self._assigned[partition] = _Assigned(next(self._numbers), self._options.begin.in_doubt)
        self._look_up_released()

    def _look_up_released(self) -> None:
        """Look up new partitions, unless the running tick still names them from before they were released.

        It may yet commit, and brokers need not reject that: a member that lost partitions and got them back may be the
        same one as before. And what is in doubt depends on whether it committed. No later tick names them before they
        begin.
        """
        assert self._source is not None
        assert self._ticker is not None
        waiting = {partition: mine for partition, mine in self._assigned.items() if not mine.is_looked_up}
        if not waiting:
            return
        with self._state.lock:
            free = {p: mine for p, mine in waiting.items() if not self._ticker.names({p})}
        for mine in free.values():
            mine.is_looked_up = True
        if free:
            self._beginnings.look_up(self._source, {partition: mine.epoch for partition, mine in free.items()})

    def revoking(self, partitions: list[Partition]) -> None:
        """Finish what is in flight within the deadline, then release the partitions."""
        mine = [p for p in partitions if p in self._assigned]
        if mine:
            self._log.info("partitions revoked", partitions=[str(p) for p in mine])
        self._release(mine, now() + self._options.drain_secs)

    def lost(self, partitions: list[Partition]) -> None:
        """Release partitions at once: another worker has them, and treats what we have in flight as in doubt."""
        if partitions:
            self._log.warning("partitions lost", partitions=[str(p) for p in partitions])
        self.in_group = False
        with self._state.lock:
            self.left += self._state.flow.listed(partitions)
        self._forget(partitions)

    def _release(self, partitions: list[Partition], deadline: float) -> None:
        state, ticker, wanted = self._state, self._ticker, set(partitions)
        assert ticker is not None
        with state.changed:
            state.flow.begin_revoke(partitions)
            state.admission.keep(state.flow.may_start)
            # Nothing is read meanwhile; waiting records of retained partitions must not wait for this thread.
            state.queue(state.batcher.drain())
            while now() < deadline and (ticker.names(wanted) or not state.flow.is_drained(partitions)):
                state.changed.wait(min(deadline - now(), 0.1))
                state.close_due(now())
            uncommitted = ticker.names(wanted)
            if uncommitted or not state.flow.is_drained(partitions):
                self.left += max(state.flow.listed(partitions), ticker.listing(wanted) if uncommitted else 0)
            if uncommitted:
                ticker.abandon()
            self._forget(partitions)

    def _forget(self, partitions: Iterable[Partition]) -> None:
        with self._state.changed:
            self._state.flow.release(partitions)
            self._state.admission.keep(self._state.flow.is_alive)
            for partition in partitions:
                self._assigned.pop(partition, None)
                self._beginnings.forget(partition)
                self._beginnings.truncated.pop(partition, None)
                self._state.partition_holds.pop(partition, None)
            self._preparer.keep_startable()
            self._state.changed.notify_all()

    def _reload(self, partition: Partition, within_secs: float) -> None:
        """Restart a partition once what it has in flight is settled; everything else is read again."""
        mine = self._assigned.get(partition)
        if mine is not None and mine.has_begun:
            mine.restart_by = now() + within_secs
            with self._state.changed:
                self._state.flow.begin_revoke([partition])
                self._state.admission.keep(self._state.flow.may_start)
                self._preparer.keep_startable()

    def _reload_replaced(self) -> None:
        """Restart partitions that now belong to another topic.

        However long that takes: a later answer would be taken for that of another record.
        """
        for partition in self._identities.check(self._positions):
            self._log.warning("topic recreated", partition=str(partition))
            self._reload(partition, float("inf"))

    def _positions(self) -> Positions:
        with self._state.lock:
            return {
                partition: (state.epoch, max(state.next_read, state.base))
                for partition, state in self._state.flow.partitions.items()
                if self._assigned[partition].has_begun and self._assigned[partition].restart_by is None
            }

    def _reload_drained(self) -> None:
        """Look up again what was drained for a restart, or released by the ticker because its topic looked deleted."""
        assert self._ticker is not None
        flow = self._state.flow
        with self._state.lock:
            # Usually none is absent; comparing counts is fast, however many partitions there are.
            all_there = len(flow.partitions) == len(self._assigned)
            absent = () if all_there else self._assigned.keys() - flow.partitions.keys()
        for partition in absent:
            if self._assigned[partition].has_begun:
                self._assigned[partition].restart_by = float("inf")
        for partition, by in [
            (p, mine.restart_by) for p, mine in self._assigned.items() if mine.restart_by is not None
        ]:
            with self._state.changed:
                if now() < by and not (flow.is_drained([partition]) and flow.has_nothing_left(partition)):
                    continue
                if self._ticker.names({partition}):  # nothing would reject its commit: await the result
                    continue
                flow.release([partition])
                if self._state.partition_holds.pop(partition, None) is not None:
                    self._beginnings.forget(partition)  # later causes were not decided about
            self._look_up([partition])

    def resume(self, decisions: dict[Partition, Decision]) -> None:
        """Restart held partitions as the operator decided; may be called from any thread, done at the next turn.

        A partition whose cause persists, and about which nothing was decided, holds again.
        """
        self._decisions.append(decisions)

    def _reload_decided(self) -> None:
        while self._decisions:
            for partition, decision in self._decisions.popleft().items():
                with self._state.changed:
                    hold = self._state.partition_holds.pop(partition, None)
                mine = self._assigned.get(partition)
                if hold is None or mine is None:
                    continue
                self._beginnings.rule(partition, hold.reason, decision)
                if mine.has_begun:
                    self._reload(partition, self._options.drain_secs)
                else:
                    self._look_up([partition])

    def _pause_held(self, source: Source) -> None:
        """Stop fetching held partitions: their records would only be dropped."""
        with self._state.lock:
            held = {p for p in self._state.partition_holds if (mine := self._assigned.get(p)) and mine.has_begun}
        if held - self._stopped:
            source.pause(held - self._stopped)
        self._stopped = held

    def _begin_found(self, source: Source) -> None:
        """Take over the partitions whose progress was read, and start those that librdkafka is ready for."""
        while self._beginnings.found:
            found = self._beginnings.found.popleft()
            mine = self._assigned.get(found.partition)
            if mine is not None and mine.epoch == found.epoch and not self._needs_new_consumer(found):
                self._take_over(found, mine)
        begun = []
        for partition, mine in [(p, mine) for p, mine in self._assigned.items() if not mine.has_begun]:
            if mine.begin_at is not None and source.begin(partition, mine.begin_at, mine.leader_epoch, mine.horizon):
                mine.begin_at, mine.has_begun = None, True
                begun.append(partition)
                if self._paused:
                    source.pause([partition])
        if begun:
            self._share_pace()  # before they are read: what is admitted at a smaller share delays what follows
        if not self._paused:
            self._broker_queries.wake(source, begun)

    def _needs_new_consumer(self, found: Beginning) -> bool:
        """Return whether a partition is to be looked up again by a new consumer, since its topic was recreated.

        Where leader epochs are lower than those of the old topic, librdkafka takes them for outdated: without a word it
        reads nothing more of the topic.
        """
        topic = found.topic
        if topic is None or not self._identities.was_replaced(found.partition.topic, topic):
            return False
        self._is_outdated |= topic not in self._renewed_for
        self._renewed_for.add(topic)
        return self._is_outdated

    def _take_over(self, found: Beginning, mine: _Assigned) -> None:
        """Continue where a partition was left, or hold it if that is unknown or not allowed."""
        state, partition = self._state, found.partition
        self._count_missing(found)
        with state.changed:
            if found.hold is not None:
                state.hold_partition(partition, *found.hold)
            if found.progress is None:
                return
            self._beginnings.forget(partition)
            self._beginnings.truncated.pop(partition, None)
            mine.in_doubt = found.in_doubt or mine.in_doubt
            mine.begin_at, mine.leader_epoch = found.progress.base, found.leader_epoch
            if self._identities.read_of_another(partition, found.topic) is not None:
                state.flow.remembered.replaced(partition, found.epoch)
            unknown = state.flow.remembered.unknown(partition, found.progress).count
            state.counts.vanished += found.vanished
            mine.horizon = state.flow.assign(partition, found.epoch, found.progress).horizon
            if found.new or found.missing:
                state.flow.mark(partition)
                state.changed.notify_all()
        self._identities.begun(partition, found.topic, found.progress.base)
        if unknown:
            self._log.warning("records in doubt", partition=str(partition), records=unknown, in_doubt=mine.in_doubt)

    def _count_missing(self, found: Beginning) -> None:
        """Count records that were removed before they were read, only once however often they are found missing."""
        where, counted = self._missed.get(found.partition, (found.committed, 0))
        if where != found.committed:
            counted = 0  # another worker has continued meanwhile: these are different records
        if found.missing > counted:
            with self._state.lock:
                self._state.counts.missing += found.missing - counted
            self._missed[found.partition] = (found.committed, found.missing)
            told = {"partition": str(found.partition), "count": found.missing}
            self._log.error("records removed before they were read", **told)
