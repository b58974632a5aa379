"""Markdown of the generated pages."""

from collections.abc import Iterable


def page(title: str, *sections: str) -> str:
    """Return a page: its title, then its sections, separated by blank lines."""
    return "\n\n".join([f"# {title}", *sections]) + "\n"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table; bars in cells are escaped."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
