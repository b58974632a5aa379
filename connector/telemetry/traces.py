"""Traces: a span for each request of a batch, linked to the spans of those who produced its records.

A span is `process TOPIC` of OpenTelemetry's messaging conventions, per batch and never per record. Its links are to the
creation contexts of records, their headers `traceparent`: a limited number, evenly spread over the batch, so that the
cost does not grow with it. A batch that is retried, or split, continues the trace of its first request. The context is
not sent to the platform, which is somebody else's system.

The library is an extra and is loaded here, if traces are on; without it this module costs nothing.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import responses
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from connector import __version__
from connector.config.settings import TraceSettings
from connector.core.batching import Batch
from connector.core.chunks import Chunk
from connector.core.records import TRACEPARENT

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import Link, Span, SpanContext, Tracer

_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")


def context_of(header: bytes | str | None) -> "SpanContext | None":
    """Return the context in a header `traceparent`, None if it is invalid.

    The library's own propagator takes five times as long, and each batch has up to `max_links` of them.
    """
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415 (an extra)

    raw = header.encode() if isinstance(header, str) else header or b""
    found = _TRACEPARENT.fullmatch(raw)
    if found is None or found[1] == b"ff" or (found[1] == b"00" and len(raw) != 55):
        return None
    context = SpanContext(
        int(found[2], 16), int(found[3], 16), is_remote=True, trace_flags=TraceFlags(int(found[4], 16))
    )
    return context if context.is_valid else None


def header_of(context: "SpanContext") -> str:
    """Return a span's context as a header `traceparent`."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def sampled(batch: Batch, most: int) -> Iterator[tuple[Chunk, int]]:
    """Yield at most so many records of a batch, evenly spread, each as its chunk and its index in it."""
    step = max(-(-batch.count // most), 1) if most else 0
    start, index = 0, 0
    for chunk in batch.chunks:
        stop = start + len(chunk)
        while step and index < stop:
            yield chunk, index - start
            index += step
        start = stop


class BatchSpan:
    """The span of one request; `end` must be called once."""

    __slots__ = ("_span",)

    def __init__(self, span: "Span") -> None:
        self._span = span

    def end(self, row: str, *, status: int = 0, failed: bool = True) -> None:
        """End it with the row of the verdict table that applied, or with what became of the request instead."""
        from opentelemetry.trace import StatusCode  # noqa: PLC0415 (an extra)

        span = self._span
        if span.is_recording():
            span.set_attribute("trackly.row", row)
            if status:
                span.set_attribute("http.response.status_code", status)
            if failed:
                span.set_attribute("error.type", str(status) if status >= 400 else row)
                span.set_status(StatusCode.ERROR)
        span.end()


@dataclass(frozen=True, slots=True)
class BatchTraces:
    """Creates the spans of one stream."""

    tracer: "Tracer"
    stream: str
    group: str
    client_id: str
    host: str
    port: int
    max_links: int

    def begin(self, batch: Batch) -> BatchSpan:
        """Begin the span of a request of the batch, and set the batch's context, for results and the next attempt."""
        from opentelemetry import trace  # noqa: PLC0415 (an extra)

        before = context_of(batch.trace)
        topics = {chunk.partition.topic for chunk in batch.chunks}
        partitions = {chunk.partition for chunk in batch.chunks}
        topic = next(iter(topics)) if len(topics) == 1 else None
        attributes: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.batch.message_count": batch.count,
            "messaging.consumer.group.name": self.group,
            "messaging.client.id": self.client_id,
            "server.address": self.host,
            "server.port": self.port,
            "trackly.stream": self.stream,
            "trackly.batch_id": batch.id,
            "trackly.attempt": batch.attempts + 1,
        }
        if topic is not None:
            attributes["messaging.destination.name"] = topic
        if len(partitions) == 1:
            attributes["messaging.destination.partition.id"] = str(next(iter(partitions)).number)
        span = self.tracer.start_span(
            "process" if topic is None else f"process {topic}",
            context=None if before is None else trace.set_span_in_context(trace.NonRecordingSpan(before)),
            kind=trace.SpanKind.CONSUMER,
            attributes=attributes,
            links=list(self._links(batch)),
        )
        batch.trace = header_of(span.get_span_context())
        return BatchSpan(span)

    def _links(self, batch: Batch) -> "Iterator[Link]":
        from opentelemetry.trace import Link  # noqa: PLC0415 (an extra)

        seen = set()
        for chunk, place in sampled(batch, self.max_links):
            if chunk.headers is None:
                continue
            header = dict(chunk.headers[place] or ()).get(TRACEPARENT)
            if header is None or header in seen or (context := context_of(header)) is None:
                continue
            seen.add(header)
            facts: dict[str, str | int] = {
                "messaging.destination.name": chunk.partition.topic,
                "messaging.destination.partition.id": str(chunk.partition.number),
                "messaging.kafka.offset": chunk.offsets[place],
            }
            yield Link(context, facts)


class Traces:
    """Where the spans of a process go; `close` sends the rest."""

    def __init__(self, provider: "TracerProvider", settings: TraceSettings, base_url: str) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("trackly-connector", __version__)
        self._max_links = settings.max_links
        url = urlsplit(base_url)
        self._host, self._port = url.hostname or "", url.port or (80 if url.scheme == "http" else 443)

    def of_stream(self, stream: str, group: str, client_id: str) -> BatchTraces:
        """Return the factory of a stream's spans."""
        return BatchTraces(self._tracer, stream, group, client_id, self._host, self._port, self._max_links)

    def close(self) -> None:
        """Send the rest, and end; takes no longer than one post may."""
        self._provider.shutdown()


def open_traces(
    settings: TraceSettings,
    *,
    instance_id: str,
    base_url: str,
    headers: Callable[[], Mapping[str, SecretStr]] | None = None,
    processor: "SpanProcessor | None" = None,
) -> Traces | None:
    """Return where spans go, None if traces are off. Tests pass a processor instead of the one that posts.

    `headers` is called before each post, since a token may change; by default, those of the settings are used.

    The global tracer of the process is left alone, so that nothing else begins to trace.
    """
    if not settings.enabled:
        return None
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 (an extra)
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider  # noqa: PLC0415 (an extra)
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased  # noqa: PLC0415 (an extra)

    names = {"service.name": settings.service_name, "service.version": __version__, "service.instance.id": instance_id}
    provider = TracerProvider(
        resource=Resource.create(names),
        sampler=TraceIdRatioBased(settings.sample_ratio),
        shutdown_on_exit=False,
        span_limits=SpanLimits(max_links=max(settings.max_links, 1)),  # the library's own limit drops links silently
    )
    provider.add_span_processor(processor or _posting(settings, headers or (lambda: settings.headers)))
    return Traces(provider, settings, base_url)


def _posting(settings: TraceSettings, headers: Callable[[], Mapping[str, SecretStr]]) -> "SpanProcessor":
    import requests  # noqa: PLC0415 (of the extra)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 (an extra)
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 (an extra)

    class Session(requests.Session):
        """Sends the present headers, and discards everything of a response but its status.

        The library's exporter keeps the headers that it was created with. The body of a response may be of any length
        and may repeat our headers, which the library would log; older versions of it would follow a redirect, and send
        the headers elsewhere.
        """

        def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            request.headers.update({name: value.get_secret_value() for name, value in headers().items()})
            with super().send(request, **{**options, "stream": True, "allow_redirects": False}) as reply:
                heard = requests.Response()
                heard.status_code, heard.reason = reply.status_code, responses.get(reply.status_code, "")
                return heard

    exporter = OTLPSpanExporter(endpoint=settings.endpoint, timeout=settings.timeout_secs, session=Session())
    return BatchSpanProcessor(exporter, export_timeout_millis=settings.timeout_secs * 1000)
