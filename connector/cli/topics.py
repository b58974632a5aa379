"""Topic names in options."""

import re

from connector.cli.errors import CommandError
from connector.config.model import TOPIC_NAME


def topic_named(option: str, name: str) -> str:
    """Return the name in an option; raises `CommandError` if no topic can have it.

    Brokers do not report this for a topic that is read: they say that it does not exist, or nothing.
    """
    if re.fullmatch(TOPIC_NAME, name) is None or name in {".", ".."}:
        raise CommandError(
            f"{option} is not a valid topic name", way_out="letters, digits, dots, underscores and hyphens, 249 at most"
        )
    return name
