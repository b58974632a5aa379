"""How commands end: their exit codes, and foreseeable trouble told in a few lines instead of a traceback.

What no line here knows is a bug, and keeps its traceback.
"""

import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from typing import Final, NamedTuple

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
    INTERRUPTED = 130
    """A command was ended by Ctrl-C (SIGINT) before it was done; `run` stops in order then, as after SIGTERM."""


WAYS_OUT: Final[Mapping[ExitCode, str]] = {
    ExitCode.OK: "",
    ExitCode.FAILED: "stderr says what failed; of a worker, the log's last error does",
    ExitCode.BAD_SETTINGS: "mend what stderr names; `trackly-connector check` names all that is wrong with settings",
    ExitCode.BROKER_UNREACHABLE: "see that `kafka.bootstrap_servers` and `kafka.security` are right, and the way free",
    ExitCode.INSTANCE_ID_IN_USE: "give each worker an `instance_id` of its own; of two redrives let the other finish",
    ExitCode.STOPPED_IN_DOUBT: (
        "nothing is lost: the next worker names what is in doubt. Where requests may take longer, raise "
        "`delivery.drain_secs` and `shutdown.grace_secs`"
    ),
    ExitCode.INTERRUPTED: "type it again; what writes records goes on where it was",
    ExitCode.PLATFORM_REFUSED: "the findings of `check --online` say which of them, and what to do",
}
"""What to do about each."""


RESTARTS: Final = RestartPolicy(
    order=(
        ExitCode.OK,
        ExitCode.INTERRUPTED,  # before it had begun anything
        ExitCode.STOPPED_IN_DOUBT,
        ExitCode.FAILED,
        ExitCode.PLATFORM_REFUSED,
        ExitCode.BROKER_UNREACHABLE,
        ExitCode.INSTANCE_ID_IN_USE,
        ExitCode.BAD_SETTINGS,
    ),
    final=frozenset({ExitCode.INSTANCE_ID_IN_USE}),
    # Later the others go on, and what is missing (a secret's file, a topic, brokers) may come back.
    final_at_first=frozenset({ExitCode.BAD_SETTINGS, ExitCode.BROKER_UNREACHABLE}),
    killed=ExitCode.STOPPED_IN_DOUBT,
    # A worker obeys SIGTERM in order from the moment on at which it may have begun anything.
    unborn=ExitCode.OK,
    unborn_signal=signal.SIGTERM,
)
"""What the exit codes of workers come to under a supervisor."""


class CommandError(Exception):
    """A command cannot go on for a reason that its user can mend: what happened, and the way out.

    Most often that is what was typed, and the exit code says so.
    """

    def __init__(self, message: str, code: ExitCode = ExitCode.BAD_SETTINGS, *, way_out: str) -> None:
        super().__init__(message)
        self.code = code
        self.way_out = way_out


def why_unread(error: Exception) -> str:
    """Return why a file cannot be read or written, for a message that names the file."""
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8 text"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


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
        _say(speaker, f"error: {error}", f"way out: {error.way_out}")
        raise typer.Exit(error.code) from error
    except Exception as error:
        ending = next((ending for ending in endings() if ending.matches(error)), None)
        if ending is None:
            raise
        _say(speaker, f"error: {error}", f"way out: {ending.way_out}")
        raise typer.Exit(ending.code) from error


class Ending(NamedTuple):
    """Trouble that another part foresees: what happened, the exit code that it comes to, and the way out."""

    when: str
    code: ExitCode
    way_out: str
    matches: Callable[[Exception], bool]


def endings() -> tuple[Ending, ...]:
    """Return all of it; the first that matches decides.

    Imported here, since a command that never went near Kafka should not load it.
    """
    from connector.app.instance import InstanceIdInUseError, TemporaryFolderError
    from connector.console.listening import PagesError
    from connector.demo.artifacts import BrokerUnavailableError
    from connector.kafka.errors import KafkaTroubleError
    from connector.kafka.scanning import NoSuchTopicError
    from connector.kafka.topics import TopicRefusedError, TopicsMissingError

    return (
        Ending(
            "a live worker has the same instance id, on this host or in the group",
            ExitCode.INSTANCE_ID_IN_USE,
            "set another instance_id, or end the other worker",
            lambda error: isinstance(error, InstanceIdInUseError),
        ),
        Ending(
            "Kafka fenced the process: another one came under its name",
            ExitCode.INSTANCE_ID_IN_USE,
            "see that no two processes have one instance_id or one --name",
            lambda error: isinstance(error, KafkaTroubleError) and error.fenced,
        ),
        Ending(
            "Kafka does not allow it",
            ExitCode.FAILED,
            "trackly-connector check SETTINGS --online names the right that is missing, and how to give it",
            lambda error: isinstance(error, KafkaTroubleError) and error.unauthorized,
        ),
        Ending(
            "no broker answered, or not in time",
            ExitCode.BROKER_UNREACHABLE,
            "see that kafka.bootstrap_servers and kafka.security are right and the brokers can be reached",
            lambda error: isinstance(error, KafkaTroubleError),
        ),
        Ending(
            "a broker does not create a topic as it is asked to",
            ExitCode.BAD_SETTINGS,
            "mend the stream's create_topics, or create the topic yourself; the message says what the broker minds",
            lambda error: isinstance(error, TopicRefusedError),
        ),
        Ending(
            "topics do not exist and may not be created",
            ExitCode.BAD_SETTINGS,
            "type the commands above, or have them created",
            lambda error: isinstance(error, TopicsMissingError),
        ),
        Ending(
            "a topic that a command is to read does not exist",
            ExitCode.BAD_SETTINGS,
            "name one that exists, by --topic or, for evidence, by --evidence-topic",
            lambda error: isinstance(error, NoSuchTopicError),
        ),
        Ending(
            "the pages cannot be served",
            ExitCode.FAILED,
            "end what listens there, or set web.port to another port and web.host to an address of this machine",
            lambda error: isinstance(error, PagesError),
        ),
        Ending(
            "no temporary file can be made",
            ExitCode.FAILED,
            "make room, or name by TMPDIR a folder that may be written to; in a container mount one at /tmp",
            lambda error: isinstance(error, TemporaryFolderError),
        ),
        Ending(
            "the demo finds no broker and cannot start one",
            ExitCode.BROKER_UNREACHABLE,
            "give by --bootstrap-servers one that can be reached, or install Java with Maven, or Docker",
            lambda error: isinstance(error, BrokerUnavailableError),
        ),
    )


def _say(speaker: str, *lines: str) -> None:
    """Write to stderr without markup: what is told may hold brackets."""
    sys.stderr.write("".join(f"{speaker}{line}\n" for line in lines))
