"""The Faust application around the streams.

`faust -A connector.app worker` finds it as `app`; the settings file is named by `TRACKLY_CONNECTOR_SETTINGS`.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """Build the application when Faust asks for it; importing the package alone loads nothing."""
    if name != "app":
        raise AttributeError(name)
    from connector.app.faust_command import application  # noqa: PLC0415

    globals()["app"] = app = application()
    return app
