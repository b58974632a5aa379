"""What is told of holds, and what an operator may decide about them.

A hold begins and ends in many places: the gate, the ticker, the reader. So its log lines and its count are made here,
by comparing what holds now with what did when it was last looked at: one line at the beginning, one at the end,
whatever happens in between.
"""

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
"""By reason what can be decided about its holds; each is a field of `Decision` and of the forms, and an option."""


@dataclass(frozen=True, slots=True)
class HoldSeen:
    """A hold, and the partition that it is about, if it is not about the whole stream."""

    hold: Hold
    partition: Partition | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What the operator says to holds that wait for one; those that want no word need none of it.

    `partitions` names what is meant; empty, it is everything of the stream that this worker holds.
    """

    partitions: frozenset[Partition] = frozenset()
    in_doubt: InDoubtChoice | None = None
    foreign_metadata: ForeignChoice | None = None
    progress_missing: MissingChoice | None = None

    def wants(self, seen: HoldSeen) -> bool:
        """Tell whether a hold is meant."""
        return not self.partitions or seen.partition in self.partitions

    def needs(self, seen: HoldSeen) -> tuple[str, ...]:
        """Return the options of `resume`, one of which must be given before a hold can end; none when all is said."""
        reason = seen.hold.reason
        return options_for(reason) if reason in CHOICES and getattr(self, reason) is None else ()


@dataclass(frozen=True, slots=True)
class Resumed:
    """What came of a decision. Where anything is undecided, nothing was changed."""

    ended: tuple[HoldSeen, ...] = ()
    probed: tuple[HoldSeen, ...] = ()
    """Holds that end by themselves: asked about at once."""
    undecided: tuple[HoldSeen, ...] = ()
    not_held: tuple[Partition, ...] = ()
    """Partitions that were named and are not held by this worker: another one may hold them."""


def hold_for_doubt(count: int) -> tuple[str, str]:
    """Return reason and detail of the hold of a partition whose last owner had records in flight."""
    return "in_doubt", f"{count} records are in doubt; decide what to do with them"


def options_for(reason: str) -> tuple[str, ...]:
    """Return the choices that `resume` takes about holds of a reason, as they are typed."""
    return tuple(f"--{reason.replace('_', '-')} {choice}" for choice in CHOICES.get(reason, ()))


def commands_for(seen: HoldSeen, base: str) -> list[str]:
    """Return the commands that end a hold, each of them alone; `base` is `trackly-connector resume STREAM ...`."""
    if seen.hold.ends != "operator":
        return []
    at = "" if seen.partition is None else f" --partition {seen.partition}"
    return [f"{base}{at} {option}".rstrip() for option in options_for(seen.hold.reason) or ("",)]


def detail_of(seen: HoldSeen, secrets: Iterable[str] = ()) -> str:
    """Return why something holds, fit to be shown."""
    return fit_to_show(seen.hold.detail, secrets) if seen.partition is None else mask_phone(seen.hold.detail)


def status_of(seen: HoldSeen, *, base: str, secrets: Iterable[str] = (), docs_url: str | None = None) -> dict[str, Any]:
    """Return a hold as JSON-ready values."""
    hold = seen.hold
    # The gate tells time by the clock of its waits, which starts with the machine.
    since = hold.since if hold.since > 1e9 else time.time() - (now() - hold.since)
    return {
        "reason": hold.reason,
        "partition": None if seen.partition is None else str(seen.partition),
        "since": round(since, 3),
        "detail": detail_of(seen, secrets),
        "ends": hold.ends,
        "commands": commands_for(seen, base),
        "runbook": runbook_of(hold.reason, docs_url),
    }


class HoldBook:
    """The holds of one stream as they were last seen. Not thread-safe: used under the stream's lock.

    `count` is told the reason of each hold that begins.
    """

    def __init__(self, stream: str, base: str, count: Callable[[str], None], docs_url: str | None = None) -> None:
        self._base = base
        self._docs_url = docs_url
        self._count = count
        self._seen: dict[HoldSeen, float] = {}
        self._log = get_logger("stream").bind(stream=stream)

    def look(self, holds: Iterable[HoldSeen], *, secrets: Iterable[str] = ()) -> None:
        """Tell what has begun and what has ended since the last look."""
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
            self._log.error(
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
