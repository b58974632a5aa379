"""What a hold means and what to do about it, in a few words.

The full text is in `docs/how-to/holds.md`; a test checks that every reason in the code is here.
"""

from typing import Final, NamedTuple

from connector.core.verdicts import TABLE


class Advice(NamedTuple):
    """The cause, and what to do."""

    means: str
    do: str


HOLDS: Final[dict[str, Advice]] = {
    "paused": Advice(
        "Somebody paused the stream. What is in flight finishes; nothing else starts.",
        "Resume it once the reason is resolved. The pause also ends when the process does.",
    ),
    "outage": Advice(
        "Requests fail one after another: the platform or the network to it is down.",
        "Wait, or fix the network. Nothing is lost; the stream continues by itself when a probe passes.",
    ),
    "unauthorized": Advice(
        "The platform rejects the key: it is unknown or revoked.",
        "Replace the key. One given by file is re-read automatically; one from the environment needs a restart.",
    ),
    "payment_required": Advice(
        "The account's billing does not cover what the events request.",
        "Fix the billing, or stop requesting validation in the events.",
    ),
    "forbidden": Advice(
        "The account is suspended, a product is not enabled, or a gateway rejects the request.",
        "Ask the platform's support.",
    ),
    "not_found": Advice("The platform does not know the route.", "Check trackly.base_url, then restart."),
    "redirected": Advice("Another host answers.", "Check trackly.base_url, then restart."),
    "proxy": Advice("The proxy requires credentials.", "Check trackly.proxy, then restart."),
    "refused": Advice(
        "The request itself is rejected (405, 406, 410, 411, 415, 417, 421, 426, 431), or with HTML instead of JSON.",
        "Check what is between the connector and the platform.",
    ),
    "tls": Advice(
        "TLS fails: the certificate, the host name or the protocol is wrong.",
        "Check trackly.tls. Its files are re-read before each probe.",
    ),
    "kafka_authorization": Advice(
        "Kafka does not allow the connector to read or write.",
        "Fix the ACLs; `check --online` lists what is missing.",
    ),
    "results_refused": Advice(
        "The outcome or dead-letter topic rejects results, for their size or because of its configuration.",
        "Raise its max.message.bytes, or grant the connector DescribeConfigs on it if that is missing; it must not be "
        "compacted, and the clock must be right.",
    ),
    "topic_missing": Advice("The outcome or dead-letter topic is gone.", "Recreate it."),
    "schema_registry": Advice(
        "Records name schemas that are not known yet, and the schema registry is unavailable.",
        "Restore the registry, or fix schema_registry. What was read is kept, and the stream continues by itself.",
    ),
    "transform_failed": Advice(
        "The stream's own Python raised an exception, or returned the wrong number of values.",
        "Fix it and restart, or restore what it depends on. What was read is kept.",
    ),
    "in_doubt": Advice(
        "Nobody knows whether the platform accepted these records, and the settings require a person to decide.",
        "Resume with a decision: dead letters for later, or send them again at the risk of texting twice.",
    ),
    "records_missing": Advice(
        "Retention removed records before they were read, or what was read is not there any more.",
        "Look for the records elsewhere; then resume, and the partition continues as the detail says.",
    ),
    "foreign_metadata": Advice(
        "The progress in the group's commit was not written by this connector, or by a newer one.",
        "Make sure that nobody else commits to the group; then resume and discard it. What was above is posted again.",
    ),
    "progress_missing": Advice(
        "Kafka has no progress of the group, but the outcome topic shows that the stream is not new.",
        "Stop the stream and run trackly-connector rebuild-progress; the detail says what `begin` would do.",
    ),
}
"""By reason, for reasons without a colon."""

STORM: Final = Advice(
    "Too large a share of the records would become dead letters for one reason; they are held back.",
    "If a setting or the events are wrong, fix them and restart. If the dead letters are right, resume.",
)
SETTING: Final = Advice(
    "Every record of a batch failed with a code that means a wrong setting of the stream.",
    "Check the stream's list_number, or set the list up on the platform.",
)
_UNKNOWN: Final = Advice("", "Look at the log, which has the details.")

MOVED: Final = {
    "start": "initial value",
    "grow": "up: requests succeed",
    "trouble": "down: requests failed",
    "latency": "down: answers took much longer",
    "restart": "restarted after an outage",
    "differs": "differs between the workers",
}
"""Why the concurrency limit last changed."""

GATES: Final = {
    "closed": "closed: batches may start",
    "half_open": "half open: one batch is tried",
    "open": "open: nothing starts",
}

ROWS: Final = {row.name: (row.when, row.action.value) for row in TABLE}
"""When a row of the verdict table matches, and what it leads to."""


def advice_for(reason: str) -> Advice:
    """Return the advice for any reason."""
    if reason.startswith("storm:"):
        return STORM
    if reason.startswith("setting:"):
        return SETTING
    return HOLDS.get(reason, _UNKNOWN)
