"""`make bench`: the connector beside a raw loop and a hand-written consumer, in one run on one machine.

Rounds are rotated, so that nobody always runs first or after the same other. Figures are medians over the rounds.
"""

import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.arena import Arena, BenchmarkError, ceiling
from benchmarks.contest import MAIN, VARIANTS, Contestant, Score, compete
from benchmarks.events import Events
from benchmarks.figures import show
from benchmarks.targets import targets
from connector.demo.artifacts import BrokerUnavailableError

_KNOWN = {contestant.name: contestant for contestant in (*MAIN, *VARIANTS)}

WARM_UP, MOST_WARM_UPS = 5_000_000, 6
"""Records of a warm-up, and how many there are at most: it takes many millions of records."""


def main(
    *,
    records: Annotated[
        int, typer.Option(min=10_000, help="Records of a whole run; slow ones get a share.")
    ] = 5_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="How often each runs.")] = 3,
    only: Annotated[str, typer.Option(help="Names, separated by commas; all when left out.")] = "",
    against: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, resolve_path=True, help="Another checkout, to run beside this one."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A tenth of the records, once: to see that all works.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Measure speed, CPU and memory of the connector and of what it is compared with."""
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console.width = 140
    if quick:
        records, rounds = records // 10, 1
    chosen = _chosen(only)
    if against is not None:
        chosen = [each for name in chosen for each in (name, _other(name, against)) if each is not None]
    try:
        scores = _run(console, chosen, records=records, rounds=rounds)
    except (BenchmarkError, BrokerUnavailableError) as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from error
    failures = sum(score.failures for score in scores)
    scores = [score for score in scores if score.runs]
    _show(console, scores)
    if found := targets(scores):
        show(console, "Targets", found)
    if as_json:
        summary = {score.contestant.name: score.summary() for score in scores}
        sys.stdout.write(f"{orjson.dumps(summary).decode()}\n")
        sys.stdout.flush()
    if failures:
        console.print(f"{failures} runs failed", style="red")
        raise typer.Exit(1)


def _chosen(only: str) -> list[Contestant]:
    names = [name.strip() for name in only.split(",") if name.strip()] or list(_KNOWN)
    unknown = [name for name in names if name not in _KNOWN]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}; there are {', '.join(_KNOWN)}", param_hint="--only")
    return [_KNOWN[name] for name in names]


def _other(contestant: Contestant, tree: Path) -> Contestant | None:
    """Return the same contestant from another checkout; the others do not change with the connector."""
    if contestant.kind != "connector":
        return None
    return replace(contestant, name=f"{contestant.name}@{tree.name}", tree=tree)


def _run(console: Console, chosen: Sequence[Contestant], *, records: int, rounds: int) -> list[Score]:
    scores = {contestant.name: Score(contestant) for contestant in chosen}
    with Arena.open(console) as arena:
        arena.say(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores for all, Python {platform.python_version()}")
        far_end = arena.far_end(0)
        alone = ceiling(far_end, Events(), secs=2)
        arena.say(
            f"far end: reads whole bodies; alone {alone.records_per_second:,.0f} records/s "
            f"at {alone.cpu_us_per_record:.2f} us of CPU a record"
        )

        def work() -> None:
            for name in ("raw_loop", "connector"):
                compete(arena, _KNOWN[name], min(records, WARM_UP))

        arena.warm_up(work, at_most=MOST_WARM_UPS if records >= 1_000_000 else 1)
        for group in _by_source(chosen):
            kinds = {contestant.events for contestant in group}
            arena.drop_sources(keep=[*kinds])
            for number in range(rounds):
                for contestant in _rotated(group, number):
                    began = time.monotonic()
                    try:
                        run = compete(arena, contestant, max(int(records * contestant.share), 1_000))
                    except BenchmarkError as error:
                        arena.say(f"round {number + 1}: FAILED: {error}")
                        scores[contestant.name].failures += 1
                        continue
                    scores[contestant.name].runs.append(run)
                    arena.say(
                        f"round {number + 1}: {contestant.name}: {run.records_per_second:,.0f} records/s, "
                        f"{run.cpu_us:.2f} us (far end {run.far_end_cpu_us:.2f}, broker {run.broker_cpu_us:.2f}), "
                        f"{run.rss_peak:.0f} MB, {run.secs:.1f} s of {time.monotonic() - began:.1f} s"
                    )
    return list(scores.values())


def _by_source(chosen: Sequence[Contestant]) -> list[list[Contestant]]:
    """Return the contestants in groups that read the same kind of topic, so that it is filled once."""
    groups: dict[tuple[Events, float], list[Contestant]] = {}
    for contestant in chosen:
        # Those that share the plain records run in one rotation, whatever their share of them.
        key = contestant.events, 0.0 if contestant.events == Events() else contestant.share
        groups.setdefault(key, []).append(contestant)
    return list(groups.values())


def _rotated(group: list[Contestant], number: int) -> list[Contestant]:
    start = number * max(len(group) // 3, 1) % len(group)
    return group[start:] + group[:start]


def _show(console: Console, scores: Sequence[Score]) -> None:
    title = "Medians; CPU in us a record, RSS in MB; spread: fastest less slowest, of the median"
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column("")
    for column in ("records", "records/s", "spread", "CPU", "far end", "broker", "RSS 1/3", "end", "peak", "a request"):
        table.add_column(column, justify="right")
    for score in scores:
        table.add_row(
            score.contestant.name,
            f"{score.middle('records'):,.0f}",
            f"{score.middle('records_per_second'):,.0f}",
            f"{score.spread:.0%}",
            f"{score.middle('cpu_us'):.2f}",
            f"{score.middle('far_end_cpu_us'):.2f}",
            f"{score.middle('broker_cpu_us'):.2f}",
            *(f"{score.middle(figure):.0f}" for figure in ("rss_third", "rss_end", "rss_peak")),
            f"{score.records_per_request:,.0f}",
        )
    console.print(table)
    for score in scores:
        if score.contestant.note:
            console.print(f"{score.contestant.name}: {score.contestant.note}", highlight=False)


if __name__ == "__main__":
    typer.run(main)
