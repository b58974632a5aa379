"""`dead-letters export` leaves its file whole or not at all."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from connector.cli.dead_letters.copying import _opened
from tests.kit.patience import PATIENCE_SECS

ROOT = Path(__file__).resolve().parents[2]
_KILLED = """
import signal, sys, time
from pathlib import Path
from connector.cli.dead_letters.copying import _opened
signal.signal(int(sys.argv[2]), signal.SIG_DFL)  # tests under nohup hand SIGHUP on as ignored
with _opened(Path(sys.argv[1])) as write:
    write("half")
    signal.raise_signal(int(sys.argv[2]))
    time.sleep(30)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_export_that_is_killed_leaves_nothing_behind_and_ends_by_the_signal(
    number: signal.Signals, tmp_path: Path
) -> None:
    """What was begun holds numbers and texts in the clear, under a name that nobody looks for."""
    words = [sys.executable, "-c", _KILLED, str(tmp_path / "letters.ndjson"), str(int(number))]

    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_SECS)

    assert (done.returncode, list(tmp_path.iterdir())) == (-number, []), done.stderr


def test_an_export_that_was_killed_blocks_no_other(tmp_path: Path) -> None:
    left = tmp_path / ".dead-letters.abcdefgh.part"
    left.write_text("half")
    out = tmp_path / "letters.ndjson"
    before = signal.getsignal(signal.SIGTERM)

    with _opened(out) as write:
        write("whole")

    assert (out.read_text(), sorted(tmp_path.iterdir())) == ("whole", [left, out])
    assert signal.getsignal(signal.SIGTERM) is before
