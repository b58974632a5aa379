"""Programs that no package of ours brings: a test that needs one is left out without it, as the report's end says.

`.ci/run` installs them all, so that none is left out there.
"""

import shutil
from typing import Final, NoReturn

import pytest

LEFT_OUT: Final = "a program is missing"

PACKAGES: Final = {
    "chromedriver": "chromium-driver",
    "chromium": "chromium",
    "curl": "curl",
    "kcat": "kcat",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "systemd-analyze": "systemd",
}
"""Debian's package of each."""


def program(name: str) -> str:
    """Return where a program is, or leave the test out."""
    found = shutil.which(name)
    if found is None:
        leave_out(f"{name}, of Debian's package {PACKAGES[name]}")
    return found


def leave_out(why: str) -> NoReturn:
    """Leave the test out for want of a program."""
    pytest.skip(f"{LEFT_OUT}: {why}")
