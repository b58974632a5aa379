"""The settings in effect can be shown: no secret, every default worked out."""

import json
from collections.abc import Callable

import pytest

from connector.config.describe import redacted, without_user
from connector.config.settings import Settings

Load = Callable[..., Settings]
SECRET = "hunter2"


def test_every_secret_is_hidden_and_everything_else_is_shown(load: Load) -> None:
    secret_properties = [
        "ssl.keystore.password",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "ssl.key.pem",
        "sasl.oauthbearer.assertion.private.key.pem",
        "sasl.jaas.config",
    ]
    settings = load(
        {
            "trackly": {"api_key": SECRET, "proxy": f"http://user:{SECRET}@proxy:3128"},
            "traces": {"headers": {"Authorization": SECRET}},
            "kafka": {
                "security": {"protocol": "sasl_ssl", "sasl_mechanism": "PLAIN", "username": "u", "password": SECRET},
                "properties": {
                    **dict.fromkeys(secret_properties, SECRET),
                    "client.rack": "a",
                    "linger.ms": 5,
                    "sasl.oauthbearer.token.endpoint.url": "https://id.example",
                },
                "consumer_properties": {"ssl.key.pem": SECRET},
                "producer_properties": {"ssl.key.pem": SECRET},
            },
        }
    )

    shown = redacted(settings)

    assert SECRET not in json.dumps(shown)
    assert shown["trackly"]["api_key"] == shown["kafka"]["security"]["password"] == "***"
    assert shown["kafka"]["security"]["key_password"] is None
    assert shown["trackly"]["proxy"] == "http://***@proxy:3128"
    assert shown["kafka"]["properties"] == {
        **dict.fromkeys(secret_properties, "***"),
        "client.rack": "a",
        "linger.ms": 5,
        "sasl.oauthbearer.token.endpoint.url": "https://id.example",
    }


def test_defaults_are_shown_as_what_they_come_to(load: Load) -> None:
    stream = redacted(load({"streams": [{"mode": "single"}]}))["streams"][0]

    assert stream["group_id"] == "trackly-connector.sends"
    assert stream["delivery"]["in_doubt"] == "dead_letter"
    assert stream["concurrency"] == {"min": 1, "max": 256}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://proxy:1", "http://proxy:1"),
        ("http://u@proxy:1/x", "http://***@proxy:1/x"),
        ("http://u:p@w@proxy:1", "http://***@proxy:1"),
    ],
)
def test_addresses_lose_their_user(url: str, shown: str) -> None:
    assert without_user(url) == shown
