"""The unit is one that systemd takes, does what the documents say, and leaves the process only what it needs."""

import re
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path
from typing import Any, Final

import pytest

from connector.cli.errors import RESTARTS, ExitCode
from connector.config.settings import ShutdownSettings
from tests.deploy.conftest import DEPLOY
from tests.docs.commands import PROGRAM, problem_with
from tests.kit.programs import program

UNIT: Final = DEPLOY / "systemd" / "trackly-connector.service"
EXPOSURE: Final = 2.0
"""Of 10, as `systemd-analyze security` counts; above 2 something was opened that was closed."""


class _Unit(RawConfigParser):
    """A unit file: names keep their case, and some are given several times."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    unit = _Unit(strict=False, interpolation=None)
    unit.read(UNIT)
    return dict(unit["Service"])


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program("systemd-analyze"), *arguments], capture_output=True, text=True, check=False)


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(re.sub(r"/opt/\S+/trackly-connector\b(?= )", sys.executable, UNIT.read_text()))

    result = _analyze("verify", str(copy))

    assert (result.returncode, result.stderr) == (0, "")


def test_the_service_is_hardened() -> None:
    result = _analyze("security", "--offline=true", str(UNIT))

    found = re.search(r"exposure level for \S+: ([0-9.]+)", result.stdout)
    assert found is not None, result.stdout + result.stderr
    assert float(found[1]) <= EXPOSURE


def test_a_crash_leaves_no_memory_behind(service: dict[str, Any]) -> None:
    assert service["LimitCORE"] == "0"


def test_commands_exist(service: dict[str, Any]) -> None:
    for name in ("ExecStartPre", "ExecStart"):
        program, *arguments = service[name].split()
        assert program.endswith(f"/{PROGRAM}")
        assert problem_with(arguments) is None


def test_a_stop_has_the_time_that_the_settings_count_on(service: dict[str, Any]) -> None:
    assert float(service["TimeoutStopSec"]) == ShutdownSettings().grace_secs
    assert service["KillMode"] == "mixed", "a supervisor passes the signal on"


def test_what_no_restart_fixes_is_not_started_again(service: dict[str, Any]) -> None:
    """Of settings that never worked: what `run` ends with is that of a start, as workers that lived are tried again."""
    assert set(map(int, service["RestartPreventExitStatus"].split())) == RESTARTS.final | {ExitCode.BAD_SETTINGS}
