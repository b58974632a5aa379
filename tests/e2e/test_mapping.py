"""Events of other shapes, on the real broker: two operations of one topic, overrides, topics that come later."""

import json
import time
from typing import Any, Final

from connector.demo.topics import Record
from connector.simulator import SimulatorThread
from tests.kit.patience import PATIENCE_SECS
from tests.kit.world import Worker, World

LIST: Final = "+18005551234"
COUNT: Final = 300

TEXT: Final[dict[str, Any]] = {
    "when": "value.type == 'signup' && value.opted_in",
    "fields": {"to": "value.phone", "body": {"template": "Welcome {{ value.name | default('back') }} {{ value.id }}"}},
    "max_segments": 1,
}
CONTACT: Final[dict[str, Any]] = {
    "when": "value.type == 'signup'",
    "fields": {"phone_number": "value.phone", "custom_fields": {"first_name": "value.name", "id": "value.id"}},
}


def signup(number: int, **changes: Any) -> Record:
    value = {
        "type": "signup",
        "opted_in": True,
        "id": number,
        "name": "Ada",
        "phone": f"+1415555{number % 10_000:04d}",
        **changes,
    }
    return Record(json.dumps(value).encode(), f"{number}".encode())


def wait_for(worker: Worker, wanted: dict[str, int], *, stream: int = 0) -> dict[str, Any]:
    """Wait until a stream has settled so many records of each kind, and return its status."""
    deadline = time.monotonic() + PATIENCE_SECS
    status: dict[str, Any] = {}
    while time.monotonic() < deadline:
        streams = worker.whole_status().get("streams") or []
        if len(streams) > stream:
            status = streams[stream]
            if all(status[name] >= count for name, count in wanted.items()):
                return status
        time.sleep(0.1)
    raise AssertionError(f"not seen: {wanted}; status {json.dumps(status)}")


def outcomes_by_status(world: World, topic: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for message in world.topics.read(topic):
        outcome = json.loads(message.value() or b"")
        name = f"{outcome['status']} {outcome.get('reason', '')}".strip()
        found[name] = found.get(name, 0) + 1
    return found


def test_one_event_is_a_contact_and_a_text(world: World, platform: SimulatorThread) -> None:
    """Two streams of one topic: each has its own group, mapping and results, and each record one end in each."""
    contacts = {
        "name": f"{world.name}-contacts",
        "operation": "contacts",
        "mapping": CONTACT,
        "outcomes": {"topic": world.topics.create(partitions=2)},
        "dead_letters": {"topic": world.topics.create(partitions=2)},
    }
    settings = world.settings(stream={"mapping": TEXT})
    settings["streams"].append({**settings["streams"][0], **contacts})
    records = [signup(number) for number in range(COUNT)]
    odd = [
        signup(COUNT, opted_in=False),
        signup(COUNT + 1, type="order"),
        signup(COUNT + 2, phone=None),
        signup(COUNT + 3, name="n" * 200),
        signup(COUNT + 4, name={"first": "Ada"}),
        Record(b"{", b"torn"),
        Record(None, b"gone"),
    ]
    world.topics.produce(world.source, [*records, *odd])
    worker = world.start(settings)
    # COUNT and what is skipped; then the dead letters of each.
    texts = wait_for(worker, {"queued": COUNT, "skipped": 3})
    people = wait_for(worker, {"queued": COUNT + 2, "skipped": 2}, stream=1)
    assert worker.stop() == 0

    assert texts["dead_letters"] == {"missing_to": 1, "too_many_segments": 1, "mapping_failed": 1, "not_json": 1}
    assert people["dead_letters"] == {"missing_phone_number": 1, "wrong_type": 1, "not_json": 1}
    assert outcomes_by_status(world, world.outcomes) == {"queued": COUNT, "skipped filtered": 2, "skipped tombstone": 1}
    accepted = {entry.identity for entry in platform.entries("send")}
    assert accepted == {f"Welcome Ada {number}" for number in range(COUNT)}
    letters = {message.key(): message for message in world.topics.read(world.dead_letters)}
    failed = letters[str(COUNT + 4).encode()]
    assert failed.value() == odd[4].value
    headers = dict(failed.headers() or [])
    assert headers["trackly.text"] == b"mapping.fields.body: `value.name` would print an object"


def test_a_topic_that_comes_later_has_its_override(world: World, platform: SimulatorThread) -> None:
    """A pattern finds it without a restart, and the topic's own mapping applies to it alone."""
    prefix = world.topics.name()
    override = {"pattern": r"^.*\.carts$", "mapping": {"fields": {"body": {"const": "Your cart waits"}}}}
    stream = {
        "topics": [],
        "pattern": f"^{prefix}\\.",
        "metadata_refresh_secs": 1,
        "mapping": TEXT,
        "overrides": [override],
    }
    (orders, carts) = (f"{prefix}.orders", f"{prefix}.carts")
    world.topics.create(partitions=2, name=orders)
    worker = world.start(world.settings(stream=stream))
    world.topics.produce(orders, [signup(number) for number in range(50)])
    wait_for(worker, {"queued": 50})
    world.topics.create(partitions=2, name=carts)
    world.topics.produce(carts, [signup(number) for number in range(20)])
    wait_for(worker, {"queued": 70})

    accepted = {entry.identity: entry.accepted for entry in platform.entries("send")}
    assert accepted.pop("Your cart waits") == 20
    assert accepted == {f"Welcome Ada {number}": 1 for number in range(50)}


def test_what_failed_in_a_mapping_is_sent_again_as_its_topic_has_it(world: World, platform: SimulatorThread) -> None:
    """A dead letter keeps the source's bytes, so that a mended mapping makes the event anew."""
    world.topics.produce(world.source, [signup(number, name=None if number else {"a": 1}) for number in range(2)])
    broken = world.start(world.settings(stream={"mapping": TEXT}))
    wait_for(broken, {"queued": 1})
    broken.wait_for(lambda status: status["dead_letters"] == {"mapping_failed": 1}, "the dead letter")
    assert broken.stop() == 0
    mended = {**TEXT, "fields": {**TEXT["fields"], "body": {"template": "Welcome {{ value.id }}"}}}
    settings = world.settings(stream={"mapping": None, "overrides": [{"topics": [world.source], "mapping": mended}]})
    worker = world.start(settings)
    world.topics.create(partitions=1, name=f"{world.name}.redrive")
    (letter,) = world.topics.read(world.dead_letters)
    headers = dict(letter.headers() or [])
    kept = [(n, v) for n, v in headers.items() if isinstance(v, bytes) and n.startswith("trackly.origin.")]
    world.topics.produce(f"{world.name}.redrive", [Record(letter.value(), letter.key(), kept)])
    wait_for(worker, {"queued": 1})

    assert {entry.identity for entry in platform.entries("send")} == {"Welcome back 1", "Welcome 0"}


def test_a_function_that_raises_holds_the_stream_and_no_record_is_to_blame(
    world: World,
) -> None:
    needed = world.folder / "needed"
    world.topics.produce(world.source, [signup(0, name="nobody"), *map(signup, range(1, COUNT))])
    settings = world.settings(stream={"transform": "tests.shaping.hooks:asks", "hold": {"probe_secs": 0.2}})
    worker = world.start(settings, env={"TEST_HOOK_FILE": str(needed)})

    held = worker.wait_for(lambda s: s["hold"] is not None, "a hold")
    time.sleep(1)

    assert held["hold"]["reason"] == "transform_failed"
    assert "FileNotFoundError" in held["hold"]["detail"]
    assert worker.status()["queued"] == 0
    assert world.topics.read(world.dead_letters) == []
    needed.touch()
    after = worker.wait_for(lambda s: s["hold"] is None and s["queued"] == COUNT - 1, "texts flow")
    assert after["dead_letters"] == {"transform_failed": 1}
    assert worker.stop() == 0
