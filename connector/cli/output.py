"""How output is written: its encoding, and one line instead of a traceback if it cannot be written."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Final, NoReturn

from connector.cli.errors import ExitCode

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


@contextmanager
def written() -> Iterator[None]:
    """Set the encoding of stdout; exit with a message and code 1 if the output cannot be written.

    Wraps everything, since help is printed before any command runs. A pipe whose reader has left needs no message.
    """
    _settle_encoding()
    try:
        yield
    except OSError as error:
        # Errors of opening a file name it; errors of writing to an open one, such as stdout, do not.
        if error.errno not in _NO_ROOM or error.filename is not None:
            raise
        _end(error)
    finally:
        # What is still buffered would fail while the interpreter exits, where nothing can catch it.
        if (failure := _failure_of_stdout()) is not None:
            _end(failure)


def _settle_encoding() -> None:
    """Write UTF-8 if not to a terminal, whatever the locale: for JSON, and for `dead-letters import`.

    A file name is then written as it was read, valid text or not; a terminal gets what it can display.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="backslashreplace")
        else:
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")


def _failure_of_stdout() -> OSError | None:
    """Return why stdout does not accept what it still holds."""
    if sys.stdout is None or sys.stdout.closed:  # closed by our parent
        return None
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    return None


def _end(failure: OSError) -> NoReturn:
    with Path(os.devnull).open("w", encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())
    if failure.errno != errno.EPIPE:
        with suppress(OSError):  # stderr may be the same file
            sys.stderr.write(f"cannot write the output: {failure.strerror}\n")
    raise SystemExit(ExitCode.FAILED)
