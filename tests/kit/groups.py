"""What no client of Python's asks a broker: to strike members from a group, as Kafka's own administration can.

A member with a name of its own (KIP-345) that ended stays in its group until its session does, some seconds later.
"""

import socket
import struct
from collections.abc import Sequence
from typing import Final

from tests.kit.patience import PATIENCE_SECS

_LEAVE_GROUP: Final = (13, 3)
"""The request by its number, and the version that names several members."""


def remove_members(bootstrap_servers: str, group: str, names: Sequence[str]) -> None:
    """Strike static members from a group, by their names; the broker has to be the group's coordinator."""
    host, _, port = bootstrap_servers.partition(":")
    members = b"".join(_text("") + _text(name) for name in names)
    request = struct.pack(">hhi", *_LEAVE_GROUP, 1) + _text("tests") + _text(group)
    request += struct.pack(">i", len(names)) + members
    with socket.create_connection((host, int(port)), timeout=PATIENCE_SECS) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answers = connection.makefile("rb")
        (length,) = struct.unpack(">i", answers.read(4))
        _, _, error = struct.unpack(">iih", answers.read(length)[:10])
    assert error == 0, f"error {error}"


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">h", len(encoded)) + encoded
