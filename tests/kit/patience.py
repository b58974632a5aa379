"""How long tests wait: a slow machine is no failure, and what succeeds is waited for no longer than it takes."""

import os
import time
from typing import Final

PATIENCE_SECS: Final = 120.0
"""Nothing that happens at all takes as long, however slow the machine is."""
_LENIENCE: Final = 3


def lenience() -> float:
    """Return how many times as long as on a quiet machine something may take on this one now.

    Three times, and more where more than two processes compete for each CPU.
    """
    competing = max(os.getloadavg()[:2]) / (os.cpu_count() or 1)  # averages of a minute and of five
    return _LENIENCE * max(1.0, competing / 2)


def give(secs: float) -> None:
    """Sleep for as long as something may take that takes so many seconds on a quiet machine, and that nothing shows."""
    time.sleep(secs * lenience() / _LENIENCE)


def tell(what: str, secs: float, figure_secs: float) -> None:
    """Print what was measured beside the figure that the product is to keep, and fail far above that."""
    print(f"{what}: {secs:.1f} s (to be at most {figure_secs:g} s)")
    assert secs <= lenience() * figure_secs
