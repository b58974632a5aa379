"""Settings in effect, for logs and screens: with defaults, without secrets."""

import re
from typing import Any, Final
from urllib.parse import urlsplit

from connector.config.kafka import PROPERTY_GROUPS
from connector.config.model import HIDDEN
from connector.config.settings import Settings

_SECRET_PROPERTY: Final = re.compile(
    r"secret|password|token(?!\.endpoint)|\.pem|jaas|assertion|oauthbearer\.config|key\.id"
)
"""Names of librdkafka properties whose value may be or contain a secret; their endpoints are shown."""


def redacted(settings: Settings) -> dict[str, Any]:
    """Return all settings as plain JSON values, with `***` for each secret that is set.

    Computed defaults (the group, `in_doubt`, the maximum concurrency) are shown as the value in effect.
    """
    shown = settings.model_dump(mode="json")
    for group in PROPERTY_GROUPS:
        properties = shown["kafka"][group]
        shown["kafka"][group] = {
            name: HIDDEN if _SECRET_PROPERTY.search(name) else value for name, value in properties.items()
        }
    if settings.trackly.proxy is not None:
        shown["trackly"]["proxy"] = without_user(settings.trackly.proxy)
    for stream, settings_of_stream in zip(shown["streams"], settings.streams, strict=True):
        stream["group_id"] = settings_of_stream.group
        stream["delivery"]["in_doubt"] = settings_of_stream.in_doubt
        stream["concurrency"]["max"] = settings_of_stream.ceiling
    return shown


def without_user(url: str) -> str:
    """Return a URL with user and password hidden, if it has any."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return parts._replace(netloc=f"{HIDDEN}@{parts.netloc.rpartition('@')[2]}").geturl()
