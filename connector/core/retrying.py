"""How long a failed batch waits, when it is split, and when a single record is given up.

The waits follow the platform's advice: `2^attempt + uniform(0, 1)` seconds, with attempts counted from 0.
"""

from dataclasses import dataclass
from typing import Literal

from connector.core.batching import Batch


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Maximum attempts of a single record, and waits in seconds."""

    max_attempts: int
    base_secs: float
    max_secs: float
    retry_after_max_secs: float


Step = Literal["again", "split", "give_up"]

SUSPICION = 2
"""Consecutive failures while others pass after which a batch is halved; a single one is noise."""


PARTS_WHEN_COSTLY = 6
"""How many parts a batch is split into, instead of halves, if each further post is costly: others overtook it, so each
takes as long again, or each may have been accepted. With 6 parts, one record of 1,000 is alone after four splits (6^4 =
1,296): its fifth post is the last that `max_attempts` allows."""


def backoff(attempts: int, policy: RetryPolicy, *, jitter: float) -> float:
    """Return the seconds to wait after `attempts` failures; `jitter` is drawn from [0, 1)."""
    exponent = min(max(attempts - 1, 0), 32)
    return float(min(policy.base_secs * (2**exponent + jitter), policy.max_secs))


def requested_wait(retry_after_secs: float | None, attempts: int, policy: RetryPolicy, *, jitter: float) -> float:
    """Return the seconds to wait if the platform says how long: capped, with jitter so that not all retry at once."""
    if retry_after_secs is None:
        return backoff(attempts, policy, jitter=jitter)
    return min(max(retry_after_secs, 0.0), policy.retry_after_max_secs) + jitter * policy.base_secs


@dataclass(frozen=True, slots=True)
class Others:
    """What happened to other batches while one failed."""

    passed: bool
    """Others have passed since it first failed."""
    still_pass: bool
    """Others have passed since its previous failure, too: once an outage has begun, earlier passes mean nothing."""
    overtook: bool = False
    """Others have passed while it waited for its answer, much faster: each further attempt may take as long."""


def next_step(batch: Batch, policy: RetryPolicy, others: Others, *, may_be_taken: bool = False) -> Step:
    """Decide what to do with a batch that failed and has `batch.failures` of its own.

    While nothing else has passed since it first failed, it is only retried: the failure is not its own. Parts of a
    suspect are split again at once, so that a poison record is alone after as many failures as there are levels. A
    record is given up only while others still pass. For a batch that `may_be_taken`, each post counts as an attempt,
    whatever its size, because each may send another text to all of its recipients; so it is split as soon as the
    failure may be its own.
    """
    if not others.passed:
        return "again"
    tried = batch.attempts if may_be_taken else batch.failures
    is_spent = others.still_pass and tried >= policy.max_attempts
    if is_spent and (may_be_taken or batch.count == 1):
        return "give_up"
    if batch.count > 1 and (batch.suspect or may_be_taken or batch.failures >= SUSPICION):
        return "split"
    return "again"
