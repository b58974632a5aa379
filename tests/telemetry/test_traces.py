"""A batch has a span, linked to those of its records' producers, and its results carry the context on."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import SecretStr

from connector.config.load import load_settings
from connector.config.problems import SettingsError
from connector.config.settings import TraceSettings
from connector.core.batching import Batch
from connector.core.chunks import Chunk, Partition
from connector.core.records import ResultEncoder
from connector.core.results import Finished
from connector.core.verdicts import Verdict, Verdicts
from connector.telemetry.traces import BatchTraces, context_of, header_of, open_traces, sampled

TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def make(exporter: InMemorySpanExporter) -> Iterator[Any]:
    opened = []

    def traces(**settings: Any) -> BatchTraces:
        found = open_traces(
            TraceSettings(enabled=True, **settings),
            instance_id="worker-1",
            base_url="https://app.example.org/api/v2",
            processor=SimpleSpanProcessor(exporter),
        )
        assert found is not None
        opened.append(found)
        return found.of_stream("sends", "group", "client")

    yield traces
    for each in opened:
        each.close()


def _traceparent(number: int) -> str:
    return f"00-{number + 1:032x}-{number + 1:016x}-01"


def _chunk(count: int, *, number: int = 0, topic: str = "events", traced: bool = True, start: int = 0) -> Chunk:
    headers: list[Any] = [[("traceparent", _traceparent(start + i).encode())] if traced else None for i in range(count)]
    offsets = range(start, start + count)
    return Chunk(Partition(topic, number), 1, offsets, [b"{}"] * count, headers=headers if traced else None)


def _batch(*chunks: Chunk) -> Batch:
    return Batch("batch-1", None, chunks, sum(map(len, chunks)), 10, "count")


def _only(exporter: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exporter.get_finished_spans()
    return span


def test_a_span_follows_the_conventions_of_messaging(make: Any, exporter: InMemorySpanExporter) -> None:
    make().begin(_batch(_chunk(3))).end("accepted", status=200, failed=False)

    span = _only(exporter)
    assert (span.name, span.kind, span.status.status_code) == ("process events", SpanKind.CONSUMER, StatusCode.UNSET)
    assert dict(span.attributes or {}) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.batch.message_count": 3,
        "messaging.consumer.group.name": "group",
        "messaging.client.id": "client",
        "messaging.destination.name": "events",
        "messaging.destination.partition.id": "0",
        "server.address": "app.example.org",
        "server.port": 443,
        "trackly.stream": "sends",
        "trackly.batch_id": "batch-1",
        "trackly.attempt": 1,
        "trackly.row": "accepted",
        "http.response.status_code": 200,
    }
    assert span.resource.attributes["service.name"] == "trackly-connector"
    assert span.resource.attributes["service.instance.id"] == "worker-1"


def test_a_batch_of_several_topics_names_none(make: Any, exporter: InMemorySpanExporter) -> None:
    make().begin(_batch(_chunk(1), _chunk(1, topic="others", number=1))).end("accepted", failed=False)

    span = _only(exporter)
    assert span.name == "process"
    assert {"messaging.destination.name", "messaging.destination.partition.id"}.isdisjoint(span.attributes or {})


@pytest.mark.parametrize(("status", "error"), [(503, "503"), (0, "lost"), (200, "unreadable")])
def test_a_request_that_failed_says_how(make: Any, exporter: InMemorySpanExporter, status: int, error: str) -> None:
    make().begin(_batch(_chunk(1))).end("server_error" if status == 503 else error, status=status)

    span = _only(exporter)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == error


def test_links_lead_to_what_the_producers_said(make: Any, exporter: InMemorySpanExporter) -> None:
    make().begin(_batch(_chunk(2), _chunk(1, number=3, start=70))).end("accepted", failed=False)

    links = _only(exporter).links
    assert [header_of(link.context) for link in links] == [_traceparent(n) for n in (0, 1, 70)]
    assert dict(links[2].attributes or {}) == {
        "messaging.destination.name": "events",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 70,
    }


@pytest.mark.parametrize(("most", "links"), [(0, 0), (1, 1), (32, 32), (1_000, 1_000)])
def test_links_are_bounded(make: Any, exporter: InMemorySpanExporter, most: int, links: int) -> None:
    """The library itself would drop those above 128 without a word."""
    make(max_links=most).begin(_batch(_chunk(600), _chunk(400, start=600))).end("accepted", failed=False)

    assert len(_only(exporter).links) == links


def test_the_same_context_is_linked_once_and_nonsense_never(make: Any, exporter: InMemorySpanExporter) -> None:
    chunk = _chunk(5)
    chunk.headers = [
        [("traceparent", TRACE.encode())],
        [("traceparent", TRACE.encode())],
        [("traceparent", b"x")],
        None,
        [],
    ]
    make().begin(_batch(chunk)).end("accepted", failed=False)

    assert [header_of(link.context) for link in _only(exporter).links] == [TRACE]


@pytest.mark.parametrize("most", [1, 3, 32])
def test_records_that_are_looked_at_are_spread_over_the_batch(most: int) -> None:
    batch = _batch(_chunk(10, traced=False), _chunk(90, traced=False, start=10))

    offsets = [chunk.offsets[place] for chunk, place in sampled(batch, most)]

    assert len(offsets) <= most
    assert len(offsets) > most * 0.7
    assert offsets[0] == 0
    assert most == 1 or offsets[-1] >= 60


def test_a_second_attempt_continues_in_the_same_trace(make: Any, exporter: InMemorySpanExporter) -> None:
    traces, batch = make(), _batch(_chunk(1, traced=False))
    traces.begin(batch).end("server_error", status=503)
    piece = replace(batch, id="batch-2", attempts=1)

    traces.begin(piece).end("accepted", status=200, failed=False)

    first, second = exporter.get_finished_spans()
    assert second.parent is not None
    assert first.context is not None
    assert second.parent.span_id == first.context.span_id
    assert batch.trace == header_of(first.context)
    assert (second.attributes or {})["trackly.attempt"] == 2


def test_what_is_not_sampled_has_a_context_all_the_same(make: Any, exporter: InMemorySpanExporter) -> None:
    batch = _batch(_chunk(1))
    make(sample_ratio=0.0).begin(batch).end("accepted", failed=False)

    assert exporter.get_finished_spans() == ()
    context = context_of(batch.trace)
    assert context is not None
    assert not context.trace_flags.sampled


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (TRACE, TRACE),
        (TRACE.encode(), TRACE),
        ("cc" + TRACE[2:] + "-what-comes-later", TRACE),
        ("ff" + TRACE[2:], None),
        (TRACE + "-more", None),
        (TRACE.upper(), None),
        ("00-" + "0" * 32 + TRACE[35:], None),
        (TRACE[:36] + "0" * 16 + "-01", None),
        (TRACE[:-1], None),
        ("", None),
        (None, None),
        (b"\xff" * 55, None),
        (TRACE + "-" + "x" * 1_000, None),
    ],
)
def test_headers_are_read_as_the_specification_says(
    header: bytes | str | None, known: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """And nothing is logged, whatever a record has there."""
    context = context_of(header)

    assert (None if context is None else header_of(context)) == known
    assert not caplog.records


def test_off_by_default() -> None:
    assert open_traces(TraceSettings(), instance_id="x", base_url="https://x.example") is None


def test_without_the_library_the_settings_say_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = {
        "name": "s",
        "topics": ["t"],
        "operation": "send",
        "outcomes": {"topic": "o"},
        "dead_letters": {"topic": "d"},
    }
    settings = {
        "kafka": {"bootstrap_servers": "b:9092"},
        "trackly": {"api_key": "k"},
        "streams": [stream],
        "traces": {"enabled": True},
    }
    file = tmp_path / "connector.yaml"
    file.write_text(yaml.safe_dump(settings))
    load_settings(file)

    monkeypatch.setattr("connector.config.checks.connections.find_spec", lambda _: None)

    with pytest.raises(
        SettingsError, match=r"traces.enabled: needs the extra otel: pip install 'trackly-connector\[otel\]'"
    ):
        load_settings(file)


# ------------------------------------------------------------------ what results carry on


def _finished(chunk: Chunk, verdict: Verdict, trace: str | None) -> Finished:
    return Finished((chunk,), Verdicts(verdict), "batch-1", attempts=1, trace=trace)


def _headers(item: Finished) -> dict[str, bytes | None]:
    (letter,) = ResultEncoder("s", "send", "g").dead_letters(item, now_ms=0)
    return dict(letter.headers)


def test_outcomes_carry_the_context_of_the_batch() -> None:
    encoder = ResultEncoder("s", "send", "g")
    verdicts = Verdicts(Verdict("queued"), {1: Verdict("dead_letter", "not_sendable")})
    whole, mixed = _finished(_chunk(2), Verdict("queued"), TRACE), _finished(_chunk(2), Verdict("queued"), TRACE)
    mixed.verdicts = verdicts

    for item in (whole, mixed):
        assert [outcomes.headers for outcomes in encoder.outcomes(item)] == [[("traceparent", TRACE.encode())]]
        item.trace = None
        assert [outcomes.headers for outcomes in encoder.outcomes(item)] == [None]


def test_a_dead_letter_keeps_the_context_of_its_record() -> None:
    item = _finished(_chunk(1), Verdict("dead_letter", "not_sendable"), TRACE)

    assert _headers(item)["traceparent"] == _traceparent(0).encode()


def test_a_dead_letter_without_a_context_has_that_of_the_batch() -> None:
    item = _finished(_chunk(1, traced=False), Verdict("dead_letter", "not_sendable"), TRACE)

    assert _headers(item)["traceparent"] == TRACE.encode()
    item.trace = None
    assert "traceparent" not in _headers(item)


class _Collector(BaseHTTPRequestHandler):
    """Repeats what it was sent where a reason belongs, and tells more than anybody wants to hear."""

    ALL: Final = 64
    cut_short: Final = threading.Event()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(400, f"no {self.headers['X-Token']}")
        self.send_header("Content-Length", str(self.ALL << 20))
        self.end_headers()
        try:
            for _ in range(self.ALL):
                self.wfile.write(bytes(1 << 20))
        except OSError:
            self.cut_short.set()

    def log_message(self, *_: Any) -> None:
        pass


def test_of_a_collectors_reply_nothing_is_read_or_repeated(caplog: pytest.LogCaptureFixture) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        traces = open_traces(
            TraceSettings(
                enabled=True,
                endpoint=f"http://127.0.0.1:{server.server_port}/v1/traces",
                headers={"X-Token": SecretStr("not-to-be-told")},
            ),
            instance_id="a",
            base_url="https://example.com/api",
        )
        assert traces is not None
        traces.of_stream("s", "g", "c").begin(_batch(_chunk(1))).end("accepted", failed=False)
        traces.close()
        is_cut_short = _Collector.cut_short.wait(30)
        server.shutdown()

    assert "400" in caplog.text
    assert "not-to-be-told" not in caplog.text
    assert is_cut_short
