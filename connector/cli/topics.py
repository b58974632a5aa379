"""Names of topics as people type them."""

import re

from connector.cli.errors import CommandError
from connector.config.model import TOPIC_NAME


def topic_named(option: str, name: str) -> str:
    """Return the name that an option gives; raises `CommandError` where no topic can have it.

    Brokers do not say so of a topic that is read: they call it a topic that is not there, or nothing at all.
    """
    if re.fullmatch(TOPIC_NAME, name) is None or name in {".", ".."}:
        raise CommandError(
            f"{option} is not a valid topic name", way_out="letters, digits, dots, underscores and hyphens, 249 at most"
        )
    return name
