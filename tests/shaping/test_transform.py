"""A stream's own Python: what it is given, what it may return, and what its failures are."""

import inspect
import sys
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from connector.hooks import SKIP, Failed, InvalidTransformError, Record, Records, each, load_transform
from connector.shaping.decoded import FormatAwayError
from connector.shaping.shaper import Shaper
from connector.testing import apply, ends_of, sample
from tests.shaping import hooks
from tests.shaping.making import chunk, posted, prepared, settled, stream

HERE = "tests.shaping.hooks"


def _at(words: str) -> str:
    """Return how a line of the functions is named."""
    lines = inspect.getsource(hooks).splitlines()
    [number] = [number for number, line in enumerate(lines, start=1) if words in line]
    return f"in line {number} of hooks.py"


def test_what_it_returns_is_the_event() -> None:
    result = prepared(stream(transform=f"{HERE}:text"), chunk({"phone": "+14155550101", "name": "Ada"}))

    assert posted(result) == [{"to": "+14155550101", "body": "Hi Ada", "list_number": "+18005551234"}]


def test_a_mapping_maps_what_it_returns() -> None:
    mapping = {"fields": {"to": "value.to", "body": {"template": "{{ value.body }}!"}}}
    result = prepared(
        stream(transform=f"{HERE}:text", mapping=mapping), chunk({"phone": "+14155550101", "name": "Ada"})
    )

    assert posted(result)[0]["body"] == "Hi Ada!"


def test_a_filter_looks_at_what_it_returns_and_passes_that() -> None:
    result = prepared(
        stream(transform=f"{HERE}:text", mapping={"when": "value.body == 'Hi Ada'"}),
        chunk({"phone": "+14155550101", "name": "Ada"}, {"phone": "+14155550102", "name": "Bob"}),
    )

    assert [event["body"] for event in posted(result)] == ["Hi Ada"]
    assert [verdict.reason for verdict in settled(result).values()] == ["filtered"]


def test_errors_are_per_record() -> None:
    values = [{"phone": "+14155550101", "name": name} for name in ("Ada", "test", "nobody", None)]
    verdicts = settled(prepared(stream(transform=f"{HERE}:text"), chunk(*values, b"{")))

    assert {offset: (v.status, v.reason, v.text) for offset, v in verdicts.items()} == {
        1: ("skipped", "filtered", ""),
        2: ("dead_letter", "transform_failed", "nobody is texted"),
        3: ("dead_letter", "transform_failed", "raised TypeError"),
        4: ("dead_letter", "not_json", verdicts[4].text),
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fails", f"{HERE}:fails raised RuntimeError {_at('raise RuntimeError')}"),
        ("fails_below", f"{HERE}:fails_below raised RuntimeError {_at('raise RuntimeError')}"),
        ("leaves", f"{HERE}:leaves raised SystemExit {_at('sys.exit')}"),
        ("asks_json", f"{HERE}:asks_json raised JSONDecodeError {_at('json.loads')}"),
        ("too_few", f"{HERE}:too_few returned 1 values for 2 records"),
        ("nothing", f"{HERE}:nothing raised TypeError"),
    ],
)
def test_a_call_that_fails_as_a_whole_is_no_records_fault(name: str, said: str) -> None:
    shaper = Shaper(stream(transform=f"{HERE}:{name}"))

    with pytest.raises(FormatAwayError) as caught:
        shaper.shape(chunk({"phone": "secret"}, {}))

    assert (caught.value.reason, str(caught.value)) == ("transform_failed", said)


def test_it_is_not_called_for_records_that_have_their_verdict() -> None:
    """What it is given has a record at least, so that it may look at the first."""
    verdicts = settled(prepared(stream(transform=f"{HERE}:fails"), chunk(b"{", None)))

    assert [v.reason for v in verdicts.values()] == ["not_json", "tombstone"]


def test_what_it_returns_must_be_json() -> None:
    verdicts = settled(prepared(stream(transform=f"{HERE}:odd"), chunk({}, {})))

    assert [(v.reason, v.text.partition(":")[0]) for v in verdicts.values()] == [
        ("mapping_failed", "the event is no JSON"),
        ("not_an_object", "the value is a JSON array, not an object"),
    ]


MAPPED = {"fields": {"to": "value.to", "body": {"template": "{{ value.body }}"}, "metadata": {"x": "value.x"}}}
GOOD = {"to": "+14155550101", "body": "a"}


@pytest.mark.parametrize("mapping", [MAPPED, {"list_number": {"const": "+18005550009"}}, None])
@pytest.mark.parametrize("odd", [Decimal("NaN"), Decimal("-Infinity"), msgspec.Raw(b"oops"), msgspec.Raw(b'"\xff"')])
def test_what_can_be_encoded_and_is_no_json_fails_as_what_cannot_be(
    odd: Any, mapping: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One such record would spoil the request of all others, and its producer is not at fault.

    Which of these msgspec encodes depends on its version.
    """
    monkeypatch.setattr(
        hooks, "text", lambda records: [{**GOOD, "x": odd if v.get("odd") else 1} for v in records.values]
    )
    result = prepared(stream(transform=f"{HERE}:text", mapping=mapping), chunk({"odd": True}, {}))

    assert [event["body"] for event in posted(result)] == ["a"]
    (verdict,) = settled(result).values()
    assert verdict.reason == "mapping_failed"
    assert verdict.text.startswith("the event is no JSON: ")


@pytest.mark.parametrize("text", ["{{ value.x }}", "{{ value.x | trim }}"])
def test_a_number_that_is_not_finite_is_never_printed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wants to read that a parcel costs nan; JSON has no such number, but a transform may return one."""
    monkeypatch.setattr(hooks, "text", lambda records: [{**GOOD, "x": float(value["x"])} for value in records.values])
    settings = stream(transform=f"{HERE}:text", mapping={"fields": {"to": "value.to", "body": {"template": text}}})
    result = prepared(settings, chunk(*({"x": x} for x in ("nan", "1.5", "inf", "-inf", "2"))))

    assert [event["body"] for event in posted(result)] == ["1.5", "2.0"]
    assert settled(result).keys() == {0, 2, 3}
    assert all(v.text.endswith("would print a number that is not finite") for v in settled(result).values())


class Text(msgspec.Struct):
    """An event with types."""

    to: str
    body: str


def test_an_event_that_cannot_be_given_its_list_is_not_sent_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping such an event is as good as a dict."""
    returned = [Text(**GOOD), GOOD, ["a"], Text(**GOOD)]
    monkeypatch.setattr(hooks, "text", lambda records: returned[: len(records)])
    transform = f"{HERE}:text"
    chosen = stream(transform=transform, mapping={"list_number": "value.list_number || headers.list"})
    lists: list[Any] = [[("list", b"+18005550009")]] * 3
    found = prepared(chosen, chunk({}, {}, {}, {}, headers=[*lists, None]))

    assert [event["list_number"] for event in posted(found)] == ["+18005550009", "+18005551234"]
    assert {offset: (v.reason, v.text) for offset, v in settled(found).items()} == {
        0: ("mapping_failed", "mapping.list_number: a list can be added to a dict, not to a Text"),
        2: ("not_an_object", "the value is a JSON array, not an object"),
    }
    assert len(posted(prepared(stream(transform=transform), chunk({}, {})))) == 2


def test_a_mapping_follows_fields_of_whatever_is_like_a_dict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "text", lambda records: [MappingProxyType({**GOOD, **v}) for v in records.values])
    settings = stream(transform=f"{HERE}:text", mapping=MAPPED)
    values: list[dict[str, Any]] = [{"x": {"y": 1}}, {}]
    together = posted(prepared(settings, chunk(*values)))

    assert together == [posted(prepared(settings, chunk(value)))[0] for value in values]
    assert [event["body"] for event in together] == ["a", "a"]


@pytest.mark.parametrize(
    "body",
    [
        "value.x.y.z",
        "value.x.y.z || 'none'",
        "not_null(value.x.y.z)",
        {"template": "{{ value.x.y.z }}"},
        {"template": "{{ value.x.y.z | trim }}"},
        {"template": "{{ value['x'][value.name].z }}"},
    ],
)
def test_any_expression_and_template_follows_the_same_fields(body: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = MappingProxyType({"y": MappingProxyType({"z": "found"})})
    monkeypatch.setattr(hooks, "text", lambda _records: [MappingProxyType({**GOOD, "x": inner, "name": "y"})])
    mapping = {"fields": {"to": "value.to", "body": body}}
    result = prepared(stream(transform=f"{HERE}:text", mapping=mapping), chunk({}))

    assert [event["body"] for event in posted(result)] == ["found"]


def test_a_number_of_thousands_of_digits_is_a_failure_of_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "text", lambda records: [{**GOOD, "body": v.get("n", 10**5000)} for v in records.values])
    settings = stream(
        transform=f"{HERE}:text",
        mapping={**MAPPED, "list_number": {"table": {"a": "+18005550001"}, "by": "value.body"}},
    )
    result = prepared(settings, chunk({}, {"n": 7}))

    assert [event["body"] for event in posted(result)] == ["7"]
    assert {offset: v.reason for offset, v in settled(result).items()} == {0: "mapping_failed"}


def test_it_is_given_all_that_is_known_of_records() -> None:
    seen: list[Records] = []

    def keep(records: Records) -> list[Any]:
        seen.append(records)
        return [SKIP] * len(records)

    ends = apply(
        keep, [sample({"a": 1}, key="k", headers={"h": "1"}, timestamp_ms=5), sample({"a": 2})], topic="orders"
    )

    (records,) = seen
    assert [end.status for end in ends] == ["skipped", "skipped"]
    assert (records.topic, list(records.values), list(records.keys)) == ("orders", [{"a": 1}, {"a": 2}], ["k", None])
    assert (list(records.headers), list(records.timestamps)) == ([{"h": "1"}, {}], [5, None])


def test_each_makes_a_transform_of_a_function_for_one_record() -> None:
    @each
    def one(record: Record) -> Any:
        return {"to": record.key, "body": record.value["text"]}

    line = inspect.getsourcelines(one)[1] + 2
    ends = apply(one, [sample({"text": "a"}, key="+14155550101"), sample({}), sample({"text": "b"}, key="x")])

    assert [(end.status, end.reason, end.text) for end in ends] == [
        ("posted", "", ""),
        ("dead_letter", "transform_failed", f"raised KeyError in line {line} of test_transform.py"),
        ("dead_letter", "invalid_phone", "`to` is not an E.164 number"),
    ]
    assert ends[0].event == {"to": "+14155550101", "body": "a"}


def test_the_kit_returns_what_a_stream_of_a_file_would_do(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "connector.yaml"
    path.write_text(
        """\
kafka: {bootstrap_servers: "localhost:9092"}
trackly: {api_key: "${env:KEY}"}
streams:
  - name: orders
    topics: [orders]
    operation: send
    list_number: "+18005551234"
    mapping: {when: value.ship, fields: {to: key, body: value.text}}
    outcomes: {topic: out}
    dead_letters: {topic: dead}
"""
    )
    monkeypatch.setenv("KEY", "trk_key")
    ends = ends_of(path, "orders", [sample({"ship": True, "text": "a"}, key="+14155550101"), sample({"ship": False})])

    assert [end.status for end in ends] == ["posted", "skipped"]
    assert ends[0].event == {"list_number": "+18005551234", "to": "+14155550101", "body": "a"}
    with pytest.raises(ValueError, match="has no stream other"):
        ends_of(path, "other", [])


def test_a_failure_is_cut() -> None:
    (end,) = apply(lambda records: [Failed("x" * 600)] * len(records), [sample({})])

    assert len(end.text) == 500


def test_a_module_that_ends_the_process_when_it_is_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or `check` would end with exit code 0 and not a word, as a script does that was meant to be run."""
    (tmp_path / "script_that_ends.py").write_text("import sys\n\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(InvalidTransformError, match="fails when it is imported: SystemExit"):
        load_transform("script_that_ends:function")


def test_a_record_that_ends_the_process_fails_alone() -> None:
    @each
    def one(record: Record) -> Any:
        sys.exit(record.key)

    (end,) = apply(one, [sample({}, key="x")])

    assert (end.status, end.reason) == ("dead_letter", "transform_failed")
    assert end.text.startswith("raised SystemExit in line ")
