"""How long a failed batch waits, when it is halved, and when a single record is given up.

The waiting times are the platform's advice: `2^attempt + uniform(0, 1)` seconds, the attempt counted from 0.
"""

from dataclasses import dataclass
from typing import Literal

from connector.core.batching import Batch


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Attempts of a single record, and waits in seconds."""

    max_attempts: int
    base_secs: float
    max_secs: float
    retry_after_max_secs: float


Step = Literal["again", "halve", "give_up"]

SUSPICION = 2
"""Failures in a row, while others pass, that make a batch worth halving: one is the platform's noise."""


def backoff(attempts: int, policy: RetryPolicy, *, jitter: float) -> float:
    """Return the seconds to wait after `attempts` failures; `jitter` is drawn from 0 to 1."""
    exponent = min(max(attempts - 1, 0), 32)
    return float(min(policy.base_secs * (2**exponent + jitter), policy.max_secs))


def told_to_wait(retry_after_secs: float | None, attempts: int, policy: RetryPolicy, *, jitter: float) -> float:
    """Return the seconds to wait when the platform says so itself, capped, with jitter so that not all come at once."""
    if retry_after_secs is None:
        return backoff(attempts, policy, jitter=jitter)
    return min(max(retry_after_secs, 0.0), policy.retry_after_max_secs) + jitter * policy.base_secs


def next_step(batch: Batch, policy: RetryPolicy, *, others_pass: bool, still_pass: bool) -> Step:
    """Decide about a batch that was not taken and has `batch.failures` of its own behind it.

    While nothing else has passed since it first failed it is only tried again: the failure is not its own. Halves of a
    batch that was suspected are halved again at once, so a poison record is alone after log2(n) failures. It is given
    up only where others have passed since it failed before, too (`still_pass`): of an outage that has begun meanwhile
    what passed earlier tells nothing.
    """
    if not others_pass:
        return "again"
    if batch.count > 1:
        return "halve" if batch.suspect or batch.failures >= SUSPICION else "again"
    return "give_up" if still_pass and batch.failures >= policy.max_attempts else "again"
