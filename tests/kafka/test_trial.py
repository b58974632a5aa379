"""What librdkafka rejects is reported as a problem of the settings, at its path, and without any connection."""

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from connector.app.loading import load
from connector.config.problems import SettingsError
from tests.kit.certificates import Pair, make_pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("pair"))


def problems(folder: Path, kafka: Mapping[str, Any], **stream: Any) -> dict[str, str]:
    """Return what is wrong with settings, by its place."""
    path = folder / "connector.yaml"
    outputs = {"outcomes": {"topic": "out"}, "dead_letters": {"topic": "dead"}}
    settings = {
        "kafka": {"bootstrap_servers": "localhost:9092", **kafka},
        "trackly": {"api_key": "trk_key"},
        "streams": [{"name": "sends", "topics": ["in"], "operation": "send", **outputs, **stream}],
    }
    path.write_text(yaml.safe_dump(settings))
    try:
        load(path)
    except SettingsError as error:
        return {problem.path: problem.message for problem in error.problems if problem.line is not None}
    return {}


@pytest.mark.parametrize(
    ("group", "name", "value", "message"),
    [
        ("properties", "foo.bar", 1, 'No such configuration property: "foo.bar"'),
        ("properties", "socket.timeout.ms", "abc", 'Invalid value for configuration property "socket.timeout.ms"'),
        ("properties", "error_cb", "print", "a value of another kind is wanted"),
        ("properties", "client.rack", "\ud800", "a value of another kind is wanted"),
        ("producer_properties", "compression.type", "hush", 'Invalid value "..." for configuration property'),
        ("consumer_properties", "fetch.min.bytes", 99_999_999_999, "is outside allowed range 1..100000000"),
    ],
)
def test_a_property_that_librdkafka_refuses_is_named(
    tmp_path: Path, group: str, name: str, value: Any, message: str
) -> None:
    ((path, told),) = problems(tmp_path, {group: {name: value, "socket.nagle.disable": True}}).items()

    assert name in path
    assert path.startswith(f"kafka.{group}")
    assert message in told
    assert "hush" not in told


def test_all_refused_properties_are_named_at_once_and_no_good_one(tmp_path: Path) -> None:
    properties = {"foo.bar": 1, "debug": "nonsense", "socket.keepalive.enable": False}

    found = problems(tmp_path, {"properties": properties, "producer_properties": {"linger.ms": "long"}})

    assert sorted(found) == [
        'kafka.producer_properties["linger.ms"]',
        "kafka.properties.debug",
        'kafka.properties["foo.bar"]',
    ]


def test_properties_that_do_not_go_together_name_one_that_is_to_blame(tmp_path: Path) -> None:
    found = problems(tmp_path, {"consumer_properties": {"fetch.max.bytes": 1_000, "check.crcs": True}})

    assert list(found) == ['kafka.consumer_properties["fetch.max.bytes"]']


@pytest.mark.parametrize(
    ("kafka", "stream", "path"),
    [
        ({"session_timeout_secs": 7_000.0, "max_poll_interval_secs": 7_000.0}, {}, "kafka.session_timeout_secs"),
        ({}, {"metadata_refresh_secs": 80_000.0}, "streams[0].metadata_refresh_secs"),
    ],
)
def test_a_setting_of_ours_that_leads_to_a_refused_property_is_named(
    tmp_path: Path, kafka: Mapping[str, Any], stream: Mapping[str, Any], path: str
) -> None:
    ((told, message),) = problems(tmp_path, kafka, **stream).items()

    assert told == path
    assert message.startswith("leads to a configuration that librdkafka rejects: Configuration property ")


@pytest.mark.parametrize(
    ("files", "at", "message"),
    [
        (("ca_file=no_pem",), "ca_file", "contains no usable certificate"),
        (("cert_file=no_pem", "key_file=key"), "cert_file", "contains no usable certificate"),
        (("cert_file=cert", "key_file=no_pem"), "key_file", "contains no usable key"),
        (("cert_file=cert", "key_file=other_key"), "key_file", "is not the key of the certificate"),
        (("cert_file=cert", "key_file=encrypted_key"), "key_file", "is encrypted: set key_password"),
        (("cert_file=cert", "key_file=encrypted_key", "password=wrong"), "key_password", "does not decrypt key_file"),
    ],
)
def test_a_file_that_tls_cannot_use_is_named(
    tmp_path: Path, pair: Pair, files: tuple[str, ...], at: str, message: str
) -> None:
    security: dict[str, Any] = {"protocol": "ssl"}
    for name, _, value in (file.partition("=") for file in files):
        security["key_password" if name == "password" else name] = str(getattr(pair, value, value))

    ((path, told),) = problems(tmp_path, {"security": security}).items()

    assert path == f"kafka.security.{at}"
    assert told.startswith(message)


def test_files_that_tls_can_use_are_taken(tmp_path: Path, pair: Pair) -> None:
    security = {
        "protocol": "ssl",
        "ca_file": str(pair.ca),
        "cert_file": str(pair.cert),
        "key_file": str(pair.encrypted_key),
        "key_password": pair.password,
    }

    assert problems(tmp_path, {"security": security}) == {}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        yield server


def test_no_broker_and_no_server_of_tokens_hears_of_it(tmp_path: Path, listener: socket.socket) -> None:
    host, port = listener.getsockname()
    kafka = {
        "bootstrap_servers": f"{host}:{port}",
        "security": {"protocol": "sasl_plaintext", "sasl_mechanism": "OAUTHBEARER"},
        "properties": {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": f"http://{host}:{port}/token",
            "sasl.oauthbearer.client.id": "connector",
            "sasl.oauthbearer.client.secret": "hush",
        },
    }

    assert problems(tmp_path, kafka) == {}
    with pytest.raises(TimeoutError):
        listener.accept()
