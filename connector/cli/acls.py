"""`trackly-connector acls`: the Kafka permissions that the settings require, in several formats."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer
import yaml
from rich.table import Table
from rich.text import Text

from connector.app.loading import load
from connector.cli.arguments import SettingsFile
from connector.cli.errors import CommandError, reported
from connector.cli.printing import console, table

if TYPE_CHECKING:
    from connector.app.acls import Acl


@reported()
def acls(
    settings: SettingsFile,
    *,
    of_commands: Annotated[
        bool, typer.Option("--dead-letters", help="What the dead-letters commands need, instead of what workers need.")
    ] = False,
    principal: Annotated[
        str | None,
        typer.Option(
            help="The principal, as TYPE:NAME, such as User:connector; taken from the settings when left out."
        ),
    ] = None,
    form: Annotated[
        Literal["table", "commands", "strimzi", "json"],
        typer.Option(
            "--format", help="table; commands: kafka-acls.sh commands; strimzi: part of a KafkaUser; or json."
        ),
    ] = "table",
) -> None:
    """Print exactly which Kafka permissions these settings need; no broker is contacted.

    `check --online` lists those that are missing.
    """
    from connector.app.acls import commands, needed, principal_of, strimzi

    if principal is not None:
        _refuse_without_type(principal)
    loaded = load(settings, asks=())
    wanted = needed(loaded, "dead_letters" if of_commands else "worker")
    whom = principal or principal_of(loaded)
    match form:
        case "table":
            console().print(_table(wanted))
        case "commands":
            for line in commands(wanted, bootstrap_servers=loaded.kafka.bootstrap_servers, principal=whom):
                typer.echo(line)
        case "strimzi":
            authorization = {"type": "simple", "acls": strimzi(wanted)}
            typer.echo(yaml.safe_dump({"spec": {"authorization": authorization}}, sort_keys=False), nl=False)
        case "json":
            typer.echo(json.dumps([asdict(acl) for acl in wanted], indent=2))


def _refuse_without_type(principal: str) -> None:
    """Raise `CommandError` for a principal without type: Kafka's tools reject it, and `bob` may have another type."""
    kind, colon, name = principal.partition(":")
    if not kind or not name:
        name = (name if colon else kind) or "connector"
        raise CommandError(
            f"--principal {principal} is not of the form TYPE:NAME",
            way_out=f"add the type, such as User:{name}",
        )


def _table(wanted: "list[Acl]") -> Table:
    rows = table("Stream", "Resource", "Name", "Operation", "For")
    for acl in wanted:
        name = f"{acl.name}*" if acl.prefixed else acl.name
        rows.add_row(*map(Text, (acl.owner, acl.kind.replace("_", " "), name, acl.operation, acl.why)))
    return rows
