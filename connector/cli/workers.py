"""What `pause` and `resume` send to workers, and how they print the answers.

A hold belongs to the worker that has it, and one in doubt to the owner of the partition: so the same decision may be
sent to every worker of a group, and those that have nothing to end report that.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

import typer

from connector.app.loading import load
from connector.cli.errors import CommandError
from connector.config.hosts import check_url
from connector.config.messages import PATTERNS
from connector.config.settings import Settings
from connector.config.streams import STREAM_NAME
from connector.telemetry.runbook import runbook_of

TOKEN_VARIABLE: Final = "TRACKLY_CONNECTOR_TOKEN"  # noqa: S105 (the name of a variable)
DEFAULT_URL: Final = "http://127.0.0.1:8080"
_TIMEOUT_SECS: Final = 15.0

Form = list[tuple[str, str]]


def _stream(name: str) -> str:
    if re.fullmatch(STREAM_NAME, name) is None:
        raise typer.BadParameter(PATTERNS[STREAM_NAME])
    return name


StreamName = Annotated[
    str, typer.Argument(help="Name of the stream.", metavar="STREAM", show_default=False, callback=_stream)
]
WorkerConfig = Annotated[
    Path | None,
    typer.Option(help="Settings file of the worker, for its web.host, web.port and web.token."),
]
WorkerUrls = Annotated[
    list[str] | None,
    typer.Option(help="Address of a worker's pages; may be repeated, once for each worker of the group."),
]
AsLines = Annotated[bool, typer.Option("--json", help="Print JSON, one line for each worker.")]


def send_to_workers(
    config: Path | None, url: list[str] | None, stream: str, action: str, form: Form, *, as_json: bool
) -> list["Answer"]:
    """Send the same to every worker, print each answer, and return the answers."""
    settings = load(config, asks={"pages"}) if config is not None else None
    urls = [_checked(address) for address in url or [_address(settings)]]
    docs_url = None if settings is None else settings.docs_url
    answers = list(_ask(urls, stream, action, form, _token(settings)))
    for answer in answers:
        typer.echo(json.dumps(answer.as_json()) if as_json else "\n".join(answer.lines(docs_url)))
    return answers


@dataclass(frozen=True, slots=True)
class Answer:
    """A worker's answer, or why there is none."""

    url: str
    status: int
    body: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether the worker did what was requested."""
        return self.status == 200

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {"url": self.url, "ok": self.ok, **self.body}

    def lines(self, docs_url: str | None = None) -> Iterator[str]:
        """Yield the answer for people."""
        if "problem" in self.body:
            yield f"{self.url}: {self.body['problem']}"
            return
        for hold in self.body.get("undecided", ()):
            yield (
                f"{self.url}: {_spelled(hold)} needs {' or '.join(hold['needs'])}; nothing was changed; "
                f"see {runbook_of(hold['reason'], docs_url)}"
            )
        for hold in self.body.get("ended", ()):
            yield f"{self.url}: {_spelled(hold)} ended"
        for hold in self.body.get("probed", ()):
            yield (
                f"{self.url}: {_spelled(hold)} ends when a probe passes; probing now; "
                f"see {runbook_of(hold['reason'], docs_url)}"
            )
        for hold in self.body.get("paused", ()):
            yield f"{self.url}: {_spelled(hold)}; what is in flight finishes"
        if not any(self.body.get(key) for key in ("undecided", "ended", "probed", "paused")):
            yield f"{self.url}: nothing to resume"


def _spelled(hold: dict[str, Any]) -> str:
    """Return which hold it is, and of which worker, if a supervisor answers for several."""
    partition = f" of {hold['partition']}" if hold.get("partition") else ""
    worker = f" at worker {hold['worker']}" if "worker" in hold else ""
    return f"{hold['reason']}{partition}{worker}"


def _token(settings: Settings | None) -> str:
    if settings is not None and settings.web.token is not None:
        return settings.web.token.get_secret_value()
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token and settings is not None:
        raise CommandError(
            "the settings have no web.token",
            way_out=f"set it and restart the worker, which allows no changes without it; or set {TOKEN_VARIABLE}",
        )
    if not token:
        raise CommandError(
            "no token", way_out=f"give a settings file with web.token with --config, or set {TOKEN_VARIABLE}"
        )
    if not (token.isascii() and token.isprintable()):
        raise CommandError(
            f"the token in {TOKEN_VARIABLE} must be printable ASCII",
            way_out="set it to the worker's web.token, without a line break",
        )
    return token


def _address(settings: Settings | None) -> str:
    if settings is None:
        return DEFAULT_URL
    web = settings.web
    if not web.enabled or web.port == 0:
        raise CommandError("the settings have no address of the pages", way_out="give it with --url")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(web.host, web.host)  # noqa: S104 (asked, not served)
    return f"http://[{host}]:{web.port}" if ":" in host else f"http://{host}:{web.port}"


def _checked(url: str) -> str:
    try:
        return check_url(url)
    except ValueError:
        raise typer.BadParameter("should be such as http://127.0.0.1:8080", param_hint="--url") from None


def _ask(urls: list[str], stream: str, action: str, form: Form, token: str) -> Iterator[Answer]:
    """Send the same to every worker, and yield each answer."""
    import httpx

    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/x-www-form-urlencoded"}
    # No proxies of the environment: they would see the token.
    content = urlencode(form, errors="replace")  # arguments may not be valid text
    with httpx.Client(timeout=_TIMEOUT_SECS, trust_env=False, headers=headers) as client:
        for url in urls:
            try:
                reply = client.post(f"{url}/streams/{quote(stream, safe='')}/{action}", content=content)
            except httpx.HTTPError as error:
                yield Answer(url, 0, {"problem": f"cannot be asked: {error}"})
            else:
                yield _answer(url, reply.status_code, reply.content)


def _answer(url: str, status: int, content: bytes) -> Answer:
    """Return an answer; what a worker of the connector would not answer is a problem."""
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    if isinstance(body, dict) and ("problem" in body or isinstance(body.get("ended"), list)):
        return Answer(url, status, body)
    return Answer(url, 0, {"problem": f"HTTP {status}: this is not a worker of the connector"})
