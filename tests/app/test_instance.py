"""Which other process has our instance id: processes that have ended do not count."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from structlog.testing import capture_logs

import connector.app.instance as module
from connector.app.instance import TemporaryFolderError, _started, claim, refuse_twin, take_over
from connector.config.settings import Settings
from connector.kafka.errors import RetriableError
from connector.kafka.groups import Member
from tests.deadletters.making import STREAM
from tests.kit.patience import PATIENCE_SECS


def test_a_process_that_has_ended_is_gone_even_while_its_parent_has_not_asked_for_it() -> None:
    """As in a container whose first process asks for none: a worker must not be kept out by itself of before."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
        assert _started(process.pid) == int(stat.rpartition(")")[2].split()[19])

        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

        assert _started(process.pid) == 0
    assert _started(process.pid) == 0


def test_a_group_that_is_not_answered_for_is_soon_asked_again_and_then_given_more_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While a cluster makes its first groups' topic librdkafka loses an answer; the second question gets it at once."""
    given: list[float] = []

    def silent_four_times(_config: object, _group: str, timeout_secs: float) -> list[Member]:
        given.append(timeout_secs)
        if len(given) <= 4:
            raise RetriableError("Local: Timed out", "asking who is in group g")
        return []

    monkeypatch.setattr(module, "members", silent_four_times)
    with capture_logs() as logs:
        refuse_twin(_settings(), take_over("a"), wait=lambda _secs: None)

    assert given == [2, 4, 8, 10, 10]
    assert [entry["event"] for entry in logs] == ["group cannot be asked yet"] * 4


@pytest.mark.parametrize("workers", [1, 2])
def test_where_no_temporary_file_can_be_made_that_is_reported_in_two_lines(tmp_path: Path, workers: int) -> None:
    """As in a container with a read-only root and nothing mounted at /tmp, or on a full disk."""
    settings = tmp_path / "connector.yaml"
    content = {
        "workers": workers,
        "kafka": {"bootstrap_servers": "127.0.0.1:1"},
        "trackly": {"api_key": "k"},
        "web": {"enabled": False},
        "streams": [STREAM],
    }
    settings.write_text(yaml.safe_dump(content))
    command = f"ulimit -f 0; exec {sys.executable} -B -m connector run {settings}"

    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=PATIENCE_SECS)

    assert ended.returncode == 1, ended.stderr
    error, way_out = ended.stderr.splitlines()
    assert error.startswith("error: the folder of temporary files cannot be used: ")
    assert way_out.startswith("hint: free space, or set TMPDIR")


@pytest.mark.parametrize("instead", ["a folder of all", "a link"])
def test_a_lock_is_not_written_where_somebody_else_can(
    instead: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may make a folder among temporary files first, with a link in it to a file of ours, which is emptied."""
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(tmp_path))
    folder, ours = tmp_path / f"trackly-connector-{os.getuid()}", tmp_path / "ours"
    ours.write_text("precious")
    if instead == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    (folder / "one.lock").symlink_to(ours)

    with pytest.raises(TemporaryFolderError, match="it does not belong to us alone"):
        claim(_settings(instance_id="one"))

    assert ours.read_text() == "precious"


def test_the_id_of_a_process_that_was_just_killed_is_free_once_the_kernel_has_ended_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when somebody kills a worker and starts it again with one command."""
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(tmp_path))
    waits: list[float] = []
    killed = claim(_settings(instance_id="one"))
    assert killed.lock is not None

    def wait(secs: float) -> None:
        waits.append(secs)
        if len(waits) == 3:
            killed.lock.close()  # type: ignore[union-attr]

    monkeypatch.setattr("connector.app.instance.time.sleep", wait)

    again = claim(_settings(instance_id="one"))

    assert len(waits) == 3
    assert again.lock is not None
    again.lock.close()


def _settings(**more: object) -> Settings:
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": "localhost:9092"},
            "trackly": {"api_key": "trk_0123456789abcdef0123456789abcdef"},
            "streams": [STREAM],
            **more,
        }
    )
