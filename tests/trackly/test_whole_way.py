"""The whole way of a record, by law: from any bytes to its request, from any answer to its outcome or dead letter.

No step may raise, whatever Kafka held and whatever the platform, or somebody in its place, has said.
"""

import json
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connector.core.batching import Batch, BatchLimits
from connector.core.chunks import Chunk, Headers, Partition
from connector.core.records import DeadLetter, ResultEncoder, without_value
from connector.core.results import Finished
from connector.core.verdicts import Action, VerdictPolicy, Verdicts, classify, in_doubt, judge, rejection
from connector.trackly.operations import Operation
from connector.trackly.replies import read_reply
from tests.trackly.test_operations import PLACEMENTS, TORTURE, bodies, loads, values_of

SOURCE = Partition("sms.campaign", 3)
SCRIBE = ResultEncoder("campaign-sends", "send", "group")
POLICY = VerdictPolicy(3, frozenset({"provider_error"}), frozenset({"list_not_found"}), frozenset({504}))

_names = st.text(st.characters(codec="utf-8"), max_size=4) | st.sampled_from(
    ["trackly.reason", "trackly.origin.topic", "__connect.errors.x", "__dlq.errors.topic", "trackly.redrives"]
)
_headers = st.lists(st.tuples(_names, st.none() | st.binary(max_size=5)), max_size=3)
_codes = st.sampled_from(["invalid_phone", "provider_error", "list_not_found", "\ud800", "x" * 600, "", None, 7])
_index: st.SearchStrategy[Any] = st.integers(-2, 6) | st.sampled_from([10**30, 2**63, None, "1", 1.5, True, []])
_count: st.SearchStrategy[Any] = st.integers(-1, 6) | st.sampled_from([10**30, None, "1", 1.5, True, {}])
_errors = st.lists(
    st.fixed_dictionaries({}, optional={"index": _index, "code": _codes, "error": _codes, "to": _codes, "id": _codes}),
    max_size=4,
)
_documents = st.fixed_dictionaries(
    {},
    optional={
        "queued_count": _count,
        "success_count": _count,
        "error_count": _count,
        "duplicates_skipped": _count,
        "errors": _errors | _count,
        "success": st.booleans() | _count,
        "message_id": _codes,
        "code": _codes,
        "error": _codes | _errors,
    },
)
_cut = st.tuples(st.binary(min_size=1, max_size=300), st.integers(0, 300)).map(lambda pair: pair[0][: pair[1]])
_bodies = (
    _cut
    | (_documents | st.lists(_documents, max_size=2)).map(lambda said: json.dumps(said).encode())
    | st.sampled_from([b"[" * 100_000, b'{"errors":' * 5_000, b"\xef\xbb\xbf{}", b"{}" + b" " * 1_000_000, b"nul\x00"])
)


def honest(batch: Batch, operation: Operation, failed: set[int]) -> bytes:
    """Return what a platform says that refuses some records of a batch and tells it as documented."""
    if operation.rules.single:
        return b'{"success":true,"message_id":"aB12cD34"}'
    wrong = [index for index in range(batch.count) if index in failed]
    errors = [{"index": index, "code": "not_sendable", "error": "VOIP"} for index in wrong]
    taken = batch.count - len(wrong)
    return json.dumps({operation.endpoint.accepted_count: taken, "error_count": len(wrong), "errors": errors}).encode()


def ends(batch: Batch, operation: Operation, status: int, body: bytes, retry_after: str | None) -> list[Finished]:
    """Return what the sender would settle; a batch that is posted again has got its answer honestly the next time."""
    reply = read_reply(operation, batch, status=status, retry_after=retry_after, body=body, now=0.0)
    row = classify(reply, POLICY, own_list=True)
    about = {"batch_id": batch.id, "attempts": 1, "sent_ms": 5, "answered_ms": 6}
    match row.action:
        case Action.JUDGE:
            judgement = judge(reply, batch.count, POLICY, failures=1, own_list=True)
            if judgement.hold_code is not None:
                return ends(batch, operation, 200, honest(batch, operation, set()), None)
            apart = sorted({*judgement.again, *judgement.doubt, *judgement.probe})
            rest = [index for index in range(batch.count) if index not in apart]
            chosen, others = batch.split(apart)
            items = [Finished(others, judgement.verdicts.picked(rest), **about)] if rest else []  # type: ignore[arg-type]
            return items + ([Finished(chosen, Verdicts(in_doubt(reply)), **about)] if apart else [])  # type: ignore[arg-type]
        case Action.DOUBT:
            return [Finished(batch.chunks, Verdicts(in_doubt(reply)), **about)]  # type: ignore[arg-type]
        case Action.HALVE | Action.SHRINK if batch.count == 1:
            return [Finished(batch.chunks, Verdicts(rejection(reply, row)), **about)]  # type: ignore[arg-type]
        case _:
            assert row.action is not Action.LOCAL
            return ends(batch, operation, 200, honest(batch, operation, set()), None)


@st.composite
def sources(draw: st.DrawFn, name: str) -> Chunk:
    """Draw a chunk of any records, small and large, with any keys and headers, or none."""
    value = values_of(name) | st.sampled_from(list(TORTURE.values()))
    values = draw(st.lists(value, min_size=1, max_size=6))
    count = len(values)
    keys = draw(st.none() | st.lists(st.none() | st.binary(max_size=4), min_size=count, max_size=count))
    headers = draw(st.none() | st.lists(_headers, min_size=count, max_size=count))
    given_headers: Any = headers
    return Chunk(SOURCE, 1, range(100, 100 + count), values, keys=keys, headers=given_headers)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(
    st.data(),
    st.sampled_from(sorted(PLACEMENTS)),
    st.sampled_from([200, 200, 200, 201, 400, 401, 404, 409, 413, 422, 429, 500, 504, 299, 100, 302, 999]),
    st.none() | st.text(max_size=8),
    st.sets(st.integers(0, 5)),
    st.sampled_from([60, 300, 5_000_000]),
)
def test_any_record_ends_once_as_it_came_or_with_an_outcome_whatever_is_answered(  # noqa: PLR0917 (drawn by name)
    data: st.DataObject, placement: str, status: int, retry_after: str | None, failed: set[int], max_bytes: int
) -> None:
    made = PLACEMENTS[placement]
    source = data.draw(sources(made.name))
    ready = made.prepare(source, now_ms=1_000_000)
    items = [] if ready.settled is None else [Finished((ready.settled[0],), ready.settled[1])]
    limits = BatchLimits(1 if made.rules.single else 3, max_bytes, 1.0, made.envelope_bytes)
    for batch, body in bodies(made, ready, limits=limits):
        assert loads(body)
        assert batch.count == 1 or (batch.count <= 3 and len(body) <= max_bytes)
        said = data.draw(st.just(honest(batch, made, failed)) | _bodies)
        items += ends(batch, made, status, said, retry_after)

    outcomes = [json.loads(value) for item in items for each in SCRIBE.outcomes(item) for value in each.values]
    letters = [letter for item in items for letter in SCRIBE.dead_letters(item, now_ms=1_000_000)]

    where = Counter([outcome["offset"] for outcome in outcomes] + [offset_of(letter) for letter in letters])
    assert where == Counter(source.offsets)
    assert {outcome["status"] for outcome in outcomes} <= {"queued", "skipped"}
    for letter in letters:
        at = source.offsets.index(offset_of(letter))
        assert (letter.key, letter.value) == (source.key(at), source.values[at])
        told = dict(letter.headers)
        assert told["trackly.reason"]
        check_headers(source.header_list(at), letter.headers)
        without = without_value(letter, 3_000)
        assert offset_of(without) == offset_of(letter)
        assert dict(without.headers)["trackly.reason"] == told["trackly.reason"]


def offset_of(letter: DeadLetter) -> int:
    return int(dict(letter.headers)["__dlq.errors.offset"] or b"")


def check_headers(before: Headers, after: Headers) -> None:
    """Assert that foreign headers stay as they were, and that Kafka takes all of them."""
    ours = ("__connect.errors.", "__dlq.errors.", "trackly.")
    assert [one for one in after if not one[0].startswith(ours)] == [h for h in before if not h[0].startswith(ours)]
    assert all(name.encode() is not None and (value is None or isinstance(value, bytes)) for name, value in after)
