"""`trackly-connector schema`: the JSON Schemas that ship with the connector."""

import json
from typing import Annotated

import typer

from connector.cli.errors import CommandError, reported
from connector.config.schemas import read_schema, schema_names


@reported()
def schema(
    name: Annotated[
        str | None,
        typer.Argument(help="Schema to print: `settings.v1`, or `settings` for its newest version.", metavar="NAME"),
    ] = None,
    list_names: Annotated[bool, typer.Option("--list", help="Print the names of all schemas.")] = False,
) -> None:
    """Print a JSON Schema: of the settings, of outcomes, of dead letters, of events. Without a name: their names."""
    if name is None or list_names:
        for known in schema_names():
            typer.echo(known)
        return
    try:
        content = read_schema(name)
    except KeyError as error:
        raise CommandError(f"there is no schema {name}", way_out=f"one of: {', '.join(schema_names())}") from error
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
