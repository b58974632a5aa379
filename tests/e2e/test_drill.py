"""A drill: the key is revoked under load, everything reports it within seconds, it is fixed, nothing is lost."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
import yaml

from connector.simulator import Faults, SimulatorSettings, SimulatorThread
from tests.deploy.queries import RULES_FILE
from tests.kit.feed import Feed
from tests.kit.patience import PATIENCE_SECS, tell
from tests.kit.prometheus import Prometheus, prometheus
from tests.kit.world import KEY, Worker, World

TOLD_WITHIN_SECS: Final = 5.0
"""Everybody is to know by then."""
NEW_KEY: Final = "trk_fedcba9876543210fedcba9876543210"
DOCS: Final = "https://docs.example.org/connector"


def _since(began: float, true: Callable[[], bool], what: str) -> float:
    """Wait until something is true, and return how long that took from the beginning."""
    while not true():
        assert time.monotonic() - began < PATIENCE_SECS, what
        time.sleep(0.05)
    return time.monotonic() - began


def _logged(worker: Worker, event: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


def _metric(worker: Worker, stream: str) -> list[str]:
    """Return the reasons that the metric says, of which the alert is made."""
    lines = [line for line in worker.page("/metrics").text.splitlines() if line.startswith("trackly_hold{")]
    return [line for line in lines if f'stream="{stream}"' in line and line.endswith(" 1.0")]


@pytest.fixture
def platform(make_simulator: Callable[[SimulatorSettings], SimulatorThread]) -> SimulatorThread:
    """Run a platform that knows the key, and the one that will replace it."""
    return make_simulator(SimulatorSettings(api_keys=(KEY, NEW_KEY)))


@pytest.fixture
def alerts(world: World) -> Iterator[Callable[[Worker], Prometheus]]:
    """Return what makes a Prometheus over a worker, with the delivered rule of holds less patient than delivered."""
    opened: list[Any] = []

    def over(worker: Worker) -> Prometheus:
        found = yaml.safe_load(RULES_FILE.read_text())
        for rule in found["groups"][0]["rules"]:
            rule["for"] = "0s"
        impatient = world.folder / "rules.yml"
        impatient.write_text(yaml.safe_dump(found))
        context = prometheus([worker.port], world.folder, impatient, {"docs_url": DOCS})
        opened.append(context)
        return context.__enter__()

    yield over
    for context in opened:
        context.__exit__(None, None, None)


def test_a_key_that_is_revoked_is_reported_everywhere_and_nothing_is_lost(
    world: World, alerts: Callable[[Worker], Prometheus]
) -> None:
    key_file = world.folder / "api_key"
    key_file.write_text(KEY)
    settings = world.settings({"trackly": {"api_key": f"${{file:{key_file}}}"}, "docs_url": DOCS})
    worker = world.start(settings)
    asked = alerts(worker)

    with Feed(world):
        worker.wait_for(lambda s: s["queued"] > 500, "texts flow")
        asked.wait_for("trackly_queued_total > 0")

        began = time.monotonic()
        world.platform.set_faults(Faults.model_validate({"revoked_keys": [KEY]}))
        told = {
            "/status": _since(
                began, lambda: (worker.status().get("hold") or {}).get("reason") == "unauthorized", "status"
            ),
            "console": _since(began, lambda: "<code>unauthorized</code>" in worker.page("/").text, "console"),
            "log": _since(began, lambda: bool(_logged(worker, "stream on hold")), "log"),
            "metric": _since(began, lambda: bool(_metric(worker, world.name)), "metric"),
            "alert": _since(
                began,
                lambda: bool(asked.ask('ALERTS{alertname="TracklyStreamOnHold",alertstate="firing"}')),
                "alert",
            ),
        }
        for where, secs in told.items():
            tell(where, secs, TOLD_WITHIN_SECS)
        hold = worker.status()["hold"]
        (line,) = _logged(worker, "stream on hold")
        (alert,) = asked.get("alerts")["alerts"]
        (sample,) = _metric(worker, world.name)
        page = f"{DOCS}/runbook/hold-unauthorized/"
        assert (hold["reason"], hold["runbook"]) == ("unauthorized", page)
        assert (line["reason"], line["runbook"], line["stream"]) == ("unauthorized", page, world.name)
        assert 'reason="unauthorized"' in sample
        assert (alert["labels"]["reason"], alert["labels"]["stream"]) == ("unauthorized", world.name)
        assert alert["annotations"]["runbook_url"] == f"{DOCS}/runbook/on-hold/"
        settled = worker.wait_for(lambda s: s["in_flight_records"] == 0, "what was posted before has its results")
        queued = settled["queued"]
        time.sleep(1)
        assert worker.status()["queued"] == queued

        key_file.write_text(NEW_KEY)
        worker.wait_for(lambda s: s["hold"] is None and s["queued"] > queued + 500, "texts flow again")

    found = world.settled()
    assert found.problems() == []
    assert found.dead_letters == {}
    deadline = time.monotonic() + PATIENCE_SECS
    while not _logged(worker, "hold ended"):
        assert time.monotonic() < deadline, "the log does not tell that the hold ended"
        time.sleep(0.1)
    assert len(_logged(worker, "hold ended")) == 1
    while "<code>unauthorized</code>" in worker.page("/").text:
        assert time.monotonic() < deadline, "the console still shows the hold"
        time.sleep(0.1)
    asked.wait_for('absent(ALERTS{alertname="TracklyStreamOnHold",alertstate="firing"})')
    text = worker.log.read_text()
    assert KEY not in text
    assert NEW_KEY not in text
    assert "+1555" not in text.replace("+1555***", "")
