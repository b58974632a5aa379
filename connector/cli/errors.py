"""How commands end: exit codes, and expected errors as a few lines instead of a traceback.

Any other exception is a bug, and keeps its traceback.
"""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from typing import Final, NamedTuple

import typer

from connector.config.problems import SettingsError
from connector.core.restarts import RestartPolicy
from connector.telemetry.logging import say


class ExitCode(IntEnum):
    """What the exit code of a command says. Published: a code never changes its meaning."""

    OK = 0
    """Success."""
    FAILED = 1
    """The work failed, or a guarantee was violated."""
    BAD_SETTINGS = 2
    """The settings or the arguments cannot be used."""
    BROKER_UNREACHABLE = 3
    """No broker answered."""
    INSTANCE_ID_IN_USE = 4
    """Another live worker has this instance id, or another redrive took over the name."""
    STOPPED_IN_DOUBT = 5
    """It ended with records in doubt: the drain timed out, or partitions were lost with records in flight."""
    PLATFORM_REFUSED = 6
    """The platform rejected the key, the account or the list."""
    INTERRUPTED = 130
    """A command was ended by Ctrl-C (SIGINT) before it was done; `run` then stops cleanly, as after SIGTERM."""


WAYS_OUT: Final[Mapping[ExitCode, str]] = {
    ExitCode.OK: "",
    ExitCode.FAILED: "stderr says what failed; for a worker, see the last error in the log",
    ExitCode.BAD_SETTINGS: "fix what stderr names; `trackly-connector check` lists all problems of the settings",
    ExitCode.BROKER_UNREACHABLE: (
        "check that `kafka.bootstrap_servers` and `kafka.security` are right, and that the network allows it"
    ),
    ExitCode.INSTANCE_ID_IN_USE: (
        "give each worker its own `instance_id`; if two redrives have the same name, let the other finish"
    ),
    ExitCode.STOPPED_IN_DOUBT: (
        "nothing is lost: the next worker reports what is in doubt. If requests may take longer, raise "
        "`delivery.drain_secs` and `shutdown.grace_secs`"
    ),
    ExitCode.INTERRUPTED: "run it again; a command that writes records continues where it stopped",
    ExitCode.PLATFORM_REFUSED: "the findings of `check --online` say which, and what to do",
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
    # Later the other workers continue, and what is missing (a secret's file, a topic, brokers) may come back.
    final_at_first=frozenset({ExitCode.BAD_SETTINGS, ExitCode.BROKER_UNREACHABLE}),
    killed=ExitCode.STOPPED_IN_DOUBT,
    # A worker handles SIGTERM in order from when it may have begun anything.
    not_started=ExitCode.OK,
    not_started_signal=signal.SIGTERM,
)
"""How a supervisor treats the exit codes of its workers."""


class CommandError(Exception):
    """A command cannot continue for a reason that its user can fix: what happened, and what to do.

    Usually that is an argument, and the exit code says so.
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
    """Turn expected errors into a message on stderr and an exit code; also a decorator of commands.

    `speaker` precedes each line, if several processes share one stderr.
    """
    try:
        yield
    except SettingsError as error:
        _say(speaker, *error.lines)
        raise typer.Exit(ExitCode.BAD_SETTINGS) from error
    except CommandError as error:
        _say(speaker, f"error: {error}", f"hint: {error.way_out}")
        raise typer.Exit(error.code) from error
    except Exception as error:
        ending = next((ending for ending in endings() if ending.matches(error)), None)
        if ending is None:
            raise
        _say(speaker, f"error: {error}", f"hint: {ending.way_out}")
        raise typer.Exit(ending.code) from error


class Ending(NamedTuple):
    """An expected error of another part: what happened, its exit code, and what to do."""

    when: str
    code: ExitCode
    way_out: str
    matches: Callable[[Exception], bool]


def endings() -> tuple[Ending, ...]:
    """Return all of them; the first match counts.

    Imported here, since a command that does not use Kafka should not load it.
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
            "set another instance_id, or stop the other worker",
            lambda error: isinstance(error, InstanceIdInUseError),
        ),
        Ending(
            "Kafka fenced the process: another one started under its name",
            ExitCode.INSTANCE_ID_IN_USE,
            "make sure that no two processes have the same instance_id or --name",
            lambda error: isinstance(error, KafkaTroubleError) and error.fenced,
        ),
        Ending(
            "Kafka does not allow it",
            ExitCode.FAILED,
            "trackly-connector check SETTINGS --online lists the missing permission, and how to grant it",
            lambda error: isinstance(error, KafkaTroubleError) and error.unauthorized,
        ),
        Ending(
            "no broker answered in time",
            ExitCode.BROKER_UNREACHABLE,
            "check that kafka.bootstrap_servers and kafka.security are right and the brokers can be reached",
            lambda error: isinstance(error, KafkaTroubleError),
        ),
        Ending(
            "a broker does not create a topic as requested",
            ExitCode.BAD_SETTINGS,
            "fix the stream's create_topics, or create the topic yourself; the message has the broker's reason",
            lambda error: isinstance(error, TopicRefusedError),
        ),
        Ending(
            "topics do not exist and may not be created",
            ExitCode.BAD_SETTINGS,
            "run the commands above",
            lambda error: isinstance(error, TopicsMissingError),
        ),
        Ending(
            "a topic that a command should read does not exist",
            ExitCode.BAD_SETTINGS,
            "check its name; trackly-connector check SETTINGS --online shows which topics of the settings are missing",
            lambda error: isinstance(error, NoSuchTopicError),
        ),
        Ending(
            "the pages cannot be served",
            ExitCode.FAILED,
            "stop whatever listens there, or set web.port to another port and web.host to an address of this machine",
            lambda error: isinstance(error, PagesError),
        ),
        Ending(
            "no temporary file can be created",
            ExitCode.FAILED,
            "free space, or set TMPDIR to a writable folder; in a container mount one at /tmp",
            lambda error: isinstance(error, TemporaryFolderError),
        ),
        Ending(
            "the demo finds no broker and cannot start one",
            ExitCode.BROKER_UNREACHABLE,
            "give one that can be reached with --bootstrap-servers, or install Java with Maven, or Docker",
            lambda error: isinstance(error, BrokerUnavailableError),
        ),
    )


def _say(speaker: str, *lines: str) -> None:
    """Write to stderr without markup: messages may contain brackets."""
    say("".join(f"{speaker}{line}\n" for line in lines))
