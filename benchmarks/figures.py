"""Figures beside what they should be, and how they are shown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured, beside what it should be at most (or, with `at_least`, at least), if anything."""

    name: str
    measured: float
    limit: float | None = None
    unit: str = ""
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether it is as it should be."""
        if self.limit is None:
            return True
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    @property
    def wanted(self) -> str:
        """The limit, as text."""
        return "" if self.limit is None else f"at {'least' if self.at_least else 'most'} {self.limit:,g} {self.unit}"


def show(console: Console, title: str, figures: Sequence[Figure]) -> None:
    """Print a table of figures."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for column in ("", "measured", "wanted", " "):
        table.add_column(column, justify="right" if column.strip() else "left")
    for figure in figures:
        verdict = "" if figure.limit is None else "[green]pass[/]" if figure.met else "[red]miss[/]"
        table.add_row(figure.name, f"{figure.measured:,.2f} {figure.unit}", figure.wanted, verdict)
    console.print(table)
