"""Resumes or pauses a stream, as a form says, after access was checked.

Programs come here with the token, by POST /streams/NAME/resume and /streams/NAME/pause; the console calls `act` after
its own checks (`connector/console`).
"""

from typing import TYPE_CHECKING, Any, Final

from connector.console.guarding import Form, RefusedError
from connector.core.chunks import Partition
from connector.stream.holds import CHOICES, Decision, HoldSeen, Resumed, options_for
from connector.telemetry.logging import get_logger

if TYPE_CHECKING:
    from connector.app.application import Connector

_MAX_SAID: Final = 200
"""Maximum length of an operator's note about a pause."""

log = get_logger("resume")


def decision_in(form: Form) -> Decision:
    """Return the decision in a form; raises `RefusedError`. Empty choices were not made."""
    partitions = set()
    choices: dict[str, str] = {}
    for name, value in form:
        if name == "partition":
            partitions.add(_partition(value))
        elif value in CHOICES.get(name, ()):
            choices[name] = value
        elif name in CHOICES and value:
            raise RefusedError(400, f"{name} must be {' or '.join(CHOICES[name])}")
        elif name not in {*CHOICES, "token"}:
            raise RefusedError(400, f"only token, partition, {', '.join(CHOICES)} are known")
    return Decision(frozenset(partitions), **choices)  # type: ignore[arg-type] # each was looked up above


def _partition(text: str) -> Partition:
    try:
        return Partition.read(text)
    except ValueError:
        raise RefusedError(400, "partition must be TOPIC:NUMBER") from None


def pause_in(form: Form) -> str:
    """Return who pauses and why, as the hold shows it; raises `RefusedError`."""
    said: dict[str, str] = {}
    for name, value in form:
        if name not in {"token", "by", "note"}:
            raise RefusedError(400, "only token, by and note are known")
        if len(value) > _MAX_SAID or not value.isprintable():
            raise RefusedError(400, f"{name} must be printable, {_MAX_SAID} characters at most")
        said[name] = value.strip()
    note = f": {said['note']}" if said.get("note") else ""
    return f"paused by {said.get('by') or 'an operator'}{note}"


def act(
    connector: "Connector", name: str, action: str, form: Form, *, remote: str | None
) -> tuple[int, dict[str, Any]]:
    """Resume or pause a stream for an authorised caller; return HTTP status and result.

    `remote` is the caller's address, for the log.
    """
    try:
        told = _done(connector, name, action, form)
    except RefusedError as error:
        return error.status, {"problem": str(error)}
    log.info(action, stream=name, remote=remote, **told)
    status = 409 if told["undecided"] else 200
    return status, {"stream": name, "instance_id": connector.claim.instance_id, **told}


def _done(connector: "Connector", name: str, action: str, form: Form) -> dict[str, Any]:
    """Do it, and return the result; raises `RefusedError`."""
    stream = next((stream for stream in connector.streams if stream.name == name), None)
    if stream is None:
        raise RefusedError(404, "there is no such stream here")
    if action not in {"pause", "resume"}:
        raise RefusedError(404, "a stream can only be paused or resumed")
    said = pause_in(form) if action == "pause" else decision_in(form)
    if stream.state_name != "running":
        raise RefusedError(409, f"the stream is {stream.state_name}")
    if isinstance(said, Decision):
        return told_of(stream.resume(said))
    return {**told_of(Resumed()), "paused": [_named(stream.pause(said))]}


def told_of(resumed: Resumed) -> dict[str, Any]:
    """Return the effect of a decision as JSON-ready values."""
    return {
        "ended": [_named(seen) for seen in resumed.ended],
        "probed": [_named(seen) for seen in resumed.probed],
        "undecided": [{**_named(seen), "needs": list(options_for(seen.hold.reason))} for seen in resumed.undecided],
        "not_held": [str(partition) for partition in resumed.not_held],
    }


def _named(seen: HoldSeen) -> dict[str, Any]:
    return {"reason": seen.hold.reason, "partition": None if seen.partition is None else str(seen.partition)}
