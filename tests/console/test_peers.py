"""Members on other machines: found by name, queried while somebody looks, merged, and acted on together."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from connector.config.settings import WebSettings
from connector.console.hosting import Group
from connector.console.peers import Peers
from tests.console.conftest import TOKEN, FakeHost, settings
from tests.console.making import hold, status, stream
from tests.kit.patience import PATIENCE_SECS

STREAM: Final = "campaign-sends"
ACTED: Final[dict[str, Any]] = {"stream": STREAM, "ended": [], "probed": [], "undecided": [], "not_held": []}


class Member:
    """A worker's pages for machines, as another member sees them."""

    def __init__(self, told: dict[str, Any], *, token: str = TOKEN) -> None:
        self.told = told
        self.token = token
        self.asked = 0
        self.done: list[str] = []
        app = web.Application()
        app.add_routes([web.get("/status", self._status), web.post("/streams/{name}/{action}", self._act)])
        self.server = TestServer(app)

    async def _status(self, _request: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response(self.told)

    async def _act(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"problem": "the token is wrong"}, status=401)
        self.done.append(f"{request.match_info['action']} {await request.text()}")
        paused = [{"reason": "paused", "partition": None}]
        return web.json_response({**ACTED, "instance_id": self.told["instance_id"], "paused": paused})

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"


def _status(name: str, **over: Any) -> dict[str, Any]:
    return {**status(stream(**over)), "instance_id": name}


async def _group(stack: AsyncExitStack, host: FakeHost, members: list[Member], *more: str) -> Group:
    for member in members:
        await stack.enter_async_context(member.server)
    host.settings = settings(peers=[*(member.address for member in members), *more])
    group = Group(host)
    stack.push_async_callback(group.close)
    return group


def test_a_group_is_shown_as_one_with_what_belongs_to_each_member(host: FakeHost) -> None:
    """A member that is a supervisor names its workers within itself; one that is silent is named and left out."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            one = Member(_status("two", queued=5, holds=[hold(since=2.0)], partitions={"t:1": {"read": 1}}))
            supervisor = Member(_status("three", queued=7, holds=[{**hold(since=1.0), "worker": 1}]))
            supervisor.told["workers"] = [{"ordinal": 1, "instance_id": "three-1"}]
            host.told = _status("one", queued=1, partitions={"t:0": {"read": 1}})
            silent = f"127.0.0.1:{unused_port()}"
            group = await _group(stack, host, [one, supervisor], silent)

            told = await group.status()

        (seen,) = told["streams"]
        assert seen["queued"] == 13
        assert [found["worker"] for found in seen["holds"]] == ["three/1", "two"]
        assert {name: found["worker"] for name, found in seen["partitions"].items() if name != "sms.campaign:0"} == {
            "t:0": "one",
            "t:1": "two",
        }
        assert {member["name"]: member["state"] for member in told["members"]} == {
            "one": "answers",
            "two": "answers",
            "three": "answers",
            f"http://{silent}": "silent",
        }
        assert [worker["ordinal"] for worker in told["workers"]] == ["three/1"]

    asyncio.run(main())


@pytest.mark.parametrize(
    "broken", [{"state": "something new"}, {"lag": "many"}, {"dead_letters": {"a": "b"}}, {"holds": 1}]
)
def test_a_member_that_speaks_otherwise_does_not_break_the_page(host: FakeHost, broken: dict[str, Any]) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            host.told = _status("one", queued=3)
            group = await _group(stack, host, [Member(_status("two", **broken))])

            told = await group.status()

            assert told["streams"][0]["queued"] == 3
            assert [member["state"] for member in told["members"]] == ["answers", "silent"]

    asyncio.run(main())


def test_our_own_address_may_be_among_them(host: FakeHost) -> None:
    """It is counted once, and not asked again once it is known."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            host.told = _status("one", queued=3)
            mirror, other = Member(host.told), Member(_status("two", queued=4))
            group = await _group(stack, host, [mirror, other])

            sums = [(await group.status())["streams"][0]["queued"] for _ in range(3)]

            assert sums == [7, 7, 7]
            assert (mirror.asked, other.asked) == (1, 3)

    asyncio.run(main())


def test_an_action_goes_to_every_member_and_failures_are_reported(host: FakeHost) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            host.told = _status("one")
            host.answer = (200, {**ACTED, "paused": [{"reason": "paused", "partition": None}]})
            right, wrong = Member(_status("two")), Member(_status("three"), token="another-token-0123456789")
            group = await _group(stack, host, [right, wrong])

            code, told = await group.act(STREAM, "pause", [("note", "x y")], remote="127.0.0.1")

            assert host.done == [(STREAM, "pause", [("note", "x y")])]
            assert right.done == ["pause note=x+y"]
            assert wrong.done == []
            assert code == 401
            assert told["problem"].endswith(": the token is wrong")
            assert [paused["worker"] for paused in told["paused"]] == ["one", "two"]

    asyncio.run(main())


@pytest.mark.parametrize("body", [{}, {"error": "bad gateway"}, {"problem": ["x"]}, {**ACTED, "ended": None}], ids=str)
def test_what_a_proxy_says_in_place_of_a_member_is_no_answer_of_it(host: FakeHost, body: dict[str, Any]) -> None:
    """What was done elsewhere is told, and that this member was not reached."""

    async def refuse(_request: web.Request) -> web.Response:
        return web.json_response(body, status=502)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            host.told = _status("one")
            host.answer = (200, {**ACTED, "paused": [{"reason": "paused", "partition": None}]})
            proxy = web.Application()
            proxy.add_routes([web.post("/streams/{name}/{action}", refuse)])
            server = await stack.enter_async_context(TestServer(proxy))
            group = await _group(stack, host, [], f"127.0.0.1:{server.port}")

            code, told = await group.act(STREAM, "pause", [], remote="127.0.0.1")

            assert code == 503
            assert [paused["worker"] for paused in told["paused"]] == ["one"]
            assert "was not told, it is not to be reached" in told["problem"]

    asyncio.run(main())


@pytest.mark.parametrize("body", [b"[]", b"{}", b"no json", b'{"instance_id": "x"}', b"[" * 100_000, b" " * 9_000_000])
def test_what_is_no_status_is_no_member(body: bytes) -> None:
    async def main() -> None:
        async def answer(_request: web.Request) -> web.Response:
            return web.Response(body=body)

        app = web.Application()
        app.add_routes([web.get("/status", answer)])
        async with TestServer(app) as server:
            peers = Peers([f"http://127.0.0.1:{server.port}"])
            (found,) = await peers.ask("/status")
            await peers.close()
        assert (found.status, found.body) == (0, {})

    asyncio.run(main())


def test_a_peer_that_hangs_is_given_up_in_time() -> None:
    async def main() -> float:
        async def hang(_request: web.Request) -> web.Response:
            await asyncio.sleep(PATIENCE_SECS)
            return web.Response()

        app = web.Application()
        app.add_routes([web.get("/status", hang)])
        server = TestServer(app)
        await server.start_server(shutdown_timeout=0.1)
        peers = Peers([f"http://127.0.0.1:{server.port}"])
        began = asyncio.get_running_loop().time()
        (found,) = await peers.ask("/status")
        took = asyncio.get_running_loop().time() - began
        await peers.close()
        await server.close()
        assert found.status == 0
        return took

    assert asyncio.run(main()) < PATIENCE_SECS / 2


@pytest.mark.parametrize(
    ("named", "url"),
    [
        ("pod-1.pods:8080", "http://pod-1.pods:8080"),
        ("https://a.example/connector/", "https://a.example/connector"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("bücher.example:8080", "http://bücher.example:8080"),
    ],
)
def test_peers_are_named_by_host_and_port_or_by_url(named: str, url: str) -> None:
    assert WebSettings.model_validate({"peers": [named]}).peers == [url]


@pytest.mark.parametrize(
    "named", ["pod-1", "ftp://a:1", "http://user:secret@a:1", "a:1/x?y=1", "", "a b:1", "a:99999", "a..b:1"]
)
def test_what_is_no_address_is_refused(named: str) -> None:
    with pytest.raises(ValueError, match="peers") as refused:
        WebSettings.model_validate({"peers": [named]})

    assert "secret" not in str(refused.value).partition("input_value")[0]
