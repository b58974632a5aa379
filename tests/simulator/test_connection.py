"""HTTP/1.1 as it comes over the wire, also from clients that are odd, slow or hostile."""

import asyncio
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
import trustme
import uvloop

from connector.simulator import Faults, SimulatorSettings, SimulatorThread
from connector.simulator.connection import MAX_WAITING
from tests.kit.local import NO_TLS
from tests.kit.patience import PATIENCE_SECS
from tests.simulator.conftest import Serve, Served

LOOPS = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
LoopFactory = Callable[[], asyncio.AbstractEventLoop]
GET_LISTS = b"GET /api/v2/lists HTTP/1.1\r\nHost: x\r\nX-Api-Key: k\r\n\r\n"


@contextmanager
def connected(served: Served) -> Iterator[socket.socket]:
    address = urlsplit(served.simulator.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=PATIENCE_SECS) as client:
        yield client


def read_all(client: socket.socket) -> bytes:
    """Return everything until the other side closes."""
    data = b""
    try:
        while piece := client.recv(65_536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def post(body: bytes, *headers: bytes) -> bytes:
    lines = [
        b"POST /api/v2/send/bulk HTTP/1.1",
        b"Host: x",
        b"x-API-key: k",
        b"Content-Type: application/json",
        *headers,
    ]
    return b"\r\n".join([*lines, b"", body])


def message(body: str) -> bytes:
    return msgspec.json.encode({"messages": [{"to": "+15550000001", "list_number": "+18005551234", "body": body}]})


@LOOPS
def test_requests_that_come_at_once_are_answered_one_after_the_other(serve: Serve, loop_factory: LoopFactory) -> None:
    served = serve(faults=Faults(latency_ms=(1, 3)), loop_factory=loop_factory)
    count = 4 * MAX_WAITING
    one = [post(body, b"Content-Length: %d" % len(body)) for body in (message("x" * number) for number in range(count))]

    with connected(served) as client:
        client.sendall(b"".join(one) + GET_LISTS.replace(b"Host: x", b"Connection: close"))
        answers = read_all(client)

    assert answers.count(b"HTTP/1.1 200 OK") == count + 1
    assert answers.count(b'"error_count":1') == 1, "the one without a text"
    assert answers.index(b'"error_count":1') < answers.index(b'"error_count":0'), "which was the first"
    assert answers.rindex(b"queued_count") < answers.index(b'"lists"')
    assert served.simulator.ledger().in_flight_max == 1


def test_thousands_of_waiting_requests_do_not_exhaust_the_stack(served: Served) -> None:
    count = 3_000
    with connected(served) as client:
        reader = threading.Thread(target=client.sendall, args=(GET_LISTS * count,))
        reader.start()
        answers = b""
        while answers.count(b'"pagination"') < count:
            answers += client.recv(1_000_000)
        reader.join()

    assert served.simulator.ledger().requests == count


def test_a_request_may_come_byte_by_byte(served: Served) -> None:
    body = message("slow")
    with connected(served) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in post(body, b"Content-Length: %d" % len(body), b"Connection: close"):
            client.sendall(bytes([byte]))
        answer = read_all(client)

    assert b'"queued_count":1' in answer
    assert served.simulator.accepted("slow") == 1


def test_a_body_may_come_in_chunks(served: Served) -> None:
    body = message("chunked")
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:7], body[7:])) + b"0\r\n\r\n"
    with connected(served) as client:
        client.sendall(post(chunks, b"Transfer-Encoding: chunked", b"Connection: close"))
        answer = read_all(client)

    assert b'"queued_count":1' in answer


def test_a_client_that_expects_100_continue_gets_it(served: Served) -> None:
    body = message("asked")
    with connected(served) as client:
        client.sendall(post(b"", b"Content-Length: %d" % len(body), b"Expect: 100-continue"))
        told = client.recv(1_000)
        client.sendall(body)
        answer = client.recv(10_000)

    assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "request_head",
    [
        GET_LISTS.replace(b"Host: x", b"Connection: close"),
        GET_LISTS.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
def test_a_client_that_wants_the_connection_closed_has_it_closed(served: Served, request_head: bytes) -> None:
    with connected(served) as client:
        client.sendall(request_head)
        answer = read_all(client)

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in answer


@pytest.mark.parametrize("sent", [b"\x16\x03\x01 hello\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"])
def test_what_is_not_http_is_answered_with_400_and_closed(served: Served, sent: bytes) -> None:
    with connected(served) as client:
        client.sendall(sent)
        answer = read_all(client)

    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert served.send("next").status_code == 200


def test_an_upgrade_is_refused(served: Served) -> None:
    with connected(served) as client:
        client.sendall(b"GET /api/v2/lists HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        answer = read_all(client)

    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 401"))


def test_endless_headers_are_answered_with_431_and_closed(served: Served) -> None:
    with connected(served) as client:
        client.sendall(b"GET /api/v2/lists HTTP/1.1\r\n")
        try:
            for _ in range(1_000):
                client.sendall(b"X-Filler: " + b"x" * 1_000 + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            return  # closed already; what it said may be lost with the reset
        answer = read_all(client)

    assert answer.startswith(b"HTTP/1.1 431 ") or answer == b""
    assert served.simulator.ledger().requests == 0


@pytest.mark.parametrize("sent", [b"", b"POST /api/v2/send HTTP/1.1\r\nHost", post(b"{", b"Content-Length: 100")])
def test_a_connection_without_a_whole_request_is_closed_after_its_time(serve: Serve, sent: bytes) -> None:
    served = serve(idle_connection_secs=0.2)

    with connected(served) as client:
        client.sendall(sent)
        started = time.monotonic()
        answer = read_all(client)
        waited = time.monotonic() - started

    assert answer == b""
    assert waited > 0.1


def test_a_request_that_waits_for_its_reply_is_not_idle(serve: Serve) -> None:
    served = serve(idle_connection_secs=0.1, faults=Faults(latency_ms=(500, 500)))

    assert served.send("a").status_code == 200


def test_a_reader_that_stops_does_not_have_the_whole_ledger_put_into_memory(served: Served) -> None:
    for start in range(0, 20_000, 1_000):
        served.send(*(f"{number:0500d}" for number in range(start, start + 1_000)))

    with connected(served) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 131_072)
        client.sendall(b"GET /_simulator/ledger/records HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        deadline = time.monotonic() + PATIENCE_SECS
        while not (slow := [c for c in served.simulator._simulator.connections if c._slow is not None]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        [connection] = slow
        assert connection._transport is not None
        buffered = connection._transport.get_write_buffer_size()
        answer = read_all(client)

    assert buffered < 2_000_000
    assert answer.count(b'"identity"') == 20_000
    assert answer.endswith(b"\r\n0\r\n\r\n")


@LOOPS
def test_it_speaks_tls(serve: Serve, loop_factory: LoopFactory, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(cert_file)
    certificate.private_key_pem.write_to_path(key_file)
    served = serve(tls_cert_file=cert_file, tls_key_file=key_file, loop_factory=loop_factory)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    with httpx.Client(verify=trusting, trust_env=False, headers={"X-Api-Key": "k"}) as client:
        answers = [client.get(f"{served.simulator.url}/lists").status_code for _ in range(3)]

    assert served.simulator.url.startswith("https://")
    assert answers == [200, 200, 200]
    assert served.simulator.ledger().connections == 1


def test_a_taken_port_and_an_unreadable_certificate_are_reported_at_the_start(served: Served, tmp_path: Path) -> None:
    taken = urlsplit(served.simulator.url).port or 0
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")

    with pytest.raises(OSError, match=r"[Aa]ddress already in use"), SimulatorThread(SimulatorSettings(port=taken)):
        pass
    with (
        pytest.raises(ssl.SSLError),
        SimulatorThread(SimulatorSettings(tls_cert_file=garbage, tls_key_file=garbage)),
    ):
        pass


def test_a_failure_of_the_simulator_itself_is_500_and_reported_without_what_was_sent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    number = "+15550000001"

    def fail(*_arguments: object, **_rest: object) -> None:
        raise KeyError(number)

    monkeypatch.setattr("connector.simulator.behaviour.Behaviour.react", fail)
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(RuntimeError, match="KeyError") as caught,
        SimulatorThread() as simulator,
    ):
        status = httpx.get(f"{simulator.url}/lists", trust_env=False, verify=NO_TLS).status_code

    assert status == 500
    reported = [str(caught.value), *(record.getMessage() for record in caplog.records if "connector" in record.name)]
    assert len(reported) == 2
    assert all("in fail" in text and "+1555" not in text for text in reported)


def test_nothing_of_what_is_sent_is_logged(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        served.send("private", "", to="+15550000777")
        served.client.post(
            "/send/bulk", content=b'{"messages": ["private +15550000777', headers={"Content-Type": "application/json"}
        )
        with connected(served) as client:
            client.sendall(b"private +15550000777\r\n\r\n")
            read_all(client)

    assert "private" not in caplog.text
    assert "+15550000777" not in caplog.text
