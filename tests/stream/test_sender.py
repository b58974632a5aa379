"""What the sender does with replies, over real sockets and without Kafka."""

import asyncio
import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, Literal, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from connector.clock import awake, now, now_ms
from connector.core.batching import Batch
from connector.core.concurrency import ConcurrencyLimit, ConcurrencyPolicy
from connector.core.records import ResultEncoder
from connector.core.retrying import RetryPolicy
from connector.core.verdicts import Action, Reply, VerdictPolicy, classify
from connector.telemetry.traces import BatchTraces
from connector.trackly.client import Client, TooLateError
from connector.trackly.operations import Operation
from connector.trackly.replies import read_reply
from tests.kit.patience import PATIENCE_SECS
from tests.kit.sending import PARTITION, Bench
from tests.trackly.serving import read_request, talk, whole

POLICY: Final = VerdictPolicy(2, frozenset({"provider_error"}), frozenset(), frozenset({504}))
LISTS: Final = b'{"lists":[]}'


@pytest.fixture(autouse=True, scope="module")
def _looks_often() -> Iterator[None]:
    """Probe as soon as it is due: once a second, dozens of holds would take minutes here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("connector.stream.probing.until_next", lambda _secs: asyncio.sleep(0.002))
        yield


def event(text: str) -> bytes:
    return json.dumps({"to": "+15550000001", "body": text, "list_number": "+18005551234"}).encode()


async def delivering(
    bench: Bench,
    client: Client,
    texts: Sequence[str],
    timestamps: list[int] | None = None,
    *,
    feed: Callable[[], object] = lambda: None,
    until: Callable[[], bool] | None = None,
) -> None:
    """Have a stream read these texts, and go on until something holds: that each of them has its result, unless told.

    `feed` is called before each turn, and may have it read more.
    """
    done = until or (lambda: set(range(len(texts))) <= bench.results().keys())
    sender = bench.sender(client)
    sender.run()
    if texts:
        bench.read([event(text) for text in texts], timestamps)
    async with asyncio.timeout(PATIENCE_SECS):
        while not done():
            feed()
            await bench.turn(sender)
    await sender.close()
    left = [task for task in asyncio.all_tasks() if "Sender." in str(task.get_coro())]
    assert left == [], "nothing is posted or asked by one that is closed"


def others_pass(bench: Bench, *, at_most: float = math.inf) -> Callable[[], None]:
    """Return a feed of one more text whenever nothing is ready, at most so many."""
    fed = itertools.count()

    def feed() -> None:
        if not bench.state.flow.ready and next(fed) < at_most:
            bench.read([event("well")])

    return feed


@pytest.mark.parametrize(("others", "posted"), [(3, 3), (1, 2)], ids=["others_as_large", "others_smaller"])
@pytest.mark.parametrize("how", ["lost", "504", "lie"])
def test_the_one_bad_record_of_a_batch_in_doubt_repeatedly_is_a_dead_letter_that_says_so(
    how: str, others: int, posted: int
) -> None:
    """`resend` has an end: what is in doubt whenever it is posted, while others pass, is one record's own fault.

    If only smaller requests pass it may be the size, so each record is posted alone from then on.
    """
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

    number = answered = 0

    def feed() -> None:
        nonlocal number, answered
        if bench.state.counts.requests_by_row["accepted"] > answered:
            answered = bench.state.counts.requests_by_row["accepted"]
            passed.set()  # others pass, and the sender knows
        if not bench.state.flow.ready and number <= answered:
            number += 1
            bench.read([event(f"well {number}.{each}") for each in range(others)])

    talk(handle, lambda client, _: delivering(bench, client, ["one", "two", "poison"], feed=feed))

    times = (posts["one"], posts["two"], posts["poison"])
    assert times == (posted, posted, 3), "a person had each of them on the phone, maybe"
    assert {bench.results()[offset][0].status for offset in (0, 1)} == {"queued"}
    assert max(count for text, count in posts.items() if text.startswith("well")) == 1
    verdict, item = bench.results()[2]
    assert (verdict.status, verdict.reason, item.attempts) == ("dead_letter", "in_doubt", 3)
    [letter, *_] = ResultEncoder("s", "send", "g").dead_letters(item, now_ms=0)
    headers = dict(letter.headers)
    assert headers["trackly.attempts"] == b"3"
    assert headers["trackly.resent"] == b"true"


class Liar:
    """A client whose platform gives the drawn answers first, and works afterwards."""

    def __init__(self, said: list[tuple[int, str | None, bytes] | Reply]) -> None:
        self.said = said
        self.taken: Counter[int] = Counter()
        """Posts that the platform may have accepted, by offset."""

    async def post(self, operation: Operation, batch: Batch, *, before: float) -> Reply:
        """Return the meaning of an answer, as the client derives it from bytes."""
        assert before > awake()
        offsets = [offset for chunk in batch.chunks for offset in chunk.offsets]
        honest = b'{"queued_count":%d,"error_count":0,"errors":[]}' % batch.count
        word = self.said.pop(0) if self.said else (200, None, honest)
        if isinstance(word, Reply):
            self.taken.update(offsets if word.kind == "lost" else [])
            return word
        status, retry_after, body = word
        reply = read_reply(operation, batch, status=status, retry_after=retry_after, body=body, now=0.0)
        refused = {error.index for error in reply.errors}
        if classify(reply, POLICY, own_list=False).action in {Action.JUDGE, Action.DOUBT}:
            self.taken.update(offset for index, offset in enumerate(offsets) if index not in refused)
        return reply

    async def lists(self) -> Reply:
        """Return that the platform works, after all drawn answers."""
        return Reply("answered", status=200)

    def read_certificates_again(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""


def deliver(
    bench: Bench,
    liar: Liar,
    texts: Sequence[str],
    timestamps: list[int] | None = None,
    *,
    feed: Callable[[], object] = lambda: None,
    until: Callable[[], bool] | None = None,
) -> None:
    """As `delivering`, with such a client."""
    asyncio.run(delivering(bench, cast("Client", liar), texts, timestamps, feed=feed, until=until))


def test_what_grew_too_old_since_it_was_read_is_not_posted_and_its_neighbours_are() -> None:
    """Records wait in memory while the stream holds: texts would be late when that ends."""
    liar = Liar([])
    bench = Bench(max_age_ms=3_600_000)
    read, asked = now_ms() - 3_700_000, now_ms()

    deliver(bench, liar, ["text"] * 5, [asked, read, -1, read, asked])

    assert [bench.results()[offset][0].reason for offset in range(5)] == ["", "expired", "", "expired", ""]
    assert liar.taken == Counter((0, 2, 4)), "one without a timestamp is not old"
    assert bench.results()[1][1].unlisted, "whoever had the partition next would have found it in nobody's hands"
    [letter, _] = ResultEncoder("s", "send", "g").dead_letters(bench.results()[1][1], now_ms=0)
    assert not dict(letter.headers).keys() & {"trackly.batch_id", "trackly.index", "trackly.sent_at"}
    assert (bench.state.held_bytes, bench.state.flow.active_records) == (0, 0)


def test_everything_that_expired_during_a_hold_is_dead_lettered_at_once_when_it_ends() -> None:
    """And not one by one, like the records with which the platform is tried."""
    bench = Bench(max_age_ms=3_600_000)
    bench.state.gate.refused(0, "unauthorized", now=0.0, detail="")
    bench.state.gate.probed(ok=True, now=0.0)
    turns = itertools.count()

    deliver(bench, Liar([]), ["text"] * 500, [1] * 499 + [now_ms()], feed=lambda: next(turns))

    assert Counter(verdict.reason for verdict, _ in bench.results().values()) == {"expired": 499, "": 1}
    assert next(turns) < 50


def test_a_clock_that_is_set_back_makes_nothing_queued_that_was_not_posted(monkeypatch: pytest.MonkeyPatch) -> None:
    liar = Liar([])
    bench = Bench(max_age_ms=3_600_000)
    times = iter([now_ms() + 60_000] * 2)
    monkeypatch.setattr("connector.stream.sender.now_ms", lambda: next(times, now_ms() - 60_000))

    deliver(bench, liar, ["text"] * 3, [now_ms() - 3_600_000] * 3)

    assert {offset for offset, (verdict, _) in bench.results().items() if verdict.status == "queued"} == set(liar.taken)


def test_what_expires_after_it_was_posted_says_when_that_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `resend` it may have gone out then."""
    liar = Liar([Reply("lost", trouble="reset")])
    bench = Bench(max_age_ms=3_600_000, in_doubt="resend")
    monkeypatch.setattr("connector.stream.sender.now_ms", lambda: now_ms() + (3_600_000 if liar.taken else 0))

    deliver(bench, liar, ["text"], [now_ms() - 60_000])

    verdict, item = bench.results()[0]
    [letter] = ResultEncoder("s", "send", "g").dead_letters(item, now_ms=0)
    headers = dict(letter.headers)
    assert (verdict.reason, headers["trackly.attempts"], headers["trackly.resent"]) == ("expired", b"1", b"true")
    assert (headers["trackly.sent_at"] or b"") > b"2020"
    assert not headers.keys() & {"trackly.batch_id", "trackly.index"}


class Throttling(Liar):
    """A client whose platform asks to wait for one text, each time."""

    def __init__(self, text: bytes, *, status: int) -> None:
        super().__init__([])
        self._text, self._status = text, status
        self.throttled = 0

    async def post(self, operation: Operation, batch: Batch, *, before: float) -> Reply:
        """Ask to wait for a second."""
        if any(self._text in (wire or b"") for chunk in batch.chunks for wire in chunk.wire or ()):
            self.throttled += 1
            self.said = [(self._status, "1", b"")]
        return await super().post(operation, batch, before=before)


class Firewall(Liar):
    """A client behind a firewall that objects to the text of some records."""

    def __init__(self, *minded: bytes, refuses_all_from: float = float("inf"), status: int = 403) -> None:
        super().__init__([])
        self._status = status
        self.posts = 0
        self._minded = minded
        self._refuses_all_from = refuses_all_from

    async def post(self, operation: Operation, batch: Batch, *, before: float) -> Reply:
        """Reject a request with such a text, with a page; let all others pass."""
        self.posts += 1
        texts = [wire for chunk in batch.chunks for wire in chunk.wire or ()]
        if self.posts > self._refuses_all_from or any(bad in text for bad in self._minded for text in texts):
            self.said = [(self._status, None, b"<html>Request blocked</html>")]
        return await super().post(operation, batch, before=before)


_index = st.integers(-1, 5) | st.sampled_from([10**30, None, "1", 1.5])
_errors = st.lists(
    st.fixed_dictionaries(
        {"index": _index},
        optional={"code": st.sampled_from(["provider_error", "invalid_phone", "list_not_found", "new", 7])},
    ),
    max_size=5,
)
_replies = st.builds(
    lambda queued, failed, errors: json.dumps(
        {"queued_count": queued, "error_count": failed, "errors": errors}
    ).encode(),
    _index,
    _index,
    _errors,
)
_plausible = st.sets(st.integers(0, 4), max_size=4).flatmap(
    lambda wrong: st.just(
        json.dumps({"queued_count": 5 - len(wrong), "error_count": len(wrong), "errors": [{"index": i} for i in wrong]})
    ).map(str.encode)
)
_words = (
    st.tuples(
        st.sampled_from([200, 200, 200, 201, 302, 400, 401, 404, 413, 429, 500, 503, 504, 599, 999]),
        st.none() | st.sampled_from(["0", "-1", "soon", "99999999999999999999"]),
        st.binary(max_size=20) | _replies | _plausible,
    )
    | st.builds(Reply, kind=st.just("lost"), trouble=st.sampled_from(["read_timeout", "reset"]))
    | st.builds(Reply, kind=st.just("not_sent"), trouble=st.sampled_from(["connect", "tls", "dns"]))
)


@settings(max_examples=50, deadline=None)
@given(said=st.lists(_words, max_size=8), in_doubt=st.sampled_from(["dead_letter", "resend"]))
@example(said=[(200, None, b'{"queued_count":0,"error_count":5,"errors":[{"index":0}]}')] * 3, in_doubt="resend")
def test_each_record_ends_once_for_any_answer_and_none_that_may_have_been_accepted_is_posted_again(
    said: list[tuple[int, str | None, bytes] | Reply], in_doubt: Literal["dead_letter", "resend"]
) -> None:
    bench = Bench(in_doubt=in_doubt, max_attempts=2, failures=2)
    liar = Liar(list(said))

    deliver(bench, liar, [f"text {number}" for number in range(10)])

    results = bench.results()
    assert results.keys() == set(range(10))
    if in_doubt == "dead_letter":
        assert max(liar.taken.values(), default=0) <= 1
    for offset, (verdict, _) in results.items():
        assert verdict.status != "queued" or liar.taken[offset] >= 1
        assert (verdict.status == "dead_letter") == bool(verdict.reason)
    assert (bench.state.held_bytes, bench.state.flow.active_records) == (0, 0)
    counts, observed = bench.state.counts, Counter(row for row, _, _ in bench.observed)
    assert (counts.requests, counts.requests_by_row) == (len(bench.observed), observed)


@pytest.mark.parametrize(
    "trouble",
    [
        (429, "0", b""),
        (500, None, b""),
        (401, None, b""),
        (200, None, b'{"queued_count":0,"error_count":1,"errors":[{"index":0,"code":"list_not_found"}]}'),
    ],
    ids=["429", "500", "401", "setting"],
)
def test_what_fails_for_all_uses_up_no_attempt_of_a_record(trouble: tuple[int, str | None, bytes]) -> None:
    """Right after it, a record's own failure is most likely to pass."""
    failed = b'{"queued_count":0,"error_count":1,"errors":[{"index":0,"code":"provider_error"}]}'
    liar = Liar([*[trouble] * 4, (200, None, failed)])
    bench = Bench(max_attempts=2, setting_codes={"list_not_found"})

    deliver(bench, liar, ["text"])

    assert {verdict.status for verdict, _ in bench.results().values()} == {"queued"}


def test_a_request_that_was_never_sent_is_no_attempt() -> None:
    """If a record may be posted at most twice, a network outage must not have used that up."""
    bench = Bench()

    deliver(bench, Liar([Reply("not_sent", trouble="connect")] * 3), ["text"])

    [(verdict, item)] = bench.results().values()
    assert (verdict.status, item.attempts) == ("queued", 1)


NEVER: Final = RetryPolicy(5, base_secs=1_000.0, max_secs=1_000.0, retry_after_max_secs=1_000.0)


@pytest.mark.parametrize(
    "word",
    [
        Reply("not_sent", trouble="connect"),
        (500, None, b""),
        (503, "900", b""),
        (429, None, b""),
        (401, None, b""),
        (403, None, b"<html>no</html>"),
        (200, None, b'{"queued_count":0,"error_count":1,"errors":[{"index":0,"code":"provider_error"}]}'),
        (400, None, b'{"error":"later","code":"provider_error"}'),
    ],
    ids=["not sent", "500", "503", "429", "401", "firewall", "code", "code of the request"],
)
def test_what_was_not_taken_is_not_in_doubt_and_waits_before_it_is_posted_again(
    word: tuple[int, str | None, bytes] | Reply,
) -> None:
    bench = Bench(waits=NEVER)

    deliver(bench, Liar([word]), ["text"], until=lambda: bench.state.flow.waiting > 0)

    [(at, batch)] = bench.state.flow.queue.retries()
    assert at > now() + 500
    assert batch.count == 1
    assert (bench.state.flow.partitions[PARTITION].in_flight().count, bench.state.counts.resent) == (0, 0)


@pytest.mark.parametrize("status", [429, 503])
def test_a_throttled_batch_waits_as_long_as_requested(status: int) -> None:
    bench = Bench(waits=replace(NEVER, base_secs=0.005))

    deliver(bench, Liar([(status, "900", b"")]), ["text"], until=lambda: bench.state.flow.waiting > 0)

    [(at, _)] = bench.state.flow.queue.retries()
    assert now() + 800 < at <= now() + 901


@pytest.mark.parametrize(("status", "ends"), [(503, True), (429, False)])
def test_while_others_pass_a_record_is_given_up_if_a_503_asks_to_wait_and_never_by_a_429(
    status: int, *, ends: bool
) -> None:
    """A 503 may be the record's own fault even if it names a time; and the others do not wait for either."""
    bench = Bench(max_attempts=2, waits=RetryPolicy(2, base_secs=0.001, max_secs=0.001, retry_after_max_secs=0.001))
    throttling = Throttling(b"slow", status=status)

    deliver(
        bench,
        throttling,
        ["slow"],
        feed=others_pass(bench),
        until=lambda: 0 in bench.results() or throttling.throttled >= 8,
    )

    told = [verdict.reason for offset, (verdict, _) in bench.results().items() if offset == 0]
    assert (told, bench.state.paused_until) == (["server_error"] if ends else [], 0.0)


def test_requests_to_wait_are_logged_at_intervals() -> None:
    bench = Bench(waits=RetryPolicy(5, base_secs=0.001, max_secs=0.001, retry_after_max_secs=0.001))

    with capture_logs() as logs:
        deliver(bench, Liar([(429, "900", b"")] * 3), ["text"])

    told = [entry for entry in logs if entry["event"] == "platform asks to wait"]
    assert [(entry["status"], entry["requests"], entry["log_level"]) for entry in told] == [(429, 1, "warning")]


@pytest.mark.parametrize("told", [True, False])
def test_once_nothing_passes_all_wait_for_the_longest_requested_time_and_fewer_start(told: bool) -> None:
    """Where no time is named, each batch waits for itself."""
    bench = Bench(batch_records=1, failures=1, waits=replace(NEVER, base_secs=0.005))
    state = bench.state
    state.limit = ConcurrencyLimit(ConcurrencyPolicy(2, 8))
    first, second = ("900", "1") if told else (None, None)

    deliver(
        bench,
        Liar([(429, first, b""), (429, second, b"")]),
        ["one", "two"],
        until=lambda: state.counts.requests == 2,
    )

    assert (state.paused_until > now() + 800, state.slots(now()) == 0) == (told, told)
    assert state.paused_until == 0 or told
    assert (state.limit.moved, state.limit.limit < 8) == ("trouble", True)


@pytest.mark.parametrize(
    ("refusal", "works"),
    [
        ((400, None, b'{"error":"no such number","code":"invalid_phone"}'), True),
        ((413, None, b'{"error":"too large","code":"payload_too_large"}'), True),
        ((413, None, b"<html>Request Entity Too Large</html>"), False),
    ],
)
def test_a_record_that_the_platform_refuses_shows_that_it_works_and_is_not_posted_again(
    refusal: tuple[int, str | None, bytes], works: bool
) -> None:
    """A page of something in front of the platform ends no hold: it says nothing about what is behind it."""
    bench = Bench(batch_records=1)
    state = bench.state
    state.gate.refused(0, "unauthorized", now=0.0, detail="")
    state.gate.probed(ok=True, now=0.0)

    deliver(bench, Liar([refusal]), ["refused", "well"], until=lambda: state.counts.requests == 1)

    assert (state.gate.state, state.gate.hold is None) == (("closed", True) if works else ("half_open", False))
    assert (state.limit.moved == "restart") is works, "after a hold, load begins low again"
    assert (len(state.flow.finished), state.flow.waiting) == (1, 0)


def failed(*indices: int, code: str = "provider_error", count: int | None = None, of: int) -> bytes:
    """Return a reply to a request of so many records, in which these have failed, and perhaps more than these."""
    count = len(indices) if count is None else count
    errors = [{"index": index, "code": code} for index in indices]
    return json.dumps({"queued_count": of - count, "error_count": count, "errors": errors}).encode()


def test_a_record_that_fails_by_its_own_code_is_posted_so_many_times_in_all() -> None:
    bench, liar = Bench(max_attempts=3), Liar([(200, None, failed(0, of=2)), *[(200, None, failed(0, of=1))] * 9])

    deliver(bench, liar, ["fails", "well"])

    verdict, item = bench.results()[0]
    assert (verdict.status, verdict.reason, item.attempts) == ("dead_letter", "provider_error", 3)
    assert len(liar.said) == 7
    assert bench.results()[1][0].status == "queued"


def test_of_a_batch_some_of_whose_records_are_posted_again_each_other_one_has_its_own_verdict() -> None:
    codes = {1: "provider_error", 2: "invalid_phone", 4: "not_sendable"}
    errors = [{"index": index, "code": code} for index, code in codes.items()]
    mixed = json.dumps({"queued_count": 2, "error_count": 3, "errors": errors}).encode()
    bench, liar = Bench(), Liar([(200, None, mixed), (200, None, failed(0, of=1))])

    deliver(bench, liar, ["text"] * 5)

    assert [bench.results()[offset][0].reason for offset in range(5)] == ["", "", "invalid_phone", "", "not_sendable"]
    assert [bench.results()[offset][1].attempts for offset in range(5)] == [1, 3, 1, 1, 1]
    assert all(item.count for item in bench.settled)


@pytest.mark.parametrize(("in_doubt", "reasons"), [("dead_letter", {"in_doubt"}), ("resend", {""})])
def test_records_that_a_reply_counts_as_failed_and_does_not_name_are_in_doubt(
    in_doubt: Literal["dead_letter", "resend"], reasons: set[str]
) -> None:
    bench, liar = Bench(in_doubt=in_doubt), Liar([(200, None, failed(0, code="invalid_phone", count=3, of=5))])

    deliver(bench, liar, ["text"] * 5)

    found = {offset: verdict.reason for offset, (verdict, _) in bench.results().items()}
    items = [bench.results()[offset][1] for offset in range(1, 5)]
    assert (found.pop(0), set(found.values())) == ("invalid_phone", reasons)
    assert {item.attempts for item in items} == {2 if in_doubt == "resend" else 1}
    assert bench.state.counts.resent == (4 if in_doubt == "resend" else 0)
    assert all(item.sent_ms and item.answered_ms >= item.sent_ms for item in items)
    assert (bench.state.held_bytes, bench.state.flow.partitions[PARTITION].in_flight().count) == (0, 0)


class Terse(Liar):
    """A client whose platform rejects some offsets, and lists at most one of the errors that it counts."""

    def __init__(self, *refused: int) -> None:
        super().__init__([])
        self.refused = set(refused)

    async def post(self, operation: Operation, batch: Batch, *, before: float) -> Reply:
        """Refuse what it refuses, each time."""
        offsets = [offset for chunk in batch.chunks for offset in chunk.offsets]
        found = [index for index, offset in enumerate(offsets) if offset in self.refused]
        self.said = [(200, None, failed(*found[:1], code="invalid_phone", count=len(found), of=batch.count))]
        return await super().post(operation, batch, before=before)


@pytest.mark.parametrize("refused", [(4, 5), (0, 3, 4, 11, 19), tuple(range(20))])
def test_where_repeats_are_skipped_failures_that_are_not_listed_are_found_by_asking_again(
    refused: tuple[int, ...],
) -> None:
    bench = Bench(batch_records=20)
    bench._policy = replace(bench._policy, repeats_skipped=True)

    deliver(bench, Terse(*refused), ["text"] * 20)

    assert tuple(sorted(o for o, (verdict, _) in bench.results().items() if verdict.status != "queued")) == refused
    assert {verdict.reason for verdict, _ in bench.results().values()} <= {"", "invalid_phone", "refused"}
    assert (bench.state.held_bytes, bench.state.flow.partitions[PARTITION].in_flight().count) == (0, 0)


@pytest.mark.parametrize(
    ("word", "reason", "detail"),
    [
        ((401, None, b'{"error":"no such key"}'), "unauthorized", "no such key"),
        ((402, None, b""), "payment_required", "HTTP 402"),
        ((403, None, b'{"error":"suspended"}'), "forbidden", "suspended"),
        ((404, None, b""), "not_found", "HTTP 404"),
        ((407, None, b""), "proxy", "HTTP 407"),
        ((300, None, b""), "redirected", "HTTP 300"),
        ((399, None, b""), "redirected", "HTTP 399"),
        (Reply("not_sent", trouble="tls"), "tls", "tls"),
        ((500, None, b'{"error":"down"}'), "outage", "HTTP 500, server_error: down"),
        (Reply("not_sent", trouble="dns"), "outage", "not_sent: dns"),
    ],
)
def test_a_hold_is_reported_with_what_the_far_end_has_said(
    word: tuple[int, str | None, bytes] | Reply, reason: str, detail: str
) -> None:
    bench, told = Bench(failures=1, waits=NEVER), list[tuple[str, str]]()
    bench.state.on_hold = lambda hold: told.append((hold.reason, hold.detail))

    deliver(bench, Liar([word] * 9), ["text"], until=lambda: bench.state.gate.hold is not None)

    assert told == [(reason, detail)]
    assert bench.state.counts.requests == 1


@pytest.mark.parametrize(("number", "holds"), [("+18005551234", True), ("+18005550000", False)])
def test_a_code_of_a_setting_holds_the_stream_for_its_own_list_alone(number: str, holds: bool) -> None:
    """For a list that an event names, it is the event's fault."""
    bench = Bench(setting_codes={"list_not_found"}, waits=NEVER)
    text = json.dumps({"to": "+15550000001", "body": "text", "list_number": number}).encode()
    bench.read([text])

    deliver(
        bench,
        Liar([(200, None, failed(0, code="list_not_found", of=1))]),
        [],
        until=lambda: bool(bench.results()) or bench.state.gate.hold is not None,
    )

    assert (bench.state.gate.hold is not None) == holds
    assert [verdict.reason for verdict, _ in bench.results().values()] == ([] if holds else ["list_not_found"])


@pytest.mark.parametrize(
    "word",
    [(200, None, failed(0, code="list_not_found", of=1)), (400, None, b'{"error":"no","code":"list_not_found"}')],
    ids=["of each record", "of the request"],
)
def test_a_hold_for_a_setting_names_the_list(word: tuple[int, str | None, bytes]) -> None:
    bench = Bench(setting_codes={"list_not_found"}, waits=NEVER)

    deliver(bench, Liar([word]), ["text"], until=lambda: bench.state.gate.hold is not None)

    assert bench.state.gate.hold is not None
    assert bench.state.gate.hold.detail.endswith(", for the stream's list +18005551234")


def test_a_batch_that_is_too_large_makes_no_batches_smaller_than_one_that_was_taken() -> None:
    bench = Bench(batch_records=100)
    large, sizes = (413, None, b"<html>Request Entity Too Large</html>"), []

    class Weighing(Liar):
        async def post(self, operation: Operation, batch: Batch, *, before: float) -> Reply:
            """Note what is posted."""
            sizes.append(batch.size)
            return await super().post(operation, batch, before=before)

    accepted = (200, None, b'{"queued_count":99,"error_count":0,"errors":[]}')

    def feed() -> None:
        if len(sizes) == 1 and not bench.state.flow.ready:
            bench.read([event("well")] * 100)

    deliver(bench, Weighing([accepted, large]), ["well"] * 99, feed=feed, until=lambda: len(bench.results()) == 199)

    assert bench.state.batcher.byte_limit.limit == sizes[0] < sizes[1]


@pytest.mark.parametrize("in_doubt", ["resend", "hold"])
@pytest.mark.parametrize(
    "word", [Reply("lost", trouble="reset"), (200, None, failed(0, code="invalid_phone", count=3, of=5))]
)
def test_what_may_have_been_taken_stays_listed_as_in_flight_as_long_as_it_has_no_result_and_waits(
    word: tuple[int, str | None, bytes] | Reply, in_doubt: Literal["resend", "hold"]
) -> None:
    """After a crash, the next owner would post it as if it was new."""
    bench = Bench(in_doubt=in_doubt, waits=NEVER)
    state = bench.state

    deliver(bench, Liar([word]), ["text"] * 5, until=lambda: bool(state.flow.waiting or state.partition_holds))

    in_doubt_now = state.flow.partitions[PARTITION].in_flight()
    assert {offset for offset in range(5) if offset in in_doubt_now} >= {1, 2, 3, 4}
    assert not state.flow.active
    assert [at > now() + 500 for at, _ in state.flow.queue.retries()] == [True] * (in_doubt == "resend")


@pytest.mark.parametrize("in_doubt", ["dead_letter", "resend", "hold"])
@pytest.mark.parametrize(
    "word",
    [
        Reply("lost", trouble="reset"),
        Reply("not_sent", trouble="connect"),
        (200, None, failed(0, code="invalid_phone", count=3, of=5)),
        (200, None, failed(0, 2, of=5)),
        (200, None, failed(*range(5), count=5, of=5)),
        (400, None, b'{"error":"no","code":"invalid_phone"}'),
        (413, None, b""),
        (500, None, b""),
    ],
)
def test_what_is_not_answered_stays_listed_as_in_flight_whatever_is_said_of_others_of_its_partition(
    word: tuple[int, str | None, bytes] | Reply, in_doubt: Literal["dead_letter", "resend", "hold"]
) -> None:
    bench, turns = Bench(in_doubt=in_doubt), itertools.count()

    class Stuck(Liar):
        async def post(self, operation: Operation, batch: Batch, *, before: float) -> Reply:
            """Never answer the first batch."""
            if batch.chunks[0].offsets[0] == 0:
                await asyncio.Event().wait()
            return await super().post(operation, batch, before=before)

    deliver(bench, Stuck([word]), ["text"] * 10, until=lambda: bench.state.counts.requests > 0 and next(turns) > 5)

    listed = bench.state.flow.partitions[PARTITION].in_flight()
    assert [offset in listed for offset in range(5)] == [True] * 5
    assert bench.results().keys().isdisjoint(range(5))


def test_an_answer_that_is_lost_after_its_partition_went_away_holds_nothing() -> None:
    """The new owner asks about its records."""
    bench, turns = Bench(in_doubt="hold"), itertools.count()

    class Late(Liar):
        async def post(self, operation: Operation, batch: Batch, *, before: float) -> Reply:
            """Have the partition released while the request is in flight."""
            bench.state.flow.release([PARTITION])
            return await super().post(operation, batch, before=before)

    deliver(bench, Late([Reply("lost", trouble="reset")]), ["text"], until=lambda: next(turns) > 20)

    assert (bench.state.counts.requests, bench.state.partition_holds) == (1, {})


class Spans:
    """Creates spans that note how they end."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, int, bool]] = []

    def begin(self, _batch: Batch) -> "Spans":
        """Begin the next one."""
        return self

    def end(self, row: str, *, status: int = 0, failed: bool = True) -> None:
        """End it."""
        self.ended.append((row, status, failed))


def test_what_is_under_way_when_a_sender_closes_is_given_up_before_its_connections_close() -> None:
    """Its fate is unknown: it has no result, and is listed as in flight."""
    bench, order, spans = Bench(), list[str](), Spans()
    bench.traces = cast("BatchTraces", spans)

    class Hanging(Liar):
        async def post(self, operation: Operation, batch: Batch, *, before: float) -> Reply:
            """Never return."""
            order.append("posted")
            try:
                await asyncio.Event().wait()
            finally:
                order.append("given up")
            raise AssertionError

        async def close(self) -> None:
            """Note it."""
            order.append("closed")

    deliver(bench, Hanging([]), ["text"], until=lambda: bool(order))

    assert order == ["posted", "given up", "closed"]
    assert spans.ended == [("cut_off", 0, True)]
    assert (bench.results(), bench.state.flow.partitions[PARTITION].in_flight().count) == ({}, 1)


class Slow(Liar):
    """A client that takes so long to connect that the first requests come too late."""

    def __init__(self, times: int) -> None:
        super().__init__([])
        self._left = times

    async def post(self, operation: Operation, batch: Batch, *, before: float) -> Reply:
        """Refuse to begin, then post."""
        if self._left:
            self._left -= 1
            raise TooLateError
        return await super().post(operation, batch, before=before)


@pytest.mark.parametrize(("every_secs", "batches"), [(10.0, [1]), (0.0, [1] * 20)])
def test_batches_that_come_too_late_are_logged_at_intervals(
    monkeypatch: pytest.MonkeyPatch, every_secs: float, batches: list[int]
) -> None:
    monkeypatch.setattr("connector.stream.sender.LOG_EVERY_SECS", every_secs)
    bench = Bench()

    with capture_logs() as logs:
        deliver(bench, Slow(20), ["text"])

    assert {verdict.status for verdict, _ in bench.results().values()} == {"queued"}
    told = [entry for entry in logs if entry["event"] == "too late to be posted, listed again"]
    assert [(entry["batches"], entry["log_level"]) for entry in told] == [(count, "warning") for count in batches]


@pytest.mark.parametrize(
    ("client", "first"),
    [
        (Liar([]), ("accepted", 200, False)),
        (Liar([(500, None, b"")]), ("server_error", 500, True)),
        (Slow(1), ("not_posted", 0, True)),
    ],
    ids=["accepted", "failed", "too late"],
)
def test_each_request_has_a_span_that_ends_with_what_became_of_it(client: Liar, first: tuple[str, int, bool]) -> None:
    bench, spans = Bench(), Spans()
    bench.traces = cast("BatchTraces", spans)

    deliver(bench, client, ["text"])

    assert (spans.ended[0], spans.ended[-1]) == (first, ("accepted", 200, False))


def test_an_answer_lets_more_requests_be_in_flight() -> None:
    bench = Bench()
    bench.state.limit = ConcurrencyLimit(ConcurrencyPolicy(1, 8, start=1))

    deliver(bench, Liar([]), ["text"])

    assert bench.state.limit.limit == 2


def test_an_answer_wakes_those_who_wait_for_what_it_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ticker and the reader would notice a second later."""
    bench, finished = Bench(), list[int]()
    monkeypatch.setattr(bench.state.changed, "notify_all", lambda: finished.append(len(bench.state.flow.finished)))

    deliver(bench, Liar([]), ["text"])

    assert finished == [1]


@pytest.mark.parametrize(("times", "status"), [(2, "queued"), (3, "dead_letter")])
def test_a_transient_code_is_tried_again_where_it_is_the_code_of_the_request_too(times: int, status: str) -> None:
    """A record that is posted alone has its code with the status, as all records have in single mode."""
    liar = Liar([(400, None, b'{"error":"later","code":"provider_error"}')] * times)
    bench = Bench(max_attempts=3)

    deliver(bench, liar, ["text"])

    [(verdict, item)] = bench.results().values()
    assert (verdict.status, verdict.reason) == (status, "provider_error" if status == "dead_letter" else "")
    assert item.attempts == 3
    assert liar.said == []


def test_a_request_that_is_refused_with_a_transient_code_ends_as_its_records_do() -> None:
    liar = Liar([(400, None, b'{"error":"later","code":"provider_error"}')] * 4)
    bench = Bench(max_attempts=3)

    deliver(bench, liar, ["text 1", "text 2"])

    assert {verdict.status for verdict, _ in bench.results().values()} == {"queued"}


@pytest.mark.parametrize("status", [403, 400, 451])
def test_a_record_whose_text_a_firewall_minds_is_dead_lettered_alone(status: int) -> None:
    firewall = Firewall(b"drop table", b"<script>", status=status)
    bench = Bench(max_attempts=3)
    texts = [f"text {number}" for number in range(200)]
    texts[7], texts[9], texts[150] = "drop table", "<script> too", "<script>"

    deliver(bench, firewall, texts, feed=others_pass(bench))

    failed = {offset: verdict for offset, (verdict, _) in bench.results().items() if verdict.status == "dead_letter"}
    assert {o: (v.reason, v.http_status, v.text) for o, v in failed.items()} == dict.fromkeys(
        (7, 9, 150), ("rejected", status, "<html>Request blocked</html>")
    )


def test_what_a_firewall_refuses_is_given_up_only_while_others_pass() -> None:
    """It may object to the text, or let nothing pass any more: without others to compare with, nobody can tell."""
    firewall = Firewall(b"drop table")
    bench = Bench(max_attempts=4)

    deliver(bench, firewall, ["drop table"], feed=others_pass(bench, at_most=2), until=lambda: firewall.posts >= 14)

    assert [verdict.status for verdict, _ in bench.results().values()] == ["queued", "queued"]


class Failing(Liar):
    """A client whose platform fails a share of all requests, whatever they contain, and all once it is down."""

    def __init__(self, share: float, status: int) -> None:
        super().__init__([])
        self.posts = self.failed = 0
        self.down = False
        self._share, self._status, self._random = share, status, random.Random(2)
        self._others_failed = asyncio.Event()

    async def post(self, operation: Operation, batch: Batch, *, before: float) -> Reply:
        """Answer a request from before it went down only once others have failed."""
        self.posts += 1
        if any(b"late" in text for chunk in batch.chunks for text in chunk.wire or ()):
            await self._others_failed.wait()
            return await super().post(operation, batch, before=before)
        await asyncio.sleep(0.001)
        if self.down or self._random.random() < self._share:
            self.failed += 1
            if self.failed >= 4:
                self._others_failed.set()
            self.said = [(self._status, None, b"<html>Slow down</html>")]
        return await super().post(operation, batch, before=before)


@pytest.mark.parametrize(("share", "status"), [(0.7, 503), (0.6, 403)])
def test_a_platform_that_fails_for_most_at_random_spends_no_record(share: float, status: int) -> None:
    failing = Failing(share, status)
    bench = Bench(batch_records=1)

    def feed() -> None:
        if len(bench.state.flow.ready) < 4 and len(bench.results()) < 150:
            bench.read([event("text")])

    deliver(bench, failing, ["text"], feed=feed, until=lambda: len(bench.results()) >= 150)

    print(len(bench.results()), "settled by", failing.posts, "requests")
    assert {verdict.status for verdict, _ in bench.results().values()} == {"queued"}


@pytest.mark.parametrize("count", [4, 6, 16])
def test_one_late_answer_during_an_outage_spends_no_record(count: int) -> None:
    failing = Failing(0.0, 503)
    bench = Bench(max_attempts=5, batch_records=1)

    def feed() -> None:
        if len(bench.results()) == 40 and not failing.down:
            failing.down = True
            bench.read([event(text) for text in ["late", *["text"] * count]])

    deliver(bench, failing, ["well"] * 40, feed=feed, until=lambda: failing.failed >= 60)

    assert {verdict.status for verdict, _ in bench.results().values()} == {"queued"}


def test_a_single_attempt_is_not_enough_to_blame_a_record_for_what_a_firewall_refuses() -> None:
    firewall = Firewall(b"drop table")
    bench = Bench(max_attempts=1)

    deliver(bench, firewall, ["drop table"], feed=others_pass(bench))

    verdict, item = bench.results()[0]
    assert (verdict.reason, item.attempts) == ("rejected", 3)


@pytest.mark.parametrize(("most", "times"), [(1, 2), (4, 5)])
def test_a_record_that_fails_repeatedly_while_others_pass_is_a_suspect_until_it_is_given_up(
    most: int, times: int
) -> None:
    """Suspects have at most half of the requests. Its first failure says nothing: no others are known yet."""
    suspect: list[bool] = []
    passed, answered = asyncio.Event(), 0

    class Noting(Firewall):
        async def post(self, operation: Operation, batch: Batch, *, before: float) -> Reply:
            """Note whether it is a suspect, and answer when others have passed since it was posted."""
            if any(b"poison" in wire for chunk in batch.chunks for wire in chunk.wire or ()):
                suspect.append(batch.suspect)
                if len(suspect) > 1:
                    passed.clear()
                    await passed.wait()
            return await super().post(operation, batch, before=before)

    bench = Bench(max_attempts=most, batch_records=1)
    others = others_pass(bench)

    def feed() -> None:
        nonlocal answered
        if bench.state.counts.requests_by_row["accepted"] > answered:
            answered = bench.state.counts.requests_by_row["accepted"]
            passed.set()
        others()

    deliver(bench, Noting(b"poison", status=500), ["poison"], feed=feed)

    verdict, item = bench.results()[0]
    assert (verdict.reason, item.attempts) == ("server_error", times)
    assert suspect == [False, False, False, True, True][:times]


@pytest.mark.parametrize(("status", "reason"), [(403, "forbidden"), (400, "refused"), (422, "refused")])
def test_nothing_is_dead_lettered_when_a_firewall_lets_nothing_pass(status: int, reason: str) -> None:
    firewall = Firewall(b"drop table", refuses_all_from=20, status=status)
    bench = Bench(max_attempts=6)

    texts = ["drop table" if number == 7 else f"text {number}" for number in range(300)]
    deliver(bench, firewall, texts, until=lambda: firewall.posts >= 40)

    assert bench.state.gate.hold is not None
    assert bench.state.gate.hold.reason == reason
    assert {verdict.status for verdict, _ in bench.results().values()} == {"queued"}


@pytest.mark.parametrize("word", [Reply("lost", trouble="read_timeout"), (504, None, b"")], ids=["lost", "504"])
def test_an_outage_that_loses_answers_costs_a_record_for_each_time_that_the_platform_is_tried(
    word: Reply | tuple[int, str | None, bytes],
) -> None:
    """A probe may pass all the time: what is posted to try more than that may have been accepted."""
    tries = 12
    liar = Liar([word] * tries)
    bench = Bench(failures=3)

    deliver(bench, liar, [f"text {number}" for number in range(500)])

    in_doubt = sum(verdict.reason == "in_doubt" for verdict, _ in bench.results().values())
    print(f"{in_doubt} of 500 in doubt after {tries} requests without an answer")
    before_the_hold = 8 * 5  # as many batches as may be in flight
    assert in_doubt <= before_the_hold + tries


class Strained(Liar):
    """A client whose platform does not answer requests with too many records, which it may have accepted."""

    def __init__(self, most: float) -> None:
        super().__init__([])
        self.most = most
        self.counts: list[int] = []

    async def post(self, operation: Operation, batch: Batch, *, before: float) -> Reply:
        """Answer within a moment, or be given up after some."""
        self.counts.append(batch.count)
        is_lost = batch.count > self.most
        await asyncio.sleep(0.03 if is_lost else 0.001)
        self.said = [Reply("lost", trouble="read_timeout")] if is_lost else []
        return await super().post(operation, batch, before=before)


class Overtaken(Liar):
    """A client whose platform answers five records after `answered_secs`, and loses five others after `lost_secs`."""

    def __init__(self, answered_secs: float, lost_secs: float) -> None:
        super().__init__([])
        self.secs = 0.0
        self._answered_secs, self._lost_secs = answered_secs, lost_secs
        self._answered = asyncio.Event()

    def feed(self, bench: Bench) -> None:
        """Have the others read when it is their time."""
        if bench.state.flow.active and not self.secs:
            self.secs = self._answered_secs - 0.05
            bench.read([event("well")] * 5)

    async def post(self, operation: Operation, batch: Batch, *, before: float) -> Reply:
        """Answer at that time."""
        if batch.chunks[0].offsets[0]:
            self.secs = self._answered_secs
            self._answered.set()
        else:
            await self._answered.wait()
            self.secs = self._lost_secs
            self.said = [Reply("lost", trouble="reset")]
        return await super().post(operation, batch, before=before)


@pytest.mark.parametrize(
    ("answered_secs", "lost_secs", "limit"),
    [(0.1, 1.0, 1), (0.5, 1.0, None), (0.1, 0.2, None)],
    ids=["before it was due", "after it was due", "lost before it was due"],
)
def test_batches_stay_large_after_a_lost_answer_if_one_as_large_was_answered_while_it_was_overdue(
    answered_secs: float, lost_secs: float, limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or since it began, if it was lost before: earlier answers are the measure for when it was due.

    After 0.05 seconds for the others, it is due in 0.45.
    """
    platform, bench = Overtaken(answered_secs, lost_secs), Bench()
    monkeypatch.setattr("connector.stream.sender.now", lambda: 100.0 + platform.secs)

    deliver(
        bench,
        platform,
        ["lost"] * 5,
        feed=lambda: platform.feed(bench),
        until=lambda: bench.state.counts.requests == 2,
    )

    assert bench.state.flow.size.limit == limit


@pytest.mark.parametrize("in_doubt", ["dead_letter", "resend"])
@pytest.mark.parametrize("most", [5, 30])
def test_where_no_large_request_is_answered_small_ones_are_posted(
    most: int, in_doubt: Literal["dead_letter", "resend"]
) -> None:
    """Each large one is a loss. What was in flight is in doubt, and of the rest what it takes to find the size."""
    platform = Strained(most)
    bench = Bench(batch_records=50, in_doubt=in_doubt)

    deliver(bench, platform, [f"text {number}" for number in range(1_000)])

    doubted = sum(count > 1 for count in platform.taken.values()) + sum(
        verdict.reason == "in_doubt" for verdict, _ in bench.results().values()
    )
    print(f"{doubted} of 1,000 in doubt after {len(platform.counts)} requests")
    assert doubted <= 8 * 50 + 3 * 2 * most, "as many as may be under way, and a few that tried for more"


def test_after_an_outage_that_loses_answers_batches_are_soon_as_large_as_before() -> None:
    platform = Strained(0)
    bench = Bench(batch_records=50, failures=3)

    def feed() -> None:
        if len(platform.counts) >= 12:
            platform.most = math.inf

    with capture_logs() as logs:
        deliver(bench, platform, [f"text {number}" for number in range(3_000)], feed=feed)

    assert platform.counts[12:].count(50) > 3_000 // 50 / 2
    told = [(line["event"], line["records"]) for line in logs if "records" in line]
    assert told == [
        ("a batch is in doubt, and none as large was answered since: batches hold fewer records", 1),
        ("batches are as large as before", 50),
    ]


def test_a_page_in_the_place_of_the_platform_ends_no_outage() -> None:
    """Maintenance pages often have status 200: each record with which the platform is tried would be in doubt."""
    probes = itertools.count(1)
    is_back = False

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal is_back
        while True:
            head, body = await read_request(reader)
            is_back = is_back or (head.startswith(b"GET") and next(probes) > 12)
            lists = LISTS if head.startswith(b"GET") else None
            answer = lists or b'{"queued_count":%d,"error_count":0}' % len(json.loads(body)["messages"])
            writer.write(whole(answer if is_back else b"<html>We will be back soon</html>"))

    bench = Bench(failures=3)

    async def use(client: Client, _served: object) -> None:
        await delivering(bench, client, [f"text {number}" for number in range(100)])

    talk(handle, use)

    in_doubt = sum(verdict.reason == "in_doubt" for verdict, _ in bench.results().values())
    assert in_doubt <= 8 * 5, "no more than was under way when it began"


class Broken(Liar):
    """A client that cannot query or post, for an unforeseen reason."""

    async def lists(self) -> Reply:
        """Raise something that is not a connection error."""
        raise KeyError("lists")

    async def post(self, operation: Operation, batch: Batch, *, before: float) -> Reply:
        """Raise that as well."""
        raise KeyError("post")


@pytest.mark.parametrize("call", ["lists", "post"])
def test_a_call_that_fails_for_no_known_reason_fails_the_stream(call: str) -> None:
    """Nothing would end a hold any more, or give the batch a result, and nothing would report it."""
    bench = Bench()
    if call == "lists":
        bench.state.gate.refused(0, "unauthorized", now=0.0, detail="")

    with pytest.raises(AssertionError, match=f"KeyError.*{call}"):
        deliver(bench, Broken([]), ["text"])


class Scales(Liar):
    """A client whose platform rejects a request with one record that is too large by itself."""

    def __init__(self) -> None:
        super().__init__([])
        self.counts: list[int] = []

    async def post(self, operation: Operation, batch: Batch, *, before: float) -> Reply:
        """Reject the whole request for the one record, which is one reading of the documents."""
        self.counts.append(batch.count)
        if any(b"large" in wire for chunk in batch.chunks for wire in chunk.wire or ()):
            self.said = [(413, None, b'{"error":"Contact exceeds 4,000 bytes","code":"payload_too_large"}')]
        return await super().post(operation, batch, before=before)


def test_a_record_that_is_too_large_by_itself_leaves_no_small_batches_behind() -> None:
    """The learnt limit was about the record: otherwise small batches would be posted for good."""
    scales = Scales()
    bench = Bench(batch_records=100)
    texts = ["large", "well"]

    def feed() -> None:
        if len(bench.results()) == len(texts) == 2:
            texts.extend(["well"] * 100)
            bench.read([event(text) for text in texts[2:]])

    deliver(bench, scales, texts, feed=feed, until=lambda: len(bench.results()) == 102)

    verdict, _ = bench.results()[0]
    assert (verdict.status, verdict.reason) == ("dead_letter", "payload_too_large")
    assert scales.counts[-1] == 100


class Gateway(Liar):
    """A client behind a gateway that accepts only small requests, until it is fixed."""

    def __init__(self) -> None:
        super().__init__([])
        self.is_mended = False
        self.counts: list[int] = []

    async def post(self, operation: Operation, batch: Batch, *, before: float) -> Reply:
        """Reject large requests with a page, as gateways do."""
        self.counts.append(batch.count)
        if not self.is_mended and batch.size > 1_500:
            self.said = [(413, None, b"<html>Request Entity Too Large</html>")]
        return await super().post(operation, batch, before=before)


def test_batches_that_were_too_large_for_a_gateway_are_large_again_some_time_after_it_was_fixed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("connector.core.sizing.SMALLER_FOR_SECS", 0.1)
    gateway = Gateway()
    bench = Bench(batch_records=100)
    turns = itertools.count()

    def feed() -> None:
        if not bench.state.flow.ready and len(bench.results()) >= 100 and next(turns) < 200:
            gateway.is_mended = True
            bench.read([event("well")] * 100)

    deliver(bench, gateway, ["well"] * 100, feed=feed, until=lambda: gateway.is_mended and 100 in gateway.counts[1:])

    assert gateway.counts[:3] == [100, 50, 50]
    assert {verdict.status for verdict, _ in bench.results().values()} == {"queued"}


@pytest.mark.parametrize("batch_records", [1, 2, 20])
@pytest.mark.parametrize("status", [500, 504])
def test_an_outage_of_the_endpoint_behind_a_working_probe_gives_up_one_record_at_most(
    status: int, batch_records: int
) -> None:
    """Records of one batch are no better evidence against each other than those of several."""
    failing = Failing(0.0, status)
    failing.down = True
    bench = Bench(max_attempts=2, failures=3, batch_records=batch_records, in_doubt="resend")

    deliver(bench, failing, ["text"] * 20, until=lambda: failing.failed >= 60 or len(bench.results()) > 1)

    assert len(bench.results()) <= 1


def test_in_an_outage_no_record_is_given_up_after_some_of_which_it_was_never_known_which_had_failed() -> None:
    """The probe works all the time, and the next one would be the only one that fails."""
    unnamed, outage = (200, None, failed(count=1, of=2)), (500, None, b"")
    liar = Liar([*[unnamed] * 2, *[outage] * 60])
    bench = Bench(max_attempts=2, failures=3, in_doubt="resend")

    def feed() -> None:
        if len(bench.results()) == 2 and not bench.state.held_bytes:
            bench.read([event("next")])

    deliver(bench, liar, ["one", "two"], feed=feed, until=lambda: len(liar.said) < 20 or 2 in bench.results())

    assert {offset: verdict.reason for offset, (verdict, _) in bench.results().items()} == dict.fromkeys(
        (0, 1), "in_doubt"
    )


@pytest.mark.parametrize("status", [500, 504])
def test_a_hold_ends_by_its_probe_though_nothing_is_left_to_be_tried(status: int) -> None:
    """The only record that failed was given up: a stream without new records would be on hold for hours."""
    failing = Failing(0.0, status)
    failing.down = True
    bench = Bench(max_attempts=2, failures=3, in_doubt="resend")

    deliver(bench, failing, ["text"], until=lambda: bool(bench.results()) and bench.state.gate.state == "closed")

    assert bench.state.holds() == []


class Outage(Liar):
    """A client whose platform fails one text by chance, accepts another, and is down from then on."""

    def __init__(self, status: int) -> None:
        super().__init__([])
        self.status = status
        self.posts: list[str] = []
        self._passed = asyncio.Event()

    async def post(self, operation: Operation, batch: Batch, *, before: float) -> Reply:
        """Accept only the second text; the first one's next answer comes when that has passed."""
        texts = [json.loads(wire)["body"] for chunk in batch.chunks for wire in chunk.wire or ()]
        self.posts += texts
        if texts == ["second"]:
            self._passed.set()
        else:
            if self.posts.count("first") > 1:
                await self._passed.wait()
            self.said = [(self.status, None, b'{"error":"down"}')]
        return await super().post(operation, batch, before=before)

    async def lists(self) -> Reply:
        """Report that nobody answers."""
        return Reply("not_sent", trouble="connect")


@pytest.mark.parametrize("status", [500, 504])
def test_a_record_is_not_given_up_in_an_outage_for_others_that_passed_before_it(status: int) -> None:
    outage = Outage(status)
    bench = Bench(max_attempts=3, failures=5, in_doubt="resend")

    def feed() -> None:
        if outage.posts and "(read)" not in outage.posts:
            bench.read([event("second")])
            outage.posts.append("(read)")

    deliver(
        bench, outage, ["first"], feed=feed, until=lambda: bench.state.gate.hold is not None or 0 in bench.results()
    )

    assert bench.state.gate.hold is not None
    assert {offset: verdict.status for offset, (verdict, _) in bench.results().items()} == {1: "queued"}


class Gatekeeper(Liar):
    """A client whose platform first answers like this, while a gateway rejects queries for lists."""

    def __init__(self, *said: int, lists: int) -> None:
        super().__init__([(status, None, b'{"error":"no"}') for status in said])
        self.answer = lists

    async def lists(self) -> Reply:
        """Reject."""
        return Reply("answered", status=self.answer, text="<html>no</html>")


@pytest.mark.parametrize("status", [401, 403, 405])
def test_an_outage_ends_although_the_platform_rejects_the_probe(status: int) -> None:
    bench = Bench(failures=3)

    deliver(bench, Gatekeeper(503, 503, 503, lists=status), ["text"])

    assert bench.results()[0][0].status == "queued"


def test_an_outage_after_which_the_key_is_unknown_is_a_hold_for_the_key() -> None:
    """The hold must show what to fix."""
    bench = Bench(failures=3)

    def held() -> str:
        return "" if bench.state.gate.hold is None else bench.state.gate.hold.reason

    deliver(bench, Gatekeeper(503, 503, 503, 401, lists=401), ["text"], until=lambda: held() == "unauthorized")

    assert not bench.results()


@pytest.mark.parametrize(
    ("said", "lists"), [*[((503,) * 3, status) for status in (408, 425, 429, 500, 503)], ((401,), 401), ((404,), 403)]
)
def test_a_probe_that_is_throttled_ends_no_outage_and_one_that_is_refused_no_hold(
    said: tuple[int, ...], lists: int
) -> None:
    bench = Bench(failures=3)
    gatekeeper, turns = Gatekeeper(*said, lists=lists), itertools.count()

    deliver(bench, gatekeeper, ["text"], until=lambda: next(turns) > 100)

    assert (sum(gatekeeper.taken.values()), gatekeeper.said) == (0, [])


def test_a_probe_that_is_answered_when_its_hold_has_ended_says_nothing() -> None:
    class Late(Gatekeeper):
        async def lists(self) -> Reply:
            """Reject, if something has passed meanwhile."""
            bench.state.gate.passed(0, now=now())
            return await super().lists()

    bench = Bench(failures=3)

    deliver(bench, Late(503, 503, 503, lists=401), ["text"])

    assert bench.results()[0][0].status == "queued"


def test_what_was_not_given_up_in_an_outage_is_taken_after_it() -> None:
    failing = Failing(0.0, 500)
    failing.down = True
    bench = Bench(max_attempts=2, failures=3, batch_records=20)

    def feed() -> None:
        failing.down = failing.down and failing.failed < 60

    deliver(bench, failing, ["text"] * 20, feed=feed)

    assert Counter(verdict.status for verdict, _ in bench.results().values())["queued"] >= 19
