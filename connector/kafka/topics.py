"""Queries topics (existence, limits, partitions, ids) and creates them."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._metadata import ClusterMetadata
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from connector.config.streams import CreateTopicsSettings, naming
from connector.core.chunks import Partition
from connector.kafka.configs import MAX_BATCH_BYTES, Config
from connector.kafka.errors import REJECTIONS, KafkaTroubleError, RetriableError, answer, translate

BATCH_OVERHEAD_BYTES = 1_024
"""Upper bound of what a batch takes besides its records."""

DEFAULT_MAX_MESSAGE_BYTES = 1_048_588
"""Kafka's default of `max.message.bytes`, assumed if the topic's own cannot be read."""

_CANNOT_TELL = frozenset({"_UNSUPPORTED_FEATURE", "UNSUPPORTED_VERSION"})
"""Answers of clusters that do not describe their topics; librdkafka's mock cluster does not answer at all."""

_UNFIT: Final = frozenset(
    {
        "INVALID_REPLICATION_FACTOR",
        "INVALID_PARTITIONS",
        "INVALID_CONFIG",
        "POLICY_VIOLATION",
        "INVALID_TOPIC_EXCEPTION",
    }
)
"""Why a broker does not create a topic as requested."""

_LIMITS: Final = ("max.message.bytes", "segment.bytes")
"""Settings of a topic that limit a batch: a segment accepts none that is larger than itself."""

SOON_SECS = 3.0
"""Timeout of a query that a tick waits for; `Targets.refresh` makes two, for partitions and for limits."""

CLUSTER_SECS: Final = 1.0
"""Timeout for querying the cluster id, which happens once per topic and when one is replaced."""


class TopicsMissingError(Exception):
    """Topics do not exist and may not be created; the message contains the commands that create them."""


class TopicRefusedError(TopicsMissingError):
    """A broker does not create a topic as `create_topics` says; the message contains the cause."""


def partitions_of(topics: Sequence[str], metadata: ClusterMetadata) -> set[Partition]:
    """Return all partitions of these topics, names and patterns (`^...`), whoever owns them."""
    is_named = naming(topics)
    return {
        Partition(name, number)
        for name, found in metadata.topics.items()
        if is_named(name)
        for number in found.partitions
    }


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What is known of one topic."""

    partitions: int
    max_message_bytes: int

    @property
    def batch_bytes(self) -> int:
        """Bytes of records that a producer may put into a batch: topics limit the batch as it is sent, not the record.

        The overhead of a batch is subtracted; a record that is larger is sent alone.
        """
        return max(min(self.max_message_bytes - BATCH_OVERHEAD_BYTES, MAX_BATCH_BYTES), 1)


@dataclass(frozen=True, slots=True)
class TopicId:
    """The topic behind a name, by id and cluster; a topic that is recreated under its name is another one."""

    cluster: str
    topic: str

    def replaces(self, other: "TopicId") -> bool:
        """Return whether this is another topic of the same cluster; in a copy of the cluster, it may be a copy."""
        return self.cluster == other.cluster and self.topic != other.topic


class IdsAsked:
    """A running query for topic ids; `cluster` queries whose they are, for a moment at most."""

    def __init__(self, topics: "Mapping[str, Future[Any]]", cluster: Callable[[], str | None]) -> None:
        self._topics = topics
        self.cluster = cluster

    @property
    def is_done(self) -> bool:
        """Whether it is answered, or will never be."""
        return all(future.done() for future in self._topics.values())

    @property
    def has_failed(self) -> bool:
        """Whether the cluster did not answer at all, not even about missing topics."""
        errors = [future.exception() for future in self._topics.values() if future.done()]
        return any(isinstance(error, KafkaException) and error.args[0].code() < 0 for error in errors)

    def answer(self, within_secs: float = 0.0) -> dict[str, str]:
        """Return the ids that arrive in time; topics that do not exist, and brokers without ids, have none."""
        wait(self._topics.values(), within_secs)
        told = {n: f.result().topic_id for n, f in self._topics.items() if f.done() and f.exception() is None}
        return {
            name: str(uuid)
            for name, uuid in told.items()
            if uuid.get_most_significant_bits() or uuid.get_least_significant_bits()  # older brokers return zeros
        }


class Topics:
    """Queries topics of the cluster, and creates them."""

    def __init__(self, config: Config, timeout_secs: float) -> None:
        self._config = {**config, "error_cb": self._on_error}
        self._admin = AdminClient(cast("Any", self._config))
        self._timeout = timeout_secs
        self._refused: KafkaError | None = None
        self._ids_asked: IdsAsked | None = None

    def _on_error(self, error: KafkaError) -> None:
        """Remember why a broker closed the connection: the call that waits for it only reports a timeout."""
        if error.code() in REJECTIONS:
            self._refused = error

    def facts(self, names: Iterable[str]) -> dict[str, TopicFacts | None]:
        """Return what is known of each topic, None for one that does not exist."""
        partitions = self.partitions(names)
        limits = self.limits([name for name, count in partitions.items() if count])
        return {
            name: TopicFacts(count, limits.get(name) or DEFAULT_MAX_MESSAGE_BYTES) if count else None
            for name, count in partitions.items()
        }

    def partitions(self, names: Iterable[str], timeout_secs: float | None = None) -> dict[str, int]:
        """Return how many partitions each topic has, 0 if it does not exist."""
        topics = self._metadata(timeout_secs or self._timeout).topics
        there = {name: found.partitions for name, found in topics.items() if found.error is None}
        return {name: len(there.get(name, ())) for name in names}

    def names(self) -> list[str]:
        """Return the names of all topics that we may see."""
        return sorted(self._metadata(self._timeout).topics)

    def _metadata(self, timeout_secs: float) -> ClusterMetadata:
        self._refused = None
        try:
            return self._admin.list_topics(timeout=timeout_secs)
        except KafkaException as error:
            self._admin.poll(0)
            self._renew()
            if self._refused is not None:
                raise RetriableError(self._refused, "asking the brokers for their topics") from error
            raise translate(error, "asking the brokers for their topics") from error

    def _renew(self) -> None:
        """Ask with a new client from now on: this one may have lost its brokers, see `reachability`."""
        self._admin = AdminClient(cast("Any", self._config))

    def ask_ids(self, names: Collection[str]) -> IdsAsked:
        """Start a query for the ids of topics, at least one; returns at once."""
        if self._ids_asked is not None and self._ids_asked.has_failed:
            self._renew()
        topics = self._admin.describe_topics(TopicCollection(list(names)), request_timeout=SOON_SECS)
        self._ids_asked = IdsAsked(topics, self._cluster)
        return self._ids_asked

    def _cluster(self) -> str | None:
        """Return the id of the cluster, None if it does not answer soon.

        Not by `describe_cluster`: librdkafka (2.15) aborts the process (an assertion in
        `rd_kafka_admin_response_parse`) if a broker answers it without brokers, as one that is starting does.
        """
        try:
            return self._metadata(CLUSTER_SECS).cluster_id
        except KafkaTroubleError:
            return None

    def limits(self, names: Sequence[str], timeout_secs: float | None = None) -> dict[str, int | None]:
        """Return the limit of each topic that is answered in time, in bytes; None if we may not know it.

        That is `max.message.bytes`, or `segment.bytes` if that is less.
        """
        configs = self._configs(names, timeout_secs)
        return {
            name: None if config is None else min(int(config[limit].value) for limit in _LIMITS if limit in config)
            for name, config in configs.items()
        }

    def compacted(self, names: Sequence[str]) -> set[str]:
        """Return which topics are compacted, of those whose settings we may know."""
        configs = self._configs(names, None)
        return {name for name, config in configs.items() if config and "compact" in config["cleanup.policy"].value}

    def under_min_isr(self, names: Sequence[str], timeout_secs: float) -> str:
        """Describe topics that accept nothing because too few replicas of a partition are in sync; empty if none."""
        there, short = self._metadata(timeout_secs).topics, []
        for name, config in self._configs([name for name in names if name in there], timeout_secs).items():
            least = int(config["min.insync.replicas"].value) if config and "min.insync.replicas" in config else 0
            for number, found in there[name].partitions.items():
                if len(found.isrs) < min(least, len(found.replicas)):  # with fewer replicas, Kafka requires only those
                    short.append(
                        f"{name} takes no results while too few replicas are in sync: of partition {number} "
                        f"{len(found.isrs)} of {len(found.replicas)}, with min.insync.replicas {least}"
                    )
                    break
        return "; ".join(short)

    def _configs(self, names: Sequence[str], timeout_secs: float | None) -> dict[str, Mapping[str, Any] | None]:
        """Return the settings of each topic that is answered in time, None if we may not know them."""
        configs: dict[str, Mapping[str, Any] | None] = {}
        if not names:
            return configs
        timeout = timeout_secs or self._timeout
        asked: dict[ConfigResource, Any] = self._admin.describe_configs(
            [ConfigResource(ResourceType.TOPIC, name) for name in names], request_timeout=timeout
        )
        for resource, future in asked.items():
            try:
                configs[resource.name] = answer(future, timeout, f"asking for the settings of topic {resource.name}")
            except KafkaTroubleError as trouble:
                if trouble.unauthorized or trouble.code in _CANNOT_TELL:
                    configs[resource.name] = None
                elif not trouble.unanswered:
                    raise
        return configs

    def create(self, name: str, settings: CreateTopicsSettings, *, partitions: int) -> None:
        """Create a topic; it may already exist. Raises `TopicRefusedError`."""
        config: dict[str, str] = {}
        if settings.max_message_bytes is not None:
            config["max.message.bytes"] = str(settings.max_message_bytes)
        if settings.retention_hours is not None:
            config["retention.ms"] = str(int(settings.retention_hours * 3_600_000))
        topic = NewTopic(
            name,
            num_partitions=settings.partitions or partitions,
            replication_factor=settings.replication_factor,
            config=config,
        )
        future = self._admin.create_topics([topic], request_timeout=self._timeout)[name]
        try:
            answer(future, self._timeout + 1, f"creating topic {name}")
        except KafkaTroubleError as error:
            if error.code in _UNFIT:
                raise TopicRefusedError(str(error)) from error
            if error.code != "TOPIC_ALREADY_EXISTS":
                raise

    def make(
        self, missing: Sequence[str], create: CreateTopicsSettings | None, *, partitions: int, bootstrap_servers: str
    ) -> None:
        """Create missing topics; raises `TopicsMissingError` if that is not allowed. `create`: None for no stream's."""
        if create is None or not create.enabled:
            commands = self.creation_commands(
                missing, create or CreateTopicsSettings(), partitions=partitions, bootstrap_servers=bootstrap_servers
            )
            told = "\n".join(f"  {command}" for command in commands)
            otherwise = "" if create is None else "\nor set `create_topics.enabled: true` for the stream."
            raise TopicsMissingError(
                f"these topics do not exist: {', '.join(missing)}. Create them:\n{told}{otherwise}"
            )
        for name in missing:
            self.create(name, create, partitions=partitions)
        self._await_leaders(missing)

    def creation_commands(
        self, names: Sequence[str], create: CreateTopicsSettings, *, partitions: int, bootstrap_servers: str
    ) -> list[str]:
        """Return `kafka-topics.sh` commands that create topics, with no more replicas than there are brokers."""
        copies = ""  # the brokers' default
        with suppress(KafkaTroubleError):
            if (most := min(create.replication_factor, len(self._metadata(self._timeout).brokers))) > 0:
                copies = f" --replication-factor {most}"
        return [
            f"kafka-topics.sh --bootstrap-server {bootstrap_servers} --create --topic {name} "
            f"--partitions {create.partitions or partitions}{copies}"
            for name in names
        ]

    def _await_leaders(self, names: Sequence[str]) -> None:
        """Wait until new topics can be written to, which is after their creation was answered."""
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            there = self._metadata(self._timeout).topics
            partitions = [list(there[name].partitions.values()) if name in there else [] for name in names]
            if all(found and all(p.leader >= 0 for p in found) for found in partitions):
                return
            time.sleep(0.05)
