from collections import Counter

import orjson
import pytest

from connector.demo.events import BAD, QUEUED, SKIPPED, Event, Events, reference_of


def test_a_seed_yields_the_same_events_each_time() -> None:
    assert list(Events(2_000, seed=5)) == list(Events(2_000, seed=5))


def test_another_seed_yields_other_events() -> None:
    one, other = list(Events(2_000, seed=5)), list(Events(2_000, seed=6))

    assert not {event.key for event in one} & {event.key for event in other}
    assert [event.expected for event in one] != [event.expected for event in other]


@pytest.mark.parametrize(("count", "tombstones"), [(0, 0), (1, 1), (999, 0), (5_000, 7)])
def test_totals_are_what_is_yielded(count: int, tombstones: int) -> None:
    events = Events(count, seed=1, tombstones=tombstones)

    totals = events.totals()

    assert {reason: number for reason, number in totals.items() if number} == Counter(e.expected for e in events)


def test_one_percent_is_bad_in_ten_ways_equally_often() -> None:
    totals = Events(10_000).totals()

    assert len(BAD) == 10
    assert totals == {QUEUED: 9_900} | dict.fromkeys(BAD, 10)


def test_more_special_events_than_events_are_refused() -> None:
    with pytest.raises(ValueError, match="of 10 events"):
        Events(10, bad_share=0.5, tombstones=6)


def test_every_event_has_a_reference_of_its_own_in_key_and_text() -> None:
    events = list(Events(3_000, bad_share=0))

    texts = [orjson.loads(event.value or b"")["body"] for event in events]

    assert len(set(texts)) == len(events)
    assert [reference_of(text) for text in texts] == [event.key for event in events]


def test_plain_events_have_about_105_bytes_and_some_carry_contact_data() -> None:
    sizes = {True: [0], False: [0]}
    for event in Events(5_000, bad_share=0):
        value = event.value or b""
        sizes[b"contact_data" in value].append(len(value))

    assert 100 <= max(sizes[False]) <= 110
    assert 0.05 < len(sizes[True]) / 5_000 < 0.15


def _first(reason: str) -> Event:
    return next(event for event in Events(1_000, bad_share=0.02, tombstones=1) if event.expected == reason)


def test_bad_events_are_bad_in_the_way_they_say() -> None:
    """Each kind is wrong in one respect alone, so that no other reason would fit it as well."""
    values = {reason: _first(reason).value or b"" for reason in BAD}

    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(values["not_json"])
    assert orjson.loads(values["not_json"] + b"}").keys() == {"to", "body"}
    with pytest.raises(UnicodeDecodeError):
        values["not_utf8"].decode()
    assert orjson.loads(values["not_utf8"].decode("latin-1")).keys() == {"to", "body"}
    assert isinstance(orjson.loads(values["not_an_object"]), list)
    assert isinstance(orjson.loads(values["wrong_type"])["body"], dict)
    assert orjson.loads(values["missing_to"]).keys() == {"body"}
    assert orjson.loads(values["missing_body"]).keys() == {"to"}
    assert not orjson.loads(values["invalid_phone"])["to"].startswith("+")
    assert not orjson.loads(values["invalid_list_number"])["list_number"].startswith("+")
    assert orjson.loads(values["not_sendable"])["to"].endswith("9999999")
    assert orjson.loads(values["list_not_found"])["list_number"].startswith("+")


def test_tombstones_have_no_value() -> None:
    assert _first(SKIPPED).value is None
