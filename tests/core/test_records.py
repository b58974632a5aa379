"""What is written: outcomes with the position of their record, and dead letters that are the record itself."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connector.core.chunks import Chunk, Headers, Partition
from connector.core.records import (
    FAILURE_PREFIXES,
    DeadLetter,
    Outcomes,
    ResultEncoder,
    evidence_outcome,
    iso,
    outcomes_in,
    without_value,
)
from connector.core.results import Finished
from connector.core.verdicts import QUEUED, SKIPPED, Verdict, Verdicts
from tests.core.making import A, chunks

SCRIBE: Final = ResultEncoder("campaign-sends", "send", "trackly-connector.campaign-sends")
SCHEMAS: Final = Path(__file__).resolve().parents[2] / "schemas"
OUTCOME: Final = jsonschema.Draft202012Validator(json.loads((SCHEMAS / "outcome.v1.schema.json").read_text()))
NOW_MS: Final = 1_769_846_400_123
TAKEN: Final = Verdict("queued", http_status=200)
REFUSED: Final = Verdict("dead_letter", "not_sendable", "not_sendable", "VOIP numbers not allowed", 200)


def posted(chunks: tuple[Chunk, ...], verdicts: Verdicts) -> Finished:
    """Return records with the verdicts that an answered request brought them."""
    return Finished(chunks, verdicts, "worker-0-6923a8f1-4c", 1, 2, NOW_MS, NOW_MS + 48)


def made(count: int = 1, **columns: Any) -> Chunk:
    return Chunk(Partition("sms.campaign", 3), 1, range(100, 100 + count), [b"{}"] * count, **columns)


def outcomes(item: Finished, encoder: ResultEncoder = SCRIBE) -> list[dict[str, Any]]:
    return [json.loads(value) for written in encoder.outcomes(item) for value in written.values]


def dead_letters(item: Finished) -> list[DeadLetter]:
    return list(SCRIBE.dead_letters(item, now_ms=NOW_MS))


def said(letter: DeadLetter) -> dict[str, bytes | None]:
    """Return the headers of a dead letter; a name of ours that stands there twice is a mistake."""
    ours = [name for name, _ in letter.headers if name.startswith(FAILURE_PREFIXES)]
    assert len(ours) == len(set(ours))
    return dict(letter.headers)


# ------------------------------------------------------------------ one result for each record


@dataclass
class Row:
    """A record as it went in."""

    index: int
    partition: Partition
    offset: int
    key: bytes | None
    value: bytes | None
    number: int
    resent: bool
    verdict: Verdict


@st.composite
def finished(draw: st.DrawFn) -> tuple[Finished, list[Row]]:
    """Draw an answered batch: chunks with any columns, some of which were part of another request before."""
    pieces = []
    for at in range(draw(st.integers(1, 4))):
        offsets = st.just(range(at * 10, at * 10 + draw(st.integers(1, 5)))).map(list)
        piece = draw(chunks(Partition(f"t{at % 2}", at), offsets=offsets))
        if draw(st.booleans()):
            piece.indices = range(50 + at, 50 + at + len(piece))
        pieces.append(piece)
    count = sum(map(len, pieces))
    kinds = st.sampled_from([TAKEN, REFUSED, Verdict("dead_letter", "in_doubt")])
    exceptions = draw(st.dictionaries(st.integers(0, count - 1), kinds, max_size=count))
    verdicts = Verdicts(draw(kinds), exceptions)
    rows: list[Row] = []
    for piece in pieces:
        for at, offset in enumerate(piece.offsets):
            index = len(rows)
            number = index if piece.indices is None else piece.indices[at]
            resent, verdict = piece.resent, verdicts.of(index)
            rows.append(Row(index, piece.partition, offset, piece.key(at), piece.values[at], number, resent, verdict))
    return posted(tuple(pieces), verdicts), rows


@given(finished())
def test_each_record_is_an_outcome_or_a_dead_letter(drawn: tuple[Finished, list[Row]]) -> None:
    item, rows = drawn

    written = [(outcome["topic"], outcome["partition"], outcome["offset"]) for outcome in outcomes(item)]
    letters = [
        (heads["__connect.errors.topic"], heads["__connect.errors.partition"], heads["__connect.errors.offset"])
        for heads in map(said, dead_letters(item))
    ]

    assert written == [(*row.partition, row.offset) for row in rows if row.verdict.status == "queued"]
    assert letters == [
        (row.partition.topic.encode(), b"%d" % row.partition.number, b"%d" % row.offset)
        for row in rows
        if row.verdict.status == "dead_letter"
    ]


@given(finished())
def test_an_outcome_says_where_its_record_stood_and_keeps_its_key(drawn: tuple[Finished, list[Row]]) -> None:
    item, rows = drawn
    queued = [row for row in rows if row.verdict.status == "queued"]

    told = []
    for written in SCRIBE.outcomes(item):
        for value in written.values[:1]:  # those of a partition differ in offset and index alone
            OUTCOME.validate(json.loads(value))
        for at, value in enumerate(written.values):
            outcome = json.loads(value)
            key = None if written.keys is None else written.keys[at]
            told.append((written.source, outcome["index"], key, outcome.get("resent", False)))

    assert told == [(row.partition.number, row.number, row.key, row.resent) for row in queued]


@given(finished())
def test_a_dead_letter_is_the_record_byte_for_byte(drawn: tuple[Finished, list[Row]]) -> None:
    item, rows = drawn

    letters = dead_letters(item)

    refused = [row for row in rows if row.verdict.status == "dead_letter"]
    assert [(letter.source, letter.key, letter.value) for letter in letters] == [
        (row.partition.number, row.key, row.value) for row in refused
    ]
    assert [(heads["trackly.reason"], heads["trackly.index"]) for heads in map(said, letters)] == [
        (row.verdict.reason.encode(), b"%d" % row.number) for row in refused
    ]


@given(st.none() | st.binary(), st.none() | st.binary())
def test_any_bytes_stay_what_they_are(key: bytes | None, value: bytes | None) -> None:
    piece = Chunk(A, 1, [7], [value], keys=[key])

    (letter,) = dead_letters(Finished((piece,), Verdicts(QUEUED, {0: REFUSED})))

    assert (letter.key, letter.value) == (key, value)


def test_a_tombstone_has_an_outcome_without_a_request() -> None:
    item = Finished((made(2),), Verdicts(QUEUED, {0: SKIPPED, 1: REFUSED}))

    (outcome,) = outcomes(item)

    OUTCOME.validate(outcome)
    assert (outcome["status"], outcome["reason"], outcome["offset"]) == ("skipped", "tombstone", 100)


def test_where_only_failures_are_wanted_no_outcome_is_written() -> None:
    encoder = ResultEncoder("campaign-sends", "send", "group", failures_only=True)
    item = posted((made(2),), Verdicts(TAKEN, {0: REFUSED}))

    assert outcomes(item, encoder) == []
    assert len(list(encoder.dead_letters(item, now_ms=NOW_MS))) == 1


# ------------------------------------------------------------------ outcomes


def test_an_outcome_describes_its_request() -> None:
    verdict = Verdict("queued", http_status=201, message_id="aB12cD34")

    (outcome,) = outcomes(posted((made(),), Verdicts(verdict)))

    assert outcome == {
        "version": 1,
        "status": "queued",
        "stream": "campaign-sends",
        "operation": "send",
        "topic": "sms.campaign",
        "partition": 3,
        "offset": 100,
        "index": 0,
        "batch_id": "worker-0-6923a8f1-4c",
        "attempts": 2,
        "http_status": 201,
        "sent_at": "2026-01-31T08:00:00.123Z",
        "answered_at": "2026-01-31T08:00:00.171Z",
        "message_id": "aB12cD34",
    }


def test_the_outcome_of_a_record_that_was_sent_again_says_where_it_first_failed_and_its_neighbours_does_not() -> None:
    again: Headers = [
        ("trackly.origin.topic", b"sms.campaign"),
        ("trackly.origin.partition", b"5"),
        ("trackly.origin.offset", b"17"),
    ]
    often: Headers = [*again[:2], ("trackly.origin.offset", b"18"), ("trackly.redrives", b"2")]
    broken: Headers = [("trackly.origin.topic", b"no topic"), *again[1:]]
    nowhere: Headers = [again[0], ("trackly.origin.partition", b"-1"), again[2]]
    item = posted((made(7, headers=[None, again, often, broken, again[:2], again[1:], nowhere]),), Verdicts(TAKEN))

    written = outcomes(item)

    for outcome in written:
        OUTCOME.validate(outcome)
    assert [(one["offset"], one.get("origin", {}).get("offset"), one.get("redrives")) for one in written] == [
        (100, None, None),
        (101, 17, 0),
        (102, 18, 2),
        (103, None, None),
        (104, None, None),
        (105, None, None),
        (106, None, None),
    ]
    assert written[1]["origin"] == {"topic": "sms.campaign", "partition": 5, "offset": 17}


@given(
    st.lists(st.none() | st.integers(0, 3_000), min_size=1, max_size=8),
    st.integers(500, 4_000),
    st.none() | st.integers(0, 1_000),
)
def test_keys_that_make_an_outcome_too_large_are_left_out_and_no_others(
    sizes: list[int | None], limit: int, header_bytes: int | None
) -> None:
    """A record that Kafka refuses for its size would poison its tick."""
    keys = [None if size is None else b"k" * size for size in sizes]
    headers: Headers | None = None if header_bytes is None else [("traceparent", b"h" * header_bytes)]
    values = ["v" * 200] * len(keys)

    written = Outcomes(0, values, keys, max(size or 0 for size in sizes), headers)
    kept = written.keys_within(limit)

    assert kept is not None
    assert kept == keys or written.may_exceed(limit), "or nobody would have looked at each of them"
    assert not written.may_exceed(20_000)
    for before, after in zip(keys, kept, strict=True):
        wire = _on_the_wire(DeadLetter(0, before, values[0].encode(), headers or []))
        assert after in (before, None)
        assert after is None or wire <= limit
        assert after == before or wire > limit - 250, "no smaller than it has to be"
    assert Outcomes(0, values).keys_within(limit) is None
    assert not Outcomes(0, values).may_exceed(limit), "without keys, all are small"


@pytest.mark.parametrize("redrives", [0, 2])
def test_the_outcome_of_what_evidence_names_says_where_its_dead_letter_stood_and_where_it_first_failed(
    redrives: int,
) -> None:
    first, later = (Partition("sms", 3), 7), (Partition("sends.redrive", 1), 9)

    line = evidence_outcome("sends", "send", later if redrives else first, first, redrives, now_ms=NOW_MS)

    outcome = json.loads(line)
    OUTCOME.validate(outcome)
    stood = ("sends.redrive", 1, 9) if redrives else ("sms", 3, 7)
    assert (outcome["topic"], outcome["partition"], outcome["offset"]) == stood
    assert (outcome["status"], outcome["source"]) == ("queued", "evidence")
    assert outcome.get("origin") == ({"topic": "sms", "partition": 3, "offset": 7} if redrives else None)
    assert outcome.get("redrives") == (redrives or None)


@settings(max_examples=20)
@given(finished(), st.lists(st.none() | st.binary(max_size=20)))
def test_outcomes_are_read_back_and_whatever_else_is_in_their_topic_is_skipped(
    drawn: tuple[Finished, list[Row]], others: list[bytes | None]
) -> None:
    item, rows = drawn
    lines = [value.encode() for written in SCRIBE.outcomes(item) for value in written.values]
    values = [*others, None, b"\xff", b'{"status":"queued"}', *lines]

    read = list(outcomes_in([Chunk(A, 1, range(len(values)), values)]))

    assert [(one.status, one.topic, one.partition, one.offset) for one in read] == [
        ("queued", *row.partition, row.offset) for row in rows if row.verdict.status == "queued"
    ]


@pytest.mark.parametrize("topic", ['"', "\\", "a\nb", "\u2028", "\ud800", '","status":"queued', "{0}", "%s", ""])
def test_no_name_of_a_topic_breaks_an_outcome(topic: str) -> None:
    piece = Chunk(Partition(topic, 0), 1, range(2), [b"{}"] * 2)

    assert [outcome["topic"] for outcome in outcomes(posted((piece,), Verdicts(TAKEN)))] == [topic] * 2


@given(st.text())
def test_no_id_of_a_message_breaks_an_outcome(message_id: str) -> None:
    item = posted((made(),), Verdicts(Verdict("queued", http_status=200, message_id=message_id)))

    (written,) = SCRIBE.outcomes(item)

    assert json.loads(written.values[0].encode())["message_id"] == message_id


@pytest.mark.parametrize(
    ("ms", "told"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_769_846_400_000, "2026-01-31T08:00:00.000Z"),
        (999, "1970-01-01T00:00:00.999Z"),
    ],
)
def test_times_are_told_to_the_millisecond(ms: int, told: str) -> None:
    assert iso(ms) == told


# ------------------------------------------------------------------ headers of dead letters


def test_a_dead_letter_describes_what_happened_for_consoles_and_people() -> None:
    (letter,) = dead_letters(posted((made(),), Verdicts(REFUSED)))

    assert said(letter) == {
        "__connect.errors.topic": b"sms.campaign",
        "__connect.errors.partition": b"3",
        "__connect.errors.offset": b"100",
        "__connect.errors.connector.name": b"campaign-sends",
        "__connect.errors.stage": b"TASK_PUT",
        "__connect.errors.exception.message": b"not_sendable: VOIP numbers not allowed",
        "__dlq.errors.topic": b"sms.campaign",
        "__dlq.errors.partition": b"3",
        "__dlq.errors.offset": b"100",
        "__dlq.errors.group": b"trackly-connector.campaign-sends",
        "__dlq.errors.message": b"not_sendable: VOIP numbers not allowed",
        "trackly.stream": b"campaign-sends",
        "trackly.operation": b"send",
        "trackly.reason": b"not_sendable",
        "trackly.failed_at": b"2026-01-31T08:00:00.123Z",
        "trackly.code": b"not_sendable",
        "trackly.text": b"VOIP numbers not allowed",
        "trackly.http_status": b"200",
        "trackly.batch_id": b"worker-0-6923a8f1-4c",
        "trackly.index": b"0",
        "trackly.attempts": b"2",
        "trackly.sent_at": b"2026-01-31T08:00:00.123Z",
        "trackly.origin.topic": b"sms.campaign",
        "trackly.origin.partition": b"3",
        "trackly.origin.offset": b"100",
    }


def test_a_record_that_was_never_posted_has_no_request() -> None:
    item = Finished((made(),), Verdicts(Verdict("dead_letter", "not_json")))

    heads = said(dead_letters(item)[0])

    absent = ("batch_id", "index", "attempts", "sent_at", "code", "text", "http_status")
    assert not [name for name in absent if f"trackly.{name}" in heads]
    assert heads["__dlq.errors.message"] == b"not_json"


_foreign = st.tuples(
    st.text(max_size=5).filter(lambda name: not name.startswith(FAILURE_PREFIXES)), st.none() | st.binary(max_size=5)
)


@given(st.lists(_foreign, max_size=5), st.integers(1, 4))
def test_headers_of_failures_are_replaced_and_never_piled_up(foreign: Headers, times: int) -> None:
    """A dead letter that is reprocessed and fails again and again, which elsewhere grows until no topic takes it.

    What others wrote stays, also twice, and in its order.
    """
    first = Chunk(Partition("sms.campaign", 3), 1, [100], [b"{}"], headers=[list(foreign)])
    (letter,) = dead_letters(posted((first,), Verdicts(REFUSED)))
    for at in range(times):
        redriven = [*letter.headers, ("trackly.redrives", b"%d" % (at + 1))] if at == 0 else letter.headers
        piece = Chunk(Partition("sends.redrive", 0), 1, [at], [letter.value], headers=[redriven])
        (letter,) = dead_letters(Finished((piece,), Verdicts(Verdict("dead_letter", "expired"))))

    heads = said(letter)
    assert [one for one in letter.headers if not one[0].startswith(FAILURE_PREFIXES)] == foreign
    assert heads["trackly.reason"] == b"expired"
    assert "trackly.code" not in heads, "what the failure before had to say is gone"
    assert (heads["__dlq.errors.topic"], heads["__dlq.errors.offset"]) == (b"sends.redrive", b"%d" % (times - 1))
    assert (heads["trackly.origin.topic"], heads["trackly.origin.offset"]) == (b"sms.campaign", b"100")
    assert heads["trackly.redrives"] == b"1"
    ours = [name for name, _ in letter.headers if name.startswith(FAILURE_PREFIXES)]
    assert len(ours) == len(set(ours)), "each of ours once"


def test_what_a_source_wrote_in_our_name_is_not_believed() -> None:
    forged: Headers = [("trackly.reason", b"queued"), ("__dlq.errors.message", None), ("__connect.errors.x", b"y")]

    (letter,) = dead_letters(posted((made(headers=[forged]),), Verdicts(REFUSED)))

    assert said(letter)["trackly.reason"] == b"not_sendable"
    assert "__connect.errors.x" not in said(letter)


@given(st.text(), st.none() | st.text())
def test_nothing_that_the_platform_says_stops_a_dead_letter(text: str, code: str | None) -> None:
    item = posted((made(),), Verdicts(Verdict("dead_letter", "refused", code, text, 400)))

    heads = said(dead_letters(item)[0])

    if text:
        assert (heads["trackly.text"] or b"").decode() == text.encode(errors="replace").decode()
    assert ("trackly.code" in heads) == (code is not None)


def test_half_a_character_is_written_as_a_question_mark() -> None:
    item = posted((made(),), Verdicts(Verdict("dead_letter", "refused", "\ud800", "a\udc00b", 400)))

    heads = said(dead_letters(item)[0])

    assert (heads["trackly.code"], heads["trackly.text"]) == (b"?", b"a?b")


# ------------------------------------------------------------------ what does not fit


def _varint(value: int) -> int:
    """Return the bytes of a length as Kafka writes it (zigzag)."""
    return max(((value << 1).bit_length() + 6) // 7, 1)


def _on_the_wire(letter: DeadLetter) -> int:
    """Return the bytes of a batch that holds this record alone, as the format (version 2) has it."""
    fields = [letter.key or b"", letter.value or b""]
    for name, value in letter.headers:
        fields += [name.encode(errors="surrogatepass"), value or b""]
    body = 1 + 1 + 1 + sum(_varint(len(one)) + len(one) for one in fields) + _varint(len(letter.headers))
    return 61 + _varint(body) + body


@given(
    st.none() | st.binary(max_size=300),
    st.none() | st.binary(max_size=300),
    st.lists(st.tuples(st.text(max_size=200), st.none() | st.binary(max_size=300)), max_size=30),
)
@example(b"k" * 100, b"v" * 100_000, [("h" * 100, b"x" * 100)] * 100)
def test_a_dead_letter_is_never_larger_than_it_says(key: bytes | None, value: bytes | None, headers: Headers) -> None:
    """A record that Kafka refuses for its size would poison its tick."""
    letter = DeadLetter(0, key, value, headers)

    assert _on_the_wire(letter) <= letter.size


def test_without_its_value_a_dead_letter_says_how_large_it_was() -> None:
    (letter,) = dead_letters(posted((made(headers=[[("trace", b"1")]], keys=[b"k"]),), Verdicts(REFUSED)))
    letter.value = b"v" * 6_000

    smaller = without_value(letter, 5_000)

    assert (smaller.source, smaller.key, smaller.value) == (letter.source, b"k", None)
    assert smaller.headers == [*letter.headers, ("trackly.value_omitted", b"6000 bytes; the topic takes 5000")]
    assert smaller.size <= 5_000


@pytest.mark.parametrize("large", ["key", "header"])
def test_when_need_be_key_and_foreign_headers_go_and_the_position_stays(large: str) -> None:
    piece = made(headers=[[("trace", b"h" * (9_000 if large == "header" else 1))]], keys=[b"k"])
    (letter,) = dead_letters(posted((piece,), Verdicts(REFUSED)))
    if large == "key":
        letter.key = b"k" * 9_000

    smaller = without_value(letter, 5_000)

    assert (smaller.key, smaller.value) == (None, None)
    assert smaller.size <= 5_000
    heads = said(smaller)
    assert "trace" not in heads
    assert (heads["trackly.reason"], heads["__connect.errors.offset"]) == (b"not_sendable", b"100")
    assert heads["trackly.value_omitted"] == b"2 bytes; the topic takes 5000"


@given(st.integers(0, 10**12) | st.integers(0, 3_000), st.integers(1, 1_000), st.integers(0, 1_500), st.booleans())
@example(999, 2, 0, False)
@example(1_000, 1_000, 0, False)
@example(1_999, 1_000, 1, False)
def test_each_outcome_has_its_own_offset_and_index(start: int, count: int, before: int, gaps: bool) -> None:
    """Offsets that follow one another share their first digits, which are written out once."""
    offsets = range(start, start + count) if not gaps else [start + 2 * number for number in range(count)]
    piece = Chunk(A, 1, offsets, [b"{}"] * count)
    first = Chunk(A, 1, range(before), [b"{}"] * before)

    told = outcomes(posted((first, piece) if before else (piece,), Verdicts(TAKEN)))[before:]

    assert [one["offset"] for one in told] == list(offsets)
    assert [one["index"] for one in told] == list(range(before, before + count))
