"""Shipped schemas are found by name, in a source tree and in an installed package."""

import json
from pathlib import Path

import pytest

from connector.config import schemas


def _write(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True)
    for name in names:
        (folder / f"{name}.schema.json").write_text(json.dumps({"$id": name}))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site" / "connector"
    folder.mkdir(parents=True)
    monkeypatch.setattr(schemas, "_PACKAGE", folder)
    return folder


def test_the_source_tree_ships_the_settings() -> None:
    assert "settings.v1" in schemas.schema_names()
    assert schemas.read_schema("settings")["$id"] == "urn:trackly-connector:settings:v1"


def test_an_installed_package_carries_its_own(package: Path) -> None:
    _write(package.parent / "schemas", "beside.v1")
    _write(package / "_schemas", "outcome.v1", "events.send.v1")

    assert schemas.schema_dir() == package / "_schemas"
    assert schemas.schema_names() == ["events.send.v1", "outcome.v1"]


def test_a_source_tree_has_them_beside_the_package(package: Path) -> None:
    _write(package.parent / "schemas", "beside.v1")

    assert schemas.schema_names() == ["beside.v1"]


def test_a_name_without_version_means_the_newest(package: Path) -> None:
    _write(package / "_schemas", "outcome.v2", "outcome.v10", "outcome.v1", "outcome.vast")

    assert schemas.read_schema("outcome")["$id"] == "outcome.v10"
    assert schemas.read_schema("outcome.v2")["$id"] == "outcome.v2"


@pytest.mark.parametrize("name", ["nothing", "outcome.v2", "", "../outcome.v1"])
def test_an_unknown_name_is_a_key_error(name: str, package: Path) -> None:
    _write(package / "_schemas", "outcome.v1")

    with pytest.raises(KeyError):
        schemas.read_schema(name)


def test_a_broken_installation_says_so(package: Path) -> None:
    with pytest.raises(FileNotFoundError, match="install the package again"):
        schemas.schema_dir()

    assert package.exists()
