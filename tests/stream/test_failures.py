"""The latest kinds of failures: one entry each, with the first record of the last batch, and a limit."""

from collections.abc import Mapping

from connector.core.chunks import Chunk, Partition
from connector.core.results import Finished
from connector.core.verdicts import QUEUED, Verdict, Verdicts
from connector.stream.failures import KEPT, Failures

BAD = Verdict("dead_letter", "invalid_phone", code="invalid_phone", text="no number: +15557654321", http_status=200)


def _item(verdicts: Verdicts, *offsets: list[int]) -> Finished:
    chunks = tuple(Chunk(Partition("t", n), 0, there, [b""] * len(there)) for n, there in enumerate(offsets))
    return Finished(chunks, verdicts)


def _note(failures: Failures, default: Verdict, exceptions: Mapping[int, Verdict], *offsets: list[int]) -> None:
    item = _item(Verdicts(default, exceptions), *offsets)
    failures.note(item, item.reasons())


def test_a_failure_says_where_its_first_record_stands_and_how_many_there_were() -> None:
    failures = Failures()
    _note(failures, QUEUED, {3: BAD, 4: BAD}, [10, 11], [20, 21, 22])

    (told,) = failures.status(lambda text: text.upper())

    assert (told["position"], told["count"], told["reason"]) == ("t:1:21", 2, "invalid_phone")
    assert told["text"] == "NO NUMBER: +15557654321", "texts pass what hides numbers"


def test_a_batch_that_fails_as_a_whole_is_one_entry() -> None:
    """And a record in it that did not fail is not taken for its first."""
    failures = Failures()
    _note(failures, BAD, {0: QUEUED}, [10, 11, 12])

    (told,) = failures.status(str)

    assert (told["position"], told["count"]) == ("t:0:11", 2)


def test_a_repeated_kind_is_counted_and_listed_first() -> None:
    failures = Failures()
    other = Verdict("dead_letter", "missing_body")
    _note(failures, QUEUED, {0: BAD}, [1])
    _note(failures, QUEUED, {0: other}, [2])
    _note(failures, QUEUED, {0: BAD}, [3])

    told = failures.status(str)

    assert [(one["reason"], one["count"], one["position"]) for one in told] == [
        ("invalid_phone", 2, "t:0:3"),
        ("missing_body", 1, "t:0:2"),
    ]


def test_codes_without_bound_do_not_grow_it() -> None:
    failures = Failures()
    for number in range(5 * KEPT):
        _note(failures, QUEUED, {0: Verdict("dead_letter", "refused", code=f"code {number}")}, [number])

    told = failures.status(str)

    assert len(told) == KEPT
    assert told[0]["code"] == f"code {5 * KEPT - 1}"
