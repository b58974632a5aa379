"""What a chaos run does, drawn from its seed before it begins: who takes part, and which disturbances strike when.

Nothing here looks at a clock or at the system under test, so that a seed always gives the same plan. How far a run gets
in its minutes is up to the machine: it carries out the episodes in order until its time is up.
"""

import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Protocol = Literal["classic", "consumer"]
Guarantee = Literal["exactly_once", "at_least_once"]
Mode = Literal["bulk", "single"]
InDoubt = Literal["dead_letter", "resend"]

WORKERS: Final = 2
SPARE: Final = WORKERS
"""The number of the worker that comes and goes."""

SESSION_SECS: Final = 6.0


@dataclass(frozen=True, slots=True)
class Flow:
    """How one stream of the run is set."""

    name: str
    guarantee: Guarantee
    mode: Mode
    in_doubt: InDoubt
    per_sec: int


@dataclass(frozen=True, slots=True)
class Setup:
    """Who takes part in a run."""

    protocol: Protocol
    flows: tuple[Flow, ...]
    brokers: int = 1
    """Nodes of the cluster. Of three, one at a time is in trouble; the others hold all that it holds."""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """Something that goes wrong `after` seconds into its episode; `values` are what was drawn for it."""

    kind: str
    after: float
    values: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        told = ", ".join(f"{name}={value}" for name, value in self.values.items())
        return f"{self.kind}({told}) at +{self.after:.1f} s"


ALONE: Final = frozenset({"twin"})
"""Kinds of which an episode holds no other: what they must lead to is known only where nothing else goes wrong."""

Episode = tuple[Disturbance, ...]
Draw = Callable[[random.Random], dict[str, Any]]

ONE_FLOW: Final = (Flow("bulk", "exactly_once", "bulk", "dead_letter", 600),)
THREE_FLOWS: Final = (
    Flow("bulk", "exactly_once", "bulk", "dead_letter", 400),
    Flow("single", "exactly_once", "single", "dead_letter", 60),
    Flow("plain", "at_least_once", "bulk", "resend", 300),
)
OTHER_FLOWS: Final = (
    Flow("resend", "exactly_once", "bulk", "resend", 400),
    Flow("single", "at_least_once", "single", "dead_letter", 60),
    Flow("plain", "at_least_once", "bulk", "dead_letter", 300),
)
FLOWS: Final = {"one": ONE_FLOW, "three": THREE_FLOWS, "others": OTHER_FLOWS}


def setup(seed: int) -> Setup:
    """Return who takes part: neighbouring seeds differ, and six of them in a row cover all."""
    return Setup(("classic", "consumer")[seed % 2], tuple(FLOWS.values())[seed % 3])


def _worker(dice: random.Random) -> dict[str, Any]:
    return {"worker": dice.randrange(WORKERS)}


def _secs(dice: random.Random, least: float, most: float) -> float:
    return round(dice.uniform(least, most), 1)


def _platform(faults: dict[str, Any], least: float = 1.5, most: float = 5.0) -> Draw:
    """Return how to draw a disturbance of the platform: these faults, for some seconds."""
    return lambda dice: {"faults": faults, "secs": _secs(dice, least, most)}


_RST: Final = {"close_with": "rst"}

DRAWS: Final[dict[str, tuple[int, Draw]]] = {
    # Of worker processes.
    "kill": (14, lambda dice: {**_worker(dice), "away_secs": _secs(dice, 0, 2)}),
    "kill_all": (8, lambda dice: {"away_secs": _secs(dice, 0, 1)}),
    "kill_again_and_again": (12, lambda dice: {**_worker(dice), "times": dice.randint(2, 4), "every_secs": 2.5}),
    "kill_for_long": (2, lambda dice: {**_worker(dice), "away_secs": _secs(dice, SESSION_SECS + 1, SESSION_SECS + 4)}),
    "stop_in_a_hurry": (6, lambda dice: {**_worker(dice), "grace_secs": _secs(dice, 0.1, 2)}),
    "freeze": (3, lambda dice: {**_worker(dice), "secs": _secs(dice, SESSION_SECS + 1, SESSION_SECS + 4)}),
    "freeze_briefly": (2, lambda dice: {**_worker(dice), "secs": _secs(dice, 0.5, SESSION_SECS - 1)}),
    "scale": (3, lambda dice: {"secs": _secs(dice, 3, 8), "orderly": dice.random() < 0.5}),
    "twin": (1, _worker),
    # Of Kafka.
    "broker_stop": (1, lambda dice: {"away_secs": _secs(dice, 0, 3)}),
    "broker_kill": (2, lambda dice: {"away_secs": _secs(dice, 0, 3)}),
    "broker_freeze": (1, lambda dice: {"secs": _secs(dice, 2, 13)}),
    "cut_off": (3, lambda dice: {**_worker(dice), "how": dice.choice(["reset", "silence"]), "secs": _secs(dice, 2, 9)}),
    "authorization_taken": (
        2,
        lambda dice: {"what": dice.choice(["group", "outcomes", "source", "transaction"]), "secs": _secs(dice, 2, 6)},
    ),
    "outcomes_refused": (1, lambda dice: {"secs": _secs(dice, 2, 6)}),
    "topic_deleted": (2, lambda dice: {"records": dice.randint(1, 300)}),
    # Of the platform.
    "outage": (
        2,
        lambda dice: {"faults": {"outage": {"how": dice.choice(["refuse", "close"])}}, "secs": _secs(dice, 2, 6)},
    ),
    "slow": (2, _platform({"latency_ms": (1_000, 4_000)})),
    "stall": (
        2,
        lambda dice: {
            "faults": {"stall": {"rate": 0.3}, "stall_takes_records": dice.random() < 0.5},
            "secs": _secs(dice, 1, 4),
        },
    ),
    "reply_lost": (3, _platform({"lose_reply": {"rate": 0.2}})),
    "reply_reset": (2, _platform({"lose_reply": {"rate": 0.2}, **_RST})),
    "request_dropped": (2, _platform({"drop_request": {"rate": 0.2}})),
    "body_cut": (2, _platform({"cut_body": {"rate": 0.2}})),
    "errors": (3, _platform({"error_rate": {500: 0.1, 502: 0.1, 503: 0.1, 504: 0.05}})),
    "401": (2, _platform({"status_override": 401})),
    "403": (1, _platform({"account_suspended": True})),
    "429": (2, _platform({"error_rate": {429: 0.5}, "retry_after_secs": 1})),
    "413": (1, _platform({"body_limit_bytes": 1_500})),
    "wrong_counts": (1, _platform({"wrong_counts": {"rate": 0.2}})),
    "repeated_index": (1, _platform({"repeated_index": {"rate": 0.2}})),
    "index_out_of_range": (1, _platform({"out_of_range_index": {"rate": 0.2}})),
    "missing_index": (1, _platform({"unnamed_error": {"rate": 0.2}})),
    "broken_json": (1, _platform({"broken_json": {"rate": 0.2}})),
    "no_json": (1, _platform({"html_body": {"rate": 0.1}, "empty_body": {"rate": 0.1}})),
    "provider_errors": (1, _platform({"record_codes": [{"text": "7", "code": "provider_error", "times": 2}]})),
}
"""Each kind of disturbance with its weight, and how what it needs is drawn."""


def episodes(seed: int, only: Collection[str] = ()) -> Iterator[Episode]:
    """Yield episodes without end; the first ones hold every kind once, so that a run of some minutes has them all.

    `only`: draw from these kinds, to look at some more closely.
    """
    dice = random.Random(seed)
    draws = {kind: draw for kind, draw in DRAWS.items() if not only or kind in only}
    weights = [weight for weight, _ in draws.values()]
    first = list(draws)
    dice.shuffle(first)
    while True:
        size = dice.choice([1, 2, 2, 3])
        kinds = [first.pop()] if first else []
        kinds += dice.choices(list(draws), weights, k=size - len(kinds))
        drawn = [Disturbance(kind, _secs(dice, 0, 3), DRAWS[kind][1](dice)) for kind in kinds]
        yield from ((disturbance,) for disturbance in drawn if disturbance.kind in ALONE)
        together = tuple(disturbance for disturbance in drawn if disturbance.kind not in ALONE)
        if together:
            yield together
