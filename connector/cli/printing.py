"""How commands print for people: no record gives commands to the terminal, and nothing wraps in a pipe.

Where there is no terminal, whoever reads is `grep` or a file: each row of a table is one line, however long, and
nothing is drawn around it.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from connector.telemetry.logging import disarm

ENDLESS: Final = 1 << 30
"""Columns of what is no terminal."""

_LEFT_BY_JSON: Final = re.compile(r"[\x7f-\x9f\u2028\u2029]")


def console() -> Console:
    """Return where people read; nothing that is printed is taken for markup."""
    out = Console(highlight=False, emoji=False, markup=False)
    if not out.is_terminal:
        out.width = ENDLESS  # whatever COLUMNS says, which is about the terminal that is not written to
    return out


def table(*headings: str, title: str | None = None, ruled: bool = False) -> Table:
    """Return a table without rows; on a terminal it has a frame, and lines between its rows if it is `ruled`."""
    framed = console().is_terminal
    box = HEAVY_HEAD if framed else None
    made = Table(title=title, title_justify="left", box=box, show_lines=ruled and framed, pad_edge=framed)
    for heading in headings:
        made.add_column(heading, overflow="fold")
    return made


def pairs(rows: Iterable[tuple[str, str]]) -> Table:
    """Return names and what they stand for, in two columns, set in."""
    grid = Table.grid(padding=(0, 1))
    for name, value in rows:
        grid.add_row(plain(f"  {name}", style="dim"), plain(value))
    return grid


def plain(value: object, *, style: str = "", keep_lines: bool = False) -> Text:
    """Return a value as it is printed: None as nothing, control characters spelled out."""
    return Text("" if value is None else disarm(str(value), keep_lines=keep_lines), style=style)


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON that a terminal may be given: JSON itself escapes no control characters above 0x1f."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _LEFT_BY_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
