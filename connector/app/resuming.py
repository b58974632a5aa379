"""The one page that changes something: POST /streams/NAME/resume, for whoever knows the token.

The token is the whole protection, so it is asked for with each request, in the `Authorization` header or as a field of
the form, and never in the address, which ends up in logs. No cookie is set or read: a page of somebody else cannot
make a browser do this. Nothing of a request is believed before the token has been compared, in a time that does not
tell how much of it was right.
"""

import asyncio
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from aiohttp.web import RequestPayloadError
from faust import web
from pydantic import SecretStr

from connector.core.chunks import Partition
from connector.stream.holds import Decision, HoldSeen, Resumed, options_for, spelled
from connector.stream.state import now
from connector.telemetry.logging import get_logger

if TYPE_CHECKING:
    from connector.app.application import Connector

MAX_BODY_BYTES: Final = 16_384
"""Room for some hundred partitions; the answer to more is 413."""

_MAX_FIELDS: Final = 300
_BODY_SECS: Final = 10.0
_REPORT_SECS: Final = 10.0
"""Refused attempts are logged this often at most: whoever guesses shall not fill the disk."""

IN_DOUBT: Final = ("dead_letter", "resend")
FOREIGN_METADATA: Final = ("discard",)

log = get_logger("resume")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the page says: a status and JSON-ready values."""

    status: int
    body: dict[str, Any]


class RefusedError(Exception):
    """A request is not carried out; the message says why, and repeats nothing of what was sent."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Doorkeeper:
    """Compares tokens, and remembers when it last told of one that was wrong."""

    def __init__(self) -> None:
        self._told = float("-inf")
        self._refused = 0

    def check(self, expected: SecretStr | None, given: str | None, remote: str | None) -> None:
        """Raise `RefusedError` unless this is the token."""
        if expected is None:
            text = "nothing can be changed through the pages: no token is set; set web.token and restart the worker"
            raise RefusedError(403, text)
        # A header that is not text comes with surrogates.
        right = hmac.compare_digest((given or "").encode(errors="surrogateescape"), _bytes(expected))
        if given is not None and right:
            return
        self._refused += 1
        if now() - self._told > _REPORT_SECS:
            log.warning("resume refused: wrong token", remote=remote, times=self._refused)
            self._told, self._refused = now(), 0
        missing = "no token was given: send it as Authorization: Bearer TOKEN, or as the form's field token"
        raise RefusedError(401, missing if given is None else "the token is wrong")


def _bytes(secret: SecretStr) -> bytes:
    return secret.get_secret_value().encode()


def token_in(header: str | None) -> str | None:
    """Return the token of an `Authorization` header, None when there is none."""
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def decision_in(form: list[tuple[str, str]]) -> Decision:
    """Return what a form decides; raises `RefusedError`. Choices that are empty were not made."""
    partitions = set()
    choices: dict[str, str] = {}
    known: Mapping[str, tuple[str, ...]] = {"in_doubt": IN_DOUBT, "foreign_metadata": FOREIGN_METADATA}
    for name, value in form:
        if name == "partition":
            partitions.add(_partition(value))
        elif name in known and value in known[name]:
            choices[name] = value
        elif name in known and value:
            raise RefusedError(400, f"{name} must be {' or '.join(known[name])}")
        elif name not in {*known, "token"}:
            raise RefusedError(400, "only token, partition, in_doubt and foreign_metadata are known")
    return Decision(frozenset(partitions), **choices)  # type: ignore[arg-type] # each was looked up above


def _partition(text: str) -> Partition:
    topic, _, number = text.rpartition(":")
    if not topic or not (number.isascii() and number.isdigit()) or len(number) > 9:
        raise RefusedError(400, "partition must be TOPIC:NUMBER")
    return Partition(topic, int(number))


async def answer(connector: "Connector", doorkeeper: Doorkeeper, request: Any, name: str) -> Answer:
    """Carry out a request to resume a stream."""
    try:
        form = await _form_of(connector.secrets.web_token(), doorkeeper, request)
        stream = next((stream for stream in connector.streams if stream.name == name), None)
        if stream is None:
            raise RefusedError(404, "there is no such stream here")  # noqa: TRY301
        decision = decision_in(form)
        if stream.state_name != "running":
            raise RefusedError(409, f"the stream is {stream.state_name}")  # noqa: TRY301
    except RefusedError as error:
        return Answer(error.status, {"problem": str(error)})
    resumed = stream.resume(decision)
    told = told_of(resumed)
    log.info("resume", stream=name, remote=request.remote, **told)
    status = 409 if resumed.undecided else 200
    return Answer(status, {"stream": name, "instance_id": connector.claim.instance_id, **told})


async def _form_of(expected: SecretStr | None, doorkeeper: Doorkeeper, request: Any) -> list[tuple[str, str]]:
    """Return the fields of a request that has the token; without one in the header the body is read to find it."""
    given = token_in(request.headers.get("Authorization"))
    if expected is None or given is not None:
        doorkeeper.check(expected, given, request.remote)
    body = await read_body(request)
    form: list[tuple[str, str]] | None
    try:
        form = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=_MAX_FIELDS)
    except ValueError:
        form = None
    if given is None:
        token = next((value for field, value in form or () if field == "token"), None)
        doorkeeper.check(expected, token, request.remote)
    if form is None:
        raise RefusedError(400, "the body must be a form (application/x-www-form-urlencoded)")
    return form


def told_of(resumed: Resumed) -> dict[str, Any]:
    """Return what came of a decision as JSON-ready values."""
    return {
        "ended": [_named(seen) for seen in resumed.ended],
        "probed": [_named(seen) for seen in resumed.probed],
        "undecided": [{**_named(seen), "needs": list(options_for(seen.hold.reason))} for seen in resumed.undecided],
        "not_held": [spelled(partition) for partition in resumed.not_held],
    }


def _named(seen: HoldSeen) -> dict[str, Any]:
    return {"reason": seen.hold.reason, "partition": None if seen.partition is None else spelled(seen.partition)}


async def read_body(request: Any) -> bytes:
    """Return the body of a request; raises `RefusedError` when it is encoded, too large, too slow or broken off."""
    if request.headers.get("Content-Encoding") is not None:
        raise RefusedError(415, "the body must not be encoded")
    try:
        async with asyncio.timeout(_BODY_SECS):
            return await _body(request)
    except TimeoutError as error:
        raise RefusedError(408, "the body did not come in time") from error
    except (ConnectionError, RequestPayloadError) as error:
        raise RefusedError(400, "the body broke off") from error


async def _body(request: Any) -> bytes:
    """Return the body; what comes after it is too large is not read."""
    too_large = RefusedError(413, f"the body has more than {MAX_BODY_BYTES} bytes")
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise too_large
    return bytes(body)


def resume_view(connector: "Connector") -> type[web.View]:
    """Return the page that resumes streams of this application."""
    doorkeeper = Doorkeeper()

    class ResumePage(web.View):
        """POST alone: whatever else is asked for is answered with 405."""

        async def post(self, request: Any, name: str) -> Any:
            found = await answer(connector, doorkeeper, request, name)
            headers = headers_of(found)
            if "text/html" not in request.headers.get("Accept", ""):
                return self.json(found.body, status=found.status, headers=headers)
            if found.status == 200:
                return self.text("", status=303, headers={**headers, "Location": "../../"})
            return self.text(for_people(found), status=found.status, headers=headers)

    return ResumePage


SAFE_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every page: nothing is loaded, framed, guessed at or kept."""


def headers_of(found: Answer) -> dict[str, str]:
    """Return the headers that an answer has beside those of every page."""
    headers = {}
    if found.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="trackly-connector"'
    if found.status in {408, 413, 415}:
        headers["Connection"] = "close"
    return headers


def for_people(found: Answer) -> str:
    """Return an answer that changed nothing, or not all, as text."""
    if "problem" in found.body:
        return f"{found.body['problem']}\n"
    lines = [f"{hold['reason']}: choose one of {', '.join(hold['needs'])}\n" for hold in found.body["undecided"]]
    return "".join(["Nothing was changed. What is still to be said:\n", *lines])
