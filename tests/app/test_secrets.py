"""Secrets that are replaced while a worker starts are in use once it has started."""

import asyncio
import signal
from pathlib import Path

import pytest
import yaml

from connector.app.application import Connector
from connector.app.instance import Claim
from connector.app.loading import load
from connector.telemetry.metrics import REGISTRY


def test_what_a_sighup_was_about_that_came_before_the_start_was_over_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connector.app.application.calm_collector", lambda: None)
    key = tmp_path / "key"
    key.write_text("trk_before")
    outputs = {"outcomes": {"topic": "out"}, "dead_letters": {"topic": "dead"}}
    settings = {
        "kafka": {"bootstrap_servers": "localhost:1"},
        "trackly": {"api_key": f"${{file:{key}}}"},
        "threads": "free",
        "streams": [{"name": "sends", "topics": ["in"], "operation": "send", **outputs}],
    }
    path = tmp_path / "connector.yaml"
    path.write_text(yaml.safe_dump(settings))
    connector = Connector(load(path), Claim("worker", "worker", None))
    REGISTRY.unregister(connector._collector)
    key.write_text("trk_after")

    async def start() -> None:
        await connector.on_started()
        for number in (signal.SIGHUP, signal.SIGUSR1):
            asyncio.get_running_loop().remove_signal_handler(number)

    asyncio.run(start())

    assert connector._api_key() == "trk_after"
