"""Puts the documents of the source tree that are not below `docs` into the site, and mends the links between them.

Documents link to one another, and to files, by their places in the source tree, where people read them as well. In the
site the README is the first page, `docs` is the root, and whatever else a document links to lies beside it.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).parent
BESIDE: Final = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/README.md", "schemas/README.md")
"""Documents outside of `docs`."""

_LINK: Final = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")


def place(source: str) -> str:
    """Return where a file of the source tree lies in the site."""
    return "index.md" if source == "README.md" else source.removeprefix("docs/")


def moved(text: str, source: str) -> str:
    """Return a document with its links as they are in the site."""
    here = posixpath.dirname(place(source)) or "."

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        return posixpath.relpath(place(target), here)

    return _LINK.sub(link, text)


def linked_files(text: str, source: str) -> Iterator[str]:
    """Yield the files that a document links to and that are no documents."""
    for target in _LINK.findall(text):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if not path.endswith(".md") and (ROOT / path).is_file():
            yield path


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add what lies outside of `docs`: documents, and the files that any document links to."""
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in BESIDE}
    texts |= {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    for name in sorted({path for source, text in texts.items() for path in linked_files(text, source)}):
        if files.get_file_from_path(place(name)) is None:
            files.append(File.generated(config, place(name), abs_src_path=str(ROOT / name)))
    for name in BESIDE:
        files.append(File.generated(config, place(name), content=moved(texts[name], name)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Mend the links of a document below `docs`."""
    source = page.file.src_uri
    return markdown if page.file.generated_by is not None else moved(markdown, f"docs/{source}")
