"""Results that brokers do not take yet: librdkafka keeps no more of them in memory than is counted for them."""

import subprocess
import sys

import pytest

from tests.kit.patience import PATIENCE_SECS

QUEUE = """
import os, sys
from pathlib import Path
from confluent_kafka import Producer
from connector.core.chunks import Chunk, Partition
from connector.core.records import ResultEncoder
from connector.core.results import Finished
from connector.core.verdicts import QUEUED, Reply, Verdicts, in_doubt

kind, key_bytes, value_bytes, count = sys.argv[1], *map(int, sys.argv[2:])


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def finished(at):
    values, keys = ([b"%0*d" % (size, offset) for offset in range(at, at + 1_000)] for size in (value_bytes, key_bytes))
    chunk = Chunk(Partition("sms.campaign", 0), 1, range(at, at + 1_000), values, keys=keys)
    verdict = in_doubt(Reply("lost", text="no answer within 30 s")) if kind == "dead letters" else QUEUED
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" if kind == "traced" else None
    item = Finished((chunk,), Verdicts(verdict), "host-0-6923a8f1-1", 1, 1, 1_769_846_400_123, 1_769_846_400_171)
    item.trace = trace
    return item


encoder = ResultEncoder("campaign-sends", "send", "trackly.campaign-sends")
producer = Producer({"bootstrap.servers": "127.0.0.1:1", "queue.buffering.max.messages": 1_000_000, "log_level": 0})
list(encoder.outcomes(finished(0))), list(encoder.dead_letters(finished(0), now_ms=0))  # what they take meanwhile
began, counted = resident(), 0
for at in range(0, count, 1_000):
    item = finished(10_000_000 + at)
    counted += item.written_bytes
    for some in encoder.outcomes(item):
        for value, key in zip(some.values, some.keys):
            producer.produce("results", value, key, 0, headers=some.headers)
    for letter in encoder.dead_letters(item, now_ms=0):
        producer.produce("results", letter.value, letter.key, 0, headers=letter.headers)
assert len(producer) >= count
print((resident() - began) // count, counted // count)
sys.stdout.flush()
os._exit(0)  # without waiting for brokers
"""


@pytest.mark.parametrize(
    ("kind", "key_bytes", "value_bytes", "count"),
    [
        ("outcomes", 12, 105, 50_000),
        ("outcomes", 12, 1_000, 50_000),
        ("outcomes", 2_000, 105, 20_000),
        ("traced", 12, 105, 50_000),
        ("dead letters", 12, 105, 20_000),
        ("dead letters", 12, 4_000, 10_000),
    ],
)
def test_a_queued_result_takes_about_as_much_memory_as_is_counted(
    kind: str, key_bytes: int, value_bytes: int, count: int
) -> None:
    """It is what bounds a tick, and so the memory of a stream whose brokers do not answer."""
    command = [sys.executable, "-c", QUEUE, kind, *map(str, (key_bytes, value_bytes, count))]

    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_SECS)

    took, counted = map(int, done.stdout.split())
    print(f"{kind}: {took} bytes each, {counted} counted")
    assert took <= 1.4 * counted, "the headers of traces are not counted"
    assert counted <= 1.4 * took
