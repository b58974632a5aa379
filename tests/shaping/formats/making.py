"""Chunks, schemas and frames of the tests."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pytest
from pydantic import SecretStr

from connector.config.formats import FormatSettings, SchemaRegistrySettings
from connector.config.secrets import Secrets
from connector.core.chunks import Chunk, Headers, Partition
from connector.shaping.decoded import Decoded
from connector.shaping.formats import SchemaRegistry, decoder_for

SMS: Final = """
{"type": "record", "name": "Sms", "namespace": "orders", "fields": [
  {"name": "to", "type": "string"},
  {"name": "body", "type": "string"},
  {"name": "list_number", "type": ["null", "string"], "default": null}]}
"""
SMS_PROTO: Final = """
syntax = "proto3";
package orders;
message Other { int32 number = 1; }
message Sms { string to = 1; string body = 2; message Inner { string body = 2; } }
"""
SMS_JSON: Final = """
{"type": "object", "required": ["to", "body"],
 "properties": {"to": {"type": "string"}, "body": {"type": "string", "maxLength": 20}}}
"""


def frame(number: int, data: bytes) -> bytes:
    """Return a value in Confluent's frame."""
    return b"\0" + number.to_bytes(4) + data


def chunk(values: Sequence[bytes | None], headers: list[Headers | None] | None = None) -> Chunk:
    """Return records of one partition."""
    return Chunk(Partition("events", 0), 1, range(len(values)), list(values), headers=headers)


def decode(
    settings: FormatSettings,
    registry: SchemaRegistry | None,
    values: Sequence[bytes | None],
    headers: list[Headers | None] | None = None,
) -> Decoded:
    """Decode values with a new decoder."""
    decoder = decoder_for(settings, registry)
    assert decoder is not None
    return decoder.decode(chunk(values, headers))


def reasons(decoded: Decoded) -> dict[int, str]:
    """Return the reason of each verdict, by index."""
    return {index: verdict.reason for index, verdict in decoded.bad.items()}


class RegistrySecrets(Secrets):
    """What a registry is told of who asks; may change."""

    def __init__(self, *, password: str | None = None, token: str | None = None) -> None:
        self.password, self.token = password, token

    def registry_password(self) -> SecretStr | None:
        return None if self.password is None else SecretStr(self.password)

    def registry_token(self) -> SecretStr | None:
        return None if self.token is None else SecretStr(self.token)


_MADE: Final[list[SchemaRegistry]] = []


def registry(
    url: str,
    secrets: Secrets | None = None,
    *,
    now: Callable[[], float] = time.monotonic,
    **settings: Any,
) -> SchemaRegistry:
    """Return a registry that is asked at an address; `closed_registries` closes it."""
    _MADE.append(SchemaRegistry(SchemaRegistrySettings(url=url, **settings), secrets or RegistrySecrets(), now=now))
    return _MADE[-1]


@pytest.fixture(autouse=True)
def closed_registries() -> Iterator[None]:
    """Close the registries that a test makes; those that were there before stay for the tests that share them."""
    before = len(_MADE)
    yield
    while len(_MADE) > before:
        _MADE.pop().close()
