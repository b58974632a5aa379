"""What may certainly be read, according to the brokers."""

from typing import Any

import pytest
from confluent_kafka import KafkaError

from connector.kafka.errors import KafkaTroubleError
from connector.kafka.permissions import NOTHING, Allowed, Permissions

READ, DESCRIBE = Allowed(frozenset({"Read", "Describe"})), Allowed(frozenset({"Describe"}))
UNTOLD, GONE = Allowed(None), Allowed(None, exists=False)


@pytest.mark.parametrize(
    ("refused", "group", "may_be_read"),
    [
        (["read", "gone", "described", "hidden", "untold"], READ, {"read", "gone"}),
        (["gone", None], READ, {"gone", "read", None}),
        (["gone", None], DESCRIBE, {"gone", "read"}),
        (["gone", None], UNTOLD, {"gone", "read"}),
        (["described", None], READ, {"read"}),
        ([None], KafkaTroubleError(KafkaError(KafkaError._TIMED_OUT)), set()),
    ],
)
def test_only_what_brokers_tell_may_be_read_and_the_group_with_all_that_it_reads(
    refused: list[str | None], group: Any, may_be_read: set[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"read": READ, "described": DESCRIBE, "hidden": NOTHING, "untold": UNTOLD, "gone": GONE}

    def of_group(_self: Permissions, _name: str) -> Allowed:
        if isinstance(group, KafkaTroubleError):
            raise group
        assert isinstance(group, Allowed)
        return group

    monkeypatch.setattr(Permissions, "topics", lambda _self, names: {name: told[name] for name in names})
    monkeypatch.setattr(Permissions, "group", of_group)
    permissions = Permissions({"bootstrap.servers": "localhost:1", "log_level": 0}, 1.0)

    assert permissions.may_read(refused, group="group", topics=["read"]) == may_be_read


def test_a_client_that_cannot_be_made_is_a_trouble_as_others_are() -> None:
    """A certificate is being replaced, say: whoever asks in a stream asks again."""
    tls = {"security.protocol": "ssl", "ssl.ca.location": "/gone"}

    with pytest.raises(KafkaTroubleError, match=r"ssl\.ca\.location"):
        Permissions({"bootstrap.servers": "localhost:1", "log_level": 0, **tls}, 1.0)
