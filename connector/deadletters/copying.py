"""Exports dead letters to a file, in the order of the topic, and imports them, exactly once.

An import identifies its file by its content. The number of lines that are already imported is the committed offset of a
group named after it, and part of each transaction: an import that was killed continues where it was.
"""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Final

from connector.config.kafka import KafkaSettings
from connector.core.chunks import Partition
from connector.deadletters.letters import Letter, letters_of
from connector.deadletters.lines import InvalidLineError, Line, read_line
from connector.deadletters.redriving import MAX_BYTES, MAX_RECORDS, commit
from connector.deadletters.working import CLIENT_ID, Spans, Told
from connector.kafka import configs
from connector.kafka.publisher import TransactionalPublisher
from connector.kafka.scanning import scanning
from connector.kafka.topics import TopicFacts

IMPORT_PREFIX: Final = "trackly-connector.import."
"""Prefix of the groups and transactional ids of imports."""


def letters_in(kafka: KafkaSettings, spans: Spans, told: Told) -> Iterator[Letter]:
    """Yield all dead letters of the spans, partition by partition."""
    with scanning(kafka, client_id=CLIENT_ID, group=CLIENT_ID) as scanner:
        for partition, span in sorted(spans.items()):
            for chunk in scanner.read({partition: span}):
                yield from letters_of(chunk)
                told(len(chunk))


@dataclass(frozen=True, slots=True)
class Export:
    """A checked file of dead letters: its number of lines, and its identity."""

    path: Path
    count: int
    digest: str


def look_through(path: Path) -> Export:
    """Check a file; raises `InvalidLineError`, naming the line, for one that cannot be imported."""
    digest = hashlib.sha256()
    count = 0
    with path.open("rb") as lines:
        for count, line in enumerate(lines, 1):
            digest.update(line)
            _read(line, count)
    return Export(path, count, digest.hexdigest()[:16])


def _read(line: bytes, number: int) -> Line:
    try:
        return read_line(line.decode())
    except (InvalidLineError, UnicodeDecodeError) as error:
        raise InvalidLineError(f"line {number} {error}") from None


def bring_in(kafka: KafkaSettings, export: Export, topic: str, *, facts: TopicFacts, told: Told) -> int:
    """Import the lines of a file that are not in the topic yet, and return their number."""
    group = f"{IMPORT_PREFIX}{export.digest}.{topic}"
    mark = Partition(topic, 0)
    publisher = TransactionalPublisher(
        configs.producer(kafka, client_id=CLIENT_ID, transactional_id=group, batch_bytes=facts.batch_bytes), topic
    )
    with scanning(kafka, client_id=CLIENT_ID, group=group) as scanner, closing(publisher):
        publisher.start(kafka.request_timeout_secs)
        first = scanner.committed([mark])[mark].offset or 0
        told(first)
        with export.path.open("rb") as lines:
            numbered = islice(enumerate(lines, 1), first, None)
            done = first
            while batch := _batch(numbered):
                publisher.begin()
                for number, text in batch:
                    line = _read(text, number)
                    publisher.write(
                        topic,
                        line.partition % facts.partitions,
                        key=line.key,
                        value=line.value,
                        headers=line.headers,
                        timestamp_ms=line.timestamp_ms,
                    )
                done = batch[-1][0]
                commit(publisher, {mark: (done, "")}, scanner.membership(), kafka.request_timeout_secs, Event())
                told(len(batch))
        return done - first


def _batch(numbered: Iterator[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Take the lines of one transaction, with their numbers."""
    batch: list[tuple[int, bytes]] = []
    size = 0
    while size < MAX_BYTES and len(batch) < MAX_RECORDS and (line := next(numbered, None)) is not None:
        batch.append(line)
        size += len(line[1])
    return batch
