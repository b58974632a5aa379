"""Through a proxy it is still known exactly whether the platform may have the request."""

import asyncio
import ssl
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from connector.core.verdicts import Action, Reply, VerdictPolicy, classify
from connector.trackly.client import Client, TooLateError
from tests.trackly.serving import OK, Handler, Served, answer, post, read_request, send, serving, talk, until, whole

POLICY = VerdictPolicy(5, frozenset(), frozenset(), frozenset({504}))


def action(reply: Reply) -> Action:
    return classify(reply, POLICY, own_list=False).action


def through(proxy: Handler, *, base_url: str = "http://platform.example", **options: Any) -> Reply:
    """Post one record through a proxy of the test's."""
    return post(proxy, as_proxy=True, base_url=base_url, **options)


def test_a_request_is_sent_through_the_proxy() -> None:
    seen = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(whole(OK))

    assert through(proxy).ok
    ((head, body),) = seen
    assert head.startswith(b"POST http://platform.example/send/bulk HTTP/1.1\r\n")
    assert body.startswith(b'{"messages":[')


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (b"407 Proxy Authentication Required", Action.HOLD),
        (b"403 Forbidden", Action.HOLD_OR_HALVE),
        (b"502 Bad Gateway", Action.BACK_OFF),
        (b"504 Gateway Timeout", Action.DOUBT),
    ],
)
def test_what_the_proxy_answers_is_judged_as_any_answer(status: bytes, expected: Action) -> None:
    assert action(through(answer(whole(b"no", status=status), raw=True))) is expected


def test_a_proxy_that_is_not_there_means_certainly_not_sent() -> None:
    reply = post(answer(), base_url="http://platform.example", proxy="http://127.0.0.1:1")

    assert (reply.kind, reply.trouble) == ("not_sent", "connect")


def test_an_answer_that_the_proxy_loses_is_lost() -> None:
    assert through(answer(raw=True)).kind == "lost"


def test_a_reply_through_a_proxy_is_bounded_as_well() -> None:
    reply = through(answer(b"x" * 200_000), max_reply_bytes=100_000)

    assert reply.unreadable == "the reply is too large"


def test_what_follows_a_reply_of_the_proxy_taints_no_request() -> None:
    """Taken for the next one's reply, a failure would have that posted again which the platform has."""

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(whole(OK) + whole(b"{}", status=b"500 Internal Server Error"))
        await read_request(reader)
        await reader.read()

    async def use(client: Client, _served: Served) -> None:
        for _ in range(3):
            assert (await send(client)).ok

    talk(proxy, use, as_proxy=True, base_url="http://platform.example")


def test_a_long_request_that_the_proxy_refuses_early_keeps_no_connection() -> None:
    """What the proxy has not read of it would stand in front of the next one."""
    long = b'{"to":"+15550000001","body":"%s"}' % (b"x" * 400_000)

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(whole(b"{}", status=b"413 Payload Too Large"))
        await asyncio.Event().wait()

    async def use(client: Client, served: Served) -> int:
        for _ in range(2):
            assert (await send(client, long)).status == 413
        return len(served.connections)

    assert talk(proxy, use, as_proxy=True, base_url="http://platform.example", total_secs=2) == 2


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_is_told_who_we_are_as_its_address_says(scheme: str) -> None:
    heads: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await read_request(reader))[0])
        writer.write(whole(OK, status=b"502 Bad Gateway"))

    async def use(client: Client, served: Served) -> None:
        proxied = client._settings.model_copy(update={"proxy": f"http://us:p%40ss@127.0.0.1:{served.port}"})
        await client.close()
        named = Client(proxied, lambda: "key")
        await send(named)
        await named.close()

    talk(proxy, use, base_url=f"{scheme}://platform.example")

    [head] = heads
    assert b"\r\nproxy-authorization: basic dxm6cebzcw==\r\n" in head.lower()
    assert (b"x-api-key" in head.lower()) == (scheme == "http"), "the key is for the platform"


def test_a_batch_that_comes_too_late_is_not_given_to_the_proxy() -> None:
    seen: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read())

    async def use(client: Client, served: Served) -> None:
        with pytest.raises(TooLateError):
            await send(client, before=time.clock_gettime(time.CLOCK_BOOTTIME) - 1)
        await client.close()
        await until(lambda: served.ended)

    talk(proxy, use, as_proxy=True, base_url="http://platform.example")

    assert seen == [b""]


# ------------------------------------------------------------------ a tunnel, as for any https address


def test_a_proxy_that_wants_credentials_for_a_tunnel_is_no_outage() -> None:
    """The stream holds with a reason that says so, as where the proxy hands on requests without one."""
    reply = through(
        answer(whole(b"no", status=b"407 Proxy Authentication Required"), raw=True), base_url="https://platform.example"
    )

    assert (action(reply), reply.status) == (Action.HOLD, 407)
    assert reply.foreign, "it says nothing about the platform"
    assert "HTTP 407" in reply.text


@pytest.mark.parametrize("status", [b"403 Forbidden", b"502 Bad Gateway", b"504 Gateway Timeout"])
def test_a_tunnel_that_the_proxy_refuses_means_certainly_not_sent(status: bytes) -> None:
    """Asking for a tunnel is no request to the platform, although it looks like one on the wire."""
    reply = through(answer(whole(b"no", status=status), raw=True), base_url="https://platform.example")

    assert (reply.kind, reply.trouble) == ("not_sent", "proxy")


def test_a_proxy_that_hangs_up_instead_of_a_tunnel_means_certainly_not_sent() -> None:
    reply = through(answer(raw=True), base_url="https://platform.example")

    assert reply.kind == "not_sent"


def tunnel(tls: ssl.SSLContext, platform: Handler) -> Handler:
    """Return a proxy that grants a tunnel to a platform of the test's."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"CONNECT platform.example:443 HTTP/1.1\r\n")
        assert b"x-api-key" not in head.lower(), "the key is for the platform"
        async with serving(platform, tls) as served:
            there = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    return proxy


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    made = trustme.CA(key_type=trustme.KeyType.ECDSA)
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    made.cert_pem.write_to_path(file)
    return made, file


def _tls(ca: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(name).configure_cert(context)
    return context


def test_a_request_is_sent_through_a_tunnel_without_the_credentials_of_the_proxy(ca: tuple[trustme.CA, Path]) -> None:
    heads: list[bytes] = []

    async def platform(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await read_request(reader))[0])
        writer.write(whole(OK))

    async def use(client: Client, served: Served) -> Reply:
        proxied = client._settings.model_copy(update={"proxy": f"http://us:p%40ss@127.0.0.1:{served.port}"})
        await client.close()
        named = Client(proxied, lambda: "key")
        reply = await send(named)
        await named.close()
        return reply

    proxy = tunnel(_tls(ca[0], "platform.example"), platform)
    assert talk(proxy, use, base_url="https://platform.example", ca_file=ca[1]).ok

    [head] = heads
    assert head.startswith(b"POST /send/bulk HTTP/1.1\r\n")
    assert b"proxy-authorization" not in head.lower()


def test_an_answer_that_is_lost_in_a_tunnel_is_lost(ca: tuple[trustme.CA, Path]) -> None:
    proxy = tunnel(_tls(ca[0], "platform.example"), answer(raw=True))

    assert through(proxy, base_url="https://platform.example", ca_file=ca[1]).kind == "lost"


def test_a_wrong_certificate_at_the_end_of_a_tunnel_holds(ca: tuple[trustme.CA, Path]) -> None:
    proxy = tunnel(_tls(ca[0], "stranger.example"), answer(OK))

    reply = through(proxy, base_url="https://platform.example", ca_file=ca[1])

    assert (reply.kind, reply.trouble, action(reply)) == ("not_sent", "tls", Action.HOLD)
