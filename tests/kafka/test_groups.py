"""Members of a group and unowned partitions: with a broker that answers, and one that does not."""

import socket
import subprocess
import sys
import time
import warnings
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient
from hypothesis import given
from hypothesis import strategies as st

from connector.core.chunks import Partition
from connector.demo.finding import BrokerHandle
from connector.demo.topics import Topics
from connector.kafka.errors import RetriableError
from connector.kafka.groups import Group, assigned, members, subscribed
from tests.kit.patience import PATIENCE_SECS
from tests.kit.proxy import Proxy

_QUERIES = (
    "groups.members(config, 'somebody', 0.5)",
    "groups.set_offsets(config, 'somebody', {Partition('topic', 0): (1, '')}, 0.5)",
    "Permissions(config, 0.5).group('somebody')",
)
_PROGRAM = """
import sys

from connector.core.chunks import Partition
from connector.kafka import groups
from connector.kafka.errors import KafkaTroubleError
from connector.kafka.permissions import Permissions

config = {"bootstrap.servers": sys.argv[1], "log_level": 0}
kept = []  # and by the traceback, the client as well
for query in sys.argv[2:]:
    try:
        exec(query)
    except KafkaTroubleError as trouble:
        kept.append(trouble)
        print(trouble.code, flush=True)
sys.stdin.read()
"""


def test_a_broker_that_does_not_answer_is_trouble_that_may_pass() -> None:
    """As while it restarts: the start of a worker waits for it, and says so."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = {"bootstrap.servers": f"127.0.0.1:{silent.getsockname()[1]}", "log_level": 0}

        with pytest.raises(RetriableError) as caught:
            members(config, "somebody", 0.1)

    assert (caught.value.code, caught.value.unreachable) == ("_TIMED_OUT", True)
    assert "asking who is in group somebody" in str(caught.value)


def test_a_coordinator_that_is_found_after_the_timeout_does_not_abort_the_process(broker: BrokerHandle) -> None:
    """At a worker's start, in a cluster that has just been created: librdkafka may release a request twice."""
    with Proxy() as proxy:
        proxy.target = int(broker.bootstrap_servers.rpartition(":")[2])
        proxy.trouble("silence")
        with subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, proxy.address, *_QUERIES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as asking:
            assert asking.stdout is not None
            codes = [asking.stdout.readline().strip() for _ in _QUERIES]
            proxy.trouble(None)
            time.sleep(3)  # the clients connect again within a second
            _, said = asking.communicate("", timeout=PATIENCE_SECS)

    assert codes == ["_TIMED_OUT"] * len(_QUERIES)
    assert (asking.returncode, said) == (0, "")


def test_an_assignment_is_read_as_the_consumer_protocol_writes_it() -> None:
    written = bytes.fromhex("0001 00000002 0001 61 00000002 00000000 00000007 0002 6262 00000001 00000003 ffffffff")

    assert assigned(written) == {Partition("a", 0), Partition("a", 7), Partition("bb", 3)}
    assert assigned(b"") == assigned(bytes(6)) == set()


def test_a_subscription_is_read_as_the_consumer_protocol_writes_it() -> None:
    written = bytes.fromhex("0003 00000002 0001 61 0002 6262 00000004 01020304 00000000 ffffffff ffff")

    assert subscribed(written) == {"a", "bb"}
    assert subscribed(b"") == set()


@given(st.binary(max_size=60), st.integers(0, 2**32 - 1))
def test_whatever_a_client_in_the_group_has_written_is_read_within_its_length(written: bytes, count: int) -> None:
    """One that claims four thousand million topics would have kept a core busy for an hour."""
    claimed = written[:2] + count.to_bytes(4) + written[6:]

    assert len(subscribed(claimed)) <= len(claimed)
    assert len(assigned(claimed)) <= len(claimed)


def test_partitions_of_a_topic_that_a_static_member_reads_no_more_are_left_over() -> None:
    """It comes back with other settings and is given what it had: others that read the topic would wait for ever."""
    had = bytes.fromhex("0001 00000002 0001 61 00000001 00000000 0001 62 00000002 00000000 00000001 ffffffff")
    reads_both = bytes.fromhex("0001 00000002 0001 61 0001 62 ffffffff")
    reads_one = bytes.fromhex("0001 00000001 0001 61 ffffffff")
    group = Group({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, "group", 1.0)
    admin: Any = create_autospec(AdminClient, instance=True)
    group._admin = admin
    topics = {"a": SimpleNamespace(partitions={0: None}), "b": SimpleNamespace(partitions={0: None, 1: None})}
    admin.list_topics.return_value = SimpleNamespace(topics=topics)
    found = []
    for metadata in (reads_both, reads_one):
        member = SimpleNamespace(metadata=metadata, assignment=had)
        admin.list_groups.return_value = [SimpleNamespace(state="Stable", members=[member])]
        found.append(group.orphans(["a", "b"]))

    assert found == [set(), {Partition("b", 0), Partition("b", 1)}]


def test_a_group_is_asked_where_warnings_are_errors(broker: BrokerHandle, topics: Topics) -> None:
    """As with `PYTHONWARNINGS=error`, and in this suite: the client's own warning must not end a stream."""
    topic = topics.create(partitions=2)
    config: dict[str, Any] = {"bootstrap.servers": broker.bootstrap_servers}
    consumer = Consumer({**config, "group.id": topic})
    try:
        consumer.subscribe([topic])
        deadline = time.monotonic() + PATIENCE_SECS
        while not consumer.assignment():
            assert time.monotonic() < deadline
            consumer.poll(0.1)

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = Group(config, topic, 10.0).orphans([topic])
    finally:
        consumer.close()

    assert found == set()
