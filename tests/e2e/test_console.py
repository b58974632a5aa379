"""A group on two machines, one of them with two workers: one console shows all of it, and acts on all of it."""

import html
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from connector.cli.main import app
from connector.demo.topics import Record
from connector.simulator import Faults
from connector.simulator.faults import RecordCode
from connector.telemetry.logging import mask_phone
from tests.deadletters.making import headers_of
from tests.kit.patience import PATIENCE_SECS
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
    with httpx.Client(base_url=address, headers={"Origin": address}, trust_env=False, timeout=PATIENCE_SECS) as client:
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
    assert len(re.findall(r"paused( at worker \d)? ended", resumed.output)) == 3
    second.wait_for(lambda s: _queued(s, first.status()) == 2_500, "all of them settled")

    # And pauses as well, saying who did.
    paused = _command("pause", world.name, *urls, "--note", "again", folder=world.folder)
    assert paused.exit_code == 0, paused.output
    assert len(re.findall(r"paused( at worker \d)?; what is in flight finishes", paused.output)) == 3
    assert re.search(r"paused by .+ at .+: again", second.status()["hold"]["detail"])

    verdict = world.judge()
    assert (verdict.lost, verdict.duplicates, verdict.accepted_twice) == (0, 0, 0)
    assert TOKEN not in first.log.read_text() + second.log.read_text()


def _rows(page: str) -> list[list[str]]:
    """Return the cells of the rows of the groups in doubt."""
    table = page.partition('aria-label="Groups in doubt"')[2].partition("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    return [[html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in rows[1:]]


def _grouped(worker: Worker, client: httpx.Client) -> str:
    """Have the console group what is in doubt, and return the page that tells of it."""
    csrf = re.findall(r'name="csrf" value="([0-9a-f]+)"', client.get("/dead-letters").text)[0]
    begun = client.post("/dead-letters/in_doubt", data={"csrf": csrf})
    assert begun.status_code == 303, begun.text
    found: list[str] = []

    def told(_: Any) -> bool:
        found[:] = [client.get(f"/{begun.headers['Location'].lstrip('/')}").text]
        return 'aria-label="Groups in doubt"' in found[0] or "None of the dead letters" in found[0]

    worker.wait_for(told, "the groups")
    return found[0]


def test_the_console_lists_what_lost_answers_left_in_doubt_in_groups(world: World) -> None:
    """Two answers are lost, of batches for two lists; each has a row, with what tells it from the other."""
    (world.folder / "token").write_text(TOKEN)
    platform = {"timeouts": {"connect_secs": 1, "total_secs": 1}}
    settings = {"instance_id": "host-7", "web": {"token": "${file:token}"}, "trackly": platform}
    flow = {"batch": {"window_ms": 1_000}, "list_number_placement": "top_level"}
    worker = world.start(world.settings(settings, stream=flow))
    worker.wait_for(lambda s: s["partitions"] != {}, "its partitions")
    world.platform.set_faults(Faults.model_validate({"stall": {"next": 2}, "stall_takes_records": True}))
    lists = {"+18005551234": 30, "+18005550000": 20}
    for number, count in lists.items():
        event = f'{{"to":"+15550000001","body":"Hello","list_number":"{number}"}}'.encode()
        world.topics.produce(world.source, [Record(event, b"key")] * count)
    worker.wait_for(lambda s: s["dead_letters"] == {"in_doubt": 50}, "both in doubt")
    batches: dict[str, list[tuple[str, str]]] = {}
    for message in world.topics.read(world.dead_letters):
        headers = dict(message.headers() or [])
        batch_id, failed_at = headers["trackly.batch_id"], headers["trackly.failed_at"]
        assert isinstance(batch_id, bytes)
        assert isinstance(failed_at, bytes)
        number = json.loads(message.value() or b"")["list_number"]
        batches.setdefault(batch_id.decode(), []).append((failed_at.decode(), number))

    with _logged_in(worker) as client:
        rows = _rows(_grouped(worker, client))

    assert Counter(number for letters in batches.values() for _, number in letters) == lists
    wanted = []
    for batch_id, letters in batches.items():
        times, numbers = [at for at, _ in letters], {number for _, number in letters}
        own_list = mask_phone(numbers.pop())
        wanted.append([min(times), max(times), world.name, batch_id, "host-7", own_list, str(len(letters))])
    assert sorted(row[:7] for row in rows) == sorted(wanted)
    assert len(rows) == 2
    assert "+1555" not in str(rows)


def test_the_console_tells_a_crash_and_records_whose_list_is_not_known(world: World) -> None:
    """A crash has no batch; and where no event can be made of a record now, its list is said to be unknown."""
    (world.folder / "token").write_text(TOKEN)
    mapping = {"fields": {"to": "value.phone", "body": {"template": "Hi"}}, "list_number": "value.list"}
    worker = world.start(world.settings({"web": {"token": "${file:token}"}}, stream={"mapping": mapping}))
    worker.wait_for(lambda s: s["partitions"] != {}, "its partitions")
    gone = ("trackly.batch_id", "trackly.index", "trackly.attempts", "trackly.sent_at")
    for number, value in enumerate([b'{"phone":"+15550000001","list":"+18005550000"}', b"{"]):
        headers = headers_of("in_doubt", stream=world.name, topic=world.source, offset=number)
        kept = [header for header in headers if header[0] not in gone]
        world.topics.produce(world.dead_letters, [Record(value, b"key", kept)] * (number + 1))

    with _logged_in(worker) as client:
        rows = _rows(_grouped(worker, client))
        failed_again = [
            *headers_of("rejected", stream=world.name, topic=world.source, offset=1),
            ("trackly.redrives", b"1"),
        ]
        world.topics.produce(world.dead_letters, [Record(b"{", b"key", failed_again)])
        later = _grouped(worker, client)

    assert sorted((row[2], row[3], row[4], row[5], row[6]) for row in rows) == [
        (world.name, "none: a crash", "\N{EN DASH}", "+1800***0000", "1"),
        (world.name, "none: a crash", "\N{EN DASH}", "unknown: no event can be made now", "2"),
    ]
    assert [(row[5], row[6]) for row in _rows(later)] == [("+1800***0000", "1")]
    assert "2 settled since: was sent again and failed again" in later


def test_a_redrive_whose_topic_does_not_exist_says_so_before_anybody_confirms_it(world: World) -> None:
    (world.folder / "token").write_text(TOKEN)
    worker = world.start(world.settings({"web": {"token": "${file:token}"}}))
    worker.wait_for(lambda s: s["partitions"] != {}, "its partitions")
    headers = headers_of("not_sendable", stream=world.name, topic=world.source, offset=0)
    world.topics.produce(world.dead_letters, [Record(b"{}", b"key", headers)])

    with _logged_in(worker) as client:
        csrf = re.findall(r'name="csrf" value="([0-9a-f]+)"', client.get("/dead-letters").text)[0]
        begun = client.post("/dead-letters/redrive", data={"csrf": csrf})
        task = f"/{begun.headers['Location'].lstrip('./')}"
        worker.wait_for(lambda _: "these topics do not exist" in client.get(task).text, "what is missing")


def test_of_two_redrives_that_were_looked_at_together_the_second_leaves_what_the_first_has_sent(world: World) -> None:
    """One of them may have waited minutes for its word; nobody is texted twice by it."""
    (world.folder / "token").write_text(TOKEN)
    may_create = {"create_topics": {"enabled": True, "replication_factor": 1}}
    worker = world.start(world.settings({"web": {"token": "${file:token}"}}, stream=may_create))
    world.platform.set_faults(Faults(record_codes=(RecordCode(text="text", code="not_sendable"),)))
    world.produce_sends(20)
    worker.wait_for(lambda s: s["dead_letters"] == {"not_sendable": 20}, "dead letters")
    world.platform.set_faults(Faults())

    with _logged_in(worker) as client:
        csrf = re.findall(r'name="csrf" value="([0-9a-f]+)"', client.get("/dead-letters").text)[0]
        tasks = []
        for filters in ({"reason": "not_sendable"}, {"since": "24h"}):
            begun = client.post("/dead-letters/redrive", data={"csrf": csrf, **filters})
            tasks.append(f"/{begun.headers['Location'].lstrip('./')}")
            worker.wait_for(lambda _: "Send 20 again" in client.get(tasks[-1]).text, "what would be done")
        first, second = tasks
        client.post(f"{first}/confirm", data={"csrf": csrf})
        worker.wait_for(lambda _: "20 sent again" in client.get(first).text, "what was done")
        client.post(f"{second}/confirm", data={"csrf": csrf})
        worker.wait_for(lambda _: "20 left: handled by others" in client.get(second).text, "what was left")
    worker.wait_for(lambda s: s["queued"] == 20, "all queued")

    assert {entry.accepted for entry in world.platform.entries("send")} == {1}
    assert world.settled().queued == 20
