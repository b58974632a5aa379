"""`trackly-connector run`: the connector itself, as one process or as several under a supervisor."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from connector.app.loading import load
from connector.cli.arguments import SettingsFile
from connector.cli.errors import RESTARTS, ExitCode, reported
from connector.config.settings import Settings
from connector.processes import defer_requests
from connector.telemetry.logging import configure_logging, say, toggle_debug

if TYPE_CHECKING:
    from connector.app.application import Connector
    from connector.workers.worker import Worker


@reported()
def run(
    settings: SettingsFile,
    *,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            help="Processes that share the partitions, under one supervisor; overrides the setting `workers`.",
            show_default="the setting's, 1 unless set",
        ),
    ] = None,
) -> None:
    """Run the streams of a settings file until SIGTERM; a second SIGTERM stops at once.

    SIGHUP: re-read secrets given by file. SIGUSR1: switch the log to level debug, and back.

    Exit code 5: the drain timed out with records in flight; they are in doubt. 4: another live worker has this
    instance id. 3: no broker answered. 2: settings, or topics that do not exist and may not be created. With several
    workers it is the worst of their codes.
    """
    loaded = load(settings)
    count = workers or loaded.workers
    configure_logging(loaded.log)
    _obey_sigterm()
    if count > 1:
        _supervise(loaded.with_workers(count))
    from connector.app.application import prepare

    _serve(prepare(loaded))


def worker(
    settings: Annotated[Path, typer.Argument()],
    ordinal: Annotated[int, typer.Argument()],
    *,
    instance_id: Annotated[str, typer.Option()],
    copy: Annotated[Path, typer.Option()],
    socket: Annotated[Path | None, typer.Option()] = None,
    log_switched: Annotated[bool, typer.Option("--log-switched")] = False,
) -> None:
    """Run one worker of a supervisor, which holds the lock of the instance id and a copy of the settings."""
    with reported(f"worker {ordinal}: "):
        from connector.app.application import prepare
        from connector.app.instance import take_over

        loaded = load(settings, copy=copy)
        configure_logging(loaded.log, worker=ordinal)
        if log_switched:
            toggle_debug()
        _obey_sigterm()
        _serve(prepare(loaded, claimed=take_over(instance_id), socket=socket), speaker=f"worker {ordinal}: ")


def _obey_sigterm() -> None:
    """Exit at once, while there is nothing to drain.

    As process 1 of a container, a signal without a handler is ignored, and waiting for a broker may take a minute.
    """

    def end(*_: object) -> NoReturn:
        os._exit(ExitCode.OK)  # an exception would be lost in a finalizer, such as that of a Kafka client

    signal.signal(signal.SIGTERM, end)
    defer_requests()  # systemd does not restart a service that SIGHUP has ended


def _serve(connector: "Connector", *, speaker: str = "") -> NoReturn:
    import uvloop

    from connector.app.application import serve

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(connector))
    if connector.fatal is not None:
        say(f"{speaker}error: {connector.fatal}\n")
    raise typer.Exit(ExitCode(connector.exit_code))


def _supervise(settings: Settings) -> NoReturn:
    from connector.workers.supervisor import Supervisor

    assert settings.origin is not None
    source = str(settings.origin.source.absolute())
    # Workers must find the same packages: `-m` alone would look into the current folder first.
    python = [sys.executable, *([] if os.getcwd() in sys.path else ["-P"]), "-m", "connector"]  # noqa: PTH109 (as sys.path has it)

    def command(worker: "Worker", copy: Path, log_switched: bool) -> list[str]:
        where = ["--socket", str(worker.socket)] if worker.socket is not None else []
        switched = ["--log-switched"] if log_switched else []
        arguments = ["worker", source, str(worker.ordinal), "--instance-id", worker.instance_id, "--copy", str(copy)]
        return [*python, *arguments, *where, *switched]

    supervisor = Supervisor(settings, RESTARTS, command)
    code = asyncio.run(supervisor.run())
    if supervisor.fatal is not None:
        who = supervisor.fatal.ordinal
        say(f"error: worker {who} ended with exit code {code}, which a restart cannot fix; all workers were stopped\n")
    raise typer.Exit(code)
