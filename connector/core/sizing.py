"""How large a request may be, where large ones are rejected or not answered.

A rejection as too large (413) limits the bytes. But a platform, or a gateway in front of it, may also answer small
requests in time and large ones never. Then each large request is a loss: all its records are in doubt. So after a
request without an answer, no request may hold more records than one that was answered since that one was due, except
one at a time that tries for more: at most twice as many records, none of which were posted before, since those may have
failed for reasons of their own. If it is answered, the limit for all doubles, so that a platform that was merely away
soon gets full requests again. If it is not, the next try waits, each time longer.

If requests of the same size were answered in the meantime, size is not the cause, and nothing changes.
"""

from collections import deque

FIRST_WAIT_SECS = 10.0
LONGEST_WAIT_SECS = 600.0

SMALLER_FOR_SECS = 600.0
"""How long requests stay small after one was too large: the gateway that rejected it may have been fixed since."""

RECENT_SECS = 60.0
"""How long an accepted body counts for more than a rejected one, since limits can also be lowered."""

LEAST_BYTES = 1_000


class ByteLimit:
    """How many bytes a request may have: the setting, or for a time less after one was too large."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self.limit = max_bytes
        self._lowered_at = float("inf")
        self._largest, self._largest_at = 0, float("-inf")
        """The largest body that was accepted lately, and when."""

    def taken(self, size: int, *, now: float) -> None:
        """Note the size of a body that was accepted, in bytes."""
        if size >= self._largest or now - self._largest_at > RECENT_SECS:
            self._largest, self._largest_at = size, now
        if now - self._lowered_at > SMALLER_FOR_SECS:
            self._forget()

    def too_large(self, size: int, count: int, *, now: float) -> None:
        """Note a body of `count` records that was too large. If it was a single record, that one is at fault.

        Then the larger batches were rejected because of it, and the limit is reset. If the platform does accept less
        than the setting, the next large batch shows it again; otherwise batches would stay small for good.
        """
        if count == 1:
            self._forget()
            return
        taken = self._largest if now - self._largest_at <= RECENT_SECS else 0
        self.limit = min(self.limit, max(size // 2, taken, LEAST_BYTES))
        self._lowered_at = now

    def _forget(self) -> None:
        self.limit, self._lowered_at = self._max_bytes, float("inf")


class SizeLimit:
    """How many records a request may hold; `limit` is None while size makes no difference."""

    def __init__(self) -> None:
        self.limit: int | None = None
        self._answered: deque[tuple[float, int]] = deque()
        """Times of answers and records of their requests; only those larger than all later ones."""
        self._lost = 0
        """The largest request without an answer since there is a limit: when as many records pass, the limit ends."""
        self._limited_at = 0.0
        self._try_at = 0.0
        self._wait_secs = FIRST_WAIT_SECS

    def most(self, *, now: float, may_try: bool) -> int | None:
        """Return how many records the next request may hold, None for any number; `may_try`: it may try for more."""
        if self.limit is None:
            return None
        return 2 * self.limit if may_try and now >= self._try_at else self.limit

    def answered(self, count: int, *, now: float) -> bool:
        """Note an answer to a request with `count` records; return whether this ended the limit."""
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
        """Note a request without an answer, due at `due`; return whether others hold fewer records because of it."""
        if self.limit is not None and count > self.limit:
            self._lost = max(self._lost, count)
            if began < self._limited_at:  # it was in flight when the limit was set
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
