"""A reply is verified before it is trusted; a reply that lies, or says nothing, settles nothing."""

import json
import time
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.core.batching import Batch, wire_size
from connector.core.chunks import Chunk, Partition
from connector.core.verdicts import Action, RecordError, Reply, VerdictPolicy, classify, judge
from connector.shaping.refusing import MAX_TEXT
from connector.trackly.operations import Operation, Rules
from connector.trackly.replies import is_foreign, parse_retry_after, read_reply

POLICY: Final = VerdictPolicy(
    max_attempts=5,
    transient_codes=frozenset({"provider_error"}),
    setting_codes=frozenset({"list_not_found"}),
    in_doubt_statuses=frozenset({504}),
)
NOW: Final = 1_445_412_480.0
"""Wed, 21 Oct 2015 07:28:00 GMT, the date of RFC 9110's examples."""

RECORDS: Final[dict[str, list[bytes]]] = {
    "send": [b'{"to":"+1415555010%d","body":"x"}' % at for at in range(4)],
    "contacts": [b'{"phone_number":"+1415555010%d"}' % at for at in range(4)],
    "revenue": [b'{"message_id":"m%d","revenue":1,"attribution_type":"sale"}' % at for at in range(4)],
    "history.sends": [b'{"id":%d,"to_number":"+14155550100","timestamp":"t"}' % at for at in range(4)],
    "history.clicks": [b'{"message_id":"m%d"}' % at for at in range(4)],
    "history.revenue": [b'{"message_id":"m%d"}' % at for at in range(4)],
}
ACCEPTED: Final = {name: "queued_count" if name == "send" else "success_count" for name in RECORDS}


def batch_of(records: list[bytes], *, chunks: int = 2) -> Batch:
    """Return a batch of these records, in several chunks, as they come from several partitions."""
    cuts = [len(records) * at // chunks for at in range(chunks + 1)]
    parts = [
        Chunk(Partition("t", at), 1, range(stop - start), list(records[start:stop]), wire=list(records[start:stop]))
        for at, (start, stop) in enumerate(pairwise(cuts))
        if stop > start
    ]
    return Batch("b", None, tuple(parts), len(records), wire_size(parts, 0), "count")


def answer(
    body: bytes | dict[str, Any],
    *,
    name: str = "send",
    status: int = 200,
    records: list[bytes] | None = None,
    retry_after: str | None = None,
    **rules: Any,
) -> Reply:
    """Return what the client makes of an answer."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    batch = batch_of(RECORDS[name] if records is None else records)
    operation = Operation(name, Rules(**rules))
    return read_reply(operation, batch, status=status, retry_after=retry_after, body=raw, now=NOW)


def said(accepted: Any, failed: Any, *errors: Any, name: str = "send", **more: Any) -> dict[str, Any]:
    return {ACCEPTED[name]: accepted, "error_count": failed, "errors": list(errors), **more}


def failure(index: Any, **more: Any) -> dict[str, Any]:
    return {"index": index, "code": "invalid_phone", "error": "Invalid", **more}


# ------------------------------------------------------------------ replies that can be believed


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_reply_that_takes_all_is_believed(name: str, status: int) -> None:
    assert answer(said(4, 0, name=name), name=name, status=status) == Reply("answered", status=status)


@pytest.mark.parametrize("name", RECORDS)
def test_errors_are_reported_by_index_code_and_text(name: str) -> None:
    reply = answer(said(2, 2, failure(3), {"index": 0, "code": "save_error", "error": "no"}, name=name), name=name)

    assert reply.unreadable is None
    assert reply.errors == (RecordError(3, "invalid_phone", "Invalid"), RecordError(0, "save_error", "no"))
    assert reply.unnamed == 0


def test_code_and_text_of_an_error_may_be_absent() -> None:
    reply = answer(said(2, 2, {"index": 1}, {"index": 2, "code": None, "error": None}))

    assert reply.errors == (RecordError(1, "", ""), RecordError(2, "", ""))


def test_a_reply_that_says_it_failed_is_believed_if_it_counts_failures() -> None:
    reply = answer(said(3, 1, failure(2), success=False))

    assert (reply.unreadable, reply.errors) == (None, (RecordError(2, "invalid_phone", "Invalid"),))


@pytest.mark.parametrize("broken", [b'"\xff"', b"1e999"])
def test_a_field_that_cannot_be_read_does_not_hide_the_others(broken: bytes) -> None:
    reply = answer(b'{"code":%s,"errors":%s,"message":"told"}' % (broken, broken), status=400)

    assert (reply.code, reply.text, reply.foreign) == (None, "told", False)


def test_fields_that_no_document_names_do_not_matter() -> None:
    body = {"success": True, "request_id": "x", **said(3, 1, failure(0, hint={"deep": [1]}))}

    assert answer(body).errors == (RecordError(0, "invalid_phone", "Invalid"),)


@pytest.mark.parametrize("name", [name for name in RECORDS if name.startswith("history")])
def test_failures_that_history_counts_but_does_not_list_are_reported(name: str) -> None:
    reply = answer(said(1, 3, failure(2), name=name), name=name)

    assert (reply.unreadable, len(reply.errors), reply.unnamed) == (None, 1, 2)


@pytest.mark.parametrize("name", ["send", "contacts", "revenue"])
def test_so_are_failures_that_another_endpoint_does_not_list(name: str) -> None:
    assert answer(said(1, 3, name=name), name=name).unnamed == 3


@pytest.mark.parametrize(
    ("accepted", "failed", "skipped", "invalid", "listed", "unnamed"),
    [
        (4, 0, 2, 0, 0, 0),
        (2, 0, 2, 0, 0, 0),
        (3, 1, 0, 1, 1, 0),
        (3, 0, 0, 1, 1, 0),
        (3, 0, 0, 1, 0, 1),
        (2, 1, 1, 1, 1, 1),
        (2, 1, 1, 1, 2, 0),
        (1, 1, 1, 1, 1, 1),
        (1, 0, 2, 1, 0, 1),
        (2, 1, 1, 0, 1, 0),
    ],
    ids=[
        "skipped ones are taken",
        "skipped ones are apart",
        "invalid ones are errors",
        "invalid ones are apart and listed",
        "invalid ones are apart and not listed",
        "either is apart: nobody may be called queued who was not taken",
        "either is apart, and all are listed",
        "both are apart, beside an error",
        "both are apart",
        "skipped ones are apart, beside an error",
    ],
)
def test_what_history_skips_may_be_counted_either_way(  # noqa: PLR0917
    accepted: int, failed: int, skipped: int, invalid: int, listed: int, unnamed: int
) -> None:
    """The documents do not say whether repeats count as taken, nor whether invalid numbers count as errors."""
    errors = [failure(index) for index in range(listed)]
    body = said(accepted, failed, *errors, name="history.sends", duplicates_skipped=skipped, invalid_phones=invalid)

    reply = answer(body, name="history.sends")

    assert (reply.unreadable, len(reply.errors), reply.unnamed) == (None, listed, unnamed)


@pytest.mark.parametrize(
    ("name", "echo", "of"),
    [
        ("send", "to", "+14155550102"),
        ("contacts", "phone_number", "+14155550102"),
        ("history.sends", "id", 2),
        ("history.sends", "id", "2"),
    ],
)
def test_an_error_may_repeat_what_its_record_says(name: str, echo: str, of: Any) -> None:
    right, wrong = (answer(said(3, 1, failure(at, **{echo: of}), name=name), name=name) for at in (2, 1))

    assert right.errors == (RecordError(2, "invalid_phone", "Invalid"),)
    assert wrong.unreadable == f"index 1 repeats the `{echo}` of another record"


def test_an_error_that_repeats_null_repeats_nothing() -> None:
    assert answer(said(3, 1, failure(0, to=None))).unreadable is None


@pytest.mark.parametrize("extra", [b'"x":1e999', b'"x":' + b"7" * 5_000, b'"x":' + b"[" * 850 + b"]" * 850])
def test_a_record_that_is_hard_to_read_puts_no_batch_in_doubt(extra: bytes) -> None:
    """It was posted, as it is JSON; whether its error is its own must be found out all the same."""
    record = b'{"to":"+14155550100","body":"x",%s}' % extra

    reply = answer(said(1, 1, failure(1, to="+14155550100")), records=[record, record])

    assert (reply.unreadable, len(reply.errors)) == (None, 1)


# ------------------------------------------------------------------ replies that cannot be believed

LIES: Final[dict[str, bytes | dict[str, Any]]] = {
    "empty": b"",
    "blank": b" \r\n",
    "not JSON": b"<html>200 OK</html>",
    "cut": b'{"queued_count":4,"error_cou',
    "not UTF-8": b'{"queued_count":4,"error_count":0,"errors":[{"index":0,"code":"\xff"}]}',
    "utf-16": '{"queued_count":4,"error_count":0,"errors":[]}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"queued_count":4,"error_count":0,"errors":[]}',
    "two documents": b'{"queued_count":4,"error_count":0,"errors":[]}{}',
    "too deep": b"[" * 100_000,
    "null": b"null",
    "an array": b"[]",
    "a number": b"4",
    "an empty object": b"{}",
    "an error that says it is well": {"error": "no", "code": "internal_error"},
    "counts of another endpoint": {"success_count": 4, "error_count": 0, "errors": []},
    "no error_count": {"queued_count": 4, "errors": []},
    "no queued_count": {"error_count": 0, "errors": []},
    "null counts": said(None, None),
    "counts as text": said("4", "0"),
    "counts as fractions": b'{"queued_count":4.0,"error_count":0.0,"errors":[]}',
    "counts as booleans": said(True, False),
    "too few": said(3, 0),
    "too many": said(5, 0),
    "all and an error": said(4, 1, failure(0)),
    "negative errors": said(5, -1),
    "negative errors that cancel out": said(4, -1, invalid_phones=1),
    "negative taken": said(-1, 5),
    "negative skipped": said(5, 0, duplicates_skipped=-1),
    "negative invalid": said(5, 0, invalid_phones=-1),
    "counts beyond all": b'{"queued_count":%s,"error_count":0,"errors":[]}' % (b"9" * 4_000),
    "counts beyond any": b'{"queued_count":%s,"error_count":0,"errors":[]}' % (b"9" * 100_000),
    "counts that cancel out": b'{"queued_count":%s,"error_count":-%s,"errors":[]}' % (b"9" * 30, b"9" * 30),
    "more listed than counted": said(3, 1, failure(0), failure(1)),
    "listed but not counted": said(4, 0, failure(0)),
    "an index twice": said(2, 2, failure(1), failure(1)),
    "an index out of range": said(3, 1, failure(4)),
    "an index far out of range": b'{"queued_count":3,"error_count":1,"errors":[{"index":%s}]}' % (b"9" * 4_000),
    "a negative index": said(3, 1, failure(-1)),
    "an index as boolean": said(3, 1, failure(True)),
    "an index as text": said(3, 1, failure("1")),
    "an index as fraction": said(3, 1, failure(1.0)),
    "no index": said(3, 1, {"code": "invalid_phone"}),
    "no success and no failure": said(4, 0, success=False),
    "no success but a reason": said(4, 0, success=False, error="Account is suspended"),
    "null index": said(3, 1, failure(None)),
    "a code that is no text": said(3, 1, failure(0, code=7)),
    "errors that are no list": {"queued_count": 3, "error_count": 1, "errors": {"0": "no"}},
    "errors that are texts": {"queued_count": 3, "error_count": 1, "errors": ["no"]},
    "the number of another record": said(3, 1, failure(0, to="+14155550103")),
    "an index that counts from one": said(3, 1, failure(3, to="+14155550102")),
    "an empty number": said(3, 1, failure(0, to="")),
    "a number too deep": b'{"queued_count":3,"error_count":1,"errors":[{"index":0,"to":%s' % (b"[" * 100_000),
    "too deep where nobody looks": b'{"queued_count":4,"error_count":0,"errors":[],"x":%s' % (b"[" * 100_000),
    "no number at all": said(3, 1, failure(0, to={"a": [1, None]})),
    "a number beyond all": b'{"queued_count":3,"error_count":1,"errors":[{"index":0,"to":%s}]}' % (b"9" * 4_000),
}


@pytest.mark.parametrize("body", LIES.values(), ids=LIES.keys())
def test_a_reply_that_lies_settles_nothing(body: bytes | dict[str, Any]) -> None:
    reply = answer(body)

    assert reply.ok
    assert reply.unreadable
    assert len(reply.unreadable) <= MAX_TEXT
    assert classify(reply, POLICY, own_list=True).action is Action.DOUBT


@pytest.mark.parametrize("body", LIES.values(), ids=LIES.keys())
def test_the_same_lies_about_history_settle_nothing(body: bytes | dict[str, Any]) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    told = raw.replace(b"success_count", b"x").replace(b"queued_count", b"success_count").replace(b'"to"', b'"id"')

    assert answer(told, name="history.sends").unreadable


def test_an_empty_reply_is_named_so() -> None:
    assert answer(b"").unreadable == "the reply is empty"


def test_a_number_that_is_repeated_is_not_looked_for_where_none_is_documented() -> None:
    assert answer(said(3, 1, failure(0, to="+1", id=9), name="revenue"), name="revenue").unreadable is None


# ------------------------------------------------------------------ single mode


@pytest.mark.parametrize(
    ("name", "body", "message_id"),
    [
        ("send", {"success": True, "message_id": "aB12cD34", "status": "queued"}, "aB12cD34"),
        ("send", {"message_id": "aB12cD34"}, "aB12cD34"),
        ("contacts", {"success": True, "contact_id": 7}, None),
        ("contacts", {"contact_id": "c-7"}, None),
        ("revenue", {"revenue_id": 3, "revenue": 1.5}, None),
        ("revenue", {"success": True}, None),
    ],
)
def test_a_single_record_that_was_taken(name: str, body: dict[str, Any], message_id: str | None) -> None:
    reply = answer(body, name=name, single=True, status=201)

    assert reply == Reply("answered", status=201, message_id=message_id)


@pytest.mark.parametrize(
    "body",
    [b"", b"OK", b"{}", b"[]", {"success": False, "message_id": "m"}, {"message_id": ""}, {"message_id": 7}, {"ok": 1}],
)
def test_a_single_reply_that_does_not_say_so_settles_nothing(body: bytes | dict[str, Any]) -> None:
    assert answer(body, single=True).unreadable


# ------------------------------------------------------------------ failures of the request


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ({"error": "Invalid phone", "code": "invalid_phone"}, "invalid_phone", "Invalid phone"),
        ({"error": "Account is suspended"}, None, "Account is suspended"),
        ({"message": "told otherwise", "code": "x"}, "x", "told otherwise"),
        ({"error": "first", "message": "second"}, None, "first"),
        (b"<html>Bad Gateway</html>", None, "<html>Bad Gateway</html>"),
        (b"\r\n<html>Bad Gateway</html>\n", None, "<html>Bad Gateway</html>"),
        (b"\n", None, ""),
        (b"", None, ""),
        (b"\xff\xfe", None, "\ufffd\ufffd"),
        (b"[" * 100_000, None, "[" * MAX_TEXT),
        ({"code": 7, "error": "no"}, None, "no"),
        (
            {"code": "invalid_phone", "error": {"field": "to"}},
            "invalid_phone",
            '{"code": "invalid_phone", "error": {"field": "to"}}',
        ),
        (b"null", None, "null"),
        (b'{"x":' + b"[" * 100_000, None, '{"x":' + "[" * (MAX_TEXT - 5)),
    ],
)
def test_a_failure_is_reported_with_its_code_and_text(
    body: bytes | dict[str, Any], code: str | None, text: str
) -> None:
    foreign = isinstance(body, bytes)  # all of those above that are no JSON object
    for status in (199, 300, 400, 500):
        assert answer(body, status=status) == Reply("answered", status=status, code=code, text=text, foreign=foreign)


def test_a_failure_in_json_that_is_not_utf8_where_nobody_looks_is_reported_as_well() -> None:
    reply = answer(b'{"x":"\xff"}', status=500)

    assert (reply.text, reply.foreign) == ('{"x":"\ufffd"}', False)


def test_a_text_that_says_nothing_is_not_told_in_place_of_the_whole_answer() -> None:
    body = {"errors": [failure(0, error="")]}

    assert answer(body, status=400).text == json.dumps(body)


def test_an_empty_text_is_replaced_by_the_next_one() -> None:
    assert answer({"error": "", "message": "told otherwise"}, status=400).text == "told otherwise"


def test_the_code_of_the_request_counts_before_those_of_its_records() -> None:
    assert answer({"code": "too_many", "errors": [failure(0)]}, status=400).code == "too_many"


def test_one_record_that_an_error_reply_counts_as_taken_is_enough_for_doubt() -> None:
    reply = answer(said(1, 3), status=500)

    assert classify(reply, POLICY, own_list=True).action is Action.DOUBT


@pytest.mark.parametrize(("body", "foreign"), [(b'{"lists":[]}', False), (b"[]", True), (b"<html>", True), (b"", True)])
def test_only_a_json_object_is_the_platforms_own_answer(body: bytes, foreign: bool) -> None:
    assert is_foreign(body) is foreign


@pytest.mark.parametrize("status", [400, 404, 422])
def test_an_error_reply_that_gives_all_its_records_one_code_has_that_code(status: int) -> None:
    """No document says which status a bulk request has of which all failed; a wrong list must hold in each of them."""
    wrong = [failure(index, code="list_not_found", error="No such list") for index in range(4)]

    reply = answer(said(0, 4, *wrong), status=status)
    alone = answer(said(0, 1, failure(0)), status=status, records=RECORDS["send"][:1])

    assert (reply.code, reply.text) == ("list_not_found", "No such list")
    assert classify(reply, POLICY, own_list=True).action is Action.HOLD
    assert classify(reply, POLICY, own_list=False).action is Action.HALVE
    assert (alone.code, alone.text) == ("invalid_phone", "Invalid")


@pytest.mark.parametrize(
    "errors",
    [
        [failure(0), failure(1, code="not_sendable")],
        [failure(0), failure(1, code=None)],
        [failure(0, code=["invalid_phone"])],
        [{}],
        ["invalid_phone"],
        {"0": "invalid_phone"},
        [],
        None,
    ],
)
def test_errors_of_several_codes_or_of_none_give_a_request_none(errors: Any) -> None:
    assert answer({"queued_count": 0, "error_count": 4, "errors": errors}, status=400).code is None


def test_a_list_or_count_of_nothing_may_be_null() -> None:
    reply = answer(said(4, 0) | {"errors": None, "duplicates_skipped": None, "invalid_phones": None})

    assert reply == Reply("answered", status=200)


def test_texts_of_the_platform_are_truncated() -> None:
    """It goes into headers and logs, whoever answers in the platform's place."""
    long = "x" * 100_000
    whole = answer({"error": long, "code": long}, status=400)
    single = answer(said(3, 1, failure(0, error=long, code=long)))
    raw = answer(long.encode(), status=502)

    said_of_all = [whole.text, whole.code or "", raw.text, single.errors[0].text, single.errors[0].code]
    assert [len(text) for text in said_of_all] == [MAX_TEXT] * 5


_ENDLESS: Final = b"[%s]" % b",".join([b"[]"] * 1_000_000)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b'{"code":%s,"error":%s,"message":%s}' % (_ENDLESS, _ENDLESS, _ENDLESS)),
        (400, b'{"errors":%s,"queued_count":%s,"success":%s}' % (_ENDLESS, _ENDLESS, _ENDLESS)),
        (200, b'{"queued_count":3,"error_count":1,"errors":[{"index":0,"to":%s}]}' % _ENDLESS),
        (200, b'{"queued_count":4,"error_count":0,"success":%s,"errors":[]}' % _ENDLESS),
    ],
    ids=["a code", "errors", "a number", "success"],
)
@pytest.mark.parametrize("single", [False, True])
def test_nothing_large_is_made_of_what_is_no_word_of_the_platform(status: int, body: bytes, single: bool) -> None:
    """Of 16 MB of empty lists there were 400 MB, and the event loop stood still for seconds to make them."""
    body = body.replace(b'"index"', b'"contact_id":%s,"index"' % _ENDLESS) if single else body
    records = RECORDS["send"][: 1 if single else 4]
    tracemalloc.start()
    try:
        answer(body, status=status, single=single, records=records)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 2_000_000


# ------------------------------------------------------------------ Retry-After


@pytest.mark.parametrize(
    ("value", "secs"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("007", 7.0),
        ("99999999999999999999", 9_999_999_999.0),
        ("-5", None),
        ("+5", None),
        ("5.5", None),
        ("1e3", None),
        ("5, 5", None),
        ("5;q=1", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("\u0665", None),
        ("\u00b2", None),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:28:30", 30.0),
        ("Wed, 21 Oct 2015 07:28:30 -0000", 30.0),
        ("Wed, 21 Oct 2015 09:28:30 +0200", 30.0),
        ("Wednesday, 21-Oct-15 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:27:59 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 251_956_888_319.0),
        ("Wed, 99 Oct 2015 07:28:30 GMT", None),
        ("Wed, 21 Oct 2015 07:28:30 +9999999", None),
    ],
)
def test_a_wait_is_reported_in_seconds_or_by_a_date(value: str | None, secs: float | None) -> None:
    assert parse_retry_after(value, NOW) == secs


@pytest.fixture
def in_new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_new_york")
@pytest.mark.parametrize("zone", ["", " -0000", " GMT"])
def test_a_date_without_a_zone_is_not_read_in_local_time(zone: str) -> None:
    assert parse_retry_after(f"Wed, 21 Oct 2015 07:28:30{zone}", NOW) == 30.0


_headers = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="0123456789:+-,. JanFebOctGMTWedT()\t", max_size=40),
    st.lists(
        st.sampled_from(["Wed,", "21", "Oct", "2015", "07:28:00", "GMT", "-0000", "+9999", "0", ":"]), max_size=7
    ).map(" ".join),
)


@given(_headers, st.floats(0, 4e9))
def test_no_header_is_too_strange(value: str, now: float) -> None:
    secs = parse_retry_after(value, now)

    assert secs is None or secs >= 0


@pytest.mark.parametrize("status", [408, 425, 429, 503])
def test_the_wait_reaches_the_row_that_waits(status: int) -> None:
    reply = answer(b"", status=status, retry_after="30")

    assert reply.retry_after_secs == 30.0
    assert classify(reply, POLICY, own_list=False).action is Action.WAIT


# ------------------------------------------------------------------ any answer at all

_texts = st.none() | st.text(max_size=4) | st.sampled_from(["list_not_found", "invalid_phone", "provider_error"])
_counts = st.integers(-1, 5) | st.none() | st.booleans()
_entries = st.fixed_dictionaries(
    {"index": st.integers(-1, 5) | st.integers() | st.booleans()},
    optional={"code": _texts, "error": _texts, "to": st.sampled_from(["+14155550101", "+1", None, 4])},
)
_documents = st.fixed_dictionaries(
    {},
    optional={
        "queued_count": _counts,
        "success_count": _counts,
        "error_count": _counts,
        "errors": st.lists(_entries, max_size=5),
        "duplicates_skipped": _counts,
        "invalid_phones": _counts,
        "code": _texts,
        "error": _texts,
        "message_id": _texts,
        "success": st.none() | st.booleans(),
    },
)
_bodies = st.binary(max_size=60) | _documents.map(lambda document: json.dumps(document).encode())


@given(st.integers(100, 999), st.none() | _headers, _bodies, st.sampled_from(sorted(RECORDS)), st.booleans())
@example(200, None, b'{"queued_count":3,"error_count":1,"errors":[{"index":0}]}', "send", False)
@example(429, "1", b"", "send", True)
def test_any_answer_leads_to_one_action_and_one_end_for_each_record(
    status: int, retry_after: str | None, body: bytes, name: str, single: bool
) -> None:
    records = RECORDS[name][: 1 if single else 4]

    reply = answer(body, name=name, status=status, records=records, retry_after=retry_after, single=single)
    row = classify(reply, POLICY, own_list=True)

    assert (reply.kind, reply.status) == ("answered", status)
    assert row.action is not Action.LOCAL
    assert (row.action is Action.JUDGE) == (200 <= status < 300 and reply.unreadable is None)
    if row.action is Action.JUDGE:
        judgement = judge(reply, len(records), POLICY, failures=1, own_list=True)
        if judgement.hold_code is not None:
            return
        apart = [*judgement.again, *judgement.doubt, *judgement.probe]
        ends = {index: judgement.verdicts.of(index).status for index in range(len(records)) if index not in apart}
        assert len(apart) == len(set(apart))
        assert set(apart) | set(ends) == set(range(len(records)))
        said_to_be_taken = json.loads(body).get(ACCEPTED[name])
        if not single:
            assert list(ends.values()).count("queued") <= max(said_to_be_taken, len(records) - len(reply.errors))
            assert reply.unnamed == 0 or "queued" not in ends.values()


@given(st.binary(max_size=200), st.sampled_from([200, 201, 299]))
def test_random_bytes_never_settle_a_batch(body: bytes, status: int) -> None:
    assert answer(body, status=status).unreadable


@pytest.mark.parametrize("status", [302, 400, 413, 422, 429, 500, 503])
def test_an_error_reply_that_counts_records_as_taken_leaves_doubt(status: int) -> None:
    """No document says which status a request has that failed in part: its body must not be overlooked."""
    partly = answer(said(3, 1, failure(0)), status=status)
    single = answer({"success": True, "message_id": "m"}, status=status, single=True)

    for reply in (partly, single):
        assert classify(reply, POLICY, own_list=True).action is Action.DOUBT
    for body in (said(0, 4), said(None, 4), b"{", {"success": True}):
        assert classify(answer(body, status=status), POLICY, own_list=True).action is not Action.DOUBT


@pytest.mark.parametrize(
    "more",
    [
        {"errors": [{"index": "0", "code": "invalid_phone"}]},
        {"errors": [{"to": "+14155550101", "error": "no"}]},
        {"errors": {"0": "no"}},
        {"errors": "see the log", "error_count": "1"},
        {"queued_count": 3.0},
        {"success_count": "none"},
    ],
)
def test_what_else_an_error_reply_says_hides_no_count_of_records_taken(more: dict[str, Any]) -> None:
    """Errors are told in many forms; that some records were taken stays true in each of them."""
    reply = answer({"queued_count": 3, "error_count": 1, **more}, status=500)
    single = answer({"success": True, "message_id": 7}, status=500, single=True)

    assert classify(reply, POLICY, own_list=True).action is Action.DOUBT
    assert classify(single, POLICY, own_list=True).action is Action.DOUBT


def test_the_id_of_a_message_is_cut_as_all_else_that_the_platform_says() -> None:
    """It goes into an outcome, which its topic has to take."""
    reply = answer({"success": True, "message_id": "m" * 2_000_000}, single=True)

    assert len(reply.message_id or "") == MAX_TEXT
