"""A certificate that is not the platform's holds the stream: nothing is sent, and nothing is in doubt."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from connector.core.verdicts import Action, Reply, VerdictPolicy, classify
from connector.trackly.client import Client
from tests.kit.patience import PATIENCE_SECS
from tests.trackly.serving import OK, Served, answer, post, send, settings, talk

POLICY = VerdictPolicy(5, frozenset(), frozenset(), frozenset({504}))


@dataclass
class Authority:
    """A certificate authority, and the file that makes it trusted."""

    ca: trustme.CA
    file: Path

    def serving(self, *names: str, **more: Any) -> ssl.SSLContext:
        """Return a server's context with a certificate for these names."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.ca.issue_cert(*names, **more).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(file)
    return Authority(ca, file)


def held(reply: Reply) -> bool:
    """Tell whether a reply holds the stream with certainty that nothing was sent."""
    return reply.kind == "not_sent" and classify(reply, POLICY, own_list=False).action is Action.HOLD


def test_a_certificate_of_a_trusted_authority_is_good(authority: Authority) -> None:
    reply = post(answer(OK), tls=authority.serving("127.0.0.1"), ca_file=authority.file)

    assert reply.ok


def test_a_connection_over_tls_is_used_again(authority: Authority) -> None:
    async def use(client: Client, served: Served) -> int:
        for _ in range(3):
            assert (await send(client)).ok
            await asyncio.sleep(0.01)
        return len(served.connections)

    tls = authority.serving("127.0.0.1")
    assert talk(answer(OK), use, tls=tls, ca_file=authority.file, idle_secs=60) == 1


def test_a_certificate_of_another_host_holds(authority: Authority) -> None:
    reply = post(answer(OK), tls=authority.serving("trackly.example", "127.0.0.2"), ca_file=authority.file)

    assert held(reply)
    assert "IP address mismatch" in reply.text


def test_a_certificate_of_another_name_holds(authority: Authority) -> None:
    reply = post(answer(OK), tls=authority.serving("trackly.example"), host="localhost", ca_file=authority.file)

    assert held(reply)
    assert "Hostname mismatch" in reply.text


def test_a_certificate_that_has_expired_holds(authority: Authority) -> None:
    past = datetime.now(UTC) - timedelta(days=1)
    tls = authority.serving("127.0.0.1", not_before=past - timedelta(days=1), not_after=past)

    reply = post(answer(OK), tls=tls, ca_file=authority.file)

    assert held(reply)
    assert "certificate has expired" in reply.text


def test_an_unknown_authority_holds(authority: Authority) -> None:
    reply = post(answer(OK), tls=authority.serving("127.0.0.1"))

    assert held(reply)
    assert "unable to get local issuer certificate" in reply.text


def test_an_authority_may_be_left_unchecked_on_purpose(authority: Authority) -> None:
    assert post(answer(OK), tls=authority.serving("trackly.example"), verify=False).ok


def test_a_server_without_tls_holds() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async def use(client: Client, _served: Served) -> Reply:
        client._base = client._base.copy_with(scheme="https")
        return await send(client)

    assert held(talk(handle, use))


def against(serve: Callable[[ssl.SSLSocket], None], tls: ssl.SSLContext, authority: Authority) -> Reply:
    """Post to a server in a thread of its own, which sends alerts as servers do; one of asyncio closes too fast."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(PATIENCE_SECS)

    def run() -> None:
        peer, _ = listening.accept()
        peer.settimeout(PATIENCE_SECS)
        with tls.wrap_socket(peer, server_side=True, do_handshake_on_connect=False) as secure:
            serve(secure)
            with suppress(OSError):
                socket.socket.shutdown(secure, socket.SHUT_WR)
                while socket.socket.recv(secure, 65_536):
                    pass

    thread = threading.Thread(target=run)
    thread.start()

    async def use(client: Client, _served: Served) -> Reply:
        return await send(client)

    try:
        port = listening.getsockname()[1]
        return talk(answer(), use, base_url=f"https://127.0.0.1:{port}", ca_file=authority.file)
    finally:
        thread.join(PATIENCE_SECS)
        listening.close()


def refuse(secure: ssl.SSLSocket) -> None:
    with pytest.raises(ssl.SSLError):
        secure.do_handshake()


def test_rubbish_in_place_of_an_answer_leaves_doubt(authority: Authority) -> None:
    """TLS fails here as well, but after the server has read what it was sent."""

    def serve(secure: ssl.SSLSocket) -> None:
        secure.do_handshake()
        assert secure.recv(10)
        socket.socket.sendall(secure, b"\x17\x03\x03\x00\x10" + b"x" * 16)

    reply = against(serve, authority.serving("127.0.0.1"), authority)

    assert (reply.kind, reply.trouble) == ("lost", "reset")
    assert "SSL" in reply.text


def test_a_version_that_nobody_shares_holds(authority: Authority) -> None:
    tls = authority.serving("127.0.0.1")
    tls.set_ciphers("AES128-SHA")
    tls.maximum_version = ssl.TLSVersion.TLSv1_2

    assert held(against(refuse, tls, authority))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_without_the_certificate_that_is_asked_for_is_held(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    """With TLS 1.3 the refusal may come after the request was written, but the server has not read a byte of it."""
    tls = authority.serving("127.0.0.1")
    tls.minimum_version = tls.maximum_version = version
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.ca.configure_trust(tls)

    assert held(against(refuse, tls, authority))


def test_a_client_with_the_certificate_that_is_asked_for_is_admitted(authority: Authority, tmp_path: Path) -> None:
    tls = authority.serving("127.0.0.1")
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.ca.configure_trust(tls)
    ours = authority.ca.issue_cert("connector@trackly.example")
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")

    reply = post(
        answer(OK), tls=tls, ca_file=authority.file, cert_file=tmp_path / "cert.pem", key_file=tmp_path / "key.pem"
    )

    assert reply.ok


@pytest.mark.parametrize("verify", [True, False])
def test_a_certificate_that_was_renewed_in_its_file_is_used_when_told_so(
    authority: Authority, tmp_path: Path, verify: bool
) -> None:
    """One that expired while we ran holds; half a pair changes nothing, a whole one ends the hold without a restart."""
    tls = authority.serving("127.0.0.1")
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.ca.configure_trust(tls)
    strange, ours = (ca.issue_cert("connector@trackly.example") for ca in (trustme.CA(), authority.ca))
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    strange.private_key_pem.write_to_path(key)
    strange.cert_chain_pems[0].write_to_path(cert)

    async def use(client: Client, _served: Served) -> list[Reply]:
        replies = [await send(client)]
        changes = [(cert, ours.cert_chain_pems[0]), (key, ours.private_key_pem), (cert, strange.cert_chain_pems[0])]
        for file, content in changes:
            content.write_to_path(file)
            client.read_certificates_again()
            replies.append(await send(client))
        return replies

    ca_file = authority.file if verify else None
    stranger, half, renewed, half_again = talk(
        answer(OK), use, tls=tls, idle_secs=0.0, ca_file=ca_file, verify=verify, cert_file=cert, key_file=key
    )

    assert [stranger.ok, half.ok, renewed.ok, half_again.ok] == [False, False, True, True]


def test_an_authority_that_was_added_to_its_file_is_trusted_when_told_so(authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)

    async def use(client: Client, _served: Served) -> list[Reply]:
        replies = [await send(client)]
        authority.ca.cert_pem.write_to_path(file, append=True)
        client.read_certificates_again()
        return [*replies, await send(client)]

    before, after = talk(answer(OK), use, tls=authority.serving("127.0.0.1"), ca_file=file)

    assert [held(before), after.ok] == [True, True]


def test_where_no_file_is_given_nothing_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each probe would load the authorities of the system, for some 40 ms of the event loop that all streams share."""
    client = Client(settings(), lambda: "key")
    monkeypatch.setattr("connector.trackly.client.client_context", lambda _tls: pytest.fail("loaded again"))

    client.read_certificates_again()


def test_a_connection_that_ends_within_the_handshake_is_an_outage() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.transport.abort()

    async def use(client: Client, _served: Served) -> Reply:
        client._base = client._base.copy_with(scheme="https")
        return await send(client)

    reply = talk(handle, use)

    assert (reply.kind, reply.trouble) == ("not_sent", "connect")


def test_a_handshake_that_does_not_end_in_time_is_an_outage() -> None:
    async def handle(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def use(client: Client, _served: Served) -> Reply:
        client._base = client._base.copy_with(scheme="https")
        return await send(client)

    reply = talk(handle, use, connect_secs=0.1)

    assert (reply.kind, reply.trouble) == ("not_sent", "connect_timeout")


def test_an_answer_that_is_cut_within_tls_is_lost(authority: Authority) -> None:
    async def use(client: Client, _served: Served) -> Reply:
        return await send(client)

    handle = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 46\r\n\r\n{", raw=True)
    reply = talk(handle, use, tls=authority.serving("127.0.0.1"), ca_file=authority.file)

    assert reply.kind == "lost"
