"""Which results count when progress is rebuilt: the stream's own, by the position of the record."""

import pickle
from functools import partial

from connector.core.chunks import Chunk, Headers, Partition
from connector.deadletters.jobs import Results, Wanted, find_in_letters, find_in_outcomes, find_records

SOURCE = Partition("source", 2)
WANTED = Wanted("send", frozenset({"sends", "old"}), frozenset({"beside"}), {SOURCE: 5})


def _outcomes(*values: str) -> Results:
    times = [1_000 + at for at in range(len(values))]
    chunk = Chunk(Partition("outcomes", 0), 0, range(len(values)), [v.encode() for v in values], timestamps=times)
    return pickle.loads(pickle.dumps(partial(find_in_outcomes, wanted=WANTED)))(iter([chunk]))  # type: ignore[no-any-return]


def _outcome(offset: int, *, stream: str = "sends", operation: str = "send", number: int = 2, more: str = "") -> str:
    return (
        f'{{"version":1,"status":"queued","stream":"{stream}","operation":"{operation}","topic":"source",'
        f'"partition":{number},"offset":{offset}{more}}}'
    )


def test_outcomes_count_by_name_and_operation_wherever_they_stand() -> None:
    found = _outcomes(
        _outcome(9),
        _outcome(8, stream="old"),
        _outcome(6),
        _outcome(9),
        "{",
        "",
        _outcome(10, operation="revenue"),
        _outcome(11, stream="beside"),
        _outcome(12, stream="unknown"),
        _outcome(13, number=0),
    )

    assert found.found == {SOURCE: [(6, 7), (8, 10)]}
    assert found.names == {"sends": 3, "old": 1, "unknown": 1}
    assert (found.first_ms, found.last_ms) == ({SOURCE: 1_000}, 1_003)


def test_results_of_records_that_are_gone_are_passed_over() -> None:
    assert _outcomes(_outcome(4)) == Results()


def test_evidence_settles_a_record_and_tells_nothing_of_when_the_stream_ran() -> None:
    found = _outcomes(_outcome(7, more=',"source":"evidence","decided_at":"2026-01-31T09:12:30.004Z"'))

    assert found.found == {SOURCE: [(7, 8)]}
    assert (found.first_ms, found.last_ms) == ({}, 0)


def test_dead_letters_count_by_where_the_record_was_read_and_foreign_ones_do_not() -> None:
    def place(topic: str, offset: int) -> Headers:
        return [
            ("__connect.errors.topic", topic.encode()),
            ("__connect.errors.partition", b"2"),
            ("__connect.errors.offset", b"%d" % offset),
        ]

    ours: Headers = [("trackly.stream", b"sends"), ("trackly.operation", b"send")]
    origin: Headers = [
        ("trackly.origin.topic", b"source"),
        ("trackly.origin.partition", b"2"),
        ("trackly.origin.offset", b"6"),
    ]
    rows: list[Headers | None] = [
        place("source", 9) + ours,
        place("sends.redrive", 30) + ours + origin,
        place("source", 7),
        None,
    ]
    chunk = Chunk(Partition("dead", 0), 0, range(4), [b"x"] * 4, headers=rows, timestamps=[1, 2, 3, 4])

    found = find_in_letters(iter([chunk]), wanted=WANTED)

    assert found.found == {SOURCE: [(9, 10)]}, "the origin's own result is another one"


def test_records_are_identified_by_their_offsets() -> None:
    chunks = [Chunk(SOURCE, 0, [3, 4, 8], [b""] * 3), Chunk(SOURCE, 0, [9], [b""])]

    assert find_records(iter(chunks)) == {SOURCE: [(3, 5), (8, 9), (9, 10)]}
