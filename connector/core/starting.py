"""Which batch starts next: one that is ready, or one that waits for a retry.

Retries alternate with ready batches; otherwise a few bad records could occupy all requests, and nothing would pass that
distinguishes them from an outage. Suspects, which failed while others passed, may be only a share of the requests in
flight: one that is never answered keeps its slot for hundreds of times as long as others.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush

from connector.core.batching import Batch

SUSPECTS_SHARE = 0.5
"""Share of the requests in flight that may be suspects; one always may."""

Entry = tuple[float, int, Batch]


class StartQueue:
    """Batches that may be listed and posted, now or from a time on."""

    def __init__(self) -> None:
        self.ready: deque[Batch] = deque()
        self._again: list[Entry] = []
        self._suspects: list[Entry] = []
        self._serial = 0
        self._retried = False
        """The next one is a ready batch, if there is any: the last one was a retry, or a ready one was put back."""
        self._deferred = 0
        """How many ready batches, at the front, had no room in the metadata when batches were last chosen."""

    @property
    def waiting(self) -> int:
        """How many batches wait for a retry."""
        return len(self._again) + len(self._suspects)

    @property
    def has_suspects(self) -> bool:
        """Return whether suspects wait for a retry."""
        return bool(self._suspects)

    @property
    def startable(self) -> int:
        """How many ready batches there are, except those that had no room last time."""
        return max(len(self.ready) - self._deferred, 0)

    @property
    def first_startable(self) -> Batch | None:
        """The ready batch that starts next, except those that had no room last time; None if there is none."""
        return self.ready[self._deferred] if self._deferred < len(self.ready) else None

    def again(self, batch: Batch, *, at: float) -> None:
        """Queue a batch that may be retried from time `at` on."""
        self._serial += 1
        heappush(self._heap(batch), (at, self._serial, batch))

    def put_back(self, batches: Sequence[Batch]) -> None:
        """Put batches that were taken and did not start before all others, and give their kind its turn again."""
        for batch in reversed(batches):
            if _is_retried(batch):
                self._serial += 1
                heappush(self._heap(batch), (0.0, -self._serial, batch))
            else:
                self.ready.appendleft(batch)
            self.keep_turn(batch)

    def put_rest(self, batch: Batch) -> None:
        """Queue the rest of a batch that started; it starts at the next turn of its kind."""
        if _is_retried(batch):
            self.again(batch, at=0.0)
        else:
            self.ready.appendleft(batch)

    def keep_turn(self, batch: Batch) -> None:
        """Give the turn back to the kind of a batch that was taken and does not start."""
        self._retried = not _is_retried(batch)

    def defer(self, batches: Sequence[Batch]) -> None:
        """Put back batches for which the metadata has no room, without changing whose turn it is."""
        retried = self._retried
        self.put_back(batches)
        self._retried = retried
        self._deferred = sum(not _is_retried(batch) for batch in batches)

    def is_due(self, *, now: float, suspects: bool) -> bool:
        """Return whether any batch may start; `suspects`: including suspects."""
        return bool(self.ready) or self._due(now, suspects=suspects) is not None

    def take(self, *, now: float, suspects: bool, trial: bool) -> Batch | None:
        """Take the batch that starts next, or None; for a `trial`, a retry only if no batch is ready."""
        due = self._due(now, suspects=suspects)
        if due is not None and not (self.ready and (trial or self._retried)):
            self._retried = True
            return heappop(due)[2]
        self._retried = False
        return self.ready.popleft() if self.ready else None

    def next_at(self, *, now: float) -> float | None:
        """Return when the next retry becomes possible that is not yet, or None."""
        return min((heap[0][0] for heap in (self._again, self._suspects) if heap and heap[0][0] > now), default=None)

    def change(self, changed: Callable[[Batch], Batch | None]) -> None:
        """Replace each batch by the result of `changed`; None removes it."""
        self.ready = deque(kept for batch in self.ready if (kept := changed(batch)))
        for heap in (self._again, self._suspects):
            heap[:] = [(at, serial, kept) for at, serial, batch in heap if (kept := changed(batch))]
            heapify(heap)

    def retries(self) -> Iterator[tuple[float, Batch]]:
        """Yield all batches that wait for a retry, each with its time."""
        yield from ((at, batch) for heap in (self._again, self._suspects) for at, _, batch in heap)

    def _heap(self, batch: Batch) -> list[Entry]:
        return self._suspects if batch.suspect else self._again

    def _due(self, now: float, *, suspects: bool) -> list[Entry] | None:
        heaps = (self._again, self._suspects) if suspects else (self._again,)
        return min((heap for heap in heaps if heap and heap[0][0] <= now), key=lambda heap: heap[0], default=None)


def _is_retried(batch: Batch) -> bool:
    """Return whether a failure may be the batch's own fault, which it cannot be for one that was never posted."""
    return batch.suspect or batch.was_posted
