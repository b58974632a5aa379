"""How output leaves: in which encoding, and with one line instead of a traceback where it cannot be written."""

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
    """Set the encoding of stdout; end with a message and exit code 1 where that does not take what a command prints.

    Around everything, as help is printed before any command runs. A pipe whose reader has left needs no words.
    """
    _settle_encoding()
    try:
        yield
    except OSError as error:
        # What opens a file names it; what writes to one that is open, as to stdout, does not.
        if error.errno not in _NO_ROOM or error.filename is not None:
            raise
        _end(error)
    finally:
        # What is still in the buffer would fail while the interpreter ends, where nobody can catch it.
        if (failure := _failure_of_stdout()) is not None:
            _end(failure)


def _settle_encoding() -> None:
    """Write UTF-8 where no person reads, whatever the locale: JSON is, and so is what `dead-letters import` takes.

    There a name of a file goes out as it came in, text or not; a terminal is told what it can show.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="backslashreplace")
        else:
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")


def _failure_of_stdout() -> OSError | None:
    """Return why stdout does not take what it still holds."""
    if sys.stdout is None or sys.stdout.closed:  # closed by whoever started us
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
        with suppress(OSError):  # stderr may lead to the same place
            sys.stderr.write(f"cannot write the output: {failure.strerror}\n")
    raise SystemExit(ExitCode.FAILED)
