"""The web pages for programs: health, readiness, status, metrics, and actions; people use the console.

A GET changes nothing. A supervised worker serves only these, on a socket; the console is the supervisor's.
"""

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from aiohttp import web
from faust.web.drivers.aiohttp import Web
from pydantic import SecretStr

from connector import __version__
from connector.app.resuming import act
from connector.config.settings import Settings
from connector.console.guarding import Form, RefusedError, TokenGuard, answered, form_of, make_safe, runner_of
from connector.console.listening import not_listening
from connector.console.pages import Console
from connector.telemetry.logging import get_logger
from connector.telemetry.metrics import render

log = get_logger("pages")

SERVICE_LOG: Final = logging.getLogger("mode")
"""The logger for services, instead of their module's: Faust logs at level info what it starts and stops."""


class PagesOnly(Web):
    """Faust's web server without pages of its own: its index would take the root."""

    logger = SERVICE_LOG
    default_blueprints: ClassVar[Any] = []
    production_blueprints: ClassVar[Any] = []
    debug_blueprints: ClassVar[Any] = []

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **options)
        self.web_app.on_response_prepare.append(make_safe)
        self._runner = runner_of(self.web_app)

    async def start_server(self) -> None:
        """Listen, and log where; raises `PagesError`."""
        web_settings = cast("Connector", self.app).settings.web
        try:
            await super().start_server()
        except OSError as error:
            raise not_listening(web_settings, error) from error
        for address in self._runner.addresses:
            if isinstance(address, tuple):  # otherwise the socket of a supervised worker
                log.info("pages", host=address[0], port=address[1])

    def _new_transport_tcp(self) -> web.TCPSite:
        conf = self.app.conf
        any_port = cast("Connector", self.app).settings.web.port == 0
        return web.TCPSite(self._runner, conf.web_bind, 0 if any_port else conf.web_port)


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
    """Return whether the worker is able to work, and if not, why.

    A hold does not make it unready unless the settings say so: that would block the deployment that contains the fix.
    """
    strict = connector.settings.readiness.on_hold == "not_ready"
    streams: dict[str, str] = {}
    for stream in connector.streams:
        if not stream.is_ready:
            streams[stream.name] = "failed" if stream.failed else f"{stream.state_name}, not in its group"
        elif strict and stream.holds():
            streams[stream.name] = f"on hold: {stream.holds()[0].reason}"
    return not streams, {"ready": not streams, "streams": streams}


def health_of(connector: "Connector") -> tuple[bool, dict[str, Any]]:
    """Return whether no restart is needed, and where one could help: what stands still for an unknown cause.

    A known cause (a hold, unreachable brokers, another producer's open transaction) would persist after a restart, so
    it does not turn the page red: an orchestrator would restart the worker in a loop.
    """
    stuck = [
        {"stream": stream.name, **standstill}
        for stream in connector.streams
        for standstill in stream.standstills()
        if not standstill["known"]
    ]
    return not stuck, {"status": "stalled", "standstills": stuck} if stuck else {"status": "alive"}


class WorkerHost:
    """A single worker, as the console sees it."""

    def __init__(self, connector: "Connector") -> None:
        self._connector = connector

    @property
    def settings(self) -> Settings:
        """Return the settings."""
        return self._connector.settings

    def token(self) -> SecretStr | None:
        """Return the token as it was last read."""
        return self._connector.secrets.web_token()

    async def status(self) -> dict[str, Any]:
        """Return the content of `/status`."""
        return status_of(self._connector)

    async def act(self, stream: str, action: str, form: Form, *, remote: str | None) -> tuple[int, dict[str, Any]]:
        """Pause or resume a stream."""
        return act(self._connector, stream, action, form, remote=remote)


def add_pages(connector: "Connector") -> None:
    """Add all pages to the application."""
    site = cast(PagesOnly, connector.web).web_app
    token_guard = TokenGuard()

    async def healthz(_request: web.Request) -> web.Response:
        alive, told = health_of(connector)
        return web.json_response(told, status=200 if alive else 503)

    async def readyz(_request: web.Request) -> web.Response:
        ready, why = readiness_of(connector)
        return web.json_response(why, status=200 if ready else 503)

    async def status(_request: web.Request) -> web.Response:
        return web.json_response(status_of(connector))

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=render(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def acting(request: web.Request) -> web.Response:
        """Resume or pause a stream for a program that has the token."""
        name, action = request.match_info["name"], request.match_info["action"]
        try:
            form = await form_of(connector.secrets.web_token(), token_guard, request)
        except RefusedError as error:
            return answered(error.status, {"problem": str(error)})
        return answered(*act(connector, name, action, form, remote=request.remote))

    site.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/status", status),
            web.get("/metrics", metrics),
            web.post("/streams/{name}/{action}", acting),
        ]
    )
    if not connector.is_supervised:
        Console(WorkerHost(connector)).add_to(site)
