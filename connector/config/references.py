"""References in settings: `${env:NAME}` and `${file:PATH}` inside any text, `$${` for a plain `${`.

They are the only way from the environment into the settings, and visible in the file. What a reference inserts is not
resolved again: a password may contain `${`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MAX_FILE_BYTES: Final = 65_536  # far above any key or password; protects against a path of a log or a device

_TOKEN = re.compile(r"\$\$\{|\$\{(?P<body>[^}]*)(?P<end>\}?)")
_FORMS = "use ${env:NAME} or ${file:PATH}, or $${ for a plain ${"


class UnresolvedReferenceError(Exception):
    """A reference cannot be resolved; the message says why, and never what it would have inserted."""


def has_reference(text: str) -> bool:
    """Return whether a text contains anything that `resolve` would replace."""
    return _TOKEN.search(text) is not None


def reads_file(text: str) -> bool:
    """Return whether a text contains a file reference, whose value may change while we run."""
    return any((match["body"] or "").startswith("file:") for match in _TOKEN.finditer(text))


def resolve(text: str, *, base: Path, environ: Mapping[str, str]) -> str:
    """Return a text with every reference replaced; relative files start at `base`.

    Raises UnresolvedReferenceError for an unknown form, a variable that is not set and a file that cannot be read.
    """

    def replace(match: re.Match[str]) -> str:
        body = match["body"]
        if body is None:
            return "${"
        if not match["end"]:
            raise UnresolvedReferenceError(f"has a reference without its closing brace; {_FORMS}")
        kind, _, name = body.partition(":")
        if kind not in {"env", "file"} or not name or name != name.strip():
            raise UnresolvedReferenceError(f"has a reference in an unknown form; {_FORMS}")
        return _variable(name, environ) if kind == "env" else _file(Path(base, name))

    return _TOKEN.sub(replace, text)


def _variable(name: str, environ: Mapping[str, str]) -> str:
    try:
        return environ[name]
    except KeyError:
        raise UnresolvedReferenceError(f"environment variable {name} is not set") from None


def _file(path: Path) -> str:
    """Return the text of a file without the line break at its end, which editors and `echo` add."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = error.strerror if isinstance(error, OSError) else None
        raise UnresolvedReferenceError(f"cannot read file {path}: {reason or 'not a valid name'}") from error
    if len(content) > MAX_FILE_BYTES:
        raise UnresolvedReferenceError(f"file {path} has more than {MAX_FILE_BYTES} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise UnresolvedReferenceError(f"file {path} is not UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")


@dataclass(frozen=True, slots=True)
class Origin:
    """The file that settings came from, and its texts with file references.

    Its content is kept: the file may have changed since, or, like a pipe, be readable only once.
    """

    source: Path
    templates: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # dotted path, text as in the file
    content: bytes = field(default=b"", repr=False)
