"""A stream, and the state of one without its drivers."""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Uuid

from connector.config.settings import Settings
from connector.core.admission import Admission
from connector.core.batching import Batcher, BatchLimits
from connector.core.breaker import Gate, GatePolicy
from connector.core.concurrency import ConcurrencyLimit, ConcurrencyPolicy
from connector.core.flow import Flow, FlowLimits
from connector.core.storm import StormGuard, StormPolicy
from connector.kafka.topics import IdsAsked
from connector.stream.state import State
from connector.stream.stream import Stream
from tests.kit.world import KEY


def make_state() -> State:
    """Return the state of a stream that has read nothing; its windows are one second."""
    return State(
        Flow(FlowLimits(64_000, 100_000, 64_000_000)),
        Admission(Batcher(BatchLimits(100, 100_000, 1.0, 0), "t")),
        Gate(GatePolicy(5, 1, 1, 1, 1)),
        ConcurrencyLimit(ConcurrencyPolicy(1, 64)),
        StormGuard(StormPolicy(0.5, 1_000, 60)),
    )


def ids(topics: Mapping[str, int] | None = None, *, cluster: str = "east") -> Callable[[Collection[str]], IdsAsked]:
    """Return a query of topic ids with these results, 0 for brokers without ids; other topics do not exist.

    Without any, the cluster does not answer.
    """

    def told(name: str) -> "Future[Any]":
        if topics is None:
            return _failed(KafkaError._TIMED_OUT)
        if name not in topics:
            return _failed(KafkaError.UNKNOWN_TOPIC_OR_PART)
        future: Future[Any] = Future()
        future.set_result(SimpleNamespace(topic_id=Uuid(0, topics[name])))
        return future

    return lambda names: IdsAsked({name: told(name) for name in names}, lambda: None if topics is None else cluster)


def _failed(code: int) -> "Future[Any]":
    future: Future[Any] = Future()
    future.set_exception(KafkaException(KafkaError(code)))
    return future


def settings_of(stream: str) -> Settings:
    """Return settings with one stream of this name, for brokers that do not exist."""
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": "127.0.0.1:1"},
            "trackly": {"api_key": KEY},
            "streams": [
                {
                    "name": stream,
                    "topics": ["source"],
                    "operation": "send",
                    "list_number": "+18005551234",
                    "outcomes": {"topic": "outcomes"},
                    "dead_letters": {"topic": "dead-letters"},
                }
            ],
        }
    )


def make_stream(
    settings: Settings, name: str, fail: Callable[[BaseException], None], *, stalled_secs: float = 300.0
) -> Stream:
    """Return the first stream of settings in this process, not started; `name` is that of its worker."""
    return Stream(
        settings.streams[0],
        kafka=settings.kafka,
        trackly=settings.trackly,
        instance_id=name,
        client_id=name,
        buffer_bytes=settings.buffer.max_bytes,
        api_key=lambda: KEY,
        reread_secrets=lambda: None,
        on_failure=lambda _stream, error: fail(error),
        stalled_secs=stalled_secs,
    )
