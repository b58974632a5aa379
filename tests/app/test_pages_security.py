"""The web pages give away nothing, change nothing without the token, and outlive whatever is sent to them.

One worker serves most of these tests: it holds for an operator, so that the form and the texts of a hold are there.
"""

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from connector.console.guarding import MAX_BODY_BYTES, SAFE_HEADERS
from connector.demo.finding import BrokerHandle
from connector.demo.topics import Record, Topics
from connector.simulator import SimulatorSettings, SimulatorThread
from tests.kit.local import NO_TLS
from tests.kit.patience import PATIENCE_SECS
from tests.kit.world import KEY, Worker, World

TOKEN: Final = "a-token-of-the-tests-0123456789"
PHONE: Final = "+15557654321"
SENT: Final = "what-was-sent"
"""Stands in requests where a reply must not repeat it."""

PAGES: Final = ("/", "/status", "/metrics", "/healthz", "/readyz", "/no-such-page")


@dataclass
class Site:
    """A worker that holds, and everything that it has said to whoever asked."""

    world: World
    worker: Worker
    said: list[str] = field(default_factory=list)

    @property
    def resume(self) -> str:
        return f"/streams/{self.world.name}/resume"

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Ask for a page, and check what is true of every reply."""
        url = f"http://127.0.0.1:{self.worker.port}{path}"
        reply = httpx.request(method, url, timeout=PATIENCE_SECS, trust_env=False, verify=NO_TLS, **options)
        assert {name: reply.headers.get(name) for name in SAFE_HEADERS} == SAFE_HEADERS
        self.said.append(f"{reply.headers!r} {reply.text}")
        return reply

    def post(self, *, token: str | None = TOKEN, path: str | None = None, **options: Any) -> httpx.Response:
        headers = {**({} if token is None else {"Authorization": f"Bearer {token}"}), **options.pop("headers", {})}
        return self.ask("POST", path or self.resume, headers=headers, **options)

    def raw(self, *parts: bytes, pause_secs: float = 0.1) -> bytes:
        """Send bytes as they are, and return what comes back: JSON, or all until the worker ends the connection."""
        answer = b""
        with socket.create_connection(("127.0.0.1", self.worker.port), timeout=PATIENCE_SECS) as connection:
            try:
                for part in parts:
                    connection.sendall(part)
                    time.sleep(pause_secs)
                while not answer.endswith(b"}") and (piece := connection.recv(65_536)):
                    answer += piece
            except ConnectionError:  # it need not hear all of it
                pass
        self.said.append(answer.decode(errors="replace"))
        return answer

    def holds(self) -> list[str]:
        return [hold["reason"] for hold in self.worker.status()["holds"]]


def _head(path: str, *lines: str, token: bool = True) -> bytes:
    bearer = [f"Authorization: Bearer {TOKEN}"] if token else []
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: here", *bearer, *lines, "", ""]).encode()


@pytest.fixture(scope="module")
def site(broker: BrokerHandle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run a worker whose stream holds for a storm of dead letters."""
    with SimulatorThread(SimulatorSettings(api_keys=(KEY,))) as platform:
        world = World(
            broker.bootstrap_servers, Topics(broker.bootstrap_servers), platform, tmp_path_factory.mktemp("w")
        )
        try:
            bad = json.dumps({"to": PHONE}).encode()
            world.topics.produce(world.source, (Record(bad, b"bad %d" % n) for n in range(2_000)))
            settings = world.settings(
                {"web": {"token": "${env:PAGES_TOKEN}"}}, stream={"storm_guard": {"min_count": 500}}
            )
            settings["trackly"]["api_key"] = "${env:PAGES_KEY}"
            worker = world.start(settings, env={"PAGES_TOKEN": TOKEN, "PAGES_KEY": KEY})
            worker.wait_for(lambda s: bool(s["holds"]), "the storm held")
            yield Site(world, worker)
        finally:
            world.close()


@pytest.fixture
def still_holding(site: Site) -> Iterator[Site]:
    """Check after the test that the worker lives and nothing was resumed."""
    yield site
    assert site.ask("GET", "/healthz").status_code == 200
    assert site.holds() == ["storm:missing_body"]


# ------------------------------------------------------------------ who may


def test_without_a_token_in_the_settings_nothing_can_be_changed(site: Site) -> None:
    """And the reply says which setting is missing; a page for people has no form then."""
    world = World(site.world.bootstrap_servers, site.world.topics, site.world.platform, site.world.folder / "no-token")
    world.folder.mkdir()
    try:
        worker = world.start(world.settings())
        worker.wait_for(lambda s: s["state"] == "running", "a worker without a token")
        other = Site(world, worker)

        for token in (None, TOKEN):
            reply = other.post(token=token, data={"token": TOKEN})

            assert reply.status_code == 403
            assert "web.token" in reply.json()["problem"]
        assert "<form" not in other.ask("GET", "/login").text
    finally:
        world.close()


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        "Bearer",
        "",
        f"Basic {TOKEN}",
        TOKEN,
    ],
)
def test_a_missing_or_wrong_token_is_refused(still_holding: Site, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}

    reply = still_holding.post(token=None, headers=headers)

    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"] == 'Bearer realm="trackly-connector"'
    assert "token" in reply.json()["problem"]


@pytest.mark.parametrize("value", ["wrong", "", "\udcff", "é" * 20, TOKEN + "\0"])
def test_a_wrong_token_in_a_form_is_refused(still_holding: Site, value: str) -> None:
    body = b"token=" + b"".join(b"%%%02X" % byte for byte in value.encode(errors="surrogateescape"))

    reply = still_holding.post(token=None, content=body)

    assert reply.status_code in {401, 400} if value == "\udcff" else reply.status_code == 401


def test_a_wrong_header_is_not_made_good_by_a_right_form(still_holding: Site) -> None:
    assert still_holding.post(token="wrong", data={"token": TOKEN}).status_code == 401


def test_a_token_in_the_address_or_a_cookie_is_none(still_holding: Site) -> None:
    """Addresses end up in logs, and cookies are sent along by pages of others."""
    in_address = still_holding.post(token=None, path=f"{still_holding.resume}?token={TOKEN}")
    in_cookie = still_holding.post(token=None, headers={"Cookie": f"token={TOKEN}"})

    assert (in_address.status_code, in_cookie.status_code) == (401, 401)


@pytest.mark.parametrize("way", ["header", "header in lower case", "form"])
def test_the_token_opens_as_a_header_and_as_a_field_of_the_form(still_holding: Site, way: str) -> None:
    """A partition that is not held is named, so that the hold stays."""
    form = {"partition": "nobody:7"}
    match way:
        case "header":
            reply = still_holding.post(data=form)
        case "header in lower case":
            reply = still_holding.post(token=None, headers={"authorization": f"bearer {TOKEN}"}, data=form)
        case _:
            reply = still_holding.post(token=None, data={**form, "token": TOKEN})

    assert reply.status_code == 200
    assert (reply.json()["ended"], reply.json()["not_held"]) == ([], ["nobody:7"])


def test_a_page_of_somebody_else_cannot_make_a_browser_resume(still_holding: Site) -> None:
    """A form that is sent from another site has no token; and no reply lets that site's scripts read anything."""
    foreign = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site", "Accept": "text/html"}

    posted = still_holding.post(token=None, headers=foreign, data={"in_doubt": "resend"})
    asked = still_holding.ask("OPTIONS", still_holding.resume, headers=foreign)
    seen = still_holding.ask("GET", "/status", headers=foreign)

    assert (posted.status_code, asked.status_code) == (401, 405)
    for reply in (posted, asked, seen):
        assert not [name for name in reply.headers if name.startswith("access-control-") or name == "set-cookie"]


# ------------------------------------------------------------------ what is asked for


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
def test_nothing_but_a_post_resumes(still_holding: Site, method: str) -> None:
    reply = still_holding.ask(method, still_holding.resume, headers={"Authorization": f"Bearer {TOKEN}"})

    assert reply.status_code == 405


@pytest.mark.parametrize("path", PAGES[:-1])
def test_the_other_pages_are_only_to_be_read(still_holding: Site, path: str) -> None:
    assert still_holding.post(path=path, data={"token": TOKEN}).status_code == 405


def test_an_action_that_no_stream_knows_is_refused(still_holding: Site) -> None:
    path = f"/streams/{still_holding.world.name}/{SENT}"

    reply = still_holding.post(path=path)

    problem = "a stream can only be paused or resumed"
    assert (reply.status_code, reply.json()) == (404, {"problem": problem})
    assert still_holding.post(token=None, path=path).status_code == 401


@pytest.mark.parametrize("name", [SENT, "%3Cb%3E", "..%2F..%2Fstatus", "%0d%0aX-Made-Up:%201"])
def test_an_unknown_stream_is_not_found_and_not_repeated(still_holding: Site, name: str) -> None:
    reply = still_holding.post(path=f"/streams/{name}/resume")

    assert reply.status_code == 404
    assert SENT not in reply.text
    assert "<b>" not in reply.text
    assert "X-Made-Up" not in reply.headers


@pytest.mark.parametrize(
    "form",
    [
        {SENT: "1"},
        {"in_doubt": SENT},
        {"foreign_metadata": SENT},
        {"partition": SENT},
        {"partition": f"{SENT}:x"},
        {"partition": f"{SENT}:-1"},
        {"partition": f"{SENT}:٣"},
        {"partition": f"{SENT}:1234567890"},
        {"partition": ":1"},
    ],
)
def test_a_form_that_is_not_understood_is_refused_and_not_repeated(still_holding: Site, form: dict[str, str]) -> None:
    reply = still_holding.post(data=form)

    assert reply.status_code == 400
    assert SENT not in reply.text


@pytest.mark.parametrize("body", [b"{}", b"token", b"\xff\xfe", b"a=1&" * 301])
def test_a_body_that_is_no_form_is_refused(still_holding: Site, body: bytes) -> None:
    assert still_holding.post(content=body).status_code == 400


def test_a_decision_is_needed_before_anything_is_believed(still_holding: Site) -> None:
    """Whoever has no token is not even told whether the stream or the field exists."""
    told = [
        still_holding.post(token=None, path="/streams/nobody/resume").json(),
        still_holding.post(token=None, data={"no-such-field": "1"}).json(),
        still_holding.post(token=None, data={"partition": "x"}).json(),
        still_holding.post(token=None).json(),
    ]

    assert told == [told[0]] * len(told)


# ------------------------------------------------------------------ how much, and how slowly


@pytest.mark.parametrize("with_token", [True, False])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_is_too_large_is_refused(still_holding: Site, *, with_token: bool, chunked: bool) -> None:
    body = b"partition=" + b"x" * MAX_BODY_BYTES
    content = iter([body[at : at + 4_096] for at in range(0, len(body), 4_096)]) if chunked else body

    reply = still_holding.post(token=TOKEN if with_token else None, content=content)

    assert reply.status_code == 413
    assert str(MAX_BODY_BYTES) in reply.json()["problem"]


def test_a_body_without_end_is_not_read(still_holding: Site) -> None:
    """Refused at the limit, however much is announced or follows."""
    announced = still_holding.raw(_head(still_holding.resume, "Content-Length: 99999999999999"))
    endless = still_holding.raw(
        _head(still_holding.resume, "Transfer-Encoding: chunked"),
        *[b"4000\r\n" + b"x" * 0x4000 + b"\r\n"] * 50,
        pause_secs=0,
    )

    assert announced.startswith(b"HTTP/1.1 413")
    assert endless == b"" or endless.startswith(b"HTTP/1.1 413")


def test_a_body_that_does_not_come_is_waited_for_ten_seconds(still_holding: Site) -> None:
    began = time.monotonic()

    reply = still_holding.raw(_head(still_holding.resume, "Content-Length: 20", token=False), b"token=")

    assert reply.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - began > 9


def test_an_encoded_body_is_refused_before_it_is_decoded(still_holding: Site) -> None:
    """A small body may stand for a large one, and one that cannot be decoded is no fault of ours."""
    for content in (b"no gzip at all", b"\x1f\x8b\x08\x00"):
        for token in (TOKEN, None):
            reply = still_holding.post(token=token, headers={"Content-Encoding": "gzip"}, content=content)

            assert reply.status_code == 415


def test_a_body_that_breaks_off_or_is_malformed_is_no_fault_of_the_worker(still_holding: Site) -> None:
    head = _head(still_holding.resume, "Transfer-Encoding: chunked", token=False)

    for rest in (b"5\r\ntoken\r\n", b"5\r\ntoken\r\nzz%s\r\n\r\n" % SENT.encode()):
        with socket.create_connection(("127.0.0.1", still_holding.worker.port)) as connection:
            connection.sendall(head)
            time.sleep(0.1)
            connection.sendall(rest)
            time.sleep(0.1)

    assert still_holding.ask("GET", "/healthz").status_code == 200
    time.sleep(0.2)
    log = still_holding.worker.log.read_text()
    assert "Traceback" not in log, log[-3_000:]
    assert SENT not in log


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: here\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: here\r\nX-Long: " + b"b" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: here\r\n" + b"".join(b"X%d: c\r\n" % n for n in range(20_000)) + b"\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: here\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["request line", "header", "headers", "version", "TLS", "smuggling"],
)
def test_a_head_that_is_too_long_or_malformed_is_refused_and_the_worker_lives(still_holding: Site, sent: bytes) -> None:
    answer = still_holding.raw(sent)

    assert answer == b"" or answer.split(b" ")[1] in {b"400", b"505"}


# ------------------------------------------------------------------ what is given away


def test_the_console_asks_nobody_else_and_its_policy_forbids_all_else(site: Site) -> None:
    """No scripts within the page and no addresses but its own; what it loads is there and may be kept for a day."""
    reply = site.ask("GET", "/")

    assert not re.search(r"<script(?! src=)|<style|<img|<iframe|javascript:|https?://|\son\w+=|\sstyle=", reply.text)
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assets = re.findall(r'(?:src|href)="(assets/[^"]+)"', reply.text)
    assert len(assets) == 7
    for asset in assets:
        url = f"http://127.0.0.1:{site.worker.port}/{asset}"
        found = httpx.get(url, timeout=PATIENCE_SECS, trust_env=False, verify=NO_TLS)
        assert (found.status_code, found.headers["X-Content-Type-Options"]) == (200, "nosniff")
        assert found.headers["Cache-Control"] == "public, max-age=86400"
    for path in ("/assets/../pages.py", "/assets/%2e%2e/pages.py", "/assets/README.md", "/assets/licences"):
        assert site.ask("GET", path).status_code == 404


def test_errors_are_reported_without_a_page(still_holding: Site) -> None:
    """An error page is no place for markup: a browser is told so."""
    reply = still_holding.post(token="wrong", headers={"Accept": "text/html"})

    assert reply.status_code == 401
    assert reply.headers["Content-Type"].startswith("application/json")
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


def test_no_secret_and_no_phone_number_is_reported_anywhere(site: Site) -> None:
    """Last: over all that the tests above have been told, the log, the pages and the list of processes."""
    for path in PAGES:
        site.ask("GET", path)
    site.post(data={"token": TOKEN, "partition": "nobody:1"})
    site.post(token=TOKEN + "-wrong")
    for secret in (TOKEN, KEY, PHONE, PHONE.removeprefix("+")):
        assert not [said for said in site.said if secret in said]
        assert secret not in site.worker.log.read_text()
    command_line = Path(f"/proc/{site.worker.pid}/cmdline").read_bytes().decode()
    assert not [secret for secret in (TOKEN, KEY, PHONE) if secret in command_line]
    assert "connector" in command_line


def test_the_worker_starts_no_process_that_could_inherit_its_secrets(site: Site) -> None:
    children = subprocess.run(
        ["ps", "--ppid", str(site.worker.pid), "-o", "pid="], capture_output=True, text=True, check=False
    )

    assert children.stdout.split() == []


def test_guessing_passwords_does_not_fill_the_disk(site: Site) -> None:
    before = site.worker.log.stat().st_size

    for _ in range(200):
        assert site.post(token="a-wrong-guess").status_code == 401

    assert site.worker.log.stat().st_size - before < 2_000
    assert "a-wrong-guess" not in site.worker.log.read_text()
