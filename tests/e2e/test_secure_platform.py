"""TLS to the platform: an untrusted certificate holds the stream until it is fixed."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from connector.simulator import SimulatorSettings, SimulatorThread
from tests.kit.world import KEY, Worker, World, free_port

YESTERDAY = datetime.now(UTC) - timedelta(days=1)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


def _platform(folder: Path, port: int, certificate: trustme.LeafCert) -> SimulatorSettings:
    certificate.private_key_pem.write_to_path(folder / "platform.key")
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    (folder / "platform.pem").write_bytes(chain)
    return SimulatorSettings(
        api_keys=(KEY,), port=port, tls_cert_file=folder / "platform.pem", tls_key_file=folder / "platform.key"
    )


def _wait_held(worker: Worker) -> str:
    status = worker.wait_for(lambda s: (s["hold"] or {}).get("reason") == "tls", "the hold")
    return str(status["hold"]["detail"])


def _settings(world: World, port: int, ca_file: Path) -> dict[str, Any]:
    tls = {"ca_file": str(ca_file)}
    return world.settings({"trackly": {"base_url": f"https://127.0.0.1:{port}/api/v2", "tls": tls}})


WRONG: dict[str, tuple[Callable[[trustme.CA], trustme.LeafCert], str]] = {
    "of another host": (lambda ca: ca.issue_cert("trackly.example"), "IP address mismatch"),
    "expired": (
        lambda ca: ca.issue_cert("127.0.0.1", not_before=YESTERDAY - timedelta(days=1), not_after=YESTERDAY),
        "certificate has expired",
    ),
    "of an authority that nobody trusts": (
        lambda _: trustme.CA().issue_cert("127.0.0.1"),
        "unable to get local issuer",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_certificate_of_the_platform_holds_until_it_is_fixed(
    world: World, tmp_path: Path, authority: trustme.CA, wrong: str
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    make, said = WRONG[wrong]
    port = free_port()
    world.produce_sends(1_000)
    with SimulatorThread(_platform(tmp_path, port, make(authority))) as stranger:
        worker = world.start(_settings(world, port, tmp_path / "ca.pem"))
        assert said in _wait_held(worker)
        assert stranger.ledger().requests == 0, "no key was shown to a stranger"
    assert world.headers_of_dead_letters() == []

    with SimulatorThread(_platform(tmp_path, port, authority.issue_cert("127.0.0.1"))) as world.platform:
        found = world.settled()
        assert found.problems() == []
        assert (found.queued, found.in_doubt) == (1_000, 0)
        worker.wait_for(lambda s: s["hold"] is None, "the end of the hold")


def test_a_certificate_file_that_is_replaced_ends_the_hold_without_a_restart(world: World, tmp_path: Path) -> None:
    """Authorities and certificates are renewed by file, as keys are; a probe reads them again."""
    old, new = trustme.CA(), trustme.CA()
    old.cert_pem.write_to_path(tmp_path / "ca.pem")
    port = free_port()
    world.produce_sends(500)
    with SimulatorThread(_platform(tmp_path, port, new.issue_cert("127.0.0.1"))) as world.platform:
        worker = world.start(_settings(world, port, tmp_path / "ca.pem"))
        _wait_held(worker)

        new.cert_pem.write_to_path(tmp_path / "ca.pem")

        found = world.settled()
        assert found.problems() == []
        assert (found.queued, found.in_doubt) == (500, 0)
