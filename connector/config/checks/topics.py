"""What a stream reads and writes: topics that must not feed themselves, names, groups, and redrive rules."""

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterator

from connector.config.problems import Fault, KeyPath, dotted
from connector.config.settings import Settings
from connector.config.streams import StreamSettings
from connector.core.reasons import REASONS


def faults(settings: Settings) -> Iterator[Fault]:
    """Yield what is wrong with topics, within streams and between them."""
    for index, stream in enumerate(settings.streams):
        at: KeyPath = ("streams", index)
        yield from _topics(stream, at)
        yield from _redrive(stream, at)
    yield from _among_streams(settings.streams)


def _topics(stream: StreamSettings, at: KeyPath) -> Iterator[Fault]:
    inputs: tuple[KeyPath, ...] = ((*at, "topics"), (*at, "pattern"))
    if bool(stream.topics) == (stream.pattern is not None):
        both = "takes topics or pattern, not both" if stream.topics else "needs topics or pattern"
        yield Fault(at, both, inputs)
    for topic, count in Counter(stream.topics).items():
        if count > 1:
            yield Fault((*at, "topics"), f"names {topic} {count} times")
    if stream.redrive_topic in stream.topics:
        yield Fault(
            (*at, "topics"),
            f"must not list {stream.redrive_topic}: it is reserved for records sent again",
            ((*at, "name"),),
        )
    outputs: dict[KeyPath, str] = {
        (*at, "outcomes", "topic"): stream.outcomes.topic,
        (*at, "dead_letters", "topic"): stream.dead_letters.topic,
    }
    for path, topic in outputs.items():
        if topic in stream.topics:
            yield Fault(path, "must not be a topic that the stream reads", inputs)
        elif stream.pattern is not None and re.search(stream.pattern, topic):
            yield Fault(path, "must not match the pattern of topics that the stream reads", inputs)
        elif topic == stream.redrive_topic:
            yield Fault(
                path, "must not be the stream's redrive topic: it is reserved for records sent again", ((*at, "name"),)
            )
    if stream.outcomes.topic == stream.dead_letters.topic:
        yield Fault((*at, "dead_letters", "topic"), "must differ from outcomes.topic", tuple(outputs))


def _redrive(stream: StreamSettings, at: KeyPath) -> Iterator[Fault]:
    names: dict[str, int] = {}
    reasons: dict[str, int] = {}
    for index, rule in enumerate(stream.dead_letters.redrive):
        path: KeyPath = (*at, "dead_letters", "redrive", index)
        if names.setdefault(rule.name, index) != index:
            yield Fault((*path, "name"), f"must be unique; {rule.name} is that of rule {names[rule.name]}")
        for place, reason in enumerate(rule.reasons):
            if reason not in REASONS:
                near = difflib.get_close_matches(reason, REASONS, n=1)
                hint = f"; did you mean {near[0]}?" if near else ", and the rule would wait for it in vain"
                yield Fault((*path, "reasons", place), f"is not a reason of a dead letter{hint}")
            elif reason == "in_doubt":
                yield Fault((*path, "reasons"), "must not have in_doubt: the platform may have accepted such a record")
            elif reasons.setdefault(reason, index) != index:
                yield Fault((*path, "reasons"), f"has {reason}, which is also in rule {reasons[reason]}")
        if index == 0 and stream.delivery.guarantee != "exactly_once":
            yield Fault(
                (*at, "dead_letters", "redrive"),
                "needs delivery.guarantee: exactly_once, since a transaction makes sure that each record is sent again "
                "only once",
                ((*at, "delivery", "guarantee"),),
            )


def _reads_or_writes(stream: StreamSettings, at: KeyPath, topic: str) -> KeyPath | None:
    """Return the setting by which a stream reads or writes a topic, None if it does neither."""
    if topic in stream.topics:
        return (*at, "topics")
    if stream.pattern is not None and re.search(stream.pattern, topic):
        return (*at, "pattern")
    if topic == stream.outcomes.topic:
        return (*at, "outcomes", "topic")
    return (*at, "dead_letters", "topic") if topic == stream.dead_letters.topic else None


def _among_streams(streams: list[StreamSettings]) -> Iterator[Fault]:
    yield from _unique(streams, "name", lambda stream: stream.name)
    yield from _unique(streams, "group_id", lambda stream: stream.group)
    for index, stream in enumerate(streams):
        for other_index, other_stream in enumerate(streams):
            path = _reads_or_writes(other_stream, ("streams", other_index), stream.redrive_topic)
            if other_index != index and path is not None:
                yield Fault(
                    path,
                    f"must not use {stream.redrive_topic}: it is reserved for records that {stream.name} sends again",
                    (("streams", index, "name"),),
                )
    outcomes = {stream.outcomes.topic: index for index, stream in reversed(list(enumerate(streams)))}
    for index, stream in enumerate(streams):
        other = outcomes.get(stream.dead_letters.topic)
        if other is not None and other != index:
            other_path: KeyPath = ("streams", other, "outcomes", "topic")
            yield Fault(
                ("streams", index, "dead_letters", "topic"), f"must differ from {dotted(other_path)}", (other_path,)
            )


def _unique(streams: list[StreamSettings], key: str, value_of: Callable[[StreamSettings], str]) -> Iterator[Fault]:
    first: dict[str, int] = {}
    for index, stream in enumerate(streams):
        value = value_of(stream)
        same_name = value in first and streams[first[value]].name == stream.name
        if value in first and (key == "name" or not same_name):  # a repeated name is reported once
            other: KeyPath = ("streams", first[value], key)
            looked_at: tuple[KeyPath, ...] = (other, ("streams", first[value], "name"), ("streams", index, "name"))
            yield Fault(("streams", index, key), f"must be unique; {value} is that of {dotted(other[:2])}", looked_at)
        first.setdefault(value, index)
