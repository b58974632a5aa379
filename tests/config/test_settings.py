"""Settings that follow from others, and the promise that nothing is converted or changed."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from connector.config.settings import Settings
from connector.config.streams import StreamSettings
from connector.config.trackly import TimeoutSettings

REQUIRED: dict[str, Any] = {"name": "s", "topics": ["in"], "outcomes": {"topic": "o"}, "dead_letters": {"topic": "d"}}


def _stream(operation: str = "send", **changes: Any) -> StreamSettings:
    return StreamSettings.model_validate(REQUIRED | {"operation": operation} | changes)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (_stream("send"), "dead_letter"),
        (_stream("send", mode="single"), "dead_letter"),
        (_stream("revenue"), "dead_letter"),
        (_stream("contacts"), "resend"),
        (_stream("contacts", contacts={"journeys": True}), "dead_letter"),
        (_stream("history"), "resend"),
        (_stream("history", history={"kind": "clicks"}), "resend"),
        (_stream("history", history={"kind": "revenue"}), "dead_letter"),
        (_stream("history", history={"kind": "sends", "endpoint": "import"}), "dead_letter"),
        (_stream("history", history={"kind": "clicks", "endpoint": "import"}), "dead_letter"),
    ],
)
def test_what_is_in_doubt_is_sent_again_only_where_repeats_are_harmless(stream: StreamSettings, expected: str) -> None:
    assert stream.in_doubt == expected


def test_a_gateway_that_had_no_answer_to_what_it_passed_on_leaves_doubt_and_one_that_reached_nobody_leaves_none() -> (
    None
):
    """520 to 530 are Cloudflare's: 521 to 523 and 525 to 530 say that it could not reach the platform.

    522 has a second meaning, a request that no packet confirmed for 90 s: by then ours is lost, and so in doubt.
    """
    doubted = _stream().delivery.in_doubt_statuses

    assert {504, 520, 524} <= set(doubted)
    assert not {500, 502, 503, 521, 522, 523, *range(525, 531)} & set(doubted)
    assert TimeoutSettings().total_secs < 90


@pytest.mark.parametrize("operation", ["send", "contacts", "revenue", "history"])
@pytest.mark.parametrize("chosen", ["dead_letter", "resend", "hold"])
def test_the_operator_may_choose_for_records_in_doubt(operation: str, chosen: str) -> None:
    assert _stream(operation, delivery={"in_doubt": chosen}).in_doubt == chosen


def test_the_group_is_named_after_the_stream_unless_set() -> None:
    assert _stream().group == "trackly-connector.s"
    assert _stream(group_id="ours").group == "ours"


def test_the_redrive_topic_is_named_after_the_stream() -> None:
    assert _stream().redrive_topic == "s.redrive"


@pytest.mark.parametrize(
    ("changes", "ceiling"),
    [
        ({}, 64),
        ({"mode": "single"}, 256),
        ({"concurrency": {"max": 7}}, 7),
        ({"mode": "single", "concurrency": {"max": 7}}, 7),
    ],
)
def test_the_most_requests_at_once_follow_the_mode_unless_set(changes: dict[str, Any], ceiling: int) -> None:
    assert _stream(**changes).ceiling == ceiling


def test_settings_cannot_be_changed(load: Callable[..., Settings]) -> None:
    settings = load()

    with pytest.raises(ValidationError, match="frozen"):
        settings.streams[0].batch.max_records = 1


def test_whole_numbers_may_stand_for_others(load: Callable[..., Settings]) -> None:
    grace = load({"shutdown": {"grace_secs": 90}}).shutdown.grace_secs

    assert (grace, type(grace)) == (90.0, float)


def test_two_readings_of_one_file_are_equal(load: Callable[..., Settings]) -> None:
    assert load() == load()


def test_settings_built_by_code_have_no_origin(load: Callable[..., Settings]) -> None:
    loaded = load()

    assert loaded.origin is not None
    assert (
        Settings.model_validate({"kafka": loaded.kafka, "trackly": loaded.trackly, "streams": loaded.streams}).origin
        is None
    )
