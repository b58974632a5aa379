"""`make bench-latency`: how long a record and a start take, and what a connector costs that has nothing to do.

A record's latency is the time from before it is produced to when a `read_committed` reader holds its outcome, both
taken from one clock. The far end answers after 50 ms, the window is the default one.
"""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from statistics import median, quantiles
from typing import Annotated, Any, Final
from uuid import uuid4

import orjson
import typer
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from rich.console import Console

from benchmarks.arena import Arena, BenchmarkError, Running, stream_settings
from benchmarks.contest import Contestant, compete
from benchmarks.events import Events
from benchmarks.figures import Figure, show
from benchmarks.processes import cpu_secs
from benchmarks.viewing import viewer
from connector.config.streams import BatchSettings
from connector.demo.artifacts import BrokerUnavailableError

PLATFORM_MS: Final = 50
WINDOW_MS: Final = BatchSettings().window_ms
RATE: Final = 2_000
FEW: Final = 100
_FULL_RATE: Final = 500_000
"""Records a second of a stream at full speed: somewhat more than it makes, so that it never has nothing to do."""
_FULL_START_SECS: Final = 8
"""How long such a stream is at work before and after what is measured beside it."""
_PARTITIONS: Final = 4
_PATIENCE_SECS: Final = 30.0
MOST_WARM_UPS: Final = 6
"""Of 20 seconds each: it takes tens of thousands of small transactions."""


class Reader:
    """Notes when the outcome of each position is there, in a thread of its own."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self.seen: dict[tuple[int, int], float] = {}
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "latency",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 10,
                "log_level": 2,
            }
        )
        self._consumer.assign([TopicPartition(topic, number, 0) for number in range(_PARTITIONS)])
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            message = self._consumer.poll(0.05)
            if message is not None and message.error() is None:
                outcome = orjson.loads(message.value() or b"{}")
                self.seen[outcome["partition"], outcome["offset"]] = time.monotonic()

    def wait(self, count: int) -> None:
        """Wait until so many outcomes are there."""
        deadline = time.monotonic() + _PATIENCE_SECS
        while len(self.seen) < count:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{len(self.seen)} of {count} outcomes after {_PATIENCE_SECS:g} s")
            time.sleep(0.01)

    def close(self) -> None:
        """End the thread and the connection."""
        self._ended.set()
        self._thread.join(5)
        self._consumer.close()


class Feeder:
    """Produces one record after another and keeps when it did."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self.sent: dict[tuple[int, int], float] = {}
        self._topic = topic
        # Counted in the latency; without it each record is a request, and those wait for one another in a busy broker.
        self._producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 2, "log_level": 2})
        self._values = [(record["key"], record["value"]) for record in Events().chunk(0)]
        self._count = 0

    def send(self) -> None:
        """Produce one record."""
        key, value = self._values[self._count % len(self._values)]
        at = time.monotonic()

        def delivered(_error: object, message: Message) -> None:
            self.sent[message.partition() or 0, message.offset() or 0] = at

        self._producer.produce(self._topic, value, key, self._count % _PARTITIONS, on_delivery=delivered)
        self._producer.poll(0)
        self._count += 1

    def send_at_rate(self, count: int, per_second: int) -> None:
        """Produce records evenly spread over time."""
        began = time.monotonic()
        for number in range(count):
            wait = began + number / per_second - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            self.send()
        self.flush()

    def flush(self) -> None:
        """Wait until all is delivered."""
        self._producer.flush(_PATIENCE_SECS)


@dataclass(frozen=True, slots=True)
class _Stage:
    """A connector at work on topics of its own, with a feeder before and a reader behind it."""

    running: Running
    feeder: Feeder
    reader: Reader

    def warm_up(self, rate: int) -> None:
        """Have some records pass, which are not counted."""
        self.feeder.send_at_rate(3 * rate, rate)
        self.reader.wait(3 * rate)
        self.feeder.sent.clear()
        self.reader.seen.clear()

    def latencies_ms(self) -> list[float]:
        """Return how long each record took."""
        self.reader.wait(len(self.feeder.sent))
        return [(self.reader.seen[position] - at) * 1000 for position, at in self.feeder.sent.items()]


@contextmanager
def _stage(arena: Arena, rate: int = RATE, others: Sequence[dict[str, Any]] = ()) -> Iterator[_Stage]:
    servers = arena.broker.bootstrap_servers
    stream, outcomes = _fresh(arena)
    with (
        closing(Reader(servers, outcomes)) as reader,
        arena.connector(stream["name"], arena.far_end(PLATFORM_MS), [stream, *others]) as running,
    ):
        stage = _Stage(running, Feeder(servers, stream["topics"][0]), reader)
        stage.warm_up(rate)
        yield stage


def _fresh(arena: Arena) -> tuple[dict[str, Any], str]:
    """Return the settings of a stream with topics of its own, and its topic of outcomes."""
    source, outcomes, dead = (arena.topics.create(p, partitions=_PARTITIONS) for p in ("in", "out", "dead"))
    return stream_settings(f"latency-{uuid4().hex[:6]}", source, outcomes, dead), outcomes


def small_transactions(arena: Arena, secs: float) -> None:
    """Commit single records with offsets, as idle streams do, as many as the broker takes."""
    topic = arena.topics.create("transactions", partitions=_PARTITIONS)
    until = time.monotonic() + secs
    partitions = [*range(_PARTITIONS)] * 2
    with ThreadPoolExecutor(len(partitions)) as threads:
        list(
            threads.map(lambda number: _commit_small(arena.broker.bootstrap_servers, topic, number, until), partitions)
        )


def _commit_small(servers: str, topic: str, partition: int, until: float) -> None:
    name = f"small-{uuid4().hex[:6]}"
    common = {"bootstrap.servers": servers, "log_level": 2}
    consumer = Consumer({**common, "group.id": name, "enable.auto.commit": False})
    consumer.subscribe([topic])
    while not consumer.assignment():
        consumer.poll(0.2)
    # A transaction that follows at once on another of the producer is refused at first, and tried again after 5 ms.
    producer = Producer({**common, "transactional.id": name, "linger.ms": 0, "retry.backoff.ms": 5})
    producer.init_transactions()
    offset = 0
    while time.monotonic() < until:
        producer.begin_transaction()
        producer.produce(topic, b"x" * 100, partition=partition)
        spot = TopicPartition(topic, partition, offset := offset + 1)
        producer.send_offsets_to_transaction([spot], consumer.consumer_group_metadata())
        producer.commit_transaction()
        consumer.poll(0)
    consumer.close()


def steady(arena: Arena, secs: float) -> list[Figure]:
    """Measure records that come at an even rate."""
    with _stage(arena) as stage:
        stage.feeder.send_at_rate(int(RATE * secs), RATE)
        found = stage.latencies_ms()
    return _bounded(f"{RATE:,} records/s", found)


def alone(arena: Arena, count: int) -> list[Figure]:
    """Measure single records on a stream that has nothing else to do."""
    with _stage(arena) as stage:
        for _ in range(count):
            stage.feeder.send()
            stage.feeder.flush()
            time.sleep(0.6)
        found = stage.latencies_ms()
    return _bounded("a record alone", found)


def _bounded(what: str, found: Sequence[float]) -> list[Figure]:
    middle, slow = _percentiles(what, found)
    base = WINDOW_MS + PLATFORM_MS
    return [replace(middle, limit=base + 25), replace(slow, limit=base + 100)]


def _percentiles(what: str, found: Sequence[float]) -> list[Figure]:
    return [
        Figure(f"{what}: median", median(found), unit="ms"),
        Figure(f"{what}: 99th percentile", quantiles(found, n=100)[98], unit="ms"),
    ]


def beside(arena: Arena, secs: float) -> list[Figure]:
    """Measure few records alone, beside a stream at full speed in the same process, and beside one in another."""
    with _stage(arena, FEW) as stage:
        found = _few(stage, secs, "alone")
    with _full(arena, secs) as full, _stage(arena, FEW, [full]) as stage:
        found += _few(stage, secs, "a full stream beside it")
        _check_busy(stage.running, full["name"])
    with (
        _full(arena, secs) as full,
        arena.connector(full["name"], arena.far_end(PLATFORM_MS), [full]) as running,
        _stage(arena, FEW) as stage,
    ):
        found += _few(stage, secs, "a full stream in another process")
        _check_busy(running, full["name"])
    return found


def _few(stage: _Stage, secs: float, where: str) -> list[Figure]:
    stage.feeder.send_at_rate(int(FEW * secs), FEW)
    return _percentiles(f"{FEW} records/s, {where}", stage.latencies_ms())


@contextmanager
def _full(arena: Arena, secs: float) -> Iterator[dict[str, Any]]:
    """Yield the settings of a stream that finds more records than it can send in that time, and some to start with."""
    source = arena.source(Events(), int(_FULL_RATE * (secs + _FULL_START_SECS)))
    with arena.targets(Events().partitions) as (outcomes, dead_letters):
        yield stream_settings(f"full-{uuid4().hex[:6]}", source, outcomes, dead_letters)


def _check_busy(running: Running, name: str) -> None:
    if not running.stream(name)["lag"]:
        raise BenchmarkError(f"{name} has nothing left to do: what was beside it is not known")


def climbing(arena: Arena, secs: float) -> list[Figure]:
    """Measure how soon a stream at full speed is allowed all the requests at once that it uses."""
    far_end = arena.far_end(PLATFORM_MS)
    with _full(arena, secs) as full, arena.connector(full["name"], far_end, [full]) as running:
        base = far_end.counts()
        running.wait_until(lambda: far_end.counts() != base)
        began = time.monotonic()
        limits = []
        while (at := time.monotonic() - began) < secs:
            limits.append((at, running.stream(full["name"])["concurrency_limit"]))
            time.sleep(0.02)
        _check_busy(running, full["name"])
    enough = 0.9 * median(limit for at, limit in limits if at > secs / 2)
    took = next(at for at, limit in limits if limit >= enough)
    return [Figure(f"first request to enough of them at once ({enough:.0f})", took, 2, "s")]


def single(arena: Arena, count: int) -> list[Figure]:
    """Measure how many records a second go out one by one, 256 at once at most."""
    run = compete(arena, Contestant("single", latency_ms=PLATFORM_MS, stream={"mode": "single"}), count)
    return [Figure("mode: single: records/s", run.records_per_second, 2_000, at_least=True)]


def idle(arena: Arena, secs: float) -> list[Figure]:
    """Measure the CPU of three streams that have nothing to read."""
    streams = [_fresh(arena)[0] for _ in range(3)]
    with arena.connector(streams[0]["name"], arena.far_end(0), streams) as running:
        running.wait_until(lambda: running.is_ready)
        time.sleep(3)
        pid = running.process.pid
        before, began = cpu_secs(pid), time.monotonic()
        time.sleep(secs)
        used = (cpu_secs(pid) - before) / (time.monotonic() - began)
    return [Figure("three idle streams: CPU of a core", used * 100, 2, "%")]


def watched(arena: Arena, secs: float) -> list[Figure]:
    """Measure the CPU that the console takes while somebody looks, as what there is more of it than with nobody.

    What it does in a second does not depend on how fast records come; at an even rate it can be told from the rest.
    """
    used: dict[bool, float] = {False: 0.0, True: 0.0}
    with _stage(arena) as stage:
        for looked_at in (False, False, True, True):  # it goes on a while when nobody looks any more
            with viewer(stage.running.port) if looked_at else nullcontext():
                stage.feeder.send_at_rate(RATE // 2, RATE)  # until charts and pages are there
                pid = stage.running.process.pid
                before, began = cpu_secs(pid), time.monotonic()
                stage.feeder.send_at_rate(int(RATE * secs), RATE)
                used[looked_at] += (cpu_secs(pid) - before) / (time.monotonic() - began) / 2
    return [Figure("console, one viewer: CPU of a core", (used[True] - used[False]) * 100, 3, "%")]


def start(arena: Arena, *, rounds: int, limit_secs: float, delay_ms: int) -> list[Figure]:
    """Measure the time from the start of the process to its first request, records waiting."""
    took = []
    far_end = arena.far_end(0)
    source = arena.source(Events(), 10_000)
    for _ in range(rounds + 1):  # the first warms the broker up and is not counted
        name = f"start-{uuid4().hex[:6]}"
        with arena.targets(_PARTITIONS) as (outcomes, dead_letters):
            base, began = far_end.counts(), time.monotonic()
            stream = stream_settings(name, source, outcomes, dead_letters)
            with arena.connector(name, far_end, [stream]) as running:
                running.wait_until(lambda base=base: far_end.counts() != base)  # type: ignore[misc]
                took.append(time.monotonic() - began)
    return [Figure(f"start to first request, rebalance delay {delay_ms} ms", median(took[1:]), limit_secs, "s")]


def main(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Few records: to see that all works.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Measure latency, start-up, idle cost and that of the console."""
    console = Console(stderr=as_json)

    found: list[Figure] = []

    def add(figures: list[Figure]) -> None:
        for figure in figures:
            console.print(f"{figure.name}: {figure.measured:,.1f} {figure.unit}", highlight=False, soft_wrap=True)
            found.append(figure)

    few = 5 if quick else 1
    rounds = 1 if quick else 3
    try:
        with Arena.open(console) as arena:
            most = 1 if quick else MOST_WARM_UPS
            arena.warm_up(lambda: small_transactions(arena, 20), at_most=most)
            add(start(arena, rounds=rounds, limit_secs=3, delay_ms=0))
            add(steady(arena, 20 / few))
            add(alone(arena, 30 // few))
            add(beside(arena, 10 / few))
            add(climbing(arena, 10 / few))
            add(single(arena, 40_000 // few))
            add(idle(arena, 20 / few))
            add(watched(arena, 10 / few))
        with Arena.open(console, broker_properties={"group.initial.rebalance.delay.ms": "3000"}) as arena:
            add(start(arena, rounds=rounds, limit_secs=6, delay_ms=3000))
    except (BenchmarkError, BrokerUnavailableError) as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from error
    show(console, f"Window {WINDOW_MS} ms, platform {PLATFORM_MS} ms", found)
    if as_json:
        figures = [{**asdict(figure), "met": figure.met} for figure in found]
        sys.stdout.write(f"{orjson.dumps(figures).decode()}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    typer.run(main)
