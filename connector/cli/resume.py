"""`trackly-connector resume`: end the holds of a stream that wait for a person, on each given worker.

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
from connector.cli.errors import CommandError, ExitCode, reported
from connector.cli.topics import topic_named
from connector.config.hosts import check_url
from connector.config.messages import PATTERNS
from connector.config.settings import Settings
from connector.config.streams import STREAM_NAME
from connector.core.chunks import Partition
from connector.stream.holds import ForeignChoice, InDoubtChoice, MissingChoice
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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one line for each worker.")]


@reported()
def resume(
    stream: StreamName,
    *,
    config: WorkerConfig = None,
    url: WorkerUrls = None,
    partition: Annotated[
        list[str] | None,
        typer.Option(help="TOPIC:NUMBER; may be repeated. Only these partitions, and not the stream as a whole."),
    ] = None,
    in_doubt: Annotated[
        InDoubtChoice | None, typer.Option(help="For holds in_doubt: what to do with the records.", show_default=False)
    ] = None,
    foreign_metadata: Annotated[
        ForeignChoice | None,
        typer.Option(
            help="For holds foreign_metadata: start at the committed offset; what was sent above it is sent again.",
            show_default=False,
        ),
    ] = None,
    progress_missing: Annotated[
        MissingChoice | None,
        typer.Option(
            help="For holds progress_missing: begin as start says; what was posted before is posted again, or with "
            "latest what is unread is passed over.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """End the holds of a stream that wait for a person; holds that end by a probe are probed at once.

    The token is taken from the settings file, or from the variable TRACKLY_CONNECTOR_TOKEN. Exit code 1: a worker
    cannot be reached or rejects the request, a decision is missing, or no worker has a hold on a given partition.
    """
    partitions = [_partition(name) for name in partition or ()]
    form = [("partition", name) for name in partitions]
    decided = {"in_doubt": in_doubt, "foreign_metadata": foreign_metadata, "progress_missing": progress_missing}
    form += [(name, choice) for name, choice in decided.items() if choice is not None]
    answers = said(config, url, stream, "resume", form, as_json=as_json)
    not_held = set(partitions).intersection(*(answer.body.get("not_held", ()) for answer in answers))
    if not_held and not as_json:
        typer.echo(f"no worker that was asked has a hold on {', '.join(sorted(not_held))}", err=True)
    if not_held or not all(answer.ok for answer in answers):
        raise typer.Exit(ExitCode.FAILED)


def said(
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


def _partition(name: str) -> str:
    """Return a partition in the spelling of workers, with whose answers it is compared."""
    try:
        partition = Partition.read(name)
    except ValueError as error:
        raise typer.BadParameter(f"{error}, not {name!r}", param_hint="--partition") from None
    topic_named("--partition", partition.topic)
    return str(partition)


def _token(settings: Settings | None) -> str:
    if settings is not None and settings.web.token is not None:
        return settings.web.token.get_secret_value()
    token = os.environ.get(TOKEN_VARIABLE, "")
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
