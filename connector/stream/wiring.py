"""Translates the settings of a stream for its parts: limits, policies, options, and the shared state."""

import secrets

from connector.clock import now_ms
from connector.config.kafka import KafkaSettings
from connector.config.streams import StreamSettings
from connector.core.admission import Admission
from connector.core.batching import Batcher, BatchLimits
from connector.core.breaker import Gate, GatePolicy
from connector.core.concurrency import ConcurrencyLimit, ConcurrencyPolicy
from connector.core.flow import MARKS, Flow, FlowLimits
from connector.core.ordering import KeyQueues
from connector.core.pacing import Pace, Pacer
from connector.core.retrying import RetryPolicy
from connector.core.storm import StormGuard, StormPolicy
from connector.core.verdicts import VerdictPolicy
from connector.kafka import configs
from connector.stream.beginning import BeginOptions
from connector.stream.reader import ReadOptions
from connector.stream.state import State
from connector.trackly.operations import Operation

RESULTS_KBYTES = 8_192
"""Results in the producer's queue: 15,000 outcomes of 550 bytes, which a worker at full speed settles in 20 ms.

While brokers take none, a whole tick is queued: up to `delivery.max_tick_bytes`. That is not reserved, because it would
be most of the buffer."""

FIXED_BYTES = (configs.PREFETCH_KBYTES + RESULTS_KBYTES) * 1024
"""What librdkafka stores besides the records that we hold: its prefetch, and results."""


def groups_of(settings: StreamSettings) -> dict[str, tuple[str, ...]]:
    """Return the consumer groups of a stream and the topics of each: its own, and those of its redrive rules."""
    dead_letters = settings.dead_letters
    rules = {settings.redrive_group(rule.name): (dead_letters.topic,) for rule in dead_letters.redrive}
    return {settings.group: topics_of(settings), **rules}


def topics_of(settings: StreamSettings) -> tuple[str, ...]:
    """Return what is read: topics or a pattern, and the redrive topic."""
    return (*settings.sources, settings.redrive_topic)


def state_of(settings: StreamSettings, operation: Operation, id_prefix: str) -> State:
    """Return the state of a stream that has read nothing; the ids of its batches begin with `id_prefix`."""
    batch, delivery, breaker = settings.batch, settings.delivery, settings.breaker
    hold, storm = settings.hold, settings.storm_guard
    return State(
        Flow(
            FlowLimits(delivery.max_in_flight_records, delivery.max_tick_records, delivery.max_tick_bytes),
            first_mark=secrets.randbelow(MARKS),
        ),
        Admission(
            Batcher(batch_limits(settings, operation), id_prefix),
            key_queues=KeyQueues() if settings.ordering == "key" else None,
            pacer=Pacer(
                Pace(settings.pace.messages_per_minute, settings.pace.lists),
                max_lot=batch.max_records,
                expired_before=lambda: operation.expired_before(now_ms()),
            )
            if settings.pace.is_on
            else None,
        ),
        Gate(
            GatePolicy(
                breaker.failures, breaker.probe_secs, breaker.probe_max_secs, hold.probe_secs, hold.probe_max_secs
            )
        ),
        ConcurrencyLimit(ConcurrencyPolicy(settings.concurrency.min, settings.ceiling)),
        StormGuard(StormPolicy(storm.max_ratio, storm.min_count, storm.window_secs, storm.enabled)),
    )


def batch_limits(settings: StreamSettings, operation: Operation) -> BatchLimits:
    """Return the limits of a request."""
    batch = settings.batch
    return BatchLimits(
        1 if settings.mode == "single" else batch.max_records,
        batch.max_bytes,
        batch.window_ms / 1000,
        operation.envelope_bytes,
    )


def read_options(settings: StreamSettings, kafka: KafkaSettings, buffer_bytes: int) -> ReadOptions:
    """Return what a stream reads, and how; `buffer_bytes` is `buffer.max_bytes`."""
    begin = BeginOptions(
        topics=topics_of(settings),
        group=settings.group,
        start=settings.start,
        on_missing=settings.on_missing,
        in_doubt=settings.in_doubt,
        call_secs=kafka.request_timeout_secs,
        from_beginning=frozenset({settings.redrive_topic}),
    )
    return ReadOptions(
        begin,
        buffer_bytes=buffer_bytes - FIXED_BYTES,
        drain_secs=settings.delivery.drain_secs,
        fence_secs=kafka.session_timeout_secs,
        probe_secs=settings.hold.probe_secs,
        probe_max_secs=settings.hold.probe_max_secs,
    )


def verdict_policy(settings: StreamSettings, operation: Operation) -> VerdictPolicy:
    """Return the settings that the verdict table depends on."""
    return VerdictPolicy(
        settings.retry.max_attempts,
        frozenset(settings.retry.transient_codes),
        frozenset(settings.retry.setting_codes),
        frozenset(settings.delivery.in_doubt_statuses),
        repeats_skipped=operation.endpoint.repeats_skipped and settings.in_doubt == "resend",
    )


def retry_policy(settings: StreamSettings) -> RetryPolicy:
    """Return how often a stream retries, and when."""
    retry = settings.retry
    return RetryPolicy(retry.max_attempts, retry.backoff_base_secs, retry.backoff_max_secs, retry.retry_after_max_secs)
