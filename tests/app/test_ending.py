"""When a process ends by itself, and what its exit code says."""

import asyncio
import signal
from pathlib import Path
from typing import Final

import pytest
import yaml
from confluent_kafka import KafkaError

from connector.app import application
from connector.app.application import Connector, prepare
from connector.app.instance import Claim
from connector.app.loading import load
from connector.kafka.errors import KafkaTroubleError, RetriableError
from connector.telemetry.metrics import REGISTRY
from tests.kit.patience import PATIENCE_SECS


@pytest.mark.parametrize(("failures", "code"), [(0, 0), (1, 1)])
def test_a_process_that_is_stopped_says_that_one_of_its_streams_had_failed(
    tmp_path: Path, failures: int, code: int
) -> None:
    """Its others went on, so that nothing but this tells whoever stopped it."""
    connector = _connector(tmp_path, "well", "ill")
    for stream in connector.streams[:failures]:
        stream.failed = RuntimeError("gone wrong")

    asyncio.run(connector.on_stop())

    assert (connector.exit_code, str(connector.fatal)) == (code, "gone wrong" if code else "None")


FENCED: Final = KafkaTroubleError(KafkaError(KafkaError._FENCED))
BUG: Final = ValueError("gone wrong")


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [(FENCED, FENCED, 4), (FENCED, BUG, 4), (None, FENCED, 4), (None, BUG, 1)],
)
def test_a_stream_that_fails_while_others_drain_does_not_cut_them_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Exception | None, second: Exception, code: int
) -> None:
    """A signal would be the second one, which stops at once; and another worker with our id fences every stream."""
    connector = _connector(tmp_path, *(["one", "other"] if first else ["one"]))
    cut_short: list[int] = []
    monkeypatch.setattr(connector, "_stop_at_once", lambda: cut_short.append(5))

    async def run() -> None:
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, ended.set)

        async def drain(_deadline: float) -> bool:
            if connector.streams[-1].failed is None:
                connector.streams[-1].failed = second
                connector._stream_failed(connector.streams[-1], second)
                await asyncio.sleep(0.01)
            return True

        for stream in connector.streams:
            monkeypatch.setattr(stream, "stop", drain)
        if first is not None:
            connector.streams[0].failed = first
            connector._stream_failed(connector.streams[0], first)
            await asyncio.wait_for(ended.wait(), PATIENCE_SECS)
        await connector.stop()

    asyncio.run(run())

    assert (connector.exit_code, connector.fatal, cut_short) == (code, first or second, [])


@pytest.mark.parametrize("limit", [1, 12, 60])
def test_a_process_that_no_broker_answers_ends_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """A question takes five seconds; the last one has what is left."""
    at = 0.0

    def wait(secs: float, *_: object) -> None:
        nonlocal at
        at += secs

    def ask(secs: float, *_: object) -> None:
        wait(secs)
        raise RetriableError("Local: Broker transport failure")

    monkeypatch.setattr(application, "first_answer", ask)
    monkeypatch.setattr(application, "now", lambda: at)
    monkeypatch.setattr("connector.app.application.time.sleep", wait)
    stream = {"name": "s", "topics": ["t"], "operation": "send"}
    settings = {
        "kafka": {"bootstrap_servers": "localhost:1", "startup_timeout_secs": limit},
        "trackly": {"api_key": "trk_key"},
        "streams": [stream | {"outcomes": {"topic": "out"}, "dead_letters": {"topic": "dead"}}],
    }
    path = tmp_path / "connector.yaml"
    path.write_text(yaml.safe_dump(settings))

    with pytest.raises(RetriableError, match=f"no broker answers at localhost:1 within {limit} s"):
        prepare(load(path), claimed=Claim("worker", "worker", None))

    assert at == pytest.approx(limit, abs=0.2)


def _connector(folder: Path, *names: str) -> Connector:
    """Return a worker, not started, with streams of these names."""
    outputs = {"outcomes": {"topic": "out"}, "dead_letters": {"topic": "dead"}}
    settings = {
        "kafka": {"bootstrap_servers": "localhost:1"},
        "trackly": {"api_key": "trk_key"},
        "streams": [{"name": name, "topics": [name], "operation": "send", **outputs} for name in names],
    }
    path = folder / "connector.yaml"
    path.write_text(yaml.safe_dump(settings))
    return Connector(load(path), Claim("worker", "worker", None))


@pytest.fixture(autouse=True)
def _own_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REGISTRY, "register", lambda _collector: None)
    monkeypatch.setattr(REGISTRY, "unregister", lambda _collector: None)
