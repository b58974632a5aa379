"""How large a request may be, where large ones are refused, or not answered.

One that is refused as too large tells of its bytes. But a platform, or a gateway before it, may answer small requests
in time and large ones never. Each large one is a loss then: all its records are in doubt. So after a request without an
answer none may hold more records than one that was answered since it was due, but one at a time that is to find out
whether more will do: twice as many at most, and of records that were never posted, as what failed before may have its
own reason. Its answer doubles what all may hold, within as many round trips as there are doublings: a platform that was
merely away soon has all at once again. Where it is not answered either the next one waits, each time longer.

As long as requests as large are answered meanwhile it is not the size, and nothing changes.
"""

from collections import deque

FIRST_WAIT_SECS = 10.0
LONGEST_WAIT_SECS = 600.0

SMALLER_FOR_SECS = 600.0
"""How long requests stay small for one that was too large: the gateway that refused it may have been mended since."""

LATELY_SECS = 60.0
"""How long the largest body that was taken says more than one that is refused: limits are lowered, too."""

LEAST_BYTES = 1_000


class ByteLimit:
    """How many bytes a request may have: as set, or less for a time since one was too large."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self.limit = max_bytes
        self._lowered_at = float("inf")
        self._largest, self._largest_at = 0, float("-inf")
        """The largest body that was taken lately, and when."""

    def taken(self, size: int, *, now: float) -> None:
        """Take note of a body that was taken."""
        if size >= self._largest or now - self._largest_at > LATELY_SECS:
            self._largest, self._largest_at = size, now
        if now - self._lowered_at > SMALLER_FOR_SECS:
            self._forget()

    def too_large(self, size: int, count: int, *, now: float) -> None:
        """Take note of a body of some records that was too large: a single one is to blame itself.

        What its batches taught was about it. If the platform takes less than is set all the same, the next batch that
        is too large says so again; the other way round, batches would stay small for good.
        """
        if count == 1:
            self._forget()
            return
        taken = self._largest if now - self._largest_at <= LATELY_SECS else 0
        self.limit = min(self.limit, max(size // 2, taken, LEAST_BYTES))
        self._lowered_at = now

    def _forget(self) -> None:
        self.limit, self._lowered_at = self._max_bytes, float("inf")


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
        largest = next((size for at, size in self._answered if at >= due), 1)
        if largest >= count:
            return False
        self.limit, self._limited_at, self._try_at = largest, now, now
        self._lost = max(self._lost, count)
        return True
