"""Alert rules ask for metrics that exist, lead to pages that exist, and fire when they should and only then."""

import re
import subprocess
from typing import Any

import pytest

from connector.core.pacing import STALE_SECS
from tests.deploy.conftest import ROOT
from tests.deploy.queries import RULES_FILE, RULES_TEST, problems, rules
from tests.kit.patience import PATIENCE_SECS
from tests.kit.programs import program

each_rule = pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
_LINK = re.compile(
    r"\{\{ with \$externalLabels\.docs_url \}\}\{\{ \. \}\}/runbook/([a-z-]+)/"
    r"\{\{ else \}\}docs/runbook/\1\.md\{\{ end \}\}"
)


@pytest.mark.parametrize(
    ("expr", "found"),
    [
        ('sum by (stream) (rate(trackly_queued_total{stream="x"}[5m]))', []),
        ("histogram_quantile(0.5, sum by (le) (rate(trackly_request_seconds_bucket[5m])))", []),
        ("trackly_queued", ["no metric trackly_queued"]),
        ('trackly_hold{row="x"}', ["trackly_hold has no label row"]),
        ("sum by (colour) (trackly_hold)", ["nothing has a label colour"]),
    ],
)
def test_the_judge_of_queries_knows_good_from_bad(expr: str, found: list[str]) -> None:
    assert list(problems(expr)) == found


@each_rule
def test_metrics_and_labels_of_a_rule_exist(rule: dict[str, Any]) -> None:
    assert list(problems(rule["expr"])) == []


@each_rule
def test_a_rule_leads_to_its_page_of_the_runbook(rule: dict[str, Any]) -> None:
    """Served or in the source tree, it is the same page, and it names the alert."""
    found = _LINK.fullmatch(rule["annotations"]["runbook_url"])

    assert found is not None
    page = (ROOT / "docs" / "runbook" / f"{found[1]}.md").read_text()
    assert rule["alert"] in page.splitlines()[0]


@each_rule
def test_a_rule_says_how_bad_it_is_and_what_is_the_matter(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]


def test_limits_that_are_the_platforms_are_those_of_the_code() -> None:
    """It drops what has waited for 30 minutes: what the rules say of it is what the pacer knows."""
    limits = {rule["alert"]: rule["expr"].rpartition(">")[2].strip() for rule in rules()}

    assert {float(limits[name]) for name in ("TracklyRecordsTooOld", "TracklyPaceOutlived")} == {STALE_SECS}


def test_every_rule_is_tried() -> None:
    tried = RULES_TEST.read_text()

    assert [rule["alert"] for rule in rules() if not re.search(rf"\b{rule['alert']}\b", tried)] == []


@pytest.mark.parametrize(
    "arguments", [["check", "rules", RULES_FILE], ["test", "rules", RULES_TEST]], ids=["check", "test"]
)
def test_prometheus_itself_is_content_with_the_rules(arguments: list[Any]) -> None:
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=PATIENCE_SECS
    )

    assert done.returncode == 0, done.stdout + done.stderr
