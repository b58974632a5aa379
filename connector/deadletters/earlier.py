"""What was sent again earlier, by anyone: the redrive topic shows it, and a running rule reads it in steps.

A rule's own offsets show what that rule has processed, not what another rule or a person sent again; a scan of the
redrive topic does. It can be long, and the thread must keep polling its group and notice a stop, so it reads a little
at a time. What was read is kept while it may be needed, so that the next look waits only for newer records.
"""

import time
from collections.abc import Iterator
from typing import Final

from connector.config.kafka import KafkaSettings
from connector.core.chunks import Chunk, Partition
from connector.core.ranges import Range
from connector.deadletters.deciding import Known
from connector.deadletters.jobs import find_redriven
from connector.deadletters.letters import Letter
from connector.kafka.configs import PREFETCH_KBYTES
from connector.kafka.scanning import CONSUME, Scanner, config_of

_SMALL: Final = {"queued.min.messages": 2 * CONSUME, "queued.max.messages.kbytes": PREFETCH_KBYTES}
"""Limits for a reader inside a worker, besides its stream's consumer."""


class Earlier:
    """What a redrive topic says about origins; not thread-safe. `step` raises `KafkaTroubleError`.

    `group` is one that may be read; nothing is committed to it.
    """

    def __init__(self, kafka: KafkaSettings, topic: str, *, client_id: str, group: str) -> None:
        self._config = {**config_of(kafka, client_id=client_id, group=group), **_SMALL}
        self._timeout = kafka.request_timeout_secs
        self._topic = topic
        self._known = Known()
        self._read: dict[Partition, Range] = {}
        """The offsets of each partition that were read."""
        self._scanner: Scanner | None = None
        self._steps: Iterator[list[Chunk]] | None = None

    @property
    def is_looking(self) -> bool:
        """Whether a look has begun and not ended."""
        return self._steps is not None

    def begin(self, since_ms: int) -> None:
        """Begin a look at everything that is written by the first step, from a time on."""
        self._scanner = Scanner(self._config, self._timeout)
        self._steps = self._reading(self._scanner, since_ms)

    def step(self, secs: float) -> bool:
        """Look for so long, or until the end; return whether that was reached."""
        assert self._steps is not None
        deadline = time.monotonic() + secs
        while True:
            chunks = next(self._steps, None)
            if chunks is None:
                self.close()
                return True
            self._known.add(find_redriven(iter(chunks)))
            if time.monotonic() >= deadline:
                return False

    def tells(self, letter: Letter) -> bool:
        """Return whether a dead letter was sent again, as far as was read."""
        return self._known.was_redriven(letter.origin, letter.redrives)

    def forget(self) -> None:
        """Forget everything that was read: later questions are about later records."""
        self._known, self._read = Known(), {}

    def close(self) -> None:
        """Close the connections, and give up an unfinished look; what is known stays."""
        self._steps = None
        scanner, self._scanner = self._scanner, None
        if scanner is not None:
            scanner.close()

    def _reading(self, scanner: Scanner, since_ms: int) -> Iterator[list[Chunk]]:
        """Yield what was not read yet, in steps, which may be empty."""
        before: dict[Partition, Range] = {}
        after: dict[Partition, Range] = {}
        reached: dict[Partition, Range] = {}
        for partition, (start, stop) in scanner.spans(self._topic, since_ms=since_ms).items():
            known = self._read.get(partition)
            if known is None or known[1] > stop:  # a topic that ends earlier was recreated
                after[partition] = reached[partition] = (start, stop)
                continue
            if start < known[0]:
                before[partition] = (start, known[0])
            if known[1] < stop:
                after[partition] = (known[1], stop)
            reached[partition] = (min(start, known[0]), stop)
        for spans in (before, after):
            yield from scanner.steps(spans)
        self._read |= reached
