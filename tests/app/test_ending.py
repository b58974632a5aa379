"""When a process ends by itself, and what its exit code says."""

import asyncio
from pathlib import Path

import pytest
import yaml

from connector.app import application
from connector.app.application import Connector, prepare
from connector.app.instance import Claim
from connector.app.loading import load
from connector.kafka.errors import RetriableError
from connector.telemetry.metrics import REGISTRY


@pytest.mark.parametrize(("failures", "code"), [(0, 0), (1, 1)])
def test_a_process_that_is_stopped_says_that_one_of_its_streams_had_failed(
    tmp_path: Path, failures: int, code: int
) -> None:
    """Its others went on, so that nothing but this tells whoever stopped it."""
    outputs = {"outcomes": {"topic": "out"}, "dead_letters": {"topic": "dead"}}
    settings = {
        "kafka": {"bootstrap_servers": "localhost:1"},
        "trackly": {"api_key": "trk_key"},
        "streams": [{"name": name, "topics": [name], "operation": "send", **outputs} for name in ("well", "ill")],
    }
    path = tmp_path / "connector.yaml"
    path.write_text(yaml.safe_dump(settings))
    connector = Connector(load(path), Claim("worker", "worker", None))
    for stream in connector.streams[:failures]:
        stream.failed = RuntimeError("gone wrong")

    asyncio.run(connector.on_stop())

    assert (connector.exit_code, str(connector.fatal)) == (code, "gone wrong" if code else "None")


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


@pytest.fixture(autouse=True)
def _own_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REGISTRY, "register", lambda _collector: None)
    monkeypatch.setattr(REGISTRY, "unregister", lambda _collector: None)
