"""Renders pages: templates, number formats, and the headline.

The templates escape everything; nothing that comes from outside is ever marked as safe.
"""

import json
import re
import time
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from connector import __version__
from connector.console.advice import GATES, MOVED, ROWS, advice_for
from connector.console.sampling import Snapshot, Status
from connector.deadletters.deciding import DID, WHY
from connector.stream.holds import CHOICES

MOST_PARTITIONS: Final = 100
"""Rows of the partition table; `/status` has all of them."""

_UNKNOWN: Final = "\N{EN DASH}"

_NAMED: Final = 8
"""Partitions that a hold names."""

_DOWN: Final = ("restarting", "silent")
"""States of a worker whose partitions wait, or belong to others."""

PLATFORM_DROPS_SECS: Final = 1_800
"""The platform drops what waits longer on a list."""


def number(value: float | None) -> str:
    """Return a formatted count; a dash if unknown."""
    return _UNKNOWN if value is None else f"{value:,.0f}"


def rate(value: float | None) -> str:
    """Return a rate per second: large ones as integers."""
    if value is None:
        return _UNKNOWN
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def duration(secs: float | None) -> str:
    """Return a time span in its two largest units."""
    if secs is None:
        return _UNKNOWN
    if secs < 10:
        return f"{max(secs, 0):.1f} s"
    if secs < 60:
        return f"{secs:.0f} s"
    minutes, secs = divmod(int(secs), 60)
    if minutes < 60:
        return f"{minutes} min {secs} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def clock(at: float) -> str:
    """Return a time of day in UTC, with the date unless it is today."""
    then, today = time.gmtime(at), time.gmtime()
    form = "%H:%M:%S" if then[:3] == today[:3] else "%Y-%m-%d %H:%M:%S"
    return time.strftime(form, then)


def as_bytes(value: float) -> str:
    """Return a size in megabytes."""
    return f"{value / 1e6:,.1f} MB"


def prose(text: str) -> Markup:
    """Return a text in which everything is escaped, and what is between backticks is code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 (it was escaped)


class Headline(NamedTuple):
    """The main message: `tone` is good, quiet, warn or bad."""

    tone: str
    text: str
    more: str


def headline(snapshot: Snapshot) -> Headline:
    """Return in one line whether texts flow."""
    streams, status = snapshot.status["streams"], snapshot.status
    if not streams:
        return Headline("bad", "No worker answers", "the processes may be starting, or have ended; see the log")
    rates = [r for r in snapshot.rates.values() if r is not None]
    flow = f"{rate(sum(r['settled'] for r in rates))} records/s settled" if rates else "rates follow in a second"
    failed = [s["name"] for s in streams if s["state"] == "failed"]
    held = [s["name"] for s in streams if s["holds"]]
    stuck = [s["name"] for s in streams if any(not found["known"] for found in s["standstills"])]
    outside = [s["name"] for s in streams if s["state"] == "running" and s["lag"] is None and not s["partitions"]]
    silent = [member["name"] for member in status.get("members", []) if member["state"] == "silent"]
    down = [f"worker {one['ordinal']}" for one in status.get("workers", []) if one["state"] in _DOWN]
    for who, tone, text, more in (
        (failed, "bad", "Failed", f"{flow} by the others"),
        (held, "bad", "On hold", f"{len(held)} of {len(streams)} streams; {flow}"),
        (stuck, "bad", "Stands still", "nobody knows why; see below"),
        (outside, "warn", "Not in its group", "it is joining, or no broker answers"),
        (silent, "warn", "Not answering", flow),
        (down, "warn", "Not running", flow),
    ):
        if who:
            return Headline(tone, f"{text}: {_listed(who)}", more)
    if any(s["state"] != "running" for s in streams):
        return Headline("warn", "Starting or stopping", flow)
    if rates and not sum(r["settled"] for r in rates):
        lags = [s["lag"] for s in streams]
        if all(lag == 0 for lag in lags):
            return Headline("quiet", "Idle", "nothing waits to be read")
        waiting = "how many records wait is not known" if None in lags else f"{number(sum(lags))} records wait"
        return Headline("warn", "Nothing was settled in the last seconds", waiting)
    return Headline("good", "Texts flow", flow)


def _listed(names: Iterable[str], most: int = 4) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def holds_of(stream: Status) -> list[dict[str, Any]]:
    """Return the holds of a stream for display: equal ones of many partitions or workers as one."""
    told: dict[tuple[str, str], dict[str, Any]] = {}
    for hold in stream["holds"]:
        of_partition = hold["partition"] is not None
        known = told.setdefault(
            (hold["reason"], "" if of_partition else hold["detail"]),
            {
                "stream": stream["name"],
                **hold,
                "advice": advice_for(hold["reason"]),
                "partitions": [],
                "workers": [],
                "runbook": _safe_link(hold.get("runbook")),
                "page": _safe_path(hold.get("runbook")),
            },
        )
        known["since"] = min(known["since"], hold["since"])
        if of_partition:
            known["partitions"].append(hold["partition"])
        if "worker" in hold and hold["worker"] not in known["workers"]:
            known["workers"].append(hold["worker"])
    for hold in told.values():
        hold["where"] = _listed(hold["partitions"], _NAMED)
        hold["who"] = _listed((str(worker) for worker in hold["workers"]), _NAMED)
    return list(told.values())


def _safe_link(link: object) -> str | None:
    return link if isinstance(link, str) and link.startswith(("https://", "http://")) else None


def _safe_path(path: object) -> str | None:
    return path if isinstance(path, str) and re.fullmatch(r"[A-Za-z0-9_/.-]+", path) else None


def choices_of(stream: Status) -> dict[str, tuple[str, ...]]:
    """Return the decisions that the holds of a stream need before they can end, by reason."""
    reasons = [hold["reason"] for hold in stream["holds"] if hold["ends"] == "operator"]
    return {reason: CHOICES[reason] for reason in reasons if reason in CHOICES}


def flow_of(stream: Status) -> dict[str, Any]:
    """Return the values for the figures of a stream."""
    dead = stream["dead_letters"]
    oldest = stream.get("oldest_unsettled_secs")
    return {
        "state": stream["state"].replace("_", " "),
        "tone": _tone(stream),
        "dead_total": sum(dead.values()),
        "dead": sorted(dead.items(), key=lambda item: -item[1]),
        "oldest_secs": oldest,
        "too_old": oldest is not None and oldest > PLATFORM_DROPS_SECS,
        "moved": MOVED.get(stream["concurrency_moved"], stream["concurrency_moved"]),
        "gate": GATES.get(stream.get("gate", "closed"), stream.get("gate")),
    }


def _tone(stream: Status) -> str:
    if stream["state"] == "failed" or stream["holds"]:
        return "bad"
    return "good" if stream["state"] == "running" else "warn"


def partitions_of(stream: Status) -> tuple[list[dict[str, Any]], int]:
    """Return rows of the partition table, and how many more there are."""
    rows = [{"name": name, "worker": None, **found} for name, found in stream["partitions"].items()]
    return rows[:MOST_PARTITIONS], max(len(rows) - MOST_PARTITIONS, 0)


def rows_of(stream: Status) -> list[tuple[str, int, str, str]]:
    """Return requests by row of the verdict table, most frequent first: name, count, when it matches, action."""
    counted = sorted(stream["requests_by_row"].items(), key=lambda item: -item[1])
    return [(name, count, *ROWS.get(name, ("", ""))) for name, count in counted]


def points_of(snapshot: Snapshot, points: Mapping[str, list[tuple[float | None, ...]]]) -> str:
    """Return points for the charts as JSON."""
    return json.dumps({"at": round(snapshot.at, 1), "streams": points}, separators=(",", ":"))


@cache
def assets() -> dict[str, tuple[bytes, str]]:
    """Return the static files by name: content and type. No other files can be requested."""
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    folder = files("connector.console").joinpath("assets")
    found = {}
    for entry in folder.iterdir():
        kind = kinds.get(entry.name.rpartition(".")[2])
        if kind is not None:
            found[entry.name] = (entry.read_bytes(), kind)
    return found


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("connector.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(
        number=number,
        rate=rate,
        duration=duration,
        clock=clock,
        megabytes=as_bytes,
        prose=prose,
        segment=lambda text: quote(text, safe=""),
    )
    made.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    made.globals.update(
        version=__version__,
        holds_of=holds_of,
        flow_of=flow_of,
        partitions_of=partitions_of,
        rows_of=rows_of,
        choices_of=choices_of,
        headline=headline,
        WHY=WHY,
        DID=DID,
    )
    return made


def render(template: str, **values: Any) -> str:
    """Return a page, or a piece of one."""
    return _environment().get_template(template).render(**values)
