"""What `dead-letters redrive` checks before it reads anything."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from connector.cli.main import app


@pytest.mark.parametrize("rate", ["inf", "nan", "-1"])
def test_a_rate_that_nothing_can_be_reckoned_with_is_refused(rate: str, tmp_path: Path) -> None:
    """And not met first where it is reckoned with, by a traceback, when it was confirmed."""
    result = CliRunner().invoke(app, ["dead-letters", "redrive", str(tmp_path / "x.yaml"), "--rate", rate])

    assert (result.exit_code, "--rate" in result.stderr) == (2, True), result.output
