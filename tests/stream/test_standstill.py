"""Standing still on a real broker: an open transaction upstream is named, and a stuck thread turns health off."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from connector.config.settings import Settings
from connector.demo.topics import Topics
from connector.kafka.publisher import TransactionalPublisher
from connector.simulator import Faults, SimulatorThread
from connector.stream.stream import Stream
from tests.conftest import MakeBroker
from tests.kit.patience import PATIENCE_SECS
from tests.kit.world import Worker, World, sends
from tests.stream.making import make_stream

STALLED_SECS = 6
DRAIN_SECS = STALLED_SECS - 1
"""The maximum for a stream that stands still."""


def _start(world: World) -> Worker:
    timeouts = {"total_secs": DRAIN_SECS - 1, "connect_secs": DRAIN_SECS - 1}
    whole = {"health": {"stalled_secs": STALLED_SECS}, "trackly": {"timeouts": timeouts}}
    return world.start(world.settings(whole, stream={"delivery": {"drain_secs": DRAIN_SECS}}))


def _samples(worker: Worker) -> list[str]:
    lines = worker.page("/metrics").text.splitlines()
    return [line for line in lines if line.startswith("trackly_stalled_partitions{")]


def _upstream(world: World) -> Producer:
    config: dict[str, Any] = {
        "bootstrap.servers": world.bootstrap_servers,
        "transactional.id": f"upstream-{world.source}",
        "transaction.timeout.ms": 120_000,
    }
    producer = Producer(config)
    producer.init_transactions(60)
    return producer


@pytest.mark.parametrize("ending", ["commit", "abort"])
def test_an_open_transaction_upstream_is_named_until_it_ends(world: World, ending: str) -> None:
    """The topic's producer leaves a transaction open: what is behind it waits, and that is not our fault."""
    worker = _start(world)
    world.topics.produce(world.source, sends(100, tag="before"), partition=0)
    worker.wait_for(lambda s: s["queued"] == 100 and s["lag"] == 0, "the first ones sent")
    upstream = _upstream(world)
    upstream.begin_transaction()
    for record in sends(10, tag="open"):
        upstream.produce(world.source, record.value, record.key, partition=0)
    upstream.flush(30)
    world.topics.produce(world.source, sends(5, tag="behind"), partition=0)

    status = worker.wait_for(lambda s: bool(s["standstills"]), "the standstill told")

    (found,) = status["standstills"]
    assert {name: found[name] for name in ("partition", "offset", "lag", "waits_for", "known")} == {
        "partition": f"{world.source}:0",
        "offset": 100,
        "lag": 15,
        "waits_for": "upstream_transaction_open",
        "known": True,
    }
    assert STALLED_SECS <= time.time() - found["since"] < 60
    assert (worker.page("/healthz").status_code, worker.page("/readyz").status_code) == (200, 200)
    assert _samples(worker) == [
        f'trackly_stalled_partitions{{stream="{world.name}",waits_for="upstream_transaction_open"}} 1.0'
    ]
    assert "upstream_transaction_open" in worker.page("/").text
    getattr(upstream, f"{ending}_transaction")(30)
    sent = 115 if ending == "commit" else 105
    worker.wait_for(lambda s: s["queued"] == sent and s["standstills"] == [] and s["lag"] == 0, "all sent")
    assert _samples(worker) == []
    log = worker.log.read_text()
    assert (log.count("stream stands still"), log.count("standstill ended")) == (1, 1)


def test_a_worker_that_no_broker_answers_says_so_and_does_not_seem_idle(
    make_broker: MakeBroker, platform: SimulatorThread, tmp_path: Path
) -> None:
    """Its partitions are lost with its session, so nothing is left that could be seen to stand still."""
    broker = make_broker()
    world = World(broker.bootstrap_servers, Topics(broker.bootstrap_servers), platform, tmp_path)
    try:
        world.produce_sends(100)
        worker = _start(world)
        worker.wait_for(lambda s: s["queued"] == 100 and s["lag"] == 0, "the first ones sent")
        broker.kill()

        status = worker.wait_for(lambda s: any(f["partition"] is None for f in s["standstills"]), "the standstill told")

        assert [(f["waits_for"], f["known"]) for f in status["standstills"]] == [("kafka", True)]
        assert (status["partitions"], status["lag"]) == ({}, None)
        assert (worker.page("/healthz").status_code, worker.page("/readyz").status_code) == (200, 503)
        assert f"Not in its group: {world.name}" in worker.page("/").text
        assert "trackly_lag_records{" not in worker.page("/metrics").text
        broker.restart()
        worker.wait_for(lambda s: s["standstills"] == [] and s["lag"] == 0, "the stream at work again")
        assert worker.page("/readyz").status_code == 200
    finally:
        world.close()


def test_markers_and_aborted_records_at_the_end_of_a_partition_are_no_lag(world: World) -> None:
    """They cannot be delivered: lag that never went away would hide real lag, and look like a standstill."""
    worker = _start(world)
    upstream = _upstream(world)
    for ending in ("commit", "abort"):
        upstream.begin_transaction()
        for record in sends(10, tag=ending):
            upstream.produce(world.source, record.value, record.key, partition=0)
        upstream.flush(30)
        getattr(upstream, f"{ending}_transaction")(30)

    worker.wait_for(lambda s: s["queued"] == 10 and s["lag"] == 0, "no lag")

    assert worker.stop() == 0
    again = _start(world)
    again.wait_for(lambda s: len(s["partitions"]) == 4 and s["lag"] == 0, "no lag after a restart")


def test_a_hold_leaves_health_on_however_long_it_lasts(world: World) -> None:
    """The platform is down: a restart does not help, so nobody should be led to try it in a loop."""
    world.platform.set_faults(Faults(status_override=503))
    world.produce_sends(1_000)
    worker = _start(world)

    status = worker.wait_for(lambda s: bool(s["standstills"]), "the standstill told")

    assert {(s["waits_for"], s["detail"], s["known"]) for s in status["standstills"]} == {("hold", "outage", True)}
    assert worker.page("/healthz").json() == {"status": "alive"}
    world.platform.set_faults(Faults())
    worker.wait_for(lambda s: s["queued"] == 1_000 and s["standstills"] == [], "all sent")


class _Wedged(TransactionalPublisher):
    """A producer whose commits do not return while it is stuck, like a client library in a deadlock."""

    wedged = threading.Event()

    def commit(self, *args: Any) -> None:
        while self.wedged.is_set():
            time.sleep(0.01)
        super().commit(*args)


def test_a_wedged_tick_turns_health_off_and_progress_turns_it_on_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing fails and nothing is reported, but no commit ever returns: that is what health is for."""
    monkeypatch.setattr("connector.stream.stream.TransactionalPublisher", _Wedged)
    settings = Settings.model_validate(world.settings())
    failures: list[BaseException] = []

    async def run() -> list[dict[str, Any]]:
        stream = make_stream(settings, "wedged-0", failures.append, stalled_secs=2)
        await stream.start()
        try:
            await _until(lambda: stream.state.counts.queued == 100)
            assert not _unknown(stream)
            _Wedged.wedged.set()
            world.produce_sends(50, tag="later")
            await _until(lambda: bool(_unknown(stream)))
            seen = stream.standstills()
            _Wedged.wedged.clear()
            await _until(lambda: not _unknown(stream) and stream.state.counts.queued == 150)
        finally:
            _Wedged.wedged.clear()
            await stream.stop(time.monotonic() + PATIENCE_SECS)
        return seen

    world.produce_sends(100)
    seen = asyncio.run(run())

    assert failures == []
    assert all(found["partition"].startswith(world.source) and found["lag"] > 0 for found in seen)
    assert {found["known"] for found in seen} == {False}
    assert world.settled().problems() == []


def _unknown(stream: Stream) -> list[dict[str, Any]]:
    """Return what stands still for an unknown cause."""
    return [found for found in stream.standstills() if not found["known"]]


async def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECS
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
