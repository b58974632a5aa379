"""Streams of every format on a real broker with a real registry, and what they do while the registry is away."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
from cloudevents.core.bindings.kafka import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from connector.demo.topics import Record
from tests.kit.registries import Answer, Apicurio, MakeRegistry, TinyRegistry
from tests.kit.world import DRAIN_SECS, PATIENT, World
from tests.shaping.formats.making import SMS, SMS_JSON, SMS_PROTO, frame
from tests.shaping.formats.test_framed import _messages

EVENTS: Final = 10_000
"""Of all five topics."""
BAD_EVERY: Final = 50


def _event(number: int) -> dict[str, str]:
    return {"to": f"+1555{number:07d}", "body": f"text {number}"}


def _identity(number: int) -> bytes:
    return f"text {number}".encode()


def _dead_letters(world: World) -> Counter[str]:
    return Counter(headers["trackly.reason"] for headers in world.headers_of_dead_letters())


def _wait_for_hold(worker: Any, reason: str) -> dict[str, Any]:
    status = worker.wait_for(lambda s: any(h["reason"] == reason for h in s["holds"]), f"the hold {reason}")
    found: dict[str, Any] = next(hold for hold in status["holds"] if hold["reason"] == reason)
    return found


@pytest.fixture
def tiny(make_registry: MakeRegistry) -> TinyRegistry:
    made = make_registry()
    made.add(1, SMS)
    return made


@pytest.fixture
def confluent(apicurio: Apicurio) -> Iterator[SchemaRegistryClient]:
    """Return Confluent's own client of the registry, for its serializers."""
    with SchemaRegistryClient({"url": apicurio.url}) as client:
        yield client


def _avro(number: int, schema: int = 1) -> Record:
    to, body = _event(number)["to"].encode(), _identity(number)
    return Record(
        frame(schema, bytes([len(to) * 2]) + to + bytes([len(body) * 2]) + body + b"\0"), key=_identity(number)
    )


def _start(
    world: World, url: str, over: dict[str, Any] | None = None, *, stream: dict[str, Any] | None = None, **registry: Any
) -> Any:
    """Start a stream of Avro that asks a registry."""
    quick = {"hold": {"probe_secs": 0.3, "probe_max_secs": 1.0}, "format": "avro"}
    asking = {"schema_registry": {"url": url, **registry}}
    return world.start(world.settings(asking | (over or {}), stream=quick | (stream or {})))


# ------------------------------------------------------------------ the registry is away


def test_a_stream_holds_while_its_registry_is_away_and_continues_by_itself(world: World, tiny: TinyRegistry) -> None:
    """However it is away: a page in its place, an error, nobody is let in, no answer in time."""
    tiny.always = Answer(200, b"<html>Sign in</html>", "text/html")
    worker = _start(world, tiny.url, timeout_secs=0.3)
    world.produce(map(_avro, range(3_000)))

    hold = _wait_for_hold(worker, "schema_registry")
    for answer in (Answer(503), Answer(401), Answer(200, b"{}", after_secs=5)):
        tiny.always, asked = answer, len(tiny.asked)
        worker.wait_for(lambda _, asked=asked: len(tiny.asked) > asked, "another question to the registry")
    status = worker.status()

    assert (hold["ends"], hold["partition"], hold["commands"]) == ("probe", None, [])
    assert tiny.url in hold["detail"]
    assert (status["hold"], status["dead_letters"], status["queued"]) == (hold, {}, 0)

    tiny.always = None
    judgement = world.settled()

    assert (judgement.problems(), judgement.queued) == ([], 3_000)
    worker.wait_for(lambda s: not s["holds"], "the end of the hold")


def test_a_registry_that_goes_away_later_concerns_new_schemas_alone(world: World, tiny: TinyRegistry) -> None:
    """What is known goes on until the first record of an unknown schema; then nothing is lost or out of place."""
    worker = _start(world, tiny.url, stream={"ordering": "key"})
    world.produce(map(_avro, range(500)))
    worker.wait_for(lambda s: s["queued"] == 500, "the first 500")

    tiny.always = Answer(503)
    world.produce(map(_avro, range(500, 1_000)))
    worker.wait_for(lambda s: s["queued"] == 1_000, "those of a schema that is known")
    tiny.add(2, SMS)
    world.produce(_avro(number, 1 + number % 2) for number in range(1_000, 2_000))
    _wait_for_hold(worker, "schema_registry")
    world.produce(map(_avro, range(2_000, 2_200)))
    tiny.always = None

    judgement = world.settled()

    assert (judgement.problems(), judgement.queued) == ([], 2_200)


def test_what_is_kept_during_a_hold_is_read_by_who_has_the_partitions_then(world: World, tiny: TinyRegistry) -> None:
    """Some of them go to another worker, and the rest follow when the first one stops: it has settled nothing."""
    tiny.always = Answer(503)
    world.produce(map(_avro, range(2_000)))
    first = _start(world, tiny.url, PATIENT, stream={"delivery": {"drain_secs": DRAIN_SECS}})
    _wait_for_hold(first, "schema_registry")
    second = _start(world, tiny.url)
    _wait_for_hold(second, "schema_registry")
    assert first.stop() == 0, "what is kept is not waited for"

    tiny.always = None
    judgement = world.settled()

    assert (judgement.problems(), judgement.queued) == ([], 2_000)


# ------------------------------------------------------------------ five topics of five formats


class Writing:
    """One format: writes good events, and bad ones, each with the reason that it is to end with."""

    def __init__(self, good: Callable[[int], Record], bad: Sequence[tuple[Callable[[int], Record], str]]) -> None:
        self.good = good
        self.bad = bad

    def records(self, numbers: range, expected: Counter[str]) -> Iterator[tuple[Record, str]]:
        """Yield records with their end; every so many is a bad one, each kind in turn."""
        for at, number in enumerate(numbers):
            make, end = self.good, "queued"
            if at % BAD_EVERY == BAD_EVERY - 1:
                make, end = self.bad[at // BAD_EVERY % len(self.bad)]
            expected[end] += 1
            yield make(number), end


def _valued(value: Callable[[int], bytes | None], headers: Sequence[tuple[str, bytes]] = ()) -> Callable[[int], Record]:
    return lambda number: Record(value(number), key=_identity(number), headers=list(headers))


def _cloudevent(number: int) -> Record:
    attributes = {"id": str(number), "source": "/carts", "type": "cart.left", "datacontenttype": "application/json"}
    make: Any = to_binary_event if number % 2 else to_structured_event
    message = make(CloudEvent(attributes, _event(number)))
    return Record(message.value, key=_identity(number), headers=list(message.headers.items()))


def _serialized(serialize: Any, make: Callable[[int], Any]) -> Callable[[int], bytes]:
    context = SerializationContext(f"t-{uuid4()}", MessageField.VALUE)
    return lambda number: bytes(serialize(make(number), context))


def test_five_topics_of_five_formats_in_one_stream_end_with_exact_counts_by_reason(
    world: World, apicurio: Apicurio, confluent: SchemaRegistryClient, tmp_path: Path
) -> None:
    client, classes = confluent, _messages(SMS_PROTO, tmp_path)
    sms, other = classes["Sms"], classes["Other"]
    avro = _serialized(AvroSerializer(client, SMS), lambda n: {**_event(n), "list_number": None})
    another = '{"type": "record", "name": "Another", "fields": [{"name": "n", "type": "int"}]}'
    of_another = _serialized(AvroSerializer(client, another), lambda n: {"n": n})
    newer = json.loads(SMS)
    newer["fields"].append({"name": "priority", "type": "int", "default": 0})
    of_newer = _serialized(
        AvroSerializer(client, json.dumps(newer)), lambda n: {**_event(n), "list_number": None, "priority": 1}
    )
    protobuf = _serialized(ProtobufSerializer(sms, client), lambda n: sms(**_event(n)))
    of_other = _serialized(ProtobufSerializer(other, client), lambda n: other(number=n))
    checked = _serialized(JSONSerializer(SMS_JSON, client), _event)
    plain = lambda n: json.dumps(_event(n)).encode()  # noqa: E731
    unframed = (_valued(plain), "not_framed")
    unknown = (_valued(lambda n: frame(900_000 + n, b"\0")), "schema_not_found")
    nothing = (_valued(lambda _: None), "skipped")
    no_number = b'{"to": "0101", "body": "x"}'
    id_of_json = checked(0)[1:5]
    writings = {
        "json": Writing(
            _valued(plain),
            [
                (_valued(lambda _: b"{"), "not_json"),
                (_valued(lambda _: b'"\xff"'), "not_utf8"),
                (_valued(lambda _: no_number), "invalid_phone"),
                nothing,
            ],
        ),
        "cloudevents": Writing(
            _cloudevent,
            [
                (_valued(plain), "not_a_cloudevent"),
                (
                    _valued(lambda _: b"<a/>", [("content-type", b"application/cloudevents+xml")]),
                    "content_type_unknown",
                ),
                (_valued(lambda _: b"{", [("content-type", b"application/cloudevents+json")]), "not_json"),
                (lambda n: Record(no_number, _identity(n), headers=_cloudevent(2 * n + 1).headers), "invalid_phone"),
                nothing,
            ],
        ),
        "avro": Writing(
            lambda n: Record((of_newer if n % 7 == 0 else avro)(n), key=_identity(n)),
            [
                unframed,
                unknown,
                nothing,
                (_valued(lambda n: avro(n)[:-3]), "not_decodable"),
                (_valued(of_another), "missing_to"),
                (_valued(lambda _: b"\0" + id_of_json + b"{}"), "schema_unusable"),
                (_valued(lambda n: random.Random(n).randbytes(4)), "not_framed"),
            ],
        ),
        "protobuf": Writing(
            _valued(protobuf),
            [
                unframed,
                unknown,
                nothing,
                (_valued(of_other), "unexpected_message"),
                (_valued(lambda n: protobuf(n)[:-3]), "not_decodable"),
            ],
        ),
        "json_schema": Writing(
            _valued(checked),
            [
                unframed,
                unknown,
                nothing,
                (_valued(lambda _: b"\0" + id_of_json + b'{"to": 1}'), "schema_violated"),
                (_valued(lambda _: b"\0" + id_of_json + b"{"), "not_json"),
            ],
        ),
    }
    topics = {name: world.topics.create(partitions=2) for name in writings}
    expected: Counter[str] = Counter()
    for at, (name, writing) in enumerate(writings.items()):
        share = EVENTS // len(writings)
        made = list(writing.records(range(at * share, (at + 1) * share), expected))
        positions = world.topics.produce(topics[name], (record for record, _ in made))
        for position, (_, end) in zip(positions, made, strict=True):
            world.produced.add_all([position], end)
    formats: dict[str, Any] = {name: {"type": name} for name in writings}
    formats["protobuf"]["message"] = "orders.Sms"
    settings = world.settings({"schema_registry": {"url": apicurio.url}})
    [flow] = settings["streams"]
    flow["topics"] = list(topics.values())
    flow["overrides"] = [{"topics": [topics[name]], "format": chosen} for name, chosen in formats.items()]

    worker = world.start(settings)
    judgement = world.settled()

    assert judgement.problems() == []
    assert judgement.queued == expected["queued"]
    assert _dead_letters(world) == Counter({r: n for r, n in expected.items() if r not in {"queued", "skipped"}})
    assert worker.stop() == 0
