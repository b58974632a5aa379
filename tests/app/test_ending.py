"""What the exit code says of a process of which a stream has failed."""

import asyncio
from pathlib import Path

import pytest
import yaml

from connector.app.application import Connector
from connector.app.instance import Claim
from connector.app.loading import load
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


@pytest.fixture(autouse=True)
def _own_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REGISTRY, "register", lambda _collector: None)
    monkeypatch.setattr(REGISTRY, "unregister", lambda _collector: None)
