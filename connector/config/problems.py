"""What is wrong with a settings file: one value per problem, and the error that contains all of them.

A message names the setting and the rule and never repeats the value, because any value may be a secret in the wrong
line.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

KeyPath = tuple[str | int, ...]
"""The path of a value in the file: keys and indices from the top."""

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def dotted(path: KeyPath) -> str:
    """Return a path as people write it: `streams[0].batch.max_records`, `kafka.properties["group.id"]`."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        elif _PLAIN_KEY.fullmatch(key):
            text += f".{key}" if text else key
        else:
            text += f'["{key}"]'
    return text


def number(value: float) -> str:
    """Return a number without a needless fraction or exponent."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


@dataclass(frozen=True, slots=True)
class Fault:
    """What one pass found wrong, and which other settings it looked at.

    If one of those is wrong already, the fault may only be a consequence, and is not reported.
    """

    path: KeyPath
    message: str
    looked_at: tuple[KeyPath, ...] = ()
    line: int | None = None
    offset: int | None = None
    """Position in the text of the value, in characters from 0."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to fix: where, what, and in which line and column (from 1), if known."""

    path: str
    message: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        if self.line is None:
            return f"{where}{self.message}"
        column = "" if self.column is None else f", column {self.column}"
        return f"{where}{self.message} (line {self.line}{column})"


class SettingsError(Exception):
    """The settings cannot be used; `problems` lists everything that is wrong, in the order of the file."""

    def __init__(self, source: Path | str, problems: Iterable[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @property
    def lines(self) -> list[str]:
        """What a user is shown: the source, and a line for each problem."""
        return [f"{self.source} cannot be used:", *(f"  {problem}" for problem in self.problems)]
