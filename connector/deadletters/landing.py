"""Where records must not be put by `--to`, though the topic exists and takes them.

A topic of results that gets records tells its readers what never happened, and gives the next redrive more to do. What
is set aside where a stream reads is not aside: it is sent at once. The settings tell all of this, so that no broker has
to be asked.
"""

from collections.abc import Collection

from connector.config.settings import Settings
from connector.deadletters.deciding import parking_topic

_READ_FROM = "is the topic that the dead letters are read from"


def why_not_sent_to(settings: Settings, topic: str, reading: Collection[str]) -> str:
    """Return why nothing is sent again to a topic, empty where nothing is against it; `reading` is what is read."""
    for stream in settings.streams:
        if topic == stream.dead_letters.topic:
            return f"is the dead-letter topic of stream {stream.name}; nothing reads it to send it"
        if topic == parking_topic(stream.dead_letters.topic):
            return f"is the parking topic of stream {stream.name}; nothing reads it to send it"
    return _of_outcomes(settings, topic) or (_READ_FROM if topic in reading else "")


def why_not_parked_in(settings: Settings, topic: str, reading: Collection[str]) -> str:
    """Return why nothing is set aside in a topic, empty where nothing is against it; `reading` is what is read."""
    for stream in settings.streams:
        if topic == stream.redrive_topic:
            return f"is the redrive topic of stream {stream.name}, which would send what is set aside"
        if stream.reads(topic):
            return f"is read by stream {stream.name}, which would send what is set aside"
    return _of_outcomes(settings, topic) or (_READ_FROM if topic in reading else "")


def _of_outcomes(settings: Settings, topic: str) -> str:
    names = [stream.name for stream in settings.streams if topic == stream.outcomes.topic]
    return f"is the outcome topic of stream {names[0]}, whose readers expect outcomes" if names else ""
