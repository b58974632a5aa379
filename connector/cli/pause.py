"""`trackly-connector pause`: make a stream start nothing more until it is resumed, on each given worker."""

import getpass
import socket
from contextlib import suppress
from typing import Annotated

import typer

from connector.cli.errors import ExitCode, reported
from connector.cli.workers import AsLines, Form, StreamName, WorkerConfig, WorkerUrls, send_to_workers


@reported()
def pause(
    stream: StreamName,
    *,
    config: WorkerConfig = None,
    url: WorkerUrls = None,
    note: Annotated[str, typer.Option(help="The reason, for whoever finds it paused; at most 200 characters.")] = "",
    as_json: AsLines = False,
) -> None:
    """Pause a stream: it starts nothing more; what is in flight finishes, and nothing is lost.

    It ends with `resume`, and also when the worker's process ends. The token is taken from the settings file, or from
    the variable TRACKLY_CONNECTOR_TOKEN. Exit code 1: a worker cannot be reached or rejects the request.
    """
    form: Form = [("by", _who()), *([("note", note)] if note else [])]
    answers = send_to_workers(config, url, stream, "pause", form, as_json=as_json)
    if not all(answer.ok for answer in answers):
        raise typer.Exit(ExitCode.FAILED)


def _who() -> str:
    """Return who runs the command, as far as the machine knows."""
    name = "somebody"
    with suppress(KeyError, OSError):
        name = getpass.getuser()
    return f"{name} at {socket.gethostname()}"[:200]
