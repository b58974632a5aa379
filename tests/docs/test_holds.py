"""The page of the holds lists the reasons that the code gives, and says of each how it ends."""

import ast
import re
from collections.abc import Iterator
from typing import Final

import pytest

from connector.stream import sender
from tests.deploy.conftest import ROOT

PAGE: Final = ROOT / "docs" / "how-to" / "holds.md"
SOURCES: Final = [
    ROOT / "connector" / "core" / "breaker.py",
    *(ROOT / "connector" / "stream").glob("*.py"),
    *(ROOT / "connector" / "shaping").rglob("*.py"),
]
_BEGIN_A_HOLD: Final = {"FormatAwayError", "Hold", "hold_partition", "_hold", "stop", "_gone"}


def _reason(node: ast.expr) -> str | None:
    """Return a reason that stands in the code, with what is put into it as `<>`."""
    match node:
        case ast.Constant(value=str(text)) if re.fullmatch(r"[a-z_]+", text):
            return text
        case ast.JoinedStr(values=[ast.Constant(value=str(text)), ast.FormattedValue()]) if text.endswith(":"):
            return f"{text}<>"
        case _:
            return None


def _given() -> Iterator[str | None]:
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            match node:
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=args, keywords=keywords):
                    if name in _BEGIN_A_HOLD:
                        yield from map(_reason, args[:2])
                    for keyword in keywords:
                        if keyword.arg == "hold" and isinstance(keyword.value, ast.Tuple):
                            yield _reason(keyword.value.elts[0])
                case ast.FunctionDef(name="_hold_reason"):
                    for inner in ast.walk(node):
                        if isinstance(inner, ast.Return) and isinstance(inner.value, ast.Call):
                            yield _reason(inner.value.args[-1])
                        elif isinstance(inner, ast.Return) and inner.value is not None:
                            yield _reason(inner.value)
                case _:
                    continue
    yield from sender._HOLD_REASONS.values()


def _listed(heading: str) -> set[str]:
    _, _, rest = PAGE.read_text().partition(f"## {heading}\n")
    rows = re.findall(r"^\| `([a-z_:<>]+)` \|", rest.partition("\n## ")[0], re.MULTILINE)
    return {re.sub(r"<\w+>", "<>", row) for row in rows}


def reasons_in_code() -> set[str]:
    """Return the reasons that the code gives, with what is put into one as `<>`."""
    return {reason for reason in _given() if reason is not None}


def test_every_reason_of_the_code_is_on_the_page_and_no_other() -> None:
    assert reasons_in_code() == _listed("Holds that end by themselves") | _listed("Holds that wait for a person")


@pytest.mark.parametrize("reason", ["storm:<>", "in_doubt", "records_missing", "foreign_metadata", "progress_missing"])
def test_what_waits_for_a_person_is_listed_there(reason: str) -> None:
    assert reason in _listed("Holds that wait for a person")
    assert reason not in _listed("Holds that end by themselves")
