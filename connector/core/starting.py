"""Which batch starts next, of those that are ready and those that are to be tried again.

What is tried again takes turns with what is ready, else a few bad records could fill all requests, and nothing would
pass that tells them from an outage. Suspects, whose batches failed while others passed, may be no more than a share of
the requests under way: one that is never answered keeps its place for hundreds of times as long as others.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush

from connector.core.batching import Batch

SUSPECTS_SHARE = 0.5
"""Of the requests that may be under way, how many may be of suspects; one may always."""

Entry = tuple[float, int, Batch]


class StartQueue:
    """Batches that may be listed and posted, now or from a time on."""

    def __init__(self) -> None:
        self.ready: deque[Batch] = deque()
        self._again: list[Entry] = []
        self._suspects: list[Entry] = []
        self._serial = 0
        self._retried = False
        """The next is a ready one, if any is: the last one was to be tried again, or a ready one was put back."""
        self._crowded = 0
        """Ready batches, the first ones, that there was no room for when it was last chosen what starts."""

    @property
    def waiting(self) -> int:
        """Batches that wait to be tried again."""
        return len(self._again) + len(self._suspects)

    @property
    def has_suspects(self) -> bool:
        """Tell whether suspects wait to be tried again."""
        return bool(self._suspects)

    @property
    def startable(self) -> int:
        """Ready batches without those that there was no room for a moment ago."""
        return max(len(self.ready) - self._crowded, 0)

    @property
    def first_startable(self) -> Batch | None:
        """The ready batch that is to start first, of those that there was room for a moment ago."""
        return self.ready[self._crowded] if self._crowded < len(self.ready) else None

    def again(self, batch: Batch, *, at: float) -> None:
        """Queue a batch that may be tried again from time `at` on."""
        self._serial += 1
        heappush(self._heap(batch), (at, self._serial, batch))

    def put_back(self, batches: Sequence[Batch]) -> None:
        """Have batches that were taken, and did not start, start before all others: that was not their turn."""
        for batch in reversed(batches):
            if _is_retried(batch):
                self._serial += 1
                heappush(self._heap(batch), (0.0, -self._serial, batch))
            else:
                self.ready.appendleft(batch)
            self.keep_turn(batch)

    def put_rest(self, batch: Batch) -> None:
        """Have what is left of a batch that starts start when it is the turn of its kind again."""
        if _is_retried(batch):
            self.again(batch, at=0.0)
        else:
            self.ready.appendleft(batch)

    def keep_turn(self, batch: Batch) -> None:
        """Have the next be of the kind of one that was taken and does not start."""
        self._retried = not _is_retried(batch)

    def crowd_out(self, batches: Sequence[Batch]) -> None:
        """Put back what there was no room for as it was chosen what starts; whose turn it is stays."""
        retried = self._retried
        self.put_back(batches)
        self._retried = retried
        self._crowded = sum(not _is_retried(batch) for batch in batches)

    def is_due(self, *, now: float, suspects: bool) -> bool:
        """Tell whether any batch may start; with `suspects`, one of them as well."""
        return bool(self.ready) or self._due(now, suspects=suspects) is not None

    def take(self, *, now: float, suspects: bool, trial: bool) -> Batch | None:
        """Take the batch that starts next, if any may; a `trial` is one to be tried again only for want of others."""
        due = self._due(now, suspects=suspects)
        if due is not None and not (self.ready and (trial or self._retried)):
            self._retried = True
            return heappop(due)[2]
        self._retried = False
        return self.ready.popleft() if self.ready else None

    def next_at(self, *, now: float) -> float | None:
        """Return when more may be tried again than may be now."""
        return min((heap[0][0] for heap in (self._again, self._suspects) if heap and heap[0][0] > now), default=None)

    def change(self, changed: Callable[[Batch], Batch | None]) -> None:
        """Put what `changed` makes of each batch in its place, which is nothing at all for None."""
        self.ready = deque(kept for batch in self.ready if (kept := changed(batch)))
        for heap in (self._again, self._suspects):
            heap[:] = [(at, serial, kept) for at, serial, batch in heap if (kept := changed(batch))]
            heapify(heap)

    def retries(self) -> Iterator[tuple[float, Batch]]:
        """Yield all batches that wait to be tried again, each with the time when it may be."""
        yield from ((at, batch) for heap in (self._again, self._suspects) for at, _, batch in heap)

    def _heap(self, batch: Batch) -> list[Entry]:
        return self._suspects if batch.suspect else self._again

    def _due(self, now: float, *, suspects: bool) -> list[Entry] | None:
        heaps = (self._again, self._suspects) if suspects else (self._again,)
        return min((heap for heap in heaps if heap and heap[0][0] <= now), key=lambda heap: heap[0], default=None)


def _is_retried(batch: Batch) -> bool:
    """Tell whether a batch may be to blame for what fails, as one that was never posted is not."""
    return batch.suspect or batch.was_posted
