"""How the printed pages spell a page and a table."""

from collections.abc import Iterable


def page(title: str, *sections: str) -> str:
    """Return a page in Markdown: its title, then its sections with blank lines between."""
    return "\n\n".join([f"# {title}", *sections]) + "\n"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table in Markdown; a bar in a cell is told from the table's own."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
