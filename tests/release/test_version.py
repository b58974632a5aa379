"""Whatever names the version names the same one: package, chart, changelog, and the tag of a release."""

import json
import os
import re
import tomllib
from typing import Final

import pytest
import yaml

from connector import __version__
from connector.config.schemas import schema_names
from tests.deploy.conftest import DEPLOY, ROOT

TAG: Final = os.environ.get("RELEASE_TAG", "")
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_package_is_of_one_version() -> None:
    assert PROJECT["version"] == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_the_chart_runs_this_version() -> None:
    chart = yaml.safe_load((DEPLOY / "helm" / "trackly-connector" / "Chart.yaml").read_text())

    assert chart["appVersion"] == __version__


def test_the_changelog_tells_of_this_version() -> None:
    """Under its own heading, with a date, or under what is not released yet, which says what it will be."""
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[([^\]]+)\](?: - (\d{4}-\d{2}-\d{2}))?$", text, re.MULTILINE)
    released = [version for version, date in headings if date]

    if headings[0] == ("Unreleased", ""):
        unreleased = text.partition("## [Unreleased]")[2].partition("\n## ")[0]
        assert f"Will be {__version__}" in unreleased
        assert __version__ not in released
    else:
        assert headings[0][0] == __version__


def test_the_tag_is_that_of_a_version_with_a_date() -> None:
    """Before a release, when there is no tag, a version without a date is one that the changelog has as unreleased."""
    text = (ROOT / "CHANGELOG.md").read_text()
    dated = re.search(rf"^## \[{re.escape(__version__)}\] - \d{{4}}-\d{{2}}-\d{{2}}$", text, re.MULTILINE)

    if TAG:
        assert f"v{__version__}" == TAG
        assert dated
    else:
        assert bool(dated) != (f"Will be {__version__}" in text)


@pytest.mark.parametrize("path", sorted((ROOT / "schemas").glob("*.schema.json")), ids=lambda path: path.name)
def test_a_schema_says_which_version_of_a_format_it_is(path: object) -> None:
    name, version = re.fullmatch(r".*/(.+)\.(v\d+)\.schema\.json", str(path)).groups()  # type: ignore[union-attr]
    schema = json.loads((ROOT / "schemas" / f"{name}.{version}.schema.json").read_text())

    assert schema["$id"].endswith(f":{version}")
    assert f"{name}.{version}" in schema_names()
