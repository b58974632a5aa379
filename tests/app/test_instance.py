"""Who else has our instance id: processes that have ended do not count."""

import os
import subprocess
import sys
from pathlib import Path

from connector.app.instance import _started


def test_a_process_that_has_ended_is_gone_even_while_its_parent_has_not_asked_for_it() -> None:
    """As in a container whose first process asks for none: a worker must not be kept out by itself of before."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
        assert _started(process.pid) == int(stat.rpartition(")")[2].split()[19])

        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

        assert _started(process.pid) == 0
    assert _started(process.pid) == 0
