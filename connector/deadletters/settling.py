"""What became of dead letters since they were written: by what the topics tell, as nothing is noted on a dead letter.

How far redrives came does not tell it: they go past what they leave in doubt.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from connector.config.settings import Settings
from connector.deadletters.deciding import Candidate, Known, Rules, Survey, survey, why_settled
from connector.deadletters.jobs import find_queued, find_redriven
from connector.deadletters.letters import CLOCKS_MS, Position
from connector.deadletters.selection import Criteria
from connector.deadletters.working import CLIENT_ID, Job, Spans, Work
from connector.kafka.scanning import scanning

ASKED: Final[Sequence[Job[Known]]] = (find_redriven, find_queued)
"""What topics are asked: of those that were sent again, which are few, then of outcomes."""


@dataclass(slots=True)
class Heard:
    """What topics told of dead letters."""

    known: Known = field(default_factory=Known)
    lacking: set[str] = field(default_factory=set)
    """Topics of which retention has removed some since the oldest of these dead letters."""


def streams_of(candidates: Iterable[Candidate], rules: Rules) -> dict[str, int]:
    """Return the streams that dead letters belong or are sent to, with the time of each stream's oldest failure."""
    oldest: dict[str, int] = {}
    for candidate in candidates:
        for name in {candidate.stream, *rules.receivers} & rules.streams.keys():
            oldest[name] = min(candidate.failed_ms, oldest.get(name, candidate.failed_ms))
    return oldest


def ask(
    settings: Settings,
    work: Work,
    candidates: Sequence[Candidate],
    rules: Rules,
    *,
    heard: Heard,
    jobs: Collection[Job[Known]] = ASKED,
) -> None:
    """Add to what was heard what topics tell, each from the oldest dead letter that it may know of on."""
    times: dict[tuple[str, Job[Known]], int] = {}
    if candidates and rules.to is not None:
        times[rules.to, find_redriven] = min(candidate.failed_ms for candidate in candidates)
    for name, since in streams_of(candidates, rules).items():
        stream = rules.streams[name]
        for spot in ((stream.redrive_topic, find_redriven), (stream.outcomes.topic, find_queued)):
            times[spot] = min(since, times.get(spot, since))
    with scanning(settings.kafka, client_id=CLIENT_ID, group=CLIENT_ID) as scanner:
        for (topic, job), since in times.items():
            if job not in jobs:
                continue
            if scanner.lacks(topic, since):
                heard.lacking.add(topic)
            for part in work(scanner.spans(topic, since_ms=since - CLOCKS_MS), job, f"reading {topic}"):
                heard.known.add(part)


@dataclass(frozen=True, slots=True)
class Settled:
    """Which dead letters were settled."""

    by_place: dict[Position, str]
    """By what, in the names of `WHY`."""
    unsure: list[str]
    """Why others may have been settled as well, for people."""
    heard: Heard

    @property
    def counts(self) -> Counter[str]:
        """How many were settled, by what."""
        return Counter(self.by_place.values())


def settled(settings: Settings, work: Work, spans: Spans, criteria: Criteria, rules: Rules) -> Settled:
    """Ask which of the dead letters that are meant were settled; outcomes only of what nothing else has settled."""
    found, heard, by_place = Survey(), Heard(), dict[Position, str]()
    for part in work(spans, partial(survey, criteria=criteria, rules=rules, done={}), "reading dead letters"):
        found.add(part)
    left = found.candidates
    for job in ASKED:
        ask(settings, work, left, rules, heard=heard, jobs=[job])
        for one in left:
            if why := why_settled(one, heard.known, found.latest, rules):
                by_place[one.partition, one.offset] = why
        left = [one for one in left if (one.partition, one.offset) not in by_place]
    unsure = [
        f"stream {name} is not in the settings" if name else "a dead letter does not name its stream"
        for name in sorted({one.stream for one in left} - set(rules.streams))
    ]
    telling = set[str]()
    for name in streams_of(left, rules):
        stream = rules.streams[name]
        telling |= {stream.outcomes.topic, *([stream.redrive_topic] if stream.outcomes.records == "failures" else [])}
    unsure += [f"retention has removed some of {topic}" for topic in sorted(telling & heard.lacking)]
    return Settled(by_place, unsure, heard)
