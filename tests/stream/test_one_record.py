"""One record that makes every request with it fail: what becomes of it, and of all others.

Minutes take no time: the event loop's clock jumps to its next timer.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, Literal, cast

import pytest

from connector.core.batching import Batch
from connector.core.breaker import Gate, GatePolicy, Hold
from connector.core.concurrency import ConcurrencyLimit, ConcurrencyPolicy
from connector.core.retrying import RetryPolicy
from connector.core.verdicts import Reply, Verdict
from connector.trackly.client import Client
from connector.trackly.operations import Operation
from tests.kit.leaping import Leaping
from tests.kit.sending import Bench

BATCHES_PER_SEC: Final = 5
POISON_EVERY: Final = 200
POISON_AT: Final = 100
EVENT: Final = b'{"to":"+15550000001","body":"text"}'
WORDS: Final = {
    "500": Reply("answered", status=500, text="oops"),
    "503": Reply("answered", status=503, text="try later"),
    "503 and when": Reply("answered", status=503, text="try later", retry_after_secs=5.0),
}
UNANSWERED: Final = {
    "timeout": Reply("lost", trouble="read_timeout"),
    "504": Reply("answered", status=504, text="no answer from upstream"),
    "500 after long": Reply("answered", status=500, text="timed out"),
}
SLOWER: Final = {
    "429": Reply("answered", status=429, text="slow down"),
    "429 and when": Reply("answered", status=429, text="slow down", retry_after_secs=5.0),
}


@pytest.fixture
def loop() -> Iterator[Leaping]:
    loop = Leaping()
    with pytest.MonkeyPatch.context() as patch:
        for clock in ("stream.sender.now", "stream.sender.awake", "stream.probing.now", "stream.state.now"):
            patch.setattr(f"connector.{clock}", loop.time)
        for clock in ("now", "awake"):
            patch.setattr(f"tests.kit.sending.{clock}", loop.time)
        yield loop
    loop.close()


class Platform:
    """A client whose platform answers `word` to any request with a poisoned record, and `says` to others."""

    def __init__(self, loop: Leaping, word: Reply, says: Callable[[float], Reply | None], after_secs: float) -> None:
        self._loop, self._word, self._says, self._after_secs = loop, word, says, after_secs
        self._random = random.Random(1)
        self.stalls: Callable[[float], bool] = lambda _: False
        self.times: list[float] = []
        self.refused: list[float] = []
        self.taken: Counter[int] = Counter()

    async def post(self, _operation: Operation, batch: Batch, *, before: float) -> Reply:
        """Answer after some 50 ms, a request with a poisoned record some time later."""
        assert self._loop.time() <= before
        self.times.append(self._loop.time())
        said = self._says(self._loop.time())
        await asyncio.sleep(self._random.uniform(0.03, 0.08))
        offsets = [offset for chunk in batch.chunks for offset in chunk.offsets]
        if self.stalls(self._loop.time()):
            await asyncio.sleep(30.0)
            return Reply("lost", trouble="read_timeout")
        if said is None and any(offset % POISON_EVERY == POISON_AT for offset in offsets):
            said = self._word
            await asyncio.sleep(self._after_secs)
        if said is not None:
            self.refused.append(self._loop.time())
            return said
        self.taken.update(offsets)
        return Reply("answered", status=200)

    async def lists(self) -> Reply:
        """Answer that it works."""
        return Reply("answered", status=200)

    async def close(self) -> None:
        """Do nothing."""

    def read_certificates_again(self) -> None:
        """Do nothing."""


class Minutes:
    """A stream that reads so many batches per second, with default settings, over some minutes."""

    def __init__(
        self,
        loop: Leaping,
        word: Reply,
        *,
        batch: int = 20,
        says: Callable[[float], Reply | None] = lambda _: None,
        after_secs: float = 0.0,
        in_doubt: Literal["dead_letter", "resend"] = "dead_letter",
    ) -> None:
        self._loop = loop
        self._batch = batch
        self.platform = Platform(loop, word, says, after_secs)
        self.bench = Bench(batch_records=batch, waits=RetryPolicy(5, 1.0, 60.0, 300.0), in_doubt=in_doubt)
        state = self.state = self.bench.state
        state.gate = Gate(GatePolicy(5, 0.5, 2.0, 2.0, 60.0))
        state.limit = ConcurrencyLimit(ConcurrencyPolicy(1, 64))
        self.holds: list[Hold] = []
        state.on_hold = self.holds.append
        self.paused_secs = 0.0
        self.read = 0

    def pass_by(self, secs: float) -> "Minutes":
        """Let some time pass."""
        self._loop.run_until_complete(self._pass_by(secs))
        return self

    async def _pass_by(self, secs: float) -> None:
        sender = self.bench.sender(cast("Client", self.platform))
        sender.run()
        state = self.state
        while self._loop.time() < secs:
            due = int(self._loop.time() * BATCHES_PER_SEC) * self._batch
            if due > self.read and state.may_read and len(state.flow.ready) < 50:
                self.bench.read([EVENT] * (due - self.read))
                self.read = due
            self.bench.tick(sender)
            self.paused_secs += 0.05 * (state.paused_until > self._loop.time())
            await asyncio.sleep(0.05)
        await sender.close()

    @property
    def letters(self) -> dict[int, Verdict]:
        """The dead letters, by offset."""
        return {o: verdict for o, (verdict, _) in self.bench.results().items() if verdict.status == "dead_letter"}


@pytest.mark.parametrize(
    ("word", "batch"),
    [(word, batch) for batch in (20, 1) for word in WORDS if batch > 1 or "when" in word],
)
def test_a_record_that_fails_alone_ends_alone_and_all_others_continue(loop: Leaping, word: str, batch: int) -> None:
    """One batch in ten contains such a record, and is retried again and again."""
    said, secs = WORDS[word], 120.0

    minutes = Minutes(loop, said, batch=batch).pass_by(secs)

    letters, results = minutes.letters, minutes.bench.results()
    poisoned = set(range(POISON_AT, minutes.read, POISON_EVERY))
    early = {offset for offset in poisoned if offset < (secs - 75) * BATCHES_PER_SEC * batch}
    assert early <= letters.keys() <= poisoned
    assert {(v.reason, v.http_status, v.text) for v in letters.values()} == {("server_error", said.status, said.text)}
    assert max(results[offset][1].attempts for offset in letters) <= 6
    assert len(results) > 0.95 * minutes.read > 0.9 * BATCHES_PER_SEC * batch * secs
    assert set(minutes.platform.taken.values()) == {1}
    assert (minutes.holds, minutes.paused_secs) == ([], 0)
    assert minutes.state.limit.limit > 1


@pytest.mark.parametrize("word", UNANSWERED)
def test_a_record_with_unanswered_requests_does_not_occupy_all_of_them(loop: Leaping, word: str) -> None:
    """One batch in ten contains such a record: each time it occupies one of the requests for half a minute."""
    said, secs = UNANSWERED[word], 420.0

    minutes = Minutes(loop, said, after_secs=30.0, in_doubt="resend").pass_by(secs)

    letters, poisoned = minutes.letters, set(range(POISON_AT, minutes.read, POISON_EVERY))
    assert letters.keys() <= poisoned
    assert len(letters) > 10
    assert {(v.http_status or 0, v.text) for v in letters.values()} == {(said.status, said.text or said.trouble)}
    assert len(minutes.bench.results()) > 0.9 * minutes.read > 0.85 * BATCHES_PER_SEC * 20 * secs
    assert (minutes.holds, minutes.paused_secs) == ([], 0)


def test_batches_that_time_out_while_others_pass_are_no_load_and_no_outage(loop: Leaping) -> None:
    minutes = Minutes(loop, UNANSWERED["timeout"], after_secs=30.0).pass_by(200)

    doubted = {batch * 20 + at for batch in range(5, minutes.read // 20, 10) for at in range(20)}
    results = minutes.bench.results()
    assert minutes.letters.keys() <= doubted
    assert len(results.keys() | doubted) > 0.98 * minutes.read > 0.95 * BATCHES_PER_SEC * 20 * 200
    assert (minutes.holds, minutes.paused_secs) == ([], 0)
    assert minutes.state.limit.limit > 15


@pytest.mark.parametrize("in_doubt", ["dead_letter", "resend"])
def test_a_platform_that_stops_answering_is_an_outage(
    loop: Leaping, in_doubt: Literal["dead_letter", "resend"]
) -> None:
    """However long it takes until that is known: no request overtook others meanwhile."""
    minutes = Minutes(loop, Reply("answered", status=200), in_doubt=in_doubt)
    minutes.platform.stalls = lambda at: 60 <= at < 160
    minutes.pass_by(260)

    assert [hold.reason for hold in minutes.holds] == ["outage"]
    assert minutes.holds[0].since < 60 + 2 * 30 + 1
    assert len(minutes.letters) <= (0 if in_doubt == "resend" else 64 * 20)


@pytest.mark.parametrize("word", SLOWER)
def test_a_batch_that_alone_is_throttled_waits_alone(loop: Leaping, word: str) -> None:
    """For instance where one list has a limit of its own: that says nothing about a record.

    Not for longer: once half of all requests are told so, some are told in a row by chance, and that is for all.
    """
    minutes = Minutes(loop, SLOWER[word]).pass_by(30)

    waiting = {batch * 20 + at for batch in range(5, minutes.read // 20, 10) for at in range(20)}
    results = minutes.bench.results()
    assert minutes.letters == {}
    assert not waiting & results.keys()
    assert len(results) > 0.95 * (minutes.read - len(waiting))
    assert (minutes.holds, minutes.paused_secs) == ([], 0)


def test_a_throttling_of_all_is_obeyed_by_all_and_spends_no_record(loop: Leaping) -> None:
    def says(at: float) -> Reply | None:
        return Reply("answered", status=429, retry_after_secs=90 - at) if 30 <= at < 90 else None

    minutes = Minutes(loop, WORDS["500"], says=says).pass_by(120)

    assert minutes.letters.keys() <= set(range(POISON_AT, minutes.read, POISON_EVERY))
    asked = [at for at in minutes.platform.times if 30 <= at < 90]
    assert len(asked) < 20
    assert max(asked) < 35
    assert len(minutes.bench.results()) > 0.9 * minutes.read


@pytest.mark.parametrize("word", [*SLOWER, "503 and when"])
def test_a_platform_that_throttles_most_spends_no_record(loop: Leaping, word: str) -> None:
    dice = random.Random(3)

    said = (WORDS | SLOWER)[word]

    minutes = Minutes(loop, said, says=lambda _: said if dice.random() < 0.65 else None).pass_by(100)

    assert minutes.letters == {}
    assert len(minutes.platform.refused) > 30
