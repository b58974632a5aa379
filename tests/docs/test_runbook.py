"""The runbook has a page for each reason of a hold, with the four things that somebody wants to know at night."""

import re
from pathlib import Path
from typing import Final

import pytest

from connector.telemetry.runbook import FOLDER, hold_page, runbook_of
from tests.deploy.conftest import ROOT
from tests.deploy.queries import rules
from tests.docs.test_holds import reasons_in_code

RUNBOOK: Final = ROOT / FOLDER
PAGES: Final = sorted(path for path in RUNBOOK.glob("*.md") if path.name != "README.md")
HEADINGS: Final = ["What it means", "What to look at", "What to do", "What not to do"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_says_what_it_means_what_to_look_at_and_what_to_do_and_not(path: Path) -> None:
    text = path.read_text()
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)[1:]

    assert parts[::2] == HEADINGS
    assert all(len(part.strip()) > 40 for part in parts[1::2])


@pytest.mark.parametrize("reason", sorted(reasons_in_code()))
def test_every_reason_of_a_hold_has_its_page_and_is_listed(reason: str) -> None:
    """The reasons are those that stand in the code."""
    file = ROOT / runbook_of(reason, None)

    assert reason.partition(":")[0] in file.read_text().splitlines()[0]
    assert f"]({file.name})" in (RUNBOOK / "on-hold.md").read_text()


def test_no_page_is_about_a_hold_that_is_not_there() -> None:
    given = {hold_page(reason) for reason in reasons_in_code()}

    assert {path.stem for path in PAGES if path.stem.startswith("hold-")} == given


def test_every_alert_and_no_other_is_listed_with_its_severity() -> None:
    rows = re.findall(
        r"^\| `(Trackly\w+)` \| (\w+) \| \[.+\]\([a-z-]+\.md\) \|$", (RUNBOOK / "README.md").read_text(), re.MULTILINE
    )

    assert rows == [(rule["alert"], rule["labels"]["severity"]) for rule in rules()]


@pytest.mark.parametrize(
    ("reason", "docs_url", "link"),
    [
        ("unauthorized", None, "docs/runbook/hold-unauthorized.md"),
        ("setting:list_not_found", None, "docs/runbook/hold-setting.md"),
        (
            "kafka_authorization",
            "https://docs.example.org/x",
            "https://docs.example.org/x/runbook/hold-kafka-authorization/",
        ),
        ("storm:missing_body", "https://docs.example.org/", "https://docs.example.org/runbook/hold-storm/"),
    ],
)
def test_links_lead_to_where_the_documentation_is_served(reason: str, docs_url: str | None, link: str) -> None:
    assert runbook_of(reason, docs_url) == link
