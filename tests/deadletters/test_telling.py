"""A displayed dead letter reveals no phone number, text, key or address, unless all is revealed."""

import json
from typing import Any

import pytest

from connector.cli.dead_letters.showing import print_letters
from connector.deadletters.addresses import AddressBook
from connector.deadletters.evidence import groups_of
from connector.deadletters.letters import Letter
from connector.deadletters.telling import shown
from tests.deadletters.making import headers_of, letter

VALUE = {
    "n": 14155550123,
    "float": 14155550123.0,
    "bare": "14155550123",
    "small": 123456,
    "long": 1234567890123456,
    "price": 9.99,
    "+14155550124": 1,
    "14155550125": 2,
    "body": "Hello",
    "metadata": {"mail": "Alice <alice@example.com>", "carol@example.com": [14155550126]},
}


def _letter(key: bytes | None = b"alice@example.com", value: Any = VALUE) -> Letter:
    source: list[tuple[str, bytes | None]] = [
        ("customer", b"Alice Example"),
        ("bob@example.com", b"x"),
        ("null", None),
    ]
    headers = [*source, *headers_of("rejected"), ("trackly.code", b"no mailbox bob@example.com")]
    return letter(key=key, value=json.dumps(value).encode(), headers=headers)


def test_nothing_personal_is_shown_of_a_record() -> None:
    told = shown(_letter(), reveal=False)

    text = json.dumps(told)
    for hidden in ("alice", "bob", "carol", "example.com", "Hello", "1415555012"):
        assert hidden not in text, hidden
    assert told["key"] == "***"
    assert told["code"] == "no mailbox ***@***"
    assert told["headers"][:3] == [["customer", "***"], ["***@***", "***"], ["null", None]]
    assert ["trackly.reason", "rejected"] in told["headers"], "what tells of the failure is ours, and stays"
    assert told["value"] == {
        "n": "1415***0123",
        "float": "1415***0123",
        "bare": "1415***0123",
        "small": 123456,
        "long": 1234567890123456,
        "price": 9.99,
        "+1415***0124": 1,
        "1415***0125": 2,
        "body": "***",
        "metadata": {"mail": "Alice <***@***>", "***@***": ["1415***0126"]},
    }


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("06\u00a012\u00a034\u00a056\u00a078", "061***678"),
        ("555-123-4567x890", "555***567x890"),
        ("5551234567 ext. 12", "555***567 ext. 12"),
        ("2026-01-31T08:00:00Z", "2026-01-31T08:00:00Z"),
        ("6923a8f1234567x9", "6923a8f1234567x9"),
    ],
)
def test_a_number_is_hidden_as_people_write_it(text: str, masked: str) -> None:
    assert shown(_letter(value={"phone_2": text}), reveal=False)["value"] == {"phone_2": masked}


@pytest.mark.parametrize(
    ("timestamp_ms", "at"),
    [(0, "1970-01-01T00:00:00.000Z"), (-1, None), (253_402_300_799_000, "9999-12-31T23:59:59.000Z"), (1 << 51, None)],
)
def test_a_time_that_cannot_be_one_is_none(timestamp_ms: int, at: str | None) -> None:
    """Such as that of a producer that counts microseconds."""
    found = letter(headers=[("trackly.reason", b"in_doubt")], timestamp_ms=timestamp_ms)

    assert shown(found, reveal=False)["at"] == at
    assert [group.as_json()["from"] for group in groups_of([found], AddressBook())] == [at]


def test_a_record_without_a_key_is_distinguished_from_one_with_a_hidden_key() -> None:
    assert shown(_letter(key=None), reveal=False)["key"] is None


@pytest.mark.parametrize("value", [VALUE, [1]])
def test_everything_is_shown_where_that_is_asked_for(value: Any) -> None:
    told = shown(_letter(value=value), reveal=True)

    assert (told["key"], told["value"]) == ("alice@example.com", value)
    assert told["headers"][:2] == [["customer", "Alice Example"], ["bob@example.com", "x"]]


@pytest.mark.parametrize("levels", [101, 480, 900])
def test_a_value_that_is_nested_deeply_does_not_keep_others_from_being_shown(
    levels: int, capsys: pytest.CaptureFixture[str]
) -> None:
    value = b'{"a":' * levels + b"1" + b"}" * levels
    deep = letter(value=value, headers=headers_of())

    hidden, revealed = shown(deep, reveal=False)["value"], shown(deep, reveal=True)["value"]
    print_letters([deep, _letter()], reveal=False)

    assert (hidden, revealed) == (f"<{len(value)} bytes>", value.decode())
    assert "rejected" in capsys.readouterr().out


def test_a_column_that_no_listed_dead_letter_fills_takes_no_room(capsys: pytest.CaptureFixture[str]) -> None:
    """Ten columns leave none on a terminal of 80 enough room for a word."""
    bare, failed = letter(headers=[("trackly.reason", b"lost")]), letter(headers=headers_of())

    print_letters([bare], reveal=False)
    of_one = capsys.readouterr().out.splitlines()[1].split()
    print_letters([bare, failed], reveal=False)
    of_both = capsys.readouterr().out.splitlines()[1].split()

    assert of_one == ["position", "at", "reason", "redrives"]
    assert of_both == [
        *("position", "at", "stream", "reason", "code", "text", "status", "attempts", "redrives", "source")
    ]
