"""What the simulator does with a request: the platform's answer, modified by faults.

All decisions are made here, from the request, the present faults and seeded randomness; the server carries them out. A
request is accepted, or not, when it has been read completely; latency comes between that and the reply.
"""

import random
from collections.abc import Mapping
from dataclasses import replace
from email.utils import formatdate
from typing import Final, Literal, assert_never, get_args

from connector.simulator.answers import Answer, Lie, lied
from connector.simulator.endpoints import ENDPOINTS, LISTS_PATH, Endpoint
from connector.simulator.faults import HEALTHY, NEVER, BodyForm, Chance, Faults
from connector.simulator.http import Manner, Reaction, Reply, Request, json_reply, page_reply, phrase
from connector.simulator.ledger import Ledger
from connector.simulator.platform import Platform
from connector.simulator.script import Timeline
from connector.simulator.settings import BASE_PATH, SimulatorSettings, refuse_faults_that_fast_lacks

Strike = Literal[
    "drop_request",
    "lose_reply",
    "stall",
    "cut_body",
    "slow_body",
    "broken_json",
    "empty_body",
    "html_body",
]
Blow = Strike | Lie | Literal["unnamed_error"]
STRIKES: Final[tuple[Blow, ...]] = get_args(Strike)
LIES: Final[tuple[Blow, ...]] = (*get_args(Lie), "unnamed_error")  # of bulk replies only

_OTHER_PATHS: Final = "other"  # one name for all paths that do not exist, so that counters stay few
_FAILURES: Final[dict[int, dict[str, str]]] = {
    401: {"error": "Invalid API key", "code": "invalid_api_key"},
    402: {"error": "Payment failed", "code": "payment_failed"},
    403: {"error": "Account is suspended"},
    404: {"error": "Not found", "code": "not_found"},
    429: {"error": "Rate limit exceeded"},
    500: {"error": "Internal server error", "code": "internal_error"},
}
_ELSEWHERE: Final = "https://elsewhere.invalid/"


class Dice:
    """Seeded randomness. How many of a chance's `next` are left is stored for each chance of each set of faults."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311  # faults that can be repeated, not secrets
        self._left: dict[tuple[str, int], tuple[Chance, int]] = {}

    def between(self, least: float, most: float) -> float:
        """Return a number in the range; a range without width uses no randomness."""
        return least if least == most else self._random.uniform(least, most)

    def status(self, rates: dict[int, float]) -> int | None:
        """Return one of the statuses, each at its rate, or None."""
        if not rates:
            return None
        point = self._random.random()
        for status, rate in rates.items():
            point -= rate
            if point < 0:
                return status
        return None

    def strikes(self, name: str, chance: Chance) -> bool:
        """Return whether the fault with that name strikes now, and use up one of its `next` if that is why."""
        if chance is NEVER:
            return False
        key = (name, id(chance))
        left = self._left.setdefault(key, (chance, chance.next))[1]  # keeps the chance alive: its id stays unique
        if left > 0:
            self._left[key] = (chance, left - 1)
            return True
        return chance.rate > 0 and self._random.random() < chance.rate

    def renew(self, faults: Faults) -> None:
        """Restore `next` of all chances of these faults, and forget those that belong to no one else."""
        for name in (*STRIKES, *LIES):
            self._left.pop((name, id(getattr(faults, name))), None)


class Behaviour:
    """The simulator without network: requests in, reactions out. `now` is on any one monotonic clock, in seconds."""

    def __init__(self, settings: SimulatorSettings, *, now: float) -> None:
        self._settings = settings
        self.ledger = Ledger(identities=not settings.fast)
        self._set_up(now)

    def _set_up(self, now: float) -> None:
        settings = self._settings
        self._platform = Platform(settings, self.ledger)
        self._dice = Dice(settings.seed)
        self.timeline = Timeline(settings.faults, settings.script)
        self.timeline.replace(settings.faults, now=now)
        if settings.script_from == "start":
            self.timeline.start(now)

    def reset(self, *, now: float) -> None:
        """Reset: an empty ledger, a new account, the initial faults, the script not started."""
        self.ledger = self.ledger.fresh()
        self._set_up(now)

    def set_faults(self, faults: Faults, *, now: float, renew: bool = True) -> None:
        """Replace the standing faults; `renew` restores `next` of chances that stay.

        Raises ValueError for faults that a fast simulator does not support.
        """
        if self._settings.fast:
            refuse_faults_that_fast_lacks(faults)
        if renew:
            self._dice.renew(faults)
        self.timeline.replace(faults, now=now)

    def refuses(self, now: float) -> bool:
        """Return whether the port should be closed now."""
        outage = self.timeline.at(now).outage
        return outage is not None and outage.how == "refuse"

    def idle_secs(self, now: float) -> float:
        """Return how long a connection may be idle."""
        usual = self._settings.idle_connection_secs
        return min(usual, self.timeline.at(now).close_idle_after_secs or usual)

    def hangs_up(self, path: str, now: float) -> bool:
        """Return whether a connection is dropped as soon as a request line with this path has arrived."""
        faults = self.timeline.at(now)
        hangs_up = faults.outage is not None and faults.touches(_below_base(path) or "")
        if hangs_up:
            self.ledger.left_unanswered("outage")
        return hangs_up

    def react(self, request: Request, *, now: float, wall_time: float) -> Reaction:
        """Decide about a request that was read completely. `wall_time` is for `Retry-After` as a date."""
        if self._settings.script_from == "first_request":
            self.timeline.start(now)
        path = _below_base(request.path)
        endpoint = ENDPOINTS.get(path or "")
        known = path if path == LISTS_PATH or endpoint is not None else None
        self.ledger.begin(known or _OTHER_PATHS, request.body_bytes)
        faults = self.timeline.at(now)
        if path is None or not faults.touches(path):
            faults = HEALTHY
        delay_secs = self._dice.between(*faults.latency_ms) / 1000

        status = faults.status_override or self._dice.status(faults.error_rate)
        if status is not None:
            if status >= 500:
                self._platform.take_part(request, path, now=now)
            reply = self._failure(status, faults, wall_time=wall_time)
            return self._answered(Reaction(reply, delay_secs=delay_secs))
        strike = self._strike(faults, endpoint, request) if request.method == "POST" else None
        reset = faults.close_with == "rst"
        if strike == "drop_request" or (strike == "stall" and not faults.stall_takes_records):
            self.ledger.left_unanswered(strike)
            manner = Manner.STALL if strike == "stall" else Manner.CLOSE
            return Reaction(Reply(503), manner, delay_secs=delay_secs, reset=reset)

        answer = self._platform.answer(
            request, path or request.path, faults, now=now, hide_one=strike == "unnamed_error"
        )
        if answer.status >= 500:
            self._platform.take_part(request, path, now=now)
        reaction = _delivered(answer, strike, endpoint, faults, index_base=self._settings.switches.index_base)
        return self._answered(replace(reaction, delay_secs=delay_secs, reset=reset), strike)

    def _strike(self, faults: Faults, endpoint: Endpoint | None, request: Request) -> Blow | None:
        if endpoint is None or faults is HEALTHY:
            return None
        if faults.stall_above_bytes is not None and request.body_bytes > faults.stall_above_bytes:
            return "stall"
        for strike in (*STRIKES, *LIES) if endpoint.bulk else STRIKES:
            if self._dice.strikes(strike, getattr(faults, strike)):
                return strike
        return None

    def _failure(self, status: int, faults: Faults, *, wall_time: float) -> Reply:
        headers = {}
        if status in (429, 503) and faults.retry_after_secs is not None:
            secs = faults.retry_after_secs
            as_date = faults.retry_after_form == "date"
            headers["Retry-After"] = formatdate(wall_time + secs, usegmt=True) if as_date else f"{secs:g}"
        if status < 400:
            headers["Location"] = _ELSEWHERE
        document = _FAILURES.get(status) or (_FAILURES[500] if status >= 500 else {"error": phrase(status)})
        return replace(_in_form(faults.failure_body, status, document), headers=tuple(headers.items()))

    def _answered(self, reaction: Reaction, strike: str | None = None) -> Reaction:
        """Note what the client will see of it."""
        if reaction.manner in (Manner.WHOLE, Manner.DRIP):
            self.ledger.replied(reaction.reply.status, len(reaction.reply.body))
        else:
            self.ledger.left_unanswered(strike or reaction.manner.name.lower())
        return reaction


def _below_base(path: str) -> str | None:
    """Return the path without the base path, or None if it is not below it."""
    return path.removeprefix(BASE_PATH) if path.startswith(f"{BASE_PATH}/") else None


def _in_form(form: BodyForm, status: int, document: Mapping[str, object]) -> Reply:
    """Return a reply whose body is a document, or what something other than the platform would send instead."""
    match form:
        case "json":
            return json_reply(status, document)
        case "html":
            return page_reply(status)
        case "empty":
            return Reply(status, content_type=None)
        case _:
            assert_never(form)


def _delivered(
    answer: Answer,
    strike: Blow | None,
    endpoint: Endpoint | None,
    faults: Faults,
    *,
    index_base: int,
) -> Reaction:
    """Return how the platform's answer is sent, with the fault that strikes it."""
    reply = _in_form(answer.form, answer.status, answer.document)
    if faults.huge_reply_bytes is not None and answer.status < 300:
        reply = replace(reply, body=reply.body.ljust(faults.huge_reply_bytes))  # JSON may be followed by blanks
    match strike:
        case None | "unnamed_error":
            return Reaction(reply)
        case "lose_reply" | "drop_request":
            return Reaction(reply, Manner.CLOSE)
        case "stall":
            return Reaction(reply, Manner.STALL)
        case "cut_body":
            return Reaction(reply, Manner.CUT)
        case "slow_body":
            return Reaction(reply, Manner.DRIP, drip_secs=faults.slow_body_secs)
        case "broken_json":
            return Reaction(replace(reply, body=reply.body[: len(reply.body) // 2]))
        case "empty_body":
            return Reaction(Reply(answer.status, content_type=None))
        case "html_body":
            return Reaction(page_reply(answer.status))
        case "wrong_counts" | "repeated_index" | "out_of_range_index" | "wrong_to":
            if endpoint is None or answer.records is None:  # rejected as a whole: there is nothing to distort
                return Reaction(reply)
            distorted = lied(strike, endpoint.operation, answer, index_base=index_base)
            return Reaction(json_reply(distorted.status, distorted.document))
        case _:
            assert_never(strike)
