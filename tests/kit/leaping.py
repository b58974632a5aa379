"""An event loop in whose time minutes take no time."""

import asyncio
from typing import Any, cast


class Leaping(asyncio.SelectorEventLoop):
    """A loop that never waits: when there is nothing to do, its time jumps to the next timer."""

    def __init__(self) -> None:
        """Create a loop at time 0."""
        super().__init__()
        self._leapt = 0.0
        selector = cast("Any", self)._selector
        select = selector.select

        def leap(timeout: float | None) -> Any:
            self._leapt += timeout or 0.0
            return select(0)

        selector.select = leap

    def time(self) -> float:
        """Return the seconds that were skipped."""
        return self._leapt
