"""The check of command lines distinguishes good from bad."""

import pytest

from tests.docs.commands import problem_with


@pytest.mark.parametrize(
    "line",
    ["", "--version", "--help", "run connector.yaml", "check connector.yaml --online --json", "schema", "run --help",
     "run connector.yaml --workers 2",
     "dead-letters", "dead-letters stats connector.yaml --reason x",
     "simulate --port 8090 --list +18005551234 --list +18005551235"],
)  # fmt: skip
def test_lines_that_can_be_given(line: str) -> None:
    assert problem_with(line.split()) is None


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("start connector.yaml", "there is no command start"),
        ("run connector.yaml --threads 2", "run has no option --threads"),
        ("run", "run needs settings"),
        ("run a.yaml b.yaml", "run takes no b.yaml"),
        ("run connector.yaml settings", "run takes no settings"),
        ("check --online", "check needs settings"),
        ("dead-letters mend connector.yaml", "dead-letters has no command mend"),
        ("dead-letters show connector.yaml", "show needs place"),
        ("simulate --port", "simulate wants a value for --port"),
    ],
)
def test_lines_that_cannot_be_given(line: str, problem: str) -> None:
    assert problem_with(line.split()) == problem
