"""List and number of a dead letter are those of its event, which its stream may have shaped."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from connector.config.load import load_settings
from connector.config.settings import Settings
from connector.deadletters.addresses import Address, AddressBook
from connector.deadletters.evidence import Event, groups_of, split
from connector.deadletters.letters import Letter
from connector.deadletters.selection import Criteria, Seen
from connector.hooks import Records
from tests.deadletters.making import headers_of, letter

MAPPING: Final = {"fields": {"to": "value.phone", "body": {"template": "Hi"}}, "list_number": "value.list"}


def _settings(folder: Path, stream: Mapping[str, Any], **more: Any) -> Settings:
    smallest = {
        "name": "sends",
        "topics": ["sms", "other"],
        "operation": "send",
        "list_number": "+18005551234",
        "outcomes": {"topic": "o"},
        "dead_letters": {"topic": "d"},
    }
    file = folder / "connector.yaml"
    kafka, trackly = {"bootstrap_servers": "b:9092"}, {"api_key": "k"}
    file.write_text(yaml.safe_dump({"kafka": kafka, "trackly": trackly, "streams": [{**smallest, **stream}], **more}))
    return load_settings(file)


def _letter(value: Any, *, at: int = 0, topic: str = "sms", stream: str = "sends") -> Letter:
    raw = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return letter(at=at, value=raw, headers=headers_of("in_doubt", topic=topic, stream=stream, offset=at))


def transform(records: Records) -> list[Any]:
    """Return events, as a function of a stream's own does; it fails for values without `tel`."""
    return [{"to": value["tel"], "body": "Hi"} for value in records.values]


SOURCE: Final = {"to": "+1555", "list_number": "+18005550000", "phone": "+1666", "list": "+18005559999", "tel": "+1777"}


@pytest.mark.parametrize(
    ("stream", "address"),
    [
        ({}, Address("+18005550000", "+1555", names_list=True)),
        ({"mapping": {"when": "value.to"}}, Address("+18005550000", "+1555")),
        ({"mapping": MAPPING}, Address("+18005559999", "+1666")),
        ({"mapping": {"fields": MAPPING["fields"]}}, Address("+18005551234", "+1666")),
        ({"overrides": [{"topics": ["other"], "mapping": MAPPING}]}, Address("+18005550000", "+1555")),
        ({"overrides": [{"topics": ["sms"], "mapping": MAPPING}]}, Address("+18005559999", "+1666")),
        ({"transform": f"{__name__}:transform"}, Address("+18005551234", "+1777")),
        ({"mapping": MAPPING | {"when": "value.nothing"}}, Address(None, None, "filtered")),
        ({"mapping": {"fields": {"to": "sum(value.to)", "body": "value.x"}}}, Address(None, None, "mapping_failed")),
    ],
    ids=str,
)
def test_list_and_number_are_those_of_the_event(tmp_path: Path, stream: Any, address: Address) -> None:
    with AddressBook(_settings(tmp_path, stream)) as book:
        assert book.of(_letter(SOURCE)) == address


def test_of_what_no_event_can_be_made_now_a_list_may_be_known_another_time(tmp_path: Path) -> None:
    values = [SOURCE, SOURCE | {"words": ["Hi"]}, SOURCE | {"words": ["Hi"], "list": "+18005550000"}]
    rows = [_letter(value, at=at) for at, value in enumerate(values)]
    mapping = MAPPING | {"fields": {"to": "value.phone", "body": "join('', value.words)"}}
    settings = _settings(tmp_path, {"mapping": mapping})
    criteria = Criteria(list_numbers=frozenset({"+18005559999"}), reasons=frozenset({"in_doubt"}), settings=settings)

    with criteria.judging(Seen()) as (matches, may_yet_match):
        assert matches is not None
        told = [(matches(row), may_yet_match(row)) for row in rows]

    assert told == [(False, True), (True, False), (False, False)]


def test_a_stream_that_is_not_in_the_settings_has_its_values_for_events(tmp_path: Path) -> None:
    with AddressBook(_settings(tmp_path, {"mapping": MAPPING})) as book:
        assert book.of(_letter(SOURCE, stream="gone")) == Address("+18005550000", "+1555")
        assert book.of(_letter({"to": 5}, stream="gone")) == Address(None, None)


def test_a_cloudevent_is_opened(tmp_path: Path) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/x", "type": "t", "data": SOURCE}

    with AddressBook(_settings(tmp_path, {"format": "cloudevents"})) as book:
        assert book.of(_letter(event)) == Address("+18005550000", "+1555")


def test_dead_letters_without_an_event_are_counted_by_why(tmp_path: Path) -> None:
    omitted = letter(value=None, headers=[*headers_of("in_doubt"), ("trackly.value_omitted", b"5 bytes")])
    settings = _settings(tmp_path, {"mapping": MAPPING, "transform": f"{__name__}:transform"})

    with AddressBook(settings) as book:
        for each in (_letter(b"{"), _letter({}), _letter({}), omitted):
            assert (book.of(each).list_number, book.of(each).number) == (None, None)

    assert book.no_event == {"not_json": 2, "transform_failed": 4, "value_omitted": 2}


@pytest.mark.parametrize("stream", ["sends", "gone"])
def test_whom_a_value_was_for_that_is_not_there_is_not_known(tmp_path: Path, stream: str) -> None:
    """Its event may have named another list than the stream's, and evidence may be of its number."""
    headers = [*headers_of("in_doubt", stream=stream), ("trackly.value_omitted", b"5 bytes")]

    with AddressBook(_settings(tmp_path, {})) as book:
        groups = groups_of([letter(value=None, headers=headers), _letter(SOURCE, at=1, stream=stream)], book)
        found = split(groups, [Event("+1555")])

    assert book.no_event == {"value_omitted": 1}
    assert set(found.values()) == {"still_in_doubt"}


def test_a_registry_that_is_away_is_waited_for_once(tmp_path: Path) -> None:
    registry = {"url": "http://127.0.0.1:9", "timeout_secs": 1}
    settings = _settings(tmp_path, {"format": "avro"}, schema_registry=registry)
    framed = b"\x00\x00\x00\x00\x07\x02a"

    with AddressBook(settings) as book:
        for at in range(100):  # each would wait, and the test's own time would not do
            assert book.of(_letter(framed, at=at)) == Address(None, None, "schema_registry")


def test_a_filter_by_list_goes_to_other_processes_with_its_streams(tmp_path: Path) -> None:
    settings = _settings(tmp_path, {"mapping": MAPPING})
    sent = Criteria(list_numbers=frozenset({"+18005559999"}), settings=settings)
    criteria: Criteria = pickle.loads(pickle.dumps(sent))
    seen = Seen()

    with criteria.judging(seen) as (matches, _):
        assert matches is not None
        assert [matches(_letter(value)) for value in (SOURCE, {"phone": "+1", "list": "+18005550000"}, b"[")] == [
            True,
            False,
            False,
        ]
    assert seen.no_event == {"not_json": 1}


def test_evidence_is_about_the_numbers_of_events(tmp_path: Path) -> None:
    letters = [_letter({"phone": phone, "to": "+1000"}, at=at) for at, phone in enumerate(["+1555", "+1556", "+1556"])]

    with AddressBook(_settings(tmp_path, {"mapping": MAPPING})) as book:
        groups = groups_of(letters, book)
    found = split(groups, [Event("+1555"), Event("+1556"), Event("+1000")], window_ms=900_000)

    assert [found[one.position] for one in letters] == ["accepted", "still_in_doubt", "still_in_doubt"]


def test_where_a_number_is_not_known_any_number_may_stand_twice(tmp_path: Path) -> None:
    """Evidence of +1555 may be of the record that cannot be read; what no evidence names is sent again all the same."""
    letters = [_letter({"phone": "+1555"}, at=0), _letter({"phone": "+1556"}, at=1), _letter(b"{", at=2)]

    with AddressBook(_settings(tmp_path, {"mapping": MAPPING})) as book:
        groups = groups_of(letters, book)
    found = split(groups, [Event("+1555")], window_ms=900_000)

    assert [found[one.position] for one in letters] == ["still_in_doubt", "redrive", "still_in_doubt"]
    assert [group.as_json().get("no_event") for group in groups] == [None, {"not_json": 1}]
