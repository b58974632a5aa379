"""Topics that `--to` and `--topic` must not name, although they exist.

Records in a result topic would report what never happened, and give the next redrive more to do. Records that are
parked where a stream reads are not parked: they are sent at once. And what a stream reads is no dead letter: it may
still wait there, or be in doubt, which its headers do not tell. The settings show all of this, without a broker.
"""

from collections.abc import Collection

from connector.config.settings import Settings
from connector.deadletters.deciding import parking_topic

_READ_FROM = "is the topic that the dead letters are read from"


def why_not_sent_to(settings: Settings, topic: str, reading: Collection[str]) -> str:
    """Return why nothing may be sent again to a topic, empty if it may; `reading` are the topics read here."""
    for stream in settings.streams:
        if topic == stream.dead_letters.topic:
            return f"is the dead-letter topic of stream {stream.name}; nothing reads it to send it"
        if topic == parking_topic(stream.dead_letters.topic):
            return f"is the parking topic of stream {stream.name}; nothing reads it to send it"
    return _of_outcomes(settings, topic) or (_READ_FROM if topic in reading else "")


def why_not_sent_from(settings: Settings, topic: str) -> str:
    """Return why nothing in a topic may be sent again, empty if it may."""
    if topic in {stream.dead_letters.topic for stream in settings.streams}:
        return ""
    for stream in settings.streams:
        if topic == stream.redrive_topic:
            return f"is the redrive topic of stream {stream.name}, which sends its records itself"
        if stream.reads(topic):
            return f"is read by stream {stream.name}, which sends its records itself"
    return ""


def why_not_set_aside_in(settings: Settings, topic: str, reading: Collection[str] = ()) -> str:
    """Return why nothing may be parked in a topic, or imported, empty if it may; `reading` are the topics read here."""
    for stream in settings.streams:
        if topic == stream.redrive_topic:
            return f"is the redrive topic of stream {stream.name}, which would send the records at once"
        if stream.reads(topic):
            return f"is read by stream {stream.name}, which would send the records at once"
    return _of_outcomes(settings, topic) or (_READ_FROM if topic in reading else "")


def _of_outcomes(settings: Settings, topic: str) -> str:
    names = [stream.name for stream in settings.streams if topic == stream.outcomes.topic]
    return f"is the outcome topic of stream {names[0]}, whose readers expect outcomes" if names else ""
