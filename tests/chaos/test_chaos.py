"""Short runs of chaos: the whole suite of disturbances takes minutes, `make chaos`."""

from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import Mock

import pytest

from tests.chaos.conductor import Conductor
from tests.chaos.plan import FLOWS, Disturbance, Setup, episodes, setup
from tests.chaos.run import run
from tests.kit.patience import PATIENCE_SECS


def test_a_seed_gives_the_same_plan_each_time_and_neighbours_cover_all_setups() -> None:
    first, again = episodes(7), episodes(7)

    assert [next(first) for _ in range(50)] == [next(again) for _ in range(50)]
    assert len({(s.protocol, s.flows) for s in map(setup, range(6))}) == 2 * len(FLOWS)


@pytest.mark.parametrize(
    ("kind", "values", "asked"),
    [
        ("authorization_taken", {"what": "group"}, "deny"),
        ("outcomes_refused", {}, "refuse_outcomes"),
    ],
)
def test_what_is_asked_of_a_frozen_broker_does_not_keep_it_frozen(kind: str, values: Any, asked: str) -> None:
    thawed, arena, feed = Event(), Mock(), Mock()
    arena.broker.resume = thawed.set
    getattr(arena, asked).side_effect = lambda *_: (
        None if thawed.wait(PATIENCE_SECS) else pytest.fail("it stays frozen")
    )
    feed.waiting.return_value = []

    Conductor(arena, feed, lambda _: None).play(
        (Disturbance("broker_freeze", 0.0, {"secs": 0.3}), Disturbance(kind, 0.1, {**values, "secs": 0.1}))
    )

    assert thawed.is_set()


@pytest.mark.usefixtures("kafka_by_java")
@pytest.mark.parametrize(("seed", "protocol", "flows"), [(4, "classic", "three"), (5, "consumer", "one")])
def test_each_record_ends_once_in_any_order_of_faults(tmp_path: Path, seed: int, protocol: str, flows: str) -> None:
    result = run(seed, Setup(protocol, FLOWS[flows]), secs=15, folder=tmp_path, tell=print)  # type: ignore[arg-type]

    print(result.summary())
    assert result.problems == []
    summary = result.summary()
    assert summary["disturbances"] != {}
    assert summary["lost"] == summary["accepted_twice"] == 0
    once = summary["outcomes"] + summary["dead_letters"] - sum(summary["outcome_duplicates"].values())
    assert once + summary["deleted_with_their_topic"] == summary["produced"]
