"""The demo: everything is real except the platform, and verified at the end.

A connector runs as a separate process between a Kafka broker and the simulator, which is slow, fails now and then, has
an outage and loses one reply after it has accepted the batch. When everything is settled, both result topics are read
back: each event must have ended once, as the generator intended.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import yaml
from confluent_kafka import KafkaException
from rich.console import Console

from connector.demo.artifacts import BrokerUnavailableError
from connector.demo.broker import HOST, free_ports
from connector.demo.events import LIST_NUMBER, Events, reference_of
from connector.demo.finding import BrokerHandle, find_broker
from connector.demo.judge import Judgement, Produced, judge
from connector.demo.live import StatusPage, live_view, watch
from connector.demo.topics import Position, Record, Topics, produce
from connector.processes import spawn, stop, tail
from connector.simulator import Chance, Faults, SendingList, SimulatorSettings, SimulatorThread

_T = TypeVar("_T")

_API_KEY: Final = "trk_0123456789abcdef0123456789abcdef"  # the simulator's, which knows no other
_PARTITIONS: Final = 4
_BATCH_RECORDS: Final = 250  # more requests than the largest batches would make, so that faults find something to hit
_OUTAGE_SECS: Final = 3.0
_OUTAGE_AT: Final = 0.3  # of the events accepted: in the middle of the work, however fast that goes
_MOCK_EVENTS: Final = 40_000  # its partitions keep 5 MB, then forget: 40,000 outcomes of 310 bytes on 4 are 3 MB each
_STOP_SECS: Final = 25
_WEATHER: Final = Faults(latency_ms=(20, 80), error_rate={503: 0.05})
# The first batch is accepted and its reply lost: a client cannot know whether it was accepted.
_FIRST_WEATHER: Final = _WEATHER.overlaid(Faults(lose_reply=Chance(next=1)))
_OUTAGE: Final = _WEATHER.overlaid(Faults(status_override=503))


class DemoError(Exception):
    """The demo could not be completed; the message says where, with the end of the connector's log."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the demo."""

    judgement: Judgement
    problems: list[str]
    """Violations of the guarantees; empty if there were none."""
    seconds: float
    """From the first event to the last settled one."""
    broker: str
    outage_secs: float
    replies_lost: int
    requests: int

    @property
    def records_per_second(self) -> float:
        """Settled records over the whole time, including the outage."""
        return (self.judgement.produced - self.judgement.lost) / self.seconds

    def summary(self) -> dict[str, object]:
        """Return the totals, as `--json` prints them; dead letters include those in doubt, by that reason."""
        found = self.judgement
        return {
            "produced": found.produced,
            "queued": found.queued,
            "dead_letters": dict(found.dead_letters),
            "in_doubt": found.in_doubt,
            "lost": found.lost,
            "accepted_twice": found.accepted_twice,
            "seconds": round(self.seconds, 2),
            "records_per_second": round(self.records_per_second),
            "broker": self.broker,
        }


def run_demo(
    console: Console, *, events: Events, bootstrap_servers: str | None = None, timeout_secs: float = 80
) -> Result:
    """Run the whole demo, and stop everything that it started.

    `timeout_secs` limits the time until everything is settled. Raises `BrokerUnavailableError` if there is no broker
    that allows it, `DemoError` if the connector fails or does not finish, `KeyboardInterrupt` on SIGINT and SIGTERM.
    """
    with _refusals(), ExitStack() as stack:
        interrupted = stack.enter_context(_ended_by_signals())
        stage = _set_up(stack, console, events, bootstrap_servers)
        stopping = threading.Event()
        feed = _Feed(stage.events, stopping)
        feeding = stack.enter_context(
            _meanwhile(
                stopping,
                lambda: produce(stage.servers, stage.source, feed.records(), acknowledged=feed.acknowledged),
            )
        )
        outage_at = int(stage.events.count * _OUTAGE_AT)
        outage = stack.enter_context(_meanwhile(stopping, lambda: _outage(stage.simulator, outage_at, stopping)))
        started = time.monotonic()
        with live_view(console, lambda: feed.count) as show:
            done = watch(
                stage.page,
                show,
                lambda status: (
                    interrupted.is_set()
                    or stage.connector.poll() is not None
                    or (feeding.done() and status.settled >= feed.count)
                ),
                timeout_secs=timeout_secs,
            )
        if interrupted.is_set():
            raise KeyboardInterrupt
        seconds = time.monotonic() - started
        if stage.connector.poll() is not None:
            raise DemoError(f"the connector ended before its work did; its log ends:\n{tail(stage.log)}")
        feeding.result()
        stopping.set()
        exit_code = stop(stage.connector, grace_secs=_STOP_SECS)
        problems = [] if done else [f"not everything was settled within {timeout_secs:g} s"]
        problems += [f"the connector ended with exit code {exit_code}"] if exit_code else []
        return _judged(stage, console, feed.produced, problems=problems, seconds=seconds, outage_secs=outage.result())


@dataclass(frozen=True, slots=True)
class _Stage:
    """What the demonstration runs on: all of it is there until the stack ends that it was put on."""

    events: Events
    broker: BrokerHandle
    simulator: SimulatorThread
    source: str
    outcomes: str
    dead_letters: str
    connector: subprocess.Popen[bytes]
    log: Path
    """The connector's."""
    page: StatusPage

    @property
    def servers(self) -> str:
        return self.broker.bootstrap_servers


def _set_up(stack: ExitStack, console: Console, events: Events, bootstrap_servers: str | None) -> _Stage:
    """Find a broker, and start the platform and the connector; the stack ends what was started."""
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trackly-demo-")))
    with console.status("Looking for a broker (the first time, Maven fetches about 45 MB) ..."):
        broker = stack.enter_context(find_broker(bootstrap_servers, allow_mock=True))
    _introduce(console, broker)
    if broker.kind == "mock" and events.count > _MOCK_EVENTS:
        console.print(f"It holds no more than {_MOCK_EVENTS:,} events in place of {events.count:,}.", style="yellow")
        events = replace(events, count=_MOCK_EVENTS)
    platform = SimulatorSettings(
        api_keys=(_API_KEY,),
        lists=(SendingList(phone_number=LIST_NUMBER),),
        faults=_FIRST_WEATHER,
        seed=events.seed,
    )
    simulator = stack.enter_context(SimulatorThread(platform))
    console.print(
        f"Platform:  simulator at {simulator.url} (20-80 ms, 5 % 503, an outage, a lost reply)", soft_wrap=True
    )
    topics = Topics(broker.bootstrap_servers, prefix="demo", auto_created=broker.kind == "mock")
    if broker.kind == "given":
        stack.callback(topics.delete_all)
    source, outcomes, dead_letters = (
        topics.create(purpose, partitions=_PARTITIONS) for purpose in ("sends", "outcomes", "dead-letters")
    )
    port = free_ports(1)[0]
    settings = _settings(
        broker, url=simulator.url, port=port, source=source, outcomes=outcomes, dead_letters=dead_letters
    )
    log = home / "connector.log"
    connector = stack.enter_context(_running_connector(home / "connector.yaml", settings, log))
    console.print(f"Connector: http://{HOST}:{port}/status")
    page = StatusPage(f"http://{HOST}:{port}/status")
    stack.callback(page.close)
    return _Stage(events, broker, simulator, source, outcomes, dead_letters, connector, log, page)


def _judged(
    stage: _Stage, console: Console, produced: Produced, *, problems: list[str], seconds: float, outage_secs: float
) -> Result:
    """Read everything back, and return what was found beside the problems that are known."""
    with console.status("Reading both topics back ..."):
        accepted = {reference_of(entry.identity): entry.accepted for entry in stage.simulator.entries("send")}
        judgement = judge(
            stage.servers, produced, outcomes=stage.outcomes, dead_letters=stage.dead_letters, accepted=accepted
        )
    ledger = stage.simulator.ledger()
    replies_lost = sum(ledger.unanswered.values())
    found = _problems(judgement, stage.events, replies_lost, is_exact=stage.broker.is_transactional)
    if found or problems:
        log = tail(stage.log)
        console.print("The connector's log ends:", log, sep="\n", markup=False, highlight=False, soft_wrap=True)
    return Result(
        judgement=judgement,
        problems=found + problems,
        seconds=seconds,
        broker=stage.broker.description,
        outage_secs=outage_secs,
        replies_lost=replies_lost,
        requests=ledger.requests,
    )


def _introduce(console: Console, broker: BrokerHandle) -> None:
    for way, reason in broker.skipped.items():
        console.print(f"No broker by {way}: {reason}", style="yellow", markup=False, soft_wrap=True)
    console.print(f"Broker:    {broker.description} ({broker.bootstrap_servers})", soft_wrap=True)
    if not broker.is_transactional:
        console.print(
            "NOT A REAL BROKER: the mock cluster has no true transactions. This run is at-least-once; it shows how the "
            "connector works, not what it promises. Install Java 17 and Maven, or start Docker, for the real thing.",
            style="bold red",
            soft_wrap=True,
        )


def _problems(judgement: Judgement, events: Events, replies_lost: int, *, is_exact: bool) -> list[str]:
    """Return violations of the guarantees; records in doubt must be explained by lost replies."""
    problems = judgement.problems(repeats_allowed=not is_exact)
    most = replies_lost * _BATCH_RECORDS
    if judgement.in_doubt > most:
        problems.append(
            f"{judgement.in_doubt} records are in doubt, but lost replies ({replies_lost}) explain {most} at most"
        )
    if judgement.produced != events.count:
        problems.append(f"{judgement.produced} events were produced, not {events.count}")
    return problems


def _settings(
    broker: BrokerHandle, *, url: str, port: int, source: str, outcomes: str, dead_letters: str
) -> Mapping[str, object]:
    """Return the connector's settings, which except for the addresses are what an operator would write."""
    kafka: dict[str, object] = {"bootstrap_servers": broker.bootstrap_servers}
    if broker.kind == "mock":
        kafka["request_timeout_secs"] = 2  # it does not answer every question, and each would be waited for
    return {
        "kafka": kafka,
        "trackly": {"base_url": url, "api_key": "${env:TRACKLY_API_KEY}"},
        "web": {"port": port},
        "log": {"format": "console"},
        "streams": [
            {
                "name": source,  # the topic's, which is new: so are the group and its progress
                "topics": [source],
                "operation": "send",
                "list_number": LIST_NUMBER,
                "batch": {"max_records": _BATCH_RECORDS},
                "delivery": {"guarantee": "exactly_once" if broker.is_transactional else "at_least_once"},
                "outcomes": {"topic": outcomes},
                "dead_letters": {"topic": dead_letters},
            }
        ],
    }


@contextmanager
def _running_connector(file: Path, settings: Mapping[str, object], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    file.write_text(yaml.safe_dump(dict(settings), sort_keys=False))
    environment = os.environ | {"TRACKLY_API_KEY": _API_KEY}
    process = spawn([sys.executable, "-m", "connector", "run", str(file)], log=log, env=environment)
    try:
        yield process
    finally:  # by SIGKILL if still there: after an interrupt, nobody waits for the drain
        process.kill()
        process.wait()


class _Feed:
    """Produces the events to the source topic, until stopped."""

    def __init__(self, events: Events, stopping: threading.Event) -> None:
        self.count = 0
        self.produced = Produced()
        self._events = events
        self._stopping = stopping
        self._expected: list[str] = []

    def records(self) -> Iterator[Record]:
        for event in self._events:
            if self._stopping.is_set():
                return
            self._expected.append(event.expected)
            yield Record(event.value, event.key)

    def acknowledged(self, index: int, position: Position) -> None:
        self.produced.add(position, self._expected[index])
        self.count += 1


def _outage(simulator: SimulatorThread, after: int, stopping: threading.Event) -> float:
    """Make the platform fail for a while once it has accepted so many records; return for how many seconds."""
    while simulator.ledger().accepted < after:
        if stopping.wait(0.02):
            return 0.0
    simulator.set_faults(_OUTAGE)
    started = time.monotonic()
    stopping.wait(_OUTAGE_SECS)
    simulator.set_faults(_WEATHER)
    return time.monotonic() - started


@contextmanager
def _meanwhile(stopping: threading.Event, work: Callable[[], _T]) -> Iterator[Future[_T]]:
    """Do some work in a thread, which is stopped at the end."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            yield thread.submit(work)
        finally:
            stopping.set()


@contextmanager
def _refusals() -> Iterator[None]:
    """Report what a broker refuses, such as the creation of a topic, like a broker that cannot be used."""
    try:
        yield
    except KafkaException as error:
        raise BrokerUnavailableError(f"the broker refuses what the demo needs: {error.args[0].str()}") from error


@contextmanager
def _ended_by_signals() -> Iterator[threading.Event]:
    """Turn SIGINT and SIGTERM into `KeyboardInterrupt`, so that everything that was started is stopped and removed.

    An exception in a signal handler may be swallowed by the callback that it interrupts, so the event that is yielded
    is set as well.
    """
    interrupted = threading.Event()

    def interrupt(_number: int, _frame: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
