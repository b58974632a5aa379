"""`trackly-connector run`: the connector itself."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from connector.cli.errors import ExitCode, reported


@reported()
def run(
    settings: Annotated[Path, typer.Argument(help="Settings file (YAML).", metavar="SETTINGS", show_default=False)],
) -> None:
    """Run the streams of a settings file until SIGTERM; a second SIGTERM stops at once.

    Exit code 5: the drain's deadline passed with records in flight; they are in doubt. 4: another live worker has this
    instance id. 3: no broker answered. 2: settings, or topics that do not exist and may not be created.
    """
    # Imported here: checking settings should not load a Kafka client and an application framework.
    from connector.app.application import prepare, serve  # noqa: PLC0415
    from connector.config.load import load_settings  # noqa: PLC0415
    from connector.telemetry.logging import configure_logging  # noqa: PLC0415

    loaded = load_settings(settings)
    configure_logging(loaded.log)
    if sys.platform == "linux":
        import uvloop as loops  # noqa: PLC0415
    else:
        import asyncio as loops  # noqa: PLC0415
    # As process 1 of a container a signal without a handler is ignored, and waiting for a broker may take a minute.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ExitCode.OK))
    connector = prepare(loaded)
    loops.run(serve(connector))
    if connector.fatal is not None:
        sys.stderr.write(f"error: {connector.fatal}\n")
    raise typer.Exit(ExitCode(connector.exit_code))
