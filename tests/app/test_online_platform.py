"""`check --online` asks the platform, and is not content with whoever answers in its place."""

import asyncio

import pytest

from connector.app.online import _platform
from connector.config.findings import Finding
from connector.config.settings import Settings
from tests.deadletters.making import STREAM
from tests.kit.registries import Answer, MakeRegistry


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


@pytest.mark.parametrize("page", [b"<html>Maintenance</html>", b"OK", b""])
def test_a_page_in_the_place_of_the_platform_accepts_no_key(page: bytes, make_registry: MakeRegistry) -> None:
    tiny = make_registry(always=Answer(200, page, content_type="text/html"))

    [finding] = _asked(tiny.url)

    assert not finding.ok
    assert tiny.url in finding.detail
    assert "trackly.base_url" in finding.way_out
