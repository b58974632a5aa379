"""Who has the token; and requests that are not HTTP are answered and not logged, as they may contain it."""

import asyncio
import io
import json

import pytest
from aiohttp import web
from pydantic import SecretStr

from connector.config.settings import LogSettings
from connector.console import guarding
from connector.console.guarding import _REPORT_SECS, MAX_CONNECTIONS, RefusedError, TokenGuard, runner_of
from connector.console.pages import Console
from connector.telemetry.logging import configure_logging
from tests.console.conftest import TOKEN, FakeHost
from tests.kit.patience import PATIENCE_SECS


def test_wrong_tokens_are_counted_in_few_lines_of_the_log_and_lock_nobody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever address they come from: behind a proxy all have the same one."""
    clock, told, token_guard = [0.0], io.StringIO(), TokenGuard()
    monkeypatch.setattr(guarding, "monotonic", lambda: clock[0])
    with monkeypatch.context() as patched:
        patched.setattr("logging.root.handlers", [])
        configure_logging(LogSettings(format="json"), stream=told)
        for clock[0] in (0.0, *[1.0] * 500, _REPORT_SECS + 1):
            with pytest.raises(RefusedError) as refused:
                token_guard.check(SecretStr(TOKEN), "a-wrong-token-0123456789", "10.0.0.1")
            assert refused.value.status == 401

        token_guard.check(SecretStr(TOKEN), TOKEN, "10.0.0.1")

    lines = [json.loads(line) for line in told.getvalue().splitlines()]
    assert [line["times"] for line in lines if line["event"] == "wrong tokens refused"] == [1, 501]
    assert "a-wrong-token" not in told.getvalue()


async def _answer(sent: bytes) -> bytes:
    """Return the first line that pages answer to what is sent to them."""
    app = web.Application()
    Console(FakeHost()).add_to(app)
    runner = runner_of(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
        writer.write(sent)
        line = await reader.readline()
        writer.close()
    finally:
        await runner.cleanup()
    return line


@pytest.mark.parametrize(
    "sent",
    [
        f"GET / HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {TOKEN}\r\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer \0{TOKEN}\r\n\r\n".encode(),
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: here\r\n\r\n",
    ],
    ids=["token of a file of Windows", "token", "version", "address"],
)
def test_what_cannot_be_read_is_refused_and_not_repeated_in_the_log(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = io.StringIO()
    with monkeypatch.context() as patched:
        patched.setattr("logging.root.handlers", [])
        configure_logging(LogSettings(format="json"), stream=told)

        line = asyncio.run(_answer(sent))

    assert line.split(b" ")[1] == b"400"
    assert told.getvalue() == ""


def test_a_failure_in_a_page_is_reported_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()
    monkeypatch.setattr(FakeHost, "status", None)
    with monkeypatch.context() as patched:
        patched.setattr("logging.root.handlers", [])
        configure_logging(LogSettings(format="json"), stream=told)

        line = asyncio.run(_answer(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"))

    assert line.split(b" ")[1] == b"500"
    assert "Traceback" in told.getvalue()


def test_idle_connections_block_no_other_client() -> None:
    """They would take the descriptors by which brokers and platform are reached, until nothing was sent any more."""
    ended, line, there = asyncio.run(_crowded(20))

    assert ended == [b""] * 20
    assert line.split(b" ")[1] == b"200"
    assert there <= MAX_CONNECTIONS


async def _crowded(more: int) -> tuple[list[bytes], bytes, int]:
    """Open more than there may be; return what the first read, what one more is answered, and how many are left."""
    app = web.Application()
    Console(FakeHost()).add_to(app)
    runner = runner_of(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = runner.addresses[0][:2]
    try:
        async with asyncio.timeout(PATIENCE_SECS):
            idle = [await asyncio.open_connection(*address) for _ in range(MAX_CONNECTIONS + more)]
            ended = [await reader.read() for reader, _ in idle[:more]]
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET /login HTTP/1.1\r\nHost: here\r\n\r\n")
            line = await reader.readline()
        assert runner.server is not None
        there = sum(known.transport is not None for known in runner.server.connections)
        for _, open_writer in [*idle, (reader, writer)]:
            open_writer.close()
    finally:
        await runner.cleanup()
    return ended, line, there
