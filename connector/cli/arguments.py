"""Arguments that several commands take, what they may name, and the question whether to go ahead."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from connector.cli.errors import CommandError
from connector.config.model import TOPIC_NAME
from connector.config.streams import StreamSettings

SettingsFile = Annotated[Path, typer.Argument(help="Settings file (YAML).", metavar="SETTINGS", show_default=False)]
StreamOption = Annotated[
    str | None, typer.Option(help="Name of the stream; may be left out if there is only one.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def stream_meant(settings: Path, streams: Sequence[StreamSettings], wanted: str | None) -> StreamSettings:
    """Return the stream with a name, or the only one; raises `CommandError`."""
    meant = [stream for stream in streams if wanted in {None, stream.name}]
    if len(meant) == 1:
        return meant[0]
    names = ", ".join(stream.name for stream in streams)
    if meant:
        raise CommandError(f"{settings} has several streams", way_out=f"give --stream, one of: {names}")
    raise CommandError(f"{settings} has no stream {wanted}", way_out=f"one of: {names}")


def topic_named(option: str, name: str) -> str:
    """Return the name in an option; raises `CommandError` if no topic can have it.

    Brokers do not report this for a topic that is read: they say that it does not exist, or nothing.
    """
    if re.fullmatch(TOPIC_NAME, name) is None or name in {".", ".."}:
        raise CommandError(
            f"{option} is not a valid topic name", way_out="letters, digits, dots, underscores and hyphens, 249 at most"
        )
    return name


def is_confirmed(question: str) -> bool:
    """Ask for confirmation; without a terminal, as in a cron job, the answer is no."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort as abort:
        typer.echo(err=True)  # the question has no line end
        if isinstance(abort.__context__, EOFError):
            return False
        raise KeyboardInterrupt from abort
