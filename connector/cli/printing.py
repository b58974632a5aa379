"""How commands print for people: records cannot control the terminal, and nothing wraps in a pipe.

Without a terminal, the reader is `grep` or a file: each row of a table is one line, however long, without frames.
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
"""Columns without a terminal."""

_LEFT_BY_JSON: Final = re.compile(r"[\x7f-\x9f\u2028\u2029]")


def console() -> Console:
    """Return the console for people; nothing printed on it is taken for markup."""
    out = Console(highlight=False, emoji=False, markup=False)
    if not out.is_terminal:
        out.width = ENDLESS  # COLUMNS is about a terminal that is not written to
    return out


def table(*headings: str, title: str | None = None, ruled: bool = False) -> Table:
    """Return an empty table; on a terminal with a frame, and lines between rows if `ruled`."""
    framed = console().is_terminal
    box = HEAVY_HEAD if framed else None
    made = Table(title=title, title_justify="left", box=box, show_lines=ruled and framed, pad_edge=framed)
    for heading in headings:
        made.add_column(heading, overflow="fold")
    return made


def pairs(rows: Iterable[tuple[str, str]]) -> Table:
    """Return an indented table of names and values."""
    grid = Table.grid(padding=(0, 1))
    for name, value in rows:
        grid.add_row(plain(f"  {name}", style="dim"), plain(value))
    return grid


def plain(value: object, *, style: str = "", keep_lines: bool = False) -> Text:
    """Return a value for printing: None is empty, control characters are escaped."""
    return Text("" if value is None else disarm(str(value), keep_lines=keep_lines), style=style)


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON that is safe on a terminal: JSON itself escapes no control characters above 0x1f."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _LEFT_BY_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
