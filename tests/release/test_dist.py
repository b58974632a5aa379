"""What is released: built once, complete, and at work in an environment that has nothing else of ours."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from connector import __version__
from connector.config.schemas import schema_names
from connector.demo.finding import BrokerHandle
from tests.deploy.conftest import ROOT


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build as `make dist` does: the sdist from the tree, the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    argv = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


def test_names_are_those_of_the_version(dist: Path) -> None:
    assert {path.name for path in dist.iterdir()} == {
        f"trackly_connector-{__version__}-py3-none-any.whl",
        f"trackly_connector-{__version__}.tar.gz",
    }


def test_the_wheel_has_code_schemas_and_licence_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    there = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "connector").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert there <= names
    assert {f"connector/_schemas/{name}.schema.json" for name in schema_names()} <= names
    assert f"trackly_connector-{__version__}.dist-info/licenses/LICENSE" in names
    assert {name.partition("/")[0] for name in names} == {"connector", f"trackly_connector-{__version__}.dist-info"}


def test_the_sdist_has_what_the_wheel_is_built_of(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        tops = {name.split("/")[1] for name in archive.getnames()}

    assert {"connector", "schemas", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= tops
    assert tops.isdisjoint({"tests", "benchmarks", "reference", ".github", ".venv"})


def test_the_demo_runs_from_the_wheel_in_a_clean_environment(wheel: Path, broker: BrokerHandle, tmp_path: Path) -> None:
    """With the newest dependencies that the wheel allows, away from the source tree, nothing else installed."""
    clean = tmp_path / "clean"
    uv = Path(sys.executable).with_name("uv")
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}

    def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return result

    run(uv, "venv", "--quiet", "--python", sys.executable, clean)
    run(uv, "pip", "install", "--quiet", "--python", clean, wheel)
    program = clean / "bin" / "trackly-connector"
    where = run(clean / "bin" / "python", "-c", "import connector; print(connector.__file__)").stdout
    assert str(clean) in where
    assert run(program, "--version").stdout == f"trackly-connector {__version__}\n"
    assert run(program, "schema", "settings").stdout == (ROOT / "schemas" / "settings.v1.schema.json").read_text()

    told = run(program, "demo", "--events", "3000", "--bootstrap-servers", broker.bootstrap_servers, "--json").stdout

    summary = json.loads(told.splitlines()[-1])
    assert summary["produced"] == 3000
    assert (summary["lost"], summary["accepted_twice"]) == (0, 0)
