"""Verdicts of records that cannot be posted; reasons are in `connector.core.reasons`."""

from typing import Final

from connector.core.verdicts import Verdict

MAX_TEXT: Final = 500
"""Maximum length of a text about a record, ours or the platform's: it goes into the dead letter's headers, which must
fit any topic."""


class UndecodableError(Exception):
    """A value cannot be decoded; `reason` is one of `connector.core.reasons`."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def refused(reason: str, text: str) -> Verdict:
    """Return the verdict of a record that is not posted; the text may repeat parts of it, so it is truncated."""
    return Verdict("dead_letter", reason, None, text[:MAX_TEXT])


def undecodable(error: Exception) -> Verdict:
    """Return the verdict for an exception of any kind: decoders get arbitrary bytes."""
    if isinstance(error, UndecodableError):
        return refused(error.reason, str(error))
    name = type(error).__name__
    return refused("not_decodable", f"{name}: {error}".rstrip(": ") if str(error) else name)
