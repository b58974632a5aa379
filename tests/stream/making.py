"""The state of a stream, without its drivers."""

from connector.core.batching import Batcher, BatchLimits
from connector.core.breaker import Gate, GatePolicy
from connector.core.concurrency import ConcurrencyLimit, ConcurrencyPolicy
from connector.core.flow import Flow, FlowLimits
from connector.core.storm import StormGuard, StormPolicy
from connector.stream.state import State


def make_state() -> State:
    """Return the state of a stream that has read nothing; its windows are of one second."""
    return State(
        Flow(FlowLimits(64_000, 100_000, 64_000_000)),
        Batcher(BatchLimits(100, 100_000, 1.0, 0), "t"),
        Gate(GatePolicy(5, 1, 1, 1, 1)),
        ConcurrencyLimit(ConcurrencyPolicy(1, 64)),
        StormGuard(StormPolicy(0.5, 1_000, 60)),
    )
