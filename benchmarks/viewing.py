"""Somebody who looks at the console: the stream of events is read as a browser reads it, and thrown away."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

_TRY_SECS: Final = 0.2


@contextmanager
def viewer(port: int) -> Iterator[None]:
    """Look for as long as this lasts, from the moment on that the pages are there."""
    over = threading.Event()
    looking = threading.Thread(target=_look, args=(port, over), name="viewer", daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join(5)


def _look(port: int, over: threading.Event) -> None:
    while not over.is_set():
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/events")
            reply = connection.getresponse()
            while not over.is_set() and reply.read1(65_536):
                pass
            connection.close()
        time.sleep(_TRY_SECS)
