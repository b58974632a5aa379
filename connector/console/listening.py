"""Why the pages cannot be served: one message for a worker and for a supervisor."""

import os
import socket

from connector.config.settings import WebSettings


class PagesError(Exception):
    """The pages cannot be served at the address in the settings."""


def not_listening(web: WebSettings, error: OSError) -> PagesError:
    """Return the error for an address that cannot be used, and why."""
    return PagesError(f"cannot listen on web.host {web.host}, web.port {web.port}: {why_not_listening(error)}")


def why_not_listening(error: OSError) -> str:
    """Return why an address cannot be used, without the address."""
    # asyncio repeats the address in its text; a resolver has error numbers of its own.
    by_system = error.errno is not None and not isinstance(error, socket.gaierror)
    return (os.strerror(error.errno or 0) if by_system else error.strerror) or str(error)
