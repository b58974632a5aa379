"""Decisions without a network: time, chance and ids are arguments."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.simulator import Chance, Faults, SimulatorSettings
from connector.simulator.account import Account
from connector.simulator.behaviour import Behaviour, Dice
from connector.simulator.endpoints import ENDPOINTS
from connector.simulator.http import Manner, Reaction, Request


def behaviour(**settings: Any) -> Behaviour:
    return Behaviour(SimulatorSettings.model_validate(settings), now=0)


def bulk(*bodies: str) -> Request:
    messages = [{"to": "+15550000001", "list_number": "+18005551234", "body": body} for body in bodies]
    body = msgspec.json.encode({"messages": messages})
    return Request(
        "POST", "/api/v2/send/bulk", api_key="k", content_type="application/json", body=body, body_bytes=len(body)
    )


def react(subject: Behaviour, request: Request, *, now: float = 0.0) -> Reaction:
    return subject.react(request, now=now, wall_time=0)


def test_a_text_may_be_sent_again_when_its_window_is_over() -> None:
    subject = behaviour(switches={"duplicate_window_secs": 10})

    counts = []
    for now in (0, 9.9, 10, 19.9, 20):
        react(subject, bulk("hello"), now=now)
        counts.append(subject.ledger.accepted("hello"))

    assert counts == [1, 1, 2, 2, 3], "a suppressed repeat does not make the window longer"


def test_the_window_forgets_what_is_too_old() -> None:
    account = Account(seed=0, lists=None)
    for number in range(1_000):
        account.is_repeated_message("+15550000001", "+18005551234", str(number), window_secs=10, now=number)

    assert len(account._sent_at) == 10


def test_latency_is_drawn_between_its_bounds_for_each_request() -> None:
    subject = behaviour(faults=Faults(latency_ms=(20, 80)), seed=1)

    delays = [react(subject, bulk("a")).delay_secs for _ in range(500)]

    assert min(delays) >= 0.020
    assert max(delays) <= 0.080
    assert max(delays) - min(delays) > 0.050


def test_a_request_that_is_refused_as_a_whole_cannot_be_lied_about() -> None:
    subject = behaviour(faults=Faults(wrong_counts=Chance(next=1)))

    reaction = react(subject, Request("POST", "/api/v2/send/bulk", api_key="k", content_type="text/plain"))

    assert (reaction.reply.status, reaction.manner) == (400, Manner.WHOLE)


def test_one_request_is_struck_by_one_fault_and_the_rest_waits() -> None:
    subject = behaviour(faults=Faults(lose_reply=Chance(next=1), cut_body=Chance(next=1), stall=Chance(next=1)))

    manners = [react(subject, bulk("a")).manner for _ in range(4)]

    assert manners == [Manner.CLOSE, Manner.STALL, Manner.CUT, Manner.WHOLE]


def test_what_may_be_personal_stays_out_of_representations() -> None:
    subject = behaviour(api_keys=["trk_secret"])
    request = bulk("private text")

    shown = repr((request, react(subject, request), SimulatorSettings(api_keys=("trk_secret",)).faults))

    assert "private" not in shown
    assert "+1555" not in shown
    assert "trk_secret" not in repr(SimulatorSettings(api_keys=("trk_secret",)))


@given(rates=st.dictionaries(st.integers(300, 599), st.floats(0, 0.2), max_size=5), seed=st.integers())
def test_a_status_is_thrown_only_if_it_has_a_rate(rates: dict[int, float], seed: int) -> None:
    dice = Dice(seed)

    thrown = {dice.status(rates) for _ in range(50)}

    assert thrown <= {None, *(status for status, rate in rates.items() if rate > 0)}


@given(seed=st.integers(0, 2**32), count=st.integers(1, 300))
def test_message_ids_are_distinct_and_repeat_with_their_seed(seed: int, count: int) -> None:
    account = Account(seed, None)

    issued = [account.issue_message_id() for _ in range(count)]
    following = Account(seed, None)
    again = [following.issue_message_id() for _ in range(count)]

    assert len(set(issued)) == count
    assert issued == again


NAMES = ["to", "body", "list_number", "phone_number", "to_number", "id", "message_id", "offer_id", "revenue"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
    | st.sampled_from(["+15550000001", "2024-05-01", "sale"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
RECORDS = st.dictionaries(
    st.sampled_from([*NAMES, "timestamp", "attribution_type", "use_validation", "skip_journey_if_exists"]), VALUES
)


@given(
    path=st.sampled_from(sorted(ENDPOINTS)),
    records=st.lists(RECORDS | VALUES, max_size=4),
    identify=st.sampled_from(["*", "id", "to+body", "id.id"]),
)
def test_no_record_however_odd_brings_the_simulator_down(path: str, records: list[object], identify: str) -> None:
    operation = ENDPOINTS[path].operation
    document = {operation.array: records} if ENDPOINTS[path].bulk else (records or [None])[0]
    body = json.dumps(document).encode()
    subject = behaviour(
        identify=identify,
        faults={"poison": [{"text": "no such text"}], "record_codes": [{"text": "no such text", "code": "x"}]},
    )

    reply = react(
        subject, Request("POST", f"/api/v2{path}", api_key="k", content_type="application/json", body=body)
    ).reply

    assert reply.status in (200, 400)
    assert isinstance(msgspec.json.decode(reply.body), dict)


@pytest.mark.parametrize("number", [b"1" + b"0" * 400, b"1e308", b"-0.0", b"1e-400", b"9007199254740993"])
def test_numbers_may_be_huge(number: bytes) -> None:
    body = b'{"records": [{"message_id": "aB12cD34", "attribution_type": "sale", "revenue": %b}]}' % number
    request = Request("POST", "/api/v2/revenue/bulk", api_key="k", content_type="application/json", body=body)

    assert react(behaviour(), request).reply.status in (200, 400)
