"""Every metric, in one catalogue; names and labels are stated here and nowhere else.

What changes with each request or tick is counted where it happens, once a batch; what is a state (lag, holds)
is read from the streams when the page is asked for. Label values are bounded codes.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from connector.core.flow import Finished

REGISTRY = CollectorRegistry()

_REQUESTS = Histogram(
    "trackly_request_seconds",
    "Time from the first byte of a request to the last of its reply, by the row of the verdict table that decided.",
    ["stream", "row"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
_POSTED = Counter(
    "trackly_posted_records", "Records in requests, repeats counted.", ["stream", "row"], registry=REGISTRY
)
_SETTLE = Histogram(
    "trackly_settle_seconds",
    "Time from the oldest record of a batch being appended to its topic to the commit of its outcomes.",
    ["stream"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
    registry=REGISTRY,
)
_HOLDS = Counter("trackly_holds", "Holds that began.", ["stream", "reason"], registry=REGISTRY)


class BatchMetrics:
    """What one stream counts as it happens."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._settle = _SETTLE.labels(stream)

    def request(self, row: str, took_secs: float, records: int) -> None:
        """Count a request, once it has come to something."""
        _REQUESTS.labels(self._stream, row).observe(took_secs)
        _POSTED.labels(self._stream, row).inc(records)

    def held(self, reason: str) -> None:
        """Count a hold, as it begins."""
        _HOLDS.labels(self._stream, reason).inc()

    def settled(self, items: list[Finished], now_ms: int) -> None:
        """Count the batches of a tick that has committed."""
        for item in items:
            oldest = min(chunk.oldest_ms for chunk in item.chunks)
            if oldest > 0:
                self._settle.observe(max(now_ms - oldest, 0) / 1000)


class HasStatus(Protocol):
    """Whatever can tell its state as `Stream.status` does."""

    def status(self) -> dict[str, Any]:
        """Return the state."""


_COUNTERS: tuple[tuple[str, str, str], ...] = (
    ("trackly_records_read", "records_read", "Records read from the topics."),
    ("trackly_queued", "queued", "Records that the platform took, their outcomes committed."),
    ("trackly_skipped", "skipped", "Records without a value, their outcomes committed."),
    ("trackly_resent", "resent", "Records in doubt that were posted again, as the settings say."),
    ("trackly_missing", "missing", "Records that retention removed before they were read."),
    ("trackly_vanished", "vanished", "Records in doubt that retention removed: settled without a dead letter."),
    (
        "trackly_passed_over_offsets",
        "passed_over",
        "Offsets that the topic did not have: compacted, aborted, or markers of transactions; else there are none.",
    ),
    ("trackly_ticks", "ticks", "Transactions committed."),
    ("trackly_ticks_aborted", "ticks_aborted", "Transactions aborted."),
)
_GAUGES: tuple[tuple[str, str, str], ...] = (
    ("trackly_in_flight_records", "in_flight_records", "Records posted and not answered; in doubt after a crash."),
    ("trackly_in_flight_requests", "in_flight_requests", "Requests under way."),
    ("trackly_concurrency_limit", "concurrency_limit", "Requests that may be under way, as adapted."),
    ("trackly_waiting_batches", "waiting_batches", "Batches that wait to be tried again."),
    ("trackly_waiting_for_key", "waiting_for_key", "Records that wait for an earlier one of their key."),
    ("trackly_ready_batches", "ready_batches", "Batches that wait for a free request."),
    ("trackly_held_bytes", "held_bytes", "Bytes of records in memory."),
    ("trackly_lag_records", "lag", "Records between the committed offsets and the ends of the partitions."),
)


class StatusCollector:
    """Turns the streams' status into metrics when they are scraped."""

    def __init__(self, streams: Callable[[], Iterable[HasStatus]]) -> None:
        self._streams = streams

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of all streams."""
        statuses = [stream.status() for stream in self._streams()]
        for name, key, text in _COUNTERS:
            family = CounterMetricFamily(name, text, labels=["stream"])
            for status in statuses:
                family.add_metric([status["name"]], status[key])
            yield family
        for name, key, text in _GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=["stream"])
            for status in statuses:
                if status[key] is not None:
                    gauge.add_metric([status["name"]], status[key])
            yield gauge
        pace = GaugeMetricFamily(
            "trackly_pace_backlog_seconds",
            "Time that the list which is furthest behind its pace needs for what waits, unread records included.",
            labels=["stream"],
        )
        for status in statuses:
            if status["pace"] is not None:
                pace.add_metric([status["name"]], status["pace"]["backlog_secs"])
        yield pace
        dead = CounterMetricFamily("trackly_dead_letters", "Dead letters committed.", labels=["stream", "reason"])
        closed = CounterMetricFamily(
            "trackly_batches_closed", "Batches, by what closed them.", labels=["stream", "closed_by"]
        )
        hold = GaugeMetricFamily(
            "trackly_hold", "1 while the stream holds for this reason.", labels=["stream", "reason"]
        )
        stalled = GaugeMetricFamily(
            "trackly_stalled_partitions",
            "Partitions that stand still, records waiting, by what they wait for.",
            labels=["stream", "waits_for"],
        )
        redriven = CounterMetricFamily(
            "trackly_redriven", "Dead letters that a rule of the stream sent again.", labels=["stream", "rule"]
        )
        waiting = GaugeMetricFamily(
            "trackly_redrive_waiting", "Dead letters that wait to be sent again by a rule.", labels=["stream", "rule"]
        )
        state = GaugeMetricFamily(
            "trackly_stream_state", "1 for the state the stream is in.", labels=["stream", "state"]
        )
        for status in statuses:
            for reason, number in status["dead_letters"].items():
                dead.add_metric([status["name"], reason], number)
            for by, number in status["batches_closed"].items():
                closed.add_metric([status["name"], by], number)
            for reason in {found["reason"] for found in status["holds"]}:
                hold.add_metric([status["name"], reason], 1)
            for waits_for, number in Tally(found["waits_for"] for found in status["standstills"]).items():
                stalled.add_metric([status["name"], waits_for], number)
            for rule in status["redrives"]:
                redriven.add_metric([status["name"], rule["rule"]], rule["redriven"])
                waiting.add_metric([status["name"], rule["rule"]], rule["waiting"])
            state.add_metric([status["name"], status["state"]], 1)
        yield from (dead, closed, hold, stalled, redriven, waiting, state)


def render() -> bytes:
    """Return the metrics page in Prometheus' text format."""
    return generate_latest(REGISTRY)


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """What a supervisor counts of a worker."""

    ordinal: int
    up: bool
    restarts: int


class WorkersCollector:
    """The metrics of a supervisor itself, and of its workers with the label `worker` on each sample.

    They are not added up here: a worker that starts again begins at 0, which a reader of one series knows how to take
    and a reader of a sum does not. `sum without (worker)` adds them up, in the right order.
    """

    def __init__(self, pages: Mapping[int, str], workers: Iterable[WorkerSeen]) -> None:
        self._pages = pages
        self._workers = workers

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of all."""
        up = GaugeMetricFamily("trackly_worker_up", "1 while the worker's process runs.", labels=["worker"])
        restarts = CounterMetricFamily(
            "trackly_worker_restarts", "How often the worker was started again.", labels=["worker"]
        )
        for worker in self._workers:
            up.add_metric([str(worker.ordinal)], worker.up)
            restarts.add_metric([str(worker.ordinal)], worker.restarts)
        yield from (up, restarts)
        families: dict[str, Metric] = {}
        for ordinal, text in sorted(self._pages.items()):
            for family in text_string_to_metric_families(text):
                known = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    known.samples.append(sample._replace(labels={**sample.labels, "worker": str(ordinal)}))
        yield from families.values()


def render_workers(pages: Mapping[int, str], workers: Iterable[WorkerSeen]) -> bytes:
    """Return the metrics page of a supervisor, made of those of its workers, by ordinal."""
    return generate_latest(WorkersCollector(pages, workers))
