"""`faust -A connector.app worker`: what ends it before it starts is told as by our own command."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from connector.demo.broker import free_ports
from tests.kit.patience import PATIENCE_SECS

COMMAND: Final = (sys.executable, "-m", "faust", "-A", "connector.app", "worker")


def test_settings_that_cannot_be_used_end_it_with_all_their_problems_and_code_2(tmp_path: Path) -> None:
    """A traceback would show one of them, below forty lines about this program."""
    ended = _run(_written(tmp_path, {"kafka": {"bootstrap_servers": "localhost", "colour": "red"}, "streams": []}))

    lines = ended.stderr.splitlines()
    assert (ended.returncode, lines[0]) == (2, f"{tmp_path / 'connector.yaml'} cannot be used:")
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["trackly", "kafka.colour", "streams"]


def test_without_a_settings_file_it_names_the_variable() -> None:
    """And ends as with settings that cannot be used."""
    ended = _run("")

    assert (ended.returncode, ended.stderr) == (2, "set TRACKLY_CONNECTOR_SETTINGS to the path of the settings file\n")


def test_brokers_that_do_not_answer_end_it_with_a_message(tmp_path: Path) -> None:
    """Not with the stack of whoever asked them."""
    [port] = free_ports(1)
    stream: dict[str, Any] = {"name": "sends", "topics": ["in"], "operation": "send"}
    stream |= {"outcomes": {"topic": "out"}, "dead_letters": {"topic": "dead"}}
    kafka = {"bootstrap_servers": f"127.0.0.1:{port}", "startup_timeout_secs": 1}
    ended = _run(_written(tmp_path, {"kafka": kafka, "trackly": {"api_key": "trk_x"}, "streams": [stream]}))

    last = ended.stderr.splitlines()[-1]
    assert ended.returncode == 1
    assert last.startswith(f"error: no broker answers at 127.0.0.1:{port} within 1 s: ")
    assert "Traceback" not in ended.stderr


def _run(settings: Path | str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRACKLY_CONNECTOR_SETTINGS": str(settings)}
    return subprocess.run(COMMAND, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECS, check=False)


def _written(folder: Path, settings: dict[str, Any]) -> Path:
    path = folder / "connector.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path
