"""Several workers under one supervisor: they share the work, come back when they die, and stop as one."""

import os
import signal
import time
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from connector.console.guarding import SAFE_HEADERS
from connector.simulator import Faults
from tests.kit.patience import PATIENCE_SECS
from tests.kit.world import DRAIN_SECS, PATIENT, Worker, World, merge

TWO: Final = ("--workers", "2")
TOKEN: Final = "a-token-of-the-tests-0123456789"
NEW_TOKEN: Final = "another-token-of-the-tests-0123"
SLOW: Final = Faults(latency_ms=(1_500, 2_500))
QUICK: Final = Faults(latency_ms=(20, 80))


@pytest.fixture
def settings(world: World) -> dict[str, Any]:
    """Return settings under which there are requests in flight for some seconds."""
    (world.folder / "token").write_text(TOKEN)
    return world.settings(
        {"instance_id": world.name, "web": {"token": "${file:token}"}, "log": {"format": "json"}},
        stream={"concurrency": {"max": 8}},
    )


def _wait_shared(supervisor: Worker) -> dict[str, Any]:
    return supervisor.wait_for(
        lambda s: len(s["partitions"]) == 4 and {p["worker"] for p in s["partitions"].values()} == {0, 1},
        "two workers with a share each",
    )


def _workers(supervisor: Worker) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = supervisor.whole_status()["workers"]
    return found


def _samples(supervisor: Worker, name: str) -> dict[str, float]:
    """Return the samples of a metric, added up for each worker."""
    families = list(text_string_to_metric_families(supervisor.page("/metrics").text))
    assert len({family.name for family in families}) == len(families), "each family once"
    found: dict[str, float] = {}
    for sample in (sample for family in families for sample in family.samples if sample.name == name):
        found[sample.labels["worker"]] = found.get(sample.labels["worker"], 0) + sample.value
    return found


def _wait_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + PATIENCE_SECS
    while left := [pid for pid in pids if _lives(pid)]:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_two_workers_share_the_work_survive_a_kill_and_stop_as_one(world: World, settings: dict[str, Any]) -> None:
    """One life of a supervisor: work, `kill -9` of a worker and later SIGTERM, both with requests in flight."""
    world.platform.set_faults(QUICK)
    supervisor = world.start(settings, options=TWO)
    _wait_shared(supervisor)

    # What two have done is told as the work of one.
    world.produce_sends(10_000)
    status = supervisor.wait_for(lambda s: s["queued"] == 10_000, "all settled")
    before = _workers(supervisor)
    assert status["records_read"] == 10_000
    assert [worker["instance_id"] for worker in before] == [f"{world.name}-0", f"{world.name}-1"]
    assert [worker["state"] for worker in before] == ["running", "running"]
    queued = _samples(supervisor, "trackly_queued_total")
    assert (set(queued), all(queued.values()), sum(queued.values())) == ({"0", "1"}, True, 10_000)
    batches = sum(status["batches_closed"].values())
    assert sum(_samples(supervisor, "trackly_settle_seconds_count").values()) == batches
    assert [supervisor.page(page).status_code for page in ("/healthz", "/readyz", "/")] == [200, 200, 200]
    _check_resume(world, supervisor)

    # A worker dies: the other goes on, and it is back under its id.
    world.platform.set_faults(SLOW)
    world.produce_sends(10_000, tag="killed")
    supervisor.wait_for(lambda s: s["in_flight_requests"] >= 4, "requests in flight")
    os.kill(before[1]["pid"], signal.SIGKILL)
    killed_at = time.monotonic()
    world.platform.set_faults(QUICK)
    assert (supervisor.page("/readyz").status_code, supervisor.page("/healthz").status_code) == (503, 200)
    _wait_shared(supervisor)
    print(f"the killed worker had its partitions again after {time.monotonic() - killed_at:.1f} s")
    after = _workers(supervisor)
    assert [worker["instance_id"] for worker in after] == [worker["instance_id"] for worker in before]
    assert after[0]["pid"] == before[0]["pid"]
    assert (after[1]["restarts"], after[1]["last_exit"]) == (1, -signal.SIGKILL)
    assert _samples(supervisor, "trackly_worker_restarts_total") == {"0": 0, "1": 1}
    found = world.settled()
    assert found.problems() == []
    assert (found.accepted_twice, found.queued + found.in_doubt) == (0, 20_000)

    # One signal drains both.
    world.platform.set_faults(SLOW)
    world.produce_sends(10_000, tag="drained")
    supervisor.wait_for(lambda s: s["in_flight_requests"] >= 4, "requests in flight")
    assert supervisor.stop() == 0
    _wait_gone([worker["pid"] for worker in after])
    stopped = world.judge()
    assert stopped.lost > 0, "it stopped in the middle"
    assert stopped.in_doubt == found.in_doubt, "and left nothing in doubt"
    lines = supervisor.log.read_text().splitlines()
    assert all(any(f'"worker": {ordinal}' in line and '"stream"' in line for line in lines) for ordinal in (0, 1))


def _check_resume(world: World, supervisor: Worker) -> None:
    """Check that the one page that changes something reaches all workers, and only with the token; so does SIGHUP."""
    path = f"/streams/{world.name}/resume"
    refused = supervisor.post(path, token="not-the-token-of-the-tests")
    assert (refused.status_code, refused.json()["problem"]) == (401, "the token is wrong")
    assert {name: refused.headers.get(name) for name in SAFE_HEADERS} == SAFE_HEADERS
    (world.folder / "token").write_text(NEW_TOKEN)
    supervisor.signal(signal.SIGHUP)
    deadline = time.monotonic() + PATIENCE_SECS
    form = {"partition": f"{world.source}:9"}
    while (passed_on := supervisor.post(path, token=NEW_TOKEN, form=form)).status_code != 200:
        assert time.monotonic() < deadline, passed_on.text
        time.sleep(0.05)
    assert passed_on.json()["not_held"] == [f"{world.source}:9"], "not held by any"
    assert supervisor.post(path, token=NEW_TOKEN, form={"nonsense": "1"}).status_code == 400


def test_workers_end_with_a_supervisor_that_is_killed_and_the_next_one_continues(
    world: World, settings: dict[str, Any]
) -> None:
    world.platform.set_faults(SLOW)
    world.produce_sends(10_000)
    supervisor = world.start({**settings, "workers": 2})
    supervisor.wait_for(lambda s: s["in_flight_requests"] >= 4, "requests in flight")
    pids = [worker["pid"] for worker in _workers(supervisor)]

    supervisor.kill()

    _wait_gone(pids)
    world.platform.set_faults(QUICK)
    again = world.start(settings, options=TWO)
    found = world.settled()
    assert found.problems() == []
    assert (found.accepted_twice, found.queued + found.in_doubt) == (0, 10_000)
    assert again.stop() == 0


def test_what_no_restart_fixes_ends_all_with_its_code(world: World, settings: dict[str, Any]) -> None:
    stream = {**settings["streams"][0], "outcomes": {"topic": "nowhere.to.be.found"}}
    supervisor = world.start({**settings, "streams": [stream]}, options=TWO)

    assert supervisor.process.wait(PATIENCE_SECS) == 2

    told = supervisor.log.read_text()
    assert told.count('"worker started"') == 2, "none was started again"
    assert "error: worker " in told
    assert "which a restart cannot fix; all workers were stopped" in told
    assert "nowhere.to.be.found" in told


def test_a_worker_that_cannot_come_back_leaves_the_others_alone_until_it_can(
    world: World, settings: dict[str, Any]
) -> None:
    """A secret's file is gone while a worker is started again, as where it is replaced by hand."""
    key = world.folder / "api_key"
    key.write_text(settings["trackly"]["api_key"])
    trackly = {**settings["trackly"], "api_key": "${file:api_key}"}
    supervisor = world.start({**settings, "trackly": trackly}, options=TWO)
    _wait_shared(supervisor)
    before = _workers(supervisor)
    away = key.rename(world.folder / "away")
    os.kill(before[1]["pid"], signal.SIGKILL)
    supervisor.wait_for(lambda _: _workers(supervisor)[1]["last_exit"] == 2, "a start that fails")
    world.produce_sends(1_000)
    supervisor.wait_for(
        lambda s: len(s["partitions"]) == 4 and {p["worker"] for p in s["partitions"].values()} == {0},
        "all partitions at the one that lives",
    )
    found = world.settled()

    away.rename(key)

    _wait_shared(supervisor)
    assert _workers(supervisor)[0]["pid"] == before[0]["pid"]
    assert (found.problems(), found.queued) == ([], 1_000)
    assert supervisor.stop() == 0


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_worker_without_partitions_is_ready_and_has_no_lag(world: World, protocol: str) -> None:
    topic = world.topics.create(partitions=1)
    for ordinal in range(2):
        settings = {"instance_id": f"{world.name}-{ordinal}", "kafka": {"group_protocol": protocol}}
        world.start(world.settings(settings, stream={"topics": [topic]}))
    one, two = world.workers

    for worker in (one, two):
        worker.wait_for(lambda s: s["lag"] == 0, "no lag")
        assert worker.page("/readyz").status_code == 200
    assert len(one.status()["partitions"]) + len(two.status()["partitions"]) == 1


def test_a_second_signal_stops_all_at_once(world: World, settings: dict[str, Any]) -> None:
    world.platform.set_faults(Faults.model_validate({"stall": {"next": 1_000}}))
    world.produce_sends(4_000)
    settings = merge(settings, PATIENT)
    settings["streams"][0]["delivery"]["drain_secs"] = DRAIN_SECS
    supervisor = world.start(settings, options=TWO)
    supervisor.wait_for(lambda s: s["in_flight_requests"] > 0, "requests in flight")
    pids = [worker["pid"] for worker in _workers(supervisor)]
    supervisor.signal(signal.SIGTERM)
    supervisor.wait_for(lambda s: s["state"] == "draining", "the drain")

    assert supervisor.stop() == 5, "it does not wait for the drain"

    _wait_gone(pids)
