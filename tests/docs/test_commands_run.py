"""Every command in the documents is run here, by the named test, or not, with the reason."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from confluent_kafka import Producer
from typer.testing import CliRunner

from connector.cli.main import app
from connector.demo.topics import Topics
from connector.simulator import Faults, SimulatorSettings
from tests.conftest import MakeBroker, MakeSimulator
from tests.deploy.conftest import ROOT
from tests.docs.pages import DOCUMENTS, blocks, name_of
from tests.docs.test_documents import SHELL
from tests.kit.patience import PATIENCE_SECS
from tests.kit.programs import program
from tests.kit.world import KEY, merge, start_worker

TUTORIAL: Final = "docs/tutorial/first-stream.md"
CODES: Final = ("provider_error", "not_sendable", "list_not_found", "webhook_not_configured")
"""Of the platform, for records of which the documents tell; what is found before a request is there as well."""
TOKEN: Final = "a-token-of-the-tests"

NOT_HERE: Final[dict[str, str]] = {
    r"make (demo|venv)": "tests/demo/test_demo.py runs the demo; make venv made what runs this",
    r"make (test|check|docs)": "they are what runs this, or tests/docs/test_site.py",
    r"make (bench|bench-latency|chaos)\b": "minutes of full load: run by hand",
    r"python3? -m (venv|pip) |\. \.venv/bin/activate|pre-commit install|git worktree": "changes the machine",
    r"python -m reference": "tests/docs/test_reference.py and tests/config/test_reference.py write the same pages",
    r"docker ": "there is no Docker engine where the tests run",
    r"bin/kafka-(storage|server-start)\.sh ": "of a Kafka release; connector/demo/broker.py does the same",
    r"kafka-consumer-groups\.sh .*--reset-offsets": "tests/stream/test_holds.py runs it",
    r"trackly-connector rebuild-progress ": "tests/e2e/test_rebuild.py runs it, with no worker in the group",
    r"kafka-acls\.sh |^bash acls\.sh": "Kafka's own tool; tests/e2e/test_acls.py works with the same rights",
    r"kubectl |helm ": "there is no cluster where the tests run; tests/deploy/test_helm.py renders the chart",
    r"sudo |systemctl |systemd-analyze ": "changes the machine; tests/deploy/test_systemd.py has the unit verified",
    r"trackly-connector explain .*--stream order-texts": "tests/cli/test_explain.py explains records of such a stream",
    r"kafka-(topics|console-consumer|transactions)\.sh |^for topic in |^done$": "Kafka's own tools",
    r"trackly-connector run connector.yaml --workers": "tests/e2e/test_workers.py runs several workers",
    r"trackly-connector run connector.yaml$": "runs until it is stopped: it runs while all others are typed",
    r"faust -A connector.app worker": "tests/docs/test_documents.py sees that the application is there",
    r"kill -USR1 ": "tests/e2e/test_logs.py sends the signal",
    r"promtool ": "tests/deploy/test_rules.py runs it, where there is one",
}
"""Commands that are not run here, by what they begin with or hold, and why."""

SELECTS_NONE: Final = ("Europe/Paris", "tenant=='acme'", "--until 2h")
"""In commands whose filters select no dead letter here: none has such a field, or is that old. They say so."""


@cache
def _commands() -> dict[str, list[str]]:
    """Return every command line of the documents and where it stands, but the tutorial's, which has its own test."""
    found: dict[str, list[str]] = {}
    for path in DOCUMENTS:
        for block in blocks(path):
            if block.language in SHELL and name_of(path) != TUTORIAL:
                for line in block.commands:
                    found.setdefault(re.sub(r"\s+", " ", line), []).append(name_of(path))
    return found


def _left_out(line: str) -> str | None:
    return next((why for pattern, why in NOT_HERE.items() if re.search(pattern, line)), None)


RUN: Final = [line for line in _commands() if _left_out(line) is None]


def test_what_is_left_out_is_still_there_to_be_left_out() -> None:
    assert [pattern for pattern in NOT_HERE if not any(re.search(pattern, line) for line in _commands())] == []


def test_tests_that_run_a_command_instead_are_there() -> None:
    named = {name for why in NOT_HERE.values() for name in re.findall(r"tests/\S+\.py", why)}

    assert [name for name in named if not (ROOT / name).exists()] == []


def _settings_of_the_readme() -> dict[str, Any]:
    text = next(b.text for b in blocks(ROOT / "README.md") if b.language == "yaml" and "campaign-sends" in b.text)
    found: dict[str, Any] = yaml.safe_load(text)
    return found


class Place:
    """Where somebody types the commands: a folder with the README's settings, and everything that they name."""

    def __init__(self, folder: Path, bootstrap_servers: str, control_url: str, web_port: int, letter: str) -> None:
        self.folder = folder
        self._moved = {
            "localhost:9092": bootstrap_servers,
            "localhost:8090/_simulator": control_url,
            "localhost:8080": f"127.0.0.1:{web_port}",
            "3:1207": letter,
            "trk_...": KEY,
        }

    def run(self, line: str) -> tuple[int, str]:
        """Type a line; what asks is answered with yes."""
        for old, new in self._moved.items():
            line = line.replace(old, new)
        if line.startswith("trackly-connector ") and not re.search(r"[|>&]", line):
            done = CliRunner().invoke(app, _words(line)[1:], input="y\n")
            return done.exit_code, done.output
        ran = subprocess.run(
            ["bash", "-ec", line], capture_output=True, text=True, check=False, timeout=PATIENCE_SECS, input="y\n"
        )
        return ran.returncode, ran.stdout + ran.stderr


def _words(line: str) -> list[str]:
    import shlex  # noqa: PLC0415

    return shlex.split(line)


@pytest.fixture
def place(
    make_broker: MakeBroker, make_simulator: MakeSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    for name in ("kcat", "curl"):
        program(name)
    broker = make_broker({"auto.create.topics.enable": "true", "num.partitions": "4"})
    settings = _settings_of_the_readme()
    list_number = settings["streams"][0]["list_number"]
    faults = Faults.model_validate({"record_codes": [{"text": code, "code": code} for code in CODES]})
    platform = make_simulator(SimulatorSettings(api_keys=(KEY,), faults=faults))
    quick = {
        "kafka": {"bootstrap_servers": broker.bootstrap_servers},
        "trackly": {"base_url": platform.url},
        "web": {"token": TOKEN},
    }
    settings = merge(settings, quick)
    settings["streams"][0]["retry"] = {"max_attempts": 1}
    settings["streams"][0]["create_topics"] = {"enabled": True, "replication_factor": 1}
    topics = Topics(broker.bootstrap_servers)
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})

    def send(**event: str) -> None:
        producer.produce("sms.campaign", json.dumps({"list_number": list_number, **event}).encode())

    send(to="+14155550101", body="Hello")
    send(to="0101", body="x")
    send(to="+14155550102")
    for code in CODES:
        send(to="+14155550103", body=code)
    connect = {"__connect.errors.topic": "orders", "__connect.errors.partition": "0", "__connect.errors.offset": "7"}
    connect |= {"__connect.errors.exception.class.name": "org.apache.kafka.connect.errors.DataException"}
    producer.produce("connect.dlq", b"{}", headers=[(name, value.encode()) for name, value in connect.items()])
    producer.produce("trackly.events", json.dumps({"event": "delivery", "to": "+14155550199"}).encode())
    producer.produce("fixed.dead-letters", b"{}")
    assert producer.flush(30) == 0
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRACKLY_API_KEY", KEY)
    monkeypatch.setenv("TRACKLY_CONNECTOR_TOKEN", TOKEN)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    worker = start_worker(settings, tmp_path, "connector", {"TRACKLY_API_KEY": KEY})
    try:
        worker.wait_for(lambda s: len(s["dead_letters"]) == 2 + len(CODES) and s["queued"], "the first results")
        platform.set_faults(Faults.model_validate({"lose_reply": {"next": 1}}))
        send(to="+14155550104", body="lost")
        producer.flush(30)
        worker.wait_for(lambda s: s["dead_letters"].get("in_doubt"), "one in doubt")
        letter = next(m for m in topics.read("sms.campaign.dead-letters") if b"0102" in (m.value() or b""))
        (tmp_path / "fixed.ndjson").write_text("")
        yield Place(
            tmp_path,
            broker.bootstrap_servers,
            platform.control_url,
            worker.port,
            f"{letter.partition()}:{letter.offset()}",
        )
    finally:
        worker.stop()


def test_commands_do_what_they_are_there_for(place: Place) -> None:
    failed = []
    for line in RUN:
        code, said = place.run(line)
        none_meant = any(words in line for words in SELECTS_NONE)
        if (code, "select none" in said) != ((1, True) if none_meant else (0, False)):
            failed.append((line, _commands()[line], code, said[-600:]))
        if "--out dead.ndjson" in line:
            shutil.copy(place.folder / "dead.ndjson", place.folder / "fixed.ndjson")

    for line, where, code, said in failed:
        print(f"{line}\n  in {', '.join(where)}: exit code {code}\n{said}")
    assert [line for line, *_ in failed] == []
    assert len(RUN) > 30
