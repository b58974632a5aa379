"""Merges several workers: those of a supervisor, or the members of a group on several machines.

A stream is reported once, in the format of a single process, so that a reader of `/status` need not know how many there
are: counts are added, and what belongs to one worker names it. A merged status can be merged again: a worker is then
named `MEMBER/WORKER`. Counts begin with each worker, so a sum falls when one is restarted; metrics are therefore not
added up (`telemetry/metrics.py`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

_SUMS: Final = frozenset(
    {
        "records_read", "queued", "skipped", "in_doubt", "open_doubt", "resent", "missing", "vanished", "passed_over",
        "in_flight_records", "in_flight_requests", "waiting_batches", "ready_batches", "open_records", "held_bytes",
        "requests", "ticks", "ticks_aborted", "producers_replaced", "consumers_replaced", "concurrency_limit",
        "waiting_for_key",
    }
)  # fmt: skip
_FAILURES: Final = 20
_GATES: Final = ("open", "half_open", "closed")
_SUMS_BY_KEY: Final = frozenset({"dead_letters", "requests_by_row", "batches_closed"})
_STATES: Final = ("failed", "on_hold", "draining", "new", "running", "stopped")
"""States of a stream, the most important first."""


_Parts = list[tuple[int | str, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class WorkerAnswer:
    """A worker's answer to a request; status 0 means no answer, with the cause in `state`.

    `ordinal` names it: a worker's number under its supervisor, or the address or instance id of a member of the group.
    """

    ordinal: int | str
    state: str
    status: int = 0
    body: Any = None


def joined_streams(answers: Iterable[WorkerAnswer]) -> list[dict[str, Any]]:
    """Return the streams of all workers that answered, each once."""
    by_name: dict[str, _Parts] = {}
    for one in answers:
        if one.status == 200:
            for stream in one.body["streams"]:
                by_name.setdefault(stream["name"], []).append((one.ordinal, stream))
    return [_joined_stream(parts) for parts in by_name.values()]


def _joined_stream(parts: _Parts) -> dict[str, Any]:
    """Return one stream; values that are neither added nor merged are equal for all, or the first one's."""
    streams = [stream for _, stream in parts]
    joined = dict(streams[0])
    for key in _SUMS:
        joined[key] = sum(stream.get(key, 0) for stream in streams)
    for key in _SUMS_BY_KEY:
        joined[key] = _added(stream.get(key, {}) for stream in streams)
    lags = [stream["lag"] for stream in streams]
    holds = sorted(_named(parts, "holds"), key=lambda hold: float(hold["since"]))
    errors = [f"worker {ordinal}: {stream['error']}" for ordinal, stream in parts if stream["error"] is not None]
    moved = {stream["concurrency_moved"] for stream in streams}
    return joined | {
        "state": min((stream["state"] for stream in streams), key=_STATES.index),
        "paused_secs": max(stream["paused_secs"] for stream in streams),
        "oldest_unsettled_secs": max(stream["oldest_unsettled_secs"] for stream in streams),
        "progress_at": max(stream["progress_at"] for stream in streams),
        "lag": None if None in lags else sum(lags),
        "concurrency_moved": moved.pop() if len(moved) == 1 else "differs",
        "largest_batch": min(filter(None, (stream.get("largest_batch") for stream in streams)), default=None),
        "partitions": {
            name: {**found, "worker": _whose(ordinal, found)}
            for ordinal, stream in parts
            for name, found in stream["partitions"].items()
        },
        "hold": holds[0] if holds else None,
        "holds": holds,
        "standstills": _named(parts, "standstills"),
        "pace": _joined_pace(parts),
        "redrives": _named(parts, "redrives"),
        "gate": min((stream.get("gate", "closed") for stream in streams), key=_GATES.index),
        "failures": sorted(_named(parts, "failures"), key=lambda failure: -float(failure["at"]))[:_FAILURES],
        "error": "; ".join(errors) or None,
    }


def _joined_pace(parts: _Parts) -> dict[str, Any] | None:
    """Return what waits for its pace; a list may wait on several workers, each with its share of the pace."""
    paced = [(ordinal, stream["pace"]) for ordinal, stream in parts if stream["pace"] is not None]
    if not paced:
        return None
    return {
        "share": round(sum(pace["share"] for _, pace in paced), 4),
        "waiting_records": sum(pace["waiting_records"] for _, pace in paced),
        "backlog_secs": max(pace["backlog_secs"] for _, pace in paced),
        "lists_waiting": max(pace["lists_waiting"] for _, pace in paced),
        "lists": sorted(_named(paced, "lists"), key=lambda found: -float(found["backlog_secs"])),
    }


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)


def _named(parts: _Parts, key: str) -> list[dict[str, Any]]:
    """Return the values that each worker reports for a key, with its name; older versions may not have the key."""
    return [{**found, "worker": _whose(ordinal, found)} for ordinal, stream in parts for found in stream.get(key, ())]


def _whose(ordinal: int | str, found: Mapping[str, Any]) -> int | str:
    return f"{ordinal}/{found['worker']}" if "worker" in found else ordinal


def joined_readiness(answers: Iterable[WorkerAnswer]) -> tuple[bool, dict[str, Any]]:
    """Return whether every worker is ready, and if not, why."""
    streams: dict[str, str] = {}
    silent: dict[str, str] = {}
    for one in answers:
        if one.status == 0:
            silent[str(one.ordinal)] = one.state
        elif one.status != 200:
            for name, why in one.body["streams"].items():
                streams.setdefault(name, f"worker {one.ordinal}: {why}")
    ready = not streams and not silent
    return ready, {"ready": ready, "streams": streams, "workers": silent}


def joined_health(answers: Iterable[WorkerAnswer]) -> tuple[bool, dict[str, Any]]:
    """Return whether no worker needs a restart. One that has exited is restarted anyway.

    A worker that answered before and no longer does is unhealthy, as a single process would be; so is one that never
    does.
    """
    stuck: list[dict[str, Any]] = []
    silent: list[int | str] = []
    for one in answers:
        if one.status == 0 and one.state == "silent":
            silent.append(one.ordinal)
        elif one.status not in (0, 200):
            stuck += [{**found, "worker": one.ordinal} for found in one.body["standstills"]]
    if not stuck and not silent:
        return True, {"status": "alive"}
    return False, {"status": "stalled", "standstills": stuck, "silent_workers": silent}


def joined_resumed(answers: list[WorkerAnswer]) -> tuple[int, dict[str, Any]]:
    """Return HTTP status and result of a decision that was forwarded to all workers.

    A partition is not held if no worker holds it. If all refuse for one reason (a wrong token), that is the result.
    """
    told = [one for one in answers if one.status and "problem" not in one.body]
    refused = [one for one in answers if one.status and "problem" in one.body]
    silent = [one for one in answers if one.status == 0]
    if not told and refused and len({(one.status, one.body["problem"]) for one in refused}) == 1 and not silent:
        return refused[0].status, dict(refused[0].body)
    body: dict[str, Any] = {}
    for one in told:
        body.setdefault("stream", one.body["stream"])
        for key in ("ended", "probed", "undecided", *(["paused"] if "paused" in one.body else [])):
            body.setdefault(key, []).extend({**hold, "worker": _whose(one.ordinal, hold)} for hold in one.body[key])
    if told:
        held_nowhere = set.intersection(*(set(one.body["not_held"]) for one in told))
        body["not_held"] = sorted(held_nowhere)
    problems = [f"worker {one.ordinal}: {one.body['problem']}" for one in refused]
    problems += [f"worker {one.ordinal} was not told, it is {one.state}; say it again" for one in silent]
    if problems:
        return (refused[0].status if refused else 503), {"problem": "; ".join(problems), **body}
    return (409 if body["undecided"] else 200), body
