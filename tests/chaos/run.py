"""One run from its seed to the verdict: the ledger of the platform against both topics, read committed."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import orjson

from connector.demo.judge import Judgement, judge
from connector.demo.topics import read_topic
from tests.chaos.arena import Arena, Lane
from tests.chaos.conductor import Conductor, StuckError
from tests.chaos.feed import Feed
from tests.chaos.plan import WORKERS, Setup, episodes

SETTLE_SECS: Final = 180.0
_FAILED: Final = frozenset({"server_error", "provider_error", "refused"})
"""What a good record may become besides queued and in doubt, where the platform keeps failing. A record alone in its
request is `refused` by a platform that counts a failure and names none (`missing_index`); that it was not accepted
all the same is asked of the ledger."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a run found; an unbroken promise has no `problems`."""

    seed: int
    setup: Setup
    judgements: Mapping[str, Judgement]
    disturbances: Counter[str]
    slowest_secs: float
    slowest_kinds: tuple[str, ...]
    kills: int
    exits: Mapping[int, int]
    resumed: Mapping[str, int]
    deleted: int
    """Records without a result that went with a topic when it was deleted."""
    twice_told: int
    """Records that were accepted twice where the operator chose that, and whose result says so."""
    problems: list[str]

    def summary(self) -> dict[str, Any]:
        """Return the sums over all streams; what was accepted twice by the operator's choice is told apart."""
        found = list(self.judgements.values())
        return {
            "seed": self.seed,
            "protocol": self.setup.protocol,
            "brokers": self.setup.brokers,
            "streams": [f"{f.name}: {f.guarantee}, {f.mode}, in doubt {f.in_doubt}" for f in self.setup.flows],
            "produced": sum(j.produced for j in found),
            "accepted": sum(j.accepted or 0 for j in found),
            "accepted_twice": sum(j.accepted_twice or 0 for j in found) - self.twice_told,
            "accepted_twice_by_choice": self.twice_told,
            "outcomes": sum(j.queued + j.skipped for j in found),
            "dead_letters": sum(sum(j.dead_letters.values()) for j in found),
            "in_doubt": sum(j.in_doubt for j in found),
            "outcome_duplicates": {name: j.duplicates for name, j in self.judgements.items()},
            "lost": sum(j.lost for j in found),
            "deleted_with_their_topic": self.deleted,
            "process_kills": self.kills,
            "exits": {str(code): count for code, count in self.exits.items()},
            "resumed": dict(self.resumed),
            "disturbances": dict(sorted(self.disturbances.items())),
            "slowest_recovery_seconds": round(self.slowest_secs, 1),
            "slowest_recovery_after": list(self.slowest_kinds),
        }


def run(
    seed: int,
    setup: Setup,
    *,
    secs: float,
    folder: Path,
    tell: Callable[[str], None],
    only: Collection[str] = (),
) -> Result:
    """Disturb a running system for some seconds, let it heal, and judge it."""
    flows = ", ".join(flow.name for flow in setup.flows)
    tell(f"seed {seed}: {setup.protocol} protocol, {flows}, brokers: {setup.brokers}")
    with Arena(setup, folder) as arena:
        with Feed(arena) as feed:
            for slot in arena.slots[:WORKERS]:
                arena.fill(slot)
            conductor = Conductor(arena, feed, tell)
            problems = conductor.problems
            try:
                conductor.recover(("start",))
                began = time.monotonic()
                for episode in episodes(seed, only):
                    if time.monotonic() - began > secs:
                        break
                    conductor.play(episode)
            except StuckError as stuck:
                problems.append(str(stuck))
        tell("all is well again, nothing more is produced; waiting until all is settled")
        judgements, twice_told = _settled(arena, feed, tell)
        codes = arena.stop_all()
        judgements, twice_told = _judge(arena, feed)
        if any(codes):
            problems.append(f"at the end the workers stopped with {codes}")
        for name, lane_problems in twice_told.problems.items():
            problems += [f"{name}: {problem}" for problem in lane_problems]
        problems += _failures(folder)
        slowest = conductor.slowest
        return Result(
            seed,
            setup,
            judgements,
            conductor.counts,
            slowest.secs,
            slowest.kinds,
            arena.kills,
            dict(arena.exits),
            dict(arena.resumed),
            sum(at.topic in feed.deleted for produced in feed.produced.values() for at in produced.unsettled()),
            twice_told.count,
            problems,
        )


@dataclass(frozen=True, slots=True)
class _Twice:
    count: int
    problems: dict[str, list[str]]


def _settled(arena: Arena, feed: Feed, tell: Callable[[str], None]) -> tuple[dict[str, Judgement], _Twice]:
    deadline = time.monotonic() + SETTLE_SECS
    while True:
        arena.tend()
        found = _judge(arena, feed)
        lost = {name: j.lost for name, j in found[0].items() if j.lost}
        if not lost or time.monotonic() > deadline:
            return found
        tell(f"  without a result yet: {lost}")
        time.sleep(2)


def _judge(arena: Arena, feed: Feed) -> tuple[dict[str, Judgement], _Twice]:
    accepted: dict[str, dict[bytes, int]] = {lane.flow.name: {} for lane in arena.lanes}
    by_source = {lane.source: lane.flow.name for lane in arena.lanes}
    for entry in arena.platform.entries("send"):
        name = entry.identity.rpartition(" ")[0]
        whose = name if name in accepted else by_source[name.rpartition(".side")[0]]
        accepted[whose][entry.identity.encode()] = entry.accepted
    found, problems, told = {}, {}, 0
    for lane in arena.lanes:
        flow = lane.flow
        judgement = found[flow.name] = judge(
            arena.bootstrap_servers,
            feed.produced[flow.name],
            outcomes=lane.outcomes,
            dead_letters=lane.dead_letters,
            accepted=accepted[flow.name],
            deleted=feed.deleted,
            timeout_secs=120,
        )
        count, problems[flow.name] = _problems(arena, lane, judgement, accepted[flow.name])
        told += count
    return found, _Twice(told, problems)


def _problems(arena: Arena, lane: Lane, found: Judgement, accepted: Mapping[bytes, int]) -> tuple[int, list[str]]:
    """Return how many records were accepted twice by the operator's choice, and what breaks the promise."""
    flow = lane.flow
    flagged = _flagged(arena, lane) if flow.in_doubt == "resend" else set()
    twice = {key for key, times in accepted.items() if times > 1} & flagged
    may_be = {f"became {reason}, not queued" for reason in _FAILED}
    if flagged:  # what was posted again may have been taken the first time; those that do not say so are left
        may_be |= {
            "records were accepted by the platform more than once",
            "records are called failed that the platform accepted",
        }
    problems = found.problems(repeats_allowed=flow.guarantee == "at_least_once")
    broken = [p for p in problems if not p.startswith("for example") and not any(p.endswith(end) for end in may_be)]
    untold = sum(times > 1 for times in accepted.values()) - len(twice)
    if flagged and untold:
        broken.append(f"{untold} records were accepted twice and their results do not say so")
    return len(twice), broken + [p for p in problems if broken and p.startswith("for example")]


def _flagged(arena: Arena, lane: Lane) -> set[bytes]:
    """Return the keys of records whose result says that they were posted again while in doubt."""
    keys = set()
    for chunk in read_topic(arena.bootstrap_servers, lane.outcomes):
        keys |= {m.key() or b"" for m in chunk if orjson.loads(m.value() or b"{}").get("resent")}
    for chunk in read_topic(arena.bootstrap_servers, lane.dead_letters):
        keys |= {m.key() or b"" for m in chunk if "trackly.resent" in dict(m.headers() or ())}
    return keys


def _failures(folder: Path) -> list[str]:
    """Return what workers said of streams that failed: only a twin may do that, who fences the first one."""
    failures = []
    for log in sorted(folder.glob("worker-*.log")):
        lines = log.read_text(errors="replace").splitlines()
        for at, line in enumerate(lines):
            if '"stream failed"' in line and "fenced" not in line:
                failures.append(f"{log.name}: {line[:600]}")
            elif line.startswith("Traceback"):
                rest = takewhile(lambda follows: not follows.startswith("{"), lines[at : at + 60])
                failures.append("\n".join([f"{log.name}:", *rest]))
    return failures
