"""A supervisor whose workers are programs of the tests: what it passes to them, and its effects on the machine."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Final, cast

import pytest
import yaml

from connector.app.instance import Claim
from connector.cli.errors import RESTARTS, ExitCode
from connector.config.load import load_settings
from connector.console.listening import PagesError
from connector.core.restarts import Restarts
from connector.workers import supervisor
from connector.workers.supervisor import Supervisor
from connector.workers.worker import Worker

ONCE_MORE: Final = """
import os, sys
copy, mark, folder = sys.argv[1:]
if os.path.exists(mark):
    open(mark, "w").write("there" if os.path.exists(copy) else "missing")
    sys.exit(4)
open(mark, "w").close()
os.remove(copy)
if folder == "folder":
    os.rmdir(os.path.dirname(copy))
sys.exit(1)
"""
"""The first to come removes the settings and dies; the second writes into the mark whether there are some."""


@pytest.fixture(autouse=True)
def _no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim ids without locks, which would be held until the tests end."""
    monkeypatch.setattr(supervisor, "claim_all", lambda _settings: [Claim("one", "client", None)])


def run(folder: Path, program: str, *arguments: str, web: bool, becomes: str | None = None) -> int:
    """Run a supervisor whose worker is a program that is given the path of the settings first; return its exit code.

    `becomes` is what the settings file says once it was read.
    """
    stream = {"name": "sends", "topics": ["sms"], "operation": "send", "list_number": "+18005551234"}
    topics = {"outcomes": {"topic": "o"}, "dead_letters": {"topic": "d"}}
    file = folder / "connector.yaml"
    content = {
        "kafka": {"bootstrap_servers": "nowhere:1"},
        "trackly": {"api_key": "k"},
        "web": {"enabled": web},
        "streams": [{**stream, **topics}],
    }
    file.write_text(yaml.safe_dump(content))

    def command(_worker: Worker, copy: Path, log_switched: bool = False) -> list[str]:
        switched = ["--log-switched"] if log_switched else []
        return [sys.executable, "-c", program, os.fspath(copy), *arguments, *switched]

    settings = load_settings(file)
    if becomes is not None:
        file.write_text(becomes)
    return asyncio.run(Supervisor(settings, RESTARTS, command).run())


@pytest.mark.parametrize("cleared", ["file", "folder"])
def test_a_worker_that_starts_again_has_settings_though_they_were_cleared_away_meanwhile(
    cleared: str, tmp_path: Path
) -> None:
    """Cleaners of temporary folders remove what nobody has read for days, as systemd's does after ten."""
    mark = tmp_path / "mark"

    code = run(tmp_path, ONCE_MORE, os.fspath(mark), cleared, web=False)

    assert (code, mark.read_text()) == (ExitCode.INSTANCE_ID_IN_USE, "there")


SWITCHED: Final = """
import os, signal, sys
_, mark, *options = sys.argv[1:]
if os.path.exists(mark):
    open(mark, "w").write(" ".join(options))
    sys.exit(4)
open(mark, "w").close()
os.kill(os.getppid(), signal.SIGUSR1)
sys.exit(1)
"""
"""The first to come has the log's level switched and dies; the second writes into the mark what it was told."""


def test_a_worker_that_starts_after_the_log_was_switched_gets_the_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next signal would switch it the other way than the others."""
    monkeypatch.setattr(supervisor, "toggle_debug", lambda: None)
    mark = tmp_path / "mark"

    run(tmp_path, SWITCHED, os.fspath(mark), web=False)

    assert mark.read_text() == "--log-switched"


def test_no_worker_is_given_settings_that_somebody_else_has_put_there_meanwhile(tmp_path: Path) -> None:
    """The path stands in the arguments of each worker; once its folder was cleared away anybody may make it anew."""
    copy = supervisor._Copy(tmp_path / "home" / "settings.yaml", b"ours")
    copy.keep()
    shutil.rmtree(copy.path.parent)
    copy.path.parent.mkdir()
    copy.path.parent.chmod(0o777)
    copy.path.write_text("theirs")

    with pytest.raises(PermissionError, match="it does not belong to us alone"):
        copy.keep()


def test_workers_have_the_settings_that_were_read_whatever_the_file_says_by_then(tmp_path: Path) -> None:
    """It may be a pipe, as of a program that decrypts it, which is empty when it is read again."""
    program = "import sys; sys.exit(4 if 'nowhere:1' in open(sys.argv[1]).read() else 2)"

    code = run(tmp_path, program, web=False, becomes="")

    assert code == ExitCode.INSTANCE_ID_IN_USE, "with bad settings it would have ended all"


def test_a_signal_that_finds_no_worker_yet_leaves_no_folder_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the supervisor stops in order, SIGTERM ends the process at once, and settings may contain secrets."""
    home = tmp_path / "home"
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("the process would have ended"))

    def made(**_: str) -> str:
        home.mkdir()
        os.kill(os.getpid(), signal.SIGTERM)
        return os.fspath(home)

    monkeypatch.setattr("tempfile.mkdtemp", made)
    try:
        code = run(tmp_path, "import sys; sys.exit(2)", web=False)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert (code, home.exists()) == (ExitCode.OK, False)


def test_a_worker_whose_pages_never_answer_is_silent_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs before it has pages must not be `starting` for ever, with health green: a restart would help."""
    at = 1_000.0
    monkeypatch.setattr("connector.workers.worker.now", lambda: at)
    worker = Worker(0, "one", None, Restarts(RESTARTS), start_secs=360)
    process = cast(subprocess.Popen[bytes], SimpleNamespace())
    worker.began(process)
    at += 360
    assert worker.state == "starting"
    at += 1
    assert worker.state == "silent"

    worker.ended(1)
    worker.began(process)
    assert worker.state == "starting"
    worker.answered()
    at += 1_000

    assert worker.state == "running"


def test_a_long_path_of_temporary_files_is_refused_where_there_are_sockets_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", os.fspath(long))

    code = run(tmp_path, "import sys; sys.exit(4)", web=False)

    assert code == ExitCode.INSTANCE_ID_IN_USE
    with pytest.raises(PagesError, match="set TMPDIR to a shorter one"):
        run(tmp_path, "", web=True)
