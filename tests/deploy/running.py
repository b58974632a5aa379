"""Commands of documents and deployments, run as the processes that they start."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
from confluent_kafka import Producer

from connector.processes import spawn, stop, tail
from tests.deploy.conftest import ROOT
from tests.kit.local import NO_TLS
from tests.kit.patience import PATIENCE_SECS

_STOP_SECS: Final = 60


class Running:
    """A process of `trackly-connector`, and what it has printed."""

    def __init__(self, arguments: Sequence[str], home: Path, environ: Mapping[str, str]) -> None:
        self.log = home / f"{arguments[0]}.log"
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": paths, **environ}
        self._process = spawn([sys.executable, "-m", "connector", *arguments], log=self.log, env=environment, cwd=home)

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def pid(self) -> int:
        return self._process.pid

    def code(self) -> int:
        """Wait for the process to end and return its exit code."""
        return self._process.wait(_STOP_SECS)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        return stop(self._process, grace_secs=_STOP_SECS)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Return when the condition holds; fail with the log's end when it does not in time."""
        deadline = time.monotonic() + PATIENCE_SECS
        while not condition():
            assert not self.has_ended, f"ended before {what}:\n{tail(self.log)}"
            assert time.monotonic() < deadline, f"no {what}:\n{tail(self.log)}"
            time.sleep(0.1)


@contextmanager
def running(arguments: Sequence[str], home: Path, **environ: str) -> Iterator[Running]:
    """Run `trackly-connector` with these arguments in a folder; it is ended with the block at the latest."""
    process = Running(arguments, home, environ)
    try:
        yield process
    finally:
        process.stop()


def answers(url: str) -> bool:
    """Tell whether a page is there and well."""
    try:
        return httpx.get(url, timeout=5, trust_env=False, verify=NO_TLS).is_success
    except httpx.HTTPError:
        return False


def produce_lines(bootstrap_servers: str, topic: str, lines: Sequence[bytes | None]) -> None:
    """Produce each line as a record, as a console producer does, to a topic that may appear with the first."""
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    for line in lines:
        producer.produce(topic, line)
    assert producer.flush(30) == 0
