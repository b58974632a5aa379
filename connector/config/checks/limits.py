"""Limits of time and number: chains in which no limit may use the room of the next, and minimums below maximums.

Messages contain the sum.
"""

from collections.abc import Iterator
from typing import Final

from connector.config.problems import Fault, KeyPath, dotted, number
from connector.config.settings import Settings
from connector.config.streams import StreamSettings

TICK_ALLOWANCE_SECS: Final = 1.0
"""What the last tick of a drain may take: a small tick takes 6-13 ms, one during a rebalance some hundred."""


def faults(settings: Settings) -> Iterator[Fault]:
    """Yield the limits that do not fit together."""
    yield from _kafka(settings)
    yield from _trackly(settings)
    for index, stream in enumerate(settings.streams):
        at: KeyPath = ("streams", index)
        yield from _drain(settings, stream, at)
        yield from _amounts(settings, stream, at)


def _kafka(settings: Settings) -> Iterator[Fault]:
    kafka, registry = settings.kafka, settings.schema_registry
    heartbeat, session, poll = kafka.heartbeat_interval_secs, kafka.session_timeout_secs, kafka.max_poll_interval_secs
    at_session, at_poll = ("kafka", "session_timeout_secs"), ("kafka", "max_poll_interval_secs")
    if 2 * heartbeat >= session:
        text = f"must be above two heartbeats (2 x {number(heartbeat)} = {number(2 * heartbeat)}); is {number(session)}"
        yield Fault(at_session, text, (("kafka", "heartbeat_interval_secs"),))
    if session > poll:
        text = f"must be at least session_timeout_secs ({number(session)}); is {number(kafka.max_poll_interval_secs)}"
        yield Fault(at_poll, text, (at_session,))
    if registry is not None and registry.timeout_secs >= poll:
        text = f"must be below kafka.max_poll_interval_secs ({number(poll)}); is {number(registry.timeout_secs)}"
        yield Fault(("schema_registry", "timeout_secs"), text, (at_poll,))


def _trackly(settings: Settings) -> Iterator[Fault]:
    trackly = settings.trackly
    connect, total = trackly.timeouts.connect_secs, trackly.timeouts.total_secs
    if connect > total:
        text = f"must be at most total_secs ({number(total)}); is {number(connect)}"
        yield Fault(("trackly", "timeouts", "connect_secs"), text, (("trackly", "timeouts", "total_secs"),))
    if trackly.idle_connection_secs >= trackly.platform_idle_secs:
        text = (
            f"must be below platform_idle_secs ({number(trackly.platform_idle_secs)}); "
            f"is {number(trackly.idle_connection_secs)}"
        )
        yield Fault(("trackly", "idle_connection_secs"), text, (("trackly", "platform_idle_secs"),))


def _drain(settings: Settings, stream: StreamSettings, at: KeyPath) -> Iterator[Fault]:
    """Request + tick <= drain < grace, and drain < `max_poll_interval_secs`: a revoke waits for the drain."""
    drain, total = stream.delivery.drain_secs, settings.trackly.timeouts.total_secs
    grace, poll = settings.shutdown.grace_secs, settings.kafka.max_poll_interval_secs
    path, at_window = (*at, "delivery", "drain_secs"), (*at, "batch", "window_ms")
    if total + TICK_ALLOWANCE_SECS > drain:
        text = (
            f"must be at least trackly.timeouts.total_secs + {number(TICK_ALLOWANCE_SECS)} for the last tick "
            f"({number(total)} + {number(TICK_ALLOWANCE_SECS)} = {number(total + TICK_ALLOWANCE_SECS)}); "
            f"is {number(drain)}"
        )
        yield Fault(path, text, (("trackly", "timeouts", "total_secs"),))
    if drain >= grace:
        text = f"must be below shutdown.grace_secs ({number(grace)}); is {number(drain)}"
        yield Fault(path, text, (("shutdown", "grace_secs"),))
    window, stalled = stream.batch.window_ms / 1_000, settings.health.stalled_secs
    if drain + window >= stalled:
        text = (
            f"must be above {dotted((*at, 'delivery', 'drain_secs'))} + {dotted((*at, 'batch', 'window_ms'))} "
            f"({number(drain)} + {number(window)} = {number(drain + window)}), which may pass without progress; "
            f"is {number(stalled)}"
        )
        yield Fault(("health", "stalled_secs"), text, (path, at_window))
    if drain >= poll:
        text = f"must be below kafka.max_poll_interval_secs ({number(poll)}); is {number(drain)}"
        yield Fault(path, text, (("kafka", "max_poll_interval_secs"),))


def _amounts(settings: Settings, stream: StreamSettings, at: KeyPath) -> Iterator[Fault]:
    delivery, batch, retry = stream.delivery, stream.batch, stream.retry
    window = settings.kafka.post_within_secs
    if 0 < window * 1_000 <= delivery.tick_interval_ms:
        text = (
            "must be below the session timeout less two heartbeats, within which a post must start after its tick "
            f"({number(window * 1_000)} ms); is {delivery.tick_interval_ms}"
        )
        timing = ("kafka", "session_timeout_secs"), ("kafka", "heartbeat_interval_secs")
        yield Fault((*at, "delivery", "tick_interval_ms"), text, timing)
    if stream.mode == "bulk":
        age = delivery.max_age_secs
        if age is not None and batch.window_ms >= age * 1_000:
            text = (
                f"must be above batch.window_ms ({number(batch.window_ms / 1_000)}), for which records wait for "
                f"their batch and grow older; is {number(age)}"
            )
            yield Fault((*at, "delivery", "max_age_secs"), text, ((*at, "batch", "window_ms"), (*at, "mode")))
        for name in ("max_in_flight_records", "max_tick_records"):
            limit: int = getattr(delivery, name)
            if batch.max_records > limit:
                text = f"must be at least batch.max_records ({batch.max_records}); is {limit}"
                yield Fault((*at, "delivery", name), text, ((*at, "batch", "max_records"), (*at, "mode")))
    if stream.concurrency.min > stream.ceiling:
        maximum = "concurrency.max" if stream.concurrency.max else f"the default of max in {stream.mode} mode"
        text = f"must be at most {maximum} ({stream.ceiling}); is {stream.concurrency.min}"
        yield Fault((*at, "concurrency", "min"), text, ((*at, "concurrency", "max"), (*at, "mode")))
    yield from _rising((*at, "retry"), "backoff_base_secs", "backoff_max_secs", retry)
    yield from _rising((*at, "breaker"), "probe_secs", "probe_max_secs", stream.breaker)
    yield from _rising((*at, "hold"), "probe_secs", "probe_max_secs", stream.hold)
    for code in sorted(set(retry.transient_codes) & set(retry.setting_codes)):
        text = f"has {code}, which is also in transient_codes"
        yield Fault((*at, "retry", "setting_codes"), text, ((*at, "retry", "transient_codes"),))


def _rising(at: KeyPath, low: str, high: str, owner: object) -> Iterator[Fault]:
    first, last = getattr(owner, low), getattr(owner, high)
    if first > last:
        yield Fault((*at, low), f"must be at most {high} ({number(last)}); is {number(first)}", ((*at, high),))
