"""The chains of limits show their sums, and settings with a price are noted."""

from collections.abc import Callable
from typing import Any

import pytest

from connector.config.settings import Settings
from connector.config.summary import chains, notes

Load = Callable[..., Settings]
TRACES = {"enabled": True, "endpoint": "http://collector:4318/v1/traces", "headers": {"Authorization": "x"}}
RESEND = {"delivery": {"in_doubt": "resend"}}


def test_the_chains_show_the_numbers_in_effect(load: Load) -> None:
    assert list(chains(load({"shutdown": {"grace_secs": 90.5}}))) == [
        "request 30 s + last tick 1 s = 31 s <= drain 40 s < grace 90.5 s",
        "drain 40 s < longest time without a poll 300 s",
        "2 x heartbeat 3 s = 6 s < session 10 s: a post starts at most 4 s after its tick",
        "idle connections are used again for 4 s < the platform keeps them for 60 s",
    ]


def test_a_post_starts_within_the_session_less_two_heartbeats_however_short_that_is(load: Load) -> None:
    kafka = load({"kafka": {"session_timeout_secs": 2, "heartbeat_interval_secs": 0.9}}).kafka

    assert kafka.post_within_secs == pytest.approx(0.2)


def test_streams_that_differ_have_chains_of_their_own(load: Load) -> None:
    second = {
        "name": "second",
        "topics": ["in2"],
        "operation": "send",
        "outcomes": {"topic": "o2"},
        "dead_letters": {"topic": "d2"},
        "delivery": {"drain_secs": 50},
    }

    told = list(chains(load({"streams": [{}, second]})))

    assert told[0].endswith("<= drain 40 s < grace 60 s (sends)")
    assert told[2].endswith("<= drain 50 s < grace 60 s (second)")


def test_defaults_have_nothing_to_mind(load: Load) -> None:
    assert list(notes(load())) == []


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"trackly": {"base_url": "http://sim:1", "allow_plain_http": True}}, "clear"),
        ({"traces": {**TRACES, "allow_plain_http": True}}, "headers travel in the clear"),
        ({"trackly": {"tls": {"verify": False}}}, "whoever answers"),
        ({"kafka": {"security": {"protocol": "ssl", "verify_hostname": False}}}, "pose as a broker"),
        ({"streams": [RESEND]}, "text somebody twice"),
        (
            {
                "streams": [
                    {"operation": "contacts", "contacts": {"journeys": True}, "delivery": {"in_doubt": "resend"}}
                ]
            },
            "twice",
        ),
        (
            {"streams": [{"operation": "history", "history": {"kind": "revenue"}, "delivery": {"in_doubt": "resend"}}]},
            "twice",
        ),
        ({"streams": [{"delivery": {"guarantee": "at_least_once"}}]}, "may repeat"),
        ({"streams": [{"on_missing": "continue"}]}, "unread"),
        ({"streams": [{"outcomes": {"records": "failures"}}]}, "leaves no record"),
        ({"streams": [{"storm_guard": {"enabled": False}}]}, "empty a topic"),
    ],
)
def test_settings_with_a_cost_are_reported(changes: dict[str, Any], word: str, load: Load) -> None:
    told = list(notes(load(changes)))

    assert len(told) == 1
    assert word in told[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"trackly": {"base_url": "http://localhost:1"}},
        {"trackly": {"allow_plain_http": True}},
        {"traces": {**TRACES, "endpoint": "http://localhost:4318/v1/traces", "allow_plain_http": True}},
        {"traces": {**TRACES, "headers": {}, "allow_plain_http": True}},
        {"traces": {**TRACES, "enabled": False, "allow_plain_http": True}},
        {"kafka": {"security": {"protocol": "ssl"}}},
        {"kafka": {"security": {"verify_hostname": False}}},
    ],
)
def test_settings_that_are_safe_are_not_reported(changes: dict[str, Any], load: Load) -> None:
    assert list(notes(load(changes))) == []


def test_resending_where_repeats_are_skipped_has_no_price(load: Load) -> None:
    assert list(notes(load({"streams": [{"operation": "contacts"}]}))) == []
    assert list(notes(load({"streams": [{"operation": "history"}]}))) == []
