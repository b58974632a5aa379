"""Schema registries for tests: Apicurio's, as users run it, and one of a few lines that misbehaves as told."""

import json
import ssl
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self

from connector.demo import artifacts
from connector.demo.artifacts import BrokerUnavailableError, java
from connector.demo.broker import SHORT_LIVED, free_ports
from connector.processes import spawn, stop, tail

VERSION: Final = "3.0.9"
_ARTIFACT: Final = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
_STARTUP_SECS: Final = 90.0


def _program() -> Path:
    """Return the folder of the registry, fetched by Maven and unpacked when the cache lacks it (about 110 MB)."""
    home = artifacts._cache_home()
    folder = home / f"apicurio-registry-{VERSION}"
    if folder.is_dir():
        return folder
    home.mkdir(parents=True, exist_ok=True)
    with artifacts.locked(home / f"{folder.name}.lock"):
        if folder.is_dir():  # another one was first
            return folder
        with tempfile.TemporaryDirectory(dir=home, prefix=f"{folder.name}.") as scratch:
            goal = ["dependency:copy", f"-Dartifact={_ARTIFACT}", f"-DoutputDirectory={scratch}"]
            artifacts.run_maven(goal, _ARTIFACT)
            (archive,) = Path(scratch).glob("*.tar.gz")
            with tarfile.open(archive) as packed:
                packed.extractall(Path(scratch) / "made", filter="data")
            (Path(scratch) / "made").rename(folder)
    return folder


class Apicurio:
    """Apicurio Registry in a process of its own, with nothing in it; `url` is the root of its Confluent API."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
        self._log = scratch / "registry.log"
        command = [java(), *SHORT_LIVED, "-Xmx512m"]
        command += [f"-Dquarkus.http.port={port}", "-Dquarkus.http.host=127.0.0.1", "-jar"]
        command.append(str(folder / f"apicurio-registry-app-{VERSION}-runner.jar"))
        self._process = spawn(command, cwd=scratch, log=self._log)

    @classmethod
    def start(cls, scratch: Path) -> Self:
        """Start it and return when it answers; raises `BrokerUnavailableError` where it can't be had."""
        started = cls(_program(), scratch)
        deadline = time.monotonic() + _STARTUP_SECS
        while time.monotonic() < deadline and started._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{started.url}/subjects", timeout=5):
                    return started
            except (OSError, urllib.error.URLError):
                time.sleep(0.2)
        started.close()
        raise BrokerUnavailableError(f"the schema registry does not come up:\n{tail(started._log)}")

    def close(self) -> None:
        """End it."""
        stop(self._process, grace_secs=5.0)


@dataclass(slots=True)
class Answer:
    """What a `TinyRegistry` says to everything while it is told to misbehave."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    after_secs: float = 0.0


@dataclass(eq=False)
class TinyRegistry:
    """Answers for schemas by id, by GUID and by subject, or with `always`; counts what it was asked."""

    tls: ssl.SSLContext | None = None
    authorization: str | None = None
    """The header without which nobody is let in."""
    port: int = 0
    schemas: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By path, such as `schemas/ids/1`."""
    deleted: set[str] = field(default_factory=set)
    """Paths of versions that are there for whoever asks for what was deleted, too."""
    by_path: dict[str, Answer] = field(default_factory=dict)
    always: Answer | None = None
    asked: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # one packet for each answer, as those behind a first one are held back

            def do_GET(self) -> None:
                registry._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http{'s' if self.tls is not None else ''}://localhost:{self.port}"

    def add(self, number: int, text: str, kind: str = "AVRO", *, guid: str | None = None, **more: Any) -> None:
        """Have a schema under an id, and under a GUID."""
        schema = {"schema": text, **({} if kind == "AVRO" else {"schemaType": kind}), **more}
        self.schemas[f"schemas/ids/{number}"] = schema
        if guid is not None:
            self.schemas[f"schemas/guids/{guid}"] = schema

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        path, _, query = request.path.lstrip("/").partition("?")
        self.asked.append(path)
        answer = self.always or self.by_path.get(path)
        if answer is None and self.authorization not in (None, request.headers.get("Authorization")):
            answer = Answer(401, b'{"error_code":401,"message":"Unauthorized"}')
        if answer is None and path == "subjects":
            answer = Answer(200, b"[]")
        if answer is None and path in self.schemas and (path not in self.deleted or query == "deleted=true"):
            answer = Answer(200, json.dumps(self.schemas[path]).encode())
        if answer is None:
            answer = Answer(404, b'{"error_code":40403,"message":"Schema not found"}')
        time.sleep(answer.after_secs)
        try:
            request.send_response(answer.status)
            request.send_header("Content-Type", answer.content_type)
            request.send_header("Content-Length", str(len(answer.body)))
            request.end_headers()
            request.wfile.write(answer.body)
        except OSError:
            pass  # who asked has gone


MakeRegistry = Callable[..., TinyRegistry]
