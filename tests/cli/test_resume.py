"""`resume` and `pause`: invalid addresses are reported before anything is sent."""

import functools
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from connector.cli.main import app
from connector.cli.workers import Answer

TOKEN = "a-token-of-the-tests-0123456789"


@pytest.mark.parametrize("command", ["resume", "pause"])
@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "http://[::1", "http://a:b", "http://a..b:1", f"http://{'a' * 64}.com", "http://u:p@a:1"]
)
def test_what_is_no_address_is_refused(command: str, url: str) -> None:
    told = CliRunner().invoke(app, [command, "sends", "--url", url], env={"TRACKLY_CONNECTOR_TOKEN": TOKEN})

    assert (told.exit_code, "should be such as http://127.0.0.1:8080" in told.stderr) == (2, True), told.output
    assert isinstance(told.exception, SystemExit), "no traceback"


@pytest.mark.parametrize(("worker", "whose"), [({}, ""), ({"worker": 1}, " at worker 1")])
def test_what_became_of_a_hold_is_reported_with_its_worker_where_there_are_several(
    worker: dict[str, int], whose: str
) -> None:
    paused = {"reason": "paused", "partition": None, **worker}
    doubt = {"reason": "in_doubt", "partition": "sms.campaign:2", **worker}

    assert list(Answer("http://a", 200, {"ended": [doubt], "paused": [paused]}).lines()) == [
        f"http://a: in_doubt of sms.campaign:2{whose} ended",
        f"http://a: paused{whose}; what is in flight finishes",
    ]


@pytest.mark.parametrize("spelling", ["sms.campaign:2", "sms.campaign[2]", "sms.campaign [2]"])
def test_a_partition_is_sent_to_the_worker_in_the_form_that_it_prints(
    spelling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both spellings are taken; what the worker says of it, such as that it does not hold it, is of the same name."""
    asked: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.content)
        return httpx.Response(200, json={"ended": [], "not_held": ["sms.campaign:2"]})

    monkeypatch.setattr(httpx, "Client", functools.partial(httpx.Client, transport=httpx.MockTransport(answer)))
    told = CliRunner().invoke(app, ["resume", "sends", "--partition", spelling], env={"TRACKLY_CONNECTOR_TOKEN": TOKEN})

    assert asked == [b"partition=sms.campaign%3A2"]
    assert (told.exit_code, told.stderr) == (1, "no worker that was asked has a hold on sms.campaign:2\n")


def test_what_is_no_partition_is_refused_before_anybody_is_asked() -> None:
    told = CliRunner().invoke(app, ["resume", "sends", "--partition", "sms-2"], env={"TRACKLY_CONNECTOR_TOKEN": TOKEN})

    assert (told.exit_code, "should be TOPIC:NUMBER, not 'sms-2'" in told.stderr) == (2, True), told.stderr


@pytest.mark.parametrize("command", ["resume", "pause"])
@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "\udcff"])
def test_what_is_no_name_of_a_stream_is_refused_before_anybody_is_asked(command: str, name: str) -> None:
    """In the address that is asked it would be another page's, and be taken for the answer of something else."""
    told = CliRunner().invoke(app, [command, name], env={"TRACKLY_CONNECTOR_TOKEN": TOKEN, "COLUMNS": "200"})

    assert (told.exit_code, "must be 1 to 100 lower-case letters" in told.stderr) == (2, True), told.output


def test_a_partition_of_what_is_no_topic_is_refused() -> None:
    told = CliRunner().invoke(
        app, ["resume", "sends", "--partition", "\udcff:1"], env={"TRACKLY_CONNECTOR_TOKEN": TOKEN}
    )

    assert (told.exit_code, told.stderr.splitlines()[0]) == (2, "error: --partition is not a valid topic name")


def test_a_note_that_is_no_text_is_passed_on_as_far_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.content)
        return httpx.Response(200, json={"ended": [], "paused": [{"reason": "paused"}]})

    monkeypatch.setattr(httpx, "Client", functools.partial(httpx.Client, transport=httpx.MockTransport(answer)))
    told = CliRunner().invoke(app, ["pause", "sends", "--note", "a\udcffb"], env={"TRACKLY_CONNECTOR_TOKEN": TOKEN})

    assert (told.exit_code, asked[0].endswith(b"note=a%3Fb")) == (0, True), told.output


@pytest.mark.parametrize(
    ("given", "missing"), [(True, "error: the settings have no web.token"), (False, "error: no token")]
)
def test_a_missing_token_is_told_by_where_it_was_looked_for(given: bool, missing: str, tmp_path: Path) -> None:
    settings = tmp_path / "connector.yaml"
    settings.write_text(
        "kafka: {bootstrap_servers: 'localhost:1'}\n"
        "trackly: {api_key: trk_key}\n"
        "streams: [{name: sends, topics: [in], operation: send, outcomes: {topic: out}, dead_letters: {topic: dead}}]\n"
    )

    told = CliRunner().invoke(app, ["pause", "sends", *(["--config", str(settings)] if given else [])])

    assert (told.exit_code, told.stderr.splitlines()[0]) == (2, missing)
    assert "TRACKLY_CONNECTOR_TOKEN" in told.stderr
