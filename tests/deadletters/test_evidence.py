"""What evidence says of records in doubt, and what it cannot say."""

from typing import Any

import pytest

from connector.core.chunks import Headers
from connector.deadletters.addresses import AddressBook
from connector.deadletters.evidence import (
    NEAR_MS,
    SAME_CRASH_MS,
    Event,
    event_of,
    groups_of,
    read_numbers,
    split,
    without,
)
from connector.deadletters.letters import CLOCKS_MS, Letter
from tests.deadletters.making import NOW_MS, SETTINGS, headers_of, letter


def doubted(at: int, number: str, *, batch: bool = True, timestamp_ms: int = NOW_MS, more: str = "") -> Letter:
    headers = headers_of("in_doubt", offset=at, now_ms=timestamp_ms)
    if not batch:
        gone = ("trackly.batch_id", "trackly.index", "trackly.attempts", "trackly.sent_at")
        headers = [header for header in headers if header[0] not in gone]
    value = f'{{"to":"{number}","body":"Hello"{more}}}'.encode()
    return letter(at=at, value=value, headers=headers, timestamp_ms=timestamp_ms)


def posted_again(first: Letter, *, at: int, at_ms: int) -> Letter:
    """Return the dead letter of a record that was sent again and is in doubt anew."""
    (topic, number), offset = first.origin
    places = (topic.encode(), b"%d" % number, b"%d" % offset)
    names = ("trackly.origin.topic", "trackly.origin.partition", "trackly.origin.offset")
    source: Headers = [*zip(names, places, strict=True), ("trackly.redrives", b"1")]
    headers = headers_of("in_doubt", topic="sends.redrive", source=source, now_ms=at_ms)
    return letter(at=at, value=first.value, headers=headers, timestamp_ms=at_ms)


def findings(letters: list[Letter], events: list[Event], **told: Any) -> list[str]:
    found = split(groups_of(letters, AddressBook(SETTINGS)), events, **told)
    return [found[one.position] for one in letters]


def test_who_has_the_text_was_accepted_and_who_has_not_gets_it() -> None:
    letters = [doubted(0, "+1555"), doubted(1, "+1556")]

    assert findings(letters, [Event("+1555")]) == ["accepted", "redrive"]


def test_a_number_that_stands_twice_stays_in_doubt_where_one_of_the_two_was_taken() -> None:
    twice = [doubted(0, "+1555"), doubted(1, "+1555"), doubted(2, "+1556"), doubted(3, "+1556")]

    assert findings(twice, [Event("+1555")]) == ["still_in_doubt", "still_in_doubt", "redrive", "redrive"]


def test_a_record_without_a_number_stays_in_doubt() -> None:
    assert findings([letter("in_doubt", value=b"[]")], [Event("+1555")]) == ["still_in_doubt"]


@pytest.mark.parametrize(
    ("event", "found"),
    [
        (Event("+1555", None, NOW_MS), "accepted"),
        (Event("+1555", None, NOW_MS - 60_000), "still_in_doubt"),  # clocks may differ by a minute
        (Event("+1555", None, NOW_MS - 60_001), "redrive"),  # of an earlier text: the request began later
        (Event("+1555", "+18005551234", NOW_MS), "accepted"),
        (Event("+1555", "+18005550000", NOW_MS), "redrive"),  # of another list
        (Event("+1555", "+18005550000"), "redrive"),
    ],
)
def test_an_event_counts_by_its_time_and_list(event: Event, found: str) -> None:
    assert findings([doubted(0, "+1555", more=',"list_number":"+18005551234"')], [event]) == [found]


@pytest.mark.parametrize(
    ("event", "found"),
    [
        (Event("+1555", "+18005551234", NOW_MS), "accepted"),
        (Event("+1555", "+18005550000", NOW_MS), "still_in_doubt"),
        (Event("+1555", "+18005550000"), "still_in_doubt"),
        (Event("+1555", "+18005550000", NOW_MS - CLOCKS_MS - 1), "redrive"),
    ],
)
def test_where_the_settings_name_the_list_an_event_of_another_one_leaves_a_record_in_doubt(
    event: Event, found: str
) -> None:
    """They may have been changed since it was posted, as after a hold for a list that was not verified."""
    assert findings([doubted(0, "+1555")], [event]) == [found]


def test_where_nobody_knows_the_list_of_a_record_an_event_of_any_list_is_of_it() -> None:
    """As for the dead letters of a stream that is no longer in the settings."""
    one = letter(value=doubted(0, "+1555").value, headers=headers_of("in_doubt", stream="former"))

    assert findings([one], [Event("+1555", "+18005550000", NOW_MS)]) == ["accepted"]


def test_no_number_is_known_to_stand_once_while_the_number_of_any_record_is_unknown() -> None:
    unknown = letter(at=9, headers=[*headers_of("in_doubt", offset=9), ("trackly.value_omitted", b"true")])

    found = findings([doubted(0, "+1555"), doubted(1, "+1556"), unknown], [Event("+1555")])

    assert found == ["still_in_doubt", "redrive", "still_in_doubt"]
    [group] = groups_of([unknown], AddressBook(SETTINGS))
    assert (group.as_json()["list_number"], group.as_json()["no_event"]) == (None, {"value_omitted": 1})


def test_where_no_header_tells_of_the_post_an_event_counts_within_a_window() -> None:
    letters = [doubted(0, "+1555", batch=False)]

    assert findings(letters, [Event("+1555", None, NOW_MS - 900_000)], window_ms=900_000) == ["accepted"]
    assert findings(letters, [Event("+1555", None, NOW_MS - 900_001)], window_ms=900_000) == ["still_in_doubt"]
    assert findings(letters, [Event("+1555", None, NOW_MS - 960_001)], window_ms=900_000) == ["redrive"]


@pytest.mark.parametrize("resent", [False, True])
@pytest.mark.parametrize(
    ("age_ms", "found"),
    [(0, "accepted"), (NEAR_MS, "accepted"), (NEAR_MS + 1, "still_in_doubt"), (30 * 86_400_000, "still_in_doubt")],
)
def test_where_nobody_says_how_long_ago_a_post_may_be_no_event_is_too_old_to_be_its_own(
    age_ms: int, found: str, *, resent: bool
) -> None:
    """No worker may have run for days, or a hold have lasted for weeks, before the dead letter was written."""
    one = doubted(0, "+1555", batch=resent)
    headers = [*one.headers, *([("trackly.resent", b"true")] if resent else [])]

    assert findings([letter(value=one.value, headers=headers)], [Event("+1555", None, NOW_MS - age_ms)]) == [found]


def test_an_older_event_of_another_number_or_list_leaves_nothing_in_doubt() -> None:
    events = [Event("+1556", None, NOW_MS - NEAR_MS - 1), Event("+1555", "+18005550000", NOW_MS - NEAR_MS - 1)]
    own = ',"list_number":"+18005551234"'

    assert findings([doubted(0, "+1555", batch=False, more=own)], events) == ["redrive"]


@pytest.mark.parametrize(
    ("batch", "told", "found"),
    [
        (True, {"complete_from_ms": NOW_MS - CLOCKS_MS}, "redrive"),
        (True, {"complete_from_ms": NOW_MS - CLOCKS_MS + 1}, "still_in_doubt"),
        (False, {"complete_from_ms": 0}, "still_in_doubt"),
        (False, {"complete_from_ms": NOW_MS - CLOCKS_MS - 5_000, "window_ms": 5_000}, "redrive"),
        (False, {"complete_from_ms": NOW_MS - CLOCKS_MS - 4_999, "window_ms": 5_000}, "still_in_doubt"),
    ],
)
def test_what_no_event_names_is_sent_again_only_if_none_is_missing_since_it_may_have_been_posted(
    batch: bool, told: dict[str, int], found: str
) -> None:
    """Retention may have removed the event that names it."""
    one = doubted(0, "+1555", batch=batch)

    assert findings([one], [], **told) == [found]
    assert findings([one], [Event("+1555", None, NOW_MS)], **told) == ["accepted"]


def test_a_record_is_sent_again_only_if_that_is_certain_of_each_of_its_dead_letters() -> None:
    first, again = doubted(5, "+1555", batch=False), posted_again(doubted(5, "+1555"), at=9, at_ms=NOW_MS)

    assert findings([first, again], [Event("+1555", None, NOW_MS - NEAR_MS - 1)]) == ["still_in_doubt"] * 2
    assert findings([first, again], [], complete_from_ms=NOW_MS - 600_000) == ["still_in_doubt"] * 2
    assert findings([again], [], also=[doubted(5, "+1555")], complete_from_ms=NOW_MS - 600_000) == ["redrive"]


def test_a_record_whose_earlier_dead_letter_is_gone_is_sent_again_only_if_no_event_is_older_than_its_post() -> None:
    """The text of such an event may be its own, posted the time before."""
    first, older = doubted(5, "+1555"), Event("+1555", None, NOW_MS + 1_000)
    again = posted_again(first, at=9, at_ms=NOW_MS + 600_000)
    refused = letter("provider_error", offset=5)

    assert findings([again], [older]) == ["still_in_doubt"]
    assert findings([again], [older], also=[refused]) == ["redrive"]
    assert findings([again], [Event("+1556")]) == ["redrive"]
    assert findings([again], [Event("+1555", None, NOW_MS + 600_000)]) == ["accepted"]


def test_an_event_that_is_surely_of_the_request_counts_whatever_else_there_is() -> None:
    events = [Event("+1555", None, NOW_MS + at) for at in (-60_001, -1, 0)]

    assert findings([doubted(0, "+1555")], events) == ["accepted"]


def test_a_copy_that_was_written_later_is_in_doubt_since_it_failed() -> None:
    """What is parked bears the time at which it was, days after the text may have gone out."""
    failed = doubted(0, "+1555", batch=False)
    parked = letter(value=failed.value, headers=failed.headers, timestamp_ms=NOW_MS + 172_800_000)

    assert findings([parked], [Event("+1555", None, NOW_MS - 60_000)]) == ["accepted"]
    assert groups_of([parked], AddressBook(SETTINGS))[0].first_ms == NOW_MS


def test_of_a_record_that_was_posted_again_an_event_of_the_earlier_post_counts_too() -> None:
    """With `in_doubt: resend` only the last post is told, and the first may be the one that was taken."""
    once = doubted(0, "+1555")
    resent = letter(value=once.value, headers=[*once.headers, ("trackly.resent", b"true")])

    assert findings([resent], [Event("+1555", None, NOW_MS - 60_000)]) == ["accepted"]
    assert findings([resent], [Event("+1555", None, NOW_MS - 960_001)], window_ms=900_000) == ["redrive"]


def test_what_speaks_of_one_dead_letter_of_a_record_speaks_of_the_record() -> None:
    """It was sent again while nobody knew, and is in doubt anew: whoever got the first text is not to get a third."""
    first = doubted(5, "+1555")
    again = posted_again(first, at=9, at_ms=NOW_MS + 600_000)

    assert findings([first, again], [Event("+1555", None, NOW_MS + 1_000)]) == ["accepted", "accepted"]
    assert findings([first, again, doubted(6, "+1555")], [Event("+1555")]) == ["still_in_doubt"] * 3
    assert findings([first, again], [Event("+1556")]) == ["redrive", "redrive"]


def test_each_crash_is_a_group_and_each_lost_answer_another() -> None:
    letters = [
        doubted(0, "+1", batch=False),
        doubted(1, "+2", batch=False, timestamp_ms=NOW_MS + 30_000),
        doubted(2, "+3", batch=False, timestamp_ms=NOW_MS + 500_000),
        doubted(3, "+4"),
        doubted(4, "+5", batch=False, more=',"list_number":"+18005550000"'),
    ]

    told = [
        (group.batch_id, group.worker, group.list_number, len(group.letters))
        for group in groups_of(letters, AddressBook(SETTINGS))
    ]

    assert sorted(told, key=str) == sorted(
        [
            (None, None, "+18005551234", 2),
            ("worker-0-6923a8f1-4c", "worker-0", "+18005551234", 1),
            (None, None, "+18005550000", 1),
            (None, None, "+18005551234", 1),
        ],
        key=str,
    )


def test_a_crash_whose_dead_letters_are_written_bit_by_bit_is_one_group_until_none_follows_for_a_while() -> None:
    times = [0, SAME_CRASH_MS, 2 * SAME_CRASH_MS, 3 * SAME_CRASH_MS + 1]
    letters = [doubted(at, "+1", batch=False, timestamp_ms=NOW_MS + ms) for at, ms in enumerate(times)]

    groups = groups_of(letters, AddressBook(SETTINGS))

    assert [(group.first_ms - NOW_MS, group.last_ms - NOW_MS) for group in groups] == [
        (0, 2 * SAME_CRASH_MS),
        (3 * SAME_CRASH_MS + 1, 3 * SAME_CRASH_MS + 1),
    ]


def test_records_of_one_lost_answer_are_one_group_however_far_apart_their_dead_letters_were_written() -> None:
    letters = [doubted(at, "+1", timestamp_ms=NOW_MS + at * 86_400_000) for at in range(2)]

    assert [len(group.letters) for group in groups_of(letters, AddressBook(SETTINGS))] == [2]


def test_each_stream_and_each_description_of_a_failure_is_a_group() -> None:
    """Even where a crash left them in doubt together: each stream may have its own `delivery.in_doubt`."""
    own = doubted(0, "+1", batch=False)
    others = [
        letter(at=1, value=own.value, headers=[*own.headers, ("trackly.stream", b"refunds")]),
        letter(at=2, value=own.value, headers=[*own.headers, ("trackly.text", b"the worker was fenced")]),
    ]

    groups = groups_of([own, *others], AddressBook(SETTINGS))

    assert {(group.stream, group.detail) for group in groups} == {
        ("sends", "as the platform says"),
        ("refunds", "as the platform says"),
        ("sends", "the worker was fenced"),
    }


def test_without_what_was_settled_since_a_group_has_the_rest_with_their_findings_and_none_is_empty() -> None:
    letters = [doubted(0, "+1555", batch=False), doubted(1, "+1556", batch=False), doubted(2, "+1557")]
    groups = groups_of(letters, AddressBook(SETTINGS))
    found = split(groups, [Event("+1556")])

    left = without(groups, {letters[0].place, letters[2].place}, found)

    assert [([letter.offset for letter, _ in group.letters], group.findings) for group in left] == [
        ([1], {"accepted": 1})
    ]
    assert left[0].as_json() == {**groups[0].as_json(), "count": 1, "findings": {"accepted": 1}}
    assert [group.findings for group in without(groups, (), {})] == [{}, {}]


@pytest.mark.parametrize(
    ("value", "event"),
    [
        (
            {"event": "delivery", "to": "+1", "status": "rejected", "timestamp": "2026-01-31T08:00:00.123Z"},
            Event("+1", None, NOW_MS),
        ),
        ({"event": "delivery", "to": "+1", "timestamp": "late", "list_number": "+2"}, Event("+1", "+2", None)),
        ({"event": "reply", "to": "+1"}, None),
        ({"event": "delivery"}, None),
        ([], None),
    ],
)
def test_any_delivery_event_shows_that_the_platform_took_it(value: Any, event: Event | None) -> None:
    assert event_of(value) == event


def test_a_file_of_numbers_has_one_a_line() -> None:
    assert read_numbers(["# ours", "+15550000001", "", " +15550000002 "]) == [
        Event("+15550000001"),
        Event("+15550000002"),
    ]
    for bad in ("5550000002", "+0550000002", "+1", "+1555000000200000"):
        with pytest.raises(ValueError, match="line 2 is no phone number"):
            read_numbers(["+15550000001", bad])
