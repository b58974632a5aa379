"""Who may do what in the console: sessions, forms, origins, and limits on all of it."""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from connector.console.guarding import MAX_BODY_BYTES, SAFE_HEADERS
from connector.console.pages import VIEWERS, Console, _next
from connector.console.sessions import COOKIE
from tests.console.conftest import TOKEN, FakeHost, Site, console
from tests.console.making import hold, status, stream
from tests.kit.patience import PATIENCE_SECS

PAUSE: Final = "/streams/campaign-sends/confirm/pause"
RESUME: Final = "/streams/campaign-sends/confirm/resume"


def run(host: FakeHost, using: Callable[[Site], Awaitable[None]]) -> None:
    """Run a test within a loop."""

    async def main() -> None:
        async with console(host) as site:
            await using(site)

    asyncio.run(main())


def _origin(site: Site) -> dict[str, str]:
    return {"Origin": str(site.make_url("/")).rstrip("/")}


async def _log_in(site: Site, token: str = TOKEN, **fields: str) -> Any:
    return await site.post("/login", data={"token": token, **fields}, headers=_origin(site), allow_redirects=False)


async def _csrf(site: Site, path: str) -> str:
    page = await (await site.get(path)).text()
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', page)
    assert found is not None, page
    return found[1]


def test_looking_takes_no_login_and_every_page_is_safe(host: FakeHost) -> None:
    async def use(site: Site) -> None:
        for path in ("/", "/streams/campaign-sends", "/login", "/streams/nobody", "/no-such-page"):
            reply = await site.get(path)
            assert reply.status in {200, 404}
            assert {name: reply.headers.get(name) for name in SAFE_HEADERS} == SAFE_HEADERS

    run(host, use)


def test_what_changes_something_or_reads_topics_leads_to_the_login(host: FakeHost) -> None:
    """And from there back to where one wanted to go."""

    async def use(site: Site) -> None:
        for path in (PAUSE, RESUME, "/dead-letters?stream=campaign-sends"):
            reply = await site.get(path, allow_redirects=False)
            assert reply.status == 303
            back = reply.headers["Location"].replace("../", "")
            assert back.startswith("login?next=")
        reply = await _log_in(site, next="dead-letters?stream=campaign-sends")
        assert reply.headers["Location"] == "dead-letters?stream=campaign-sends"
        assert (await site.get("/dead-letters")).status == 200

    run(host, use)


def test_a_session_is_a_cookie_that_scripts_and_other_sites_cannot_use(host: FakeHost) -> None:
    async def use(site: Site) -> None:
        reply = await _log_in(site)
        cookie = reply.headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=Strict"} <= {part.strip() for part in cookie.split(";")}
        assert TOKEN not in cookie
        assert "Secure" not in cookie, "plain http would lose it"
        behind_tls = await site.post(
            "/login",
            data={"token": TOKEN},
            headers={**_origin(site), "X-Forwarded-Proto": "https"},
            allow_redirects=False,
        )
        assert "Secure" in behind_tls.headers["Set-Cookie"]

    run(host, use)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "http://[::1"},
        {"Origin": "HERE", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "HERE", "Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_form_of_another_site_does_nothing(host: FakeHost, headers: dict[str, str]) -> None:
    """Even with the cookie and the right signature."""

    async def use(site: Site) -> None:
        await _log_in(site)
        csrf = await _csrf(site, PAUSE)
        sent = {name: _origin(site)["Origin"] if value == "HERE" else value for name, value in headers.items()}
        for path in (PAUSE, "/dead-letters/redrive", "/logout", "/login"):
            reply = await site.post(path, data={"csrf": csrf, "token": TOKEN}, headers=sent, allow_redirects=False)
            assert reply.status == 403
        assert host.done == []

    run(host, use)


def test_a_form_without_the_signature_of_its_session_does_nothing(host: FakeHost) -> None:
    async def use(site: Site) -> None:
        await _log_in(site)
        first = await _csrf(site, PAUSE)
        await _log_in(site)  # another session
        second = await _csrf(site, PAUSE)
        assert first != second
        for csrf in ("", "x", first, second[:-1], "\N{SNOWMAN}"):
            reply = await site.post(PAUSE, data={"csrf": csrf}, headers=_origin(site))
            assert reply.status == 403
        assert host.done == []

    run(host, use)


def test_nobody_does_anything_without_a_session(host: FakeHost) -> None:
    async def use(site: Site) -> None:
        for cookie in ("", "x.y.z", "f" * 8 + "." + "0" * 32 + "." + "0" * 64, "a.b", "\\"):
            for path in (PAUSE, "/dead-letters/look", "/tasks/f00/confirm"):
                headers = {**_origin(site), "Cookie": f"{COOKIE}={cookie}"}
                assert (await site.post(path, data={"csrf": "x"}, headers=headers)).status == 401
            assert (await site.get("/tasks/f00/part", headers={"Cookie": f"{COOKIE}={cookie}"})).status == 401
        assert host.done == []

    run(host, use)


def test_a_changed_token_and_a_logout_end_a_session(host: FakeHost) -> None:
    async def use(site: Site) -> None:
        await _log_in(site)
        host.secret = SecretStr("another-token-0123456789")
        assert (await site.get(PAUSE, allow_redirects=False)).status == 303
        host.secret = SecretStr(TOKEN)
        reply = await _log_in(site)
        cookie = reply.cookies[COOKIE].value
        csrf = await _csrf(site, PAUSE)
        await site.post("/logout", data={"csrf": csrf}, headers=_origin(site), allow_redirects=False)
        stolen = {"Cookie": f"{COOKIE}={cookie}"}
        assert (await site.get(PAUSE, headers=stolen, allow_redirects=False)).status == 303

    run(host, use)


def test_wrong_tokens_lock_nobody_out(host: FakeHost) -> None:
    """Behind a proxy all have the same address: whoever guesses would keep the operators out."""

    async def use(site: Site) -> None:
        for _ in range(20):
            assert (await _log_in(site, "wrong-token-0123456789")).status == 401
        assert (await _log_in(site)).status == 303

    run(host, use)


def test_without_a_token_in_the_settings_nobody_logs_in(host: FakeHost) -> None:
    host.secret = None

    async def use(site: Site) -> None:
        assert (await _log_in(site)).status == 403
        page = await (await site.get("/login")).text()
        assert "web.token" in page
        assert "<form" not in page

    run(host, use)


@pytest.mark.parametrize(
    ("where", "leads_to"),
    [
        ("streams/a/confirm/pause", "streams/a/confirm/pause"),
        ("dead-letters?stream=a&reason=b", "dead-letters?stream=a&reason=b"),
        ("//elsewhere.example", ""),
        ("https://elsewhere.example", ""),
        ("streams/..//elsewhere.example", ""),
        ("javascript:alert(1)", ""),
        ("tasks/x\r\nSet-Cookie: a=b", ""),
        (None, ""),
    ],
)
def test_a_login_leads_to_pages_of_ours_alone(where: str | None, leads_to: str) -> None:
    assert _next(where) == leads_to


def test_a_login_and_a_logout_lead_to_the_overview(host: FakeHost) -> None:
    """By an address that is not empty: at that a browser stays where it is, with nothing to show."""

    async def use(site: Site) -> None:
        login = await _log_in(site)
        csrf = await _csrf(site, PAUSE)
        logout = await site.post("/logout", data={"csrf": csrf}, headers=_origin(site), allow_redirects=False)
        assert [(reply.status, reply.headers["Location"]) for reply in (login, logout)] == [(303, "./")] * 2

    run(host, use)


def test_a_pause_is_asked_about_and_says_who_and_why(host: FakeHost) -> None:
    async def use(site: Site) -> None:
        await _log_in(site)
        csrf = await _csrf(site, PAUSE)
        assert host.done == [], "a look changes nothing"
        form = {"csrf": csrf, "note": "mending"}
        reply = await site.post(PAUSE, data=form, headers=_origin(site), allow_redirects=False)
        assert (reply.status, reply.headers["Location"]) == (303, "../../../streams/campaign-sends?did=pause")
        said = [("note", "mending"), ("by", "the console, from 127.0.0.1")]
        assert host.done == [("campaign-sends", "pause", said)]

    run(host, use)


def test_a_hold_that_needs_a_decision_asks_for_it(host: FakeHost) -> None:
    """And what was not done is told, with what was."""
    held = hold(reason="in_doubt", partition="t:1", ends="operator")
    host.told = status(stream(holds=[held]))
    host.answer = (409, {"undecided": [{**held, "needs": ["--in-doubt resend"], "worker": 1}], "ended": []})

    async def use(site: Site) -> None:
        await _log_in(site)
        page = await (await site.get(RESUME)).text()
        assert 'name="in_doubt" required' in page
        assert "gets it twice" in page
        form = {"csrf": await _csrf(site, RESUME), "in_doubt": "resend"}
        reply = await site.post(RESUME, data=form, headers=_origin(site))
        assert reply.status == 409
        assert "in_doubt of t:1 needs a decision" in await reply.text()
        assert host.done == [("campaign-sends", "resume", [("in_doubt", "resend")])]

    run(host, use)


def test_forms_have_limits(host: FakeHost) -> None:
    async def use(site: Site) -> None:
        await _log_in(site)
        csrf = await _csrf(site, PAUSE)
        for data, code in (
            ({"csrf": csrf, "note": "x" * MAX_BODY_BYTES}, 413),
            ({"csrf": csrf, "unknown": "x"}, 400),
            ("&".join(f"a{n}=1" for n in range(400)), 400),
            ("no form", 400),
        ):
            reply = await site.post(PAUSE, data=data, headers=_origin(site))
            assert reply.status == code
        gzipped = {**_origin(site), "Content-Encoding": "gzip"}
        assert (await site.post(PAUSE, data=b"\x1f\x8b", headers=gzipped)).status in {400, 415}
        bad = {"csrf": await _csrf(site, "/dead-letters"), "since": "forever"}
        assert (await site.post("/dead-letters/look", data=bad, headers=_origin(site))).status == 400
        for path in ("/tasks/nobody", "/streams/x/confirm/pause", "/streams/campaign-sends/confirm/stop"):
            assert (await site.get(path)).status == 404
        assert host.done == []

    run(host, use)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/streams/campaign-sends/confirm/explode"),
        ("POST", "/streams/campaign-sends/confirm/explode"),
        ("POST", "/dead-letters/explode"),
        ("POST", "/tasks/one/explode"),
    ],
)
def test_what_nobody_knows_how_to_do_is_refused_by_a_page(host: FakeHost, method: str, path: str) -> None:
    async def use(site: Site) -> None:
        await _log_in(site)
        csrf = await _csrf(site, PAUSE)

        reply = await site.request(method, path, data={"csrf": csrf}, headers=_origin(site))

        assert (reply.status, reply.content_type) == (404, "text/html")
        assert "there is no such page here" in await reply.text()

    run(host, use)


def test_an_unwatched_console_does_nothing_and_viewers_share_one_look(host: FakeHost) -> None:
    """A look a second, however many watch; and no more than so many may."""

    async def use(site: Site) -> None:
        await asyncio.sleep(1.2)
        assert host.asked == 0
        loop = asyncio.get_running_loop()
        began = loop.time()
        watching = [await site.get("/events") for _ in range(VIEWERS)]
        assert (await site.get("/events")).status == 503
        for viewer in watching:
            assert b"event: points" in await viewer.content.readuntil(b"\n")
        await asyncio.sleep(2.0)
        assert host.asked <= 2 + loop.time() - began
        for viewer in watching:
            viewer.close()

    run(host, use)


def test_a_viewer_that_never_reads_is_released_with_all_that_is_kept_for_it(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connector.console.pages._WRITE_SECS", 0.2)
    host.told = status(*(stream(name=f"s{number}", error="x" * 400) for number in range(3_000)))

    async def main() -> None:
        app = web.Application()
        Console(host).add_to(app)
        async with TestServer(app) as server:
            assert server.runner is not None
            serving = server.runner.server
            assert serving is not None
            with socket.socket() as viewer:
                viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                viewer.connect((server.host, server.port))
                viewer.sendall(b"GET /events HTTP/1.1\r\nHost: here\r\n\r\n")
                seen: list[int] = []
                while seen[-2:] != [1, 0] and len(seen) < 10 * PATIENCE_SECS:
                    await asyncio.sleep(0.1)
                    seen = [*seen, len(serving.connections)]
        assert seen[-2:] == [1, 0]

    asyncio.run(main())


def test_what_did_not_change_is_not_sent_again(host: FakeHost) -> None:
    async def use(site: Site) -> None:
        viewer = await site.get("/events?stream=campaign-sends")
        seen: list[str] = []
        while seen.count("event: points") < 4:
            line = (await viewer.content.readline()).decode().strip()
            if line.startswith("event: "):
                seen.append(line)
        assert seen.count("event: tables") == 1
        assert seen.count("event: troubles") == 1
        viewer.close()

    run(host, use)


def test_an_end_of_the_application_lets_viewers_go(host: FakeHost) -> None:
    """Or a stop would wait for whoever looks."""

    async def main() -> float:
        async with console(host) as site:
            viewer = await site.get("/events")
            await viewer.content.readline()
            began = asyncio.get_running_loop().time()
        return asyncio.get_running_loop().time() - began

    assert asyncio.run(main()) < 5.0
