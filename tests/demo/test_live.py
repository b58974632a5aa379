import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
import pytest
from rich.console import Console

from connector.demo.live import Hold, StatusPage, StreamStatus, live_view, watch
from tests.kit.patience import PATIENCE_SECS

_STREAM = {
    "name": "sends",
    "state": "running",
    "records_read": 90,
    "queued": 70,
    "skipped": 2,
    "dead_letters": {"invalid_phone": 3, "in_doubt": 5},
    "in_flight_records": 10,
    "in_flight_requests": 2,
    "lag": 20,
    "hold": {"reason": "unauthorized", "since": 1.5, "detail": "401", "ends": "when a probe passes"},
    "a field of tomorrow": True,
}


class _Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status = 200

    def do_GET(self) -> None:
        body = orjson.dumps({"streams": [_STREAM], "version": "0"})
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Write nothing to stderr."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=lambda: running.serve_forever(poll_interval=0.01))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def page(server: ThreadingHTTPServer) -> Iterator[StatusPage]:
    asked = StatusPage(f"http://127.0.0.1:{server.server_port}/status")
    yield asked
    asked.close()


def test_the_first_stream_of_the_page_is_read(page: StatusPage) -> None:
    status = page.ask()

    assert status.settled == 80
    assert status.hold == Hold("unauthorized")


def test_before_the_page_answers_nothing_has_happened() -> None:
    page = StatusPage("http://127.0.0.1:1/status")

    assert page.ask() == StreamStatus()

    page.close()


def test_a_page_that_fails_leaves_the_last_answer(page: StatusPage, monkeypatch: pytest.MonkeyPatch) -> None:
    page.ask()
    monkeypatch.setattr(_Page, "status", 503)
    monkeypatch.setitem(_STREAM, "queued", 71)

    assert page.ask().queued == 70


def test_watching_ends_as_soon_as_the_status_will_do(page: StatusPage) -> None:
    shown: list[StreamStatus] = []

    assert watch(page, shown.append, lambda status: status.settled >= 80, timeout_secs=PATIENCE_SECS)
    assert [status.settled for status in shown] == [80]


def test_watching_ends_when_the_time_is_over(page: StatusPage) -> None:
    assert not watch(page, lambda _status: None, lambda _status: False, timeout_secs=0.3)


def test_a_terminal_shows_counts_reasons_and_the_hold(page: StatusPage) -> None:
    out = io.StringIO()

    with live_view(Console(file=out, force_terminal=True, width=80), lambda: 100_000) as show:
        show(page.ask())

    text = out.getvalue()
    for expected in ("100,000", "hold: unauthorized", "10 in 2 requests", "invalid_phone", "in_doubt", "72"):
        assert expected in text


def test_a_pipe_gets_lines_now_and_then(page: StatusPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connector.demo.live._LINE_SECS", 0.0)
    out = io.StringIO()

    with live_view(Console(file=out, force_terminal=False), lambda: 100) as show:
        show(page.ask())

    assert out.getvalue() == (
        "produced 100, outcomes 72, dead letters 8, in flight 10, 0 records/s, hold: unauthorized\n"
    )
