"""Every property of a dead letter has a value, whoever wrote it and whatever its headers contain."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.chunks import Chunk, Headers, Partition
from connector.core.records import DeadLetter
from connector.deadletters.headers import parked_headers, redriven_fits, redriven_headers
from connector.deadletters.letters import Facts, Letter, letters_of
from connector.deadletters.selection import document_of
from tests.deadletters.making import NOW_MS, connect_headers, headers_of, letter

CONNECT = connect_headers()

_names = st.text(max_size=6) | st.sampled_from(
    [name for name, _ in [*headers_of(), *CONNECT]] + ["trackly.redrives", "trackly.resent", "a\0b"]
)
_headers = st.lists(st.tuples(_names, st.none() | st.binary(max_size=8) | st.just(b"12")), max_size=8)


def test_one_of_kafka_connect_tells_what_it_can() -> None:
    found = letter(headers=CONNECT)

    assert (found.reason, found.text, found.stream, found.code) == ("DataException", "no schema", None, None)
    assert found.origin == (Partition("orders", 3), 42)


def test_one_without_headers_is_known_by_its_own_place() -> None:
    found = letter(headers=[], at=9)

    assert (found.reason, found.source, found.origin) == ("unknown", None, (Partition("dead", 0), 9))


@given(_headers, st.none() | st.binary(max_size=20))
def test_nothing_that_headers_hold_stops_a_reader(headers: Headers, value: bytes | None) -> None:
    chunk = Chunk(Partition("dead", 0), 0, [1], [value], headers=[headers], timestamps=[5])

    (found,) = letters_of(chunk)

    document_of(found)
    redriven_headers(found)
    parked_headers(found, "note", now_ms=5)
    assert all(found.facts.get(name) == dict(headers).get(name) for name, _ in headers)


_foreign = st.tuples(st.sampled_from(["trace", "tenant", "", "a\0b", "Trackly.x"]), st.none() | st.binary(max_size=5))


@given(st.lists(_foreign, max_size=5), st.integers(1, 4))
def test_what_is_sent_again_keeps_foreign_headers_in_order_its_origin_and_a_count(foreign: Headers, times: int) -> None:
    """A record that fails again and again carries as many headers as after the first time."""
    sizes = set()
    source: Headers = foreign
    for at in range(times):
        headers = headers_of(topic="sms" if at == 0 else "sends.redrive", offset=7 + at, source=source)
        again = redriven_headers(letter(headers=headers))
        sizes.add(len(again))
        source = again

    ours = dict(source[len(foreign) :])
    assert source[: len(foreign)] == foreign
    assert ours == {
        "trackly.origin.topic": b"sms",
        "trackly.origin.partition": b"0",
        "trackly.origin.offset": b"7",
        "trackly.redrives": b"%d" % times,
    }
    assert len(sizes) == 1


_large = st.lists(st.tuples(_names | st.text(max_size=800), st.none() | st.binary(max_size=300)), max_size=8)


@given(_large, st.none() | st.binary(max_size=200), st.integers(-2_500, 2_500))
def test_what_fits_a_topic_is_decided_by_the_full_size_of_a_record(
    headers: Headers, value: bytes | None, more: int
) -> None:
    found = letter(headers=headers)
    size = DeadLetter(0, found.key, value, redriven_headers(found)).size

    assert redriven_fits(found, value, size + more) is (more >= 0)


def test_a_parked_dead_letter_keeps_all_that_was_said_and_is_no_larger_the_second_time() -> None:
    first = letter()
    once = parked_headers(first, "look later", now_ms=NOW_MS)
    twice = parked_headers(letter(headers=once), "again", now_ms=NOW_MS)

    assert once[: len(first.headers)] == first.headers
    assert (len(twice), dict(twice)["trackly.parked_note"]) == (len(once), b"again")


def test_the_time_of_a_failure_comes_from_its_headers_and_is_never_later_than_the_timestamp() -> None:
    assert letter(timestamp_ms=NOW_MS + 5).failed_ms == NOW_MS
    assert letter(timestamp_ms=NOW_MS - 5).failed_ms == NOW_MS - 5
    assert letter(headers=[("trackly.failed_at", b"then")], timestamp_ms=5).failed_ms == 5


@pytest.mark.parametrize("headers", [CONNECT, headers_of()])
def test_a_parked_dead_letter_tells_when_it_failed(headers: Headers) -> None:
    first = letter(headers=headers)

    parked = parked_headers(first, "", now_ms=NOW_MS + 5_000)

    assert letter(headers=parked, timestamp_ms=NOW_MS + 5_000).failed_ms == NOW_MS


def test_what_may_have_been_taken_is_known_by_its_reason_or_by_having_been_posted_twice() -> None:
    assert letter("in_doubt").may_be_taken
    assert letter(headers=[*headers_of("server_error"), ("trackly.resent", b"true")]).may_be_taken
    assert not letter("server_error").may_be_taken


def test_two_records_with_the_same_names_in_another_order_are_distinguished() -> None:
    one = Letter(Partition("t", 0), 0, 0, None, None, Facts([("a", b"1"), ("b", b"2")]))
    other = Letter(Partition("t", 0), 0, 0, None, None, Facts([("b", b"1"), ("a", b"2")]))

    assert (one.facts.get("a"), other.facts.get("a")) == (b"1", b"2")
