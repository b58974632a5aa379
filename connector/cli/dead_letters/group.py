"""The group of commands under `trackly-connector dead-letters`."""

import typer

from connector.cli.dead_letters.copying import export, import_letters
from connector.cli.dead_letters.doubting import in_doubt
from connector.cli.dead_letters.reading import list_letters, show, stats
from connector.cli.dead_letters.redriving import park, redrive

dead_letters = typer.Typer()
for name, command in {
    "stats": stats,
    "list": list_letters,
    "show": show,
    "redrive": redrive,
    "park": park,
    "export": export,
    "import": import_letters,
    "in-doubt": in_doubt,
}.items():
    dead_letters.command(name)(command)
