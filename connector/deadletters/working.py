"""Scans topics with all CPUs: spans are cut into pieces, each read by one of a few processes.

Most of the cost of a dead letter is turning some thirty headers into objects, which needs the interpreter lock. So work
on them is a job that can run in another process: it gets the chunks of one piece and returns its result.
"""

import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from multiprocessing import get_context
from typing import Any, Final, Protocol, TypeVar

from connector.config.kafka import KafkaSettings
from connector.core.chunks import Chunk, Partition
from connector.core.ranges import Range
from connector.cpus import USABLE
from connector.kafka.scanning import Scanner, config_of, scanning
from connector.memory import calm_collector
from connector.processes import end_with_parent
from connector.telemetry.logging import silence_client

CLIENT_ID: Final = "trackly-connector-dead-letters"
PIECE: Final = 50_000
"""Records per piece: at most some seconds of work, so that all processes end at about the same time."""

ALONE: Final = 60_000
"""Up to so many records are read in this process: starting others takes as long."""

Spans = Mapping[Partition, Range]
Told = Callable[[int], None]
"""Called with the number of records just read."""

R = TypeVar("R")
Job = Callable[[Iterator[Chunk]], R]
"""Work on the records of a piece; it and its result can be pickled."""


class Work(Protocol):
    """Scans spans with a job, and reports progress."""

    def __call__(self, spans: Spans, job: Job[R], what: str, /) -> Iterator[R]:
        """Yield the job's result for each piece."""


def size_of(spans: Spans) -> int:
    """Return how many offsets spans have."""
    return sum(stop - start for start, stop in spans.values())


def work(kafka: KafkaSettings, spans: Spans, job: Job[R], told: Told) -> Iterator[R]:
    """Yield a job's result for each piece of the spans, in any order."""
    if size_of(spans) <= ALONE or processors() < 2:
        with scanning(kafka, client_id=CLIENT_ID, group=CLIENT_ID) as scanner:
            yield job(_counted(scanner.read(spans), told))
        return
    yield from elsewhere(kafka, [partial(_run_piece, job, piece) for piece in _pieces(spans)], told)


def elsewhere(kafka: KafkaSettings, tasks: Iterable[Callable[[], R]], told: Told) -> Iterator[R]:
    """Yield the results of tasks in other processes, and report how many records they have read meanwhile."""
    pool, counter, stop = _pool(kafka)
    stop.clear()
    seen = counter.value
    pending: set[Future[R]] = {pool.submit(task) for task in tasks}
    try:
        while pending:
            done, pending = wait(pending, 0.2, FIRST_COMPLETED)
            at = counter.value
            told(at - seen)
            seen = at
            for future in done:
                yield future.result()
    except BaseException:
        stop.set()  # Ctrl-C, which the processes may not get, or one of them failed
        raise
    finally:
        for future in pending:
            future.cancel()


_pools: dict[str, tuple[ProcessPoolExecutor, Any, Any]] = {}


def _pool(kafka: KafkaSettings) -> tuple[ProcessPoolExecutor, Any, Any]:
    """Return this command's processes, started once, their shared counter of records, and their stop event."""
    name = kafka.bootstrap_servers
    if name not in _pools:
        context = get_context("spawn")
        counter, stop = context.Value("q", 0), context.Event()
        _pools[name] = (
            ProcessPoolExecutor(
                processors(), mp_context=context, initializer=_begin_process, initargs=(counter, stop, kafka, USABLE)
            ),
            counter,
            stop,
        )
    return _pools[name]


def processors() -> int:
    """Return how many processes may work at once."""
    return min(len(USABLE), 8)


def _pieces(spans: Spans) -> Iterator[dict[Partition, Range]]:
    """Cut spans into pieces, partition by partition."""
    for partition, (start, stop) in spans.items():
        for at in range(start, stop, PIECE):
            yield {partition: (at, min(at + PIECE, stop))}


def _counted(chunks: Iterable[Chunk], told: Told) -> Iterator[Chunk]:
    for chunk in chunks:
        yield chunk
        told(len(chunk))


# ------------------------------------------------------------------ in a process of the pool

_process: dict[str, Any] = {}


def _begin_process(counter: Any, stop: Any, kafka: KafkaSettings, usable: Collection[int]) -> None:
    """Initialise a pool process: it ends with the process that started it, however that ends."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, usable)  # instead of the CPU of the thread that started it
    end_with_parent()
    silence_client()
    calm_collector()
    _process.update(counter=counter, stop=stop, kafka=kafka)


def is_stopped() -> bool:
    """Return whether this process's work is no longer wanted; always False outside of a pool."""
    return bool(_process) and _process["stop"].is_set()


def tell(count: int) -> None:
    """Count records that this process has read."""
    counter = _process["counter"]
    with counter.get_lock():
        counter.value += count


def _run_piece(job: Job[R], piece: Spans) -> R:
    scanner: Scanner | None = _process.get("scanner")
    if scanner is None:
        kafka: KafkaSettings = _process["kafka"]
        scanner = Scanner(config_of(kafka, client_id=CLIENT_ID, group=CLIENT_ID), kafka.request_timeout_secs)
        _process["scanner"] = scanner
    return job(_counted(scanner.read(piece), tell))
