"""Who runs, with which records and settings, and what one run of them measured."""

import re
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal
from uuid import uuid4

from benchmarks.arena import STOP_SECS, Arena, BenchmarkError, Process, Progress, stream_settings
from benchmarks.events import Events
from benchmarks.processes import cpu_secs, peak_rss_mb, rss_mb
from benchmarks.viewing import viewer
from connector.processes import spawn, stop, tail

IN_FLIGHT: Final = 64
_LOOK_SECS: Final = 0.05
_STALL_SECS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Contestant:
    """One line of the table. `share` is the part of `--records` that it gets; `stream` goes over ordinary settings."""

    name: str
    kind: Literal["raw_loop", "hand_written", "connector"] = "connector"
    events: Events = field(default_factory=Events)
    latency_ms: int = 0
    share: float = 1.0
    stream: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Goes over ordinary settings at the top of the file."""
    target: float | None = 0.5
    """Least speed of a variant, as a share of that of events that are spliced into requests as they came."""
    note: str = ""
    watched: bool = False
    """Whether a console shows it all the while, to one viewer."""
    tree: Path | None = None
    """Another checkout whose connector runs in place of this one's."""


_VARIANT: Final = 0.4
_LARGE: Final = 0.2
_TEN_THOUSAND_KEYS: Final = Events("10000_keys", keys=10_000)
_PACED: Final = {"pace": {"messages_per_minute": 100_000_000}}
_ORDERED: Final = {"ordering": "key"}
_TRACED: Final = Events("traced", traced=True)
_AT_TOP: Final = {"list_number_placement": "top_level"}
_MAPPING: Final = {
    "when": "value.type == 'order.shipped' && value.sms_opt_in",
    "fields": {
        "to": "value.customer.phone",
        "body": {"template": "Order {{ value.id }} has shipped. Thank you, {{ value.customer.first_name }}!"},
        "metadata": {"order_id": "value.id"},
    },
    "list_number": "value.list",
}
"""One of each: a condition, fields, a template, an object and the choice of a list."""

MAIN: Final = (
    Contestant("raw_loop", "raw_loop"),
    Contestant("hand_written", "hand_written", share=0.3),
    Contestant("hand_written_50ms", "hand_written", latency_ms=50, share=0.3),
    Contestant("connector"),
    Contestant("connector_50ms", latency_ms=50),
    Contestant("connector_failures_only", stream={"outcomes": {"records": "failures"}}),
    Contestant("connector_at_least_once", stream={"delivery": {"guarantee": "at_least_once"}}),
)
VARIANTS: Final = (
    Contestant("connector_console", watched=True, target=0.98, note="one viewer of the console, live, all the while"),
    Contestant("connector_failing_1pct", events=Events("failing_1pct", bad_of_100=1), share=_VARIANT),
    Contestant("connector_mapped", events=Events("orders", orders=True), share=_VARIANT, stream={"mapping": _MAPPING}),
    Contestant(
        "connector_avro",
        events=Events("avro", avro=True),
        share=_VARIANT,
        stream={"format": "avro"},
        target=0.3,
        note="decoded with the registry's schema and encoded as JSON",
    ),
    Contestant("connector_4kb", events=Events("4kb", body_bytes=4_000), share=_LARGE),
    Contestant(
        "raw_loop_4kb",
        "raw_loop",
        events=Events("4kb", body_bytes=4_000),
        share=_LARGE,
        target=None,
        note="with the same fetch settings, of which it would take more: a figure without a target",
    ),
    Contestant("connector_lz4", events=Events("lz4", compression="lz4"), share=_VARIANT),
    Contestant("connector_zstd", events=Events("zstd", compression="zstd"), share=_VARIANT),
    Contestant("connector_1_partition", events=Events("1_partition", partitions=1), share=_VARIANT),
    Contestant("connector_64_partitions", events=Events("64_partitions", partitions=64), share=_VARIANT),
    Contestant("connector_traced_events", events=_TRACED, share=_VARIANT, note="headers are there, traces are off"),
    Contestant(
        "connector_traces",
        events=_TRACED,
        share=_VARIANT,
        settings={"traces": {"enabled": True}},
        note="a span for each request, headers on outcomes",
    ),
    Contestant("connector_ordered", stream=_ORDERED, share=_VARIANT, note="`ordering: key`, no key comes twice"),
    Contestant(
        "connector_ordered_10000_keys",
        events=_TEN_THOUSAND_KEYS,
        stream=_ORDERED,
        share=_VARIANT,
        target=None,
        note="`ordering: key`, a request holds one record of a key: a figure without a target",
    ),
    Contestant("connector_paced", stream=_PACED, share=_VARIANT, note="a pace that holds nothing back"),
    Contestant("connector_1000_lists", events=Events("1000_lists", lists=1_000), share=_VARIANT),
    Contestant(
        "connector_1000_lists_paced",
        events=Events("1000_lists", lists=1_000),
        stream=_PACED,
        share=_VARIANT,
        note="a pace for each of them, that holds nothing back",
    ),
    Contestant(
        "connector_1000_lists_top_level",
        events=Events("1000_lists", lists=1_000),
        share=0.04,
        stream=_AT_TOP,
        target=None,
        note="a request holds one list: a figure without a target",
    ),
)


@dataclass(frozen=True, slots=True)
class Run:
    """What one run measured. CPU is in microseconds a record, memory in MB."""

    records: int
    secs: float
    records_per_second: float
    cpu_us: float
    far_end_cpu_us: float
    broker_cpu_us: float
    rss_third: float
    rss_end: float
    rss_peak: float
    requests: int
    records_posted: int


@dataclass(slots=True)
class Score:
    """All runs of one contestant."""

    contestant: Contestant
    runs: list[Run] = field(default_factory=list)
    failures: int = 0

    def middle(self, figure: str) -> float:
        """Return the median of a figure over the runs."""
        return float(median(getattr(run, figure) for run in self.runs))

    @property
    def spread(self) -> float:
        """The distance of the fastest from the slowest run, as a share of the median."""
        rates = [run.records_per_second for run in self.runs]
        return (max(rates) - min(rates)) / median(rates)

    @property
    def records_per_request(self) -> float:
        """Records in a request on average, 0 without requests."""
        requests = self.middle("requests")
        return self.middle("records_posted") / requests if requests else 0.0

    def summary(self) -> dict[str, float]:
        """Return the figures for the JSON object."""
        return {
            "records_per_second": round(self.middle("records_per_second")),
            "cpu_us_per_record": round(self.middle("cpu_us"), 3),
            "rss_mb": round(max(run.rss_peak for run in self.runs)),
            "requests": round(self.middle("requests")),
            "records_per_request": round(self.records_per_request, 1),
            "spread": round(self.spread, 3),
        }


def compete(arena: Arena, contestant: Contestant, records: int) -> Run:
    """Run one contestant over all records of its topic; it starts with a new group and fresh topics for results.

    Raises `BenchmarkError` when it ends, stands still, or posted less than it should have.
    """
    events = contestant.events
    source = arena.source(events, records)
    far_end = arena.far_end(contestant.latency_ms)
    name = re.sub(r"[^a-z0-9]+", "-", f"{contestant.name.lower()}-{uuid4().hex[:6]}")
    with arena.targets(events.partitions) as (outcomes, dead_letters), ExitStack() as stack:
        progress = Progress(arena.broker.bootstrap_servers, name, source, events.partitions)
        stack.callback(progress.close)
        if contestant.kind == "connector":
            stream = stream_settings(name, source, outcomes, dead_letters, contestant.stream)
            running = stack.enter_context(
                arena.connector(name, far_end, [stream], contestant.settings, tree=contestant.tree)
            )
            process, log = running.process, running.log
            if contestant.watched:
                stack.enter_context(viewer(running.port))
        else:
            argv = [sys.executable, "-m", f"benchmarks.{contestant.kind}", "--source", source, "--target", outcomes]
            argv += ["--bootstrap-servers", arena.broker.bootstrap_servers, "--group", name]
            if contestant.kind == "hand_written":
                argv += ["--base-url", far_end.base_url, "--in-flight", str(IN_FLIGHT)]
            log = arena.folder / f"{name}.log"
            process = spawn(argv, log=log)
            stack.callback(stop, process, grace_secs=STOP_SECS)
        try:
            return _watch(arena, contestant, progress, process, records)
        except (BenchmarkError, FileNotFoundError, ProcessLookupError) as error:
            raise BenchmarkError(f"{contestant.name}: {error}; its log ends:\n{tail(log, lines=15)}") from error


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    done: int
    cpu: float
    far_end_cpu: float
    broker_cpu: float


def _watch(arena: Arena, contestant: Contestant, progress: Progress, process: Process, records: int) -> Run:
    """Follow a run from its first request (the raw loop: its first commit) until all records are done."""
    far_end = arena.far_end(contestant.latency_ms)
    broker, pid = arena.broker.pid, process.pid
    assert broker is not None
    posts = contestant.kind != "raw_loop"

    def look(done: int) -> _Look:
        return _Look(time.monotonic(), done, cpu_secs(pid), cpu_secs(far_end.pid), cpu_secs(broker))

    base = far_end.counts()
    before = look(0)
    began: _Look | None = None
    moved_at, last, third = time.monotonic(), 0, 0.0
    while True:
        done = progress()
        at = time.monotonic()
        if began is None:
            if done or (posts and far_end.counts() != base):
                began = look(done) if done < records else before  # few records may all be done by the first look
            before = look(done)
        if done >= records:
            break
        if done > last:
            last, moved_at = done, at
        elif process.poll() is not None:
            raise BenchmarkError(f"it ended with code {process.returncode}")
        elif at - moved_at > _STALL_SECS:
            raise BenchmarkError(f"no progress for {_STALL_SECS:g} s at {done:,} of {records:,} records")
        if not third and done >= records / 3:
            third = rss_mb(pid)
        time.sleep(_LOOK_SECS)
    assert began is not None
    ended = look(done)
    requests, accepted = (now - then for now, then in zip(far_end.counts(), base, strict=True))
    good = records - records * contestant.events.bad_of_100 // 100
    if posts and accepted < good:
        raise BenchmarkError(f"{accepted:,} of {good:,} records were posted")
    if contestant.kind == "connector" and accepted != good:
        raise BenchmarkError(f"{accepted:,} records were accepted, of {good:,}")
    count, secs = records - began.done, ended.at - began.at
    return Run(
        records,
        secs,
        count / secs,
        (ended.cpu - began.cpu) / count * 1e6,
        (ended.far_end_cpu - began.far_end_cpu) / count * 1e6,
        (ended.broker_cpu - began.broker_cpu) / count * 1e6,
        third or rss_mb(pid),
        rss_mb(pid),
        peak_rss_mb(pid),
        requests,
        accepted,
    )
