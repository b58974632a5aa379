"""The log of a connector at work: its level changes while it runs, a line for each request, nothing given away."""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from connector.demo.topics import Record
from connector.processes import spawn
from tests.kit.patience import PATIENCE_SECS
from tests.kit.world import KEY, Worker, World, free_port, start_worker


def _lines(worker: Worker) -> list[dict[str, Any]]:
    return [json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{")]


def _answered(worker: Worker) -> list[dict[str, Any]]:
    return [line for line in _lines(worker) if line["event"] == "batch answered"]


def _listens(pid: int) -> bool:
    """Tell whether a process has a handler of the signal: one that is still starting ignores it."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) & 1 << (signal.SIGUSR1 - 1))


def _all_listen(worker: Worker, processes: int) -> bool:
    pids = {worker.pid} | {line["pid"] for line in _lines(worker) if line["event"] == "worker started"}
    return len(pids) == processes and all(map(_listens, pids))


def _switch(worker: Worker, times: int) -> None:
    """Send the signal, and wait until every process has told so many changes."""
    worker.signal(signal.SIGUSR1)
    deadline = time.monotonic() + PATIENCE_SECS
    while sum(line["event"] == "log level changed" for line in _lines(worker)) < times:
        assert time.monotonic() < deadline, worker.log.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_brings_a_line_for_each_request_and_another_ends_it(world: World, workers: int) -> None:
    """A supervisor passes it on to its workers."""
    processes = workers + (workers > 1)
    worker = world.start(world.settings(), options=["--workers", str(workers)] if workers > 1 else [])
    world.produce_sends(100, tag="before")
    worker.wait_for(lambda s: s["queued"] == 100, "the first ones settled")
    worker.wait_for(lambda _: _all_listen(worker, processes), "every process that listens for the signal")
    assert _answered(worker) == []

    _switch(worker, processes)
    world.produce_sends(1_000, tag="secret words")
    world.produce([Record(b'{"to":"0555","body":"secret words"}', b"bad")], "invalid_phone")
    worker.wait_for(lambda s: s["queued"] == 1_100, "those settled")
    _switch(worker, 2 * processes)
    told = _answered(worker)
    world.produce_sends(100, tag="after")
    worker.wait_for(lambda s: s["queued"] == 1_200, "the last ones settled")

    assert sum(line["records"] for line in told) == 1_000
    assert {line["stream"] for line in told} == {world.name}
    assert all(line["batch"] and line["partitions"] and line["row"] == "accepted" for line in told)
    assert len(_answered(worker)) == len(told)
    text = worker.log.read_text()
    assert KEY not in text
    assert "secret words" not in text
    assert "+1555" not in text.replace("+1555***", "")


def test_a_log_that_nobody_reads_holds_up_neither_records_nor_the_end(world: World) -> None:
    pipe = world.folder / "unread.log"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDWR)
    room = fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4096)
    settings = world.settings({"log": {"level": "debug"}}, stream={"batch": {"max_records": 10}})
    worker = start_worker(settings, world.folder, "unread")
    world.workers.append(worker)
    world.produce_sends(1_000)

    assert world.settled().problems() == []
    assert worker.stop() == 0
    assert 0 < len(os.read(reading, 2 * room)) <= room
    os.close(reading)


def test_the_log_of_faust_s_own_command_is_that_of_the_settings(world: World) -> None:
    """Faust's handlers, which would take its place, mask nothing."""
    settings, log, port = world.folder / "connector.yaml", world.folder / "faust.log", free_port()
    settings.write_text(yaml.safe_dump(world.settings({"web": {"port": port}, "log": {"level": "debug"}})))
    command = [sys.executable, "-m", "faust", "-A", "connector.app", "worker"]
    env = {**os.environ, "TRACKLY_CONNECTOR_SETTINGS": str(settings)}
    worker = Worker(spawn(command, log=log, env=env), port, log)
    world.workers.append(worker)
    world.produce_sends(100)

    assert world.settled().problems() == []
    assert worker.stop() == 0
    assert sum(line["records"] for line in _answered(worker)) == 100
    told = ("stream started", "batch answered", "stream stopped")
    assert all(line.startswith("{") for line in log.read_text().splitlines() if any(event in line for event in told))
