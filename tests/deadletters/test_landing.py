"""Nothing is written where it would be mistaken for something else."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from connector.cli.main import app
from tests.kit.world import KEY


def _stream(name: str, **reads: Any) -> dict[str, Any]:
    return {
        "name": name,
        "operation": "send",
        "list_number": "+18005551234",
        "outcomes": {"topic": f"{name}.outcomes"},
        "dead_letters": {"topic": f"{name}.dead"},
        **reads,
    }


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Write settings of brokers that nobody reaches: what is asked of them is asked in vain."""
    path = tmp_path / "connector.yaml"
    content = {
        "kafka": {"bootstrap_servers": "127.0.0.1:1", "request_timeout_secs": 1},
        "trackly": {"base_url": "http://127.0.0.1:1", "api_key": KEY},
        "streams": [_stream("one", topics=["one.source"]), _stream("many", pattern="^shop[.].*")],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def _run(settings: Path, command: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["dead-letters", command, str(settings), *arguments])


@pytest.mark.parametrize(
    ("command", "line", "why"),
    [
        (
            "redrive",
            ["--to", "one.outcomes"],
            "--to one.outcomes cannot be the target of a redrive: it is the outcome topic of stream one",
        ),
        (
            "redrive",
            ["--to", "many.dead"],
            "--to many.dead cannot be the target of a redrive: it is the dead-letter topic of stream many",
        ),
        (
            "redrive",
            ["--to", "one.dead.parking"],
            "--to one.dead.parking cannot be the target of a redrive: it is the parking topic of stream one",
        ),
        (
            "redrive",
            ["--topic", "dlq", "--to", "dlq"],
            "--to dlq cannot be the target of a redrive: it is the topic that the dead letters are read from",
        ),
        (
            "redrive",
            ["--topic", "one.source", "--to", "one.redrive"],
            "--topic one.source holds no dead letters: it is read by stream one, which sends its records itself",
        ),
        (
            "redrive",
            ["--topic", "dlq", "--topic", "shop.orders", "--dry-run"],
            "--topic shop.orders holds no dead letters: it is read by stream many",
        ),
        (
            "redrive",
            ["--topic", "one.redrive", "--to", "one.source"],
            "--topic one.redrive holds no dead letters: it is the redrive topic of stream one",
        ),
        *(
            (
                "import",
                ["/dev/null", "--to", topic],
                f"--to {topic} cannot be the target of an import: it is {what}",
            )
            for topic, what in (
                ("one.source", "read by stream one, which would send the records at once"),
                ("shop.orders", "read by stream many, which would send the records at once"),
                ("one.redrive", "the redrive topic of stream one, which would send the records at once"),
                ("many.outcomes", "the outcome topic of stream many"),
            )
        ),
        (
            "park",
            ["--to", "one.dead"],
            (
                "topic one.dead cannot be the target for parked records: it is the topic that the dead letters are "
                "read "
                "from"
            ),
        ),
        (
            "park",
            ["--to", "one.source"],
            "topic one.source cannot be the target for parked records: it is read by stream one",
        ),
        (
            "park",
            ["--to", "shop.orders"],
            "topic shop.orders cannot be the target for parked records: it is read by stream many",
        ),
        (
            "park",
            ["--to", "one.redrive"],
            "topic one.redrive cannot be the target for parked records: it is the redrive topic of stream one",
        ),
        (
            "park",
            ["--to", "many.outcomes"],
            "topic many.outcomes cannot be the target for parked records: it is the outcome topic of stream many",
        ),
        (
            "park",
            ["--topic", "one.dead.parking"],
            (
                "topic one.dead.parking cannot be the target for parked records: it is the topic that the dead letters "
                "are "
                "read from"
            ),
        ),
        (
            "park",
            ["--topic", "shop.dead"],
            "topic shop.dead.parking cannot be the target for parked records: it is read by stream many",
        ),
    ],
)
def test_a_topic_that_would_take_records_for_something_else_is_refused(
    settings: Path, command: str, line: list[str], why: str
) -> None:
    result = _run(settings, command, *line, *([] if command == "import" else ["--yes"]))

    assert (result.exit_code, why in result.stderr) == (2, True), result.output
    assert "\nhint: " in result.stderr


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("redrive", ["--to", "one.source"]),
        ("redrive", ["--to", "one.redrive"]),
        ("redrive", ["--topic", "dlq", "--to", "one.redrive"]),
        ("redrive", ["--topic", "one.dead"]),
        ("park", ["--to", "one.dead.parking"]),
        ("park", ["--topic", "dlq", "--to", "one.dead"]),
        ("park", []),
    ],
)
def test_any_other_topic_is_taken(settings: Path, command: str, line: list[str]) -> None:
    """What comes next is asking brokers, which do not answer here."""
    result = _run(settings, command, *line, "--yes")

    assert result.exit_code == 3, result.output
