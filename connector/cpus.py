"""The CPUs that this process was given, whatever its threads are restricted to later."""

import os
from typing import Final

USABLE: Final = frozenset(os.sched_getaffinity(0))
