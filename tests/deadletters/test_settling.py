"""What became of dead letters since they were written: which topics are asked, from when on, and what stays unsure."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from connector.config.settings import Settings
from connector.core.chunks import Chunk, Headers, Partition
from connector.core.ranges import Range
from connector.core.records import REDRIVES
from connector.deadletters import settling
from connector.deadletters.deciding import Rules
from connector.deadletters.letters import CLOCKS_MS
from connector.deadletters.selection import Criteria
from connector.deadletters.settling import Settled, settled
from connector.deadletters.working import Job, R, Spans
from tests.deadletters.making import NOW_MS, SETTINGS, STREAM, headers_of

DEAD = Partition("dead", 0)
Row = tuple[int, bytes, Headers]
"""A record: its time, value and headers."""


@dataclass
class Topics:
    """Topics of one partition in memory, and from when on they were read, in order."""

    rows: dict[str, list[Row]]
    lacking: set[str] = field(default_factory=set)
    asked: list[tuple[str, int]] = field(default_factory=list)

    def lacks(self, topic: str, since_ms: int) -> bool:
        self.asked.append((topic, since_ms))
        return topic in self.lacking

    def spans(self, topic: str, *, since_ms: int | None = None) -> dict[Partition, Range]:
        assert since_ms == self.asked[-1][1] - CLOCKS_MS, "clocks may differ by so much"
        rows = self.rows.get(topic, [])
        start = next((at for at, (ms, _, _) in enumerate(rows) if ms >= since_ms), len(rows))
        return {Partition(topic, 0): (start, len(rows))}

    def work(self, spans: Spans, job: Job[R], _what: str, /) -> Iterator[R]:
        """Read each record as a piece of its own."""
        for partition, (start, stop) in spans.items():
            for offset in range(start, stop):
                ms, value, headers = self.rows[partition.topic][offset]
                yield job(iter([Chunk(partition, 0, [offset], [value], headers=[headers], timestamps=[ms])]))


def dead(offset: int, *, reason: str = "rejected", stream: str = "sends", at_ms: int = NOW_MS, **more: Any) -> Row:
    """Return the dead letter of a record at an offset of its source."""
    return at_ms, b"{}", headers_of(reason, stream=stream, offset=offset, now_ms=at_ms, **more)


def again(offset: int, *, at_ms: int = NOW_MS, times: int = 1) -> Row:
    """Return a record that was sent again."""
    places = (b"sms", b"0", b"%d" % offset)
    names = ("trackly.origin.topic", "trackly.origin.partition", "trackly.origin.offset")
    return at_ms, b"{}", [*zip(names, places, strict=True), (REDRIVES, b"%d" % times)]


def queued(offset: int, *, at_ms: int = NOW_MS) -> Row:
    """Return an outcome."""
    told = f'"stream":"sends","operation":"send","topic":"sms","partition":0,"offset":{offset}'
    return at_ms, f'{{"version":1,"status":"queued",{told}}}'.encode(), []


def asked_of(monkeypatch: pytest.MonkeyPatch, topics: Topics, *, settings: Settings = SETTINGS, **more: Any) -> Settled:
    """Ask what became of all dead letters."""

    @contextmanager
    def scanning(*_: object, **__: object) -> Iterator[Topics]:
        yield topics

    monkeypatch.setattr(settling, "scanning", scanning)
    rules = Rules(settings.streams_by_name, **more)
    return settled(settings, topics.work, {DEAD: (0, len(topics.rows["dead"]))}, Criteria(), rules)


def test_each_dead_letter_is_settled_by_what_is_known_first_and_outcomes_are_read_for_the_rest_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed_again = dead(9, topic="sms.redrive", source=again(0)[2])
    letters = [dead(0), dead(1, at_ms=NOW_MS + 5), dead(2, at_ms=NOW_MS + 7), dead(3, at_ms=NOW_MS + 9), failed_again]
    topics = Topics({"dead": letters, "sends.redrive": [again(1)], "sms.outcomes": [queued(2), queued(1), queued(9)]})

    found = asked_of(monkeypatch, topics)

    assert found.by_place == {(DEAD, 0): "superseded", (DEAD, 1): "redriven", (DEAD, 2): "queued"}
    assert found.counts == {"superseded": 1, "redriven": 1, "queued": 1}
    assert found.unsure == []
    assert topics.asked == [("sends.redrive", NOW_MS), ("sms.outcomes", NOW_MS)]


def test_outcomes_are_read_from_the_oldest_dead_letter_on_that_nothing_else_has_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There may be billions of them."""
    topics = Topics({"dead": [dead(0), dead(1, at_ms=NOW_MS + 500_000)], "sends.redrive": [again(0)]})

    found = asked_of(monkeypatch, topics)

    assert found.by_place == {(DEAD, 0): "redriven"}
    assert topics.asked == [("sends.redrive", NOW_MS), ("sms.outcomes", NOW_MS + 500_000)]


def test_no_outcome_is_read_where_everything_was_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = Topics({"dead": [dead(0)], "sends.redrive": [again(0)]})

    asked_of(monkeypatch, topics)

    assert [topic for topic, _ in topics.asked] == ["sends.redrive"]


@pytest.mark.parametrize(("at", "kept"), [(-CLOCKS_MS, True), (-CLOCKS_MS - 1, False)])
def test_what_was_written_before_the_dead_letter_is_not_about_it_unless_clocks_differ(
    monkeypatch: pytest.MonkeyPatch, at: int, *, kept: bool
) -> None:
    topics = Topics({"dead": [dead(0)], "sms.outcomes": [queued(0, at_ms=NOW_MS + at)]})

    assert asked_of(monkeypatch, topics).by_place == ({(DEAD, 0): "queued"} if kept else {})


def test_a_target_is_asked_for_all_dead_letters_and_the_stream_that_reads_it_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever sent a record there has sent it again, and the outcomes of the receiver tell of it."""
    receiver = {**STREAM, "name": "other", "topics": ["given"], "outcomes": {"topic": "other.outcomes"}}
    settings = SETTINGS.model_validate({**SETTINGS.model_dump(), "streams": [STREAM, receiver]})
    topics = Topics(
        {
            "dead": [dead(0, at_ms=NOW_MS + 5), dead(1, stream="gone")],
            "given": [again(1)],
            "other.outcomes": [queued(0)],
        }
    )

    found = asked_of(monkeypatch, topics, settings=settings, to="given")

    assert found.by_place == {(DEAD, 0): "queued", (DEAD, 1): "redriven"}
    assert dict(topics.asked) == {
        "given": NOW_MS,
        "sends.redrive": NOW_MS + 5,
        "other.redrive": NOW_MS,
        "sms.outcomes": NOW_MS + 5,
        "other.outcomes": NOW_MS + 5,
    }


def test_a_topic_of_two_streams_is_asked_once_from_the_older_dead_letter_on(monkeypatch: pytest.MonkeyPatch) -> None:
    other = {**STREAM, "name": "other", "topics": ["given"]}
    settings = SETTINGS.model_validate({**SETTINGS.model_dump(), "streams": [STREAM, other]})
    letters = [dead(0, at_ms=NOW_MS + 5), dead(1, stream="other")]
    for rows in (letters, letters[::-1]):
        topics = Topics({"dead": rows})
        asked_of(monkeypatch, topics, settings=settings)

        assert [since for topic, since in topics.asked if topic == "sms.outcomes"] == [NOW_MS]


def test_nothing_is_asked_where_there_are_no_dead_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = Topics({"dead": []})

    assert asked_of(monkeypatch, topics, to="given").by_place == {}
    assert topics.asked == []


def test_what_may_have_been_settled_as_well_is_told_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is gone, a foreign dead letter, and topics that have lost what they told; each cause once."""
    letters = [dead(0), dead(1, stream="gone"), dead(2, stream="gone"), (NOW_MS, b"{}", [])]
    everything = {"sends.redrive", "sms.outcomes"}

    found = asked_of(monkeypatch, Topics({"dead": letters}, lacking=everything))

    assert found.by_place == {}
    assert found.unsure == [
        "a dead letter does not name its stream",
        "stream gone is not in the settings",
        "retention has removed some of sms.outcomes",
    ]
    assert found.heard.lacking == everything


def test_where_outcomes_tell_of_failures_only_a_redrive_topic_without_its_oldest_records_leaves_all_unsure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An accepted record then left no other trace than that it was sent again."""
    stream = {**STREAM, "outcomes": {"topic": "sms.outcomes", "records": "failures"}}
    settings = SETTINGS.model_validate({**SETTINGS.model_dump(), "streams": [stream]})

    found = asked_of(monkeypatch, Topics({"dead": [dead(0)]}, lacking={"sends.redrive"}), settings=settings)

    assert found.unsure == ["retention has removed some of sends.redrive"]
    assert asked_of(monkeypatch, Topics({"dead": [dead(0)]}, lacking={"sends.redrive"})).unsure == []
