"""The verdict table: what each answer of the platform, or its absence, means for the records of a request.

`TABLE` is its only definition: `classify` returns the first row that matches, and the reference page is generated from
the same rows. A failure that hits everything leads to `HOLD`, `BACK_OFF` or `WAIT`, one that belongs to records to
`JUDGE` or `HALVE`, and what cannot be known to `DOUBT`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

RECORD_CODES = frozenset(
    {
        "contact_not_found",
        "internal_error",
        "invalid_attribution_type",
        "invalid_list_number",
        "invalid_phone",
        "invalid_revenue",
        "invalid_timestamp",
        "list_not_found",
        "message_not_found",
        "missing_attribution_type",
        "missing_body",
        "missing_id",
        "missing_list_number",
        "missing_message_id",
        "missing_offer_id",
        "missing_phone_number",
        "missing_revenue",
        "missing_timestamp",
        "missing_to",
        "missing_to_number",
        "not_sendable",
        "offer_not_found",
        "payload_too_large",
        "provider_error",
        "save_error",
        "validation_failed",
        "webhook_not_configured",
    }
)
"""The documented error codes for single records. The reason of a dead letter is one of these, or `refused` for an
undocumented code, so that the number of reasons stays bounded."""

NOT_FOUND_CODES = frozenset({"contact_not_found", "list_not_found", "message_not_found", "offer_not_found"})
"""Codes with which a 404 is about a record; with another code, or none, the route or the host is wrong."""

GLOBAL_STATUSES = frozenset({401, 402, 403, 405, 406, 407, 410, 411, 415, 417, 421, 426, 431})
"""Client errors that no record can cause: the key, the account, the route, the proxy, the headers or the protocol is
wrong."""

WAIT_STATUSES = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class RecordError:
    """One entry of a bulk reply's `errors`."""

    index: int
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Reply:
    """The result of a request, independent of HTTP.

    `answered`: there is a status, and what the body says. `not_sent`: certainly nothing reached the platform; `trouble`
    is a bounded code (`connect`, `dns`, `tls`, ...). `lost`: writing began and no answer came; the platform may have
    it.
    """

    kind: Literal["answered", "not_sent", "lost"]
    trouble: str = ""
    text: str = ""
    status: int = 0
    code: str | None = None
    retry_after_secs: float | None = None
    unreadable: str | None = None
    """Why a 2xx cannot be trusted: not JSON, inconsistent counts, an index repeated or out of range."""
    foreign: bool = False
    """An error whose body is not a JSON object: it comes from something in front of the platform."""
    some_taken: bool = False
    """The status is not 2xx, but the body says that records were accepted."""
    errors: tuple[RecordError, ...] = ()
    unnamed: int = 0
    """Failures that the reply counts but does not list."""
    message_id: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the platform answered with a 2xx."""
        return self.kind == "answered" and 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class VerdictPolicy:
    """The settings that the table depends on."""

    max_attempts: int
    transient_codes: frozenset[str]
    setting_codes: frozenset[str]
    in_doubt_statuses: frozenset[int]
    repeats_skipped: bool = False
    """The endpoint skips records that it already has, so posting them again is harmless."""


class Action(Enum):
    """What the sender does with a request's records."""

    JUDGE = "verdict by index"
    DOUBT = "in doubt"
    HALVE = "halve"
    SHRINK = "halve, and remember the smaller limit"
    HOLD = "hold the stream"
    HOLD_OR_HALVE = "hold the stream; halve if others pass"
    BACK_OFF = "not accepted: back off, halve if others pass"
    WAIT = "wait as told, then retry"
    OUTAGE = "certainly not sent: retried, as in an outage"
    LOCAL = "decided before sending"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table; `matches` is None for what is decided without a request."""

    name: str
    when: str
    action: Action
    verdict: str
    matches: Callable[[Reply, VerdictPolicy], bool] | None = field(default=None, repr=False)


def _status(low: int, high: int) -> Callable[[Reply, VerdictPolicy], bool]:
    return lambda reply, _: reply.kind == "answered" and low <= reply.status <= high


TABLE: tuple[Row, ...] = (
    Row(
        "tombstone",
        "the value is null",
        Action.LOCAL,
        "outcome `skipped`",
    ),
    Row(
        "filtered",
        "`mapping.when` is not true for it, or `transform` says to skip it",
        Action.LOCAL,
        "outcome `skipped`",
    ),
    Row(
        "unshaped",
        "it cannot be decoded, `transform` says that it failed, or a field of `mapping` cannot be computed",
        Action.LOCAL,
        "dead letter at once; nothing is posted",
    ),
    Row(
        "invalid",
        "not JSON, a required field is missing, not E.164, a contact above 4,000 bytes, a record above the request "
        "limit",
        Action.LOCAL,
        "dead letter at once; nothing is posted",
    ),
    Row(
        "expired",
        "older than `delivery.max_age_secs` (off by default)",
        Action.LOCAL,
        "dead letter `expired`",
    ),
    Row(
        "crashed",
        "listed as in flight by a worker that no longer runs",
        Action.LOCAL,
        "in doubt: as `delivery.in_doubt` says",
    ),
    Row(
        "tls",
        "TLS failure: certificate, host name or protocol",
        Action.HOLD,
        "hold: nothing was sent, nothing is dead-lettered; probed with increasing backoff",
        lambda reply, _: reply.kind == "not_sent" and reply.trouble == "tls",
    ),
    Row(
        "not_sent",
        "could not connect, DNS, or the connection closed before the request was written",
        Action.OUTAGE,
        "certainly not sent: retried, as in an outage",
        lambda reply, _: reply.kind == "not_sent",
    ),
    Row(
        "lost",
        "timeout or reset after writing began",
        Action.DOUBT,
        "in doubt: as `delivery.in_doubt` says",
        lambda reply, _: reply.kind == "lost",
    ),
    Row(
        "unreadable",
        "2xx, but not JSON, empty, inconsistent counts, an index repeated or out of range, `to` echoed for "
        "another record; any other status whose body counts records as accepted",
        Action.DOUBT,
        "no verdict for the batch: in doubt",
        lambda reply, _: (reply.ok and reply.unreadable is not None) or reply.some_taken,
    ),
    Row(
        "accepted",
        "2xx, readable, consistent counts",
        Action.JUDGE,
        "by index: `queued` for all not named in `errors`; each error by its code: permanent codes dead-letter the "
        "record, `retry.transient_codes` send it again in a later batch until `retry.max_attempts`, "
        "`retry.setting_codes` for every record of a batch with the stream's own list hold the stream; failures "
        "counted but not named are in doubt, or found by halving if the endpoint skips repeats, unless all the "
        "others failed: then they are `refused`",
        lambda reply, _: reply.ok,
    ),
    Row(
        "in_doubt_status",
        "a status of `delivery.in_doubt_statuses` (default: 504, 520, 524)",
        Action.DOUBT,
        "in doubt: as `delivery.in_doubt` says",
        lambda reply, policy: reply.kind == "answered" and reply.status in policy.in_doubt_statuses,
    ),
    Row(
        "wait",
        "408, 425, 429, or 503 with `Retry-After` (seconds or date, capped by `retry.retry_after_max_secs`)",
        Action.WAIT,
        "not accepted: wait, then retry; lowers concurrency; if all are told to wait: the whole stream waits that "
        "long; never a dead letter, except for a 503 while others pass: as without `Retry-After`",
        lambda reply, _: (
            reply.kind == "answered"
            and (reply.status in WAIT_STATUSES or (reply.status == 503 and reply.retry_after_secs is not None))
        ),
    ),
    Row(
        "server_error",
        "500, 502, 503 and other 5xx",
        Action.BACK_OFF,
        "not accepted, according to the platform: backoff with jitter; all failing: the circuit opens and consumption "
        "pauses; one failing while others pass: halved (in six, if others overtook it), and a single record that "
        "still fails after `retry.max_attempts` is a dead letter `server_error`",
        _status(500, 599),
    ),
    Row(
        "too_large",
        "413",
        Action.SHRINK,
        "halve, and remember the smaller limit for ten minutes; a single record: dead letter `payload_too_large`",
        _status(413, 413),
    ),
    Row(
        "setting",
        "a code of `retry.setting_codes` for the whole request, with the stream's own list",
        Action.HOLD,
        "hold: the setting is wrong, not the records",
        lambda reply, policy: (
            reply.kind == "answered" and 400 <= reply.status < 500 and reply.code in policy.setting_codes
        ),
    ),
    Row(
        "blocked",
        "403, 400, 409, 422 and other 4xx about a record, without the platform's JSON: a gateway or firewall in front "
        "of it, which may object to the text of one record",
        Action.HOLD_OR_HALVE,
        "hold, as `refused_all`; while others pass: halved, and a single record that is still rejected after "
        "`retry.max_attempts`, while others pass each time, is a dead letter `rejected`",
        lambda reply, _: (
            reply.kind == "answered"
            and reply.foreign
            and 400 <= reply.status < 500
            and (reply.status == 403 or reply.status not in {*GLOBAL_STATUSES, 404})
        ),
    ),
    Row(
        "refused_all",
        "401, 402, 403, 404 without a record's code, 405, 406, 407, 410, 411, 415, 417, 421, 426, 431, 3xx",
        Action.HOLD,
        "hold: paused, alarm, probe with increasing backoff; nothing dead-lettered; secrets given by file are re-read",
        lambda reply, _: (
            reply.kind == "answered"
            and (
                reply.status in GLOBAL_STATUSES
                or 300 <= reply.status < 400
                or (reply.status == 404 and reply.code not in NOT_FOUND_CODES)
            )
        ),
    ),
    Row(
        "rejected",
        "400, 404 with a record's code, 409, 422, other 4xx for the request",
        Action.HALVE,
        "halve, one attempt per level, no backoff, until the one bad record is alone: dead letter, with a code of "
        "`retry.transient_codes` only after `retry.max_attempts`; the others continue",
        _status(400, 499),
    ),
    Row(
        "strange",
        "any other status",
        Action.DOUBT,
        "in doubt: as `delivery.in_doubt` says",
        lambda _reply, _policy: True,
    ),
)


def classify(reply: Reply, policy: VerdictPolicy, *, own_list: bool) -> Row:
    """Return the row that applies to a reply; the last row matches any."""
    for row in TABLE:
        if row.matches is None or (row.name == "setting" and not own_list):
            continue
        if row.matches(reply, policy):
            return row
    raise AssertionError("the last row matches any reply")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a record: an outcome (`queued`, `skipped`) or a dead letter."""

    status: Literal["queued", "skipped", "dead_letter"]
    reason: str = ""
    """Why it was skipped or is a dead letter; one of a bounded number."""
    code: str | None = None
    """The platform's own code; not bounded."""
    text: str = field(default="", repr=False)
    http_status: int | None = None
    message_id: str | None = None


QUEUED = Verdict("queued")
SKIPPED = Verdict("skipped", reason="tombstone")
FILTERED = Verdict("skipped", reason="filtered")
"""The stream's mapping or transform says that it is not to be sent."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The verdicts of a batch: one for all, and the exceptions by index."""

    default: Verdict
    exceptions: Mapping[int, Verdict] = field(default_factory=dict)

    def of(self, index: int) -> Verdict:
        """Return the verdict of the record at `index`."""
        return self.exceptions.get(index, self.default)

    def picked(self, indices: Sequence[int]) -> "Verdicts":
        """Return the verdicts of the records at `indices`, renumbered from 0."""
        if not self.exceptions:
            return self
        chosen = {new: self.exceptions[old] for new, old in enumerate(indices) if old in self.exceptions}
        return Verdicts(self.default, chosen)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a 2xx means for each record: `again`, `doubt` and `probe` are ascending indices, the rest have verdicts."""

    verdicts: Verdicts
    again: tuple[int, ...] = ()
    """Failed for now: to be sent again in a later batch."""
    doubt: tuple[int, ...] = ()
    probe: tuple[int, ...] = ()
    """Some of these failed and the reply does not say which; the endpoint skips repeats, so halving finds out."""
    hold_code: str | None = None
    """Every record failed with a code that means a wrong setting: none has a verdict."""


def judge(reply: Reply, count: int, policy: VerdictPolicy, *, failures: int, own_list: bool) -> Judgement:
    """Return what a readable 2xx means for each of the `count` records of a request.

    `failures` are the attempts that count against its own records, including this one.
    """
    queued = Verdict("queued", http_status=reply.status, message_id=reply.message_id)
    if not reply.errors and not reply.unnamed:
        return Judgement(Verdicts(queued))
    all_failed = reply.errors and len(reply.errors) + reply.unnamed == count
    if own_list and all_failed and {error.code for error in reply.errors} <= policy.setting_codes:
        return Judgement(Verdicts(queued), hold_code=reply.errors[0].code)
    exceptions: dict[int, Verdict] = {}
    again: list[int] = []
    for error in reply.errors:
        if error.code in policy.transient_codes and failures < policy.max_attempts:
            again.append(error.index)
        else:
            reason = error.code if error.code in RECORD_CODES else "refused"
            exceptions[error.index] = Verdict("dead_letter", reason, error.code, error.text, reply.status)
    rest: tuple[int, ...] = ()
    if reply.unnamed:
        named = {error.index for error in reply.errors}
        rest = tuple(index for index in range(count) if index not in named)
    probing = policy.repeats_skipped and len(rest) > 1
    if rest and reply.unnamed == len(rest) and not probing:
        # All others failed, so there is nothing to doubt; probing a single record would never end.
        unlisted = Verdict("dead_letter", "refused", None, "counted as failed, but not listed", reply.status)
        exceptions.update(dict.fromkeys(rest, unlisted))
        rest = ()
    return Judgement(
        Verdicts(queued, exceptions),
        again=tuple(sorted(again)),
        doubt=() if probing else rest,
        probe=rest if probing else (),
    )


def rejection(reply: Reply, row: Row) -> Verdict:
    """Return the verdict of a single record that the platform keeps rejecting."""
    match row.action:
        case Action.SHRINK:
            reason = "payload_too_large"
        case Action.BACK_OFF | Action.WAIT:
            reason = "server_error"
        case _:
            reason = reply.code if reply.code in RECORD_CODES else "rejected"
    return Verdict("dead_letter", reason or "rejected", reply.code, reply.text, reply.status or None)


def in_doubt(reply: Reply | None, *, detail: str = "") -> Verdict:
    """Return the verdict of a record whose fate is unknown and that is not posted again."""
    if reply is None:
        return Verdict("dead_letter", "in_doubt", None, detail or "listed as in flight, and no answer is known")
    text = reply.unreadable or reply.text or reply.trouble
    return Verdict("dead_letter", "in_doubt", reply.code, text, reply.status or None)
