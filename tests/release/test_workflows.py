"""The workflows are sound: their schema, their expressions, pinned actions, and no more rights than they need."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml

from tests.deploy.conftest import ROOT, vendored_schemas
from tests.kit.go_tools import BUILD_SECS, ToolUnavailableError, tool
from tests.kit.programs import leave_out

WORKFLOWS: Final = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
_PINNED: Final = re.compile(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40}$")
_MAKE: Final = re.compile(r'\bmake "?(test-\$BOUND|[a-z-]+)')

each = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def _content(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def _as_json(path: Path) -> Any:
    """Return a workflow as its schema sees it: YAML 1.1 takes the key `on` for a switch."""
    return {{True: "on"}.get(key, key): value for key, value in _content(path).items()}  # type: ignore[call-overload]


def _tool(name: str, *arguments: str) -> None:
    program = Path(sys.executable).with_name(name)
    result = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_there_are_two() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "release.yml"]


@each
def test_the_schema_of_workflows_is_kept(path: Path) -> None:
    schema = json.loads((vendored_schemas() / "github-workflows.json").read_text())

    jsonschema.validate(_as_json(path), schema, cls=jsonschema.Draft7Validator)


@each
def test_nothing_is_found_that_an_attacker_could_use(path: Path) -> None:
    _tool("zizmor", "--offline", "--quiet", "--no-progress", "--persona", "pedantic", str(path))


@pytest.mark.timeout(BUILD_SECS + 60)
def test_expressions_and_scripts_are_sound() -> None:
    try:
        actionlint = tool("actionlint")
    except ToolUnavailableError as error:
        leave_out(str(error))

    argv = [str(actionlint), "-no-color", *map(str, WORKFLOWS)]
    result = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr


@each
def test_actions_are_pinned_by_commit_and_one_commit_is_one_version(path: Path) -> None:
    lines = re.findall(r"uses: (\S+) # (v[\d.]+)$", path.read_text(), re.MULTILINE)
    used = [step["uses"] for job in _content(path)["jobs"].values() for step in job["steps"] if "uses" in step]

    assert [action for action, _ in lines] == used, "each has its version behind it"
    assert all(_PINNED.match(action) for action in used)
    everywhere = {line for each in WORKFLOWS for line in re.findall(r"uses: (\S+)@(\S+) # (v[\d.]+)", each.read_text())}
    assert len({action for action, *_ in everywhere}) == len(everywhere)


@each
def test_jobs_have_no_rights_but_those_that_are_named_and_end_some_time(path: Path) -> None:
    workflow = _content(path)
    writes = [
        (name, right)
        for name, job in workflow["jobs"].items()
        for right, level in (job.get("permissions") or {}).items()
        if level == "write"
    ]

    assert workflow["permissions"] in ({}, {"contents": "read"})
    assert writes == ([("publish", "id-token"), ("publish", "attestations")] if path.name == "release.yml" else [])
    assert all(job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())


@each
def test_targets_that_are_called_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = set(_MAKE.findall(path.read_text()))
    bounds = {"test-lowest", "test-latest"} if "test-$BOUND" in called else set()

    assert called
    assert (called - {"test-$BOUND"}) | bounds <= targets
