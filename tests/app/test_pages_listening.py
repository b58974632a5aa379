"""If a worker's pages cannot be served, the settings at fault are named; a free port is found and reported."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from connector.app.application import Connector
from connector.app.instance import Claim
from connector.app.loading import load
from connector.console.listening import PagesError
from connector.telemetry.metrics import REGISTRY

Make = Callable[[dict[str, Any]], Connector]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make an application with these settings of its pages; it is not started."""
    made: list[Connector] = []

    def connector(web: dict[str, Any]) -> Connector:
        outputs = {"outcomes": {"topic": "out"}, "dead_letters": {"topic": "dead"}}
        settings = {
            "kafka": {"bootstrap_servers": "localhost:1"},
            "trackly": {"api_key": "trk_key"},
            "web": web,
            "streams": [{"name": "sends", "topics": ["in"], "operation": "send", **outputs}],
        }
        path = tmp_path / "connector.yaml"
        path.write_text(yaml.safe_dump(settings))
        made.append(Connector(load(path), Claim("worker", "worker", None)))
        return made[-1]

    yield connector
    for application in made:
        REGISTRY.unregister(application._collector)


def listen(connector: Connector) -> list[Any]:
    """Serve the pages for a moment, and return where."""

    async def serve() -> list[Any]:
        pages = cast(Any, connector.web)
        await pages.start_server()
        addresses: list[Any] = pages._runner.addresses
        await pages.stop_server()
        return addresses

    return asyncio.run(serve())


def test_a_port_that_is_taken_is_named(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(PagesError) as caught:
            listen(make({"port": port}))

    assert str(caught.value) == f"cannot listen on web.host 127.0.0.1, web.port {port}: Address already in use"


@pytest.mark.parametrize(
    ("host", "why"),
    [("no-such-host.invalid", ""), ("192.0.2.7", "Cannot assign requested address")],
)
def test_a_host_that_is_not_of_this_machine_is_named(make: Make, host: str, why: str) -> None:
    with pytest.raises(PagesError) as caught:
        listen(make({"host": host, "port": 8080}))

    assert str(caught.value).startswith(f"cannot listen on web.host {host}, web.port 8080: {why}")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_with_port_0_any_free_one_is_taken(make: Make, host: str) -> None:
    assert all(port > 0 for _, port, *_ in listen(make({"host": host, "port": 0})))


@pytest.mark.parametrize("host", ["::1", "::", "fe80::1%eth0"])
def test_an_address_of_ipv6_is_taken(make: Make, host: str) -> None:
    assert make({"host": host}).conf.web_bind == host


def test_a_start_opens_no_event_loop_that_nobody_closes(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faust's Kafka consumer would have one: after a failed start it would leave a traceback on stderr."""
    connector, opened = make({"port": 0}), list[asyncio.AbstractEventLoop]()
    new_event_loop = asyncio.new_event_loop

    def opening() -> asyncio.AbstractEventLoop:
        opened.append(new_event_loop())
        return opened[-1]

    async def start() -> None:
        monkeypatch.setattr(asyncio, "new_event_loop", opening)
        await connector.on_start()

    asyncio.run(start())
    for loop in opened:
        loop.close()

    assert opened == []
