"""What Faust's own command starts: the same application, with the same messages and the same log.

Faust would print a traceback for settings that cannot be used, and send logs through handlers of its own, in which
phone numbers are not masked.
"""

import os
from pathlib import Path
from typing import Any, Final, cast

import faust

from connector.app.application import Connector, prepare
from connector.app.instance import InstanceIdInUseError, TemporaryFolderError
from connector.app.loading import load
from connector.config.problems import SettingsError
from connector.kafka.errors import KafkaTroubleError
from connector.kafka.topics import TopicsMissingError
from connector.telemetry.logging import configure_logging, say

SETTINGS_VARIABLE: Final = "TRACKLY_CONNECTOR_SETTINGS"


class LoggingWorker(faust.Worker):
    """Faust's worker, with the log as it has been configured, and without a spinner in it."""

    def __init__(self, app: Any, *services: Any, **options: Any) -> None:
        super().__init__(app, *services, **{**options, "override_logging": False})
        self.spinner = None


def application() -> Connector:
    """Return the application; what its user can fix ends the process with a message, the settings with code 2."""
    try:
        path = os.environ.get(SETTINGS_VARIABLE)
        if not path:
            say(f"set {SETTINGS_VARIABLE} to the path of the settings file\n")
            raise SystemExit(2)
        settings = load(Path(path))
        configure_logging(settings.log)
        connector = prepare(settings)
    except SettingsError as error:
        say("".join(f"{line}\n" for line in error.lines))
        raise SystemExit(2) from error
    except (InstanceIdInUseError, KafkaTroubleError, TemporaryFolderError, TopicsMissingError) as error:
        raise SystemExit(f"error: {error}") from error
    connector.conf.Worker = cast(Any, LoggingWorker)
    return connector
