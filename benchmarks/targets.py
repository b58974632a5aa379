"""What the figures are held against: ratios within one run, since only those mean the same on any machine."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from benchmarks.contest import VARIANTS, Score

MAX_CPU_US: Final = 3.0
MAX_RSS_MB: Final = 350.0
FLAT: Final = 1.1
"""Memory at the end of a run, over that at its first third."""
OF_SPLICE: Final = 0.5
"""Least speed of a variant, as a share of events that are spliced into requests as they came."""
OF_SPLICE_BUT: Final = {"connector_avro": 0.3}
"""Where another share is the target."""
NO_TARGET: Final = frozenset(
    {"connector_1000_lists_top_level", "connector_ordered_10000_keys", "raw_loop_4kb", "connector_console"}
)


@dataclass(frozen=True, slots=True)
class Target:
    """One figure beside what it should be."""

    text: str
    measured: float
    sign: Literal["at least", "at most"]
    limit: float

    @property
    def wanted(self) -> str:
        """The limit, as text."""
        return f"{self.sign} {self.limit:g}"

    @property
    def met(self) -> bool:
        """Whether it is as it should be."""
        return self.measured >= self.limit if self.sign == "at least" else self.measured <= self.limit


def targets(scores: Iterable[Score]) -> list[Target]:
    """Return the targets that the contestants at hand can be held against."""
    by_name = {score.contestant.name: score for score in scores if score.runs}
    found: list[Target] = []

    def ratio(name: str, other: str, limit: float, *, figure: str = "records_per_second") -> None:
        if name in by_name and other in by_name:
            measured = by_name[name].middle(figure) / by_name[other].middle(figure)
            what, sign = ("CPU of ", "at most") if figure == "cpu_us" else ("", "at least")
            found.append(Target(f"{what}{name} / {other}", measured, sign, limit))  # type: ignore[arg-type]

    ratio("connector", "raw_loop", 0.55)
    ratio("connector", "hand_written", 1.5)
    ratio("connector_50ms", "hand_written_50ms", 1.5)
    ratio("connector", "hand_written", 0.6, figure="cpu_us")
    if (connector := by_name.get("connector")) is not None:
        found.append(Target("connector: CPU in us a record", connector.middle("cpu_us"), "at most", MAX_CPU_US))
        peak = max(run.rss_peak for run in connector.runs)
        found.append(Target("connector: peak RSS in MB", peak, "at most", MAX_RSS_MB))
        flat = connector.middle("rss_end") / connector.middle("rss_third")
        found.append(Target("connector: RSS at the end / at a third of the run", flat, "at most", FLAT))
    ratio("connector_failures_only", "connector", 1.5)
    ratio("connector_50ms", "connector", 0.8)
    ratio("connector_console", "connector", 0.98)
    for variant in VARIANTS:
        if variant.name not in NO_TARGET:
            ratio(variant.name, "connector", OF_SPLICE_BUT.get(variant.name, OF_SPLICE))
    return found
