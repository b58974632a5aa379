"""What documents name is there: links, commands and options, make targets, settings, metrics, pages and files."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

from connector.config.catalogue import catalogue
from connector.config.load import load_settings
from reference.pages import metrics_page
from tests.deploy.conftest import ROOT
from tests.docs.commands import PROGRAM, problem_with
from tests.docs.pages import DOCUMENTS, Block, anchors, blocks, code_words, name_of, prose
from tests.schemas.conftest import schema

SHELL: Final = {"sh", "bash", "shell", "console"}
documents = pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)

_SEPARATORS: Final = {"|", "&&", ";", "&", "||", "do", "done"}


def _command_lines() -> Iterator[tuple[Path, str]]:
    for path in DOCUMENTS:
        for block in blocks(path):
            if block.language in SHELL:
                yield from ((path, line) for line in block.commands)
        yield from ((path, word) for word in code_words(path))


def _calls(line: str) -> Iterator[list[str]]:
    """Yield the simple commands of a line, words without redirections and variables in front."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # an apostrophe in a piece of code, not of shell
        return
    call: list[str] = []
    for word in [*words, ";"]:
        if word in _SEPARATORS:
            if call:
                yield call
            call = []
        elif call or not re.fullmatch(r"[A-Z_]+=.*", word):
            call.append(word)


def _calls_of(*programs: str) -> list[tuple[str, list[str]]]:
    return [(name_of(path), call) for path, line in _command_lines() for call in _calls(line) if call[0] in programs]


def test_documents_are_found() -> None:
    assert {"README.md", "deploy/README.md", "docs/tutorial/first-stream.md"} <= set(map(name_of, DOCUMENTS))


@documents
def test_links_lead_to_files_and_headings_that_exist(path: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)

    assert broken == []


@documents
def test_no_document_is_without_a_title_or_left_open(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert text.startswith("# ")
    assert text.endswith("\n")
    assert len(re.findall(r"^```", text, re.MULTILINE)) % 2 == 0


def test_every_page_of_the_docs_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        targets = re.findall(r"\]\(([^)#\s]+\.md)", prose(page))
        linked = {(page.parent / target).resolve() for target in targets if "://" not in target}
        ahead += linked - seen - set(ahead)

    assert [name_of(path) for path in DOCUMENTS if path not in seen] == []


def test_our_command_lines_can_be_given() -> None:
    """A command that is only named in the text need not have its arguments."""
    calls = _calls_of(PROGRAM)
    problems = [
        (where, " ".join(call), problem_with(call[1:] if len(call) != 2 else [call[1], "--help"]))
        for where, call in calls
    ]

    assert len(calls) > 10
    assert [found for found in problems if found[2] is not None] == []


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for _, call in _calls_of("make") for word in call[1:] if "=" not in word}

    assert {"demo", "test", "check"} <= named
    assert named <= targets


def test_modules_that_are_run_exist() -> None:
    named = {call[2] for _, call in _calls_of("python", "python3") if call[1:2] == ["-m"]}

    assert "reference" in named
    assert [module for module in named if importlib.util.find_spec(module) is None] == []


def test_the_readme_shows_the_words_of_the_demo() -> None:
    """Figures may differ from run to run."""
    shown = next(block.text for block in blocks(ROOT / "README.md") if block.language == "text")
    sources = [*(ROOT / "connector" / "demo").glob("*.py"), ROOT / "connector" / "cli" / "demo.py"]
    said = "".join(source.read_text(encoding="utf-8") for source in sources)
    *rows, sums, verdict = [line.strip() for line in shown.splitlines() if not line.startswith(" ...")]
    labels = [re.split(r": |  +", row)[0] for row in rows]
    words = re.findall(r"records/s|requests|outage of|lost replies", sums)

    assert labels == ["produced", "queued", "dead letter", "dead letter", "lost", "accepted twice"]
    assert len(words) == 4
    assert [word for word in [*labels, *words, verdict] if word not in said] == []


def test_the_application_that_faust_is_told_to_start_is_there() -> None:
    calls = [call for _, call in _calls_of("faust")]

    assert calls
    assert {tuple(call[:3]) for call in calls} == {("faust", "-A", "connector.app")}


def test_pages_that_are_asked_for_exist() -> None:
    pages = (ROOT / "connector/app/pages.py").read_text()
    served = re.findall(r'web\.(?:get|post)\("([^"]+)"', pages)
    asked = {
        match[1]
        for _, call in _calls_of("curl")
        for word in call
        if (match := re.match(r"(?:http://)?localhost:8080(/\S*)", word))
    }

    assert asked
    patterns = [re.sub(r"\{\w+\}", "[^/]+", path) for path in served]
    assert [path for path in asked if not any(re.fullmatch(pattern, path) for pattern in patterns)] == []


def _settings_files() -> list[tuple[Path, Block]]:
    found = [(path, block) for path in DOCUMENTS for block in blocks(path)]
    return [(path, block) for path, block in found if block.language == "yaml" and "streams:" in block.text]


@pytest.mark.parametrize(("path", "block"), _settings_files(), ids=lambda value: getattr(value, "name", ""))
def test_settings_files_load(path: Path, block: Block, tmp_path: Path) -> None:
    file = tmp_path / "connector.yaml"
    file.write_text(block.text)

    assert load_settings(file, environ={"TRACKLY_API_KEY": "k"}).streams, path


@documents
def test_yaml_can_be_read(path: Path) -> None:
    for block in blocks(path):
        if block.language == "yaml":
            assert yaml.safe_load(block.text)


def _known_settings() -> set[str]:
    paths = {entry.path.replace("[]", "") for entry in catalogue()}
    return paths | {path.removeprefix("streams.") for path in paths}


GROUPS: Final = {path.partition(".")[0] for path in _known_settings() if "." in path}


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.name != "settings.md"], ids=name_of)
def test_settings_that_are_named_exist(path: Path) -> None:
    """`delivery.in_doubt: resend` is a setting; headers, attributes of spans and topics have dots as well."""
    attributes = set(re.findall(r'"(trackly\.[a-z_]+)"', (ROOT / "connector/telemetry/traces.py").read_text()))
    known = _known_settings() | set(schema("dead-letter-headers.v1")["properties"]) | attributes
    words = {word.partition(":")[0].strip() for word in code_words(path)}
    dotted = {word for word in words if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", word)}

    assert {word for word in dotted if word.partition(".")[0] in GROUPS} - known == set()


@documents
def test_metrics_that_are_named_exist(path: Path) -> None:
    known = set(re.findall(r"`(trackly_\w+)`", metrics_page()))
    named = set(re.findall(r"\btrackly_[a-z_]+\b", path.read_text(encoding="utf-8")))

    assert named <= known


@documents
def test_files_of_the_source_that_are_named_exist(path: Path) -> None:
    words = {word.partition(" ")[0] for word in code_words(path)}
    files = {word for word in words if re.match(r"(connector|schemas|tests|deploy|docs)/[\w./-]+$", word)}

    assert {file for file in files if not (ROOT / file).exists()} == set()
