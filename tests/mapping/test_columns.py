"""What a mapping sees of records beside their values, as columns."""

from typing import Any, Final

import pytest

from connector.core.chunks import Chunk, Headers, Partition
from connector.mapping.columns import Columns
from connector.mapping.expressions import ROOTS

KEYS: Final[list[bytes | None]] = [b"a", b"b", b"c"]
HEADERS: Final[list[Headers | None]] = [[("h", b"1")], None, [("h", b"3")]]
ATTRIBUTES: Final = [{"id": "1"}, None, {"id": "3"}]


def columns(
    values: list[Any],
    *,
    keys: list[bytes | None] | None = None,
    headers: list[Headers | None] | None = None,
    timestamps: list[int] | None = None,
    attributes: list[Any] | None = None,
) -> Columns:
    raw: list[bytes | None] = [b""] * len(values)
    chunk = Chunk(Partition("orders", 0), 1, range(len(raw)), raw, keys=keys, headers=headers, timestamps=timestamps)
    return Columns(chunk, values, topic="orders", attributes=attributes)


def test_each_root_is_a_column_and_nothing_else_is() -> None:
    bare = columns([1, 2])

    assert {root: list(bare.follow((root,))) for root in ROOTS} == {
        "value": [1, 2],
        "key": [None, None],
        "headers": [{}, {}],
        "topic": ["orders", "orders"],
        "timestamp": [None, None],
        "attributes": [None, None],
    }
    with pytest.raises(KeyError):
        bare.follow(("offset",))


@pytest.mark.parametrize("keys", [[b"\xff", b"k"], [b"k", None, b"\xff\xfe", b""], [b"k", "é".encode()]])
def test_a_key_is_text_or_base64_whatever_the_others_are(keys: list[bytes | None]) -> None:
    texts = {None: None, b"\xff": "/w==", b"\xff\xfe": "//4=", b"k": "k", b"": "", "é".encode(): "é"}

    assert columns([1] * len(keys), keys=keys).follow(("key",)) == [texts[key] for key in keys]


def test_a_timestamp_that_a_record_does_not_have_is_null() -> None:
    """In librdkafka that is -1."""
    assert columns([1, 2, 3], timestamps=[-1, 0, 1]).follow(("timestamp",)) == [None, None, 1]


@pytest.mark.parametrize("followed_before", [False, True])
def test_picked_records_keep_what_accompanies_them(followed_before: bool) -> None:
    whole = columns([{"n": n} for n in range(3)], keys=KEYS, headers=HEADERS, attributes=ATTRIBUTES)
    paths = [("value", "n"), ("key",), ("headers", "h"), ("attributes", "id")]
    if followed_before:
        for path in paths:
            whole.follow(path)

    assert [whole.pick([0, 2]).follow(path) for path in paths] == [[0, 2], ["a", "c"], ["1", "3"], ["1", "3"]]


def test_other_values_keep_what_accompanied_the_former_ones_and_it_is_decoded_once() -> None:
    whole = columns([{"n": n} for n in range(3)], keys=KEYS, headers=HEADERS, attributes=ATTRIBUTES)
    former = {root: whole.follow((root,)) for root in ("key", "headers")}
    whole.follow(("value", "n"))
    other = whole.with_values([{"n": "x"}] * 3)

    assert other.follow(("value", "n")) == ["x"] * 3
    assert other.follow(("attributes", "id")) == ["1", None, "3"]
    assert all(other.follow((root,)) is column for root, column in former.items())
