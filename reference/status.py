"""The page of `/status`: what each field of its JSON means. A number that is also a metric is described there only."""

from collections.abc import Mapping
from typing import Final

from connector.telemetry.metrics import BY_STREAM
from reference.markdown import page, table

WORKER: Final[Mapping[str, str]] = {
    "version": "Version of the connector.",
    "instance_id": "The worker's instance id; for a supervisor the setting, or the host name.",
    "started_at": "When the process started.",
    "may_resume": "Whether `web.token` is set, so that streams can be paused and resumed.",
    "streams": "[Each stream](#a-stream).",
    "workers": "Of a supervisor only: [each worker](#workers).",
}
STREAM: Final[Mapping[str, str]] = {
    "name": "Name of the stream.",
    "state": "`new`, `running`, `on_hold`, `draining`, `stopped` or `failed`.",
    "error": "Why it failed, or null.",
    "operation": "As in the settings; for history with its kind.",
    "group": "Consumer group.",
    "guarantee": "`delivery.guarantee`.",
    "in_doubt_policy": "`delivery.in_doubt`, or the operation's default.",
    "ordering": "`none` or `key`.",
    "gate": "The circuit breaker: `closed` while batches may start, `open` while none may, `half_open` while one "
    "record at a time may, after a probe has passed.",
    "hold": "The first of `holds`, or null.",
    "holds": "[Everything that holds it](#holds), what concerns the whole stream first.",
    "standstills": "[Partitions that stand still](#standstills).",
    "partitions": "[Its partitions](#partitions) on this worker, by `TOPIC:NUMBER`.",
    "failures": "[The latest kinds of dead letters](#failures), at most 20.",
    "redrives": "[Rules](#redrives) of `dead_letters.redrive`.",
    "pace": "[What waits for the pace of a list](#pace); null without a pace.",
    "dead_letters": "Dead letters committed, by reason.",
    "in_doubt": "Records in doubt so far: dead letters with that reason, and `open_doubt`.",
    "requests": "Requests that have ended, repeats included.",
    "requests_by_row": "The same, by row of the [verdict table](verdicts.md). `wait`: the platform limits the rate "
    "(429), or asks for a pause.",
    "batches_closed": "Batches, by what closed them: `count`, `bytes`, `window` or `drain`.",
    "open_records": "Records in batches that are not closed yet.",
    "concurrency_moved": "Why `concurrency_limit` last changed: `start`, `grow` (answers arrive in time), `latency` "
    "(they take much longer than the fastest), `trouble` (a failure, a lost answer, or a request to wait), `restart` "
    "(a hold has ended).",
    "largest_batch": "How many records a request may hold since [an answer was lost]"
    "(../how-to/health.md#large-requests-without-an-answer); null: no such limit.",
}
PARTITION: Final[Mapping[str, str]] = {
    "committed": "The committed offset: everything below it is settled.",
    "read": "The next offset to be read.",
    "in_doubt": "Records in doubt that wait to be read again, or for a decision.",
    "full": "Whether its commit metadata has [no room for more](../how-to/health.md#a-full-partition).",
}
HOLD: Final[Mapping[str, str]] = {
    "reason": "One of the [reasons](../how-to/holds.md).",
    "partition": "The partition that holds; null: the whole stream.",
    "since": "When it began.",
    "detail": "The message of the platform or of Kafka, masked.",
    "ends": "`probe`: by itself; `operator`: a person has to decide.",
    "commands": "Commands of which one ends it, if a person has to.",
    "runbook": "Page of the runbook.",
}
STANDSTILL: Final[Mapping[str, str]] = {
    "partition": "The partition; null: the whole stream, which is not in its group.",
    "offset": "The next offset to be settled.",
    "lag": "Records from there to the end of the partition.",
    "since": "When the committed offset last moved.",
    "waits_for": "[What it waits for](../how-to/health.md#known-waits-leave-health-green).",
    "known": "Whether the cause is known; if not, `/healthz` is red.",
    "detail": "More about the cause.",
}
FAILURE: Final[Mapping[str, str]] = {
    "at": "When the last one was written.",
    "reason": "[Reason](error-messages.md#reasons-of-dead-letters) of the dead letters.",
    "code": "The platform's code, or null.",
    "text": "The platform's or the connector's text for one of the last, masked.",
    "http_status": "Status of the answer, or null.",
    "position": "Its record, `TOPIC:PARTITION:OFFSET`.",
    "count": "How many there were.",
}
REDRIVE: Final[Mapping[str, str]] = {
    "rule": "Name of the rule.",
    "reasons": "Reasons that it sends again.",
    "redriven": "Dead letters that it has sent again.",
    "passed_over": "Those that it skipped: `redriven` (sent again before) or `too_large`.",
    "waiting": "Those that wait to be sent again.",
    "next_at": "When the next one is due, or null.",
    "held": "Whether it waits because the stream is not running, or is on hold.",
    "error": "The last error, or null; the rule tries again.",
}
PACE: Final[Mapping[str, str]] = {
    "share": "This worker's share of each pace: its share of the partitions.",
    "waiting_records": "Records that wait, of all lists.",
    "backlog_secs": "Time that the slowest list needs for its backlog, including unread records.",
    "lists_waiting": "Number of lists with records that wait.",
    "lists": "The slowest of them: `list` (masked), `waiting_records`, `backlog_secs`.",
}
PROCESS: Final[Mapping[str, str]] = {
    "ordinal": "Number of the worker, from 0.",
    "instance_id": "Its instance id.",
    "pid": "Its process, or null.",
    "state": "`starting`, `running`, `silent` (it no longer answers), `restarting`, `draining` or `stopped`.",
    "started_at": "When its process started.",
    "restarts": "How often it was restarted.",
    "last_exit": "Its last [exit code](exit-codes.md), or null.",
}


def fields_of_streams() -> dict[str, tuple[str, str]]:
    """Return the fields of a stream: the metric that is the same number, if there is one, and the meaning."""
    numbers = {key: (f"`{metric.name}`", metric.meaning) for key, metric in BY_STREAM}
    return {**{key: ("", meaning) for key, meaning in STREAM.items()}, **numbers}


def status_page() -> str:
    """Return the page."""
    return page(
        "Status",
        "The fields of `/status`, on the web port of a worker or a supervisor. Times are seconds since 1970, and "
        "counts start at 0 with the process. More fields may be added. This page is generated from "
        "`reference/status.py` and the catalogue of metrics.",
        _fields(WORKER),
        "## A stream",
        table(
            ("Field", "Metric", "Meaning"),
            [(f"`{key}`", metric, meaning) for key, (metric, meaning) in fields_of_streams().items()],
        ),
        *(part for title, fields in _INSIDE.items() for part in (f"### {title}", _fields(fields))),
        "## Workers",
        _fields(PROCESS),
        "A supervisor reports each stream once. Numbers are added up, except these: it reports the largest "
        "`oldest_unsettled_secs`, `paused_secs`, `progress_at`, `backlog_secs` and `lists_waiting`, the smallest "
        "`largest_batch`, and the worst `state` and `gate`. `concurrency_moved` is `differs` if workers differ; "
        "`lag` is null if one does not know its own. Entries of `partitions`, `holds`, `standstills`, `failures`, "
        "`redrives` and `lists` also have the field `worker`.",
    )


_INSIDE: Final = {
    "Partitions": PARTITION,
    "Holds": HOLD,
    "Standstills": STANDSTILL,
    "Failures": FAILURE,
    "Redrives": REDRIVE,
    "Pace": PACE,
}


def _fields(fields: Mapping[str, str]) -> str:
    return table(("Field", "Meaning"), [(f"`{key}`", meaning) for key, meaning in fields.items()])
