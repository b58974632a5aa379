"""Fixtures of the tests of dead letters: settings over topics of the test's own, and the commands on them."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Message
from typer.testing import CliRunner, Result

from connector.cli.main import app
from connector.demo.finding import BrokerHandle
from connector.demo.topics import Record, Topics
from tests.deadletters.making import record
from tests.kit.patience import PATIENCE_SECS
from tests.kit.world import KEY


class Desk:
    """Three streams that share a dead-letter topic, and the commands on it."""

    def __init__(self, bootstrap_servers: str, topics: Topics, folder: Path) -> None:
        self.topics = topics
        self.dead = topics.create("dead", partitions=4)
        prefix = self.dead.rpartition(".")[2]
        self.names = [f"{prefix}-{letter}" for letter in "abc"]
        self.outcomes = [topics.create("outcomes", partitions=2) for _ in self.names]
        self.folder = folder
        self.settings = folder / "connector.yaml"
        streams = [
            {
                "name": name,
                "topics": [f"{name}.source"],
                "operation": "send",
                "list_number": "+18005551234",
                "outcomes": {"topic": outcomes},
                "dead_letters": {"topic": self.dead},
                "create_topics": {"enabled": True, "partitions": 3, "replication_factor": 1},
            }
            for name, outcomes in zip(self.names, self.outcomes, strict=True)
        ]
        self.content: dict[str, Any] = {
            "kafka": {"bootstrap_servers": bootstrap_servers},
            "trackly": {"base_url": "http://127.0.0.1:1", "api_key": KEY},
            "streams": streams,
        }
        self.write()

    def write(self) -> None:
        self.settings.write_text(yaml.safe_dump(self.content))

    def run(self, command: str, *arguments: str, typed: str = "") -> Result:
        """Run a command in this process, and answer what it asks."""
        return CliRunner().invoke(app, ["dead-letters", command, str(self.settings), *arguments], input=typed)

    def told(self, command: str, *arguments: str) -> dict[str, Any]:
        """Run a command with --json and return what it printed."""
        result = self.run(command, *arguments, "--json")
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    def spawn(self, command: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command as a user does."""
        line = [sys.executable, "-m", "connector", "dead-letters", command, str(self.settings), *arguments]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def put(self, records: Iterable[Record]) -> None:
        self.topics.produce(self.dead, records)

    def redriven(self) -> list[Message]:
        """Return what is in the redrive topics."""
        there = self.topics._admin.list_topics(timeout=PATIENCE_SECS).topics
        names = [f"{name}.redrive" for name in self.names if f"{name}.redrive" in there]
        return [message for name in names for message in self.topics.read(name)]


@pytest.fixture
def desk(broker: BrokerHandle, topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Make a desk; what is printed is as wide as it takes."""
    monkeypatch.setenv("COLUMNS", "200")
    return Desk(broker.bootstrap_servers, topics, tmp_path)


@pytest.fixture(scope="module")
def shared_desk(broker: BrokerHandle, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Make a desk with two dead letters, for tests that change nothing."""
    desk = Desk(broker.bootstrap_servers, Topics(broker.bootstrap_servers), tmp_path_factory.mktemp("desk"))
    desk.put(
        record(number, reason, stream=desk.names[0], topic="src")
        for number, reason in enumerate(["in_doubt", "rejected"])
    )
    return desk
