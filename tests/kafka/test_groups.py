"""Who is in a group: what a broker that says nothing makes of the question."""

import socket

import pytest

from connector.core.chunks import Partition
from connector.kafka.errors import RetriableError
from connector.kafka.groups import assigned, members


def test_a_broker_that_does_not_answer_is_trouble_that_may_pass() -> None:
    """As while it restarts: the start of a worker waits for it, and says so."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = {"bootstrap.servers": f"127.0.0.1:{silent.getsockname()[1]}", "log_level": 0}

        with pytest.raises(RetriableError) as caught:
            members(config, "somebody", 0.1)

    assert (caught.value.code, caught.value.away) == ("_TIMED_OUT", True)
    assert "asking who is in group somebody" in str(caught.value)


def test_an_assignment_is_read_as_the_consumer_protocol_writes_it() -> None:
    written = bytes.fromhex("0001 00000002 0001 61 00000002 00000000 00000007 0002 6262 00000001 00000003 ffffffff")

    assert assigned(written) == {Partition("a", 0), Partition("a", 7), Partition("bb", 3)}
    assert assigned(b"") == assigned(bytes(6)) == set()
