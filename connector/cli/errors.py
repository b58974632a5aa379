"""How commands end: their exit codes, and foreseeable trouble told in a few lines instead of a traceback.

What no line here knows is a bug, and keeps its traceback.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Final

import typer

from connector.config.problems import SettingsError
from connector.core.restarts import RestartPolicy


class ExitCode(IntEnum):
    """What the exit code of a command says. Published: a code never changes its meaning."""

    OK = 0
    """All is well."""
    FAILED = 1
    """The work failed, or a promise was found broken."""
    BAD_SETTINGS = 2
    """The settings or the arguments cannot be used."""
    BROKER_UNREACHABLE = 3
    """No broker answered."""
    INSTANCE_ID_IN_USE = 4
    """Another live worker has this instance id, or another redrive took the name over."""
    STOPPED_IN_DOUBT = 5
    """Stopped at the drain's deadline, with records in doubt."""
    PLATFORM_REFUSED = 6
    """The platform refused the key, the account or the list."""


RESTARTS: Final = RestartPolicy(
    order=(
        ExitCode.OK,
        ExitCode.STOPPED_IN_DOUBT,
        ExitCode.FAILED,
        ExitCode.PLATFORM_REFUSED,
        ExitCode.BROKER_UNREACHABLE,
        ExitCode.INSTANCE_ID_IN_USE,
        ExitCode.BAD_SETTINGS,
    ),
    final=frozenset({ExitCode.BAD_SETTINGS, ExitCode.INSTANCE_ID_IN_USE}),
    final_at_first=frozenset({ExitCode.BROKER_UNREACHABLE}),
    killed=ExitCode.STOPPED_IN_DOUBT,
    # A worker obeys SIGTERM in order from the moment on at which it may have begun anything.
    unborn=ExitCode.OK,
    unborn_signal=signal.SIGTERM,
)
"""What the exit codes of workers come to under a supervisor."""


class CommandError(Exception):
    """A command cannot go on for a reason that its user can mend: what happened, and the way out."""

    def __init__(self, message: str, code: ExitCode, *, way_out: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.way_out = way_out


@contextmanager
def reported(speaker: str = "") -> Iterator[None]:
    """Turn foreseeable trouble into a message on stderr and an exit code; serves as a decorator of commands, too.

    `speaker` stands before each line, where several processes share one stderr.
    """
    try:
        yield
    except SettingsError as error:
        _say(speaker, f"{error.source} cannot be used:", *(f"  {problem}" for problem in error.problems))
        raise typer.Exit(ExitCode.BAD_SETTINGS) from error
    except CommandError as error:
        _say(speaker, f"error: {error}", *([f"way out: {error.way_out}"] if error.way_out else []))
        raise typer.Exit(error.code) from error
    except Exception as error:
        code = _code_of(error)
        if code is None:
            raise
        _say(speaker, f"error: {error}")
        raise typer.Exit(code) from error


def _code_of(error: Exception) -> ExitCode | None:
    """Return the exit code of trouble that another part foresees, None when it is none of that.

    Imported here, since a command that never went near Kafka should not load it.
    """
    from connector.app.instance import InstanceIdInUseError  # noqa: PLC0415
    from connector.demo.artifacts import BrokerUnavailableError  # noqa: PLC0415
    from connector.kafka.errors import KafkaTroubleError  # noqa: PLC0415
    from connector.kafka.topics import TopicsMissingError  # noqa: PLC0415
    from connector.simulator.problems import InvalidInputError  # noqa: PLC0415
    from connector.workers.pages import PagesError  # noqa: PLC0415

    match error:
        case InstanceIdInUseError() | KafkaTroubleError(fenced=True):
            return ExitCode.INSTANCE_ID_IN_USE
        case KafkaTroubleError(unauthorized=True) | PagesError():
            return ExitCode.FAILED
        case KafkaTroubleError() | BrokerUnavailableError():
            return ExitCode.BROKER_UNREACHABLE
        case TopicsMissingError() | InvalidInputError():
            return ExitCode.BAD_SETTINGS
        case _:
            return None


def _say(speaker: str, *lines: str) -> None:
    """Write to stderr without markup: what is told may hold brackets."""
    sys.stderr.write("".join(f"{speaker}{line}\n" for line in lines))
