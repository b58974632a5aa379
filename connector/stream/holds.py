"""How holds are reported, and what an operator may decide about them.

Holds begin and end in many places: the gate, the ticker, the reader. So their log lines and counts are made here, by
comparing the present holds with those of the last look: one line when a hold begins and one when it ends.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from connector.clock import now
from connector.core.breaker import Hold
from connector.core.chunks import Partition
from connector.telemetry.logging import fit_to_show, get_logger, mask_phone
from connector.telemetry.runbook import runbook_of

InDoubtChoice = Literal["dead_letter", "resend"]
ForeignChoice = Literal["discard"]
MissingChoice = Literal["begin"]

CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "in_doubt": get_args(InDoubtChoice),
    "foreign_metadata": get_args(ForeignChoice),
    "progress_missing": get_args(MissingChoice),
}
"""By reason, the decisions that an operator can take; each is a field of `Decision` and of the forms, and an option."""


@dataclass(frozen=True, slots=True)
class HoldSeen:
    """A hold, and its partition if it is not about the whole stream."""

    hold: Hold
    partition: Partition | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The operator's decision about holds that wait for one.

    `partitions` are those that it applies to; empty means everything of the stream that this worker has.
    """

    partitions: frozenset[Partition] = frozenset()
    in_doubt: InDoubtChoice | None = None
    foreign_metadata: ForeignChoice | None = None
    progress_missing: MissingChoice | None = None

    def wants(self, seen: HoldSeen) -> bool:
        """Return whether the decision applies to a hold."""
        return not self.partitions or seen.partition in self.partitions

    def needs(self, seen: HoldSeen) -> tuple[str, ...]:
        """Return the options of `resume`, one of which must be given before this hold can end; empty if none is."""
        reason = seen.hold.reason
        return options_for(reason) if reason in CHOICES and getattr(self, reason) is None else ()


@dataclass(frozen=True, slots=True)
class Resumed:
    """The effect of a decision. If anything is undecided, nothing was changed."""

    ended: tuple[HoldSeen, ...] = ()
    probed: tuple[HoldSeen, ...] = ()
    """Holds that end by a probe, which is now due at once."""
    undecided: tuple[HoldSeen, ...] = ()
    not_held: tuple[Partition, ...] = ()
    """Named partitions that are not held by this worker; another one may hold them."""


def hold_for_doubt(count: int) -> tuple[str, str]:
    """Return reason and detail of the hold for a partition with records in doubt."""
    return "in_doubt", f"{count} records are in doubt; decide what to do with them"


def options_for(reason: str) -> tuple[str, ...]:
    """Return the options that `resume` accepts for holds with this reason, as they are typed."""
    return tuple(f"--{reason.replace('_', '-')} {choice}" for choice in CHOICES.get(reason, ()))


def commands_for(seen: HoldSeen, base: str) -> list[str]:
    """Return the commands that end a hold, each on its own; `base` is `trackly-connector resume STREAM ...`."""
    if seen.hold.ends != "operator":
        return []
    at = "" if seen.partition is None else f" --partition {seen.partition}"
    return [f"{base}{at} {option}".rstrip() for option in options_for(seen.hold.reason) or ("",)]


def detail_of(seen: HoldSeen, secrets: Iterable[str] = ()) -> str:
    """Return why something holds, masked for display."""
    return fit_to_show(seen.hold.detail, secrets) if seen.partition is None else mask_phone(seen.hold.detail)


def status_of(seen: HoldSeen, *, base: str, secrets: Iterable[str] = (), docs_url: str | None = None) -> dict[str, Any]:
    """Return a hold as JSON-ready values."""
    hold = seen.hold
    return {
        "reason": hold.reason,
        "partition": None if seen.partition is None else str(seen.partition),
        "since": round(time.time() - (now() - hold.since), 3),
        "detail": detail_of(seen, secrets),
        "ends": hold.ends,
        "commands": commands_for(seen, base),
        "runbook": runbook_of(hold.reason, docs_url),
    }


class HoldMonitor:
    """The holds of one stream at the last look. Not thread-safe: used under the stream's lock.

    `count` is called with the reason of each hold that begins.
    """

    def __init__(self, stream: str, base: str, count: Callable[[str], None], docs_url: str | None = None) -> None:
        self._base = base
        self._docs_url = docs_url
        self._count = count
        self._seen: dict[HoldSeen, float] = {}
        self._log = get_logger("stream").bind(stream=stream)

    def check(self, holds: Iterable[HoldSeen], *, secrets: Iterable[str] = ()) -> None:
        """Log the holds that began or ended since the last look."""
        at, there = now(), dict.fromkeys(holds)
        for seen in [seen for seen in self._seen if seen not in there]:
            lasted = at - self._seen.pop(seen)
            self._log.info("hold ended", lasted_secs=round(lasted, 1), **_names(seen))
        for seen in there:
            if seen in self._seen:
                continue
            self._seen[seen] = at
            self._count(seen.hold.reason)
            commands = commands_for(seen, self._base)
            self._log.log(
                logging.INFO if seen.hold.reason == "paused" else logging.ERROR,  # a pause is what somebody asked for
                "stream on hold",
                detail=detail_of(seen, secrets),
                ends=seen.hold.ends,
                runbook=runbook_of(seen.hold.reason, self._docs_url),
                **_names(seen),
                **({"commands": commands} if commands else {}),
            )


def _names(seen: HoldSeen) -> dict[str, str]:
    where = {} if seen.partition is None else {"partition": str(seen.partition)}
    return {"reason": seen.hold.reason, **where}
