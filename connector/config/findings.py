"""One answer of `check --online`: a thing that was tried at the far ends, and what to do when it failed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at (`name`), whether it is as it must be, what was seen, and the way out when it is not.

    `exit_code` is what the command returns when this is the first finding that is not ok. A `warning` is ok for a start
    though something is not there yet: its way out is told as well.
    """

    name: str
    ok: bool
    detail: str
    way_out: str = ""
    exit_code: int = 1
    warning: bool = False
