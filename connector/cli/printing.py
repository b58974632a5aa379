"""How commands print for people: no record gives commands to the terminal."""

from rich.console import Console
from rich.text import Text

from connector.telemetry.logging import disarm


def console() -> Console:
    """Return where people read; nothing that is printed is taken for markup."""
    return Console(highlight=False, emoji=False, markup=False)


def plain(value: object, *, style: str = "", keep_lines: bool = False) -> Text:
    """Return a value as it is printed: None as nothing, control characters spelled out."""
    return Text("" if value is None else disarm(str(value), keep_lines=keep_lines), style=style)
