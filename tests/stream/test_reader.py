"""The thread that reads, with a consumer that stops a partition without a word, as librdkafka was seen to."""

import threading
import time
from typing import Any
from unittest.mock import create_autospec

from connector.core.progress import Progress, encode
from connector.kafka.source import Committed, Read, Source
from connector.stream.reader import PROVE_SECS, Reader, ReadOptions, TickView
from tests.kit.sending import PARTITION, Bench


def test_a_partition_that_yields_nothing_is_sought_again_where_it_was() -> None:
    bench, begins, twice = Bench(), [], threading.Event()
    bench.state.flow.let_go([PARTITION])
    options = ReadOptions((PARTITION.topic,), "group", "earliest", "hold", "dead_letter", 1_000_000, 1.0, 1.0, 6.0)
    failed: list[Any] = []
    reader = Reader(bench.state, bench.operation, options, name="bench", fail=failed.append)

    def begin(_partition: object, offset: int) -> bool:
        begins.append((time.monotonic(), offset))
        if len(begins) == 2:
            twice.set()
        return True

    def read(_count: int, timeout_secs: float) -> Read:
        time.sleep(min(timeout_secs, 0.01))
        return Read()

    source = create_autospec(Source, instance=True)
    source.begin.side_effect, source.read.side_effect = begin, read
    source.subscribe.side_effect = lambda _topics: reader.assigned([PARTITION])
    source.committed.return_value = {PARTITION: Committed(70, encode(Progress(70)))}
    source.bounds.return_value = (60, 100)
    source.known_end.return_value, source.passed.return_value = 100, {}
    reader.start(source, create_autospec(TickView, instance=True))

    assert twice.wait(30), failed
    reader.close(10)

    (first, offset), (second, again) = begins[:2]
    assert (offset, again) == (70, 70)
    assert second - first >= PROVE_SECS
    assert failed == []
