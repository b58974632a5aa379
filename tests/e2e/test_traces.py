"""Spans of a connector at work reach a collector over OTLP, and lead from producers to results."""

import gzip
import json
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from connector.demo.topics import Record
from tests.kit.world import World

TOKEN: Final = "Bearer a-token-of-the-collector"


class Collector:
    """Takes OTLP over HTTP, as a collector does, and keeps what came."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.requests: list[ExportTraceServiceRequest] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                outer.headers.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
                outer.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name)
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def spans(self) -> list[Any]:
        return [
            s for r in self.requests for group in r.resource_spans for scope in group.scope_spans for s in scope.spans
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def _header(message: Any, name: str) -> str | None:
    value = dict(message.headers() or []).get(name)
    return value.decode() if isinstance(value, bytes) else value


def _records(collector: Collector) -> int:
    """Return how many records the spans that came are of."""
    attributes = [attribute for span in collector.spans() for attribute in span.attributes]
    return sum(a.value.int_value for a in attributes if a.key == "messaging.batch.message_count")


def _context(span: Any) -> str:
    return f"00-{span.trace_id.hex()}-{span.span_id.hex()}"


def test_spans_lead_from_producers_over_batches_to_results(world: World, collector: Collector) -> None:
    theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    events = [
        Record(json.dumps({"to": f"+1555{n:07d}", "body": f"text {n}"}).encode(), b"text %d" % n) for n in range(40)
    ]
    traced = [Record(e.value, e.key, headers=[("traceparent", theirs.encode())]) for e in events[:20]]
    world.produce([*traced, *events[20:]])
    world.produce(
        [Record(b'{"to":"+15550000000"}', b"no text", headers=[("traceparent", theirs.encode())])], "missing_body"
    )
    traces = {"enabled": True, "endpoint": collector.url, "headers": {"Authorization": TOKEN}, "service_name": "texts"}
    worker = world.start(world.settings({"traces": traces}))
    worker.wait_for(lambda s: s["queued"] == 40 and s["dead_letters"], "all settled")

    assert worker.stop() == 0

    spans = collector.spans()
    assert spans
    assert {header["path"] for header in collector.headers} == {"/v1/traces"}
    assert {header["authorization"] for header in collector.headers} == {TOKEN}
    names = {a.key: a.value.string_value for a in collector.requests[0].resource_spans[0].resource.attributes}
    assert names["service.name"] == "texts"
    assert {span.name for span in spans} == {f"process {world.source}"}
    assert _records(collector) == 40
    assert {_context(link) for span in spans for link in span.links} == {theirs[:-3]}
    outcomes = world.topics.read(world.outcomes)
    assert {(_header(outcome, "traceparent") or "")[:-3] for outcome in outcomes} == set(map(_context, spans))
    (letter,) = world.topics.read(world.dead_letters)
    assert _header(letter, "traceparent") == theirs
    assert TOKEN not in worker.log.read_text()
    assert world.settled().problems() == []


def test_a_token_given_by_file_is_read_again(world: World, collector: Collector) -> None:
    """A collector's token that was replaced goes with the next spans, without a restart."""
    token = world.folder / "collector_token"
    token.write_text("the-old-token\n")
    traces = {"enabled": True, "endpoint": collector.url, "headers": {"Authorization": f"Bearer ${{file:{token}}}"}}
    worker = world.start(world.settings({"traces": traces}), env={"OTEL_BSP_SCHEDULE_DELAY": "100"})
    world.produce_sends(10)
    worker.wait_for(lambda _: _records(collector) == 10, "the spans of the first")
    told = len(collector.headers)

    token.write_text("the-new-token\n")
    worker.process.send_signal(signal.SIGHUP)
    worker.wait_for(lambda _: "secrets changed" in worker.log.read_text(), "the new token")
    world.produce_sends(10, tag="later")
    worker.wait_for(lambda _: _records(collector) == 20, "the spans of the others")

    assert worker.stop() == 0
    tokens = [header["authorization"] for header in collector.headers]
    assert (set(tokens[:told]), set(tokens[told:])) == ({"Bearer the-old-token"}, {"Bearer the-new-token"})
    assert "-token" not in worker.log.read_text().replace("collector_token", "")


def test_a_collector_that_is_away_stops_nothing(world: World, collector: Collector) -> None:
    collector.close()
    world.produce_sends(500)
    worker = world.start(world.settings({"traces": {"enabled": True, "endpoint": collector.url, "timeout_secs": 1}}))
    worker.wait_for(lambda s: s["queued"] == 500, "all settled")

    assert worker.stop() == 0
    assert world.settled().problems() == []
