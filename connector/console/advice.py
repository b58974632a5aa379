"""What a hold means and what to do about it, in a few words: for whoever reads them at three in the morning.

The whole is in `docs/how-to/holds.md`; a test says that every reason of the code is here.
"""

from typing import Final, NamedTuple

from connector.core.verdicts import TABLE


class Advice(NamedTuple):
    """What is the matter, and the way out."""

    means: str
    do: str


HOLDS: Final[dict[str, Advice]] = {
    "paused": Advice(
        "Somebody paused the stream. What was in flight has finished or will; nothing else starts.",
        "Resume it when whatever it waits for is done. The pause also ends when the process does.",
    ),
    "outage": Advice(
        "Requests fail one after another: the platform or the way to it is down.",
        "Wait, or mend the network. Nothing is lost; it goes on by itself when a probe passes.",
    ),
    "unauthorized": Advice(
        "The platform refuses the key: it is unknown or revoked.",
        "Replace the key. Given by file it is read again by itself; given by environment it takes a restart.",
    ),
    "payment_required": Advice(
        "The account's billing refuses what the events ask for.",
        "Mend the billing, or have the events not ask for validation.",
    ),
    "forbidden": Advice(
        "The account is suspended, a product is not enabled, or a gateway refuses.", "Ask the platform's support."
    ),
    "not_found": Advice("The platform does not know the route.", "Look at trackly.base_url, then restart."),
    "redirected": Advice("Another host answers.", "Look at trackly.base_url, then restart."),
    "proxy": Advice("The proxy wants credentials.", "Look at trackly.proxy, then restart."),
    "refused": Advice(
        "The request itself is refused (405, 406, 410, 411, 415, 417, 421, 426, 431), or with a page in place of JSON.",
        "Look at what stands between the connector and the platform.",
    ),
    "tls": Advice(
        "No trust: the certificate, the host name or the protocol is wrong.",
        "Look at trackly.tls. Its files are read again before each probe.",
    ),
    "kafka_authorization": Advice(
        "Kafka refuses to let the connector read or write.",
        "Mend the ACLs; `check --online` asks what is allowed.",
    ),
    "results_refused": Advice(
        "The outcome or dead-letter topic refuses what is written, for its size or by a rule of the topic.",
        "Raise its max.message.bytes, or give the connector DescribeConfigs on it if it may not ask; it must not be "
        "compacted, and the clock must be right.",
    ),
    "topic_missing": Advice("The outcome or dead-letter topic is gone.", "Create it again."),
    "schema_registry": Advice(
        "Records name schemas that are not known yet, and the schema registry does not answer as one.",
        "Bring the registry back, or mend schema_registry. What was read is kept, and it goes on by itself.",
    ),
    "transform_failed": Advice(
        "The stream's own Python raised, or returned another number of values than it was given.",
        "Mend it and restart, or bring back what it depends on. What was read is kept.",
    ),
    "in_doubt": Advice(
        "Nobody knows whether the platform took these records, and the settings want a person to decide.",
        "Resume with a decision: dead letters for later, or send them again at the risk of texting twice.",
    ),
    "records_missing": Advice(
        "Retention removed records before they were read, or the committed offset lies beyond the end.",
        "Look for the records elsewhere; then resume, and the partition goes on with the oldest that there is.",
    ),
    "foreign_metadata": Advice(
        "The progress in the group's commit was not written by this connector, or by a newer one.",
        "See that nobody else commits to the group; then resume and discard it. What was beyond is posted again.",
    ),
    "progress_missing": Advice(
        "Kafka knows no progress of the group, and by the outcome topic the stream is not new.",
        "Stop the stream and type trackly-connector rebuild-progress; the detail tells what to begin would do.",
    ),
}
"""By reason, for those that are whole words."""

STORM: Final = Advice(
    "Too large a share of the records would become dead letters for one reason; they are kept back.",
    "If a setting or the events are wrong, mend them and restart. If the dead letters are right, resume.",
)
SETTING: Final = Advice(
    "Every record of a batch failed with a code that means that a setting of the stream is wrong.",
    "Look at the stream's list_number, or set the list up on the platform.",
)
_UNKNOWN: Final = Advice("", "Look at the log, which has the whole story.")

MOVED: Final = {
    "start": "where it began",
    "grow": "up: requests succeed",
    "trouble": "down: requests failed",
    "latency": "down: answers took much longer",
    "restart": "begun anew after an outage",
    "differs": "differs between the workers",
}
"""Why the limit of concurrency last moved."""

GATES: Final = {
    "closed": "closed: batches may start",
    "half_open": "half open: one batch is tried",
    "open": "open: nothing starts",
}

ROWS: Final = {row.name: (row.when, row.action.value) for row in TABLE}
"""When a row of the verdict table matches, and what it leads to."""


def advice_for(reason: str) -> Advice:
    """Return what to tell about a reason, whatever it is."""
    if reason.startswith("storm:"):
        return STORM
    if reason.startswith("setting:"):
        return SETTING
    return HOLDS.get(reason, _UNKNOWN)
