"""Turns records into batches: shape, check, admit. Records that cannot be shaped now are kept and tried again.

Records cannot be shaped while the schema registry is unavailable, and shaping many of them may take longer than the
consumer may go without a poll. They are kept as they were read, and nothing overtakes them: everything read after them
is kept as well. If the cause lasts, the stream holds, and retries are delayed like the probes of a hold.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from connector.clock import now, now_ms
from connector.core.breaker import Hold
from connector.core.chunks import Chunk, weight
from connector.core.results import Finished
from connector.shaping.decoded import FormatAwayError
from connector.shaping.shaped import Shaped
from connector.stream.state import State
from connector.telemetry.logging import get_logger
from connector.trackly.operations import Operation

SHAPING_SECS = 1.0
"""How long records are shaped before the consumer is polled again; the rest is kept."""

DECODED_BYTES = 4_000_000
"""Maximum size of values that are decoded together: as Python objects they take up to thirty times as much."""


class Preparer:
    """Turns the records of one stream into batches, in the reader's thread.

    `shape` shapes records and raises `FormatAwayError`. `before_probe` is called before each retry during a hold;
    retries wait `probe_secs` at first and `probe_max_secs` at most.
    """

    def __init__(
        self,
        state: State,
        operation: Operation,
        *,
        name: str,
        shape: Callable[[Chunk], Shaped] | None = None,
        before_probe: Callable[[], None] = lambda: None,
        probe_secs: float = 5.0,
        probe_max_secs: float = 60.0,
    ) -> None:
        self._state = state
        self._operation = operation
        self._shape = shape
        self._before_probe = before_probe
        self._probe_secs = probe_secs
        self._probe_max_secs = probe_max_secs
        self._kept: deque[Chunk] = deque()
        """Records that cannot be shaped now, and everything read after them, in order."""
        self._try_at = 0.0
        self._delay = 0.0
        self._turn_ends_at = float("inf")
        self._log = get_logger("reader").bind(stream=name)

    @property
    def has_kept(self) -> bool:
        """Return whether records are kept, which new ones may not overtake; for any thread."""
        return bool(self._kept)

    @property
    def is_due(self) -> bool:
        """Return whether it is time to try kept records again."""
        return bool(self._kept) and now() >= self._try_at

    def begin_turn(self) -> None:
        """Start the time that may be spent on what was just read."""
        self._turn_ends_at = now() + SHAPING_SECS

    def take(self, pieces: Iterable[Chunk], at: float) -> None:
        """Turn new records into batches; the window of a batch that starts with them counts from `at`."""
        for piece in chain.from_iterable(map(_parts, pieces)):
            late = self._shape is not None and now() > self._turn_ends_at
            if self._kept or late or not self._prepare(piece, at):
                self._kept.append(piece)
                with self._state.lock:
                    self._state.unshaped_bytes += weight(piece)

    def try_at_once(self) -> None:
        """Try kept records at the next turn; may be called from any thread."""
        self._try_at = 0.0

    def take_kept(self) -> None:
        """Try kept records again when it is time, oldest first; the hold ends when none is left.

        A chunk that fails again is halved, so that records with known schemas proceed, and a chunk with more schemas
        than can be fetched in time is finished eventually.
        """
        if not self.is_due:
            return
        if self._state.shaping_hold is not None:
            self._before_probe()
        until, passed = now() + SHAPING_SECS, False
        while self._kept and now() < until:
            piece = self._kept.popleft()
            if not self._prepare(piece, now()):
                half = len(piece) // 2
                self._kept.extendleft([piece.slice(half, len(piece)), piece.slice(0, half)] if half else [piece])
                if passed:  # try the rest at once, and begin with the shortest delay again
                    self._delay = self._try_at = 0.0
                break
            passed = True
        with self._state.changed:
            self.keep_startable()

    def keep_startable(self) -> None:
        """Drop kept records that may no longer start, which their next owner reads again; called under the lock."""
        state = self._state
        self._kept = deque(piece for piece in self._kept if state.flow.may_start(piece))
        state.unshaped_bytes = sum(map(weight, self._kept))
        if not self._kept and state.shaping_hold is not None:
            state.shaping_hold = None
            state.changed.notify_all()

    def _prepare(self, piece: Chunk, at: float) -> bool:
        """Shape, check and batch records; return False if they cannot be shaped now.

        They are not read again in that case: `intake` has already seen them.
        """
        state, shaped = self._state, None
        if self._shape is not None:
            try:
                shaped = self._shape(piece)
            except FormatAwayError as error:
                self._hold(error)
                return False
        prepared = self._operation.prepare(piece, now_ms=now_ms(), shaped=shaped)
        with state.changed:
            settled = prepared.settled and Finished((prepared.settled[0],), prepared.settled[1])
            state.checked(len(piece), settled)
            closed = state.admission.take(prepared.lanes, now=at)
            if closed:
                state.queue(closed)
            elif settled is not None:
                state.changed.notify_all()
        return True

    def _hold(self, error: FormatAwayError) -> None:
        """Hold the stream, or continue to, with a longer delay each time."""
        state = self._state
        with state.changed:
            hold = state.shaping_hold
            again = hold is not None and hold.reason == error.reason
            delay = max(2 * self._delay, self._probe_secs) if again else self._probe_secs
            self._delay = min(delay, self._probe_max_secs)
            self._try_at = now() + self._delay
            if not again:
                state.shaping_hold = Hold(error.reason, now(), str(error), "probe")
                state.on_hold(state.shaping_hold)
        self._log.debug("records kept that cannot be shaped now", reason=error.reason, error=str(error))


def _parts(piece: Chunk) -> Iterator[Chunk]:
    """Yield a chunk in parts that may be decoded together, at least one record each."""
    half = len(piece) // 2
    if not half or sum(map(len, filter(None, piece.values))) <= DECODED_BYTES:
        yield piece
        return
    yield from _parts(piece.slice(0, half))
    yield from _parts(piece.slice(half, len(piece)))
