"""The documentation builds as a site without a warning, whole, and loads nothing from elsewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import pytest

from mkdocs_hooks import BESIDE, moved, place
from tests.deploy.conftest import ROOT
from tests.docs.pages import DOCUMENTS, blocks, name_of
from tests.kit.patience import PATIENCE_SECS

_IMAGE: Final = re.compile(r"<img [^>]*>", re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    arguments = ["build", "--quiet", "--strict", "--site-dir", str(folder)]
    # The theme tells of its successor, Zensical, wherever it is not told to be quiet.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECS,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    return folder


def test_it_has_every_document(site: Path) -> None:
    def page(name: str) -> Path:
        uri = re.sub(r"(^|/)(README|index)\.md$", r"\1", place(name)).removesuffix(".md")
        return site / uri / "index.html"

    assert [name_of(path) for path in DOCUMENTS if not page(name_of(path)).exists()] == []


def test_every_document_is_in_the_site_or_below_docs() -> None:
    assert [name for path in DOCUMENTS if not (name := name_of(path)).startswith("docs/") and name not in BESIDE] == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """Links lead out; scripts, styles, pictures and fonts do not."""
    loads = re.compile(
        r'<(?:script|img|iframe|source)[^>]*\ssrc="?(https?:)?//|<link(?![^>]*rel="?canonical)[^>]*href="?https?://'
    )
    pages = [page for page in site.rglob("*.html") if loads.search(page.read_text())]
    styles = [
        sheet for sheet in site.rglob("*.css") if re.search(r"url\(\s*['\"]?https?://|@import", sheet.read_text())
    ]

    assert pages == []
    assert styles == []


def test_no_document_has_a_diagram_that_only_a_script_would_show() -> None:
    """The site has no script for Mermaid and the like, which would show as their source: a diagram is a picture."""
    drawn = {"mermaid", "dot", "graphviz", "plantuml", "d2"}

    assert [name_of(path) for path in DOCUMENTS for block in blocks(path) if block.language in drawn] == []


@pytest.mark.parametrize("picture", sorted((ROOT / "docs").rglob("*.svg")), ids=name_of)
def test_a_picture_is_whole_shown_and_loads_nothing(picture: Path, site: Path) -> None:
    drawn = ET.parse(picture)
    loads = [value for node in drawn.iter() for name, value in node.items() if name.endswith(("href", "src"))]
    shown = [
        image for page in site.rglob("*.html") for image in _IMAGE.findall(page.read_text()) if picture.name in image
    ]

    assert drawn.getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert loads == []
    assert shown
    assert all(re.search(r'alt="[^"]{40,}"', image) for image in shown)
    assert (site / picture.relative_to(ROOT / "docs")).exists()


def test_files_that_documents_link_to_are_there(site: Path) -> None:
    assert (site / "schemas" / "outcome.v1.schema.json").read_text() == (
        ROOT / "schemas/outcome.v1.schema.json"
    ).read_text()


@pytest.mark.parametrize(
    ("source", "link", "found"),
    [
        ("README.md", "docs/how-to/holds.md", "how-to/holds.md"),
        ("README.md", "LICENSE", "LICENSE"),
        ("docs/how-to/holds.md", "../../README.md", "../index.md"),
        ("docs/how-to/holds.md", "health.md", "health.md"),
        ("docs/how-to/read-results.md", "../../schemas/x.json", "../schemas/x.json"),
        ("deploy/README.md", "../docs/how-to/health.md", "../how-to/health.md"),
        ("deploy/README.md", "compose.yaml", "compose.yaml"),
    ],
)
def test_links_are_as_they_are_in_the_site(source: str, link: str, found: str) -> None:
    assert moved(f"[a]({link}) [b]({link}#c) [d](https://e.example/{link})", source) == (
        f"[a]({found}) [b]({found}#c) [d](https://e.example/{link})"
    )
