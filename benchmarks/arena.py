"""Where the contestants meet: one broker, far ends that are never the limit, and topics filled once.

Progress is read from outside, in the same way for all: as the sum of the offsets that a group has committed. All of
them commit an offset only when the result of its record is written, so this is what was done, not what was begun.
"""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import orjson
import yaml
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from rich.console import Console

from benchmarks import services
from benchmarks.events import Events, fill, filler
from benchmarks.processes import compiler_secs, cpu_secs
from connector.demo.broker import Broker, free_ports
from connector.demo.topics import Topics
from connector.processes import spawn, stop, tail

Process = subprocess.Popen[bytes]

_START_SECS: Final = 30
_BLASTING: Final = 8
STOP_SECS: Final = 15
"""How long a contestant may take to end."""
_NOT_YET: Final = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError._TIMED_OUT,  # noqa: SLF001 (the library names its own errors so)
        KafkaError._WAIT_COORD,  # noqa: SLF001
    }
)
"""What a young or busy broker says, and takes back soon."""
_COMPILED_SHARE: Final = 0.1
"""What the broker's compiler takes of a core when it is warm."""
_QUICKLY_DELETED: Final = {"file.delete.delay.ms": "1000", "segment.bytes": "104857600"}


class BenchmarkError(Exception):
    """A contestant or a tool of ours did not do what it should."""


@dataclass(frozen=True, slots=True)
class FarEnd:
    """The simulator in its fast mode, as a process of its own: it reads every body whole and counts its records."""

    pid: int
    base_url: str
    control_url: str
    client: httpx.Client

    def counts(self) -> tuple[int, int]:
        """Return how many requests came and how many records were accepted so far."""
        ledger = self.client.get(f"{self.control_url}/ledger").json()
        return ledger["requests"], ledger["accepted"]


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the far end can do when nobody else works."""

    records_per_second: float
    cpu_us_per_record: float


@dataclass(frozen=True, slots=True)
class Running:
    """A connector at work: its process, its log and its pages."""

    process: Process
    log: Path
    port: int
    client: httpx.Client

    def page(self, path: str) -> httpx.Response | None:
        """Return one of its pages; None while it serves none."""
        try:
            return self.client.get(f"http://127.0.0.1:{self.port}{path}")
        except httpx.TransportError:
            return None

    @property
    def is_ready(self) -> bool:
        """Whether all its streams are in their groups."""
        page = self.page("/readyz")
        return page is not None and page.status_code == httpx.codes.OK

    def stream(self, name: str) -> dict[str, Any]:
        """Return what it tells of one of its streams."""
        page = self.page("/status")
        if page is None:
            raise BenchmarkError(f"the connector tells no status; its log ends:\n{tail(self.log)}")
        [found] = [stream for stream in page.json()["streams"] if stream["name"] == name]
        return dict(found)

    def wait_until(self, reached: Callable[[], bool], *, secs: float = _START_SECS, every_secs: float = 0.01) -> None:
        """Look until it is so; raises `BenchmarkError` when it is not in time."""
        deadline = time.monotonic() + secs
        while not reached():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise BenchmarkError(f"the connector does not get there; its log ends:\n{tail(self.log)}")
            time.sleep(every_secs)


class Arena:
    """The broker, the far ends and the topics of one run; use `open`."""

    def __init__(self, broker: Broker, folder: Path, resources: ExitStack, console: Console) -> None:
        self.broker = broker
        self.folder = folder
        self.topics = Topics(broker.bootstrap_servers, prefix="bench")
        self._resources = resources
        self._console = console
        self._client = resources.enter_context(httpx.Client(trust_env=False, timeout=10))
        self._far_ends: dict[int, FarEnd] = {}
        self._sources: dict[tuple[Events, int], str] = {}

    @classmethod
    @contextmanager
    def open(cls, console: Console, *, broker_properties: dict[str, str] | None = None) -> Iterator["Arena"]:
        """Start a broker; all that is started ends with the context."""
        with ExitStack() as resources:
            folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="trackly-bench-")))
            broker = resources.enter_context(Broker.start(properties=broker_properties, heap="2g"))
            yield cls(broker, folder, resources, console)

    def say(self, text: str) -> None:
        """Print a line as it is."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def warm_up(self, work: Callable[[], object], *, at_most: int) -> None:
        """Do some work again and again, until the compiler of the broker has little to do meanwhile.

        A broker that has been up for a day compiles nothing any more: nobody's figures are to pay for that.
        """
        broker = self.broker.pid
        assert broker is not None
        for _ in range(at_most):
            began, before = time.monotonic(), compiler_secs(broker)
            work()
            share = (compiler_secs(broker) - before) / (time.monotonic() - began)
            self.say(f"warming up: the broker's compiler took {share:.0%} of a core")
            if share < _COMPILED_SHARE:
                break

    def far_end(self, latency_ms: int) -> FarEnd:
        """Return the far end that answers after this time; started at first use."""
        if latency_ms not in self._far_ends:
            log = self.folder / f"simulator-{latency_ms}.log"
            arguments = ["simulate", "--fast", "--json", *(["--latency-ms", str(latency_ms)] if latency_ms else [])]
            process = spawn([sys.executable, "-m", "connector", *arguments], log=log)
            self._resources.callback(stop, process, grace_secs=5)
            deadline = time.monotonic() + _START_SECS
            while not (log.exists() and log.read_text().endswith("\n")):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise BenchmarkError(f"the simulator does not start:\n{tail(log)}")
                time.sleep(0.05)
            urls = orjson.loads(log.read_text().splitlines()[0])
            self._far_ends[latency_ms] = FarEnd(process.pid, urls["url"], urls["control_url"], self._client)
        return self._far_ends[latency_ms]

    @contextmanager
    def connector(
        self,
        name: str,
        far_end: FarEnd,
        streams: Sequence[Mapping[str, Any]],
        over: Mapping[str, Any] | None = None,
        *,
        tree: Path | None = None,
        workers: int | None = None,
    ) -> Iterator[Running]:
        """Run a connector as users do, with ordinary settings, for as long as the context lasts.

        `over` goes over the settings at the top; spans, where it wants them, go to a collector of ours. `tree` is
        another checkout to run it from; with `workers` it is a supervisor over so many.
        """
        port = free_ports(1)[0]
        settings: dict[str, Any] = {
            "kafka": {"bootstrap_servers": self.broker.bootstrap_servers},
            "trackly": {"base_url": far_end.base_url, "api_key": "trk_0123456789abcdef0123456789abcdef"},
            "web": {"port": port},
            "streams": [dict(stream) for stream in streams],
            **(over or {}),
        }
        if "traces" in settings:
            settings["traces"] = {**settings["traces"], "endpoint": f"{self._services}/v1/traces"}
        if any("format" in stream for stream in streams):
            settings["schema_registry"] = {"url": self._services}
        path, log = self.folder / f"{name}.yaml", self.folder / f"{name}.log"
        path.write_text(yaml.safe_dump(settings))
        argv = ["run", str(path), *([] if workers is None else ["--workers", str(workers)])]
        process = spawn([sys.executable, "-m", "connector", *argv], log=log, cwd=tree)
        try:
            yield Running(process, log, port, self._client)
        finally:
            stop(process, grace_secs=STOP_SECS)

    @cached_property
    def _services(self) -> str:
        """The address of a schema registry and of a collector of spans; started at first use."""
        return self._resources.enter_context(services.serve())

    def source(self, events: Events, count: int) -> str:
        """Return a topic with `count` records of a kind, filled at first use; later runs read it again."""
        if (events, count) not in self._sources:
            began = time.monotonic()
            topic = self._create(f"source-{events.name}", events.partitions)
            for done in fill(filler(self.broker.bootstrap_servers, events), topic, events, count):
                if done % 1_000_000 == 0:
                    self.say(f"  {done:,} of {count:,} `{events.name}` records produced")
            self._sources[events, count] = topic
            self.say(f"  topic `{events.name}` filled: {count:,} records in {time.monotonic() - began:.1f} s")
        return self._sources[events, count]

    def drop_sources(self, *, keep: Sequence[Events]) -> None:
        """Delete the source topics of all kinds but these."""
        for (events, count), topic in list(self._sources.items()):
            if events not in keep:
                self.topics.delete(topic)
                del self._sources[events, count]

    @contextmanager
    def targets(self, partitions: int) -> Iterator[tuple[str, str]]:
        """Yield fresh topics for outcomes and dead letters; they are deleted at the end."""
        made = [self._create(purpose, partitions) for purpose in ("outcomes", "dead-letters")]
        try:
            yield made[0], made[1]
        finally:
            with suppress(KafkaException):
                self.topics.delete(*made)

    def _create(self, purpose: str, partitions: int) -> str:
        return self.topics.create(purpose, partitions=partitions, config=_QUICKLY_DELETED)


def stream_settings(
    name: str, source: str, outcomes: str, dead_letters: str, over: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the settings of a stream of sends at the product's defaults, with the given ones over them."""
    stream: dict[str, Any] = {
        "name": name,
        "group_id": name,
        "topics": [source],
        "operation": "send",
        "outcomes": {"topic": outcomes},
        "dead_letters": {"topic": dead_letters},
    }
    for key, value in (over or {}).items():
        stream[key] = {**stream.get(key, {}), **value} if isinstance(value, dict) else value
    return stream


class Progress:
    """Reads how far a group has come on a topic, without being one of its members."""

    def __init__(self, bootstrap_servers: str, group: str, topic: str, partitions: int) -> None:
        # Reading uncommitted an open transaction is not waited for: what stands committed is asked, nothing else.
        properties: dict[str, Any] = {"group.id": group, "isolation.level": "read_uncommitted", "log_level": 2}
        self._consumer = Consumer({"bootstrap.servers": bootstrap_servers, **properties})
        self._last = 0
        self._spots = [TopicPartition(topic, number) for number in range(partitions)]

    def __call__(self) -> int:
        """Return the sum of the committed offsets; while the broker cannot tell, as it told them last."""
        try:
            self._last = sum(max(spot.offset, 0) for spot in self._consumer.committed(self._spots, 10))
        except KafkaException as error:
            if not error.args[0].retriable() and error.args[0].code() not in _NOT_YET:
                raise BenchmarkError(f"the broker does not tell the progress: {error}") from error
        return self._last

    def close(self) -> None:
        """Let the connection go."""
        self._consumer.close()


def ceiling(far_end: FarEnd, events: Events, *, secs: float) -> Ceiling:
    """Measure the far end alone: ready bodies of 1,000 records each, over sockets that do nothing but send them."""
    records = events.chunk(0)[:1_000]
    body = b'{"messages":[' + b",".join([record["value"] for record in records]) + b"]}"
    url = urlsplit(far_end.base_url)
    head = (
        f"POST {url.path}/send/bulk HTTP/1.1\r\nHost: {url.netloc}\r\nX-Api-Key: trk_x\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    stop_at = time.monotonic() + secs

    def blast() -> int:
        sent = 0
        with socket.create_connection((url.hostname or "", url.port or 0)) as connection:
            while time.monotonic() < stop_at:
                connection.sendall(request)
                reply = connection.recv(65_536)
                if not reply.startswith(b"HTTP/1.1 200"):
                    raise BenchmarkError(f"the far end answers {reply[:200]!r}")
                sent += len(records)
        return sent

    before, began = cpu_secs(far_end.pid), time.monotonic()
    with ThreadPoolExecutor(_BLASTING) as threads:
        sent = sum(threads.map(lambda _: blast(), range(_BLASTING)))
    took = time.monotonic() - began
    return Ceiling(sent / took, (cpu_secs(far_end.pid) - before) / sent * 1e6)
