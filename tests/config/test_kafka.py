"""Kafka properties that the guarantee depends on are rejected by name, each with its reason; all others pass."""

from collections.abc import Callable

import pytest

from connector.config.kafka import REFUSED, refusal
from connector.config.problems import Problem
from connector.config.settings import Settings

MUST_BE_REFUSED = [
    "group.id",
    "group.instance.id",
    "group.protocol",
    "client.id",
    "bootstrap.servers",
    "metadata.broker.list",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "isolation.level",
    "partition.assignment.strategy",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "max.poll.interval.ms",
    "transactional.id",
    "transaction.timeout.ms",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "retries",
    "message.send.max.retries",
    "enable.gapless.guarantee",
    "delivery.timeout.ms",
    "message.timeout.ms",
    "enable.partition.eof",
    "go.logs.channel.enable",
    "test.mock.num.brokers",
    "security.protocol",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.endpoint.identification.algorithm",
]


@pytest.mark.parametrize("name", sorted({*MUST_BE_REFUSED, *REFUSED}))
@pytest.mark.parametrize("group", ["properties", "consumer_properties", "producer_properties"])
def test_a_refused_property_is_named_with_its_reason(
    name: str, group: str, refused: Callable[..., tuple[Problem, ...]]
) -> None:
    problems = refused({"kafka": {group: {name: "anything"}}})

    assert [problem.path for problem in problems] == [
        f'kafka.{group}["{name}"]' if "." in name else f"kafka.{group}.{name}"
    ]
    assert problems[0].message.startswith("may not be set here: ")
    assert len(problems[0].message) > len("may not be set here: ") + 10


@pytest.mark.parametrize("name", ["max.in.flight", "max.in.flight.requests.per.connection"])
@pytest.mark.parametrize(
    ("value", "fits"),
    [
        (1, True),
        (5, True),
        ("5", True),
        (6, False),
        (0, False),
        ("six", False),
        (True, False),
        ("9" * 5_000, False),
        (2.5, False),
    ],
)
def test_requests_in_flight_are_bounded_by_the_order_of_records(name: str, value: object, fits: bool) -> None:
    assert isinstance(value, str | int | float)

    assert (refusal(name, value) is None) == fits


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("partitioner", "murmur2_random"),
        ("group.remote.assignor", "uniform"),
        ("client.rack", "a"),
        ("fetch.queue.backoff.ms", 5),
        ("linger.ms", 0.5),
        ("socket.keepalive.enable", True),
        ("sasl.oauthbearer.method", "oidc"),
        ("ssl.ca.pem", "-----BEGIN"),
        ("debug", "eos"),
    ],
)
def test_other_properties_pass_with_their_type(
    name: str, value: str | float | bool, load: Callable[..., Settings]
) -> None:
    properties = load({"kafka": {"properties": {name: value}}}).kafka.properties

    assert properties == {name: value}
    assert type(properties[name]) is type(value)
