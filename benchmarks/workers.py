"""What several workers cost and bring, beside one: `python -m benchmarks.workers`.

Records wait in an open transaction until all workers have their partitions, then become readable at once: so nobody has
a head start, and what a start costs is not counted. The platform is the simulator without checks and without latency,
a process of its own. CPU is that of the workers and their supervisor, as the kernel counts it, from the commit of that
transaction to the last outcome; broker and platform are left out. On a machine with few cores all of them share these,
so the rate says less than the CPU for each record.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final

import httpx
import typer
import yaml
from confluent_kafka import Producer

from benchmarks.processes import cpu_secs
from benchmarks.warming import warm_up
from connector.demo.broker import HOST, free_ports
from connector.demo.finding import find_broker
from connector.demo.topics import Topics
from connector.processes import spawn, stop, tail

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
    bootstrap_servers: Annotated[str | None, typer.Option(help="A broker; without it one is started.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a run.")] = False,
) -> None:
    """Measure records per second and CPU per record for each number of workers.

    Two runs of the same differ by a fifth on a busy day: repeat the numbers, alternating, and look at the medians.
    """
    runs: list[Measured] = []
    with find_broker(bootstrap_servers) as broker:

        def run(count: int) -> Measured:
            return measure(broker.bootstrap_servers, count, records=records, partitions=partitions)

        def say(text: str) -> None:
            print(text, file=sys.stderr, flush=True)

        warm_up(None if broker.broker is None else broker.broker.pid, say, lambda: run(1), at_most=MOST_WARM_UPS)
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


def measure(bootstrap_servers: str, workers: int, *, records: int, partitions: int) -> Measured:
    """Run one backlog through so many workers."""
    topics = Topics(bootstrap_servers, prefix="workers")
    source = topics.create(partitions=partitions)
    outcomes, dead_letters = topics.create(partitions=partitions), topics.create(partitions=partitions)
    try:
        with tempfile.TemporaryDirectory(prefix="trackly-bench-") as folder:
            home = Path(folder)
            platform_port, web_port = free_ports(2)
            settings = {
                "instance_id": source,
                "kafka": {"bootstrap_servers": bootstrap_servers},
                "trackly": {"base_url": f"http://{HOST}:{platform_port}/api/v2", "api_key": "trk_" + "0" * 32},
                "web": {"port": web_port},
                "streams": [
                    {
                        "name": source,
                        "topics": [source],
                        "operation": "send",
                        "list_number": "+18005551234",
                        "outcomes": {"topic": outcomes},
                        "dead_letters": {"topic": dead_letters},
                    }
                ],
            }
            file = home / "connector.yaml"
            file.write_text(yaml.safe_dump(settings))
            release = _fill(bootstrap_servers, source, records, partitions)
            with (
                _running(["simulate", "--fast", "--port", str(platform_port)], home / "platform.log"),
                _running(["run", str(file), "--workers", str(workers)], home / "connector.log") as connector,
            ):
                status = _Status(f"http://{HOST}:{web_port}/status", connector, home / "connector.log")
                status.shared_by(workers, partitions)
                cpu = cpu_secs(connector.pid)
                release.commit_transaction(60)
                began = time.monotonic()
                status.settled(records)
                return Measured(workers, records, time.monotonic() - began, cpu_secs(connector.pid) - cpu)
    finally:
        topics.delete_all()


def _fill(bootstrap_servers: str, topic: str, records: int, partitions: int) -> Producer:
    """Produce records of about 105 bytes in a transaction that is left open, and return its producer."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "transactional.id": topic,
            "transaction.timeout.ms": 600_000,
            "linger.ms": 50,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 500_000,
        }
    )
    producer.init_transactions(60)
    producer.begin_transaction()
    text = "Your order has shipped and will be with you soon. Thank you!"
    for number in range(records):
        value = b'{"to": "+1555%07d", "body": "%s %07d"}' % (number % 10_000_000, text.encode(), number % 10_000_000)
        while True:
            try:
                producer.produce(topic, value, partition=number % partitions)
            except BufferError:
                producer.poll(0.1)
            else:
                break
    producer.flush()
    return producer


@contextmanager
def _running(arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = spawn([sys.executable, "-m", "connector", *arguments], log=log)
    try:
        yield process
    finally:
        stop(process, grace_secs=30)


class _Status:
    """What the connector says of itself."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self._url = url
        self._process = process
        self._log = log

    def shared_by(self, workers: int, partitions: int) -> None:
        """Wait until all workers have partitions."""
        self._wait(lambda page: _is_shared(page, workers, partitions), _START_SECS, every_secs=0.2)
        time.sleep(3)  # what a start leaves behind: the loading of progress, a first look at the holds

    def settled(self, records: int) -> None:
        """Wait until so many records have their outcome."""
        self._wait(lambda page: bool(page["streams"][0]["queued"] >= records), _RUN_SECS, every_secs=0.25)

    def _wait(self, wanted: Any, secs: float, *, every_secs: float) -> None:
        deadline = time.monotonic() + secs
        with httpx.Client(timeout=10, trust_env=False) as client:
            while time.monotonic() < deadline and self._process.poll() is None:
                try:
                    reply = client.get(self._url)
                except httpx.TransportError:
                    reply = None
                if reply is not None and reply.status_code == httpx.codes.OK and wanted(reply.json()):
                    return
                time.sleep(every_secs)
        raise SystemExit(f"the connector did not get there; its log ends:\n{tail(self._log)}")


def _is_shared(page: dict[str, Any], workers: int, partitions: int) -> bool:
    owned = page["streams"][0]["partitions"].values()
    return len(owned) == partitions and len({found.get("worker") for found in owned}) == workers


if __name__ == "__main__":
    typer.run(main)
