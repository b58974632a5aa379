"""What connectors need beside broker and platform: a schema registry that knows one schema, a collector of spans.

Each connector asks the registry once, and the collector throws away what it is given: neither is part of what is
measured.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

SCHEMA_ID: Final = 1
FRAME: Final = b"\0" + SCHEMA_ID.to_bytes(4)
SEND: Final = {
    "type": "record",
    "name": "Send",
    "fields": [{"name": name, "type": "string"} for name in ("to", "body", "list_number")],
}
"""The events of the other contestants, field by field."""


def avro(to: str, body: str, list_number: str) -> bytes:
    """Return an event in Confluent's frame; the texts have fewer than 8,192 bytes each."""
    return FRAME + b"".join(map(_text, (to, body, list_number)))


def _text(text: str) -> bytes:
    length = 2 * len(text)  # zigzag
    return (bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])) + text.encode()


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.path == f"/schemas/ids/{SCHEMA_ID}"
        answer: dict[str, Any] = {"schema": json.dumps(SEND)} if known else {"error_code": 40403}
        self._answer(200 if known else 404, json.dumps(answer).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serve() -> Iterator[str]:
    """Yield the address of both while they run."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, name="services", daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
