"""What is shown of a dead letter gives away no phone number, text, key or address, unless all is revealed."""

import json
from typing import Any

import pytest

from connector.deadletters.letters import Letter
from connector.deadletters.telling import shown
from connector.stream.holds import fit_to_show
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
    told = shown(_letter(), hide=fit_to_show)

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


def test_a_record_without_a_key_is_told_from_one_whose_key_is_hidden() -> None:
    assert shown(_letter(key=None), hide=fit_to_show)["key"] is None


@pytest.mark.parametrize("value", [VALUE, [1]])
def test_everything_is_shown_where_that_is_asked_for(value: Any) -> None:
    told = shown(_letter(value=value), hide=None)

    assert (told["key"], told["value"]) == ("alice@example.com", value)
    assert told["headers"][:2] == [["customer", "Alice Example"], ["bob@example.com", "x"]]
