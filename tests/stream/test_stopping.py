"""A stream that is told to stop before it has started."""

import asyncio
import threading
import time
from unittest.mock import create_autospec

import pytest

from connector.config.settings import Settings
from connector.kafka.source import Source
from connector.kafka.topics import Outputs
from tests.kit.world import KEY
from tests.stream.making import make_stream


def test_a_stream_that_is_stopped_while_it_starts_never_joins_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks brokers on its way: meanwhile others are drained, and with the last of them the process ends."""
    asked, answered = threading.Event(), threading.Event()

    def refresh() -> None:
        asked.set()
        assert answered.wait(30)

    outputs, sources = create_autospec(Outputs), create_autospec(Source)
    outputs.return_value.refresh.side_effect = refresh
    monkeypatch.setattr("connector.stream.stream.Outputs", outputs)
    monkeypatch.setattr("connector.stream.stream.Source", sources)
    told = {
        "kafka": {"bootstrap_servers": "127.0.0.1:1"},
        "trackly": {"api_key": KEY},
        "streams": [
            {
                "name": "early",
                "topics": ["source"],
                "operation": "send",
                "list_number": "+18005551234",
                "outcomes": {"topic": "outcomes"},
                "dead_letters": {"topic": "dead-letters"},
            }
        ],
    }
    settings = Settings.model_validate(told)

    async def run() -> bool:
        stream = make_stream(settings, "early-0", lambda error: pytest.fail(str(error)))
        starting = asyncio.ensure_future(stream.start())
        assert await asyncio.to_thread(asked.wait, 30)
        clean = await stream.stop(time.monotonic() + 5)
        answered.set()
        await starting
        return clean

    assert asyncio.run(run())
    assert not sources.called
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("early")]
