"""The web pages: health, readiness, status and metrics for machines, and one page for people.

A GET changes nothing; the page for people holds forms for the one that does (`resuming.py`).
"""

import html
import time
from typing import TYPE_CHECKING, Any, ClassVar

from aiohttp.web import AppRunner
from faust import web
from faust.web.drivers.aiohttp import Web

from connector import __version__
from connector.app.resuming import SAFE_HEADERS, resume_view
from connector.stream.holds import options_for
from connector.telemetry.metrics import render


class PagesOnly(Web):
    """Faust's web server without pages of its own: its index would take the root."""

    default_blueprints: ClassVar[Any] = []
    production_blueprints: ClassVar[Any] = []
    debug_blueprints: ClassVar[Any] = []

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **options)
        self.web_app.on_response_prepare.append(make_safe)
        # A body that is encoded is refused: that it cannot be decoded must not fill the log with tracebacks.
        self._runner = AppRunner(self.web_app, access_log=None, auto_decompress=False)


async def make_safe(_request: Any, response: Any) -> None:
    """Give every reply its headers, those that tell of an unknown page or method as well."""
    response.headers.update(SAFE_HEADERS)


if TYPE_CHECKING:
    from connector.app.application import Connector


def status_of(connector: "Connector") -> dict[str, Any]:
    """Return the state of the worker and of its streams as JSON-ready values."""
    return {
        "version": __version__,
        "instance_id": connector.claim.instance_id,
        "started_at": round(connector.started_at, 3),
        "may_resume": connector.secrets.web_token() is not None,
        "streams": [stream.status() for stream in connector.streams],
    }


def readiness_of(connector: "Connector") -> tuple[bool, dict[str, Any]]:
    """Return whether the worker is able to work, and why not where it is not.

    A hold does not make it unready unless the settings say so: that would block the roll-out that carries the mend.
    """
    strict = connector.settings.readiness.on_hold == "not_ready"
    streams: dict[str, str] = {}
    for stream in connector.streams:
        if not stream.is_ready:
            streams[stream.name] = "failed" if stream.failed else f"{stream.state_name}, not in its group yet"
        elif strict and stream.holds():
            streams[stream.name] = f"on hold: {stream.holds()[0].reason}"
    return not streams, {"ready": not streams, "streams": streams}


def health_of(connector: "Connector") -> tuple[bool, dict[str, Any]]:
    """Return whether a restart could not help, and where it could: what stands still for a reason that nobody knows.

    Whatever the reason is known of (a hold, brokers away, an open transaction of somebody else) is there after a
    restart as well, so that it does not turn the page red: an orchestrator would restart the worker in a loop.
    """
    stuck = [
        {"stream": stream.name, **standstill}
        for stream in connector.streams
        for standstill in stream.standstills()
        if not standstill["known"]
    ]
    return not stuck, {"status": "stalled", "standstills": stuck} if stuck else {"status": "alive"}


def add_pages(connector: "Connector") -> None:
    """Add all pages to the application."""

    @connector.page("/healthz")
    async def healthz(self: web.View, _request: web.Request) -> web.Response:
        alive, told = health_of(connector)
        return self.json(told, status=200 if alive else 503)

    @connector.page("/readyz")
    async def readyz(self: web.View, _request: web.Request) -> web.Response:
        ready, why = readiness_of(connector)
        return self.json(why, status=200 if ready else 503)

    @connector.page("/status")
    async def status(self: web.View, _request: web.Request) -> web.Response:
        return self.json(status_of(connector))

    @connector.page("/metrics")
    async def metrics(self: web.View, _request: web.Request) -> web.Response:
        return self.bytes(render(), content_type="text/plain; version=0.0.4")

    @connector.page("/")
    async def index(self: web.View, _request: web.Request) -> web.Response:
        return self.html(page(status_of(connector)))

    connector.page("/streams/{name}/resume")(resume_view(connector))


def page(status: dict[str, Any]) -> str:
    """Return the status page: plain, without scripts. It reloads itself, unless somebody may be typing into a form."""
    rows = "".join(_row(stream, may_resume=status["may_resume"]) for stream in status["streams"])
    up = round(time.time() - status["started_at"])
    typing = status["may_resume"] and any(map(_waiting, status["streams"]))
    refresh = "" if typing else "<meta http-equiv=refresh content=2>"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8>{refresh}"
        "<meta name=viewport content='width=device-width'><title>Trackly connector</title>"
        "<style>body{font:15px system-ui,sans-serif;margin:2rem;color-scheme:light dark}"
        "table{border-collapse:collapse}td,th{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #8886}"
        "td:first-child,th:first-child{text-align:left}.hold{color:#c00;font-weight:600}</style>"
        f"<h1>Trackly connector</h1><p>version {html.escape(status['version'])}, instance "
        f"{html.escape(status['instance_id'])}, up {up} s. <a href=status>status</a> <a href=metrics>metrics</a></p>"
        f"{_workers(status.get('workers', []))}"
        "<table><tr><th>stream<th>state<th>read<th>queued<th>skipped<th>dead letters<th>in doubt<th>in flight"
        f"<th>limit<th>lag</tr>{rows}</table>"
    )


def _workers(workers: list[dict[str, Any]]) -> str:
    """Return what a supervisor says of its workers; a process that is alone has none."""
    if not workers:
        return ""
    rows = "".join(
        f"<tr><td>{worker['ordinal']}<td>{html.escape(worker['instance_id'])}<td>{worker['pid'] or ''}"
        f"<td>{html.escape(worker['state'])}<td>{worker['restarts']}"
        f"<td>{'' if worker['last_exit'] is None else worker['last_exit']}</tr>"
        for worker in workers
    )
    head = "<tr><th>worker<th>instance<th>process<th>state<th>restarts<th>last exit</tr>"
    return f"<table>{head}{rows}</table><br>"


def _waiting(stream: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the holds of a stream that wait for a person."""
    return [hold for hold in stream["holds"] if hold["ends"] == "operator"]


def _row(stream: dict[str, Any], *, may_resume: bool) -> str:
    dead = ", ".join(f"{html.escape(reason)} {number:,}" for reason, number in sorted(stream["dead_letters"].items()))
    lag = "?" if stream["lag"] is None else f"{stream['lag']:,}"
    row = (
        f"<tr><td>{html.escape(stream['name'])}<td>{html.escape(stream['state'])}<td>{stream['records_read']:,}"
        f"<td>{stream['queued']:,}<td>{stream['skipped']:,}<td>{dead or 0}<td>{stream['in_doubt']:,}"
        f"<td>{stream['in_flight_records']:,}<td>{stream['concurrency_limit']}<td>{lag}</tr>"
    )
    for hold in stream["holds"]:
        row += _wide(_told(hold), "hold")
    if _waiting(stream):
        row += _wide(_form(stream) if may_resume else "To resume from here, set web.token and restart the worker.")
    if stream["pace"] is not None and stream["pace"]["lists"]:
        row += _wide(_paced(stream["pace"]))
    for redrive in stream["redrives"]:
        row += _wide(_redriving(redrive), "hold" if redrive["error"] else "")
    for standstill in stream["standstills"]:
        row += _wide(_stalled(standstill), "" if standstill["known"] else "hold")
    if stream["error"]:
        row += _wide(f"failed: {html.escape(stream['error'])}", "hold")
    return row


def _wide(inner: str, style: str = "") -> str:
    return f"<tr><td colspan=10{f' class={style}' if style else ''}>{inner}</tr>"


def _told(hold: dict[str, Any]) -> str:
    ends = "Ends by itself, when a probe passes"
    if hold["ends"] == "operator":
        ends = "Waits for a person: " + " or ".join(f"<code>{html.escape(line)}</code>" for line in hold["commands"])
    why = f"{html.escape(hold['reason'])}. {html.escape(hold['detail'])}"
    return f"{_whose(hold)}on hold since {_time(hold['since'])} UTC: {why}. {ends}."


def _stalled(standstill: dict[str, Any]) -> str:
    where = html.escape(standstill["partition"] or "the stream as a whole")
    if standstill["offset"] is not None:
        where += f" at offset {standstill['offset']}"
    lag = "" if standstill["lag"] is None else f", {standstill['lag']:,} records behind"
    why = f"{html.escape(standstill['waits_for'])}. {html.escape(standstill['detail'])}"
    return f"{_whose(standstill)}{where} stands still since {_time(standstill['since'])} UTC{lag}: {why}."


def _whose(found: dict[str, Any]) -> str:
    return f"worker {found['worker']}: " if "worker" in found else ""


def _paced(pace: dict[str, Any]) -> str:
    slowest = ", ".join(
        f"{html.escape(told['list'])} {told['waiting_records']:,} ({told['backlog_secs']:,.0f} s)"
        for told in pace["lists"][:5]
    )
    return f"{pace['waiting_records']:,} records wait for the pace of {pace['lists_waiting']:,} lists: {slowest}"


def _redriving(redrive: dict[str, Any]) -> str:
    """Return how a rule stands by which dead letters are sent again."""
    what = f"{_whose(redrive)}redrive {html.escape(redrive['rule'])} ({html.escape(', '.join(redrive['reasons']))}): "
    what += f"{redrive['redriven']:,} sent again, {redrive['waiting']:,} wait"
    if redrive["next_at"] is not None:
        what += f", the next at {_time(redrive['next_at'])} UTC"
    if redrive["held"]:
        what += "; held, as the stream is"
    return f"{what}. {html.escape(redrive['error'])}" if redrive["error"] else f"{what}."


def _time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))


def _form(stream: dict[str, Any]) -> str:
    """Return a form that ends every hold of a stream here which waits for a person: of this worker, or of all below."""
    name = html.escape(stream["name"], quote=True)
    reasons = dict.fromkeys(hold["reason"] for hold in _waiting(stream))
    choices = "".join(_choice(reason) for reason in reasons if options_for(reason))
    return (
        f"<form method=post action='streams/{name}/resume'>{choices}"
        "<label>token <input type=password name=token required autocomplete=off></label> "
        f"<button>Resume {name}</button></form>"
    )


def _choice(reason: str) -> str:
    options = [option.removeprefix("--").split(" ") for option in options_for(reason)]
    field = options[0][0].replace("-", "_")
    words = "".join(f"<option>{html.escape(word)}" for _, word in options)
    return f"<label>{html.escape(field)} <select name={field} required><option value=''>choose{words}</select></label> "
