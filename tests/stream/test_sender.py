"""What the sender does of replies, over real sockets and without Kafka."""

import asyncio
import json
from collections import Counter
from typing import Final

import pytest

from connector.core.records import Scribe
from tests.kit.sending import Bench
from tests.trackly.serving import PATIENCE_SECS, Served, read_request, talk, whole

from connector.trackly.client import Client  # isort: skip

LISTS: Final = b'{"lists":[]}'


def event(text: str) -> bytes:
    return json.dumps({"to": "+15550000001", "body": text, "list_number": "+18005551234"}).encode()


@pytest.mark.parametrize("how", ["lost", "504", "lie"])
def test_a_batch_in_doubt_again_and_again_is_posted_so_often_and_then_a_dead_letter_that_says_so(how: str) -> None:
    """`resend` has an end: what is in doubt whenever it is posted, while others pass, is the batch's own trouble."""
    bench = Bench(in_doubt="resend", max_attempts=3)
    posts: Counter[str] = Counter()
    passed = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            _, body = await read_request(reader)
            if not body:
                writer.write(whole(LISTS))
                continue
            texts = [message["body"] for message in json.loads(body)["messages"]]
            posts.update(texts)
            if "poison" in texts:
                passed.clear()
                await passed.wait()
                if how == "lost":
                    return
                writer.write(whole(b"", status=b"504 Gateway Timeout") if how == "504" else whole(b"{}"))
            else:
                writer.write(whole(b'{"queued_count":%d,"error_count":0,"errors":[]}' % len(texts)))

    async def use(client: Client, _served: Served) -> None:
        sender = bench.sender(client)
        bench.read([event(text) for text in ("one", "two", "poison")])
        number, answered = 0, 0
        async with asyncio.timeout(PATIENCE_SECS):
            while not {0, 1, 2} <= bench.results().keys():
                if bench.state.counts.requests_by_row["accepted"] > answered:
                    answered = bench.state.counts.requests_by_row["accepted"]
                    passed.set()  # others pass, and the sender knows
                if not bench.state.flow.ready and number == answered:
                    number += 1
                    bench.read([event(f"well {number}")])
                await bench.turn(sender)
        await sender.close()

    talk(handle, use)

    assert (posts["one"], posts["two"], posts["poison"]) == (3, 3, 3)
    assert max(count for text, count in posts.items() if text.startswith("well")) == 1
    verdict, item = bench.results()[2]
    assert (verdict.status, verdict.reason, item.attempts) == ("dead_letter", "in_doubt", 3)
    [letter, *_] = Scribe("s", "send", "g").dead_letters(item, now_ms=0)
    headers = dict(letter.headers)
    assert headers["trackly.attempts"] == b"3"
    assert headers["trackly.resent"] == b"true"
