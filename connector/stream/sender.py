"""Posts listed batches and carries out what the verdict table says about their replies, on the event loop."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from connector.clock import awake, now, now_ms
from connector.config.streams import InDoubt
from connector.core.batching import Batch
from connector.core.chunks import Chunk, Partition
from connector.core.records import origin_of
from connector.core.results import Finished
from connector.core.retrying import (
    PARTS_WHEN_COSTLY,
    SUSPICION,
    Others,
    RetryPolicy,
    backoff,
    next_step,
    requested_wait,
)
from connector.core.verdicts import (
    WAIT_STATUSES,
    Action,
    Reply,
    Row,
    Verdict,
    VerdictPolicy,
    Verdicts,
    classify,
    in_doubt,
    judge,
    rejection,
)
from connector.stream.probing import probe
from connector.stream.state import State
from connector.telemetry.logging import LogLimit, get_logger, is_debugging
from connector.telemetry.traces import BatchTraces
from connector.trackly.client import Client, TooLateError
from connector.trackly.operations import Operation

_HOLD_REASONS = {401: "unauthorized", 402: "payment_required", 403: "forbidden", 404: "not_found", 407: "proxy"}

LOG_EVERY_SECS = 10.0
"""How often to log that batches come too late to be posted, or that the platform asks to wait."""

_EXPIRED = Verdicts(Verdict("dead_letter", "expired", text="became older than delivery.max_age_secs while it waited"))


@dataclass(frozen=True, slots=True)
class SendOptions:
    """How long after its tick a batch may be posted, and what becomes of records in doubt."""

    post_within_secs: float
    in_doubt: InDoubt


@dataclass(frozen=True, slots=True)
class Answered:
    """The result of a listed batch's request, and the row of the verdict table that applies."""

    serial: int
    batch: Batch
    reply: Reply
    row: Row
    own_list: bool
    """Every record goes to the list of the settings."""
    sent_ms: int
    """When the request began, in milliseconds since 1970."""
    at: float
    """When it was answered, or given up (monotonic clock)."""
    took_secs: float


class Sender:
    """Posts the batches of one stream. `start` may be called from any thread, all else runs on the event loop."""

    def __init__(
        self,
        state: State,
        client: Client,
        operation: Operation,
        *,
        policy: VerdictPolicy,
        retry: RetryPolicy,
        options: SendOptions,
        name: str,
        before_probe: Callable[[], None],
        observe: Callable[[str, float, int], None],
        fail: Callable[[BaseException], None],
        traces: BatchTraces | None = None,
    ) -> None:
        self._state = state
        self._client = client
        self._operation = operation
        self._policy = policy
        self._retry = retry
        self._options = options
        self._before_probe = before_probe
        self._observe = observe
        self._fail = fail
        self._traces = traces
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._random = random.Random()  # noqa: S311 (jitter, not a secret)
        self._late = LogLimit(LOG_EVERY_SECS)
        """Batches that came too late."""
        self._throttled = LogLimit(LOG_EVERY_SECS)
        """Requests that the platform answered with a request to wait."""
        self._log = get_logger("sender").bind(stream=name)

    def start(self, posted: list[tuple[int, Batch]], listed_at: float) -> None:
        """Post batches that a committed tick lists; called from the ticker's thread."""
        self._loop.call_soon_threadsafe(self._spawn, posted, listed_at)

    def run(self) -> None:
        """Start the probing loop."""
        self._begin(probe(self._state, self._client, self._before_probe, self._log))

    async def close(self) -> None:
        """Cancel all requests: their records stay listed as in flight, so their next owner treats them as in doubt."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    def _spawn(self, posted: list[tuple[int, Batch]], listed_at: float) -> None:
        for serial, batch in posted:
            self._begin(self._post(serial, batch, listed_at))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    async def _post(self, serial: int, batch: Batch, listed_at: float) -> None:
        before = listed_at + self._options.post_within_secs
        state = self._state
        if awake() > before:
            self._list_again(serial)
            return
        if self._set_expired_apart(serial, batch):
            return
        sent_ms, began = now_ms(), now()
        span = None if self._traces is None else self._traces.begin(batch)
        try:
            reply = await self._client.post(self._operation, batch, before=before)
        except TooLateError:
            if span is not None:
                span.end("not_posted")
            self._list_again(serial)
            return
        except BaseException:
            if span is not None:
                span.end("cut_off")
            raise
        at = now()
        own_list = all(chunk.own_list for chunk in batch.chunks)
        row = classify(reply, self._policy, own_list=own_list)
        answered = Answered(serial, batch, reply, row, own_list, sent_ms, at, at - began)
        with state.changed:
            state.counts.requests += 1
            state.counts.requests_by_row[row.name] += 1
            self._carry_out(answered)
            state.changed.notify_all()
        self._observe(row.name, answered.took_secs, batch.count)
        if span is not None:
            span.end(row.name, status=reply.status, failed=row.action is not Action.JUDGE)
        if is_debugging():
            self._log.debug(
                "batch answered",
                batch=batch.id,
                records=batch.count,
                partitions=sorted({str(chunk.partition) for chunk in batch.chunks}),
                row=row.name,
                status=reply.status,
                attempts=batch.attempts,
                took_secs=round(answered.took_secs, 3),
            )

    def _list_again(self, serial: int) -> None:
        """List a batch again that comes too late to be posted: a new owner may already treat it as in doubt.

        If commits or connections always take too long, nothing is ever posted, so this is logged.
        """
        if batches := self._late.due(at=now()):
            allowed = round(self._options.post_within_secs, 3)
            self._log.warning("too late to be posted, listed again", batches=batches, allowed_secs=allowed)
        with self._state.changed:
            self._again(serial, at=now())
            self._state.changed.notify_all()

    def _set_expired_apart(self, serial: int, batch: Batch) -> bool:
        """Settle records that expired since they were read, and list the rest again; return whether there were any.

        Records wait in memory during holds, for their pace, or for a retry. Where one has expired there may be many,
        and after a hold they would be tried one at a time; so all waiting records are checked.
        """
        limit_ms = self._operation.expired_before(now_ms())  # the same for all that follows: the clock may be set back
        if not batch.older_than(limit_ms):
            return False
        state = self._state
        with state.changed:
            self._again(serial, at=now())
            for old in state.flow.take_out(lambda waiting: waiting.older_than(limit_ms)):
                state.settle(
                    Finished(
                        old.chunks,
                        _EXPIRED,
                        old.id,
                        attempts=old.attempts,
                        sent_ms=old.sent_ms,
                        trace=old.trace,
                        unlisted=True,
                    )
                )
            state.changed.notify_all()
        return True

    # ------------------------------------------------------------------ verdicts, called under the lock

    def _carry_out(self, answered: Answered) -> None:
        batch, reply = answered.batch, answered.reply
        if reply.kind != "not_sent":  # or lost: `resend` must come to an end
            batch.attempts += 1
            batch.sent_ms = answered.sent_ms
        match answered.row.action:
            case Action.JUDGE:
                self._judge(answered)
            case Action.DOUBT:
                self._doubt(answered)
            case Action.HALVE | Action.SHRINK:
                self._refused_for_records(answered)
            case Action.HOLD:
                self._refused(answered)
            case Action.HOLD_OR_HALVE:
                self._blocked(answered)
            case Action.BACK_OFF:
                others = self._note_failure(answered)
                self._failed(answered, still_pass=others.still_pass)
                self._narrow(answered, others)
            case Action.WAIT:
                self._wait(answered)
            case Action.OUTAGE:
                self._failed(answered)
                self._again(answered.serial, at=answered.at + self._pause_after(1))
            case Action.LOCAL:
                raise AssertionError("no reply is judged by a local row")

    def _judge(self, answered: Answered) -> None:
        """Settle the records that have a verdict; those to be sent again, probed or in doubt are handled separately."""
        batch, reply, at, state = answered.batch, answered.reply, answered.at, self._state
        state.limit.answered(answered.took_secs, active=len(state.flow.active), now=at)
        judgement = judge(reply, batch.count, self._policy, failures=batch.failures + 1, own_list=answered.own_list)
        if judgement.hold_code is not None:
            number = self._operation.rules.list_number
            detail = f"every record of a batch failed with it, for the stream's list {number}"
            self._hold(answered, f"setting:{judgement.hold_code}", detail)
            return
        batch.failures += 1
        self._passed(answered)
        state.batcher.byte_limit.taken(batch.size, now=at)
        apart = sorted({*judgement.again, *judgement.doubt, *judgement.probe})
        if not apart:
            self._finish(answered, batch.chunks, judgement.verdicts)
            return
        inside = set(apart)
        rest = [index for index in range(batch.count) if index not in inside]
        others = batch.split(apart)[1]
        if judgement.doubt:
            # Records without a verdict stay listed as in flight; the others have their verdict.
            state.flow.doubt(batch.split(judgement.doubt)[0])
        if others:
            self._finish(answered, others, judgement.verdicts.picked(rest))
        else:
            state.flow.withdraw(answered.serial)
        if judgement.again:
            again = self._piece(batch, batch.split(judgement.again)[0])
            state.flow.again(again, at=at + self._pause_after(batch.attempts))
        if judgement.probe:
            probe = self._piece(batch, batch.split(judgement.probe)[0])
            for half in probe.parts(2):
                state.flow.again(self._piece(probe, half), at=at)
        if judgement.doubt:
            self._doubt_some(answered, batch.split(judgement.doubt)[0])

    def _passed(self, answered: Answered) -> None:
        if answered.reply.foreign:  # it says nothing about the platform
            return
        batch, state = answered.batch, self._state
        if state.flow.size.answered(batch.count, now=answered.at):
            self._log.info("batches are as large as before", records=batch.count)
        if state.gate.passed(batch.family, now=answered.at, suspect=batch.suspect):
            state.limit.restart()

    def _failed(self, answered: Answered, *, still_pass: bool = False) -> None:
        self._troubled(answered, still_pass=still_pass)
        batch, reply = answered.batch, answered.reply
        detail = f"{answered.row.name}: {reply.text or reply.trouble or reply.unreadable or ''}".rstrip(": ")
        if reply.status:
            detail = f"HTTP {reply.status}, {detail}"
        gate = self._state.gate
        if gate.failed(batch.family, now=answered.at, detail=detail, others_pass=still_pass, suspect=batch.suspect):
            self._report_hold()

    def _troubled(self, answered: Answered, *, still_pass: bool) -> None:
        """Lower the concurrency, unless others have passed since the batch last failed: then it is not the load."""
        if not still_pass:
            self._state.limit.troubled(now=answered.at)

    def _note_failure(self, answered: Answered) -> Others:
        """Note that a batch failed; return whether others have passed since it first did, and since it last did.

        A request that takes much longer than others counts as failed from when it was overdue: those that pass after
        that have overtaken it. In an outage there are none, although some may have passed after the request began.
        """
        batch, at, gate = answered.batch, answered.at, self._state.gate
        overdue_secs = self._overdue_secs(answered)
        since = at - max(overdue_secs, 0.0)
        first = since if batch.first_failed_at is None else batch.first_failed_at
        last = since if batch.last_failed_at is None else batch.last_failed_at
        batch.first_failed_at, batch.last_failed_at = first, at
        record = _only_record(batch)
        passed = gate.others_pass(batch.family, since=first, record=record)
        still_pass = gate.others_pass(batch.family, since=last, record=record)
        return Others(passed, still_pass, overtook=overdue_secs > 0 and passed)

    def _overdue_secs(self, answered: Answered) -> float:
        """Return by how many seconds an answer was overdue when it came or was given up; 0 or less if it was not."""
        return answered.took_secs - self._state.limit.overdue_secs

    def _report_hold(self) -> None:
        if self._state.gate.hold is not None:
            self._state.on_hold(self._state.gate.hold)

    def _refused(self, answered: Answered) -> None:
        reply = answered.reply
        detail = reply.text or reply.trouble or f"HTTP {reply.status}"
        if answered.row.name == "setting":
            detail += f", for the stream's list {self._operation.rules.list_number}"
        self._hold(answered, self._hold_reason(reply, answered.row), detail)

    def _hold_reason(self, reply: Reply, row: Row) -> str:
        if row.name == "tls":
            return "tls"
        if row.name == "setting":
            return f"setting:{reply.code}"
        if 300 <= reply.status < 400:
            return "redirected"
        return _HOLD_REASONS.get(reply.status, "refused")

    def _hold(self, answered: Answered, reason: str, detail: str) -> None:
        """Hold the stream; the batch was not accepted and is queued again."""
        if self._state.gate.refused(answered.batch.family, reason, now=answered.at, detail=detail):
            self._report_hold()
        # Other batches may pass and end the hold at once, repeatedly: so this batch waits before it can cause it again.
        self._again(answered.serial, at=answered.at + self._pause_after(1))

    def _finish(self, answered: Answered, chunks: tuple[Chunk, ...], verdicts: Verdicts) -> None:
        self._state.finish(
            answered.serial,
            chunks,
            verdicts,
            attempts=answered.batch.attempts,
            sent_ms=answered.sent_ms,
            answered_ms=now_ms(),
        )

    def _doubt(self, answered: Answered) -> None:
        """Handle a batch whose fate is unknown, as `delivery.in_doubt` says."""
        batch, flow = answered.batch, self._state.flow
        self._note_lost(answered)
        others = self._note_failure(answered)
        self._failed(answered, still_pass=others.still_pass)
        match self._options.in_doubt:
            case "dead_letter":
                self._finish(answered, batch.chunks, Verdicts(in_doubt(answered.reply)))
            case "resend":
                self._narrow(answered, others)
            case "hold":
                flow.doubt(batch.chunks)
                flow.withdraw(answered.serial)
                self._hold_partitions(batch.chunks)

    def _note_lost(self, answered: Answered) -> None:
        """Limit later batches to less than one without an answer, unless others as large were answered meanwhile."""
        batch, at, size = answered.batch, answered.at, self._state.flow.size
        began, overdue_secs = at - answered.took_secs, self._overdue_secs(answered)
        due = at - overdue_secs if overdue_secs > 0 else began
        if size.lost(batch.count, began=began, due=due, now=at):
            self._log.warning(
                "a batch is in doubt, and none as large was answered since: batches hold fewer records",
                in_doubt=batch.count,
                records=size.limit,
            )

    def _doubt_some(self, answered: Answered, chunks: tuple[Chunk, ...]) -> None:
        """Handle records of a judged batch that are in doubt, listed as such, and part of no active batch."""
        state, batch = self._state, answered.batch
        spent = batch.failures >= self._retry.max_attempts and self._note_failure(answered).still_pass
        match self._options.in_doubt:
            case "resend" if not spent:
                again = self._piece(batch, chunks)
                state.resend(again.chunks)
                state.flow.again(again, at=answered.at + self._pause_after(batch.attempts))
            case "dead_letter" | "resend":
                if self._options.in_doubt == "resend":
                    state.gate.gave_up(batch.family, None)
                verdicts, sent_ms = Verdicts(in_doubt(answered.reply)), answered.sent_ms
                state.settle(
                    Finished(chunks, verdicts, batch.id, 0, batch.attempts, sent_ms, now_ms(), trace=batch.trace)
                )
            case "hold":
                self._hold_partitions(chunks)

    def _hold_partitions(self, chunks: tuple[Chunk, ...]) -> None:
        state = self._state
        for partition in {chunk.partition for chunk in chunks if state.flow.is_alive(chunk)}:
            state.hold_partition(partition, "in_doubt", "an answer was lost; decide what to do with its records")

    def _refused_for_records(self, answered: Answered) -> None:
        """Halve a batch until the rejected record is alone, and give that one up.

        A code in `retry.transient_codes` gets it more attempts first.
        """
        batch, reply, row = answered.batch, answered.reply, answered.row
        self._passed(answered)
        if row.action is Action.SHRINK:
            self._state.batcher.byte_limit.too_large(batch.size, batch.count, now=answered.at)
        if batch.count > 1:
            self._split(answered.serial, at=answered.at)
            return
        batch.failures += 1
        if reply.code in self._policy.transient_codes and batch.failures < self._retry.max_attempts:
            self._again(answered.serial, at=answered.at + self._pause_after(batch.attempts))
        else:
            self._finish(answered, batch.chunks, Verdicts(rejection(reply, row)))

    def _wait(self, answered: Answered) -> None:
        """Let a batch wait as the platform says, and all others as well if nothing passes.

        A 408, 425 or 429 says nothing about a record; a 503 may, even if it names a time.
        """
        state, batch, reply, at = self._state, answered.batch, answered.reply, answered.at
        others = self._note_failure(answered)
        self._troubled(answered, still_pass=others.still_pass)
        told = requested_wait(reply.retry_after_secs, batch.attempts, self._retry, jitter=self._random.random())
        all_throttled = state.gate.throttled(batch.family, now=at, others_pass=others.still_pass, suspect=batch.suspect)
        if all_throttled and reply.retry_after_secs is not None:
            state.paused_until = max(state.paused_until, at + told)
        self._note_throttled(reply, told, at=at)
        if reply.status in WAIT_STATUSES:
            self._again(answered.serial, at=at + told)
            return
        self._narrow(answered, others, wait_secs=told)

    def _note_throttled(self, reply: Reply, wait_secs: float, *, at: float) -> None:
        """Log that the platform asks to wait: no hold and no failure tells of it."""
        if requests := self._throttled.due(at=at):
            wait_secs = round(wait_secs, 1)
            self._log.warning("platform asks to wait", status=reply.status, wait_secs=wait_secs, requests=requests)

    def _blocked(self, answered: Answered) -> None:
        """Hold the stream, unless others have passed since the batch was last rejected: then its records are at fault.

        Only batches count: a probe contains no text that a firewall could object to.
        """
        batch, gate = answered.batch, self._state.gate
        last, batch.blocked_at = batch.blocked_at, answered.at
        if last is None or not gate.other_batches_pass(batch.family, since=last):
            self._refused(answered)
            return
        gate.records_rejected(batch.family, now=answered.at, suspect=batch.suspect)
        self._narrow(answered, Others(passed=True, still_pass=True))

    def _narrow(self, answered: Answered, others: Others, *, wait_secs: float | None = None) -> None:
        """Continue with a batch that failed until the record at fault, if any, is alone.

        A single record is given up after `retry.max_attempts` failures of its own, but after two at least if the answer
        may mean a hold. With `wait_secs`, the batch or its parts wait that long. A batch in doubt is posted again if
        the operator chose so, but no more often than that.
        """
        state, batch, row, at = self._state, answered.batch, answered.row, answered.at
        batch.failures += others.passed
        batch.suspect = batch.suspect or others.overtook or batch.failures >= SUSPICION
        at_least = SUSPICION if row.action is Action.HOLD_OR_HALVE else 1
        retry = replace(self._retry, max_attempts=max(self._retry.max_attempts, at_least))
        is_in_doubt = row.action is Action.DOUBT
        step = next_step(batch, retry, others, may_be_taken=is_in_doubt)
        if is_in_doubt and step != "give_up":
            state.flow.doubt(batch.chunks)
            state.resend(batch.chunks)
        match step:
            case "again":
                wait = self._pause_after(batch.attempts) if wait_secs is None else wait_secs
                self._again(answered.serial, at=at + wait)
            case "split":
                wait = self._random.random() * self._retry.base_secs if wait_secs is None else wait_secs
                self._split(answered.serial, at=at + wait, suspect=True, costly=others.overtook or is_in_doubt)
            case "give_up":
                state.gate.gave_up(batch.family, _only_record(batch))
                verdict = in_doubt(answered.reply) if is_in_doubt else rejection(answered.reply, row)
                self._finish(answered, batch.chunks, Verdicts(verdict))

    def _split(self, serial: int, *, at: float, suspect: bool = False, costly: bool = False) -> None:
        """Queue the records of a batch again in halves, with no attempts counted.

        If each post is `costly`, there are more parts, all but one of which pass at once, and attempts still count.
        """
        flow = self._state.flow
        batch = flow.withdraw(serial)
        for chunks in batch.parts(PARTS_WHEN_COSTLY if costly else 2):
            piece = self._piece(batch, chunks)
            if not costly:
                piece.attempts = piece.failures = 0
            piece.suspect = suspect
            flow.again(piece, at=at)

    def _again(self, serial: int, *, at: float) -> None:
        """Queue a batch again, unchanged, from time `at` on."""
        self._state.flow.again(self._state.flow.withdraw(serial), at=at)

    def _pause_after(self, attempts: int) -> float:
        """Return the seconds to wait after so many attempts, with jitter."""
        return backoff(attempts, self._retry, jitter=self._random.random())

    def _piece(self, batch: Batch, chunks: tuple[Chunk, ...]) -> Batch:
        batch_id, _ = self._state.batcher.next_id()
        return batch.piece(chunks, batch_id, envelope_bytes=self._operation.envelope_bytes)


def _only_record(batch: Batch) -> tuple[Partition, int] | None:
    """Return where the only record of a batch first failed, None if it has several."""
    if batch.count > 1:
        return None
    (chunk,) = batch.chunks
    return origin_of(dict(chunk.header_list(0))) or (chunk.partition, chunk.offsets[0])
