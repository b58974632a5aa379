"""Unusable certificate files are rejected at their setting, and no password is prompted for at a terminal."""

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from connector.config.certificates import load_pair
from connector.config.problems import Problem
from connector.config.settings import Settings
from tests.kit.certificates import Pair, make_pair

Load = Callable[..., Settings]
Refused = Callable[..., tuple[Problem, ...]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("pair"))


def _platform(tls: Mapping[str, Any]) -> dict[str, Any]:
    return {"trackly": {"tls": tls}}


@pytest.mark.parametrize(
    ("files", "at", "message"),
    [
        ({"ca_file": "no_pem"}, "ca_file", "contains no usable certificate: it must be a PEM file"),
        ({"cert_file": "no_pem", "key_file": "key"}, "cert_file", "contains no usable certificate"),
        ({"cert_file": "cert", "key_file": "no_pem"}, "key_file", "contains no usable key"),
        ({"cert_file": "cert", "key_file": "other_key"}, "key_file", "is not the key of the certificate"),
        ({"cert_file": "cert", "key_file": "encrypted_key"}, "key_file", "is encrypted, which is not supported here"),
    ],
)
def test_a_file_that_tls_cannot_use_is_refused(
    files: Mapping[str, str], at: str, message: str, pair: Pair, refused: Refused
) -> None:
    tls = {name: str(getattr(pair, file)) for name, file in files.items()}
    registry = {"schema_registry": {"url": "https://registry.example", "tls": tls}, "streams": [{"format": "avro"}]}

    problems = refused(_platform(tls) | registry)

    assert [problem.path for problem in problems] == [f"trackly.tls.{at}", f"schema_registry.tls.{at}"]
    assert all(problem.message.startswith(message) for problem in problems)


def test_files_that_tls_can_use_are_taken(pair: Pair, load: Load) -> None:
    tls = {"ca_file": str(pair.ca), "cert_file": str(pair.cert), "key_file": str(pair.key)}

    assert load(_platform(tls)).trackly.tls.key_file == pair.key


def test_an_encrypted_key_is_refused_without_asking_for_its_password(pair: Pair) -> None:
    """OpenSSL would ask at the terminal, and a worker that reads its files again would stand still."""
    with pytest.raises(OSError, match="PEM lib"):
        load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), pair.cert, pair.encrypted_key)


def test_a_file_that_is_not_there_is_for_others_to_tell(tmp_path: Path, refused: Refused) -> None:
    (problem,) = refused(_platform({"ca_file": str(tmp_path / "none.pem")}))

    assert problem.message.startswith("does not name a file")
