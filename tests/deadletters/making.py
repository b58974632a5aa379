"""Dead letters for tests: as the connector writes them, and as others do."""

from typing import Any, Final

from connector.config.settings import Settings
from connector.core.chunks import Chunk, Headers, Partition
from connector.core.records import ResultEncoder
from connector.core.results import Finished
from connector.core.verdicts import Verdict, Verdicts
from connector.deadletters.letters import Facts, Letter
from connector.demo.topics import Record

NOW_MS = 1_769_846_400_123
STREAM: Final[dict[str, Any]] = {
    "name": "sends",
    "topics": ["sms"],
    "operation": "send",
    "list_number": "+18005551234",
    "outcomes": {"topic": "sms.outcomes"},
    "dead_letters": {"topic": "dead"},
}
"""The settings of the stream whose dead letters these are."""
SETTINGS: Final = Settings.model_validate(
    {"kafka": {"bootstrap_servers": "b:9092"}, "trackly": {"api_key": "k"}, "streams": [STREAM]}
)


class FakeClock:
    """Stands for the module `time`: who sleeps is awake at once, and later."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def sleep(self, secs: float) -> None:
        assert secs >= 0
        self.now += secs


def headers_of(
    reason: str = "provider_error",
    *,
    stream: str = "sends",
    topic: str = "sms",
    partition: int = 0,
    offset: int = 7,
    source: Headers | None = None,
    status: int = 200,
    code: str | None = None,
    now_ms: int = NOW_MS,
) -> Headers:
    """Return the headers that a stream gives a dead letter."""
    chunk = Chunk(Partition(topic, partition), 1, [offset], [b"{}"], headers=None if source is None else [source])
    verdict = Verdict("dead_letter", reason, code or reason, "as the platform says", status)
    item = Finished((chunk,), Verdicts(verdict), "worker-0-6923a8f1-4c", 1, 1, now_ms, now_ms + 48)
    (letter,) = ResultEncoder(stream, "send", f"trackly-connector.{stream}").dead_letters(item, now_ms=now_ms)
    return letter.headers


def connect_headers(offset: int = 42) -> Headers:
    """Return the headers that Kafka Connect gives a dead letter, beside those of the record."""
    return [
        ("__connect.errors.topic", b"orders"),
        ("__connect.errors.partition", b"3"),
        ("__connect.errors.offset", b"%d" % offset),
        ("__connect.errors.connector.name", b"http-sink"),
        ("__connect.errors.exception.class.name", b"org.apache.kafka.connect.errors.DataException"),
        ("__connect.errors.exception.message", b"no schema"),
        ("trace", b"abc"),
    ]


def letter(
    reason: str = "provider_error",
    *,
    at: int = 0,
    value: bytes | None = b'{"to":"+15550000001","body":"Hello"}',
    key: bytes | None = b"key",
    headers: Headers | None = None,
    timestamp_ms: int = NOW_MS,
    **told: Any,
) -> Letter:
    """Return a dead letter at an offset of its topic."""
    if headers is None:
        headers = headers_of(reason, **told)
    return Letter(Partition("dead", 0), at, timestamp_ms, key, value, Facts(headers))


def record(number: int, reason: str, *, stream: str, topic: str, partition: int = 0, list_number: str = "") -> Record:
    """Return a dead letter to produce; its text is its key, and names the stream and the number."""
    text = f"{stream} {number}"
    own = f',"list_number":"{list_number}"' if list_number else ""
    value = f'{{"to":"+1555{number % 10_000_000:07d}","body":"{text}"{own}}}'
    headers = headers_of(reason, stream=stream, topic=topic, partition=partition, offset=number)
    return Record(value.encode(), text.encode(), [("tenant", b"acme"), *headers, ("tenant", b"\xff")])
