"""A stream without Kafka: the real sender, client and flow, and ticks that always commit."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Literal

from connector.clock import awake, now
from connector.core.admission import Admission
from connector.core.batching import Batcher, BatchLimits
from connector.core.breaker import Gate, GatePolicy
from connector.core.chunks import Chunk, Partition
from connector.core.concurrency import ConcurrencyLimit, ConcurrencyPolicy
from connector.core.flow import Flow, FlowLimits
from connector.core.progress import Progress
from connector.core.results import Finished
from connector.core.retrying import RetryPolicy
from connector.core.storm import StormGuard, StormPolicy
from connector.core.verdicts import Verdict, VerdictPolicy
from connector.stream.sender import Sender, SendOptions
from connector.stream.state import State
from connector.telemetry.traces import BatchTraces
from connector.trackly.client import Client
from connector.trackly.operations import Operation, Rules

POST_WITHIN_SECS = 4.0
PARTITION = Partition("bench", 0)


class Bench:
    """One partition of sends, each record posted as it came; `settled` is what ticks have written.

    `observed` has the row, the seconds and the records of each answered request.
    """

    def __init__(
        self,
        *,
        in_doubt: Literal["dead_letter", "resend", "hold"] = "dead_letter",
        max_attempts: int = 5,
        batch_records: int = 5,
        failures: int = 5,
        max_age_ms: int | None = None,
        setting_codes: Iterable[str] = (),
        waits: RetryPolicy | None = None,
    ) -> None:
        self.operation = Operation("send", Rules(list_number="+18005551234", max_age_ms=max_age_ms))
        self.state = State(
            Flow(FlowLimits(10_000, 10_000, 10_000_000)),
            Admission(Batcher(BatchLimits(batch_records, 1_000_000, 1.0, self.operation.envelope_bytes), "bench")),
            Gate(GatePolicy(failures, 0.005, 0.02, 0.005, 0.02)),
            ConcurrencyLimit(ConcurrencyPolicy(1, 8)),
            StormGuard(StormPolicy(1.0, 1_000_000, 60.0)),
        )
        self.state.flow.assign(PARTITION, 1, Progress(0))
        self.settled: list[Finished] = []
        self.observed: list[tuple[str, float, int]] = []
        self.traces: BatchTraces | None = None
        self._policy = VerdictPolicy(
            max_attempts, frozenset({"provider_error"}), frozenset(setting_codes), frozenset({504})
        )
        self._retry = waits or RetryPolicy(max_attempts, 0.005, 0.02, 0.02)
        self._in_doubt = in_doubt
        self._next = 0
        self._failed: list[BaseException] = []

    def sender(self, client: Client) -> Sender:
        """Return a sender that posts with this client; it closes it."""
        return Sender(
            self.state,
            client,
            self.operation,
            policy=self._policy,
            retry=self._retry,
            options=SendOptions(POST_WITHIN_SECS, self._in_doubt),
            name="bench",
            before_probe=lambda: None,
            observe=lambda *told: self.observed.append(told),
            fail=self._failed.append,
            traces=self.traces,
        )

    def read(self, values: Sequence[bytes], timestamps: list[int] | None = None) -> None:
        """Take in records as the reader does, in 1970, and close their batch."""
        offsets = range(self._next, self._next + len(values))
        chunk = Chunk(PARTITION, 1, offsets, list(values), timestamps=timestamps)
        self._next += len(values)
        with self.state.changed:
            for piece in self.state.flow.intake(chunk).fresh:
                prepared = self.operation.prepare(piece, now_ms=0)
                if prepared.settled is not None:
                    self.state.settle(Finished((prepared.settled[0],), prepared.settled[1]))
                for lane, ready in prepared.lanes:
                    self.state.flow.add_ready(self.state.batcher.add(lane, ready, now=now()))
            self.state.flow.add_ready(self.state.batcher.drain())

    def tick(self, sender: Sender, *, listed_secs_ago: float = 0.0) -> None:
        """Commit a tick, if there is anything to say, and have the sender post what it lists."""
        with self.state.changed:
            trial = self.state.gate.state == "half_open"
            tick = self.state.flow.plan(now=now(), slots=self.state.slots(now()), trial=trial)
            if tick is None:
                return
            posted = self.state.flow.committed(tick)
            self.settled += tick.settle
        sender.start(posted, awake() - listed_secs_ago)

    async def turn(self, sender: Sender) -> None:
        """Tick, and let the event loop go on for a moment."""
        assert not self._failed, self._failed
        self.tick(sender)
        await asyncio.sleep(0.002)

    def results(self) -> dict[int, tuple[Verdict, Finished]]:
        """Return the verdict of each settled record and the item it was settled in, by offset."""
        found: dict[int, tuple[Verdict, Finished]] = {}
        for item in self.settled:
            offsets = [offset for chunk in item.chunks for offset in chunk.offsets]
            for index, offset in enumerate(offsets):
                assert offset not in found, "settled twice"
                found[offset] = (item.verdicts.of(index), item)
        return found
