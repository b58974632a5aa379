"""The verdict table, row by row, and what an accepted reply means for each record."""

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.verdicts import (
    NOT_FOUND_CODES,
    QUEUED,
    RECORD_CODES,
    SKIPPED,
    TABLE,
    Action,
    Judgement,
    RecordError,
    Reply,
    Row,
    Verdict,
    VerdictPolicy,
    Verdicts,
    classify,
    in_doubt,
    judge,
    rejection,
)

POLICY: Final = VerdictPolicy(
    max_attempts=5,
    transient_codes=frozenset({"provider_error", "save_error", "internal_error"}),
    setting_codes=frozenset({"list_not_found", "webhook_not_configured"}),
    in_doubt_statuses=frozenset({504}),
)
SKIPS_REPEATS: Final = replace(POLICY, repeats_skipped=True)


def answered(status: int, **rest: Any) -> Reply:
    """Return what an answer with this status said."""
    return Reply("answered", status=status, **rest)


def row_of(reply: Reply, *, policy: VerdictPolicy = POLICY, own_list: bool = False) -> Row:
    """Return the row that decides about a reply."""
    return classify(reply, policy, own_list=own_list)


def failing(*codes: str, unnamed: int = 0) -> Reply:
    """Return a bulk reply whose first records failed with these codes."""
    errors = tuple(RecordError(index, code, f"text of {code}") for index, code in enumerate(codes))
    return answered(200, errors=errors, unnamed=unnamed)


def judged(
    reply: Reply, count: int, *, policy: VerdictPolicy = POLICY, attempts: int = 1, own_list: bool = False
) -> Judgement:
    return judge(reply, count, policy, failures=attempts, own_list=own_list)


# ------------------------------------------------------------------ the rows

_REQUEST_ITSELF: Final = (405, 406, 407, 410, 411, 415, 417, 421, 426, 431)
_OF_A_RECORD: Final = (400, 409, 414, 418, 422, 428, 451, 499)

SAMPLES: Final[tuple[tuple[Reply, str, Action], ...]] = (
    (Reply("not_sent", trouble="tls"), "tls", Action.HOLD),
    *[(Reply("not_sent", trouble=t), "not_sent", Action.OUTAGE) for t in ("connect", "connect_timeout", "proxy", "")],
    *[(Reply("lost", trouble=t), "lost", Action.DOUBT) for t in ("timeout", "reset", "tls")],
    (answered(200, unreadable="the reply is empty"), "unreadable", Action.DOUBT),
    (answered(204, unreadable="the reply is empty"), "unreadable", Action.DOUBT),
    *[(answered(s), "accepted", Action.JUDGE) for s in (200, 201, 202, 299)],
    (failing("invalid_phone"), "accepted", Action.JUDGE),
    (answered(504), "in_doubt_status", Action.DOUBT),
    (answered(504, retry_after_secs=1.0), "in_doubt_status", Action.DOUBT),
    *[(answered(s), "wait", Action.WAIT) for s in (408, 425, 429)],
    (answered(429, retry_after_secs=3.0, code="invalid_phone"), "wait", Action.WAIT),
    (answered(503, retry_after_secs=0.0), "wait", Action.WAIT),
    *[(answered(s), "server_error", Action.BACK_OFF) for s in (500, 501, 502, 503, 505, 507, 511, 529, 599)],
    (answered(500, code="list_not_found"), "server_error", Action.BACK_OFF),
    (answered(502, retry_after_secs=9.0), "server_error", Action.BACK_OFF),
    (answered(413), "too_large", Action.SHRINK),
    (answered(413, code="payload_too_large"), "too_large", Action.SHRINK),
    (answered(413, code="too_many_messages"), "too_large", Action.SHRINK),
    *[(answered(s), "refused_all", Action.HOLD) for s in (401, 402, 403, 404, *_REQUEST_ITSELF)],
    *[(answered(s, foreign=True), "blocked", Action.HOLD_OR_HALVE) for s in (403, *_OF_A_RECORD)],
    (answered(403, foreign=True, some_taken=True), "unreadable", Action.DOUBT),
    *[(answered(s, foreign=True), "refused_all", Action.HOLD) for s in (401, 402, 404, *_REQUEST_ITSELF)],
    *[(answered(s), "refused_all", Action.HOLD) for s in (300, 301, 302, 303, 304, 307, 308, 399)],
    (answered(404, code="not_found"), "refused_all", Action.HOLD),
    (answered(404, code="invalid_phone"), "refused_all", Action.HOLD),
    *[(answered(404, code=code), "rejected", Action.HALVE) for code in sorted(NOT_FOUND_CODES)],
    *[(answered(s), "rejected", Action.HALVE) for s in _OF_A_RECORD],
    (answered(400, code="list_not_found"), "rejected", Action.HALVE),
    *[(answered(s), "strange", Action.DOUBT) for s in (0, 100, 101, 199, 600, 999)],
)


@pytest.mark.parametrize(("reply", "name", "action"), SAMPLES)
def test_each_answer_meets_its_row(reply: Reply, name: str, action: Action) -> None:
    row = row_of(reply)

    assert (row.name, row.action) == (name, action)
    if reply.code not in POLICY.setting_codes:
        assert row_of(reply, own_list=True).name == name


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422])
def test_a_setting_code_for_the_whole_request_holds_where_the_list_is_the_streams_own(status: int) -> None:
    reply = answered(status, code="list_not_found")

    assert row_of(reply, own_list=True).name == "setting"
    assert row_of(reply, own_list=True).action is Action.HOLD
    assert row_of(reply).name != "setting"
    assert row_of(replace(reply, status=500), own_list=True).name == "server_error"


def test_a_record_too_large_is_never_taken_for_a_wrong_setting() -> None:
    policy = replace(POLICY, setting_codes=frozenset({"payload_too_large"}))

    assert row_of(answered(413, code="payload_too_large"), policy=policy, own_list=True).name == "too_large"


def test_every_row_that_a_reply_can_meet_is_tried_here() -> None:
    tried = {name for _, name, _ in SAMPLES} | {"setting"}

    assert tried == {row.name for row in TABLE if row.matches is not None}
    assert {row.name for row in TABLE if row.matches is None} == {
        "tombstone",
        "filtered",
        "unshaped",
        "invalid",
        "expired",
        "crashed",
    }
    assert all((row.action is Action.LOCAL) == (row.matches is None) for row in TABLE)


@pytest.mark.parametrize("status", range(100, 600))
def test_each_status_alone_meets_one_row(status: int) -> None:
    """Stated once more in plain words, so that a row that is moved or widened is noticed."""
    expected = (
        "accepted"
        if 200 <= status < 300
        else "in_doubt_status"
        if status == 504
        else "server_error"
        if status >= 500
        else "wait"
        if status in {408, 425, 429}
        else "too_large"
        if status == 413
        else "refused_all"
        if status in {401, 402, 403, 404, *_REQUEST_ITSELF} or 300 <= status < 400
        else "rejected"
        if status >= 400
        else "strange"
    )

    assert row_of(answered(status)).name == expected


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520])
def test_the_operator_says_which_statuses_leave_doubt(status: int) -> None:
    none, this = replace(POLICY, in_doubt_statuses=frozenset()), replace(POLICY, in_doubt_statuses=frozenset({status}))

    assert row_of(answered(status), policy=none).action is Action.BACK_OFF
    assert row_of(answered(status), policy=this).action is Action.DOUBT
    assert row_of(answered(status, retry_after_secs=1.0), policy=this).action is Action.DOUBT


_codes = st.none() | st.text(max_size=8) | st.sampled_from(sorted(RECORD_CODES))
_statuses = st.sets(st.integers(0, 999), max_size=4)
_replies = st.builds(
    Reply,
    st.sampled_from(["answered", "not_sent", "lost"]),
    trouble=st.sampled_from(["", "tls", "connect", "timeout"]),
    status=st.integers(0, 999),
    code=_codes,
    retry_after_secs=st.none() | st.floats(0, 1e9),
    unreadable=st.none() | st.text(max_size=4),
)


@given(_replies, _statuses, st.sets(st.sampled_from(sorted(RECORD_CODES)), max_size=4), st.booleans())
def test_no_answer_hides_a_doubt_or_invents_one(
    reply: Reply, doubtful: set[int], setting_codes: set[str], own_list: bool
) -> None:
    policy = replace(POLICY, in_doubt_statuses=frozenset(doubtful), setting_codes=frozenset(setting_codes))

    row = row_of(reply, policy=policy, own_list=own_list)

    if reply.kind == "not_sent":
        assert row.action in {Action.OUTAGE, Action.HOLD}
    elif reply.kind == "lost":
        assert row.action is Action.DOUBT
    elif row.action is Action.JUDGE:
        assert reply.ok
        assert reply.unreadable is None
    elif row.action is Action.DOUBT:
        unknown = reply.status < 200 or reply.status > 599
        assert reply.unreadable is not None or reply.status in policy.in_doubt_statuses or unknown
    if row.name == "setting":
        assert own_list


@given(_replies, st.booleans())
def test_what_hits_everything_never_makes_a_dead_letter(reply: Reply, own_list: bool) -> None:
    """A bad key, an outage, a redirect or a limit: the actions that keep every record."""
    if reply.kind == "not_sent" or (reply.kind == "answered" and reply.status in {*range(300, 400), 401, 402, 429}):
        assert row_of(reply, own_list=own_list).action in {Action.HOLD, Action.OUTAGE, Action.WAIT, Action.DOUBT}
        assert row_of(reply, policy=replace(POLICY, in_doubt_statuses=frozenset())).action is not Action.DOUBT


# ------------------------------------------------------------------ an accepted reply, record by record


def test_all_are_queued_when_no_error_is_listed() -> None:
    reply = answered(201, message_id="aB12cD34")

    judgement = judged(reply, 3)

    assert judgement == Judgement(Verdicts(Verdict("queued", http_status=201, message_id="aB12cD34")))


def test_a_permanent_code_dead_letters_its_record_alone() -> None:
    reply = answered(200, errors=(RecordError(1, "not_sendable", "VOIP numbers not allowed"),))

    judgement = judged(reply, 3, attempts=1)

    refused = Verdict("dead_letter", "not_sendable", "not_sendable", "VOIP numbers not allowed", 200)
    assert [judgement.verdicts.of(index) for index in range(3)] == [
        Verdict("queued", http_status=200),
        refused,
        Verdict("queued", http_status=200),
    ]
    assert (judgement.again, judgement.doubt, judgement.probe, judgement.hold_code) == ((), (), (), None)


@pytest.mark.parametrize("code", sorted(POLICY.transient_codes))
def test_a_transient_code_sends_its_record_again_until_its_attempts_are_spent(code: str) -> None:
    assert [judged(failing(code), 2, attempts=spent).again for spent in range(1, 7)] == [(0,)] * 4 + [(), ()]
    last = judged(failing(code), 2, attempts=5)
    assert (last.verdicts.of(0).status, last.verdicts.of(0).reason) == ("dead_letter", code)


def test_records_to_send_again_rise_however_they_are_listed() -> None:
    reply = answered(200, errors=tuple(RecordError(index, "save_error", "") for index in (4, 0, 2)))

    assert judged(reply, 5).again == (0, 2, 4)


@pytest.mark.parametrize("code", ["", "account_on_fire", "in_doubt", "Invalid_Phone"])
def test_a_code_that_no_document_names_is_kept_but_does_not_become_a_reason(code: str) -> None:
    """Reasons are labels of metrics: the platform, or somebody in its place, must not make up new ones."""
    verdict = judged(failing(code), 2).verdicts.of(0)

    assert (verdict.status, verdict.reason, verdict.code) == ("dead_letter", "refused", code)


@pytest.mark.parametrize("code", sorted(RECORD_CODES - POLICY.transient_codes))
def test_a_code_that_a_document_names_is_the_reason(code: str) -> None:
    assert judged(failing(code), 2).verdicts.of(0).reason == code


@pytest.mark.parametrize("unnamed", [0, 7])
@pytest.mark.parametrize(
    "codes", [["list_not_found"], ["list_not_found"] * 3, ["webhook_not_configured", "list_not_found"]]
)
def test_setting_codes_of_every_record_hold_the_stream_and_the_first_is_reported(
    codes: list[str], unnamed: int
) -> None:
    """History lists a hundred errors and counts a thousand: a wrong list must not cost a hundred records first."""
    judgement = judged(failing(*codes, unnamed=unnamed), len(codes) + unnamed, own_list=True, policy=SKIPS_REPEATS)

    assert (judgement.hold_code, judgement.verdicts.exceptions) == (codes[0], {})


@pytest.mark.parametrize(
    ("codes", "count", "own_list"),
    [
        (["list_not_found"] * 2, 3, True),
        (["list_not_found", "invalid_phone"], 2, True),
        (["list_not_found"] * 2, 2, False),
        (["invalid_phone"] * 2, 2, True),
    ],
    ids=["only some", "among others", "lists of the events", "no setting"],
)
def test_else_a_setting_code_is_the_fault_of_its_record(codes: list[str], count: int, own_list: bool) -> None:
    judgement = judged(failing(*codes), count, own_list=own_list)

    assert judgement.hold_code is None
    assert [judgement.verdicts.of(index).status for index in range(len(codes))] == ["dead_letter"] * len(codes)


def test_failures_that_are_counted_but_not_listed_leave_the_rest_in_doubt() -> None:
    judgement = judged(failing("invalid_phone", unnamed=1), 4)

    assert (judgement.doubt, judgement.probe) == ((1, 2, 3), ())
    assert judgement.verdicts.of(0).reason == "invalid_phone"


def test_failures_that_are_not_listed_are_found_by_asking_again_where_repeats_are_skipped() -> None:
    judgement = judged(failing("invalid_phone", unnamed=1), 4, policy=SKIPS_REPEATS)

    assert (judgement.doubt, judgement.probe) == ((), (1, 2, 3))


@pytest.mark.parametrize("policy", [POLICY, SKIPS_REPEATS], ids=["repeats count", "repeats are skipped"])
def test_a_lone_record_that_is_counted_as_failed_is_not_in_doubt(policy: VerdictPolicy) -> None:
    """It is the one that failed: posting it again, as doubt may ask for, would never end."""
    judgement = judged(failing(unnamed=1), 1, policy=policy)

    assert (judgement.doubt, judgement.probe, judgement.again) == ((), (), ())
    assert (judgement.verdicts.of(0).status, judgement.verdicts.of(0).reason) == ("dead_letter", "refused")


def test_a_rest_that_failed_as_a_whole_is_not_in_doubt() -> None:
    judgement = judged(failing("invalid_phone", unnamed=3), 4)

    assert judgement.doubt == ()
    assert [judgement.verdicts.of(index).reason for index in range(4)] == ["invalid_phone"] + ["refused"] * 3
    unlisted = judgement.verdicts.of(3)
    assert "not listed" in unlisted.text
    assert (unlisted.http_status, unlisted.code) == (200, None)


def test_a_rest_that_failed_as_a_whole_is_asked_again_for_its_codes_where_that_is_harmless() -> None:
    judgement = judged(failing("invalid_phone", unnamed=3), 4, policy=SKIPS_REPEATS)

    assert judgement.probe == (1, 2, 3)


@st.composite
def _bulk_replies(draw: st.DrawFn) -> tuple[Reply, int]:
    """Draw what a readable bulk reply may say of some records."""
    count = draw(st.integers(1, 12))
    codes = st.sampled_from(["invalid_phone", "save_error", "list_not_found", "made up", ""])
    indices = draw(st.lists(st.integers(0, count - 1), unique=True))
    errors = tuple(RecordError(index, draw(codes), "") for index in indices)
    return answered(200, errors=errors, unnamed=draw(st.integers(0, count - len(errors)))), count


@given(_bulk_replies(), st.integers(1, 6), st.booleans(), st.booleans())
def test_each_record_has_one_end(said: tuple[Reply, int], attempts: int, own_list: bool, repeats_skipped: bool) -> None:
    reply, count = said
    policy = replace(POLICY, repeats_skipped=repeats_skipped)

    judgement = judged(reply, count, policy=policy, attempts=attempts, own_list=own_list)

    apart = [*judgement.again, *judgement.doubt, *judgement.probe]
    named = {error.index: error.code for error in reply.errors}
    assert len(apart) == len(set(apart))
    assert set(apart) <= set(range(count))
    assert not set(apart) & set(judgement.verdicts.exceptions)
    assert all(list(part) == sorted(part) for part in (judgement.again, judgement.doubt, judgement.probe))
    assert set(judgement.again) == {i for i, c in named.items() if c in policy.transient_codes and attempts < 5} or (
        judgement.hold_code is not None
    )
    if judgement.hold_code is not None:
        assert own_list
        assert not apart
        assert not judgement.verdicts.exceptions
    else:
        queued = [i for i in range(count) if i not in apart and judgement.verdicts.of(i).status == "queued"]
        assert not set(queued) & set(named), "what is named as failed is never called queued"
        assert len(queued) == count - len(named) or (reply.unnamed and not queued)


# ------------------------------------------------------------------ single records that are given up


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (answered(413, code="invalid_phone"), "payload_too_large"),
        (answered(500, code="internal_error"), "server_error"),
        (answered(400, code="invalid_phone"), "invalid_phone"),
        (answered(404, code="message_not_found"), "message_not_found"),
        (answered(400, code="missing_messages"), "rejected"),
        (answered(422), "rejected"),
        (answered(409, code=""), "rejected"),
        (answered(503, retry_after_secs=5.0), "server_error"),
    ],
)
def test_a_record_that_is_refused_alone_says_why(reply: Reply, reason: str) -> None:
    told = replace(reply, text="what the platform said")

    assert rejection(told, row_of(told)) == Verdict(
        "dead_letter", reason, reply.code, "what the platform said", reply.status
    )


@pytest.mark.parametrize(
    ("reply", "text", "status"),
    [
        (None, "listed as in flight, and no answer is known", None),
        (Reply("lost", trouble="timeout", text="ReadTimeout"), "ReadTimeout", None),
        (Reply("lost", trouble="reset"), "reset", None),
        (answered(200, unreadable="an index twice", text="ok"), "an index twice", 200),
        (answered(504, text="upstream is slow"), "upstream is slow", 504),
    ],
)
def test_a_record_in_doubt_says_why(reply: Reply | None, text: str, status: int | None) -> None:
    verdict = in_doubt(reply)

    assert (verdict.status, verdict.reason) == ("dead_letter", "in_doubt")
    assert (verdict.text, verdict.http_status) == (text, status)


def test_a_record_in_doubt_after_a_crash_may_be_told_in_other_words() -> None:
    assert in_doubt(None, detail="gone").text == "gone"


# ------------------------------------------------------------------ verdicts of a batch


@given(
    st.dictionaries(st.integers(0, 9), st.sampled_from([SKIPPED, Verdict("dead_letter", "x")])),
    st.sets(st.integers(0, 9)).map(sorted),
)
def test_picked_verdicts_are_those_of_the_records_that_were_picked(
    exceptions: dict[int, Verdict], indices: list[int]
) -> None:
    verdicts = Verdicts(QUEUED, exceptions)

    picked = verdicts.picked(indices)

    assert [picked.of(new) for new in range(len(indices))] == [verdicts.of(old) for old in indices]
    assert set(picked.exceptions) <= set(range(len(indices)))


@pytest.mark.parametrize("status", [199, 200, 299, 300])
def test_only_a_2xx_is_ok(status: int) -> None:
    assert answered(status).ok is (200 <= status < 300)
    assert not Reply("lost", status=status).ok
