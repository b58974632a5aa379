"""Has a broker work until it has compiled its code.

A broker that has been up for a day compiles nothing any more: nobody's figures are to pay for that.
"""

import time
from collections.abc import Callable
from typing import Final

from benchmarks.arena import Arena
from benchmarks.processes import compiler_secs

COMPILED_SHARE: Final = 0.1
"""What the broker's compiler takes of a core when it is enough."""


def warm_up(arena: Arena, work: Callable[[], object], *, at_most: int) -> None:
    """Do some work again and again, until the compiler of the arena's broker has little to do meanwhile."""
    broker = arena.broker.pid
    assert broker is not None
    for _ in range(at_most):
        began, before = time.monotonic(), compiler_secs(broker)
        work()
        share = (compiler_secs(broker) - before) / (time.monotonic() - began)
        arena.say(f"warming up: the broker's compiler took {share:.0%} of a core")
        if share < COMPILED_SHARE:
            break
