"""The console's routes: pages, the event stream that keeps them live, and the forms that change something.

Anyone who can reach the port may see what `/status` says. Reading topics or changing anything requires a session
(`sessions.py`). A form only asks; a second page says what will happen, and its button does it.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Container, Iterator
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web

from connector.console import rendering, sessions
from connector.console.guarding import NO_FORM, Form, RefusedError, form_in, read_body
from connector.console.hosting import Group, Host
from connector.console.sampling import Sampler, Snapshot
from connector.console.sessions import COOKIE, Session, Sessions
from connector.console.task_process import KINDS, TaskRequest
from connector.console.tasks import Task, Tasks
from connector.stream.holds import CHOICES
from connector.telemetry.logging import get_logger

VIEWERS: Final = 32
"""Pages that are kept live at the same time; further ones are told to retry."""

_WRITE_SECS: Final = 10.0
_SINCE: Final = {"": "all", "1h": "last hour", "24h": "last 24 hours", "7d": "last 7 days"}
_NEXT: Final = re.compile(r"(?:streams|dead-letters|tasks)(?:/[A-Za-z0-9._~%-]+)*(?:\?[A-Za-z0-9._~%&=+-]*)?")
"""Where a login may lead: only to our own pages."""

_ACTIONS: Final = {"pause": {"note"}, "resume": {*CHOICES}}
_DID: Final = {"pause": "The stream is paused.", "resume": "The holds have ended, or are being probed."}

log = get_logger("console")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Console:
    """The console of one host. `add_to` adds its pages to a web application, with which it ends."""

    def __init__(self, host: Host) -> None:
        self._group = Group(host)
        self._host = host
        self._sampler = Sampler(self._group.status)
        self._sessions = Sessions()
        self._tasks = Tasks(host.settings)
        self._viewers = 0
        self._made: tuple[int, dict[str | None, dict[str, str]]] = (0, {})
        """Rendered pieces of pages at the last look, by its number and by stream: rendered once for all viewers."""

    def add_to(self, app: web.Application) -> None:
        """Add all pages."""
        get, post = app.router.add_get, app.router.add_post
        get("/", self._with_refusals(self._overview))
        get("/assets/{name}", self._asset)
        get("/events", self._events, allow_head=False)
        get("/login", self._with_refusals(self._login_page))
        post("/login", self._with_refusals(self._login))
        post("/logout", self._with_refusals(self._logout))
        get("/streams/{name}", self._with_refusals(self._stream_page))
        get("/streams/{name}/confirm/{action}", self._with_refusals(self._for_session(self._confirm_page)))
        post("/streams/{name}/confirm/{action}", self._with_refusals(self._act))
        get("/dead-letters", self._with_refusals(self._for_session(self._dead_letters)))
        post("/dead-letters/{kind}", self._with_refusals(self._begin))
        get("/tasks/{name}", self._with_refusals(self._for_session(self._task_page)))
        get("/tasks/{name}/part", self._with_refusals(self._task_part))
        post("/tasks/{name}/{word}", self._with_refusals(self._answer_task))
        app.on_shutdown.append(self._close)

    async def _close(self, _app: web.Application) -> None:
        """Close viewers and tasks; draining does not wait for them."""
        await self._sampler.close()
        await self._tasks.close()
        await self._group.close()

    # ------------------------------------------------------------------ shared by all pages

    def _with_refusals(self, handler: Handler) -> Handler:
        """Show refusals as a page."""

        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except RefusedError as error:
                response = self._page(request, "refused.html", status=error.status, problem=str(error))
                if error.status in {408, 413, 415}:
                    response.force_close()
                return response

        return answer

    def _for_session(self, handler: Handler) -> Handler:
        """Redirect a browser without a session to the login, and back."""

        async def answer(request: web.Request) -> web.StreamResponse:
            if self._session(request) is not None:
                return await handler(request)
            back = request.rel_url.raw_path_qs.lstrip("/")
            return self._to(request, f"login?next={quote(back, safe='')}")

        return answer

    def _session(self, request: web.Request) -> Session | None:
        return self._sessions.known(self._host.token(), request.cookies.get(COOKIE))

    def _page(self, request: web.Request, template: str, *, status: int = 200, **values: Any) -> web.Response:
        """Return a page; its links are relative, so that a proxy may serve it under any path."""
        of_all = {
            "root": _root(request),
            "session": self._session(request),
            "may_log_in": self._host.token() is not None,
            "since_choices": _SINCE,
        }
        text = rendering.render(template, **{**of_all, **values})
        return web.Response(text=text, status=status, content_type="text/html")

    def _to(self, request: web.Request, path: str) -> web.Response:
        """Redirect a browser after a form; an empty path is the overview."""
        # Browsers do not follow an empty location.
        return web.Response(status=303, headers={"Location": _root(request) + path or "./"})

    async def _form(self, request: web.Request, allowed: set[str]) -> tuple[Session, dict[str, str]]:
        """Return the session and the fields of one of our forms; raises `RefusedError` for any other."""
        sessions.check_origin(request)
        session = self._session(request)
        if session is None:
            raise RefusedError(401, "log in first; a session ends after some hours, or when the token is changed")
        form = await _fields(request)
        sessions.check_form(session, form.pop("csrf", ""))
        if set(form) - allowed:
            raise RefusedError(400, "the form has a field that is not known here")
        return session, form

    async def _stream(self, request: web.Request) -> tuple[Snapshot, dict[str, Any]]:
        snapshot = await self._sampler.latest()
        name = request.match_info["name"]
        for stream in snapshot.status["streams"]:
            if stream["name"] == name:
                return snapshot, stream
        raise RefusedError(404, "there is no such stream here")

    # ------------------------------------------------------------------ overview

    async def _overview(self, request: web.Request) -> web.StreamResponse:
        return self._page(request, "overview.html", snapshot=await self._sampler.latest())

    async def _stream_page(self, request: web.Request) -> web.StreamResponse:
        snapshot, stream = await self._stream(request)
        did = _DID.get(request.query.get("did", ""))
        return self._page(request, "stream.html", snapshot=snapshot, stream=stream, did=did)

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        found = rendering.assets().get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        body, kind = found
        headers = {"Cache-Control": "public, max-age=86400"}  # their URL contains the version
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Send changes once a second, until the viewer leaves or is too slow."""
        if self._viewers >= VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"{VIEWERS} pages are kept live already\n")
        of_stream = request.query.get("stream")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        self._viewers += 1
        try:
            await response.prepare(request)
            async with self._sampler.watching():
                await self._keep_live(response, of_stream)
        except ConnectionError:
            pass
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()  # otherwise unread data would be kept until it leaves
        finally:
            self._viewers -= 1
        return response

    async def _keep_live(self, response: web.StreamResponse, of_stream: str | None) -> None:
        last: dict[str, str] = {}
        number = 0
        while (snapshot := await self._sampler.after(number)) is not None:
            points = self._points(snapshot, of_stream, whole=number == 0)
            number = snapshot.number
            pieces = {"points": points, **self._pieces(snapshot, of_stream)}
            told = [_event(name, text) for name, text in pieces.items() if last.get(name) != text]
            last = pieces
            async with asyncio.timeout(_WRITE_SECS):
                await response.write("".join(told).encode())

    def _pieces(self, snapshot: Snapshot, of_stream: str | None) -> dict[str, str]:
        if self._made[0] != snapshot.number:
            self._made = (snapshot.number, {})
        made = self._made[1]
        if of_stream not in made:
            made[of_stream] = dict(_pieces(snapshot, of_stream))
        return made[of_stream]

    def _points(self, snapshot: Snapshot, of_stream: str | None, *, whole: bool) -> str:
        points = {
            name: [*track.points] if whole else [*track.points][-1:]
            for name, track in self._sampler.tracks.items()
            if of_stream in {None, name}
        }
        return rendering.points_of(snapshot, points)

    # ------------------------------------------------------------------ login

    async def _login_page(self, request: web.Request) -> web.StreamResponse:
        return self._page(request, "login.html", next=_next(request.query.get("next")), problem=None)

    async def _login(self, request: web.Request) -> web.StreamResponse:
        sessions.check_origin(request)
        form = await _fields(request)
        after = _next(form.get("next"))
        try:
            cookie = self._sessions.open(self._host.token(), form.get("token", ""), request.remote)
        except RefusedError as error:
            return self._page(request, "login.html", status=error.status, next=after, problem=str(error))
        log.info("console login", remote=request.remote)
        response = self._to(request, after)
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=sessions.LASTS_SECS,
            httponly=True,
            samesite="Strict",
            secure=request.headers.get("X-Forwarded-Proto", request.scheme) == "https",
        )
        return response

    async def _logout(self, request: web.Request) -> web.StreamResponse:
        session, _ = await self._form(request, set())
        self._sessions.close(session)
        response = self._to(request, "")
        response.del_cookie(COOKIE)
        return response

    # ------------------------------------------------------------------ pause and resume

    async def _confirm_page(self, request: web.Request) -> web.StreamResponse:
        action = _one_of(_ACTIONS, request.match_info["action"])
        _, stream = await self._stream(request)
        return self._page(request, "confirm.html", stream=stream, action=action)

    async def _act(self, request: web.Request) -> web.StreamResponse:
        action = _one_of(_ACTIONS, request.match_info["action"])
        _, form = await self._form(request, _ACTIONS[action])
        _, stream = await self._stream(request)
        said: Form = [(name, value) for name, value in form.items() if value]
        if action == "pause":
            said.append(("by", f"the console, from {request.remote}"))
        status, told = await self._group.act(stream["name"], action, said, remote=request.remote)
        log.info("console action", action=action, stream=stream["name"], remote=request.remote, status=status)
        if status == 200:
            return self._to(request, f"streams/{quote(stream['name'], safe='')}?did={action}")
        return self._page(request, "acted.html", status=status, stream=stream, action=action, told=told)

    # ------------------------------------------------------------------ dead letters

    async def _dead_letters(self, request: web.Request) -> web.StreamResponse:
        snapshot = await self._sampler.latest()
        chosen = {name: request.query.get(name, "")[:200] for name in ("stream", "reason", "position")}
        return self._page(request, "dead_letters.html", snapshot=snapshot, chosen=chosen)

    async def _begin(self, request: web.Request) -> web.StreamResponse:
        """Start a task on dead letters, in a process of its own."""
        kind = _one_of(KINDS, request.match_info["kind"])
        _, form = await self._form(request, {"stream", "reason", "since", "position", "reveal", "include_in_doubt"})
        if form.get("since", "") not in _SINCE:
            raise RefusedError(400, "since must be one of the choices")
        if form.get("stream") and form["stream"] not in {stream.name for stream in self._host.settings.streams}:
            raise RefusedError(404, "there is no such stream here")
        wanted = TaskRequest(
            kind,
            stream=form.get("stream", ""),
            reason=form.get("reason", "").strip(),
            since=form.get("since", ""),
            position=form.get("position", "").strip(),
            reveal=form.get("reveal") == "yes",
            include_in_doubt=form.get("include_in_doubt") == "yes",
            asked_by=request.remote or "",
        )
        if wanted.reveal:
            log.info("dead letter revealed", position=wanted.position, remote=request.remote)
        task = self._tasks.begin(wanted)
        return self._to(request, f"tasks/{task.name}")

    async def _task_page(self, request: web.Request) -> web.StreamResponse:
        return self._page(request, "task.html", task=self._task(request))

    async def _task_part(self, request: web.Request) -> web.StreamResponse:
        if self._session(request) is None:
            raise RefusedError(401, "log in first")
        return self._page(request, "task_part.html", task=self._task(request), root="../")  # embedded in a page

    async def _answer_task(self, request: web.Request) -> web.StreamResponse:
        words = {"confirm": self._tasks.confirm, "cancel": self._tasks.cancel}
        word = _one_of(words, request.match_info["word"])
        await self._form(request, set())
        task = self._task(request)
        words[word](task)
        return self._to(request, f"tasks/{task.name}")

    def _task(self, request: web.Request) -> Task:
        return self._tasks.find(request.match_info["name"])


def _one_of(known: Container[str], word: str) -> str:
    """Return an action named in a URL; raises `RefusedError` if it is unknown."""
    if word not in known:
        raise RefusedError(404, "there is no such page here")
    return word


async def _fields(request: web.Request) -> dict[str, str]:
    """Return the fields of a form; raises `RefusedError` if the body is not a form."""
    form = form_in(await read_body(request))
    if form is None:
        raise RefusedError(400, NO_FORM)
    return dict(form)


def _root(request: web.Request) -> str:
    """Return the relative URL from a page to the overview."""
    return "../" * (request.rel_url.raw_path.count("/") - 1)


def _next(where: str | None) -> str:
    return where if where is not None and _NEXT.fullmatch(where) else ""


def _pieces(snapshot: Snapshot, of_stream: str | None) -> Iterator[tuple[str, str]]:
    """Yield the changing pieces of a page, with their names in the page."""
    streams = snapshot.status["streams"]
    if of_stream is not None:
        streams = [stream for stream in streams if stream["name"] == of_stream]
    yield "headline", rendering.render("headline.html", snapshot=snapshot)
    yield "troubles", rendering.render("troubles.html", snapshot=snapshot, streams=streams)
    for stream in streams:
        rates = snapshot.rates.get(stream["name"])
        yield f"flow-{stream['name']}", rendering.render("flow.html", stream=stream, rates=rates)
        if of_stream is not None:
            yield "details", rendering.render("details.html", stream=stream)
            yield "tables", rendering.render("tables.html", stream=stream)
    if of_stream is None:
        yield "members", rendering.render("members.html", status=snapshot.status)


def _event(name: str, text: str) -> str:
    """Return a server-sent event."""
    lines = "".join(f"data: {line}\n" for line in text.splitlines() if line.strip())
    return f"event: {name}\n" + (lines or "data:\n") + "\n"
