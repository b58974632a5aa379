"""How long a failed batch waits, when it is split, and when a single record is given up.

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


Step = Literal["again", "split", "give_up"]

SUSPICION = 2
"""Failures in a row, while others pass, that make a batch worth halving: one is the platform's noise."""


PARTS_WHEN_DEAR = 6
"""Into how many parts a batch is split of which each further post is dear, in place of halves: others overtook it, so
that each takes as long again, or it may have been taken each time. One record of 1,000 is alone after four of them
(6^4 = 1,296): its fifth post is the last that `max_attempts` allows."""


def backoff(attempts: int, policy: RetryPolicy, *, jitter: float) -> float:
    """Return the seconds to wait after `attempts` failures; `jitter` is drawn from 0 to 1."""
    exponent = min(max(attempts - 1, 0), 32)
    return float(min(policy.base_secs * (2**exponent + jitter), policy.max_secs))


def wait_as_told(retry_after_secs: float | None, attempts: int, policy: RetryPolicy, *, jitter: float) -> float:
    """Return the seconds to wait when the platform says so itself, capped, with jitter so that not all come at once."""
    if retry_after_secs is None:
        return backoff(attempts, policy, jitter=jitter)
    return min(max(retry_after_secs, 0.0), policy.retry_after_max_secs) + jitter * policy.base_secs


@dataclass(frozen=True, slots=True)
class Others:
    """What became of other batches while one failed."""

    passed: bool
    """They have passed since it failed first."""
    still_pass: bool
    """They have passed since it failed before this time, too: of an outage that has begun meanwhile what passed
    earlier tells nothing."""
    overtook: bool = False
    """They have passed while it waited for its answer, and far quicker: each further attempt may take as long."""


def next_step(batch: Batch, policy: RetryPolicy, others: Others, *, may_be_taken: bool = False) -> Step:
    """Decide about a batch that failed and has `batch.failures` of its own behind it.

    While nothing else has passed since it first failed it is only tried again: the failure is not its own. Parts of a
    batch that was suspected are split again at once, so a poison record is alone after as many failures as there are
    levels. It is given up only where others still pass. Of what `may_be_taken` every post counts, however many records
    are left, as each may be a text more for all of them; so it is split as soon as it may be its own.
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
