"""How output is written: its encoding, and one line instead of a traceback if it cannot be written."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Final, NoReturn, TextIO

from connector.cli.errors import ExitCode

_STDERR: Final = 2

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


@contextmanager
def written() -> Iterator[None]:
    """Set the encoding of stdout; exit with a message and code 1 if the output cannot be written.

    Wraps everything, since help is printed before any command runs. A pipe whose reader has left needs no message. A
    stderr that cannot be written changes no exit code.
    """
    _fill_gaps()
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
        try:
            if (failure := _failure_of(sys.stdout)) is not None:
                _end(failure)
        finally:
            if _failure_of(sys.stderr) is not None:
                _redirect_to_null(sys.stderr)


def _fill_gaps() -> None:
    """Replace standard streams that our parent has closed, for which Python has no stream, by the null device.

    Otherwise the next file or socket would get their descriptor, and what libraries write to stderr.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)  # workers have the same
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 (open until the process ends)


def _settle_encoding() -> None:
    """Write UTF-8 if not to a terminal, whatever the locale: for JSON, and for `dead-letters import`.

    A file name is then written as it was read, valid text or not; a terminal gets what it can display.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="backslashreplace")
        else:
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")


def _failure_of(stream: TextIO) -> OSError | None:
    """Return why a stream does not accept what it still holds."""
    if stream.closed:
        return None
    try:
        stream.flush()
    except OSError as error:
        return error
    return None


def _end(failure: OSError) -> NoReturn:
    _redirect_to_null(sys.stdout)
    if failure.errno != errno.EPIPE:
        with suppress(OSError):  # stderr may be the same file
            sys.stderr.write(f"cannot write the output: {failure.strerror}\n")
    raise SystemExit(ExitCode.FAILED)


def _redirect_to_null(stream: TextIO) -> None:
    with Path(os.devnull).open("w", encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), stream.fileno())
