"""Who is in a consumer group, for finding out about a twin before it is fenced."""

from dataclasses import dataclass
from typing import Any, cast

from confluent_kafka.admin import AdminClient

from connector.kafka.configs import Config
from connector.kafka.errors import KafkaTroubleError, answer


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group, as the coordinator sees it."""

    client_id: str
    instance_id: str | None


def members(config: Config, group: str, timeout_secs: float) -> list[Member]:
    """Return the members of a group; a group that does not exist has none. Raises `KafkaTroubleError`."""
    admin = AdminClient(cast("Any", config))
    future = admin.describe_consumer_groups([group], request_timeout=timeout_secs)[group]
    try:
        described = answer(future, timeout_secs + 1, f"asking who is in group {group}")
    except KafkaTroubleError as trouble:
        if trouble.code == "GROUP_ID_NOT_FOUND":
            return []
        raise
    return [Member(member.client_id, member.group_instance_id) for member in described.members]
