"""The other members of the group: addresses from the settings, with host names looked up every few seconds.

Kafka's group contains client ids and hosts, but no ports, and a database would be another thing to operate. So it works
as in Prometheus: a list of addresses, or a DNS name for all of them, such as that of a headless service. Peers are
queried only while somebody is looking, with timeouts, and with a limit for their answers.
"""

import asyncio
import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from pydantic import SecretStr

from connector.console.guarding import Form, read_limited
from connector.console.joining import WorkerAnswer

MAX_ADDRESSES: Final = 64
_LOOK_UP_SECS: Final = 10.0
_RESOLVE_SECS: Final = 2.0
_ASK_SECS: Final = 2.0
_ACT_SECS: Final = 15.0
_MAX_BYTES: Final = 8_000_000


@dataclass(frozen=True, slots=True)
class _Address:
    """The address of one peer, and its displayed name."""

    url: str
    host: str
    server_name: str | None


class Peers:
    """The peers in the settings. Not thread-safe: used by one event loop."""

    def __init__(self, named: Iterable[str]) -> None:
        self.named = tuple(named)
        self._session: aiohttp.ClientSession | None = None
        self._own: set[str] = set()
        self._found: list[_Address] = []
        self._found_at = float("-inf")

    def is_self(self, address: str) -> None:
        """Note that an address is our own."""
        self._own.add(address)

    async def close(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()

    async def ask(self, path: str, *, form: Form | None = None, token: SecretStr | None = None) -> list[WorkerAnswer]:
        """Request a page from every peer, or send it a form with the token; return the answers, each by its address."""
        addresses = [address for address in await self._addresses() if address.url not in self._own]
        return await asyncio.gather(*(self._ask(address, path, form, token) for address in addresses))

    async def _addresses(self) -> list[_Address]:
        loop = asyncio.get_running_loop()
        if loop.time() - self._found_at > _LOOK_UP_SECS:
            found = await asyncio.gather(*map(_resolved, self.named))
            self._found = list({address.url: address for some in found for address in some}.values())[:MAX_ADDRESSES]
            self._found_at = loop.time()
        return self._found

    async def _ask(self, address: _Address, path: str, form: Form | None, token: SecretStr | None) -> WorkerAnswer:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=MAX_ADDRESSES))
        headers = {"Host": address.host}
        body = None
        if form is not None and token is not None:
            headers |= {"Authorization": f"Bearer {token.get_secret_value()}"}
            headers |= {"Content-Type": "application/x-www-form-urlencoded"}
            body = urlencode(form).encode()
        try:
            async with self._session.request(
                "GET" if body is None else "POST",
                address.url + quote(path),
                data=body,
                headers=headers,
                server_hostname=address.server_name,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(_ASK_SECS if body is None else _ACT_SECS),
            ) as reply:
                answer = await read_limited(reply.content, _MAX_BYTES)
                told = None if answer is None else json.loads(answer)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError):
            return silent(address.url)
        if not isinstance(told, dict) or not (_is_status(told) if form is None else _is_answer(told)):
            return silent(address.url)
        return WorkerAnswer(address.url, "running", reply.status, told)


def silent(address: int | str) -> WorkerAnswer:
    """Return what stands for a peer without an answer that can be read."""
    return WorkerAnswer(address, "not to be reached", body={})


def _is_status(told: dict[str, Any]) -> bool:
    return {"instance_id", "streams"} <= told.keys()


def _is_answer(told: dict[str, Any]) -> bool:
    """Return whether this is a worker's answer to a form; a proxy in front of it may return other JSON."""
    if "problem" in told:
        return isinstance(told["problem"], str)
    return "stream" in told and all(
        isinstance(told.get(key), list) for key in ("ended", "probed", "undecided", "not_held")
    )


async def _resolved(named: str) -> list[_Address]:
    """Return the addresses of a peer in the settings; the name itself if it cannot be looked up."""
    parts = urlsplit(named)
    assert parts.hostname is not None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    server_name = parts.hostname if parts.scheme == "https" else None
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_RESOLVE_SECS):
            found = await loop.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        return [_Address(named, parts.netloc, server_name)]
    hosts = sorted({str(address[0]) for *_, address in found})
    return [
        _Address(
            f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}{parts.path}", parts.netloc, server_name
        )
        for host in hosts
    ]
