"""What a redrive queries before it writes anything: its earlier progress, what became of origins, and its targets."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

from connector.config.settings import Settings
from connector.config.streams import StreamSettings
from connector.core.chunks import Partition
from connector.core.progress import ForeignMetadataError
from connector.deadletters.deciding import Automatic, Plan, Rules, Survey
from connector.deadletters.progressing import Place, read_place
from connector.deadletters.redriving import group_of
from connector.deadletters.working import CLIENT_ID
from connector.kafka import configs
from connector.kafka.scanning import scanning, until_aborted
from connector.kafka.topics import DEFAULT_MAX_MESSAGE_BYTES, TopicFacts, Topics


class NameTakenError(Exception):
    """The name of a redrive belongs to another one, with another selection."""


def selection_of(spelled: Mapping[str, Any]) -> str:
    """Return the identity of a selection: 16 hexadecimal digits."""
    text = json.dumps(spelled, sort_keys=True, default=sorted)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def places_of(settings: Settings, name: str, selection: str, partitions: Iterable[Partition]) -> dict[Partition, Place]:
    """Return the earlier progress of a redrive; raises `NameTakenError` if its name belongs to another."""
    with scanning(settings.kafka, client_id=CLIENT_ID, group=group_of(name)) as scanner:
        # One that was just killed has left a transaction open, which hides what it had committed.
        committed = scanner.committed(partitions, within_secs=until_aborted(settings.kafka))
    places = {}
    for partition, there in committed.items():
        try:
            places[partition] = place = read_place(there.offset, there.metadata)
        except ForeignMetadataError as error:
            raise NameTakenError(
                f"group {group_of(name)}: {error}; a newer version started this redrive, or somebody else commits there"
            ) from error
        if place.selection not in {"", selection}:
            raise NameTakenError(f"redrive {name} was started with other filters, target or patch")
    return places


def automatic_of(settings: Settings, partitions: Collection[Partition]) -> dict[str, tuple[Automatic, ...]]:
    """Return what streams send again automatically, with the offsets that their rules have reached."""
    found: dict[str, list[Automatic]] = defaultdict(list)
    for stream in settings.streams:
        mine = [partition for partition in partitions if partition.topic == stream.dead_letters.topic]
        for rule in stream.dead_letters.redrive if mine else ():
            with scanning(settings.kafka, client_id=CLIENT_ID, group=stream.redrive_group(rule.name)) as scanner:
                committed = scanner.committed(mine)
            begins = {p: there.offset for p, there in committed.items() if there.offset is not None}
            found[stream.name].append(Automatic(frozenset(rule.reasons), rule.max_redrives, begins))
    return {name: tuple(rules) for name, rules in found.items()}


def topics_of(settings: Settings) -> Topics:
    """Return the client that queries topics."""
    return Topics(configs.asking(settings.kafka, CLIENT_ID), settings.kafka.request_timeout_secs)


def with_limits(rules: Rules, settings: Settings) -> Rules:
    """Return the rules with the largest record that each existing target accepts."""
    targets = [rules.to] if rules.to is not None else [s.redrive_topic for s in rules.streams.values()]
    facts = topics_of(settings).facts(targets)
    return replace(rules, limits={name: there.max_message_bytes for name, there in facts.items() if there is not None})


def targets_of(found: Survey, plan: Plan, rules: Rules) -> dict[str, StreamSettings | None]:
    """Return every topic that a plan writes to, with the stream whose settings say whether it may be created."""
    targets: dict[str, StreamSettings | None] = {}
    by_topic = {stream.dead_letters.topic: stream for stream in rules.streams.values()}
    by_redrive = {stream.redrive_topic: stream for stream in rules.streams.values()}
    for candidate in found.candidates:
        action, stream = plan.action_for(candidate), rules.streams.get(candidate.stream)
        if action == "park":
            topic = candidate.partition.topic
            targets.setdefault(rules.parking(topic), stream or by_topic.get(topic))
        elif action == "accept" and stream is not None:
            targets.setdefault(stream.outcomes.topic, stream)
        elif action == "redrive" and rules.to is not None:
            targets.setdefault(rules.to, by_redrive.get(rules.to))
        elif action == "redrive" and stream is not None:
            targets.setdefault(stream.redrive_topic, stream)
    return targets


def ensure(
    settings: Settings, targets: Mapping[str, StreamSettings | None], *, read: Collection[str], create: bool = True
) -> dict[str, TopicFacts]:
    """Return the facts of each target, after creating those that are missing and may be created; or what they would be.

    A new topic gets as many partitions as the stream's largest topic, or as the largest of those that dead letters are
    `read` from. Raises `TopicsMissingError` before it creates any topic that would be useless without the others.
    """
    topics = topics_of(settings)
    facts = topics.facts(targets)
    missing = {name: targets[name] for name, there in facts.items() if there is None}
    creation = {name: None if stream is None else stream.create_topics for name, stream in missing.items()}
    sizes = _sizes(topics, missing, read)
    forbidden = [name for name, there in creation.items() if there is None or not there.enabled]
    makeable = [[name] for name in missing] if create else []
    for names in [forbidden] if forbidden else makeable:
        topics.make(
            names,
            None if any(creation[name] is None for name in names) else creation[names[0]],
            partitions=max(sizes[name] for name in names),
            bootstrap_servers=settings.kafka.bootstrap_servers,
        )
    if makeable:
        facts = topics.facts(targets)
    return {name: there or TopicFacts(sizes[name], DEFAULT_MAX_MESSAGE_BYTES) for name, there in facts.items()}


def _sizes(topics: Topics, missing: Mapping[str, StreamSettings | None], read: Collection[str]) -> dict[str, int]:
    """Return how many partitions each missing topic should have."""
    if not missing:
        return {}
    sources = {name: () if stream is None else stream.topics for name, stream in missing.items()}
    there = topics.partitions({*read, *chain.from_iterable(sources.values())})
    of_read = max([1, *(there[name] for name in read)])
    return {name: max((there[source] for source in named), default=0) or of_read for name, named in sources.items()}
