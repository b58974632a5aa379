"""What was sent again earlier, by whomever: the redrive topic tells, and a rule that runs reads it in steps.

The offsets of a rule tell what that rule has come past, not what another rule or a person sent again. A scan of the
redrive topic does. It can be long, and the thread that waits for it must answer its group and the wish to stop: so it
is read a little at a time, between other work. What was read stays until nobody needs it, so that whoever asks again
waits only for what was written since.
"""

import time
from collections.abc import Iterator
from typing import Final

from connector.config.kafka import KafkaSettings
from connector.core.chunks import Chunk, Partition
from connector.core.progress import Range
from connector.deadletters.deciding import Known
from connector.deadletters.jobs import find_redriven
from connector.deadletters.letters import Letter
from connector.kafka.configs import PREFETCH_KBYTES
from connector.kafka.scanning import CONSUME, Scanner, config_of

CLOCKS_MS: Final = 60_000
"""By how much clocks may differ: what one machine wrote after a dead letter of another may bear an earlier time, and is
looked for from so much before it on."""

_SMALL: Final = {"queued.min.messages": 2 * CONSUME, "queued.max.messages.kbytes": PREFETCH_KBYTES}
"""Of a reader in a worker, where a stream's consumer has its own beside it."""


class Earlier:
    """What a redrive topic says of origins; not thread-safe. Raises `KafkaTroubleError` from `step`.

    `group` is one that may be read; nothing is committed to it.
    """

    def __init__(self, kafka: KafkaSettings, topic: str, *, client_id: str, group: str) -> None:
        self._config = {**config_of(kafka, client_id=client_id, group=group), **_SMALL}
        self._timeout = kafka.request_timeout_secs
        self._topic = topic
        self._known = Known()
        self._read: dict[Partition, Range] = {}
        """From which offset to before which one all is known."""
        self._scanner: Scanner | None = None
        self._steps: Iterator[list[Chunk]] | None = None

    @property
    def is_looking(self) -> bool:
        """Tell whether a look has begun and not ended."""
        return self._steps is not None

    def begin(self, since_ms: int) -> None:
        """Begin to look at all that is written by the first step, from a time on."""
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
        """Tell whether a dead letter was sent again, as far as was looked."""
        return self._known.was_redriven(letter.origin, letter.redrives)

    def forget(self) -> None:
        """Forget all that was read: what is asked for from now on was written later."""
        self._known, self._read = Known(), {}

    def close(self) -> None:
        """Let go of the connections, and give up a look that has not ended; what is known stays."""
        self._steps = None
        scanner, self._scanner = self._scanner, None
        if scanner is not None:
            scanner.close()

    def _reading(self, scanner: Scanner, since_ms: int) -> Iterator[list[Chunk]]:
        """Yield what was not read yet, in steps; there may be none in one."""
        before: dict[Partition, Range] = {}
        after: dict[Partition, Range] = {}
        reached: dict[Partition, Range] = {}
        for partition, (start, stop) in scanner.spans(self._topic, since_ms=since_ms).items():
            known = self._read.get(partition)
            if known is None or known[1] > stop:  # one that ends before has been made anew
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
