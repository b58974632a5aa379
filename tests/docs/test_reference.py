"""The generated pages match the code, and leave nothing out."""

import ast
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest

import connector
from connector import cli
from connector.app import online
from connector.cli.errors import WAYS_OUT, ExitCode
from connector.config.load import load_settings
from connector.config.problems import SettingsError
from connector.core.reasons import REASONS
from connector.core.results import Finished
from connector.core.verdicts import RECORD_CODES, TABLE
from connector.telemetry.metrics import BatchMetrics, StatusCollector, WorkersCollector, render
from connector.telemetry.runbook import hold_page
from connector.trackly.endpoints import ENDPOINTS
from reference.__main__ import ROOT, WRITTEN, main
from reference.errors import COMMANDS, errors_page
from reference.messages import of_commands
from reference.pages import exit_codes_page, metrics_page, verdicts_page
from reference.status import FAILURE, HOLD, PACE, PARTITION, PROCESS, REDRIVE, STANDSTILL, WORKER, fields_of_streams
from tests.docs.test_holds import reasons_in_code

CODE: Final = sorted(Path(connector.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("name", WRITTEN)
def test_what_stands_on_disk_is_that_of_the_code(name: str) -> None:
    """Written by: python -m reference."""
    assert (ROOT / name).read_text(encoding="utf-8") == WRITTEN[name]()


def test_the_module_writes_all_of_it(tmp_path: Path) -> None:
    for name in WRITTEN:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)

    main(tmp_path)

    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")} == set(WRITTEN)


def test_every_row_of_the_table_is_on_the_page() -> None:
    page = verdicts_page()

    assert [row.name for row in TABLE if f"| `{row.name}` | {row.when} |" not in page] == []


def _reasons_given() -> Iterator[str]:
    """Yield the reasons that stand in the code where dead letters are made, with a star where a name is put in."""
    makers = {"refused", "UndecodableError"}
    for source in CODE:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id="Verdict"), args=[ast.Constant(value="dead_letter"), reason, *_]):
                    yield from _texts(reason)
                case ast.Call(func=ast.Name(id=name), args=[reason, *_]) if name in makers:
                    yield from _texts(reason)
                case ast.Assign(targets=[ast.Name(id="reason")], value=value) if source.name == "verdicts.py":
                    yield from _texts(value)
                case _:
                    continue


def _texts(node: ast.expr) -> Iterator[str]:
    """Yield the words that an expression may be."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=[ast.Constant(value=str(start)), *_]):
            yield f"{start}*"
        case ast.IfExp(body=first, orelse=second):
            yield from (*_texts(first), *_texts(second))
        case ast.BoolOp(values=values):
            yield from (text for value in values for text in _texts(value))
        case _:
            return


def _put_in() -> Iterator[str]:
    """Yield the reasons that have the name of a field in them."""
    for endpoint in ENDPOINTS.values():
        required = [field.encode_name for field in msgspec.structs.fields(endpoint.event) if field.required]
        yield from (f"missing_{name}" for name in required)
        yield from (f"invalid_{name}" for name in endpoint.numbers)


def test_the_catalogue_has_every_reason_that_is_given_and_no_other() -> None:
    given = set(_reasons_given())
    templates = {reason for reason in given if reason.endswith("*")}

    assert templates == {"missing_*", "invalid_*"}
    assert {*given - templates, *_put_in(), *RECORD_CODES} == REASONS.keys()


def test_the_catalogue_tells_what_is_found_before_a_request() -> None:
    found_later = {"in_doubt", "payload_too_large", "refused", "rejected", "server_error"}
    found_here = {reason for reason in _reasons_given() if not reason.endswith("*")} - found_later

    assert {name for name, reason in REASONS.items() if reason.here} == found_here | set(_put_in())


def test_every_reason_has_a_meaning_and_a_hint() -> None:
    assert [name for name, reason in REASONS.items() if not reason.means or not reason.do] == []


def _rows(heading: str) -> list[list[str]]:
    section = errors_page().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [re.split(r" (?<!\\)\| ", line.strip("| ")) for line in section.splitlines() if line.startswith("| ")][2:]


def test_every_reason_of_a_dead_letter_is_on_the_page() -> None:
    assert [row[0] for row in _rows("Reasons of dead letters")] == [f"`{name}`" for name in sorted(REASONS)]


def test_every_reason_of_a_hold_is_on_the_page_with_its_runbook() -> None:
    linked = {re.fullmatch(r"\[`(.+)`\]\(\.\./runbook/(.+)\.md\)", row[0]) for row in _rows("Reasons of holds")}

    named = {re.sub(r"<\w+>", "<>", found[1]): found[2] for found in linked if found is not None}
    assert named == {reason: hold_page(reason) for reason in reasons_in_code()}


def test_every_command_with_messages_of_its_own_is_on_the_page() -> None:
    folder = Path(cli.__path__[0])
    having = {
        source.relative_to(folder).parts[0]
        for source in folder.rglob("*.py")
        if re.search(r"raise CommandError\(", source.read_text(encoding="utf-8"))
    }

    assert having == set(COMMANDS.values())


@pytest.mark.parametrize("place", COMMANDS.values())
def test_every_message_of_a_command_is_found_with_its_hint(place: str) -> None:
    told = of_commands(place)
    sources = [source for source in CODE if f"/connector/cli/{place}" in str(source)]
    raised = sum(source.read_text(encoding="utf-8").count("raise CommandError(") for source in sources)

    assert len(told) >= raised - 1  # the same message at two places
    assert [message for message in told if not message.text or not message.way_out] == []


def test_a_message_is_that_of_whatever_found_the_trouble() -> None:
    told = {message.text: message for message in of_commands("dead_letters")}

    assert "--until must be later than --since" in told
    assert "<file>: line <number> has an incomplete character" in told
    assert told["topic <to> does not exist"] == (
        "topic <to> does not exist",
        "BAD_SETTINGS",
        "create it, or name another",
    )


def test_settings_that_the_page_tells_of_are_those_of_a_file(tmp_path: Path) -> None:
    """A file that is wrong in many ways is told of in the words of the page."""
    file = tmp_path / "connector.yaml"
    file.write_text("kafka: {bootstrap_server: x}\nweb: {port: '1'}\nweb: {}\nstreams: [{name: A, topics: []}]\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(file, environ={})

    page = html.unescape(errors_page())
    known = re.findall(r"^- `+ ?(.+?) ?`+$", page, re.MULTILINE)
    patterns = [re.sub(r"<[a-z ]+>", ".+", re.escape(text).replace("\\ ", " ")) for text in known]
    problems = [problem.message for problem in caught.value.problems]
    assert len(problems) > 4
    assert [text for text in problems if not any(re.match(pattern, text) for pattern in patterns)] == []


def test_every_failure_of_a_finding_is_on_the_page() -> None:
    """Those that are defined are listed, and each that a finding has is defined."""
    defined = [value for value in vars(online).values() if isinstance(value, online.Failure)]
    source = Path(online.__file__).read_text(encoding="utf-8")

    assert {*defined, *online.REFUSALS.values()} == set(online.FAILURES)
    assert len(_rows("Findings of check --online")) == len(online.FAILURES)
    assert re.findall(r"Finding\(\w+, (?!True)\w+", source) == ["Finding(name, warning"], "all others are ok"


def test_every_metric_that_is_served_is_on_the_page_and_no_other() -> None:
    BatchMetrics("docs").request("accepted", 0.1, 1)
    BatchMetrics("docs").settled(list[Finished](), 0)
    collected = [*StatusCollector(list).collect(), *WorkersCollector({}, []).collect()]

    served = set(re.findall(r"^# HELP (\S+)", render().decode(), re.MULTILINE))
    served = {name for name in served if not name.endswith("_created")}
    served |= {f"{family.name}_total" if family.type == "counter" else family.name for family in collected}

    assert set(re.findall(r"^\| `(trackly_\w+)` \|", metrics_page(), re.MULTILINE)) == served


def test_every_exit_code_is_on_the_page_with_its_meaning() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| ([^|]+) \| ([^|]*) \|$", exit_codes_page(), re.MULTILINE)

    assert [(int(code), name) for code, name, *_ in rows] == [(code.value, code.name) for code in ExitCode]
    assert all(meaning.endswith(".") for _, _, meaning, _ in rows)
    assert [name for _, name, _, way_out in rows if not way_out] == ["OK"]
    assert set(WAYS_OUT) == set(ExitCode)


def _fields_given(place: str, function: str) -> set[str]:
    """Return the names of the fields that a function puts into the dictionaries that it makes."""
    tree = ast.parse((Path(connector.__file__).parent / place).read_text(encoding="utf-8"))
    [found] = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function]
    keys = (key for node in ast.walk(found) if isinstance(node, ast.Dict) for key in node.keys)
    return {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}


@pytest.mark.parametrize(
    ("place", "function", "fields"),
    [
        ("stream/stream.py", "status", {*fields_of_streams(), *PARTITION}),
        ("stream/holds.py", "status_of", {*HOLD}),
        ("stream/watching.py", "status_of", {*STANDSTILL}),
        ("stream/failures.py", "status", {*FAILURE}),
        ("stream/paces.py", "status", {*PACE}),
        ("deadletters/automatic.py", "status", {*REDRIVE}),
        ("workers/worker.py", "status", {*PROCESS}),
        ("app/pages.py", "status_of", {*WORKER} - {"workers"}),
    ],
)
def test_every_field_of_the_status_is_on_the_page_and_no_other(place: str, function: str, fields: set[str]) -> None:
    assert _fields_given(place, function) == fields
