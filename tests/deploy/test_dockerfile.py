"""The image is built from files that are there, runs as nobody special, and says by a page whether it lives."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from connector.config.formats import EXTRAS
from connector.config.schemas import schema_names
from connector.config.settings import WebSettings
from tests.deploy.conftest import DOCKERFILE, ROOT
from tests.docs.commands import PROGRAM, problem_with

Instruction = tuple[str, str]

PINS = DOCKERFILE.with_name("requirements.txt")
BUILD_PINS = DOCKERFILE.with_name("build-requirements.txt")


def _instructions() -> list[Instruction]:
    joined = re.sub(r"\\\n", " ", DOCKERFILE.read_text())
    lines = [line.strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines]


@pytest.fixture(scope="module")
def instructions() -> list[Instruction]:
    return _instructions()


def _last(instructions: list[Instruction], name: str) -> str:
    return [text for found, text in instructions if found == name][-1]


def _copied_from_tree() -> list[str]:
    copies = [text.split() for name, text in _instructions() if name == "COPY" and "--from=" not in text]
    return [source for words in copies for source in words[:-1]]


@pytest.mark.parametrize("source", _copied_from_tree())
def test_what_is_copied_is_there_and_not_ignored(source: str) -> None:
    ignore = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()

    assert (ROOT / source).exists()
    assert f"!{source}" in ignore


def test_the_build_gets_all_that_the_package_is_made_of() -> None:
    """Hatch needs the readme and the licence beside the package, and puts the schemas into it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {
        "pyproject.toml",
        project["project"]["readme"],
        *project["project"]["license-files"],
        *wheel["packages"],
        *wheel["force-include"],
    }

    assert set(_copied_from_tree()) == needed | {str(pins.relative_to(ROOT)) for pins in (BUILD_PINS, PINS)}
    assert schema_names()


def _pins(file: Path) -> dict[str, Version]:
    """Return what a file pins; fails if anything in it has no exact version, or no hash."""
    lines = [line for line in re.sub(r"\\\n", "", file.read_text()).splitlines() if line and not line.startswith("#")]
    found = {}
    for line in lines:
        pinned = re.fullmatch(r"([\w.-]+)==([\w.]+)( ; [^-]+)?(\s+--hash=sha256:[0-9a-f]{64})+", line)
        assert pinned is not None, line
        found[pinned[1]] = Version(pinned[2])
    return found


def _unmet(wanted: Iterable[str], pins: Mapping[str, Version]) -> list[str]:
    """Return the requirements that the pins do not meet."""
    requirements = [Requirement(text) for text in wanted]
    return [str(one) for one in requirements if one.name not in pins or not one.specifier.contains(pins[one.name])]


def test_all_that_is_downloaded_is_pinned_with_hashes_at_versions_that_the_project_allows() -> None:
    """With every format and traces, but not the tools of those who work on it. `make lock` renews the pins."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    optional = document["project"]["optional-dependencies"]
    extras = optional.keys() - {"dev", "docs"}
    wanted = [*document["project"]["dependencies"], *(text for extra in extras for text in optional[extra])]

    assert {extra for extra, _ in EXTRAS.values()} <= extras
    assert _unmet(wanted, _pins(PINS)) == []
    assert _unmet(document["build-system"]["requires"], _pins(BUILD_PINS)) == []


def test_pip_downloads_nothing_else(instructions: list[Instruction]) -> None:
    commands = [command for name, text in instructions if name == "RUN" for command in text.split("&&")]
    with_pip = [command for command in commands if " pip " in command]

    assert len(with_pip) == 4
    for command in with_pip:
        assert "--require-hashes" in command or "--no-index --no-deps" in command


def test_what_is_installed_is_built_in_a_stage_of_its_own(instructions: list[Instruction]) -> None:
    """Neither the sources nor pip's cache are in the image that runs."""
    names = [name for name, _ in instructions]
    second = names.index("FROM", 1)
    copies = [text for name, text in instructions[second:] if name == "COPY"]

    assert names.count("FROM") == 2
    assert [text.split()[0] for text in copies] == ["--from=build"]
    assert not any("pip" in text for name, text in instructions[second:] if name == "RUN")


def test_python_is_one_that_the_project_takes(instructions: list[Instruction]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    images = {text.split()[0] for name, text in instructions if name == "FROM"}

    (image,) = images
    version = image.removeprefix("python:").removesuffix("-slim")

    assert f"Programming Language :: Python :: {version}" in project["classifiers"]


def test_it_does_not_run_as_root(instructions: list[Instruction]) -> None:
    """By number, since an orchestrator that refuses root cannot tell from a name."""
    names = [name for name, _ in instructions]
    user, group = _last(instructions, "USER").split(":")

    assert int(user) >= 10_000
    assert int(group) >= 10_000
    assert "RUN" not in names[names.index("USER") :]


def test_the_folder_where_it_starts_belongs_to_its_user(instructions: list[Instruction]) -> None:
    folder = _last(instructions, "WORKDIR")
    made = next(text for name, text in instructions if name == "RUN" and "useradd" in text)

    assert f"install --directory --owner connector --group connector {folder}" in " ".join(made.split())


def test_it_starts_the_console_script_with_a_command_that_exists(instructions: list[Instruction]) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    (entry,) = json.loads(_last(instructions, "ENTRYPOINT"))

    assert entry == PROGRAM
    assert entry in scripts
    assert problem_with(json.loads(_last(instructions, "CMD"))) is None


def test_the_console_script_is_on_the_path(instructions: list[Instruction]) -> None:
    environment = next(text for name, text in instructions if name == "ENV")
    copied = next(text.split()[-1] for name, text in instructions if name == "COPY" and "--from=" in text)

    assert environment == f"PATH={PurePosixPath(copied) / 'bin'}:$PATH"


def test_the_health_check_asks_a_page_that_exists_on_the_default_port(instructions: list[Instruction]) -> None:
    _, _, command = _last(instructions, "HEALTHCHECK").partition(" CMD ")
    program, option, code = json.loads(command)
    pages = (ROOT / "connector" / "app" / "pages.py").read_text()
    path = re.search(r"request\('GET', '(/\w+)'\)", code)
    compile(code, "healthcheck", "exec")

    assert (program, option) == ("python", "-c")
    assert path is not None
    assert f'web.get("{path[1]}"' in pages
    assert f"HTTPConnection('127.0.0.1', {WebSettings().port}, " in code
    assert _last(instructions, "EXPOSE") == str(WebSettings().port)


def test_every_instruction_can_be_split_into_words(instructions: list[Instruction]) -> None:
    known = {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}

    assert {name for name, _ in instructions} == known
    for name, text in instructions:
        if name in {"FROM", "RUN", "COPY"}:
            assert shlex.split(text)
