"""The worst possible far end, byte by byte and by seed: what is settled is compared with what it accepted."""

import asyncio
import json
import random
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pytest
import trustme
import uvloop

from tests.kit.sending import Bench
from tests.stream.test_sender import delivering
from tests.stream.test_sender import event as event_of
from tests.trackly.serving import Served, read_request, talk, whole

KEY: Final = "trk_0123456789abcdef0123456789abcdef"
TEXTS: Final = [f"text {number}" for number in range(400)]
LISTS: Final = whole(b'{"lists":[]}')
NO: Final = b'{"error":"no","code":"oops"}'
PAGE: Final = b"<html><body>Welcome</body></html>"
OK_LINE: Final = b"HTTP/1.1 200 OK\r\n"


def ok(count: int) -> bytes:
    """Return the reply of a platform that accepted all `count` records."""
    return b'{"queued_count":%d,"error_count":0,"errors":[]}' % count


@dataclass(frozen=True)
class Word:
    """The far end's answer to a request, whether it accepted the records, and how the connection ends."""

    says: Callable[[int], bytes]
    took: bool = True
    took_from: int = 0
    """The first record that it accepted, if any."""
    end: Literal["", "close", "reset"] = ""


WELL: Final = Word(lambda count: whole(ok(count)))
WORDS: Final[tuple[Word, ...]] = (
    # two replies to one request, the second for nobody, or for the next request
    Word(lambda count: whole(ok(count)) * 2),
    Word(lambda count: whole(ok(count)) + whole(NO, status=b"500 Oops")),
    Word(lambda count: whole(ok(count)) + whole(NO, status=b"400 No")),
    Word(lambda count: whole(NO, status=b"500 Oops") + whole(ok(count)), took=False),
    Word(lambda count: whole(ok(count)) + OK_LINE),
    Word(lambda count: b"HTTP/1.1 204 No Content\r\n\r\n" + whole(ok(count))),
    Word(lambda count: b"HTTP/1.1 304 Not Modified\r\n\r\n" + whole(ok(count)), took=False),
    # incomplete replies
    Word(lambda _: b"", end="close"),
    Word(lambda _: b"", end="reset"),
    Word(lambda count: whole(ok(count)), end="close"),
    Word(lambda count: whole(ok(count)), end="reset"),
    Word(lambda count: whole(ok(count))[:-9], end="close"),
    Word(lambda count: whole(ok(count))[:-9], end="reset"),
    Word(lambda count: OK_LINE + b"\r\n" + ok(count), end="close"),
    Word(lambda count: OK_LINE + b"\r\n" + ok(count)[:-1], end="close"),
    Word(lambda count: OK_LINE + b"Content-Length: 1000000000\r\n\r\n" + ok(count), end="close"),
    Word(lambda count: OK_LINE + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n" + ok(count), end="close"),
    Word(lambda _: OK_LINE + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n", end="close"),
    Word(lambda _: OK_LINE + b"X: %s\r\n" % (b"x" * 100_000), end="close"),
    # not HTTP, or not ours
    Word(lambda _: ok(1), end="close"),
    Word(lambda _: b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + b"\x00" * 8, end="close"),
    Word(lambda _: b"HTTP/2 200\r\n\r\n", end="close"),
    Word(
        lambda count: b"HTTP/1.1 101 Other\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n" + whole(ok(count)),
        end="close",
    ),
    Word(lambda count: b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 50 + whole(ok(count))),
    # bodies that must not be trusted
    *[Word(lambda _, body=body: whole(body)) for body in (PAGE, b"", b"null", b"[]", b"{}", b"[" * 100_000, NO)],  # type: ignore[misc] # a default
    Word(lambda count: whole(ok(count + 1))),
    Word(lambda count: whole(ok(count - 1))),
    Word(lambda count: whole(b'{"success":false,' + ok(count)[1:])),
    Word(lambda count: whole(b'{"queued_count":%d,"error_count":1,"errors":[{"index":-1}]}' % (count - 1))),
    Word(lambda count: whole(ok(count).decode().encode("utf-16"))),
    Word(lambda count: whole(ok(count), status=b"500 Oops")),
    Word(lambda count: whole(ok(count), status=b"999 Odd")),
    Word(lambda _: whole(PAGE, status=b"504 Gateway Timeout")),
    # rejections, of all records or of some
    *[
        Word(lambda _, said=said: whole(NO, status=said, headers=b"Retry-After: 99999999999\r\n"), took=False)  # type: ignore[misc]
        for said in (b"401 No", b"403 No", b"413 No", b"429 No", b"500 Oops", b"502 Oops", b"503 Later", b"522 Odd")
    ],
    Word(lambda _: whole(PAGE, status=b"403 Forbidden"), took=False),
    Word(lambda _: whole(PAGE, status=b"302 Found", headers=b"Location: //elsewhere.invalid/\r\n"), took=False),
    # one record is rejected, with a page that repeats the request
    Word(
        lambda count: whole(
            b'{"queued_count":%d,"error_count":1,"errors":[{"index":0,"code":"x","error":"X-Api-Key: %s"}]}'
            % (count - 1, KEY.encode())
        ),
        took_from=1,
    ),
)


class FarEnd:
    """Answers one request in two by its seed, until it is healthy; `ledger` counts how often it accepted each text."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.is_well = False
        self.ledger: Counter[str] = Counter()
        self.keys: set[bytes] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        while True:
            head, body = await read_request(reader)
            self.keys |= {line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"x-api-key")}
            if not body:
                writer.write(LISTS)
                continue
            texts = [message["body"] for message in json.loads(body)["messages"]]
            word = WELL if self.is_well or self._random.random() < 0.5 else self._random.choice(WORDS)
            self.ledger.update(texts[word.took_from :] if word.took else [])
            writer.write(word.says(len(texts)))
            await writer.drain()
            if word.end == "reset" and (there := writer.get_extra_info("socket")) is not None:
                there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            if word.end:
                return


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """Return the far end's certificate and the file of its authority."""
    ca, file = trustme.CA(key_type=trustme.KeyType.ECDSA), tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(file)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    return context, file


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probe as soon as it is due, and not once a second."""
    monkeypatch.setattr("connector.stream.probing.until_next", lambda _secs: asyncio.sleep(0.002))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("way", ["plain", "tls", "proxy"])
def test_nothing_is_accepted_twice_and_each_result_matches_what_the_far_end_did(
    seed: int, way: str, authority: tuple[ssl.SSLContext, Path]
) -> None:
    far_end, bench = FarEnd(seed), Bench(max_attempts=3)
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "tls": {"tls": authority[0], "ca_file": authority[1]},
        "proxy": {"as_proxy": True, "base_url": "http://platform.example"},
    }

    async def use(client: Any, served: Served) -> None:
        client._api_key = lambda: KEY
        more = [f"later {number}" for number in range(20)]

        def get_well() -> None:
            if not far_end.is_well and set(range(len(TEXTS))) <= bench.results().keys():
                far_end.is_well = True
                for connection in client._transport._idle:
                    connection.abort()  # it may have been about to end that one
                bench.read([event_of(text) for text in more])

        total = len(TEXTS) + len(more)
        await delivering(bench, client, TEXTS, feed=get_well, until=lambda: len(bench.results()) == total)
        assert not served.complaints

    talk(far_end, use, loop_factory=uvloop.new_event_loop, **ways[way])

    results = bench.results()
    verdicts = {text: results[at][0] for at, text in enumerate(TEXTS)}
    assert max(far_end.ledger.values()) == 1
    assert {text for text, verdict in verdicts.items() if verdict.status == "queued"} <= far_end.ledger.keys()
    refused = {text for text, verdict in verdicts.items() if verdict.reason not in {"", "in_doubt"}}
    assert not refused & far_end.ledger.keys()
    assert {verdict.status for at, (verdict, _) in results.items() if at >= len(TEXTS)} == {"queued"}
    assert all(verdict.text for verdict in verdicts.values() if verdict.status == "dead_letter")
    assert KEY[:12] not in " ".join(f"{verdict.code} {verdict.text}" for verdict in verdicts.values())
    assert far_end.keys == {KEY.encode()}
    assert (bench.state.held_bytes, bench.state.gate.state) == (0, "closed")
