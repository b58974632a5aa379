"""One process as the console sees it."""

from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from connector.app.resuming import act
from connector.config.settings import Settings
from connector.console.guarding import Form

if TYPE_CHECKING:
    from connector.app.application import Connector


class WorkerHost:
    """A worker that is alone on its port."""

    def __init__(self, connector: "Connector") -> None:
        self._connector = connector

    @property
    def settings(self) -> Settings:
        """Return the settings."""
        return self._connector.settings

    def token(self) -> SecretStr | None:
        """Return the token as it was last read."""
        return self._connector.secrets.web_token()

    async def status(self) -> dict[str, Any]:
        """Return what `/status` says."""
        from connector.app.pages import status_of  # noqa: PLC0415 (it adds the console, and so loads this)

        return status_of(self._connector)

    async def act(self, stream: str, action: str, form: Form, *, remote: str | None) -> tuple[int, dict[str, Any]]:
        """Pause or resume a stream."""
        return act(self._connector, stream, action, form, remote=remote)
