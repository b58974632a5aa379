"""The CPUs that this process was given, whatever its threads are kept to later."""

import os
import sys
from typing import Final

USABLE: Final = frozenset(os.sched_getaffinity(0) if sys.platform == "linux" else range(os.cpu_count() or 1))
