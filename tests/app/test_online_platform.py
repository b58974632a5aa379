"""`check --online` queries the platform, and detects when something else answers in its place."""

import asyncio

import pytest

from connector.app.online import Finding, _platform
from connector.cli.errors import ExitCode
from connector.config.settings import Settings
from tests.deadletters.making import STREAM
from tests.kit.registries import Answer, MakeRegistry
from tests.kit.world import free_port


def _asked(url: str) -> list[Finding]:
    settings = Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": "localhost:9092"},
            "trackly": {"api_key": "trk_key", "base_url": url},
            "streams": [STREAM],
        }
    )
    return asyncio.run(_platform(settings))


def test_a_platform_that_shows_its_lists_accepts_the_key(make_registry: MakeRegistry) -> None:
    [finding] = _asked(make_registry(always=Answer(200, b'{"lists":[]}')).url)

    assert (finding.ok, finding.name) == (True, "platform")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, ExitCode.PLATFORM_REFUSED),
        (403, ExitCode.PLATFORM_REFUSED),
        (404, ExitCode.FAILED),
        (429, ExitCode.FAILED),
        (500, ExitCode.FAILED),
        (503, ExitCode.FAILED),
    ],
)
def test_what_says_nothing_of_key_account_or_list_is_no_refusal(
    status: int, code: ExitCode, make_registry: MakeRegistry
) -> None:
    """Whoever deploys asks again later after the one, and has something to mend after the other."""
    [finding] = _asked(make_registry(always=Answer(status, b"{}")).url)

    assert (finding.ok, finding.exit_code) == (False, code)


@pytest.mark.parametrize(
    ("status", "way_out"), [(302, "without a redirect"), (407, "trackly.proxy"), (405, "between the connector and")]
)
def test_what_something_in_between_answers_is_told_with_what_to_look_at(
    status: int, way_out: str, make_registry: MakeRegistry
) -> None:
    [finding] = _asked(make_registry(always=Answer(status, b"{}")).url)

    assert way_out in finding.way_out


def test_a_platform_that_does_not_answer_has_refused_nothing() -> None:
    [finding] = _asked(f"http://127.0.0.1:{free_port()}")

    assert (finding.ok, finding.exit_code) == (False, ExitCode.FAILED)


def test_a_list_that_the_account_does_not_have_is_a_refusal(make_registry: MakeRegistry) -> None:
    lists = b'{"lists": [{"phone_number": "+18005550000", "status": "active"}]}'

    _, finding = _asked(make_registry(always=Answer(200, lists)).url)

    assert (finding.ok, finding.exit_code) == (False, ExitCode.PLATFORM_REFUSED)


@pytest.mark.parametrize("page", [b"<html>Maintenance</html>", b"OK", b""])
def test_a_page_in_the_place_of_the_platform_accepts_no_key(page: bytes, make_registry: MakeRegistry) -> None:
    tiny = make_registry(always=Answer(200, page, content_type="text/html"))

    [finding] = _asked(tiny.url)

    assert not finding.ok
    assert finding.detail == f"{tiny.url}: HTTP 200 with something other than a JSON object"
    assert "trackly.base_url" in finding.way_out
