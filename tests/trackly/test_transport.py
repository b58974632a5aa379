"""Connections: which are reused, what a reply may contain, and that no reply is taken for another's."""

import asyncio
import gzip
import select
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from connector.core.verdicts import Action, Reply, VerdictPolicy, classify
from connector.trackly.client import Client
from connector.trackly.transport import MAX_HEADER_BYTES, ExactTransport, _Connection
from tests.kit.leaping import Leaping
from tests.kit.patience import PATIENCE_SECS
from tests.trackly.serving import OK, VALUE, Served, answer, post, read_request, send, talk, until, whole

POLICY = VerdictPolicy(5, frozenset(), frozenset(), frozenset({504}))
FAILED = b'{"error":"no","code":"internal_error"}'


def action(reply: Reply) -> Action:
    return classify(reply, POLICY, own_list=False).action


def transport_of(client: Client) -> ExactTransport:
    transport = client._transport
    assert isinstance(transport, ExactTransport)
    return transport


# ------------------------------------------------------------------ connections are used again, but not for long


def test_a_connection_is_used_for_one_request_after_another() -> None:
    async def use(client: Client, served: Served) -> int:
        for _ in range(3):
            assert (await send(client)).ok
        return len(served.connections)

    assert talk(answer(OK), use, idle_secs=60) == 1


def test_requests_at_the_same_time_have_connections_of_their_own() -> None:
    async def use(client: Client, served: Served) -> int:
        replies = await asyncio.gather(*[send(client) for _ in range(5)])
        assert all(reply.ok for reply in replies)
        return len(served.connections)

    assert talk(answer(OK), use) == 5


def test_a_connection_that_was_idle_for_too_long_is_left() -> None:
    """The platform may close it at any moment then, and a request that is under way would be in doubt."""

    async def use(client: Client, served: Served) -> None:
        for _ in range(2):
            assert (await send(client)).ok
        (idle,) = transport_of(client)._idle
        idle.idle_since -= 4.001

        assert (await send(client)).ok

        assert len(served.connections) == 2
        await until(lambda: served.ended == served.connections[:1])

    talk(answer(OK), use, idle_secs=4)


def test_a_connection_that_was_idle_while_the_machine_slept_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end may never have come to us, and the loop's own clock stood still meanwhile."""
    told = time.clock_gettime
    slept = {time.CLOCK_BOOTTIME: 3_600.0}

    async def use(client: Client, served: Served) -> int:
        assert (await send(client)).ok
        monkeypatch.setattr(time, "clock_gettime", lambda clock: told(clock) + slept.get(clock, 0.0))
        assert (await send(client)).ok
        return len(served.connections)

    assert talk(answer(OK), use, idle_secs=4) == 2


def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(whole(OK))

    async def use(client: Client, served: Served) -> None:
        assert (await send(client)).ok
        (idle,) = transport_of(client)._idle
        await until(lambda: idle.closed)

        assert (await send(client)).ok

        assert len(served.connections) == 2

    talk(handle, use, idle_secs=60)


def test_a_connection_that_is_just_being_closed_on_our_side_is_not_used_again() -> None:
    """The event loop says so a turn later; what is written meanwhile is dropped, and would count as lost."""

    async def use(client: Client, served: Served) -> int:
        assert (await send(client)).ok
        (idle,) = transport_of(client)._idle
        assert idle.transport is not None
        idle.transport.abort()
        assert not idle.closed

        assert (await send(client)).ok

        return len(served.connections)

    assert talk(answer(OK), use, idle_secs=60) == 2


@pytest.mark.parametrize("last_words", [b"", whole(FAILED, status=b"408 Request Timeout")], ids=["silent", "with 408"])
def test_a_connection_that_was_closed_while_nobody_looked_is_not_written_to(last_words: bytes) -> None:
    """An event loop that was busy has not heard of it yet; the kernel has, and it is the kernel that is asked."""
    closed = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(PATIENCE_SECS)

    def serve() -> None:
        for last in (last_words, b""):
            peer, _ = listening.accept()
            with peer:
                while not peer.recv(65_536).endswith(VALUE + b"]}"):
                    pass
                peer.sendall(whole(OK))
                answered.wait(PATIENCE_SECS)
                peer.sendall(last)
            closed.set()

    answered = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()

    async def use(client: Client, _served: Served) -> Reply:
        assert (await send(client)).ok
        answered.set()
        closed.wait(PATIENCE_SECS)  # the loop stands still meanwhile: that is the point
        return await send(client)

    try:
        reply = talk(answer(), use, idle_secs=60, base_url=f"http://127.0.0.1:{listening.getsockname()[1]}")
    finally:
        thread.join(PATIENCE_SECS)
        listening.close()
    assert (reply.kind, reply.status) == ("answered", 200)


def test_a_connection_that_is_closed_as_soon_as_it_is_made_means_certainly_not_sent() -> None:
    """A balancer with nobody behind it takes connections and hangs up: that is an outage, and nothing is in doubt."""
    closed = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(PATIENCE_SECS)

    def serve() -> None:
        listening.accept()[0].close()
        closed.set()

    async def stand_still() -> None:
        for _ in range(20):  # turns of the loop, more than connecting takes
            closed.wait(0.1)
            await asyncio.sleep(0)

    async def use(client: Client, _served: Served) -> Reply:
        reply, _ = await asyncio.gather(send(client), stand_still())
        return reply

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        reply = talk(answer(), use, base_url=f"http://127.0.0.1:{listening.getsockname()[1]}")
    finally:
        thread.join(PATIENCE_SECS)
        listening.close()
    assert (reply.kind, reply.trouble) == ("not_sent", "connect")


def test_a_connection_has_ended_when_the_kernel_says_so_and_no_last_words_are_left() -> None:
    """What is reset cannot be read either; what the other side said before it left is to be read as a reply."""

    async def ended(leave: Callable[[socket.socket], None]) -> bool:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            ours = socket.create_connection(listening.getsockname())
            theirs, _ = listening.accept()
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(1_000), sock=ours)
        leave(theirs)
        if theirs.fileno() < 0:
            left = select.poll()  # the loop stands still meanwhile, and hears of nothing
            left.register(ours.fileno(), select.POLLRDHUP)
            assert left.poll(PATIENCE_SECS * 1_000)
        with theirs:
            return connection.has_ended()

    def reset(theirs: socket.socket) -> None:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()

    def speak_and_leave(theirs: socket.socket) -> None:
        theirs.sendall(b"HTTP/1.1 408 ")
        theirs.close()

    async def all_of(*ways: Callable[[socket.socket], None]) -> list[bool]:
        return [await ended(way) for way in ways]

    ways = (lambda _: None, socket.socket.close, reset, speak_and_leave)
    assert asyncio.run(all_of(*ways)) == [False, True, True, False]


def test_an_address_that_never_answers_keeps_nobody_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host may have an IPv6 address that leads nowhere from here, or a machine that is gone still has its name."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.2", 0))
        silent.listen(0)
        crowd = [socket.socket() for _ in range(4)]  # more than may wait there: the kernel drops who comes after
        for each in crowd:
            each.setblocking(False)
            each.connect_ex(silent.getsockname())
        look_up = socket.getaddrinfo

        def two(_host: str, port: int, *more: int) -> list[Any]:
            return look_up(*silent.getsockname(), *more) + look_up("127.0.0.1", port, *more)

        async def use(client: Client, _served: Served) -> list[str]:
            client._base = client._base.copy_with(host="platform.example")
            monkeypatch.setattr(socket, "getaddrinfo", two)
            loop, tried = asyncio.get_running_loop(), list[str]()
            connect = loop.sock_connect

            async def noted(reached: socket.socket, address: Any) -> None:
                tried.append(address[0])
                await connect(reached, address)

            monkeypatch.setattr(loop, "sock_connect", noted)
            for _ in range(2):
                reply = await send(client)
                assert reply.ok, reply.text
                transport_of(client)._idle.pop().abort()
            return tried

        tried = talk(answer(OK), use, connect_secs=2.0)
        for each in crowd:
            each.close()
    assert tried == ["127.0.0.2", "127.0.0.1", "127.0.0.1"], "the second time it is known"


class _Names:
    """A name server and its hosts, by address: each is reached, refuses, or never answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
        self.named = ""
        self.hosts: dict[str, str] = {}
        self.tried: list[tuple[str, float]] = []
        self._loop, self._port = asyncio.get_running_loop(), port
        self._connect = self._loop.sock_connect
        monkeypatch.setattr(self._loop, "getaddrinfo", self._look_up)
        monkeypatch.setattr(self._loop, "sock_connect", self._reach)

    async def _look_up(self, *_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (name, self._port)) for name in self.named]

    async def _reach(self, reached: socket.socket, address: Any) -> None:
        self.tried.append((address[0], self._loop.time()))
        host = self.hosts.get(address[0])
        if host == "refuses":
            raise ConnectionRefusedError
        if host == "silent":
            await asyncio.Event().wait()
        await self._connect(reached, ("127.0.0.1", self._port))


@pytest.mark.parametrize(
    ("hosts", "began"),
    [
        (["silent"] * 3, [0, 2, 4]),
        (["refuses", "silent", "silent"], [0, 0, 3]),
        (["silent", "refuses", "silent"], [0, 2, 2]),
    ],
)
def test_each_address_of_a_host_has_an_equal_share_of_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, hosts: list[str], began: list[float]
) -> None:
    async def use(client: Client, served: Served) -> Reply:
        names = _Names(monkeypatch, served.port)
        names.named, names.hosts = "abc", dict(zip("abc", hosts, strict=True))
        at = asyncio.get_running_loop().time()
        reply = await send(client)
        assert names.tried == list(zip("abc", [at + secs for secs in began], strict=True))
        return reply

    reply = talk(answer(OK), use, connect_secs=6.0, loop_factory=Leaping)

    assert (reply.kind, reply.trouble) == ("not_sent", "connect_timeout")


def test_addresses_that_could_not_be_reached_come_last_until_they_were_or_the_name_was_without_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def use(client: Client, served: Served) -> list[str]:
        names, orders = _Names(monkeypatch, served.port), list[str]()
        for named, away in [
            ("ab", "a"),
            ("ab", ""),
            ("ab", "b"),  # only a is left, and is as good as ever
            ("ba", ""),
            ("a", ""),
            ("ba", ""),
        ]:
            names.named, names.hosts, names.tried = named, dict.fromkeys(away, "refuses"), []
            assert (await send(client)).ok
            transport_of(client)._idle.pop().abort()
            orders.append("".join(name for name, _ in names.tried))
        return orders

    assert talk(answer(OK), use) == ["ab", "b", "ba", "a", "a", "b"]


def test_connections_that_are_made_at_the_same_time_ask_for_the_address_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few threads ask. Where a name server takes long, one question for each connection keeps most from being made."""
    look_up = socket.getaddrinfo
    asked: list[str] = []
    known = threading.Event()

    def slow(host: str, port: int, *more: int) -> list[Any]:
        asked.append(host)
        known.wait(PATIENCE_SECS)
        return look_up("127.0.0.1", port, *more)

    async def use(client: Client, _served: Served) -> list[Reply]:
        client._base = client._base.copy_with(host="platform.example")
        monkeypatch.setattr(socket, "getaddrinfo", slow)
        too_early = await send(client)
        assert (too_early.kind, too_early.trouble) == ("not_sent", "connect_timeout")  # others wait on
        sending = [asyncio.ensure_future(send(client)) for _ in range(5)]
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(known.set)
        replies = await asyncio.gather(*sending)
        assert len(asked) == 1
        for idle in transport_of(client)._idle:
            idle.abort()
        return [*replies, await send(client)]

    replies = talk(answer(OK), use, connect_secs=0.5)

    assert [reply.ok for reply in replies] == [True] * 6
    assert len(asked) == 2, "once more for a later connection: the host may have moved"


@pytest.mark.parametrize("reply", [whole(OK, headers=b"Connection: close\r\n"), b"HTTP/1.0 200 OK\r\n\r\n" + OK])
def test_a_connection_that_the_server_will_close_is_not_kept(reply: bytes) -> None:
    async def use(client: Client, served: Served) -> None:
        for _ in range(2):
            assert (await send(client)).unreadable is None
        assert len(served.connections) == 2
        assert not transport_of(client)._idle

    talk(answer(reply, raw=True), use, idle_secs=60)


def test_a_server_that_answers_early_and_reads_no_further_keeps_no_connection() -> None:
    """What was not written yet would stand in front of the next request, or keep a closed connection for ever."""
    large = b'{"to":"+15550000001","body":"%s"}' % (b"x" * 20_000_000)
    done = asyncio.Event()

    for headers in (b"", b"Connection: close\r\n"):

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: bytes = headers) -> None:
            reader._transport.pause_reading()  # type: ignore[attr-defined] # of the stream's own
            writer.write(whole(b"{}", status=b"413 Payload Too Large", headers=headers))
            await writer.drain()
            await done.wait()

        async def use(client: Client, served: Served) -> None:
            reply = await send(client, large)

            assert (reply.status, action(reply)) == (413, Action.SHRINK)
            assert not transport_of(client)._idle
            done.set()
            peer = served.connections[0].transport
            peer.resume_reading()  # type: ignore[attr-defined] # of sockets
            await until(peer.is_closing)

        done.clear()
        talk(handle, use, idle_secs=60)


@pytest.mark.parametrize("early", [whole(OK), b"HTTP/1.1 100 Continue\r\n\r\n" + whole(OK)], ids=["alone", "interim"])
def test_a_success_that_is_there_before_the_request_is_no_word_about_it(early: bytes) -> None:
    """Nobody has taken records that he has not read: it may be the late twin of an earlier reply."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    listening.settimeout(PATIENCE_SECS)
    done = threading.Event()

    def serve() -> None:
        peer, _ = listening.accept()
        with peer:
            peer.sendall(early)
            done.wait(PATIENCE_SECS)

    thread = threading.Thread(target=serve)
    thread.start()
    long = b'{"to":"+15550000001","body":"%s"}' % (b"x" * 400_000)
    try:
        reply = talk(
            answer(), lambda client, _: send(client, long), base_url=f"http://127.0.0.1:{listening.getsockname()[1]}"
        )
    finally:
        done.set()
        thread.join(PATIENCE_SECS)
        listening.close()

    assert (reply.kind, action(reply)) == ("lost", Action.DOUBT)
    assert "before the request" in reply.text


def test_closing_the_client_ends_what_is_idle_and_what_is_under_way() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(whole(OK))
        await read_request(reader)
        await reader.read()

    async def use(client: Client, served: Served) -> None:
        await asyncio.gather(send(client), send(client))
        assert len(transport_of(client)._idle) == 2
        under_way = asyncio.create_task(send(client))
        await until(lambda: transport_of(client)._busy)

        await client.close()

        reply = await under_way
        assert (reply.kind, reply.trouble) == ("lost", "reset")
        await until(lambda: len(served.ended) == 2)

    talk(handle, use, idle_secs=60)


# ------------------------------------------------------------------ no reply is taken for another's


@pytest.mark.parametrize(
    "junk",
    [
        whole(FAILED, status=b"500 Internal Server Error"),
        whole(OK) * 3,
        b"HTTP/1.1 500 No\r\nContent-Le",
        b"HTTP/1.",
        b"H",
        b"junk",
        b"\x00",
        OK,
    ],
    ids=["a failure", "replies", "half a reply", "a part of one", "a letter", "words", "zero", "a body"],
)
@pytest.mark.parametrize("together", [True, False], ids=["at once", "a little later"])
def test_what_follows_a_reply_taints_no_request(junk: bytes, together: bool) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(whole(OK) + junk if together else whole(OK))
        if not together:
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.write(junk)
        await reader.read()

    async def use(client: Client, served: Served) -> None:
        for count in (1, 2):
            reply = await send(client)

            assert (reply.status, reply.unreadable, reply.errors) == (200, None, ())
            await until(lambda count=count: len(served.ended) == count)  # type: ignore[misc] # a default
        assert not served.complaints

    talk(handle, use, idle_secs=60)


def test_an_empty_line_after_a_reply_is_no_junk() -> None:
    """Some servers write one; RFC 9112 has clients ignore it."""

    async def use(client: Client, served: Served) -> int:
        for _ in range(2):
            assert (await send(client)).ok
        return len(served.connections)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(whole(OK) + b"\r\n")

    assert talk(handle, use, idle_secs=60) == 1


def test_cookies_are_not_kept() -> None:
    """A request says what we say: nothing that a balancer, or somebody in its place, would like to hear again."""
    heads = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append((await read_request(reader))[0].lower())
            writer.write(whole(OK, headers=b"Set-Cookie: session=%s; Path=/\r\n" % (b"x" * 4_000)))

    async def use(client: Client, _served: Served) -> None:
        for _ in range(2):
            assert (await send(client)).ok

    talk(handle, use)

    assert len(heads) == 2
    assert b"cookie" not in heads[1]


# ------------------------------------------------------------------ replies without end


def endless(begin: bytes, part: bytes, sent: list[int]) -> Callable[..., object]:
    """Answer with a beginning and then the same bytes until nobody listens."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(begin)
        while not writer.is_closing() and sent[0] < 100_000_000:
            writer.write(part)
            sent[0] += len(part)
            await writer.drain()
            await asyncio.sleep(0)

    return handle


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "part"),
    [
        (HEAD, b"X-Header: %s\r\n" % (b"x" * 1_000)),
        (HEAD, b"a:b\r\n" * 1_000),
        (HEAD + b"X-Header: ", b"x" * 10_000),
        (HEAD + b"X-", b"x" * 10_000),
        (b"HTTP/1.1 200 ", b"x" * 10_000),
        (HEAD + b"Content-Length: ", b"0" * 10_000),
        (CHUNKED + b"2;", b"x" * 10_000),
        (CHUNKED + b"0\r\nX-Trailer: ", b"x" * 10_000),
        (CHUNKED + b"0\r\n", b"X-Trailer: %s\r\n" % (b"x" * 1_000)),
        (CHUNKED, b"0" * 10_000),
    ],
    ids=[
        "headers",
        "small headers",
        "a header's value",
        "a header's name",
        "a reason",
        "a length",
        "a chunk's extension",
        "a trailer's value",
        "trailers",
        "a chunk's length",
    ],
)
def test_a_head_without_end_is_not_held(begin: bytes, part: bytes) -> None:
    sent = [0]

    reply = post(endless(begin, part, sent))  # type: ignore[arg-type] # a handler

    assert (reply.kind, reply.trouble) == ("lost", "reset")
    assert sent[0] < 20_000_000, "what both kernels hold, and not more"


def test_headers_up_to_the_limit_are_read() -> None:
    padding = b"X-Header: %s\r\n" % (b"x" * (MAX_HEADER_BYTES - 200))

    assert post(answer(whole(OK, headers=padding), raw=True)).unreadable is None


@pytest.mark.parametrize(
    ("begin", "part"),
    [
        (HEAD + b"Content-Length: 100000000\r\n\r\n", b"x" * 100_000),
        (HEAD + b"\r\n", b"x" * 100_000),
        (CHUNKED, b"%x\r\n%s\r\n" % (50_000, b"x" * 50_000)),
        (CHUNKED, b"1\r\nx\r\n" * 10_000),
    ],
    ids=["of a known length", "until closed", "in chunks", "in small chunks"],
)
def test_a_reply_of_100_mb_is_not_held_and_leaves_doubt(begin: bytes, part: bytes) -> None:
    sent = [0]
    tracemalloc.start()
    try:
        reply = post(endless(begin, part, sent))  # type: ignore[arg-type] # a handler
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert (reply.unreadable, action(reply)) == ("the reply is too large", Action.DOUBT)
    assert peak < 12_000_000, "the limit of this client is 100,000 bytes; the rest is what the sockets pass on at once"
    assert sent[0] < 50_000_000


def test_a_reply_in_the_smallest_chunks_takes_no_more_memory_than_in_one() -> None:
    """The limit is one of memory; a single byte is no object of its own to Python, two are."""
    sent = [0]
    tracemalloc.start()
    try:
        reply = post(endless(CHUNKED, b"2\r\nxx\r\n" * 1_000, sent), max_reply_bytes=400_000)  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert reply.unreadable == "the reply is too large"
    assert peak < 6_000_000, "the limit and what the sockets pass on at once"


def test_a_failure_that_is_too_large_is_still_a_failure() -> None:
    """Its status says that the batch was not taken, whatever else it has to say."""
    reply = post(answer(whole(b"x" * 200_000, status=b"503 No"), raw=True))

    assert (reply.status, action(reply)) == (503, Action.BACK_OFF)


def test_what_is_compressed_is_never_inflated() -> None:
    """We did not ask for it; a small reply must not become a large one."""
    bomb = gzip.compress(b" " * 50_000_000)
    headers = b"Content-Encoding: gzip\r\n"
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        posted = post(answer(whole(bomb, headers=headers), raw=True))
        asked = talk(answer(whole(bomb, headers=headers), raw=True), lambda client, _: client.lists())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert posted.unreadable
    assert asked.kind == "answered"
    assert peak < 20_000_000


@pytest.mark.parametrize("charset", [b"hex", b"rot13", b"zlib", b"nonsense", b"utf-16", b"\xff"])
def test_no_charset_makes_a_probe_fail(charset: bytes) -> None:
    reply = whole(b'{"lists":[]}', headers=b"Content-Type: text/plain; charset=%s\r\n" % charset)

    asked = talk(answer(reply, raw=True), lambda client, _: client.lists())

    assert (asked.status, asked.text) == (200, '{"lists":[]}')


# ------------------------------------------------------------------ forms of replies

WHOLE_ONES = {
    "a length": whole(OK),
    "lower case": b"HTTP/1.1 200 ok\r\ncontent-length: %d\r\n\r\n%s" % (len(OK), OK),
    "no reason": b"HTTP/1.1 200\r\nContent-Length: %d\r\n\r\n%s" % (len(OK), OK),
    "one interim reply": b"HTTP/1.1 100 Continue\r\n\r\n" + whole(OK),
    "interim replies": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 5 + whole(OK),
    "processing": b"HTTP/1.1 102 Processing\r\n\r\n" + whole(OK),
    "one chunk": CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(OK), OK),
    "chunks of one byte": CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in OK) + b"0\r\n\r\n",
    "extensions and trailers": CHUNKED + b"%x;a=b\r\n%s\r\n0;c\r\nX-Sum: 1\r\n\r\n" % (len(OK), OK),
    "a long head and a long frame": HEAD
    + b"X: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x;%s\r\n%s\r\n0\r\n\r\n"
    % (b"x" * 40_000, len(OK), b"y" * 40_000, OK),
    "long interim replies": b"HTTP/1.1 103 Early Hints\r\nLink: %s\r\n\r\n" % (b"x" * 40_000) * 5 + whole(OK),
    "until closed": HEAD + b"\r\n" + OK,
    "closing": whole(OK, headers=b"Connection: close\r\n"),
}
BROKEN_ONES = {
    "nothing": b"",
    "half a line": b"HTTP/1.",
    "a line alone": HEAD,
    "a head that is cut": HEAD + b"Content-Length: 46\r\n",
    "an interim reply alone": b"HTTP/1.1 100 Continue\r\n\r\n",
    "a body that is cut": whole(OK)[:-1],
    "no body": b"HTTP/1.1 200 OK\r\nContent-Length: 46\r\n\r\n",
    "no last chunk": CHUNKED + b"%x\r\n%s\r\n" % (len(OK), OK),
    "a last chunk that is cut": CHUNKED + b"%x\r\n%s\r\n0\r\n" % (len(OK), OK),
    "a chunk that is cut": CHUNKED + b"%x\r\n%s" % (len(OK), OK[:-1]),
    "a chunk that is too long": CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(OK) - 1, OK),
    "a chunk without a length": CHUNKED + b"\r\n%s\r\n0\r\n\r\n" % OK,
    "a chunk of words": CHUNKED + b"zz\r\n%s\r\n0\r\n\r\n" % OK,
    "a chunk of less than nothing": CHUNKED + b"-1\r\n%s\r\n0\r\n\r\n" % OK,
    "a chunk beyond all": CHUNKED + b"ffffffffffffffffff\r\n%s\r\n0\r\n\r\n" % OK,
    "a length of words": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n" + OK,
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -46\r\n\r\n" + OK,
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 46\r\nContent-Length: 4\r\n\r\n" + OK,
    "a length beyond all": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n" + OK,
    "a length and chunks": HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + whole(OK),
    "another version": b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\nok",
    "a header that is none": HEAD + b"no colon\r\n\r\n",
    "a folded header": HEAD + b" folded: 1\r\n\r\n",
    "a header with a zero": HEAD + b"X: a\x00b\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("raw", WHOLE_ONES.values(), ids=WHOLE_ONES.keys())
def test_a_reply_is_read_in_any_form(raw: bytes) -> None:
    reply = post(answer(raw, raw=True))

    assert (reply.kind, reply.status, reply.unreadable) == ("answered", 200, None)


@pytest.mark.parametrize("name", ["a long head and a long frame", "long interim replies"])
def test_a_reply_may_come_in_pieces(name: str) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for at in range(0, len(WHOLE_ONES[name]), 10_000):
            writer.write(WHOLE_ONES[name][at : at + 10_000])
            await writer.drain()
            await asyncio.sleep(0.002)

    assert post(handle).unreadable is None


@pytest.mark.parametrize("name", ["one interim reply", "interim replies", "one chunk", "extensions and trailers"])
def test_a_reply_may_come_byte_by_byte(name: str) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await read_request(reader)
        for byte in WHOLE_ONES[name]:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)

    assert post(handle).unreadable is None


@pytest.mark.parametrize("raw", BROKEN_ONES.values(), ids=BROKEN_ONES.keys())
def test_a_reply_that_is_cut_or_broken_leaves_doubt(raw: bytes) -> None:
    reply = post(answer(raw, raw=True))

    assert (reply.kind, action(reply)) == ("lost", Action.DOUBT)


@pytest.mark.parametrize("status", [b"204 No Content", b"200 OK"])
def test_a_reply_without_a_body_leaves_doubt(status: bytes) -> None:
    reply = post(answer(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % status, raw=True))

    assert (reply.unreadable, action(reply)) == ("the reply is empty", Action.DOUBT)


def test_a_redirect_is_not_followed() -> None:
    seen = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await read_request(reader))
            writer.write(whole(b"", status=b"307 Temporary Redirect", headers=b"Location: /elsewhere\r\n"))

    reply = post(handle)

    assert (reply.status, action(reply), len(seen)) == (307, Action.HOLD, 1)


def test_a_long_request_that_is_refused_keeps_no_connection_and_one_that_is_accepted_does() -> None:
    """It may have been refused before it was read, and over TLS nothing tells how much of it has been sent."""
    long = b'{"to":"+15550000001","body":"%s"}' % (b"x" * 100_000)

    async def use(client: Client, served: Served) -> int:
        for _ in range(3):
            await send(client, long)
        return len(served.connections)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(whole(b"{}", status=b"413 Payload Too Large"))

    assert talk(refuse, use, idle_secs=60) == 3
    assert talk(answer(OK), use, idle_secs=60) == 1
