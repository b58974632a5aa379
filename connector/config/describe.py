"""Settings as they take effect, fit for logs and screens: defaults filled in, secrets left out."""

import re
from typing import Any, Final
from urllib.parse import urlsplit

from connector.config.settings import Settings

HIDDEN: Final = "***"

_SECRET_PROPERTY: Final = re.compile(
    r"secret|password|token(?!\.endpoint)|\.pem|jaas|assertion|oauthbearer\.config|key\.id"
)
"""Names of librdkafka properties whose value may be, or hold, a secret; their endpoints are worth seeing."""


def redacted(settings: Settings) -> dict[str, Any]:
    """Return all settings as plain JSON values, with `***` for each secret that is set.

    What a default is worked out from (the group, what happens to records in doubt, the most requests at once) is
    shown as the value in effect.
    """
    shown = settings.model_dump(mode="json")
    security, trackly, web = shown["kafka"]["security"], shown["trackly"], shown["web"]
    registry = shown["schema_registry"] or {}
    for owner, name in (
        (trackly, "api_key"),
        (security, "password"),
        (security, "key_password"),
        (web, "token"),
        (registry, "password"),
        (registry, "token"),
    ):
        if owner.get(name) is not None:
            owner[name] = HIDDEN
    for group in ("properties", "consumer_properties", "producer_properties"):
        properties = shown["kafka"][group]
        shown["kafka"][group] = {
            name: HIDDEN if _SECRET_PROPERTY.search(name) else value for name, value in properties.items()
        }
    shown["traces"]["headers"] = dict.fromkeys(settings.traces.headers, HIDDEN)
    if settings.trackly.proxy is not None:
        trackly["proxy"] = without_user(settings.trackly.proxy)
    for stream, settings_of_stream in zip(shown["streams"], settings.streams, strict=True):
        stream["group_id"] = settings_of_stream.group
        stream["delivery"]["in_doubt"] = settings_of_stream.in_doubt
        stream["concurrency"]["max"] = settings_of_stream.ceiling
    return shown


def without_user(url: str) -> str:
    """Return an address whose user and password, if any, are hidden."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return parts._replace(netloc=f"{HIDDEN}@{parts.netloc.rpartition('@')[2]}").geturl()
