"""The printed pages are those of the code, and leave nothing out."""

import ast
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from connector import shaping
from connector.cli.errors import ExitCode
from connector.core.flow import Finished
from connector.core.verdicts import RECORD_CODES, TABLE
from connector.reference import (
    ANSWERED_REASONS,
    FOLDER,
    LOCAL_REASONS,
    PAGES,
    SHAPING_REASONS,
    exit_codes_page,
    local_reasons,
    main,
    metrics_page,
    verdicts_page,
)
from connector.shaping import formats
from connector.shaping.formats.refusing import REASONS as FORMAT_REASONS
from connector.telemetry.metrics import BatchMetrics, StatusCollector, WorkersCollector, render
from connector.trackly import operations


@pytest.mark.parametrize("name", PAGES)
def test_the_page_on_disk_is_that_of_the_code(name: str) -> None:
    """Mended by: python -m connector.reference."""
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name]()


def test_the_module_writes_every_page(tmp_path: Path) -> None:
    assert main(tmp_path) == 0
    assert {path.name for path in tmp_path.iterdir()} == set(PAGES)


def test_without_a_folder_the_module_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tmp_path / "nowhere") == 1
    assert "source tree" in capsys.readouterr().err


def test_every_row_of_the_table_is_on_the_page() -> None:
    page = verdicts_page()

    assert [row.name for row in TABLE if f"| `{row.name}` | {row.when} |" not in page] == []


def _reasons_in_code() -> Iterator[str]:
    """Yield the reasons that the checks give, with a star where they put a name in."""
    for node in ast.walk(ast.parse(inspect.getsource(operations))):
        match node:
            case ast.Call(func=ast.Name(id="_invalid"), args=[ast.Constant(value=str(reason)), *_]):
                yield reason
            case ast.Call(
                func=ast.Name(id="_invalid"), args=[ast.JoinedStr(values=[ast.Constant(value=str(start)), *_]), *_]
            ):
                yield f"{start}*"
            case _:
                continue


def test_every_reason_that_the_checks_give_is_on_the_page_and_no_other() -> None:
    given = Counter(_reasons_in_code())
    templates = {reason for reason in given if reason.endswith("*")}

    assert given.keys() - templates == set(LOCAL_REASONS)
    assert templates == {"missing_*", "invalid_*"}


def test_every_reason_that_a_format_gives_is_among_those_of_the_formats_or_of_json() -> None:
    given = set()
    for source in Path(formats.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name(id="refused" | "UndecodableError"), args=[ast.Constant(value=str(reason)), *_]
                ):
                    given.add(reason)
                case _:
                    continue

    assert given - LOCAL_REASONS.keys() == FORMAT_REASONS.keys()


def _reasons_of_shaping() -> Iterator[str]:
    """Yield the reasons that stand in verdicts of what makes events of records."""
    for file in Path(shaping.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name(id="Verdict"),
                    args=[ast.Constant(value="dead_letter"), ast.Constant(value=str(reason)), *_],
                ):
                    yield reason
                case _:
                    continue


def test_every_reason_that_shaping_gives_is_on_the_page_and_no_other() -> None:
    assert set(_reasons_of_shaping()) - set(LOCAL_REASONS) == set(SHAPING_REASONS)


def test_every_reason_of_a_dead_letter_has_a_row_with_a_meaning() -> None:
    rows = dict(re.findall(r"^\| `([a-z0-9_]+)` \| (.+) \|$", verdicts_page().partition("## Reasons")[2], re.MULTILINE))

    assert set(rows) == {*local_reasons(), *FORMAT_REASONS, *RECORD_CODES, *ANSWERED_REASONS}
    assert all(rows.values())


def test_every_metric_that_is_served_is_on_the_page_and_no_other() -> None:
    BatchMetrics("docs").request("accepted", 0.1, 1)
    BatchMetrics("docs").settled(list[Finished](), 0)
    collected = [*StatusCollector(list).collect(), *WorkersCollector({}, []).collect()]

    served = set(re.findall(r"^# HELP (\S+)", render().decode(), re.MULTILINE))
    served = {name for name in served if not name.endswith("_created")}
    served |= {f"{family.name}_total" if family.type == "counter" else family.name for family in collected}

    assert set(re.findall(r"^\| `(trackly_\w+)` \|", metrics_page(), re.MULTILINE)) == served


def test_every_exit_code_is_on_the_page_with_its_meaning() -> None:
    rows = re.findall(r"^\| (\d) \| `(\w+)` \| (.+) \|$", exit_codes_page(), re.MULTILINE)

    assert [(int(code), name) for code, name, _ in rows] == [(code.value, code.name) for code in ExitCode]
    assert all(meaning.endswith(".") for _, _, meaning in rows)
