"""Threads that need the interpreter lock are kept on one CPU while they are busy, and on none otherwise."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from connector.app import affinity
from connector.app.affinity import ThreadAffinity
from connector.config.kafka import KafkaSettings
from connector.cpus import USABLE
from connector.deadletters import working


class Busy:
    """A thread that computes while it is told to."""

    def __init__(self) -> None:
        self.at_work = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def id(self) -> int:
        assert self._thread.native_id is not None
        return self._thread.native_id

    def end(self) -> None:
        self._ended = True
        self.at_work.set()
        self._thread.join()

    def _run(self) -> None:
        while self.at_work.wait() and not self._ended:
            sum(range(1_000))


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Busy]]:
    monkeypatch.setattr(affinity, "LOOK_SECS", 0.2)
    monkeypatch.setattr(affinity, "BUSY_SHARE", 0.05)  # a machine with much to do gives them no more
    threads = [Busy() for _ in range(3)]
    yield threads
    for thread in threads:
        thread.end()


async def _until(wanted: object, *threads: Busy) -> None:
    """Wait until the threads may run where `wanted` says: `"one"` and the same CPU, or these."""
    deadline = time.monotonic() + 120
    while True:
        found = {frozenset(os.sched_getaffinity(thread.id)) for thread in threads}
        if len(found) == 1 and (found == {wanted} or (wanted == "one" and len(next(iter(found))) == 1)):
            return
        assert time.monotonic() < deadline, (wanted, found)
        await asyncio.sleep(0.02)


def test_they_are_together_while_they_are_busy_and_go_anywhere_after_it(busy: list[Busy]) -> None:
    first, second, other = busy

    async def watch() -> None:
        keeping = asyncio.create_task(ThreadAffinity(lambda: {first.id, second.id}).run())
        for thread in busy:
            thread.at_work.set()
        await _until("one", first, second)
        await _until(USABLE, other)
        for thread in busy:
            thread.at_work.clear()
        await _until(USABLE, *busy)
        first.at_work.set()
        await _until("one", first, second)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await _until(USABLE, *busy)

    asyncio.run(watch())


def test_a_thread_that_ends_and_one_that_a_kept_one_starts_are_let_go_of(busy: list[Busy]) -> None:
    first, second, third = busy
    ids = {first.id, second.id}

    async def watch() -> None:
        keeping = asyncio.create_task(ThreadAffinity(lambda: ids).run())
        first.at_work.set()
        await _until("one", first, second)
        os.sched_setaffinity(third.id, {min(USABLE)})  # as one has that is started by a thread that is kept
        second.end()
        await _until(USABLE, third)
        ids.discard(second.id)
        await _until("one", first)
        assert not keeping.done()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    asyncio.run(watch())


def test_work_in_other_processes_is_kept_nowhere() -> None:
    """They inherit what the thread is kept to that starts them."""
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    found: list[object] = []

    def work() -> None:
        os.sched_setaffinity(0, {min(USABLE)})
        found.append(working.processors())
        tasks: list[Callable[[], set[int]]] = [partial(os.sched_getaffinity, 0)]
        found.extend(working.elsewhere(kafka, tasks, lambda _count: None))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert found == [min(len(USABLE), 8), set(USABLE)]
