"""What the figures are held against: ratios within one run, since only those mean the same on any machine."""

from collections.abc import Iterable
from typing import Final

from benchmarks.contest import VARIANTS, Score
from benchmarks.figures import Figure

MAX_CPU_US: Final = 3.0
MAX_RSS_MB: Final = 350.0
FLAT: Final = 1.1
"""Memory at the end of a run, over that at its first third."""


def targets(scores: Iterable[Score]) -> list[Figure]:
    """Return the targets that the contestants at hand can be held against."""
    by_name = {score.contestant.name: score for score in scores if score.runs}
    found: list[Figure] = []

    def ratio(name: str, other: str, limit: float, *, figure: str = "records_per_second") -> None:
        if name in by_name and other in by_name:
            measured = by_name[name].middle(figure) / by_name[other].middle(figure)
            is_cpu = figure == "cpu_us"
            found.append(Figure(f"{'CPU of ' * is_cpu}{name} / {other}", measured, limit, at_least=not is_cpu))

    ratio("connector", "raw_loop", 0.55)
    ratio("connector", "hand_written", 1.5)
    ratio("connector_50ms", "hand_written_50ms", 1.5)
    ratio("connector", "hand_written", 0.6, figure="cpu_us")
    if (connector := by_name.get("connector")) is not None:
        found.append(Figure("connector: CPU of a record", connector.middle("cpu_us"), MAX_CPU_US, "us"))
        peak = max(run.rss_peak for run in connector.runs)
        found.append(Figure("connector: peak RSS", peak, MAX_RSS_MB, "MB"))
        flat = connector.middle("rss_end") / connector.middle("rss_third")
        found.append(Figure("connector: RSS at the end / at a third of the run", flat, FLAT))
    ratio("connector_failures_only", "connector", 1.5)
    ratio("connector_50ms", "connector", 0.8)
    for variant in VARIANTS:
        if variant.target is not None:
            ratio(variant.name, "connector", variant.target)
    return found
