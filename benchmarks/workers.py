"""What several workers cost and bring, beside one: `python -m benchmarks.workers`.

Records wait in an open transaction until all workers have their partitions, then become readable at once: so nobody has
a head start, and what a start costs is not counted. CPU is that of the workers and their supervisor, as the kernel
counts it, from the commit of that transaction to the last outcome; broker and platform are left out. On a machine with
few cores all of them share these, so the rate says less than the CPU for each record.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from operator import attrgetter
from statistics import median
from typing import Annotated, Any, Final
from uuid import uuid4

import typer
from rich.console import Console

from benchmarks.arena import Arena, stream_settings
from benchmarks.events import Events, fill, filler
from benchmarks.processes import cpu_secs

_START_SECS: Final = 120
_RUN_SECS: Final = 600
MOST_WARM_UPS: Final = 12
"""Runs of one worker that are not counted, at most: it takes many millions of records."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run."""

    workers: int
    records: int
    secs: float
    cpu_secs: float

    @property
    def records_per_sec(self) -> float:
        """Records over the time from the first that could be read to the last outcome."""
        return self.records / self.secs

    @property
    def cpu_us_per_record(self) -> float:
        """Microseconds of CPU, of the workers and the supervisor."""
        return self.cpu_secs / self.records * 1e6


def main(
    *,
    workers: Annotated[
        list[int] | None,
        typer.Option(help="Numbers of workers to measure, one after another; 1 and 2, three times, when left out."),
    ] = None,
    records: Annotated[int, typer.Option(min=1_000)] = 3_000_000,
    partitions: Annotated[int, typer.Option(min=1)] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a run.")] = False,
) -> None:
    """Measure records per second and CPU per record for each number of workers.

    Two runs of the same differ by a fifth on a busy day: repeat the numbers, alternating, and look at the medians.
    """
    runs: list[Measured] = []
    with Arena.open(Console(stderr=True)) as arena:

        def run(count: int) -> Measured:
            return measure(arena, count, records=records, events=Events(partitions=partitions))

        arena.warm_up(lambda: run(1), at_most=MOST_WARM_UPS)
        for count in workers or [1, 2] * 3:
            found = run(count)
            runs.append(found)
            if as_json:
                values = {"records_per_sec": found.records_per_sec, "cpu_us_per_record": found.cpu_us_per_record}
                print(json.dumps(asdict(found) | {name: round(value, 2) for name, value in values.items()}))
            else:
                print(f"{_named(count)}: {_told(found.records_per_sec, found.cpu_us_per_record)}", flush=True)
    if not as_json:
        for line in _medians(runs):
            print(line)


def _medians(runs: list[Measured]) -> Iterator[str]:
    """Yield what to say of each number of workers, where any was measured more than once."""
    counts = list(dict.fromkeys(run.workers for run in runs))
    if len(counts) == len(runs):
        return
    first = 0.0
    for count in counts:
        those = [run for run in runs if run.workers == count]
        rate, cpu = (median(map(attrgetter(name), those)) for name in ("records_per_sec", "cpu_us_per_record"))
        first = first or cpu
        yield f"{_named(count)}, median of {len(those)}: {_told(rate, cpu)}, {cpu / first:.2f} x the first"


def _named(workers: int) -> str:
    return f"{workers} worker{'s' * (workers > 1)}"


def _told(records_per_sec: float, cpu_us: float) -> str:
    return f"{records_per_sec:,.0f} records/s, {cpu_us:.2f} us of CPU per record"


def measure(arena: Arena, workers: int, *, records: int, events: Events) -> Measured:
    """Run one backlog through so many workers."""
    name = f"workers-{uuid4().hex[:6]}"
    source = arena.topics.create(partitions=events.partitions)
    transaction = filler(
        arena.broker.bootstrap_servers, events, {"transactional.id": name, "transaction.timeout.ms": 600_000}
    )
    with arena.targets(events.partitions) as (outcomes, dead_letters):
        transaction.init_transactions(60)
        transaction.begin_transaction()
        for _ in fill(transaction, source, events, records):
            pass
        stream, far_end = stream_settings(name, source, outcomes, dead_letters), arena.far_end(0)
        with arena.connector(name, far_end, [stream], {"instance_id": name}, workers=workers) as running:
            running.wait_until(lambda: running.is_ready, secs=_START_SECS, every_secs=0.2)
            running.wait_until(
                lambda: _is_shared(running.stream(name), workers, events.partitions), secs=_START_SECS, every_secs=0.2
            )
            time.sleep(3)  # what a start leaves behind: the loading of progress, a first look at the holds
            cpu = cpu_secs(running.process.pid)
            transaction.commit_transaction(60)
            began = time.monotonic()
            running.wait_until(lambda: bool(running.stream(name)["queued"] >= records), secs=_RUN_SECS, every_secs=0.25)
            measured = Measured(workers, records, time.monotonic() - began, cpu_secs(running.process.pid) - cpu)
    arena.topics.delete(source)
    return measured


def _is_shared(stream: dict[str, Any], workers: int, partitions: int) -> bool:
    owned = stream["partitions"].values()
    return len(owned) == partitions and len({found.get("worker") for found in owned}) == workers


if __name__ == "__main__":
    typer.run(main)
