"""Every query of the dashboard has an answer from a real Prometheus that scrapes a connector at work."""

from typing import Any, Final

from connector.demo.topics import Record
from connector.simulator import Faults
from tests.deploy.queries import RULES_FILE, panels, queries
from tests.kit.prometheus import prometheus
from tests.kit.world import World

_OF_SPECIAL_STATES: Final = frozenset({"trackly_stalled_partitions"})
"""Series that are there only while something stands still for minutes."""


def test_every_query_of_the_dashboard_has_an_answer(world: World) -> None:
    """Two workers have queued, dead-lettered and held, with a pace, an order of keys and a rule of redrive."""
    world.produce_sends(2_000)
    world.produce([Record(b'{"to":"0555","body":"x"}', b"bad %d" % n) for n in range(20)], "invalid_phone")
    stream: dict[str, Any] = {
        "pace": {"messages_per_minute": 600_000},
        "ordering": "key",
        "create_topics": {"enabled": True, "replication_factor": 1},
        "dead_letters": {"redrive": [{"name": "again", "reasons": ["provider_error"]}]},
    }
    worker = world.start(world.settings(stream=stream), options=["--workers", "2"])
    worker.wait_for(lambda s: s["queued"] == 2_000 and sum(s["dead_letters"].values()) == 20, "all settled")

    with prometheus([worker.port], world.folder, RULES_FILE) as asked:
        asked.wait_for("count_over_time(trackly_queued_total[1m]) > 3")
        world.platform.set_faults(Faults.model_validate({"status_override": 503}))
        world.produce_sends(100, tag="held")
        worker.wait_for(lambda s: s["hold"] is not None, "a hold")
        asked.wait_for("trackly_hold == 1 and on (stream, reason) count_over_time(trackly_holds_total[1m]) > 2")
        silent = [name for name, query in queries() if not asked.ask(query)]

    expected = {name for name, query in queries() if any(metric in query for metric in _OF_SPECIAL_STATES)}
    assert set(silent) == expected
    assert len(queries()) > len(panels())
