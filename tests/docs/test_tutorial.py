"""The tutorial really runs: its files, its commands, in its order, with a broker and ports of the test's own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

import httpx
import pytest

from connector.demo.broker import Broker, free_ports
from connector.demo.topics import Topics
from tests.conftest import MakeBroker
from tests.deploy.conftest import ROOT
from tests.deploy.running import Running, answers
from tests.docs.pages import Block, blocks
from tests.kit.local import NO_TLS
from tests.kit.programs import program

TUTORIAL: Final = ROOT / "docs" / "tutorial" / "first-stream.md"
_KEY: Final = {"TRACKLY_API_KEY": "trk_0123456789abcdef0123456789abcdef"}
_FIND_THE_PROCESS: Final = "$(pgrep -f 'trackly-connector run connector.yaml')"


class Reader:
    """Somebody who follows the tutorial."""

    def __init__(self, broker: Broker, home: Path) -> None:
        self.home = home
        self.platform_port, self.web_port = free_ports(2)
        self._moved = {
            "localhost:9092": broker.bootstrap_servers,
            "8090": str(self.platform_port),
            "8080": str(self.web_port),
        }
        self._topics = Topics(broker.bootstrap_servers)
        self._environment = self._with_program_on_path()
        self._blocks = list(blocks(TUTORIAL))
        self.processes: list[Running] = []

    def _with_program_on_path(self) -> dict[str, str]:
        folder = self.home / "bin"
        folder.mkdir()
        program = folder / "trackly-connector"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m connector "$@"\n')
        program.chmod(0o755)
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": paths}

    def next(self, language: str) -> str:
        """Return the next block of a language, with addresses and ports of ours; passes over no other."""
        block: Block = self._blocks.pop(0)
        assert block.language == language, block
        text = block.text
        for old, new in self._moved.items():
            text = text.replace(old, new)
        return text

    def save(self, name: str, language: str) -> None:
        (self.home / name).write_text(self.next(language))

    def shell(self) -> str:
        """Run the next block to its end, and return what it prints."""
        text = self.next("sh")
        if _FIND_THE_PROCESS in text:
            text = text.replace(_FIND_THE_PROCESS, str(self.processes[-1].pid))
        environment = {**self._environment, **_KEY}
        done = subprocess.run(
            ["bash", "-ec", text], cwd=self.home, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}{done.stdout}{done.stderr}"
        return done.stdout

    def start(self) -> Running:
        """Start what the next block starts, as in a terminal of its own."""
        program, *arguments = self.next("sh").split()
        assert program == "trackly-connector"
        self.processes.append(Running(arguments, self.home, {**self._environment, **_KEY}))
        return self.processes[-1]

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(
            f"http://127.0.0.1:{self.web_port}/status", trust_env=False, verify=NO_TLS
        ).json()
        return found

    def reasons(self) -> list[str]:
        """Return the reasons of all dead letters."""
        letters = self._topics.read("tutorial.dead-letters")
        headers = [cast("list[tuple[str, bytes]]", letter.headers()) for letter in letters]
        return [dict(found)["trackly.reason"].decode() for found in headers]

    def outcomes(self) -> list[str]:
        """Return the status of all outcomes."""
        found = [json.loads(outcome.value() or b"") for outcome in self._topics.read("tutorial.outcomes")]
        return [outcome["status"] for outcome in found]


@pytest.fixture
def reader(make_broker: MakeBroker, tmp_path: Path) -> Iterator[Reader]:
    for name in ("kcat", "curl"):
        program(name)
    made = Reader(make_broker({"auto.create.topics.enable": "true"}), tmp_path)
    yield made
    for process in reversed(made.processes):
        process.stop()


def test_the_tutorial(reader: Reader) -> None:
    simulator = reader.start()
    reader.save("connector.yaml", "yaml")
    checked = reader.shell()
    connector = reader.start()
    connector.wait_for(lambda: answers(f"http://127.0.0.1:{reader.web_port}/healthz"), "healthy page")

    assert "valid, 1 stream" in checked

    reader.save("events.ndjson", "json")
    reader.shell()
    connector.wait_for(lambda: len(reader.outcomes()) == 2 and len(reader.reasons()) == 1, "first results")
    read = reader.shell()

    assert read.count('"status":"queued"') == 2
    assert "trackly.reason=invalid_phone" in read
    assert '{"to": "0103"' in read
    assert '"accepted": 2,' in read

    reader.shell()  # suspends the account
    connector.wait_for(lambda: reader.status()["streams"][0]["hold"] is not None, "hold")
    connector.wait_for(lambda: len(reader.reasons()) == 2, "dead letter that needs no platform")
    status = reader.shell()
    (stream,) = json.loads(status)["streams"]

    assert (stream["state"], stream["hold"]["reason"]) == ("on_hold", "forbidden")
    assert reader.outcomes() == ["queued"] * 2

    reader.shell()  # mends it
    connector.wait_for(lambda: reader.outcomes() == ["queued"] * 4, "end of the hold")

    reader.shell()  # makes it slow, sends again, and kills the connector
    assert connector.code() == -signal.SIGKILL
    connector = reader.start()
    connector.wait_for(lambda: len(reader.reasons()) == 5, "dead letters in doubt")
    read = reader.shell()

    assert read.count("trackly.reason=in_doubt") == 2
    assert '"accepted": 6,' in read
    assert reader.reasons().count("invalid_phone") == 3
    assert reader.outcomes() == ["queued"] * 4

    redriven = reader.shell()  # mends one dead letter and sends it again
    connector.wait_for(lambda: reader.outcomes() == ["queued"] * 5, "outcome of what was sent again")
    read = reader.shell()

    assert "invalid_phone" in redriven
    assert read.count('"redrives":1') == 1
    assert read.count('"origin":{"topic":"tutorial.sends"') == 1

    assert connector.stop() == 0
    assert simulator.stop() == 0
