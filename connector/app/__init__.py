"""The Faust application around the streams.

`faust -A connector.app worker` finds it as `app`; the settings file is named by `TRACKLY_CONNECTOR_SETTINGS`.
"""

import os
from pathlib import Path
from typing import Any

SETTINGS_VARIABLE = "TRACKLY_CONNECTOR_SETTINGS"


def __getattr__(name: str) -> Any:
    """Build the application when Faust asks for it; importing the package alone loads nothing."""
    if name != "app":
        raise AttributeError(name)
    from connector.app.application import prepare  # noqa: PLC0415
    from connector.app.loading import load  # noqa: PLC0415

    path = os.environ.get(SETTINGS_VARIABLE)
    if not path:
        raise SystemExit(f"set {SETTINGS_VARIABLE} to the path of the settings file")
    globals()["app"] = application = prepare(load(Path(path)))
    return application
