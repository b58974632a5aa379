"""A command needs the secrets that it uses and no others: dead letters need no platform key."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from connector.cli.main import app

ALL = {
    "kafka": "kafka.security.password",
    "platform": "trackly.api_key",
    "registry": "schema_registry.password",
    "pages": "web.token",
    "traces": "traces.headers.Authorization",
}
"""Each secret of the settings below, which none of the variables there gives."""

SETTINGS = """\
kafka:
  bootstrap_servers: 127.0.0.1:1
  request_timeout_secs: 0.5
  security: {protocol: sasl_plaintext, sasl_mechanism: PLAIN, username: me, password: "${env:NO_KAFKA}"}
trackly: {api_key: "${file:no-platform}"}
schema_registry: {url: "http://127.0.0.1:1", username: me, password: "${file:no-registry}"}
web: {port: 1, token: "${env:NO_PAGES}"}
traces: {enabled: true, endpoint: "http://127.0.0.1:1", headers: {Authorization: "Bearer ${env:NO_TRACES}"}}
streams:
  - {name: s, topics: [in], format: avro, operation: send, outcomes: {topic: out}, dead_letters: {topic: dead}}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "connector.yaml"
    path.write_text(SETTINGS)
    return path


def _invoke(settings: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [str(settings) if word == "SETTINGS" else word for word in arguments])


@pytest.mark.parametrize(
    ("arguments", "uses"),
    [
        (["check", "SETTINGS"], ALL),
        (["run", "SETTINGS"], ALL),
        (["acls", "SETTINGS"], ()),
        (["explain", "SETTINGS", "--sample", "-"], ["registry"]),
        (["explain", "SETTINGS", "--topic", "in"], ["kafka", "registry"]),
        (["dead-letters", "stats", "SETTINGS"], ["kafka", "registry"]),
        (["dead-letters", "redrive", "SETTINGS", "--dry-run"], ["kafka", "registry"]),
        (["dead-letters", "import", "SETTINGS", "/dev/null", "--to", "t"], ["kafka"]),
        (["pause", "s", "--config", "SETTINGS"], ["pages"]),
        (["resume", "s", "--config", "SETTINGS"], ["pages"]),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_only_the_secrets_that_a_command_uses_are_missed(settings: Path, arguments: list[str], uses: list[str]) -> None:
    result = _invoke(settings, *arguments)

    missed = [line.split(":")[0].strip() for line in result.stderr.splitlines() if line.startswith("  ")]
    assert missed == [ALL[whom] for whom in ALL if whom in uses]
    assert result.exit_code == (2 if uses else 0)


def test_without_the_secrets_of_others_it_goes_to_work(settings: Path) -> None:
    settings.write_text(SETTINGS.replace("${env:NO_KAFKA}", "there").replace("${file:no-registry}", "there"))

    result = _invoke(settings, "dead-letters", "stats", "SETTINGS")

    assert (result.exit_code, "asking for topic dead" in result.stderr) == (3, True), result.output
