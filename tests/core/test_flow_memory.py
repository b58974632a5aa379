"""What the flow keeps for very many partitions: bounded for each, however scattered its progress is."""

import tracemalloc

import pytest

from connector.core.batching import Batch, Batcher, BatchLimits
from connector.core.chunks import Chunk, Partition
from connector.core.flow import Flow, FlowLimits
from connector.core.partition import MAX_READS
from connector.core.progress import MAX_METADATA, Progress, decode
from connector.core.results import Finished
from connector.core.verdicts import QUEUED, Verdicts

PARTITIONS = 10_000
RECORDS = 10


def test_ten_thousand_partitions_take_some_kilobytes_each_and_one_tick_says_all_of_them() -> None:
    """Every second record of each is settled and the others wait, so that none of it is one range."""
    flow = Flow(FlowLimits(PARTITIONS * RECORDS, PARTITIONS * RECORDS, 1 << 30))
    partitions = [Partition("wide", number) for number in range(PARTITIONS)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for partition in partitions:
        flow.assign(partition, 1, Progress(0))
        flow.intake(Chunk(partition, 1, range(RECORDS), [b"x"] * RECORDS))
        done = Chunk(partition, 1, range(1, RECORDS, 2), [b"x"] * (RECORDS // 2))
        flow.settle(Finished((done,), Verdicts(QUEUED)))
        waits = Chunk(partition, 1, range(0, RECORDS, 2), [b"x"] * (RECORDS // 2), wire=[b"x"] * (RECORDS // 2))
        flow.add_ready([Batch(f"b-{partition.number}", None, (waits,), RECORDS // 2, 10, "count")])

    tick = flow.plan(now=0.0, slots=PARTITIONS)

    assert tick is not None
    assert len(tick.offsets) == PARTITIONS
    assert max(len(metadata) for _, metadata in tick.offsets.values()) <= MAX_METADATA
    assert len(flow.committed(tick)) == PARTITIONS
    told = decode(*tick.offsets[partitions[-1]])
    assert (told.in_flight.count, told.settled.count) == (RECORDS // 2, RECORDS // 2)
    each = (tracemalloc.get_traced_memory()[0] - before) / PARTITIONS
    tracemalloc.stop()
    print(f"{each:.0f} bytes for a partition with {RECORDS} records, none of them next to one of its kind")
    assert each < 8_000


def _read(offsets: range, key_bytes: int = 12) -> Chunk:
    values, keys = ([b"%0*d" % (size, offset) for offset in offsets] for size in (105, key_bytes))
    return Chunk(Partition("t", 0), 1, offsets, values, keys=keys, wire=values)


@pytest.mark.parametrize(("records", "key_bytes"), [(1, 12), (10, 12), (1_000, 12), (1, 400), (1_000, 400)])
def test_what_waits_to_be_posted_takes_no_more_than_is_counted_however_small_the_batches_are(
    records: int, key_bytes: int
) -> None:
    """In single mode each record is a batch, and the buffer is full of them whenever there is a backlog."""
    flow, count = Flow(FlowLimits(1 << 20, 1 << 20, 1 << 30)), 20_000
    flow.assign(Partition("t", 0), 1, Progress(0))
    batcher = Batcher(BatchLimits(records, 1 << 20, 1.0, 0), "bench-0123456789")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for start in range(0, count, 2_000):
        flow.add_ready(batcher.add(None, _read(range(start, start + 2_000), key_bytes), now=0.0))
    took = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()

    print(f"{took / count:.0f} bytes for a record, {flow.held_bytes / count:.0f} counted")
    assert took < 1.05 * flow.held_bytes


def test_what_is_kept_of_reads_does_not_grow_while_one_record_waits() -> None:
    """As one that waits for days for the pace of its list, while those of other lists pass it."""
    partition, flow = Partition("t", 0), Flow(FlowLimits(100, 100, 1 << 20))
    state = flow.assign(partition, 1, Progress(0))
    most = 0

    def settles(*offsets: int) -> None:
        nonlocal most
        for offset in offsets:
            flow.settle(Finished((Chunk(partition, 1, range(offset, offset + 1), [b"x"]),), Verdicts(QUEUED)))
        tick = flow.plan(now=0.0, slots=1)
        assert tick is not None
        flow.committed(tick)
        most = max(most, len(state.reads))

    for offset in range(10_000):
        flow.intake(Chunk(partition, 1, range(offset, offset + 1), [b"x"], oldest_ms=1_000 + offset))
        if offset % 5_000:
            settles(offset)

    assert most <= MAX_READS
    assert flow.oldest_ms() == 1_000
    settles(0)
    told = flow.oldest_ms()
    assert told is not None
    assert 5_900 <= told <= 6_000, "of the record that waits next, nearly"
    settles(5_000)
    assert flow.oldest_ms() is None
