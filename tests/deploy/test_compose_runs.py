"""What the compose file starts works together: the same properties, commands and settings, as processes.

Only addresses and ports are others; images and the network between containers are left to an engine.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from connector.demo.broker import free_ports
from connector.demo.topics import Topics
from tests.conftest import MakeBroker
from tests.deploy.conftest import DEPLOY, ROOT, environment
from tests.deploy.running import answers, produce_lines, running

EVENTS = (ROOT / "schemas" / "examples" / "event.send.v1.ndjson").read_bytes().splitlines()
_OF_THE_NETWORK = ("LISTENER", "QUORUM", "LOG_DIRS")


def _properties(kafka: dict[str, str]) -> dict[str, str]:
    """Return the broker's properties as the image makes them of its variables, without addresses and paths."""
    return {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in kafka.items()
        if not any(part in name for part in _OF_THE_NETWORK)
    }


def test_events_end_as_outcomes_and_dead_letters(
    compose: dict[str, Any], make_broker: MakeBroker, tmp_path: Path
) -> None:
    services = compose["services"]
    broker = make_broker(_properties(environment(services["kafka"])))
    topics = Topics(broker.bootstrap_servers)
    simulator_port, web_port = free_ports(2)
    moved = {"0.0.0.0": "127.0.0.1", "8090": str(simulator_port)}
    command = [moved.get(word, word) for word in services["simulator"]["command"]]
    settings = tmp_path / "connector.yaml"
    text = (DEPLOY / "compose" / "connector.yaml").read_text()
    for old, new in (
        ("kafka:19092", broker.bootstrap_servers),
        ("simulator:8090", f"127.0.0.1:{simulator_port}"),
        ("host: 0.0.0.0, port: 8080", f"host: 127.0.0.1, port: {web_port}"),
    ):
        assert old in text
        text = text.replace(old, new)
    settings.write_text(text)
    health = services["simulator"]["healthcheck"]["test"][-1].replace("8090", str(simulator_port))

    with (
        running(command, tmp_path) as simulator,
        running(["run", str(settings)], tmp_path, **environment(services["connector"])) as connector,
    ):
        simulator.wait_for(
            lambda: subprocess.run([sys.executable, "-c", health], check=False, capture_output=True).returncode == 0,
            "answer to its health check",
        )
        connector.wait_for(lambda: answers(f"http://127.0.0.1:{web_port}/healthz"), "healthy page")
        produce_lines(broker.bootstrap_servers, "sms.campaign", [*EVENTS, b'{"to": "+14155550101"}'])

        def all_settled() -> bool:
            results = topics.read("sms.campaign.outcomes") + topics.read("sms.campaign.dead-letters")
            return len(results) == len(EVENTS) + 1

        connector.wait_for(all_settled, "result for each record")
        outcomes = [json.loads(message.value() or b"") for message in topics.read("sms.campaign.outcomes")]
        code = connector.stop()

    # One example names a list that the simulator of the compose file does not have.
    queued = [outcome for outcome in outcomes if outcome["status"] == "queued"]
    assert len(queued) == len(EVENTS) - 1
    assert code == 0
