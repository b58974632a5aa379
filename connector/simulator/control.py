"""The simulator's own API below `/_simulator`: reads the ledger, changes faults, resets.

It needs no key, and shows what was sent, including numbers and texts: the simulator belongs on a private network.
"""

from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import parse_qs

import msgspec

from connector.config.problems import Problem, SettingsError
from connector.core.mapped import UNDECODABLE
from connector.simulator.behaviour import Behaviour
from connector.simulator.faults import Faults, parse_faults, patch_faults
from connector.simulator.http import NDJSON, Reply, Request, json_reply
from connector.simulator.ledger import Entry
from connector.simulator.settings import CONTROL_PATH

_LINES: Final = 1_000  # in a piece of the answer that lists all records

_encoder: Final = msgspec.json.Encoder()


def is_control(path: str) -> bool:
    """Tell whether a path belongs to this API."""
    return path.startswith(f"{CONTROL_PATH}/") or path == CONTROL_PATH


def control(request: Request, behaviour: Behaviour, *, now: float) -> Reply:
    """Carry out a request to this API."""
    match (request.method, request.path.removeprefix(CONTROL_PATH)):
        case ("GET", "/health"):
            document = {"status": "ok", "faults_in_force": _shown(behaviour.timeline.at(now), defaults=False)}
            return json_reply(200, document)
        case ("GET", "/ledger"):
            return _ledger(behaviour, parse_qs(request.query, keep_blank_values=True))
        case ("GET", "/ledger/records"):
            operation = parse_qs(request.query).get("operation", [None])[0]
            return Reply(200, content_type=NDJSON, pieces=_lines(behaviour.ledger.entries(operation)))
        case ("GET", "/faults"):
            return json_reply(200, _shown(behaviour.timeline.standing))
        case ("PUT" | "PATCH", "/faults"):
            return _change_faults(request, behaviour, now=now)
        case ("POST", "/reset"):
            behaviour.reset(now=now)
            return json_reply(200, {"status": "ok"})
        case (_, "/health" | "/ledger" | "/ledger/records" | "/faults" | "/reset"):
            return json_reply(405, {"error": "Method not allowed", "code": "method_not_allowed"})
        case _:
            return json_reply(404, {"error": "Not found", "code": "not_found"})


def _ledger(behaviour: Behaviour, asked: Mapping[str, list[str]]) -> Reply:
    if "identity" not in asked:
        return json_reply(200, behaviour.ledger.totals())
    identity, operation = asked["identity"][0], asked.get("operation", [None])[0]
    return json_reply(200, {"identity": identity, "accepted": behaviour.ledger.accepted(identity, operation)})


def _lines(entries: Iterator[Entry]) -> Iterator[bytes]:
    lines: list[bytes] = []
    for entry in entries:
        lines.append(_encoder.encode(entry))
        if len(lines) == _LINES:
            yield b"\n".join(lines) + b"\n"
            lines.clear()
    if lines:
        yield b"\n".join(lines) + b"\n"


def _change_faults(request: Request, behaviour: Behaviour, *, now: float) -> Reply:
    try:
        document = msgspec.json.decode(request.body)
    except UNDECODABLE:
        return json_reply(400, {"error": "Request body is not valid JSON", "code": "invalid_json"})
    replaces = request.method == "PUT"
    try:
        faults = parse_faults(document) if replaces else patch_faults(behaviour.timeline.standing, document)
        _keep_in_reach(faults)
        behaviour.set_faults(faults, now=now, renew=replaces)
    except (SettingsError, ValueError) as error:
        found = error.problems if isinstance(error, SettingsError) else ()
        problems = [{"place": problem.path, "problem": problem.message} for problem in found]
        return json_reply(400, {"error": str(error), "code": "invalid_faults", "problems": problems})
    return json_reply(200, _shown(faults))


def _keep_in_reach(faults: Faults) -> None:
    """Refuse an outage that this API could not end, because it would be unavailable as well."""
    if faults.outage is not None and faults.outage.how == "refuse" and faults.outage.secs is None:
        raise SettingsError("faults", [Problem("outage.secs", "is needed to refuse connections: nobody could end it")])


def _shown(faults: Faults, *, defaults: bool = True) -> dict[str, object]:
    return faults.model_dump(mode="json", exclude_defaults=not defaults)
