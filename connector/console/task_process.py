"""Works on dead letters for the console, in a process of its own, so that no stream has to wait for it.

It runs the same code as the command line (`connector/deadletters`), and ends when its task is done or its parent ends.
A redrive reports what it would do, and waits for confirmation before it does exactly that.
"""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final

from connector.clock import now_ms
from connector.config.settings import Settings
from connector.deadletters.addresses import AddressBook
from connector.deadletters.deciding import Rules
from connector.deadletters.evidence import groups_of, without
from connector.deadletters.letters import IN_DOUBT
from connector.deadletters.preparing import NameTakenError
from connector.deadletters.running import Redrive, count, find, find_at, spans_of, topics_of_streams
from connector.deadletters.selection import Criteria, InvalidFilterError, read_position, read_time
from connector.deadletters.settling import settled
from connector.deadletters.telling import shown
from connector.deadletters.working import Job, R, Spans, size_of, work
from connector.kafka.errors import KafkaTroubleError
from connector.kafka.scanning import NoSuchTopicError
from connector.kafka.topics import TopicsMissingError
from connector.memory import calm_collector
from connector.processes import end_with_parent
from connector.telemetry.logging import configure_logging, fit_to_show, get_logger

LISTED: Final = 50
"""Maximum number of dead letters in a list; the command line lists more."""

GROUPED: Final = 200_000
"""Maximum number of records in doubt that are grouped; the command line handles more."""

CONFIRM_SECS: Final = 600.0
"""How long a task waits for confirmation; after that it must be started again."""

_TELL_SECS: Final = 0.2
_NICENESS: Final = 10

log = get_logger("console")


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """What to do, and with which dead letters; texts are as typed."""

    kind: str
    stream: str = ""
    reason: str = ""
    since: str = ""
    position: str = ""
    reveal: bool = False
    include_in_doubt: bool = False
    asked_by: str = field(default="", compare=False)

    def criteria(self, settings: Settings) -> Criteria:
        """Return the filters; raises `InvalidFilterError`."""
        return Criteria(
            reasons=frozenset({self.reason} if self.reason else ()),
            streams=frozenset({self.stream} if self.stream else ()),
            positions=frozenset({read_position("position", self.position)} if self.position else ()),
            since_ms=read_time("since", self.since or None, now_ms=now_ms()),
            settings=settings,
        )

    def spelled(self) -> Mapping[str, Any]:
        """Return the filters as typed: equal ones identify the same redrive."""
        return {
            "console": 1,
            "stream": self.stream,
            "reason": self.reason,
            "since": self.since,
            "position": self.position,
            "in_doubt": self.include_in_doubt,
        }


class ForeseenError(Exception):
    """A task cannot be done for a reason that is shown to people unchanged."""


class TaskProcess:
    """Does one task, and reports through a connection: `progress`, `asks`, `result` or `problem`."""

    def __init__(self, settings: Settings, request: TaskRequest, line: Connection) -> None:
        self._settings = settings
        self._request = request
        self._line = line

    def run(self) -> None:
        """Do the task, and send the result."""
        try:
            result = KINDS[self._request.kind](self)
        except (NoSuchTopicError, InvalidFilterError, NameTakenError, TopicsMissingError, ForeseenError) as error:
            self._line.send(("problem", str(error)))
        except KafkaTroubleError as error:
            fenced = "another redrive of the same dead letters took over and goes on where this one was"
            self._line.send(("problem", fenced if error.fenced else f"Kafka: {error}"))
        except Exception as error:
            log.exception("dead letters cannot be worked on", kind=self._request.kind)
            self._line.send(("problem", f"this failed unexpectedly ({type(error).__name__}); the log says more"))
        else:
            self._line.send(("result", result))

    def work(self, spans: Spans, job: Job[R], what: str, /) -> Iterator[R]:
        """Yield the results of a job, and report progress."""
        yield from work(self._settings.kafka, spans, job, _Teller(self._line, what, size_of(spans)))

    def _topics(self) -> tuple[str, ...]:
        """Return the dead-letter topics of the task's stream, or of all streams if it names none."""
        return topics_of_streams(self._settings, [self._request.stream] if self._request.stream else [])

    # ------------------------------------------------------------------ tasks

    def look(self) -> dict[str, Any]:
        """Count dead letters, and list the first of them."""
        settings, request = self._settings, self._request
        criteria = request.criteria(settings)
        topics = self._topics()
        spans = spans_of(settings, topics, since_ms=criteria.since_ms)
        sums, seen = count(self.work, spans, criteria)
        found = find(self.work, spans, criteria, LISTED)[0] if sums.total else []
        return {
            "topics": topics,
            "counts": sums.as_json(now_ms=now_ms()),
            "letters": [shown(letter, reveal=False) for letter in found],
            "others": sorted(seen.reasons - {request.reason}) if request.reason and not sums.total else [],
            "most": LISTED,
        }

    def letter(self) -> dict[str, Any]:
        """Show what is at a position."""
        settings, request = self._settings, self._request
        position = read_position("position", request.position)
        found = find_at(self.work, spans_of(settings, topics_of_streams(settings)), Criteria(), position)
        if not found:
            raise ForeseenError(f"there is no dead letter at {request.position}, nor one that came from there")
        return {"letters": [shown(letter, reveal=request.reveal) for letter in found], "revealed": request.reveal}

    def in_doubt(self) -> dict[str, Any]:
        """Group the records in doubt by cause."""
        settings, request = self._settings, self._request
        spans = spans_of(settings, self._topics())
        criteria = Criteria(
            reasons=frozenset({IN_DOUBT}), streams=frozenset({request.stream} if request.stream else ())
        )
        found, _ = find(self.work, spans, criteria, GROUPED)
        with AddressBook(settings) as addresses:
            groups = groups_of(found, addresses)
        rules = Rules(settings.streams_by_name, include_in_doubt=True)
        since = settled(settings, self.work, spans, criteria, rules)
        left = [group.as_json() for group in without(groups, since.by_place, {})]
        for group in left:
            for name in ("detail", "list_number"):
                group[name] = None if group[name] is None else fit_to_show(str(group[name]))
        return {
            "groups": left[-LISTED:],
            "hidden": max(len(left) - LISTED, 0),
            "settled": dict(since.counts.most_common()),
            "unsure": since.unsure,
            "capped": len(found) >= GROUPED,
        }

    def redrive(self) -> dict[str, Any]:
        """Report what a redrive would do, and do it once it is confirmed."""
        settings, request = self._settings, self._request
        redrive = Redrive(
            settings,
            self._topics(),
            request.criteria(settings),
            Rules(settings.streams_by_name, include_in_doubt=request.include_in_doubt),
            request.spelled(),
            name=None,
            work=self.work,
        )
        redrive.look()
        plan = redrive.plan()
        told = {**redrive.told(plan), "warnings": redrive.warnings(plan)}
        if not plan.count:
            return {**told, "written": {}, "too_large": 0, "by_others": 0}
        redrive.refuse_missing(plan)
        self._line.send(("asks", told))
        if not self._line.poll(CONFIRM_SECS):
            raise ForeseenError("it was not confirmed in time; nothing was written")
        self._line.recv()
        began = time.monotonic()
        still = redrive.look_again(plan)
        written = redrive.carry_out(still, _Teller(self._line, "writing", still.count))
        did = {"written": dict(written.by_action), "too_large": written.too_large}
        did["by_others"] = plan.count - still.count
        return {**told, **did, "took_secs": round(time.monotonic() - began, 2)}


class _Teller:
    """Reports progress, not too often."""

    def __init__(self, line: Connection, what: str, total: int) -> None:
        self._line, self._what, self._total = line, what, total
        self._done, self._told_at = 0, 0.0
        self(0)

    def __call__(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._told_at > _TELL_SECS:
            self._told_at = time.monotonic()
            self._line.send(("progress", {"what": self._what, "done": self._done, "total": self._total}))


KINDS: Final = {
    "look": TaskProcess.look,
    "letter": TaskProcess.letter,
    "in_doubt": TaskProcess.in_doubt,
    "redrive": TaskProcess.redrive,
}
"""Kinds of tasks."""


def serve(settings: Settings, request: TaskRequest, line: Connection) -> None:
    """Do one task; the main function of the process."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the connector, which ends this process
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.nice(_NICENESS)
    configure_logging(settings.log)
    calm_collector()
    try:
        TaskProcess(settings, request, line).run()
    except (BrokenPipeError, EOFError):  # the parent has ended or closed the connection
        pass
    finally:
        line.close()
