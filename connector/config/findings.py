"""One result of `check --online`: what was checked, and what to do if it failed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What was checked (`name`), whether it is ok, what was seen, and what to do if it is not.

    `exit_code` is the command's if this is the first finding that is not ok. A `warning` does not prevent a start,
    although something is missing; it says what to do as well.
    """

    name: str
    ok: bool
    detail: str
    way_out: str = ""
    exit_code: int = 1
    warning: bool = False
