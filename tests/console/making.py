"""A status as `/status` gives it, and snapshots made of it."""

from collections.abc import Mapping
from typing import Any

from connector.console.sampling import Rates, Snapshot

RATES: Rates = {
    "read": 1_234.5,
    "queued": 1_200.0,
    "dead": 3.2,
    "requests": 12.0,
    "batches": 12.1,
    "settled": 1_203.2,
}


def hold(**over: Any) -> dict[str, Any]:
    """Return a hold of a stream."""
    return {
        "reason": "unauthorized",
        "partition": None,
        "since": 1_769_846_400.0,
        "detail": "401: Invalid API key",
        "ends": "probe",
        "commands": [],
        **over,
    }


def stream(**over: Any) -> dict[str, Any]:
    """Return a stream that works."""
    return {
        "name": "campaign-sends",
        "state": "running",
        "operation": "send",
        "group": "trackly-connector.campaign-sends",
        "guarantee": "exactly_once",
        "in_doubt_policy": "dead_letter",
        "records_read": 1_000_000,
        "queued": 990_000,
        "skipped": 5,
        "dead_letters": {"invalid_phone": 900, "missing_body": 12},
        "in_doubt": 0,
        "open_doubt": 0,
        "oldest_unsettled_secs": 2.5,
        "progress_at": 1_769_846_490.0,
        "resent": 0,
        "missing": 0,
        "vanished": 0,
        "passed_over": 0,
        "in_flight_records": 4_000,
        "in_flight_requests": 4,
        "waiting_batches": 1,
        "ready_batches": 2,
        "open_records": 250,
        "ordering": "none",
        "waiting_for_key": 0,
        "pace": None,
        "held_bytes": 12_345_678,
        "requests": 1_000,
        "requests_by_row": {"accepted": 990, "server_error": 10},
        "batches_closed": {"count": 900, "window": 100},
        "ticks": 400,
        "ticks_aborted": 1,
        "producers_replaced": 0,
        "consumers_replaced": 0,
        "concurrency_limit": 16,
        "concurrency_moved": "grow",
        "largest_batch": None,
        "paused_secs": 0.0,
        "gate": "closed",
        "lag": 12_000,
        "partitions": {"sms.campaign:0": {"committed": 100, "read": 150, "in_doubt": 0}},
        "hold": None,
        "holds": [],
        "standstills": [],
        "redrives": [],
        "failures": [],
        "error": None,
        **over,
    }


def status(*streams: dict[str, Any], **over: Any) -> dict[str, Any]:
    """Return the status of a group."""
    return {
        "version": "0.1.0",
        "instance_id": "host-0",
        "started_at": 1_769_846_000.0,
        "may_resume": True,
        "members": [],
        "workers": [],
        "streams": list(streams or [stream()]),
        **over,
    }


def snapshot(*streams: dict[str, Any], rates: Mapping[str, Rates | None] | None = None, **over: Any) -> Snapshot:
    """Return a snapshot of a group, each stream with rates."""
    found = status(*streams, **over)
    return Snapshot(7, 1_769_846_500.0, found, rates or {one["name"]: RATES for one in found["streams"]})
