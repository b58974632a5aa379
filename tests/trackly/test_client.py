"""The result of a request is classified exactly: certainly not sent, answered, or lost. Against real sockets."""

import asyncio
import json
import socket
import ssl
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from connector import __version__
from connector.core.verdicts import Reply
from connector.trackly.client import Client, TooLateError, _trouble
from tests.trackly.serving import OK, VALUE, Served, answer, post, read_request, send, settings, talk, until, whole


def test_a_whole_answer_is_read() -> None:
    assert post(answer(OK)).ok


@pytest.mark.parametrize("base", ["/api/v2", "/api/v2/"])
def test_a_request_says_what_the_api_asks_for(base: str) -> None:
    heads = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, body = await read_request(reader)
        heads.append((head.decode().split("\r\n"), body))
        writer.write(whole(OK))

    async def use(client: Client, served: Served) -> None:
        assert (await send(client)).ok
        ((line, *headers, _, _), body), *_ = heads
        fields = dict(header.split(": ", 1) for header in headers)
        assert line == "POST /api/v2/send/bulk HTTP/1.1"
        assert {name.lower(): value for name, value in fields.items()} == {
            "host": f"127.0.0.1:{served.port}",
            "connection": "keep-alive",
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": f"trackly-connector/{__version__}",
            "content-type": "application/json",
            "x-api-key": "key",
            "content-length": str(len(body)),
        }
        assert json.loads(body) == {"messages": [json.loads(VALUE)]}

    async def at_a_path(client: Client, served: Served) -> None:
        await client.close()
        client = Client(settings(base_url=f"http://127.0.0.1:{served.port}{base}"), lambda: "key")
        await use(client, served)
        await client.close()

    talk(handle, at_a_path)


def test_a_probe_names_the_content_type_that_the_api_wants_of_every_request() -> None:
    heads: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _ = await read_request(reader)
        heads.append(head.decode().lower())
        writer.write(whole(OK))

    async def use(client: Client, _served: Served) -> None:
        assert (await client.lists()).ok

    talk(handle, use)

    assert heads[0].startswith("get /lists?")
    assert "\r\ncontent-type: application/json\r\n" in heads[0]
    assert "content-length" not in heads[0]


def test_the_key_is_asked_for_each_request() -> None:
    keys = iter(["old", "new", "newer"])
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            seen.extend(line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"x-api-key"))
            writer.write(whole(OK))

    async def use(client: Client, _served: Served) -> None:
        client._api_key = lambda: next(keys)
        await send(client)
        await send(client)
        await client.lists()

    talk(handle, use)

    assert seen == [b"old", b"new", b"newer"]


# ------------------------------------------------------------------ certainly not sent


def test_a_closed_port_means_certainly_not_sent() -> None:
    async def use(client: Client, _served: Served) -> Reply:
        return await send(client)

    reply = talk(answer(), use, base_url="http://127.0.0.1:1")

    assert (reply.kind, reply.trouble) == ("not_sent", "connect")


def test_a_host_that_cannot_be_a_name_means_certainly_not_sent() -> None:
    async def use(_client: Client, _served: Served) -> tuple[Reply, Reply]:
        # One that the settings would refuse.
        client = Client(settings().model_copy(update={"base_url": f"http://{'a' * 70}.example"}), lambda: "key")
        return await send(client), await client.lists()

    for reply in talk(answer(), use):
        assert (reply.kind, reply.trouble) == ("not_sent", "connect")


def test_the_host_that_is_connected_to_is_the_one_that_the_request_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with letters of its own is another one in the older way to write it, and may be somebody else's."""
    asked: list[Any] = []

    def look_up(host: Any, *_args: Any, **_kwargs: Any) -> Any:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    async def use(client: Client, _served: Served) -> Reply:
        with monkeypatch.context() as patched:
            patched.setattr(socket, "getaddrinfo", look_up)
            return await send(client)

    reply = talk(answer(), use, base_url="http://stra\u00dfe.example")

    assert (reply.kind, reply.trouble) == ("not_sent", "connect")
    assert asked == ["xn--strae-oqa.example"]


def test_a_batch_that_comes_too_late_is_not_written() -> None:
    async def use(client: Client, served: Served) -> None:
        with pytest.raises(TooLateError):
            await send(client, before=time.clock_gettime(time.CLOCK_BOOTTIME) - 1)
        await until(lambda: served.connections)
        await client.close()
        await until(lambda: served.ended)

    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read())
        writer.close()

    talk(handle, use)

    assert seen == [b""]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_batch_that_came_too_late_because_of_the_connecting_finds_the_connection_made(
    secure: bool, tmp_path: Path
) -> None:
    """Else no batch would ever be posted where connecting takes longer than a batch may wait after its tick."""

    async def use(client: Client, served: Served) -> Reply:
        loop = asyncio.get_running_loop()
        connect = loop.create_connection

        async def slowly(*args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0.3)
            return await connect(*args, **kwargs)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(loop, "create_connection", slowly)
            for _ in range(20):
                with suppress(TooLateError):
                    return await send(client, before=time.clock_gettime(time.CLOCK_BOOTTIME) + 0.2)
        raise AssertionError(f"never posted, over {len(served.connections)} connections")

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if secure else None
    if tls is not None:
        authority.issue_cert("localhost").configure_cert(tls)

    reply = talk(answer(OK), use, tls=tls, host="localhost", ca_file=tmp_path / "ca.pem")

    assert reply.ok


# ------------------------------------------------------------------ lost


def test_a_connection_that_ends_without_an_answer_is_lost() -> None:
    assert post(answer(raw=True)).kind == "lost"


def test_a_connection_that_is_reset_after_the_request_is_lost() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.transport.abort()

    reply = post(handle)

    assert (reply.kind, reply.trouble) == ("lost", "reset")


def test_a_connection_that_is_reset_within_the_request_is_lost() -> None:
    """The platform may have had enough of it: bytes were written."""
    large = b'{"to":"+15550000001","body":"%s"}' % (b"x" * 5_000_000)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(100_000)
        writer.transport.abort()

    async def use(client: Client, _served: Served) -> Reply:
        return await send(client, large)

    assert talk(handle, use).kind == "lost"


def test_an_answer_cut_in_its_body_is_lost() -> None:
    assert post(answer(whole(OK)[:-5], raw=True)).kind == "lost"


@pytest.mark.parametrize(
    "begun", [b"", b"HTTP/1.1 200 OK\r\n", whole(OK)[:-1]], ids=["nothing", "a line", "most of it"]
)
def test_no_whole_answer_in_time_is_lost(begun: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(begun)
        await reader.read()

    reply = post(handle, total_secs=0.1)
    if reply.kind == "not_sent":  # a machine so busy that the time was over before the request was written
        reply = post(handle, total_secs=3)

    assert (reply.kind, reply.trouble) == ("lost", "timeout")


def test_what_is_not_http_is_lost() -> None:
    assert post(answer(b"SSH-2.0-OpenSSH\r\n", raw=True)).kind == "lost"


def test_an_answer_that_is_too_large_is_not_held() -> None:
    reply = post(answer(b"x" * 200_000))

    assert reply.unreadable == "the reply is too large"


def test_after_trouble_the_next_request_has_a_connection_of_its_own() -> None:
    answers = iter([b"", whole(OK)])

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(next(answers))

    async def use(client: Client, served: Served) -> None:
        assert [(await send(client)).kind for _ in range(2)] == ["lost", "answered"]
        assert len(served.connections) == 2

    talk(handle, use)


def test_nothing_is_sent_twice() -> None:
    """What is retried, and when, is decided elsewhere: where it is known what that means."""
    seen = []

    async def handle(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))

    assert post(handle).kind == "lost"
    assert len(seen) == 1


def test_a_cancelled_request_leaves_no_connection_behind() -> None:
    async def handle(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await reader.read()

    async def use(client: Client, served: Served) -> None:
        task = asyncio.create_task(send(client))
        await until(lambda: served.connections)

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        await until(lambda: served.ended)

    talk(handle, use)


# ------------------------------------------------------------------ the probe


def test_a_probe_tells_what_the_platform_said() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, body = await read_request(reader)
        assert (head.split(b"\r\n")[0], body) == (b"GET /lists?per_page=100 HTTP/1.1", b"")
        writer.write(whole(b'{"lists":[]}'))

    async def use(client: Client, _served: Served) -> Reply:
        return await client.lists()

    assert talk(handle, use) == Reply("answered", status=200, text='{"lists":[]}')


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (whole(b'{"code":"unauthorized"}', status=b"401 No"), ("answered", 401)),
        (whole(b"x" * 200_000, status=b"500 No"), ("answered", 500)),
        (b"", ("not_sent", 0)),
        (b"junk", ("not_sent", 0)),
        (whole(OK)[:-1], ("not_sent", 0)),
    ],
    ids=["refused", "too large", "nothing", "junk", "cut"],
)
def test_a_probe_that_fails_leaves_nothing_in_doubt(raw: bytes, told: tuple[str, int]) -> None:
    async def use(client: Client, _served: Served) -> Reply:
        return await client.lists()

    reply = talk(answer(raw, raw=True), use)

    assert (reply.kind, reply.status) == told
    assert not reply.ok


def test_what_is_said_of_trouble_is_short_and_holds_no_key() -> None:
    """It goes into holds, logs and headers."""

    async def use(client: Client, _served: Served) -> Reply:
        client._api_key = lambda: "trk_secret"
        return await send(client)

    reply = talk(answer(b"HTTP/1.1 200 OK\r\nbroken %s\r\n\r\n" % (b"trk_secret" * 200), raw=True), use)

    assert reply.text
    assert "trk_secret" not in reply.text
    assert len(_trouble(httpx.ReadError("x" * 10_000), written=True).text) <= 300


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", ("not_sent", "tls")),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", ("not_sent", "tls")),
        ("TLSV1_ALERT_UNKNOWN_CA", ("not_sent", "tls")),
        ("TLSV1_ALERT_ACCESS_DENIED", ("not_sent", "tls")),
        ("SSLV3_ALERT_BAD_RECORD_MAC", ("lost", "reset")),
        ("TLSV1_ALERT_INTERNAL_ERROR", ("lost", "reset")),
        ("CERTIFICATE_VERIFY_FAILED", ("lost", "reset")),
        (None, ("lost", "reset")),
    ],
)
def test_of_what_ends_tls_after_the_request_only_an_alert_about_our_certificate_means_that_nothing_was_read(
    reason: str | None, told: tuple[str, str]
) -> None:
    cause = ssl.SSLError()
    cause.reason = reason  # type: ignore[assignment] # the library has None where OpenSSL names none
    error = httpx.ReadError("connection lost")
    error.__cause__ = cause

    reply = _trouble(error, written=True)

    assert (reply.kind, reply.trouble) == told


def test_errors_that_are_the_cause_of_one_another_are_told_as_any_other() -> None:
    """Libraries keep errors and raise them again: the event loop must not follow them for ever."""
    first, second = httpx.ReadError("first"), OSError("second")
    first.__cause__, second.__context__ = second, first

    reply = _trouble(first, written=False)

    assert (reply.kind, reply.trouble) == ("not_sent", "connect")


@pytest.mark.parametrize("status", [b"400 Bad Request", b"403 Forbidden", b"500 Oops", b"200 OK"])
@pytest.mark.parametrize("key", ["trk_0123456789abcdef0123456789abcdef", "trk_0123"])
def test_a_server_that_repeats_the_key_does_not_have_it_written_anywhere(status: bytes, key: str) -> None:
    """As pages do that show a request to whoever debugs it: dead letters have their text, and many readers."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            quoted = json.dumps(head.decode())
            page = '{"queued_count":0,"error_count":1,"errors":[{"index":0,"code":%s,"error":%s}],"error":%s}'
            writer.write(whole((page % (quoted, quoted, quoted)).encode(), status=status))

    async def use(client: Client, _served: Served) -> tuple[Reply, Reply]:
        client._api_key = lambda: key
        return await send(client), await client.lists()

    posted, asked = talk(handle, use)

    assert "X-Api-Key: ***" in f"{posted.text}{posted.errors}"
    assert "X-Api-Key: ***" in asked.text
    assert key[:12] not in f"{posted} {posted.errors} {asked}"


@pytest.mark.parametrize("page", [b"<html>Maintenance</html>", b"[]", b""])
def test_a_page_in_its_place_is_distinguished_from_the_platform(page: bytes) -> None:
    assert talk(answer(page), lambda client, _: client.lists()).foreign
