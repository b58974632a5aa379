"""How many records a request may hold, where large ones are not answered.

A platform, or a gateway before it, may answer small requests in time and large ones never. Each large one is a loss
then: all its records are in doubt. So after a request without an answer none may hold more records than one that was
answered since it was due, but one at a time that is to find out whether more will do: twice as many at most, and of
records that were never posted, as what failed before may have its own reason. Its answer doubles what all may hold,
within as many round trips as there are doublings: a platform that was merely away soon has all at once again. Where it
is not answered either the next one waits, each time longer.

As long as requests as large are answered meanwhile it is not the size, and nothing changes.
"""

from collections import deque

FIRST_WAIT_SECS = 10.0
LONGEST_WAIT_SECS = 600.0


class SizeLimit:
    """How many records a request may hold; `limit` is None while all are answered, or whatever their size."""

    def __init__(self) -> None:
        self.limit: int | None = None
        self._answered: deque[tuple[float, int]] = deque()
        """Times of answers and records of their requests: of each only what no later one was as large as."""
        self._lost = 0
        """The most records of a request without an answer since there is a limit: it is gone when as many pass."""
        self._limited_at = 0.0
        self._try_at = 0.0
        self._wait_secs = FIRST_WAIT_SECS

    def most(self, *, now: float, may_try: bool) -> int | None:
        """Return how many records the next request may hold, None for any number; `may_try` lets it try for more."""
        if self.limit is None:
            return None
        return 2 * self.limit if may_try and now >= self._try_at else self.limit

    def answered(self, count: int, *, now: float) -> bool:
        """Take note of an answer about so many records; return whether this ended the limit."""
        while self._answered and self._answered[-1][1] <= count:
            self._answered.pop()
        self._answered.append((now, count))
        if self.limit is None or count <= self.limit:
            return False
        self.limit, self._try_at, self._wait_secs = count, now, FIRST_WAIT_SECS
        if count >= self._lost:
            self.limit, self._lost = None, 0
        return self.limit is None

    def lost(self, count: int, *, began: float, due: float, now: float) -> bool:
        """Take note of a request without an answer, which was due at `due`; return whether others hold fewer for it."""
        if self.limit is not None and count > self.limit:
            self._lost = max(self._lost, count)
            if began < self._limited_at:  # it was under way when the limit came
                return False
            self._try_at = now + self._wait_secs
            self._wait_secs = min(2 * self._wait_secs, LONGEST_WAIT_SECS)
            return True
        largest = next((size for at, size in self._answered if at >= due), 0)
        if count == 1 or largest >= count:
            return False
        self.limit, self._limited_at, self._try_at = max(largest, 1), now, now
        self._lost = max(self._lost, count)
        return True
