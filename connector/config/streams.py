"""One stream: from which topics to which operation, in which batches, and what happens when something fails.

Defaults are measured, or stated by the platform; bounds are those of the far end, or of arithmetic. Checks across
settings are in `checks`.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal, assert_never

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from connector.config.formats import Format, FormatSettings
from connector.config.mapping import MappingSettings, OverrideSettings, SubscribedPattern, Transform
from connector.config.model import Model, PhoneNumber, Seconds, Topic
from connector.config.problems import KeyPath

STREAM_NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,99}$"

Operation = Literal["send", "contacts", "revenue", "history"]
Mode = Literal["bulk", "single"]
InDoubt = Literal["dead_letter", "resend", "hold"]
Code = Annotated[str, Field(min_length=1, max_length=100)]

DEFAULT_CEILING: dict[Mode, int] = {"bulk": 64, "single": 256}
"""Concurrent requests without `concurrency.max`: smaller requests need more of them for the same throughput."""


def _replication(value: int) -> int:
    if value == 0:
        raise ValueError("must be at least 1, or -1 for the broker's default")
    return value


def _start(value: Any) -> Any:
    """Parse a time in ISO 8601; the two words, and values that are times already, stay as they are."""
    moment = value
    if isinstance(value, str) and value not in {"earliest", "latest"}:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(_START_FORM) from None
    if isinstance(moment, datetime) and moment.utcoffset() is None:
        raise ValueError("must have a UTC offset, such as 2026-01-31T08:00:00Z")
    if not isinstance(moment, str | datetime):
        raise ValueError(_START_FORM)  # noqa: TRY004  (pydantic reports ValueError, not TypeError)
    return moment


_START_FORM = "must be earliest, latest or a time such as 2026-01-31T08:00:00Z"

Start = Annotated[
    Literal["earliest", "latest"] | datetime,
    BeforeValidator(_start),
    WithJsonSchema(
        {"anyOf": [{"enum": ["earliest", "latest"]}, {"type": "string", "format": "date-time"}]},
        mode="validation",
    ),
]


class BatchSettings(Model):
    """When a batch is closed. A record that exceeds a limit by itself is never posted."""

    max_records: Annotated[int, Field(ge=1, le=1_000)] = 1_000
    """Maximum records in one request; the platform accepts 1,000."""
    max_bytes: Annotated[int, Field(ge=1_000, le=5_000_000)] = 5_000_000
    """Maximum bytes in one request, including the envelope; the platform accepts 5 MB."""
    window_ms: Annotated[int, Field(ge=0, le=60_000)] = 200
    """How long the first record of a batch waits for more, in milliseconds; longer while as many batches are ready as
    may be in flight."""


class DeliverySettings(Model):
    """What is guaranteed for each record, and how much may be in flight at once."""

    guarantee: Literal["exactly_once", "at_least_once"] = "exactly_once"
    """`exactly_once`: one outcome or dead letter per record, in transactions. `at_least_once`: for brokers or
    principals without transactions; results may repeat after a crash or a rebalance, or if some are rejected."""
    in_doubt: InDoubt | None = None
    """What to do with a record if nobody knows whether the platform accepted it: make it a dead letter, post it again
    (while others pass, with fewer and fewer others in its request, `retry.max_attempts` times in all: then it becomes a
    dead letter), or hold its partition until someone decides. Left out: `resend` where the platform skips repeats
    (history sends and clicks on the typed endpoints, contacts without journeys), otherwise `dead_letter`."""
    in_doubt_statuses: list[Annotated[int, Field(ge=500, le=599)]] = Field(default=[504, 520, 524])
    """5xx statuses after which the platform may have accepted the batch; after all other 5xx it is posted again. By
    default those of gateways that forwarded a request and got no answer: 504, and 520 and 524 of Cloudflare. Its 522
    says so only 90 s after the request, and before that it means that no connection was made: add it if
    `trackly.timeouts.total_secs` is as long."""
    max_in_flight_records: Annotated[int, Field(ge=1, le=10_000_000)] = 64_000
    """Maximum records posted and not yet settled, per stream and worker: at most that many are in doubt after a
    crash."""
    drain_secs: Seconds = 40.0
    """How long a stream may take to finish what is in flight when it stops, in seconds."""
    max_age_secs: Annotated[float, Field(gt=0, le=31_536_000)] | None = None
    """Records older than this many seconds become dead letters (`expired`) instead of late texts; checked when they are
    read, and before they are posted. Off when left out."""
    tick_interval_ms: Annotated[int, Field(ge=1, le=5_000)] = 20
    """Minimum time between two ticks (transactions), in milliseconds."""
    max_tick_records: Annotated[int, Field(ge=1_000, le=10_000_000)] = 100_000
    """Maximum outcomes and dead letters in one tick."""
    max_tick_bytes: Annotated[int, Field(ge=1_000_000, le=1_000_000_000)] = 64_000_000
    """Maximum bytes of outcomes and dead letters in one tick, in the memory of the producer."""


class PaceSettings(Model):
    """How fast the texts of each list are posted, so that the excess waits in Kafka and not on the platform."""

    messages_per_minute: Annotated[float, Field(gt=0, le=100_000_000)] | None = None
    """Texts a minute for each list that `lists` does not name; the platform's own rate is 17,000 unless it was raised.
    Left out: as fast as possible."""
    lists: dict[PhoneNumber, Annotated[float, Field(gt=0, le=100_000_000)]] = Field(default_factory=dict)
    """Texts a minute for specific lists, by their number (E.164)."""

    @property
    def is_on(self) -> bool:
        """Whether any list has a pace."""
        return self.messages_per_minute is not None or bool(self.lists)


class RetrySettings(Model):
    """How often, and after which waits, to retry what the platform has certainly not accepted."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 5
    """Attempts for one record, including the first, before it becomes a dead letter; attempts that failed while all
    others failed too, or that were told to wait (408, 425, 429), do not count."""
    backoff_base_secs: Annotated[float, Field(gt=0, le=3_600)] = 1.0
    """Wait after the first failure, in seconds; it doubles with each further one, plus jitter."""
    backoff_max_secs: Annotated[float, Field(gt=0, le=3_600)] = 60.0
    """Longest wait between two attempts, in seconds."""
    retry_after_max_secs: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    """Longest wait that a `Retry-After` of the platform may request, in seconds."""
    transient_codes: list[Code] = Field(default=["provider_error", "save_error", "internal_error"])
    """Codes of single records that are worth another attempt; all others are final."""
    setting_codes: list[Code] = Field(default=["list_not_found", "webhook_not_configured"])
    """Codes that mean a wrong setting when they hit every record of a batch: the stream holds instead of emptying the
    topic into the dead letters."""


class BreakerSettings(Model):
    """When requests to a failing platform stop, and how it is probed."""

    failures: Annotated[int, Field(ge=1, le=1_000)] = 5
    """Failed requests in a row, with none succeeding, that open the circuit; or requests in a row that are told to
    wait, after which the whole stream waits."""
    # A probe is one small request; a longer wait would not allow full speed within 5 s of an outage's end.
    probe_secs: Seconds = 0.5
    """Wait before the first probe, in seconds; it doubles."""
    probe_max_secs: Seconds = 2.0
    """Longest wait between two probes, in seconds."""


class HoldSettings(Model):
    """How a stream that holds finds out whether the reason is gone."""

    probe_secs: Seconds = 2.0
    """Wait before the first probe, in seconds; it doubles."""
    probe_max_secs: Seconds = 60.0
    """Longest wait between two probes, in seconds."""


class ConcurrencySettings(Model):
    """Limits of the adaptive number of concurrent requests."""

    min: Annotated[int, Field(ge=1, le=1_024)] = 1
    """Minimum concurrent requests."""
    max: Annotated[int, Field(ge=1, le=1_024)] | None = None
    """Maximum concurrent requests; 64 in bulk mode and 256 in single mode when left out."""


class OutcomeSettings(Model):
    """Where results go."""

    topic: Topic
    """Topic of the outcomes."""
    records: Literal["all", "failures"] = "all"
    """`all`: one outcome for each record. `failures`: dead letters only; the promise then reads: each failure exactly
    once."""
    partition: Literal["source", "key"] = "source"
    """`source`: the record's partition modulo the topic's count. `key`: by hash of the key, at more CPU per record."""


class RedriveSettings(Model):
    """A rule by which a stream automatically sends its own dead letters again."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,49}$")
    """Name of the rule, in its consumer group (`<group>.redrive.<name>`), in metrics and on the pages. Its progress is
    stored under this name, so keep it when the rest changes."""
    reasons: list[Code] = Field(min_length=1)
    """Reasons of the dead letters that are sent again; never `in_doubt`."""
    delay_secs: Annotated[float, Field(ge=0, le=604_800)] = 300.0
    """How long after it was written a dead letter is sent again, in seconds."""
    max_per_sec: Annotated[float, Field(gt=0, le=1_000_000)] = 100.0
    """Maximum records sent again per second, per worker."""
    max_redrives: Annotated[int, Field(ge=1, le=100)] = 3
    """How often one record is sent again, also by others; then it stays a dead letter."""


class DeadLetterSettings(Model):
    """Where records that cannot be delivered go."""

    topic: Topic
    """Topic of the dead letters. They contain phone numbers and texts: set its retention and readers accordingly."""
    redrive: list[RedriveSettings] = Field(default_factory=list)
    """Which of them the stream sends again by itself; none when left out. A rule begins with the dead letters that are
    written once it runs."""


class StormSettings(Model):
    """Holds the stream if so many records fail for one reason that the records cannot be at fault."""

    enabled: bool = True
    """Whether the guard is on."""
    max_ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of dead letters with one reason in the window above which the stream holds: of the records that were
    checked, for a reason that a check gives; of those answered or given up, for any other."""
    min_count: Annotated[int, Field(ge=1, le=10_000_000)] = 1_000
    """Minimum dead letters with one reason in the window before the share counts."""
    window_secs: Seconds = 60.0
    """Length of the window, in seconds."""


class CreateTopicsSettings(Model):
    """Whether the connector creates the outcome and dead-letter topics that do not exist."""

    enabled: bool = False
    """Whether missing topics are created at startup."""
    partitions: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Partitions of a created topic; as many as the source topic has when left out."""
    replication_factor: Annotated[int, Field(ge=-1, le=32_767), AfterValidator(_replication)] = 3
    """Replicas of a created topic; -1 for the broker's default."""
    max_message_bytes: Annotated[int, Field(ge=1_000, le=1_000_000_000)] | None = None
    """`max.message.bytes` of a created topic; the broker's default when left out."""
    retention_hours: Annotated[float, Field(gt=0, le=876_000)] | None = None
    """How long a created topic keeps its records, in hours; the broker's default when left out."""


class HistorySettings(Model):
    """What a history stream imports, and through which of the platform's two endpoints."""

    kind: Literal["sends", "clicks", "revenue"] = "sends"
    """What the records are."""
    endpoint: Literal["typed", "import"] = "typed"
    """`typed`: `/history/<kind>`, which skips repeats of sends and clicks. `import`: `/history/import`."""


class RevenueSettings(Model):
    """How revenue is recorded."""

    imported: bool = False
    """The `imported` field of each request, for `mode: bulk`."""


class ContactsSettings(Model):
    """What contact events may trigger."""

    journeys: bool = False
    """Whether events may enrol contacts in journeys (`use_journeys: true`). `false`: such events become dead letters
    (`journeys_not_allowed`). `true`: a repeated post may text people, so what is in doubt becomes a dead letter unless
    `delivery.in_doubt` says otherwise."""


def naming(topics: Sequence[str]) -> Callable[[str], bool]:
    """Return a predicate for topics that match one of these, names and patterns (`^...`), as in librdkafka."""
    names = frozenset(topics)
    patterns = [re.compile(topic) for topic in topics if topic.startswith("^")]
    return lambda topic: topic in names or any(pattern.search(topic) for pattern in patterns)


class StreamSettings(Model):
    """One flow from topics to one operation, with its own group, transactions and limits."""

    name: str = Field(pattern=STREAM_NAME)
    """Name of the stream, in metrics, logs, ids and the redrive topic (`<name>.redrive`)."""
    group_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")] | None = None
    """Consumer group; `trackly-connector.<name>` when left out."""
    topics: list[Topic] = Field(default_factory=list)
    """Topics to read. Either these or `pattern`."""
    pattern: SubscribedPattern | None = None
    r"""Regular expression, starting with `^`, for the names of the topics to read, in syntax that Kafka's client and
    Python interpret alike: `[0-9]` and not `\d`. Either this or `topics`."""
    format: Format = Field(default_factory=FormatSettings)
    """What the values of records are: a name (`format: cloudevents`), or a group of settings."""
    operation: Operation
    """What is done with each record."""
    mode: Mode = "bulk"
    """`bulk`: batches. `single`: one request per record, if you need message ids (not for history)."""
    list_number: PhoneNumber | None = None
    """The sending list's number (E.164) for events without one."""
    list_number_placement: Literal["message", "top_level"] = "message"
    """Where a bulk send carries the list number: in each message, or once at the top, so that a batch has only one
    list."""
    history: HistorySettings = Field(default_factory=HistorySettings)
    """For `operation: history`."""
    revenue: RevenueSettings = Field(default_factory=RevenueSettings)
    """For `operation: revenue`."""
    contacts: ContactsSettings = Field(default_factory=ContactsSettings)
    """For `operation: contacts`."""
    unknown_fields: Literal["pass", "reject"] = "pass"
    """What to do with fields that are not in the platform's reference: pass them on, or make the record a dead
    letter."""
    mapping: MappingSettings | None = None
    """How events are made of records; without it a record's value is the event."""
    transform: Transform | None = None
    """Your own function, `package.module:function`, which gets the records of a chunk before they are mapped."""
    overrides: list[OverrideSettings] = Field(default_factory=list)
    """What is otherwise for some of the topics."""
    ordering: Literal["none", "key"] = "none"
    """`key`: a record is posted only after the previous one with the same Kafka key, in the same partition, has its
    result; records without a key are not ordered. `none`: batches are posted in parallel, in any order."""
    pace: PaceSettings = Field(default_factory=PaceSettings)
    """Pace of lists, for `operation: send`."""
    start: Start = "earliest"
    """Where a group without commits starts: `earliest`, `latest`, or an ISO 8601 time with a UTC offset."""
    on_missing: Literal["hold", "continue"] = "hold"
    """What to do when retention removed records that were not read yet: hold the stream, or continue with the oldest
    available record."""
    metadata_refresh_secs: Annotated[float, Field(ge=1, le=86_400)] = 30.0
    """How often topics are looked up again, in seconds: new ones that match `pattern`, new partitions, and topics that
    did not exist yet, including the redrive topic."""
    batch: BatchSettings = Field(default_factory=BatchSettings)
    """Limits of a batch."""
    delivery: DeliverySettings = Field(default_factory=DeliverySettings)
    """Guarantee and limits."""
    retry: RetrySettings = Field(default_factory=RetrySettings)
    """Further attempts."""
    breaker: BreakerSettings = Field(default_factory=BreakerSettings)
    """The circuit breaker."""
    hold: HoldSettings = Field(default_factory=HoldSettings)
    """Probes while the stream holds."""
    concurrency: ConcurrencySettings = Field(default_factory=ConcurrencySettings)
    """Requests at once."""
    outcomes: OutcomeSettings
    """Results."""
    dead_letters: DeadLetterSettings
    """Records that could not be delivered."""
    storm_guard: StormSettings = Field(default_factory=StormSettings)
    """Guard against a flood of dead letters."""
    create_topics: CreateTopicsSettings = Field(default_factory=CreateTopicsSettings)
    """Creation of missing topics."""

    def reads(self, topic: str) -> bool:
        """Return whether the stream reads a topic."""
        return naming(self.sources)(topic)

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the names or the pattern (`^...`) that are read, without the redrive topic."""
        return (*self.topics, *([] if self.pattern is None else [self.pattern]))

    @property
    def group(self) -> str:
        """Return the consumer group in use."""
        return self.group_id or f"trackly-connector.{self.name}"

    @property
    def redrive_topic(self) -> str:
        """Return the redrive topic, to which dead letters are sent again, and which the stream reads beside its own."""
        return f"{self.name}.redrive"

    def redrive_group(self, rule: str) -> str:
        """Return the consumer group of one of the stream's redrive rules."""
        return f"{self.group}.redrive.{rule}"

    def variants(self) -> "list[StreamSettings]":
        """Return the settings for topics without an override, then those for each override."""
        return [self, *map(self._overridden, self.overrides)]

    def variant_for(self, topic: str) -> int:
        """Return the index in `variants` for a topic."""
        return next((index for index, over in enumerate(self.overrides, start=1) if over.names(topic)), 0)

    def _overridden(self, over: OverrideSettings) -> "StreamSettings":
        changed: dict[str, Any] = {name: getattr(over, name) for name in over.model_fields_set - {"topics", "pattern"}}
        if over.format is None:
            changed.pop("format", None)
        if over.mapping is not None:
            changed["mapping"] = over.mapping.over(self.mapping)
        return self.model_copy(update={**changed, "overrides": []})

    @property
    def formats(self) -> dict[KeyPath, FormatSettings]:
        """Return the formats of its topics, each by its path below the stream."""
        others = {("overrides", index, "format"): over.format for index, over in enumerate(self.overrides)}
        return {("format",): self.format, **{path: chosen for path, chosen in others.items() if chosen is not None}}

    @property
    def ceiling(self) -> int:
        """Return the maximum concurrency: the setting, or what suits the mode."""
        return self.concurrency.max or DEFAULT_CEILING[self.mode]

    @property
    def in_doubt(self) -> InDoubt:
        """Return what becomes of records in doubt: the setting, or by what a repeat would cost at the endpoint.

        The platform skips a repeated history send or click, and a contact without journeys is an upsert; repeating
        anything else texts somebody twice or counts money twice.
        """
        if self.delivery.in_doubt is not None:
            return self.delivery.in_doubt
        match self.operation:
            case "history":
                skips_repeats = self.history.endpoint == "typed" and self.history.kind in {"sends", "clicks"}
                return "resend" if skips_repeats else "dead_letter"
            case "contacts":
                return "dead_letter" if self.contacts.journeys else "resend"
            case "send" | "revenue":
                return "dead_letter"
            case _ as never:
                assert_never(never)
