"""`dead-letters in-doubt` rejects invalid time spans."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from connector.cli.main import app


@pytest.mark.parametrize("minutes", ["inf", "1e300", "nan", "-1"])
def test_a_window_without_end_is_refused(minutes: str, tmp_path: Path) -> None:
    """And not met first where it is reckoned with, by a traceback."""
    result = CliRunner().invoke(app, ["dead-letters", "in-doubt", str(tmp_path / "x.yaml"), "--window-mins", minutes])

    assert (result.exit_code, "--window-mins" in result.stderr) == (2, True), result.output
