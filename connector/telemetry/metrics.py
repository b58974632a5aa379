"""All metrics, in one catalogue; names and labels are defined here only.

What changes with each request or tick is counted where it happens, once per batch; states (lag, holds) are read from
the streams when the page is requested. Label values are bounded codes.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from connector.core.results import Finished

REGISTRY = CollectorRegistry()

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Described:
    """A metric: its name on the page, what it counts in which unit, and its labels."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    unit: str
    meaning: str

    @property
    def family(self) -> str:
        """The name for the client library, which appends `_total` to counters itself."""
        return self.name.removesuffix("_total")


CATALOGUE: Final[dict[str, Described]] = {}
"""All metrics by name. The reference page is generated from it; dashboard and alert rules are checked against it."""


def _describe(name: str, kind: Kind, labels: str, unit: str, meaning: str) -> Described:
    described = CATALOGUE[name] = Described(name, kind, tuple(labels.split()), unit, meaning)
    return described


def _counter(name: str, labels: str, unit: str, meaning: str) -> Counter:
    described = _describe(name, "counter", labels, unit, meaning)
    return Counter(described.family, meaning, described.labels, registry=REGISTRY)


def _seconds(name: str, labels: str, meaning: str, buckets: Sequence[float]) -> Histogram:
    described = _describe(name, "histogram", labels, "seconds", meaning)
    return Histogram(described.family, meaning, described.labels, buckets=buckets, registry=REGISTRY)


_REQUESTS = _seconds(
    "trackly_request_seconds",
    "stream row",
    "Time from the first byte of a request to the last of its reply, by the row of the verdict table that decided.",
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_POSTED = _counter("trackly_posted_records_total", "stream row", "records", "Records in requests, including repeats.")
_SETTLE = _seconds(
    "trackly_settle_seconds",
    "stream",
    "Time from when the oldest record of a batch was appended to its topic to the commit of its outcomes.",
    (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
_HOLDS = _counter("trackly_holds_total", "stream reason", "holds", "Holds that started.")


class BatchMetrics:
    """What one stream counts as it happens."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._settle = _SETTLE.labels(stream)
        self._of_row = cache(lambda row: (_REQUESTS.labels(stream, row), _POSTED.labels(stream, row)))
        """Cached, because looking up two series by their labels takes 2 us."""

    def request(self, row: str, took_secs: float, records: int) -> None:
        """Count a request that has ended."""
        requests, posted = self._of_row(row)
        requests.observe(took_secs)
        posted.inc(records)

    def held(self, reason: str) -> None:
        """Count a hold when it begins."""
        _HOLDS.labels(self._stream, reason).inc()

    def settled(self, items: list[Finished], now_ms: int) -> None:
        """Count the batches of a committed tick."""
        for item in items:
            oldest = min(chunk.oldest_ms for chunk in item.chunks)
            if oldest > 0:
                self._settle.observe(max(now_ms - oldest, 0) / 1000)


_COUNTERS: Final = (
    ("trackly_records_read_total", "records_read", "records", "Records read from the topics."),
    ("trackly_queued_total", "queued", "records", "Records that the platform accepted, with their outcomes committed."),
    ("trackly_skipped_total", "skipped", "records", "Records without a value, or filtered out, outcomes committed."),
    ("trackly_resent_total", "resent", "records", "Records in doubt that were posted again, as configured."),
    (
        "trackly_missing_total",
        "missing",
        "records",
        "Records removed before they were read or posted: by retention, or because a topic was recreated.",
    ),
    (
        "trackly_vanished_total",
        "vanished",
        "records",
        "Records in doubt that retention removed: settled without a dead letter.",
    ),
    (
        "trackly_passed_over_offsets_total",
        "passed_over",
        "offsets",
        "Offsets without a record: compacted, aborted, or transaction markers.",
    ),
    ("trackly_ticks_total", "ticks", "transactions", "Transactions committed."),
    ("trackly_ticks_aborted_total", "ticks_aborted", "transactions", "Transactions aborted."),
    (
        "trackly_producers_replaced_total",
        "producers_replaced",
        "producers",
        "Producers that were replaced: fenced, or because brokers did not answer.",
    ),
    (
        "trackly_consumers_replaced_total",
        "consumers_replaced",
        "consumers",
        "Consumers that were replaced: fenced, or without a reachable broker.",
    ),
)
_GAUGES: Final = (
    (
        "trackly_in_flight_records",
        "in_flight_records",
        "records",
        "Records posted and not answered; in doubt after a crash.",
    ),
    ("trackly_in_flight_requests", "in_flight_requests", "requests", "Requests in flight."),
    (
        "trackly_in_doubt_records",
        "open_doubt",
        "records",
        "Records in doubt that wait to be read again or for a decision; not those that are already dead letters.",
    ),
    ("trackly_concurrency_limit", "concurrency_limit", "requests", "Adaptive limit of requests in flight."),
    ("trackly_waiting_batches", "waiting_batches", "batches", "Batches that wait for a retry."),
    ("trackly_waiting_for_key", "waiting_for_key", "records", "Records that wait for an earlier one with their key."),
    ("trackly_ready_batches", "ready_batches", "batches", "Batches that wait for a free request."),
    ("trackly_held_bytes", "held_bytes", "bytes", "Bytes used by records in memory."),
    ("trackly_lag_records", "lag", "records", "Records between the committed offsets and the ends of the partitions."),
    (
        "trackly_oldest_unsettled_seconds",
        "oldest_unsettled_secs",
        "seconds",
        "Age of the oldest record without a result; if it has not been read, how long its partition has stood still.",
    ),
    (
        "trackly_last_progress_timestamp_seconds",
        "progress_at",
        "seconds",
        "Unix time of the last commit that settled records; before the first, that of the stream's start.",
    ),
    (
        "trackly_paused_seconds",
        "paused_secs",
        "seconds",
        "Remaining pause that the platform has asked for (`Retry-After`).",
    ),
)
BY_STREAM: Final = (
    *((key, _describe(name, "counter", "stream", unit, meaning)) for name, key, unit, meaning in _COUNTERS),
    *((key, _describe(name, "gauge", "stream", unit, meaning)) for name, key, unit, meaning in _GAUGES),
)
"""Numbers in a stream's status, and their keys."""
_PACE = _describe(
    "trackly_pace_backlog_seconds",
    "gauge",
    "stream",
    "seconds",
    "Time that the slowest list needs for its backlog at its pace, including unread records.",
)
_DEAD = _describe("trackly_dead_letters_total", "counter", "stream reason", "records", "Dead letters committed.")
_CLOSED = _describe(
    "trackly_batches_closed_total", "counter", "stream closed_by", "batches", "Batches, by what closed them."
)
_HOLD = _describe(
    "trackly_hold",
    "gauge",
    "stream reason",
    "",
    "1 while the stream holds for this reason; `paused` was requested by a person.",
)
_STALLED = _describe(
    "trackly_stalled_partitions",
    "gauge",
    "stream waits_for",
    "partitions",
    "Partitions that stand still with records waiting, by what they wait for.",
)
_REDRIVEN = _describe(
    "trackly_redriven_total", "counter", "stream rule", "records", "Dead letters that a rule of the stream sent again."
)
_REDRIVE_WAITING = _describe(
    "trackly_redrive_waiting", "gauge", "stream rule", "records", "Dead letters that wait to be sent again by a rule."
)
_REDRIVE_PASSED = _describe(
    "trackly_redrive_passed_over_total",
    "counter",
    "stream rule why",
    "records",
    "Dead letters that a rule skipped: `redriven`, as they had already been sent again, or `too_large`.",
)
_STATE = _describe("trackly_stream_state", "gauge", "stream state", "", "1 for the state the stream is in.")

ALWAYS_TOLD: Final = "in_doubt"
"""A reason of dead letters whose series exists from the start: an increase is only seen in an existing series."""


class StatusCollector:
    """Turns the streams' status, from `Stream.status`, into metrics when they are scraped."""

    def __init__(self, statuses: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        self._statuses = statuses

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of all streams."""
        statuses = self._statuses()
        for key, described in BY_STREAM:
            family = _family(described)
            for status in statuses:
                if status[key] is not None:
                    family.add_metric([status["name"]], status[key])
            yield family
        pace, dead, closed, hold = map(_family, (_PACE, _DEAD, _CLOSED, _HOLD))
        stalled, state = map(_family, (_STALLED, _STATE))
        redriven, waiting, passed = map(_family, (_REDRIVEN, _REDRIVE_WAITING, _REDRIVE_PASSED))
        for status in statuses:
            if status["pace"] is not None:
                pace.add_metric([status["name"]], status["pace"]["backlog_secs"])
            for reason, number in {ALWAYS_TOLD: 0, **status["dead_letters"]}.items():
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
                for why, number in rule["passed_over"].items():
                    passed.add_metric([status["name"], rule["rule"], why], number)
            state.add_metric([status["name"], status["state"]], 1)
        yield from (pace, dead, closed, hold, stalled, state, redriven, waiting, passed)


def _family(described: Described) -> CounterMetricFamily | GaugeMetricFamily:
    """Return a family without samples."""
    kind = CounterMetricFamily if described.kind == "counter" else GaugeMetricFamily
    return kind(described.family, described.meaning, labels=described.labels)


def render() -> bytes:
    """Return the metrics page in Prometheus' text format."""
    return generate_latest(REGISTRY)


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """What a supervisor reports about a worker."""

    ordinal: int
    up: bool
    restarts: int


_WORKER_UP = _describe("trackly_worker_up", "gauge", "worker", "", "1 while the worker's process runs.")
_RESTARTS = _describe(
    "trackly_worker_restarts_total", "counter", "worker", "starts", "How often the worker was restarted."
)


class WorkersCollector:
    """The metrics of a supervisor itself, and of its workers with the label `worker` on each sample.

    They are not added up: a restarted worker begins at 0, which readers of one series handle and readers of a sum
    cannot. `sum without (worker)` over rates is correct.
    """

    def __init__(self, pages: Mapping[int, str], workers: Iterable[WorkerSeen]) -> None:
        self._pages = pages
        self._workers = workers

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of all."""
        up, restarts = _family(_WORKER_UP), _family(_RESTARTS)
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
    """Return the metrics page of a supervisor, built from those of its workers, by ordinal."""
    return generate_latest(WorkersCollector(pages, workers))
