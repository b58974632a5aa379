"""What the connector writes satisfies the formats that it publishes, whatever the platform and the sources say."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.chunks import Chunk, Headers, Partition
from connector.core.records import REDRIVES, ResultEncoder, evidence_outcome, without_value
from connector.core.results import Finished
from connector.core.verdicts import (
    QUEUED,
    RECORD_CODES,
    RecordError,
    Reply,
    Verdict,
    VerdictPolicy,
    Verdicts,
    classify,
    in_doubt,
    judge,
    rejection,
)
from connector.deadletters.headers import parked_headers
from connector.deadletters.letters import Facts, Letter
from tests.schemas.conftest import schema, validator

NOW_MS = 1_769_846_400_123
SCRIBE = ResultEncoder("campaign-sends", "send", "trackly-connector.campaign-sends")
POLICY = VerdictPolicy(5, frozenset({"save_error"}), frozenset({"list_not_found"}), frozenset({504}))

outcome_schema = validator("outcome.v1")
headers_schema = validator("dead-letter-headers.v1")


def _chunk(count: int, **columns: Any) -> Chunk:
    return Chunk(Partition("sms.campaign", 3), 1, range(100, 100 + count), [b"{}"] * count, **columns)


def _posted(chunk: Chunk, verdicts: Verdicts) -> Finished:
    return Finished((chunk,), verdicts, "worker-0-6923a8f1-4c", 1, 1, NOW_MS, NOW_MS + 48)


def _outcomes(item: Finished) -> list[dict[str, Any]]:
    return [json.loads(value) for outcomes in SCRIBE.outcomes(item) for value in outcomes.values]


def _as_json(headers: Headers) -> dict[str, Any]:
    """Return headers as the schema sees them; a name that stands there twice is a mistake."""
    names = [name for name, _ in headers]
    assert len(names) == len(set(names))
    return {name: None if value is None else value.decode(errors="replace") for name, value in headers}


def _dead_letters(item: Finished) -> list[dict[str, Any]]:
    return [_as_json(letter.headers) for letter in SCRIBE.dead_letters(item, now_ms=NOW_MS)]


def _answered(status: int, **rest: Any) -> Reply:
    return Reply("answered", status=status, **rest)


def test_outcomes_of_a_bulk_reply_satisfy_the_schema() -> None:
    reply = _answered(200, errors=(RecordError(1, "not_sendable", "VOIP numbers not allowed"),))
    verdicts = judge(reply, 3, POLICY, failures=1, own_list=False).verdicts

    outcomes = _outcomes(_posted(_chunk(3), verdicts))

    assert [outcome["offset"] for outcome in outcomes] == [100, 102]
    for outcome in outcomes:
        outcome_schema.validate(outcome)


def test_an_outcome_of_single_mode_carries_the_message_id() -> None:
    verdicts = judge(_answered(201, message_id="aB12cD34"), 1, POLICY, failures=2, own_list=False).verdicts

    (outcome,) = _outcomes(_posted(_chunk(1), verdicts))

    outcome_schema.validate(outcome)
    assert outcome["message_id"] == "aB12cD34"


def test_an_outcome_says_that_the_record_was_posted_again() -> None:
    (outcome,) = _outcomes(_posted(_chunk(1, resent=True), Verdicts(Verdict("queued", http_status=200))))

    outcome_schema.validate(outcome)
    assert outcome["resent"] is True


def test_the_outcome_of_a_tombstone_satisfies_the_schema() -> None:
    item = Finished(
        (_chunk(2),), Verdicts(QUEUED, {0: Verdict("skipped", "tombstone"), 1: Verdict("dead_letter", "x")})
    )

    (outcome,) = _outcomes(item)

    outcome_schema.validate(outcome)
    assert (outcome["status"], outcome["offset"]) == ("skipped", 100)


def _by_evidence(*, redrives: int) -> str:
    source, origin = (Partition("sms.redrive", 0), 5), (Partition("sms.campaign", 3), 100)
    return evidence_outcome("campaign-sends", "send", source if redrives else origin, origin, redrives, now_ms=NOW_MS)


@pytest.mark.parametrize("redrives", [0, 2])
def test_an_outcome_by_evidence_satisfies_the_schema(redrives: int) -> None:
    outcome = json.loads(_by_evidence(redrives=redrives))

    outcome_schema.validate(outcome)
    assert ("origin" in outcome, outcome["source"]) == (redrives > 0, "evidence")


def test_outcomes_of_records_that_were_sent_again_say_where_they_first_failed() -> None:
    """What a source wrote under these names, and is no position, is not believed."""
    origin = [
        ("trackly.origin.topic", b"sms.campaign"),
        ("trackly.origin.partition", b"1"),
        ("trackly.origin.offset", b"7"),
    ]
    forged = [("trackly.origin.topic", b'","x":"'), *origin[1:], (REDRIVES, b"x")]
    chunk = _chunk(4, headers=[None, [*origin, (REDRIVES, b"2")], forged, [("tenant", b"acme")]])

    outcomes = _outcomes(_posted(chunk, Verdicts(Verdict("queued", http_status=200))))

    assert [outcome.get("origin") for outcome in outcomes] == [
        None,
        {"topic": "sms.campaign", "partition": 1, "offset": 7},
        None,
        None,
    ]
    assert outcomes[1]["redrives"] == 2
    for outcome in outcomes:
        outcome_schema.validate(outcome)


def test_the_schema_lists_no_field_that_outcomes_never_have() -> None:
    queued = _posted(_chunk(1, resent=True), Verdicts(Verdict("queued", http_status=200, message_id="aB12cD34")))
    skipped = Finished((_chunk(1),), Verdicts(Verdict("skipped", "tombstone")))
    evident = json.loads(_by_evidence(redrives=1))

    written = {field for item in (queued, skipped) for outcome in _outcomes(item) for field in outcome} | set(evident)

    assert written == set(schema("outcome.v1")["properties"])


@pytest.mark.parametrize(
    "reply",
    [
        _answered(400, code="invalid_phone", text="Invalid recipient phone number format"),
        _answered(422),
        _answered(413, text="Payload Too Large"),
        _answered(500, code="internal_error"),
    ],
    ids=lambda reply: str(reply.status),
)
def test_dead_letters_of_a_refused_request_satisfy_the_schema(reply: Reply) -> None:
    row = classify(reply, POLICY, own_list=False)

    (headers,) = _dead_letters(_posted(_chunk(1), Verdicts(rejection(reply, row))))

    headers_schema.validate(headers)


@pytest.mark.parametrize(
    "reply",
    [
        None,
        Reply("lost", trouble="reset", text="ReadError: connection lost"),
        _answered(200, unreadable="the reply is empty"),
        _answered(504),
    ],
    ids=["crash", "lost", "unreadable", "504"],
)
def test_dead_letters_of_records_in_doubt_satisfy_the_schema(reply: Reply | None) -> None:
    item = _posted(_chunk(1), Verdicts(in_doubt(reply)))
    if reply is None:
        item = replace(item, batch_id="", serial=0, attempts=0, sent_ms=0, answered_ms=0)

    (headers,) = _dead_letters(item)

    headers_schema.validate(headers)
    assert headers["trackly.reason"] == "in_doubt"


def test_a_dead_letter_that_does_not_fit_satisfies_the_schema_without_its_value() -> None:
    item = Finished((_chunk(1),), Verdicts(Verdict("dead_letter", "record_too_large", None, "6 MB")))
    (letter,) = SCRIBE.dead_letters(item, now_ms=NOW_MS)

    smaller = without_value(letter, 1_000)

    assert smaller.value is None
    headers_schema.validate(_as_json(smaller.headers))


def test_the_schema_lists_no_header_that_dead_letters_never_have() -> None:
    verdict = Verdict("dead_letter", "not_sendable", "not_sendable", "VOIP numbers not allowed", 200)
    chunk = replace(_chunk(1, headers=[[(REDRIVES, b"1")]]), resent=True)
    (letter,) = SCRIBE.dead_letters(_posted(chunk, Verdicts(verdict)), now_ms=NOW_MS)
    smaller = without_value(letter, 10)
    parked = Letter(Partition("dead", 0), 0, NOW_MS, None, None, Facts(smaller.headers))

    headers = parked_headers(parked, "look later", now_ms=NOW_MS)
    written = {name for name, _ in headers}
    headers_schema.validate(_as_json(headers))

    assert written == set(schema("dead-letter-headers.v1")["properties"])


_names = st.text(min_size=1, max_size=20) | st.sampled_from(
    ["trackly.reason", "trackly.origin.topic", "trackly.origin.partition", "trackly.origin.offset"]
)
_source_headers = st.dictionaries(
    _names.filter(lambda name: not name.startswith("trackly.origin.")), st.none() | st.binary(max_size=20), max_size=4
)
_text = st.text(max_size=40)


@given(
    headers=_source_headers,
    origin=st.booleans(),
    reason=st.sampled_from(sorted(RECORD_CODES)),
    code=st.none() | _text,
    text=_text,
    status=st.none() | st.integers(100, 599),
)
def test_whatever_platform_and_sources_say_the_headers_satisfy_the_schema(  # noqa: PLR0917
    headers: dict[str, bytes | None], origin: bool, reason: str, code: str | None, text: str, status: int | None
) -> None:
    source: Headers = list(headers.items())
    if origin:
        source += [
            ("trackly.origin.topic", b"sms.campaign"),
            ("trackly.origin.partition", b"1"),
            ("trackly.origin.offset", b"7"),
        ]
    verdict = Verdict("dead_letter", reason, code, text, status)

    (written,) = _dead_letters(_posted(_chunk(1, headers=[source]), Verdicts(verdict)))

    headers_schema.validate(written)
    assert written["trackly.origin.offset"] == ("7" if origin else "100")
