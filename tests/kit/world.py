"""A world for end-to-end tests: connector processes, a platform, a broker, and the judge."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import yaml
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from connector.demo.broker import free_ports
from connector.demo.judge import Judgement, Produced, judge
from connector.demo.topics import Record, Topics
from connector.processes import spawn, tail
from connector.simulator import SimulatorThread
from tests.kit.forked import Forked
from tests.kit.groups import remove_members
from tests.kit.local import NO_TLS
from tests.kit.patience import PATIENCE_SECS

_T = TypeVar("_T")

KEY: Final = "trk_0123456789abcdef0123456789abcdef"

_QUICK: Final[dict[str, Any]] = {
    "batch": {"max_records": 250, "window_ms": 50},
    "delivery": {"drain_secs": 8},
    "retry": {"backoff_base_secs": 0.05, "backoff_max_secs": 1},
    "breaker": {"probe_secs": 0.2, "probe_max_secs": 1},
    "hold": {"probe_secs": 0.2, "probe_max_secs": 1},
    "metadata_refresh_secs": 1,
}
"""Waits of a stream that suit a test; everything else stays at the product's defaults."""

DRAIN_SECS: Final = 2 * PATIENCE_SECS
"""Of a stream whose test is to end long before."""
PATIENT: Final = {"trackly": {"timeouts": {"total_secs": DRAIN_SECS - 5}}, "shutdown": {"grace_secs": DRAIN_SECS + 15}}
"""Settings of a worker with such a stream."""


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of `base` with the values of `over`, mappings merged."""
    merged = deepcopy(base)
    for name, value in over.items():
        there = merged.get(name)
        merged[name] = merge(there, value) if isinstance(there, dict) and isinstance(value, dict) else deepcopy(value)
    return merged


class Worker:
    """A connector process."""

    def __init__(self, process: subprocess.Popen[bytes] | Forked, port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def page(self, path: str, *, timeout_secs: float = PATIENCE_SECS) -> httpx.Response:
        url = f"http://127.0.0.1:{self.port}{path}"
        return httpx.get(url, timeout=timeout_secs, trust_env=False, verify=NO_TLS)

    def post(self, path: str, *, token: str, form: dict[str, str] | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        url = f"http://127.0.0.1:{self.port}{path}"
        return httpx.post(url, data=form or {}, headers=headers, timeout=PATIENCE_SECS, trust_env=False, verify=NO_TLS)

    def status(self) -> dict[str, Any]:
        """Return the state of the first stream; empty while the pages are not up, or no worker answers them."""
        streams = self.whole_status().get("streams")
        return streams[0] if streams else {}

    def whole_status(self) -> dict[str, Any]:
        """Return the whole status page; empty while it is not up."""
        try:
            found: dict[str, Any] = self.page("/status", timeout_secs=5).json()
        except (httpx.HTTPError, ValueError):
            return {}
        return found

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECS)

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Wait until the first stream's status is as wanted, and return it."""
        deadline = time.monotonic() + PATIENCE_SECS
        status: dict[str, Any] = {}
        while time.monotonic() < deadline:
            status = self.status() or status
            if status and wanted(status):
                return status
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"not seen: {what}; {self.account(status)}")

    def account(self, status: dict[str, Any]) -> str:
        """Return what a failed test tells of it: a status that was seen, and the end of its log."""
        return f"status {json.dumps(status)}; log ends:\n{tail(self.log, lines=30)}"


def start_worker(
    settings: dict[str, Any],
    folder: Path,
    name: str,
    env: dict[str, str] | None = None,
    options: Sequence[str] = (),
    *,
    anew: bool = True,
) -> Worker:
    """Start a connector with these settings; settings and log are files of that name.

    `anew`: as a user does; else it is forked from a process that has its modules, which takes a tenth of the time.
    """
    port = free_port()
    path, log = folder / f"{name}.yaml", folder / f"{name}.log"
    path.write_text(yaml.safe_dump(merge(settings, {"web": {"port": port}})))
    arguments, environment = ["run", str(path), *options], {**os.environ, **(env or {})}
    if anew:
        return Worker(spawn([sys.executable, "-m", "connector", *arguments], log=log, env=environment), port, log)
    return Worker(Forked(arguments, log, environment), port, log)


class World:
    """A broker's topics, a platform, and the connectors of one test. Sends have their text as their key."""

    def __init__(self, bootstrap_servers: str, topics: Topics, platform: SimulatorThread, folder: Path) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.topics = topics
        self.platform = platform
        self.folder = folder
        self.source = topics.create(partitions=4)
        self.outcomes = topics.create(partitions=4)
        self.dead_letters = topics.create(partitions=4)
        self.name = self.source.replace("_", "-").lower()
        self.produced = Produced()
        self.workers: list[Worker] = []

    def settings(self, over: dict[str, Any] | None = None, *, stream: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return settings of a send stream over this world with waits that suit a test, the given ones over them."""
        quick = {
            "kafka": {"session_timeout_secs": 6, "heartbeat_interval_secs": 1},
            "trackly": {"timeouts": {"total_secs": 5}},
            "shutdown": {"grace_secs": 15},
        }
        return self.defaults(merge(quick, over or {}), stream=merge(_QUICK, stream or {}))

    def defaults(self, over: dict[str, Any] | None = None, *, stream: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return settings of a send stream over this world at the product's defaults, with the given ones over them."""
        base = {
            "kafka": {"bootstrap_servers": self.bootstrap_servers},
            "trackly": {"base_url": self.platform.url, "api_key": KEY},
        }
        flow = {
            "name": self.name,
            "topics": [self.source],
            "operation": "send",
            "list_number": "+18005551234",
            "outcomes": {"topic": self.outcomes},
            "dead_letters": {"topic": self.dead_letters},
        }
        whole = merge(base, over or {})
        whole["streams"] = [merge(flow, stream or {})]
        return whole

    def start(
        self, settings: dict[str, Any], *, env: dict[str, str] | None = None, options: Sequence[str] = ()
    ) -> Worker:
        """Start a connector with these settings."""
        worker = start_worker(settings, self.folder, f"connector-{len(self.workers)}", env, options, anew=False)
        self.workers.append(worker)
        return worker

    def produce(self, records: Iterable[Record], expected: str = "queued") -> None:
        """Produce records to the source topic that are all to end in the same way."""
        self.produced.add_all(self.topics.produce(self.source, records), expected)

    def produce_sends(self, count: int, *, tag: str = "text") -> None:
        """Produce good events, each with a text of its own, which is its key as well."""
        self.produce(sends(count, tag=tag))

    def judge(self, *, failures_only: bool = False) -> Judgement:
        """Compare what was produced with both topics and with the platform's ledger."""
        accepted = {entry.identity.encode(): entry.accepted for entry in self.platform.entries("send")}
        return judge(
            self.bootstrap_servers,
            self.produced,
            outcomes=self.outcomes,
            dead_letters=self.dead_letters,
            accepted=accepted,
            failures_only=failures_only,
        )

    def settled(self) -> Judgement:
        """Wait until every record has a result, and return the judgement; it may still find problems."""
        deadline = time.monotonic() + PATIENCE_SECS
        # To ask for the ends is cheap, to judge is not. Markers of transactions count as well, so the judge decides.
        while time.monotonic() < deadline:
            with suppress(KafkaException):  # of a broker that comes back meanwhile
                if sum(self._ends()) >= self.produced.count:
                    break
            time.sleep(0.05)
        while True:
            ends = self._ends()
            found = self.judge()
            if found.lost == 0 or time.monotonic() > deadline:
                # Once more if there is more: the ledger was read before the topics.
                return found if self._ends() == ends else self.judge()
            time.sleep(0.2)

    def _ends(self) -> list[int]:
        """Return how far each partition of both topics of results is written."""
        return [end for topic in (self.outcomes, self.dead_letters) for end in self.topics.ends(topic).values()]

    @property
    def group(self) -> str:
        """The consumer group of the stream, where no setting names one."""
        return f"trackly-connector.{self.name}"

    def commit(self, *positions: TopicPartition) -> None:
        """Commit offsets of the group, as another program would that uses its name; its workers have ended."""
        if self.workers:
            self.leave()
        request = ConsumerGroupTopicPartitions(self.group, list(positions))

        def alter(admin: AdminClient) -> None:
            [answer] = admin.alter_consumer_group_offsets([request]).values()
            for position in answer.result(PATIENCE_SECS).topic_partitions:
                if position.error is not None:
                    raise KafkaException(position.error)

        self._ask(alter)

    def leave(self, *names: str) -> None:
        """Have the group forget workers that have ended, all or those of these instance ids, before their session does.

        By themselves they stay in it until then, in case that they come back.
        """
        if not names:
            assert all(worker.process.poll() is not None for worker in self.workers)
            group = self._ask(
                lambda admin: admin.describe_consumer_groups([self.group])[self.group].result(PATIENCE_SECS)
            )
            names = tuple(member.group_instance_id for member in group.members if member.group_instance_id is not None)
        remove_members(self.bootstrap_servers, self.group, names)

    def _ask(self, request: Callable[[AdminClient], _T]) -> _T:
        """Return what the coordinator of the group answers; one that has just started loads its groups first."""
        admin, deadline = AdminClient({"bootstrap.servers": self.bootstrap_servers}), time.monotonic() + PATIENCE_SECS
        admin.list_topics(timeout=PATIENCE_SECS)
        while True:
            try:
                return request(admin)
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def headers_of_dead_letters(self) -> list[dict[str, str]]:
        """Return the headers of all dead letters, as text."""
        letters = self.topics.read(self.dead_letters)
        return [{name: _text(value) for name, value in dict(letter.headers() or []).items()} for letter in letters]

    def outcome_values(self) -> list[dict[str, Any]]:
        """Return all outcomes."""
        return [json.loads(message.value() or b"") for message in self.topics.read(self.outcomes)]

    def close(self) -> None:
        """End what runs, at once: nobody reads what an orderly end would write."""
        for worker in self.workers:
            worker.kill()


def _text(value: str | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def sends(count: int, *, tag: str = "text") -> Iterator[Record]:
    """Yield good events with texts `<tag> 0`, `<tag> 1`, ..."""
    for number in range(count):
        yield send(number, tag=tag)


def send(number: int, *, tag: str = "text") -> Record:
    """Return the good event with the text `<tag> <number>`, which is its key as well."""
    text = f"{tag} {number}"
    return Record(json.dumps({"to": f"+1555{number % 10_000_000:07d}", "body": text}).encode(), text.encode())


def free_port() -> int:
    """Return a port of this machine that nobody listens on, nor is given to connections that go out."""
    return free_ports(1)[0]
