"""The pages of a supervisor: one address for all workers, whose own pages are on Unix sockets.

Each page queries all workers when it is requested, and merges their answers. A POST is forwarded unchanged: each worker
checks the token, the supervisor does not look at it.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
from aiohttp import web
from pydantic import SecretStr

from connector import __version__
from connector.config.secrets import Secrets
from connector.config.settings import Settings
from connector.console.guarding import Form, RefusedError, answered, make_safe, read_body, runner_of
from connector.console.joining import WorkerAnswer, joined_health, joined_readiness, joined_resumed, joined_streams
from connector.console.listening import not_listening
from connector.console.pages import Console
from connector.telemetry.logging import get_logger
from connector.telemetry.metrics import render_workers
from connector.workers.worker import Worker

_ASK_SECS: Final = 5.0
_RESUME_SECS: Final = 12.0
_NOTICED_SECS: Final = 0.3
"""Upper bound for the time from when a worker's socket closes until its exit is noticed."""
_FORM: Final = "application/x-www-form-urlencoded"
_PASSED_ON: Final = ("Authorization", "Content-Type")

log = get_logger("workers")


class Pages:
    """Serves the pages between `start` and `stop`. `about` returns what `/status` says about the supervisor itself."""

    def __init__(
        self, settings: Settings, secrets: Secrets, workers: list[Worker], about: Callable[[], dict[str, Any]]
    ) -> None:
        self.settings = settings
        self._secrets = secrets
        self._workers = workers
        self._about = about
        self._sessions: dict[int, aiohttp.ClientSession] = {}
        app = web.Application()
        app.on_response_prepare.append(make_safe)
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/status", self._status),
                web.get("/metrics", self._metrics),
                web.post("/streams/{name}/{action}", self._pass_on),
            ]
        )
        Console(self).add_to(app)
        self._runner = runner_of(app)

    async def start(self) -> None:
        """Listen; raises `PagesError`."""
        host, port = self.settings.web.host, self.settings.web.port
        for worker in self._workers:
            # A restarted worker has the same path, but needs new connections.
            through = aiohttp.UnixConnector(str(worker.socket), force_close=True)
            self._sessions[worker.ordinal] = aiohttp.ClientSession(connector=through)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self.stop()
            raise not_listening(self.settings.web, error) from error
        log.info("pages", host=host, port=self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Close everything."""
        await asyncio.gather(*(session.close() for session in self._sessions.values()))
        await self._runner.cleanup()

    async def _healthz(self, _request: web.Request) -> web.Response:
        alive, told = joined_health(await self._ask_all("/healthz"))
        return web.json_response(told, status=200 if alive else 503)

    async def _readyz(self, _request: web.Request) -> web.Response:
        ready, why = joined_readiness(await self._ask_all("/readyz"))
        return web.json_response(why, status=200 if ready else 503)

    async def _status(self, _request: web.Request) -> web.Response:
        code, status = await self._joined_status()
        return web.json_response(status, status=code)

    async def _metrics(self, _request: web.Request) -> web.Response:
        answers = await self._ask_all("/metrics", decode=bytes.decode)
        told = {int(one.ordinal): one.body for one in answers if one.status == 200}
        return web.Response(
            body=render_workers(told, [worker.seen() for worker in self._workers]),
            headers={"Content-Type": "text/plain; version=0.0.4"},
        )

    async def _pass_on(self, request: web.Request) -> web.Response:
        name, action = request.match_info["name"], request.match_info["action"]
        try:
            body = await read_body(request)
        except RefusedError as error:
            return answered(error.status, {"problem": str(error)})
        headers = {key: request.headers[key] for key in _PASSED_ON if key in request.headers}
        status, told = joined_resumed(await self._ask_all(request.rel_url.raw_path, post=body, headers=headers))
        if status == 200:
            log.info("forwarded to all workers", action=action, stream=name, remote=request.remote)
        return answered(status, told)

    # ------------------------------------------------------------------ for the console

    def token(self) -> SecretStr | None:
        """Return the token as it was last read."""
        return self._secrets.web_token()

    async def status(self) -> dict[str, Any]:
        """Return the content of `/status`."""
        return (await self._joined_status())[1]

    async def act(self, stream: str, action: str, form: Form, *, remote: str | None) -> tuple[int, dict[str, Any]]:
        """Pause or resume a stream on every worker."""
        token = self.token()
        assert token is not None, "nobody has logged in without one"
        headers = {"Authorization": f"Bearer {token.get_secret_value()}", "Content-Type": _FORM}
        path = f"/streams/{quote(stream, safe='')}/{action}"
        status, told = joined_resumed(await self._ask_all(path, post=urlencode(form).encode(), headers=headers))
        log.info("forwarded to all workers", action=action, stream=stream, remote=remote, status=status)
        return status, told

    async def _joined_status(self) -> tuple[int, dict[str, Any]]:
        """Return the HTTP status and content of the status page; 503 while no worker can report a stream."""
        answers = await self._ask_all("/status")
        answered = [one for one in answers if one.status == 200]
        states = {one.ordinal: one.state for one in answers}
        return 200 if answered else 503, {
            "version": __version__,
            **self._about(),
            "may_resume": any(one.body["may_resume"] for one in answered),
            "workers": [{**worker.status(), "state": states[worker.ordinal]} for worker in self._workers],
            "streams": joined_streams(answers),
        }

    async def _ask_all(
        self,
        path: str,
        *,
        post: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        decode: Callable[[bytes], Any] = json.loads,
    ) -> list[WorkerAnswer]:
        return await asyncio.gather(*(self._ask(worker, path, post, headers, decode) for worker in self._workers))

    async def _ask(
        self,
        worker: Worker,
        path: str,
        post: bytes | None,
        headers: Mapping[str, str] | None,
        decode: Callable[[bytes], Any],
    ) -> WorkerAnswer:
        if not worker.is_up:
            return WorkerAnswer(worker.ordinal, worker.state)
        method, secs = ("GET", _ASK_SECS) if post is None else ("POST", _RESUME_SECS)
        try:
            async with self._sessions[worker.ordinal].request(
                method, f"http://worker{path}", data=post, headers=headers, timeout=aiohttp.ClientTimeout(secs)
            ) as reply:
                body = decode(await reply.read())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            await asyncio.sleep(_NOTICED_SECS)
            # It has answered before and should still: as bad as a single process that does not answer.
            return WorkerAnswer(worker.ordinal, "silent" if worker.state == "running" else worker.state)
        worker.answered()
        return WorkerAnswer(worker.ordinal, worker.state, reply.status, body)
