"""Patches (RFC 7396), and lines of JSON that preserve every byte."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.chunks import Headers
from connector.deadletters.lines import InvalidLineError, line_of, read_line
from connector.deadletters.patching import UnpatchableError, patched, read_patch
from tests.deadletters.making import letter

RFC_7396: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], {"a": "b"}, {"a": "b"}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]
"""The cases of the RFC's appendix whose patch is an object, which is what `--patch` takes."""


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396)
def test_a_patch_merges_as_the_rfc_says(target: Any, patch: dict[str, Any], result: Any) -> None:
    assert json.loads(patched(json.dumps(target).encode(), patch)) == result


def test_what_a_patch_does_not_name_keeps_its_bytes() -> None:
    value = b'{"id": 123456789012345678901234567890.10, "body":"Sch\\u00f6n", "to": "+1555"}'

    assert (
        patched(value, {"to": "+1666"}) == b'{"id":123456789012345678901234567890.10,"body":"Sch\\u00f6n","to":"+1666"}'
    )


@pytest.mark.parametrize("value", [b"", b"{", b"\xff", b'{"a":1} x'])
def test_what_is_no_json_takes_no_patch(value: bytes) -> None:
    with pytest.raises(UnpatchableError):
        patched(value, {"a": 1})


@pytest.mark.parametrize(
    ("text", "words"), [("{", "is not JSON"), ("[1]", "must be a JSON object"), ("", "is not JSON")]
)
def test_a_patch_that_is_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_patch(text)


_bytes = st.none() | st.binary(max_size=20) | st.text(max_size=10).map(str.encode)


@given(_bytes, _bytes, st.lists(st.tuples(st.text(max_size=8), _bytes), max_size=6), st.integers(0, 1 << 50))
def test_a_line_gives_back_every_byte(key: bytes | None, value: bytes | None, headers: Headers, at: int) -> None:
    line = line_of(letter(key=key, value=value, headers=headers, timestamp_ms=at))

    assert "\n" not in line
    back = read_line(line)
    assert (back.key, back.value, back.headers, back.timestamp_ms) == (key, value, headers, at)


@pytest.mark.parametrize(
    "change",
    [{"format": "x"}, {"key": {"base64": "?"}}, {"key": 1}, {"headers": [["a"]]}, {"partition": -1}, {"more": 1},
     {"value": "\ud800"}, {"headers": [["\ud800", "a"]]}, {"timestamp_ms": True}],
    ids=str,
)  # fmt: skip
def test_a_line_that_is_none_of_ours_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidLineError):
        read_line(json.dumps(json.loads(line_of(letter())) | change))
