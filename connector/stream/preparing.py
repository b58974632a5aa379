"""Makes batches of what was read: shapes it, checks it, hands it in; what can't be shaped now is kept and tried again.

Events can't be made of records while the schema registry is away, and to make them of many may take longer than the
consumer may go without being polled. They are kept as they were read, and nothing overtakes them: all that is read
behind them is kept as well. Where the reason lasts, the stream holds, and the delays between tries are those of a
hold's probes.
"""

import time
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
"""How long records are shaped in one turn before the consumer is polled again; what is left of them is kept."""

DECODED_BYTES = 4_000_000
"""Of values that are decoded together, where they are several: Python takes up to thirty times as much for them."""


class Preparer:
    """Makes batches of the records of one stream, in the reader's thread.

    `shape` makes events of records and raises `FormatAwayError`; `before_probe` is called before what holds the stream
    is tried again, which is `probe_secs` later at first, and `probe_max_secs` at most.
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
        """Records that events can't be made of now, and all that were read after them, in that order."""
        self._try_at = 0.0
        self._delay = 0.0
        self._turn_ends_at = float("inf")
        self._log = get_logger("reader").bind(stream=name)

    @property
    def has_kept(self) -> bool:
        """Tell whether anything is kept, which what is read now may not overtake; for any thread."""
        return bool(self._kept)

    @property
    def is_due(self) -> bool:
        """Tell whether it is time to try again what is kept."""
        return bool(self._kept) and now() >= self._try_at

    def begin_turn(self) -> None:
        """Have the time count from now on that may be spent on what was just read."""
        self._turn_ends_at = now() + SHAPING_SECS

    def take(self, pieces: Iterable[Chunk], at: float) -> None:
        """Make batches of what is new; the window of a batch that begins with it is counted from `at`."""
        for piece in chain.from_iterable(map(_parts, pieces)):
            late = self._shape is not None and now() > self._turn_ends_at
            if self._kept or late or not self._prepare(piece, at):
                self._kept.append(piece)
                with self._state.lock:
                    self._state.unshaped_bytes += weight(piece)

    def try_at_once(self) -> None:
        """Have what is kept tried at the next turn; may be called from any thread."""
        self._try_at = 0.0

    def take_kept(self) -> None:
        """Try again what was kept, oldest first, when its time has come; the hold ends when nothing is left.

        What fails again is cut in halves, so that what is known by then goes on, and a chunk that names more schemas
        than can be asked for in time comes to its end.
        """
        if not self.is_due:
            return
        if self._state.shaping_hold is not None:
            self._before_probe()
        until = now() + SHAPING_SECS
        while self._kept and now() < until:
            piece = self._kept.popleft()
            if not self._prepare(piece, now()):
                half = len(piece) // 2
                self._kept.extendleft([piece.slice(half, len(piece)), piece.slice(0, half)] if half else [piece])
                break
            self._delay = 0.0
        with self._state.changed:
            self.keep_startable()

    def keep_startable(self) -> None:
        """Drop what was kept and may not start any more, as its next owner reads it again; called under the lock."""
        state = self._state
        self._kept = deque(piece for piece in self._kept if state.flow.may_start(piece))
        state.unshaped_bytes = sum(map(weight, self._kept))
        if not self._kept and state.shaping_hold is not None:
            state.shaping_hold = None
            state.changed.notify_all()

    def _prepare(self, piece: Chunk, at: float) -> bool:
        """Shape, check and batch records; return whether that could be done, which it can't while they can't be shaped.

        What can't be shaped now is not read again: `intake` has it already.
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
        """Hold the stream, or go on holding it, and wait longer each time."""
        state = self._state
        with state.changed:
            hold = state.shaping_hold
            again = hold is not None and hold.reason == error.reason
            self._delay = min(2 * self._delay, self._probe_max_secs) if again else self._probe_secs
            self._try_at = now() + self._delay
            if not again:
                state.shaping_hold = Hold(error.reason, time.time(), str(error), "probe")
                state.on_hold(state.shaping_hold)
        self._log.debug("records kept that cannot be shaped now", reason=error.reason, error=str(error))


def _parts(piece: Chunk) -> Iterator[Chunk]:
    """Yield a chunk in parts of as many bytes as may be decoded together, or of one record."""
    half = len(piece) // 2
    if not half or sum(map(len, filter(None, piece.values))) <= DECODED_BYTES:
        yield piece
        return
    yield from _parts(piece.slice(0, half))
    yield from _parts(piece.slice(half, len(piece)))
