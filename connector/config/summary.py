"""A summary of settings in sentences: the chains of time limits with their sums, and notes."""

from collections.abc import Iterator

from connector.config.checks.limits import TICK_ALLOWANCE_SECS
from connector.config.hosts import is_loopback
from connector.config.problems import number
from connector.config.settings import Settings
from connector.config.streams import StreamSettings


def chains(settings: Settings) -> Iterator[str]:
    """Yield each chain of limits that must fit, with the numbers in effect; those of the streams once if equal."""
    kafka, trackly = settings.kafka, settings.trackly
    total, tick = trackly.timeouts.total_secs, TICK_ALLOWANCE_SECS
    drains: dict[float, list[str]] = {}
    for stream in settings.streams:
        drains.setdefault(stream.delivery.drain_secs, []).append(stream.name)
    for drain, names in drains.items():
        whose = "" if len(drains) == 1 else f" ({', '.join(names)})"
        yield (
            f"request {number(total)} s + last tick {number(tick)} s = {number(total + tick)} s "
            f"<= drain {number(drain)} s < grace {number(settings.shutdown.grace_secs)} s{whose}"
        )
        yield f"drain {number(drain)} s < longest time without a poll {number(kafka.max_poll_interval_secs)} s{whose}"
    heartbeat, session = kafka.heartbeat_interval_secs, kafka.session_timeout_secs
    yield (
        f"2 x heartbeat {number(heartbeat)} s = {number(2 * heartbeat)} s < session {number(session)} s: "
        f"a post starts at most {number(kafka.post_within_secs)} s after its tick"
    )
    yield (
        f"idle connections are used again for {number(trackly.idle_connection_secs)} s "
        f"< the platform keeps them for {number(trackly.platform_idle_secs)} s"
    )


def notes(settings: Settings) -> Iterator[str]:
    """Yield what is allowed and has a price that an operator should know."""
    trackly = settings.trackly
    if trackly.base_url.startswith("http://") and trackly.allow_plain_http:
        yield "trackly.allow_plain_http: the API key and every phone number travel in the clear"
    if not trackly.tls.verify:
        yield "trackly.tls.verify is off: the API key goes to whoever answers"
    registry = settings.schema_registry
    if registry is not None and not registry.tls.verify:
        yield "schema_registry.tls.verify is off: credentials go to whoever answers"
    if registry is not None and registry.url.startswith("http://") and registry.allow_plain_http:
        yield "schema_registry.allow_plain_http: its credentials travel in the clear"
    traces = settings.traces
    if traces.enabled and traces.headers and traces.endpoint.startswith("http://") and not is_loopback(traces.endpoint):
        yield "traces.allow_plain_http: traces.headers travel in the clear"
    if settings.kafka.security.protocol.endswith("ssl") and not settings.kafka.security.verify_hostname:
        yield "kafka.security.verify_hostname is off: any holder of a trusted certificate may pose as a broker"
    web = settings.web
    host = f"[{web.host}]" if ":" in web.host else web.host
    if web.enabled and web.token is not None and not is_loopback(f"http://{host}"):
        yield f"web.token comes in the clear to {host}:{web.port}: keep the port on a private network"
    for stream in settings.streams:
        yield from _notes_on(stream)


def _notes_on(stream: StreamSettings) -> Iterator[str]:
    if stream.in_doubt == "resend" and stream.operation != "history":
        if stream.operation != "contacts" or stream.contacts.journeys:
            yield f"{stream.name}: in_doubt resend may text somebody twice, or count revenue twice"
    elif stream.in_doubt == "resend" and (stream.history.endpoint == "import" or stream.history.kind == "revenue"):
        yield f"{stream.name}: in_doubt resend may import a record twice; the platform promises no check for repeats"
    if stream.delivery.guarantee == "at_least_once":
        yield f"{stream.name}: at_least_once: results may repeat after a crash or a rebalance, or if Kafka refuses some"
    if stream.on_missing == "continue":
        yield f"{stream.name}: on_missing continue passes over records that retention removed unread"
    if stream.outcomes.records == "failures":
        yield f"{stream.name}: outcomes for failures only: what was queued leaves no record of its own"
    if not stream.storm_guard.enabled:
        yield f"{stream.name}: without its storm guard a wrong setting can empty a topic into the dead letters"
