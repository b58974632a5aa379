"""What the brokers allow us: queried, never tried out on anything that others use."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from confluent_kafka import Consumer, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from connector.kafka.configs import Config
from connector.kafka.errors import UNTIL_GIVEN_UP_SECS, KafkaTroubleError, answer, translate

_ANSWER_SECS, _RETRY_SECS = 0.5, 0.1


_DESCRIBING: Final = frozenset({"Read", "Write", "Describe"})
"""Operations that imply the right to describe: none of them is allowed if describing is denied."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What is allowed on a resource: names of operations such as `Read`; None if brokers do not report them.

    Of a topic that does not exist, only that it may be described is known; of one that may not be described, not even
    whether it exists.
    """

    operations: frozenset[str] | None
    exists: bool = True
    describable: bool = True

    def tells(self, wanted: str) -> bool:
        """Return whether an operation is known to be allowed."""
        return self.operations is not None and wanted in self.operations

    def missing(self, wanted: Collection[str]) -> list[str]:
        """Return the operations that are known not to be allowed."""
        if not self.describable:
            return [name for name in wanted if name in _DESCRIBING] or list(wanted)
        return [] if self.operations is None else [name for name in wanted if name not in self.operations]


NOTHING: Final = Allowed(None, describable=False)


class Permissions:
    """Queries what this principal may do. Raises `KafkaTroubleError` if brokers do not answer."""

    def __init__(self, config: Config, timeout_secs: float) -> None:
        self._config = config
        try:
            self._admin = AdminClient(cast("Any", config))
        except KafkaException as error:  # such as a certificate that is just being replaced
            raise translate(error, "making a client that asks what is allowed") from error
        self._timeout = timeout_secs

    def topics(self, names: Sequence[str]) -> dict[str, Allowed]:
        """Return what is allowed on each of these topics."""
        if not names:
            return {}
        futures = self._admin.describe_topics(
            TopicCollection(list(names)), include_authorized_operations=True, request_timeout=self._timeout
        )
        found = {}
        for name, future in futures.items():
            try:
                described = answer(future, self._timeout + 1, f"asking what is allowed on topic {name}")
            except KafkaTroubleError as trouble:
                if not trouble.unauthorized and not trouble.topic_gone:
                    raise
                found[name] = NOTHING if trouble.unauthorized else Allowed(None, exists=False)
            else:
                found[name] = _allowed(described.authorized_operations)
        return found

    def group(self, name: str) -> Allowed:
        """Return what is allowed on a consumer group, whether it exists or not."""
        try:
            self._await_coordinator(name)
            future = self._admin.describe_consumer_groups(
                [name], include_authorized_operations=True, request_timeout=UNTIL_GIVEN_UP_SECS
            )[name]
            described = answer(future, self._timeout, f"asking what is allowed on group {name}")
        except KafkaTroubleError as trouble:
            if trouble.unauthorized:
                return NOTHING
            if trouble.code == "GROUP_ID_NOT_FOUND":
                return Allowed(None, exists=False)
            raise
        return _allowed(described.authorized_operations)

    def may_read(self, names: Collection[str | None], *, group: str, topics: Collection[str]) -> set[str | None]:
        """Return which of these topics may certainly be read, or are gone; None: the group and all of `topics`.

        What brokers do not report, or not in time, is not included.
        """
        asked = {name for name in names if name is not None} | set(topics if None in names else ())
        try:
            found = self.topics(sorted(asked))
            sure = {name for name, allowed in found.items() if not allowed.exists or allowed.tells("Read")}
            whole = None in names and asked <= sure and self.group(group).tells("Read")
        except KafkaTroubleError:
            return set()
        return {*sure, None} if whole else {*sure}

    def _await_coordinator(self, group: str) -> None:
        """Return once a group's coordinator answers, which takes some seconds in a new cluster.

        An admin call may wait for its whole timeout then, though the coordinator is there; a consumer's query for
        commits can be repeated.
        """
        consumer = Consumer({**self._config, "group.id": group, "enable.auto.commit": False})
        deadline = time.monotonic() + self._timeout
        try:
            while True:
                try:
                    consumer.committed([TopicPartition("nothing", 0)], _ANSWER_SECS)
                except KafkaException as error:
                    # Why there is no coordinator is an event of the consumer, not part of the answer.
                    heard = consumer.poll(0)
                    said = heard.error() if heard is not None else None
                    reason = error if said is None else KafkaException(said)
                    trouble = translate(reason, f"asking for the coordinator of group {group}")
                    if not trouble.unreachable or time.monotonic() > deadline:
                        raise trouble from error
                    time.sleep(_RETRY_SECS)
                else:
                    return
        finally:
            consumer.close()

    def refused_creation(self, name: str, *, partitions: int, replication_factor: int) -> KafkaTroubleError | None:
        """Return why a missing topic could not be created, None if it could; nothing is created."""
        order = NewTopic(name, num_partitions=partitions, replication_factor=replication_factor)
        future = self._admin.create_topics([order], validate_only=True, request_timeout=self._timeout)[name]
        try:
            answer(future, self._timeout + 1, f"asking whether topic {name} may be created")
        except KafkaTroubleError as trouble:
            return None if trouble.code == "TOPIC_ALREADY_EXISTS" else trouble
        return None


def _allowed(operations: Any) -> Allowed:
    """Return the reported operations; brokers before 2.3, and librdkafka's mock cluster, report none."""
    if not operations:
        return Allowed(None)
    return Allowed(frozenset(operation.name.title().replace("_", "") for operation in operations))
