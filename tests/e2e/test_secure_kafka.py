"""Kafka with TLS and passwords, with certificates of the test's own: normal delivery, and clear rejections."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from connector.demo.broker import Broker
from connector.demo.topics import Topics
from connector.simulator import SimulatorThread
from tests.conftest import MakeBroker
from tests.kit.brokers import Listener
from tests.kit.patience import PATIENCE_SECS
from tests.kit.world import World

PASSWORD = "correct-horse-battery"


def _keystore(certificate: trustme.LeafCert, path: Path) -> Path:
    """Write key and chain the way Kafka takes them: PKCS #8."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem + b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    return path


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def folder(tmp_path: Path, authority: trustme.CA) -> Path:
    """Return a folder with the authority's certificate, and a key and certificate for the connector."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    client = authority.issue_cert("connector.example.com", common_name="connector")
    client.private_key_pem.write_to_path(str(tmp_path / "client.key"))
    client.cert_chain_pems[0].write_to_path(str(tmp_path / "client.pem"))
    return tmp_path


@pytest.fixture(scope="module")
def secure(make_lasting_broker: MakeBroker, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Broker:
    """Run a broker with a door for users with a password over TLS, and one for those with a certificate."""
    home = tmp_path_factory.mktemp("secure")
    authority.cert_pem.write_to_path(str(home / "ca.pem"))
    store = _keystore(authority.issue_cert("127.0.0.1", "localhost"), home / "broker.pem")
    tls = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(store),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(home / "ca.pem"),
    }
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    passwords = {"sasl.enabled.mechanisms": "SCRAM-SHA-256", "scram-sha-256.sasl.jaas.config": scram}
    return make_lasting_broker(
        listeners=[
            Listener("PASSWORDS", "SASL_SSL", {**tls, **passwords}),
            Listener("CERTIFICATES", "SSL", {**tls, "ssl.client.auth": "required"}),
        ],
        scram_users={"connector": PASSWORD},
    )


@pytest.fixture
def guarded(secure: Broker, platform: SimulatorThread, folder: Path) -> Iterator[World]:
    world = World(secure.bootstrap_servers, Topics(secure.bootstrap_servers), platform, folder)
    yield world
    world.close()


def _by_password(folder: Path) -> dict[str, Any]:
    return {
        "protocol": "sasl_ssl",
        "sasl_mechanism": "SCRAM-SHA-256",
        "username": "connector",
        "password": "${env:KAFKA_PASSWORD}",
        "ca_file": str(folder / "ca.pem"),
    }


def _by_certificate(folder: Path) -> dict[str, Any]:
    return {
        "protocol": "ssl",
        "ca_file": str(folder / "ca.pem"),
        "cert_file": str(folder / "client.pem"),
        "key_file": str(folder / "client.key"),
    }


def _settings(world: World, address: str, security: Mapping[str, Any]) -> dict[str, Any]:
    kafka = {"bootstrap_servers": address, "security": dict(security), "startup_timeout_secs": 5}
    return world.settings({"kafka": kafka})


def test_kafka_behind_tls_by_password_and_by_certificate(secure: Broker, guarded: World, folder: Path) -> None:
    """One after the other: the second goes on where the first has stopped."""
    guarded.produce_sends(500)
    settings = _settings(guarded, secure.address("PASSWORDS"), _by_password(folder))
    worker = guarded.start(settings, env={"KAFKA_PASSWORD": PASSWORD})
    assert guarded.settled().problems() == []
    assert worker.stop() == 0
    assert PASSWORD not in worker.log.read_text()

    guarded.produce_sends(300, tag="later")
    guarded.start(_settings(guarded, secure.address("CERTIFICATES"), _by_certificate(folder)))

    found = guarded.settled()
    assert found.problems() == []
    assert found.queued == 800


def test_what_kafka_refuses_is_reported_and_ends_the_start_with_its_own_code(
    secure: Broker, guarded: World, folder: Path
) -> None:
    stranger = trustme.CA()
    stranger.cert_pem.write_to_path(str(folder / "stranger.pem"))
    doors = {
        "PASSWORDS": (_by_password(folder), "wrong-password", "Authentication failed"),
        "CERTIFICATES": ({**_by_certificate(folder), "ca_file": str(folder / "stranger.pem")}, "", "certificate"),
    }
    workers = {
        door: guarded.start(_settings(guarded, secure.address(door), security), env={"KAFKA_PASSWORD": password})
        for door, (security, password, _) in doors.items()
    }
    for door, (_, password, said) in doors.items():
        assert workers[door].process.wait(PATIENCE_SECS) == 3
        log = workers[door].log.read_text()
        assert said.lower() in log.lower()
        assert "Traceback" not in log
        assert not password or password not in log
