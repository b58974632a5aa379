"""The interface through which the console sees and changes streams, implemented by a worker and by a supervisor.

`Group` implements it for a whole group: the host itself, and the peers in `web.peers`. Actions apply to all members;
each peer checks the token itself.
"""

import asyncio
from dataclasses import replace
from typing import Any, Protocol

from pydantic import SecretStr

from connector.config.settings import Settings
from connector.console.guarding import Form
from connector.console.joining import WorkerAnswer, joined_resumed, joined_streams
from connector.console.peers import Peers, silent
from connector.console.sampling import counts_of
from connector.telemetry.logging import get_logger

log = get_logger("console")


class Host(Protocol):
    """What serves the console."""

    @property
    def settings(self) -> Settings:
        """Return the settings."""

    def token(self) -> SecretStr | None:
        """Return the present token."""

    async def status(self) -> dict[str, Any]:
        """Return the content of `/status`."""

    async def act(self, stream: str, action: str, form: Form, *, remote: str | None) -> tuple[int, dict[str, Any]]:
        """Pause or resume a stream for an authorised caller; return HTTP status and result."""


class Group:
    """The host and its peers, merged."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._peers = Peers(host.settings.web.peers)

    async def close(self) -> None:
        """Close connections."""
        await self._peers.close()

    async def status(self) -> dict[str, Any]:
        """Return the status of the whole group; a peer that does not answer in time is named and left out."""
        if not self._peers.named:
            return {"members": [], "workers": [], **await self.host.status()}
        own, answers = await asyncio.gather(self.host.status(), self._peers.ask("/status"))
        others = self._others(own, answers)
        parts = [WorkerAnswer(own["instance_id"], "running", 200, own)]
        parts += [replace(one, ordinal=one.body["instance_id"]) for one in others if one.status == 200]
        members = [_member(own, "here", 200), *(_member(one.body, str(one.ordinal), one.status) for one in others)]
        workers = [
            {**worker, "ordinal": f"{part.ordinal}/{worker['ordinal']}"}
            for part in parts
            for worker in part.body.get("workers", [])
        ]
        return {
            **own,
            "members": members,
            "workers": workers,
            "streams": joined_streams(parts),
        }

    async def act(self, stream: str, action: str, form: Form, *, remote: str | None) -> tuple[int, dict[str, Any]]:
        """Pause or resume a stream on every member."""
        token = self.host.token()
        own = await self.host.act(stream, action, form, remote=remote)
        if not self._peers.named or token is None:
            return own
        status = await self.host.status()
        answers = await self._peers.ask(f"/streams/{stream}/{action}", form=form, token=token)
        others = self._others(status, answers)
        named = [replace(one, ordinal=str(one.body.get("instance_id", one.ordinal))) for one in others]
        return joined_resumed([WorkerAnswer(status["instance_id"], "running", *own), *named])

    def _others(self, own: dict[str, Any], answers: list[WorkerAnswer]) -> list[WorkerAnswer]:
        """Return the answers of others; an address that turns out to be our own is not queried again."""
        others: dict[str, WorkerAnswer] = {}
        for one in answers:
            address, name = str(one.ordinal), one.body.get("instance_id")
            if name == own["instance_id"]:
                self._peers.is_self(address)
            elif one.status == 200 and "streams" in one.body and not _is_readable(one):
                others.setdefault(address, silent(address))
            else:
                others.setdefault(str(name or address), one)
        return list(others.values())


def _is_readable(one: WorkerAnswer) -> bool:
    """Return whether a peer's version is compatible; otherwise it is shown as silent."""
    try:
        for stream in joined_streams([WorkerAnswer("", "running", 200, one.body)]):
            counts_of(stream)
    except (LookupError, TypeError, ValueError, AttributeError):
        return False
    return True


def _member(body: dict[str, Any], address: str, status: int) -> dict[str, Any]:
    """Return what is shown of a member."""
    return {
        "name": str(body.get("instance_id", address)),
        "address": address,
        "state": "answers" if status == 200 else "silent",
        "version": body.get("version"),
        "workers": len(body.get("workers", [])) or 1,
    }
