"""A group on two machines, one of them with two workers: one console shows all of it, and acts on all of it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from connector.cli.main import app
from tests.kit.world import Worker, World

TOKEN: Final = "a-token-of-the-tests-0123456789"


@pytest.fixture
def members(world: World) -> tuple[Worker, Worker]:
    """Start a supervisor of two workers, and a worker that knows where it is."""
    (world.folder / "token").write_text(TOKEN)
    web = {"token": "${file:token}"}
    first = world.start(world.settings({"instance_id": "one", "web": web}), options=("--workers", "2"))
    peers = {"peers": [f"localhost:{first.port}"]}
    second = world.start(world.settings({"instance_id": "two", "web": {**web, **peers}}))
    return first, second


def _owners(console: Worker, name: str) -> set[str]:
    """Return who owns partitions, as the page of the stream says it."""
    table = console.page(f"/streams/{name}").text.partition('aria-label="Partitions"')[2]
    return set(re.findall(r"<td>((?:one|two)(?:/[0-9])?)</td>", table))


def _holders(console: Worker, name: str) -> set[str]:
    """Return whose holds the page of the stream tells of."""
    said = re.search(r"worker ([^<]+)</p>", console.page(f"/streams/{name}").text)
    return set(said[1].split(", ")) if said else set()


@contextmanager
def _logged_in(console: Worker) -> Iterator[httpx.Client]:
    address = f"http://127.0.0.1:{console.port}"
    with httpx.Client(base_url=address, headers={"Origin": address}, trust_env=False, timeout=30) as client:
        assert client.post("/login", data={"token": TOKEN}).status_code == 303
        yield client


def _queued(*statuses: dict[str, Any]) -> int:
    return sum(status["queued"] for status in statuses)


def _command(*words: str, folder: Path) -> Any:
    settings = folder / "command.yaml"
    settings.write_text(yaml.safe_dump(yaml.safe_load((folder / "connector-0.yaml").read_text())))
    return CliRunner().invoke(app, [*words, "--config", str(settings)])


def test_one_console_shows_and_pauses_the_whole_group(world: World, members: tuple[Worker, Worker]) -> None:
    first, second = members
    everybody = {"one/0", "one/1", "two"}
    second.wait_for(lambda _: _owners(second, world.name) == everybody, "partitions at each of the three")
    world.produce_sends(2_000, tag="before")
    second.wait_for(lambda s: _queued(s, first.status()) == 2_000, "all of them settled")
    second.wait_for(lambda _: "2,000 queued" in second.page("/").text, "their sum on the page")
    assert "Members of the group" in second.page("/").text

    # A pause in the console of one reaches every worker of the other.
    with _logged_in(second) as client:
        form = client.get(f"/streams/{world.name}/confirm/pause").text
        csrf = re.findall(r'name="csrf" value="([0-9a-f]+)"', form)[0]
        answer = client.post(f"/streams/{world.name}/confirm/pause", data={"csrf": csrf, "note": "mending"})
    assert answer.status_code == 303, answer.text
    held = first.status()["holds"]
    assert {(hold["reason"], hold["worker"]) for hold in held} == {("paused", 0), ("paused", 1)}
    assert {hold["detail"] for hold in held} == {"paused by the console, from 127.0.0.1: mending"}
    assert [hold["reason"] for hold in second.status()["holds"]] == ["paused"]
    accepted = len(world.platform.entries("send"))
    world.produce_sends(500, tag="after")
    second.wait_for(lambda s: s["in_flight_requests"] == 0, "nothing in flight")
    second.wait_for(lambda _: _holders(second, world.name) == everybody, "whose holds they are")
    assert len(world.platform.entries("send")) == accepted, "nothing starts"

    # The command line ends it, and says so of each.
    urls = [word for worker in members for word in ("--url", f"http://127.0.0.1:{worker.port}")]
    resumed = _command("resume", world.name, *urls, folder=world.folder)
    assert resumed.exit_code == 0, resumed.output
    assert resumed.output.count("paused ended") == 3
    second.wait_for(lambda s: _queued(s, first.status()) == 2_500, "all of them settled")

    # And pauses as well, saying who did.
    paused = _command("pause", world.name, *urls, "--note", "again", folder=world.folder)
    assert paused.exit_code == 0, paused.output
    assert paused.output.count("paused; what is in flight finishes") == 3
    assert re.search(r"paused by .+ at .+: again", second.status()["hold"]["detail"])

    verdict = world.judge()
    assert (verdict.lost, verdict.duplicates, verdict.accepted_twice) == (0, 0, 0)
    assert TOKEN not in first.log.read_text() + second.log.read_text()
