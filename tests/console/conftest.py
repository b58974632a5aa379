"""A console over a host of the tests' own: it records requests, and its answers can be set."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from connector.config.settings import Settings
from connector.console.guarding import Form, make_safe
from connector.console.pages import Console
from tests.console.making import status, stream

TOKEN = "a-token-of-the-tests-0123456789"


def settings(**web_settings: Any) -> Settings:
    """Return settings of one stream."""
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": "localhost:1"},
            "trackly": {"base_url": "http://127.0.0.1:1", "api_key": "trk_0123456789abcdef0123456789abcdef"},
            "web": web_settings,
            "streams": [
                {
                    "name": "campaign-sends",
                    "topics": ["sms.campaign"],
                    "operation": "send",
                    "list_number": "+18005551234",
                    "outcomes": {"topic": "o"},
                    "dead_letters": {"topic": "d"},
                }
            ],
        }
    )


@dataclass
class FakeHost:
    """Stands for a worker."""

    settings: Settings = field(default_factory=settings)
    secret: SecretStr | None = field(default_factory=lambda: SecretStr(TOKEN))
    told: dict[str, Any] = field(default_factory=lambda: status(stream()))
    answer: tuple[int, dict[str, Any]] = (200, {"stream": "campaign-sends", "ended": [], "probed": [], "undecided": []})
    done: list[tuple[str, str, Form]] = field(default_factory=list)
    asked: int = 0

    def token(self) -> SecretStr | None:
        return self.secret

    async def status(self) -> dict[str, Any]:
        self.asked += 1
        return self.told

    async def act(self, stream: str, action: str, form: Form, *, remote: str | None) -> tuple[int, dict[str, Any]]:
        self.done.append((stream, action, form))
        return self.answer


Site = TestClient[web.Request, web.Application]


@asynccontextmanager
async def console(host: FakeHost) -> AsyncIterator[Site]:
    """Serve a console, and yield a client that follows no redirects by itself and keeps cookies."""
    app = web.Application()
    app.on_response_prepare.append(make_safe)
    Console(host).add_to(app)
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()
