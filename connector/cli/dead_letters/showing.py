"""Prints dead letters for people and programs, with numbers and texts masked unless they should be revealed."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import typer
from rich.table import Table
from rich.text import Text

from connector.cli.printing import console, json_text, plain, table
from connector.deadletters.letters import Letter
from connector.deadletters.telling import shown

_LISTED: Final = ["position", "at", "stream", "reason", "code", "text", "http_status", "attempts", "redrives", "source"]
"""Columns of a list of dead letters."""


def print_json(value: Any) -> None:
    """Print one JSON document."""
    typer.echo(json_text(value, indent=2))


def print_letter(letter: Letter, *, reveal: bool) -> None:
    """Print one dead letter for people."""
    told = shown(letter, reveal=reveal)
    out = console()
    grid = Table.grid(padding=(0, 2))
    for name, value in told.items():
        if name not in {"headers", "value"}:
            grid.add_row(Text(name, style="dim"), plain(value))
    out.print(grid)
    headers = table("name", "value", title="headers")
    for name, value in told["headers"]:
        headers.add_row(plain(name), plain("null" if value is None else value))
    out.print(headers)
    out.print(Text("value", style="bold"))
    value = told["value"]
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    out.print(plain(text, keep_lines=True))
    if not reveal:
        out.print(
            Text("Numbers, addresses, texts, keys and foreign headers are hidden; --reveal shows them.", style="dim")
        )


def print_letters(letters: Iterable[Letter], *, reveal: bool) -> None:
    """Print a table of dead letters for people."""
    listed = list(letters)
    one_topic = len({letter.partition.topic for letter in listed}) == 1
    if one_topic:
        console().print(plain(f"positions in {listed[0].partition.topic}", style="dim"))
    told = [shown(letter, reveal=reveal) for letter in listed]
    if one_topic:
        for one, letter in zip(told, listed, strict=True):
            one["position"] = f"{letter.partition.number}:{letter.offset}"
    # A terminal is narrow: columns that are empty for all are left out.
    names = [name for name in _LISTED if any(one[name] is not None for one in told)]
    rows = table(*(name.removeprefix("http_") for name in names))
    for one in told:
        rows.add_row(*(plain(one[name]) for name in names))
    console().print(rows)


def print_counts(title: str, rows: Mapping[str, int], *, bars: bool = False) -> None:
    """Print counts under a title."""
    most = max(rows.values(), default=0)
    counts = Table(box=None, show_header=False, padding=(0, 2))
    counts.add_column(overflow="fold")
    counts.add_column(justify="right")
    for name, count in rows.items():
        cells = [plain(name), Text(f"{count:,}")]
        if bars:
            cells.append(Text("#" * (round(40 * count / most) if most else 0)))
        counts.add_row(*cells)
    out = console()
    out.print(plain(title, style="bold"))
    out.print(counts)
