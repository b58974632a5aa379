"""A YAML file becomes data with lines; its errors are faults, and only a file without content is fatal."""

from pathlib import Path
from typing import Any

import pytest

from connector.config.document import Document, read_document
from connector.config.problems import SettingsError, dotted


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "connector.yaml"


def _read(source: Path, text: str) -> Document:
    source.write_text(text)
    return read_document(source)


def _faults(document: Document) -> list[tuple[str, str, int | None]]:
    return [(dotted(fault.path), fault.message, fault.line) for fault in document.faults]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("off", "off"),
        ("null", None),
        ("~", None),
        ("", None),
        ("5_000", 5000),
        ("-7", -7),
        ("0123", "0123"),
        ("12:30", "12:30"),
        ("0x1f", "0x1f"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
        ("2026-01-31", "2026-01-31"),
        ("2026-01-31T08:00:00Z", "2026-01-31T08:00:00Z"),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("1.2.3.4", "1.2.3.4"),
        ("localhost:9092", "localhost:9092"),
    ],
)
def test_plain_values_follow_yaml_1_2(text: str, value: object, source: Path) -> None:
    document = _read(source, f"key: {text}\n")

    assert document.data == {"key": value}
    assert type(document.data["key"]) is type(value)
    assert document.faults == ()


def test_every_value_knows_its_line(source: Path) -> None:
    document = _read(source, "a:\n  b: 1\n  c:\n    - x\n    - d: 2\nflow: {e: 3,\n  f: 4}\n")

    paths: list[tuple[str | int, ...]] = [("a",), ("a", "b"), ("a", "c", 0), ("a", "c", 1, "d"), ("flow", "f")]
    assert [document.line(path) for path in paths] == [1, 2, 4, 5, 7]


def test_what_is_missing_has_the_line_of_its_group(source: Path) -> None:
    document = _read(source, "x: 1\na:\n  b: 1\n")

    assert document.line(("a", "missing", "deeper")) == 2
    assert document.line(("missing",)) is None


def test_duplicate_keys_are_faults_at_every_depth(source: Path) -> None:
    document = _read(source, "a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\na: 2\na: 3\n")

    assert _faults(document) == [
        ("a", "occurs twice, first in line 1", 6),
        ("a", "occurs twice, first in line 1", 7),
        ("b.c", "occurs twice, first in line 3", 5),
    ]


def test_merged_defaults_give_way_to_own_keys_and_are_no_duplicates(source: Path) -> None:
    document = _read(source, "base: &base {x: 1, y: 2}\none: &one {<<: *base, y: 3}\ntwo: *one\n")

    assert document.data == {"base": {"x": 1, "y": 2}, "one": {"x": 1, "y": 3}, "two": {"x": 1, "y": 3}}
    assert document.faults == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: {5: x}", ("a", "has a key that is not text; put it in quotes", 1)),
        ("a: {[x]: y}", ("a", "has a key that is not text; put it in quotes", 1)),
        ("a: !secret hush", ("a", "has an unknown tag", 1)),
        ("a: !!python/object:os.system x", ("a", "has an unknown tag", 1)),
        ("a: !!timestamp 2026-01-31", ("a", "has an unknown tag", 1)),
        ("a: !!int seven", ("a", "does not match its tag", 1)),
        ("a: !!bool maybe", ("a", "has an unknown tag", 1)),
        (f"a: {'9' * 5_000}", ("a", "does not match its tag", 1)),
    ],
)
def test_what_settings_cannot_be_is_a_fault(text: str, fault: tuple[str, str, int], source: Path) -> None:
    assert _faults(_read(source, text)) == [fault]


NOT_CLOSED = "a bracket or brace that is not closed, or a comma that is missing behind it"
TOO_FAR = "a colon in a value that is not in quotes, or a line that is indented too far"
TOO_MANY = "has more than 100,000 values, counting expanded aliases (*name)"


def _bomb(form: str) -> bytes:
    """Return ten lines that stand for a billion values."""
    lines = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {form.format(', '.join([f'*a{n - 1}'] * 9))}" for n in range(1, 10))]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"# nothing but words\n", "is empty"),
        (b"- a\n- b\n", "must be a mapping of settings at the top level"),
        (b"just words", "must be a mapping of settings at the top level"),
        (b"x: 1\na: [1\nb: 2\n", f"is not valid YAML: {NOT_CLOSED} (line 2)"),
        (b"x: 1\na: {b: 1\nc: 2\n", f"is not valid YAML: {NOT_CLOSED} (line 2)"),
        (b"x: 1\na: 'b\nc: 2\n", "is not valid YAML: a quote that is not closed (line 2)"),
        (b"x: 1\na 2\nb: 3\n", "is not valid YAML: a name without a colon and a space behind it (line 2)"),
        (b"x: 1\na:2\nb: 3\n", "is not valid YAML: a name without a colon and a space behind it (line 2)"),
        (b"a:\n  b: 1\n   c: 2\n", f"is not valid YAML: {TOO_FAR} (line 3)"),
        (b"a: Hi: you\n", f"is not valid YAML: {TOO_FAR} (line 1)"),
        (b"a:\n  b: 1\n c: 2\n", "is not valid YAML: a line that is not indented as those beside it (line 3)"),
        (b"a:\n  - b: 1\n  c: 2\n", "is not valid YAML: a line that is not indented as those beside it (line 3)"),
        (b"a: {{ x }} hi\n", "is not valid YAML: more text behind the end of a value: one that begins with {, [ or a "),
        (b"a: %d\n", "is not valid YAML: a value that begins with % and is not in quotes (line 1)"),
        (b"a: 1\n\tb: 2\n", "is not valid YAML: a tab where spaces are needed, as in an indentation (line 2)"),
        (b"a: 1\n---\nb: 2\n", "is not valid YAML: a second document (behind ---), where settings are one (line 2)"),
        (b"a: *hunter2\n", "is not valid YAML: found undefined alias '...' (line 1)"),
        (b"a: {<<: 5}\n", "is not valid YAML: expected a mapping or list of mappings for merging, but found scalar (l"),
        (b"a: \xff\n", "is not UTF-8 text"),
        (b"a: \x07\n", "is not valid YAML: it contains characters that YAML does not allow"),
        (b"[" * 1_000, "is nested too deeply"),
        (b"a: &a [1, *a]", "has an alias (*name) that refers to itself (line 1)"),
        (b"b: 1\na: &a {b: *a}", "has an alias (*name) that refers to itself (line 2)"),
        (_bomb("[{}]"), TOO_MANY),
        (_bomb("{{<<: [{}]}}"), TOO_MANY),
        (
            b"a: 1 # " + b"x" * 1_000_000,
            "is larger than a settings file may be (1,000,000 bytes); is it the right file?",
        ),
    ],
)
def test_a_file_without_sense_is_one_problem(content: bytes, message: str, source: Path) -> None:
    source.write_bytes(content)

    with pytest.raises(SettingsError) as caught:
        read_document(source)

    assert str(caught.value).startswith(message)


def test_as_many_values_may_be_in_a_file_as_are_allowed(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mappings, lists and names count as well."""
    monkeypatch.setattr("connector.config.document._MAX_VALUES", 7)

    assert _read(source, "a: [1, 2, 3, 4]").data == {"a": [1, 2, 3, 4]}
    with pytest.raises(SettingsError, match="has more than 7 values"):
        _read(source, "a: [1, 2, 3, 4, 5]")


def test_a_missing_file_and_a_folder_are_problems(tmp_path: Path) -> None:
    told = []
    for source in (tmp_path / "nothing.yaml", tmp_path):
        with pytest.raises(SettingsError) as caught:
            read_document(source)
        told.append(str(caught.value))

    assert told == ["cannot read the file: No such file or directory", "cannot read the file: Is a directory"]


def test_a_file_without_an_end_is_a_problem() -> None:
    with pytest.raises(SettingsError, match="is larger than a settings file may be"):
        read_document(Path("/dev/zero"))


def test_broken_yaml_does_not_show_the_line_that_broke(source: Path) -> None:
    source.write_text("trackly:\n  api_key: 'hunter2\n")

    with pytest.raises(SettingsError) as caught:
        read_document(source)

    causes: Any = caught.value
    assert "hunter2" not in str(causes) + repr(causes)
    assert causes.__suppress_context__
