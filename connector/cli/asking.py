"""What commands ask their user: which stream, and whether to go ahead."""

from collections.abc import Sequence
from pathlib import Path

import typer

from connector.cli.errors import CommandError
from connector.config.streams import StreamSettings


def stream_meant(settings: Path, streams: Sequence[StreamSettings], wanted: str | None) -> StreamSettings:
    """Return the stream with a name, or the only one; raises `CommandError`."""
    meant = [stream for stream in streams if wanted in {None, stream.name}]
    if len(meant) == 1:
        return meant[0]
    names = ", ".join(stream.name for stream in streams)
    if meant:
        raise CommandError(f"{settings} has several streams", way_out=f"give --stream, one of: {names}")
    raise CommandError(f"{settings} has no stream {wanted}", way_out=f"one of: {names}")


def is_confirmed(question: str) -> bool:
    """Ask for confirmation; without a terminal, as in a cron job, the answer is no."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort as abort:
        typer.echo(err=True)  # the question has no line end
        if isinstance(abort.__context__, EOFError):
            return False
        raise KeyboardInterrupt from abort
