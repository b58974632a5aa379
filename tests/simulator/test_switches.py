"""The questions that the documentation leaves open, each answered either way."""

from typing import Any

import httpx
import pytest

from connector.simulator import Faults, Poison
from tests.kit.local import NO_TLS
from tests.simulator.conftest import Serve, Served

LIST = "+18005551234"
BARE = {"to": "+15550000001", "body": "hello"}


@pytest.mark.parametrize(
    ("placement", "codes"),
    [
        ("both", {"message": None, "top_level": None, "top_level_bad": "invalid_list_number", "own_wins": None}),
        (
            "message",
            {
                "message": None,
                "top_level": "missing_list_number",
                "top_level_bad": "missing_list_number",
                "own_wins": None,
            },
        ),
        (
            "top_level",
            {
                "message": "missing_list_number",
                "top_level": None,
                "top_level_bad": "invalid_list_number",
                "own_wins": "list_not_found",
            },
        ),
    ],
)
def test_list_numbers_may_stand_in_the_message_or_at_the_top(
    serve: Serve, placement: str, codes: dict[str, str | None]
) -> None:
    served = serve(switches={"list_number": placement}, lists=[LIST])
    own = {**BARE, "list_number": LIST}
    documents: dict[str, dict[str, Any]] = {
        "message": {"messages": [own]},
        "top_level": {"list_number": LIST, "messages": [BARE]},
        "top_level_bad": {"list_number": "800", "messages": [BARE]},
        "own_wins": {"list_number": "+18005550009", "messages": [own]},
    }

    replies = {name: served.client.post("/send/bulk", json=document).json() for name, document in documents.items()}

    assert {name: reply["errors"][0]["code"] if reply["errors"] else None for name, reply in replies.items()} == codes


@pytest.mark.parametrize("status", [200, 201])
def test_success_has_the_status_of_the_switch(serve: Serve, status: int) -> None:
    served = serve(switches={"success_status": status})

    single = served.client.post("/send", json={**BARE, "list_number": LIST})

    assert (served.send("hello").status_code, single.status_code) == (status, status)


def test_a_batch_without_one_success_may_have_a_status_of_its_own(serve: Serve) -> None:
    served = serve(switches={"all_failed_status": 400})

    failed, mixed = served.send("", ""), served.send("", "hello")

    assert (failed.status_code, failed.json()["error_count"], mixed.status_code) == (400, 2, 200)


def test_both_codes_of_401_may_be_one(serve: Serve) -> None:
    served = serve(switches={"key_codes": "unauthorized"}, api_keys=["trk_other"])

    bad = served.send("hello")
    absent = httpx.get(f"{served.simulator.url}/lists", trust_env=False, verify=NO_TLS)

    assert [answer.json()["code"] for answer in (bad, absent)] == ["unauthorized", "unauthorized"]


def test_the_index_may_begin_at_1(serve: Serve) -> None:
    reply = serve(switches={"index_base": 1}).send("hello", "").json()

    assert [entry["index"] for entry in reply["errors"]] == [2]


@pytest.mark.parametrize(
    ("switch", "fault", "named"), [(None, None, 3), (2, None, 2), (2, 1, 1), (1, 2, 1), (0, None, 0)]
)
def test_errors_may_be_capped_by_switch_and_by_fault(
    serve: Serve, switch: int | None, fault: int | None, named: int
) -> None:
    reply = serve(switches={"errors_cap": switch}, faults=Faults(errors_cap=fault)).send("", "", "", "x").json()

    assert (reply["queued_count"], reply["error_count"], len(reply["errors"])) == (1, 3, named)


@pytest.mark.parametrize(("reply", "expected"), [("queued", (3, [])), ("error", (2, [(1, "duplicate_message")]))])
def test_the_same_text_to_the_same_number_may_be_suppressed(
    serve: Serve, reply: str, expected: tuple[int, list[tuple[int, str]]]
) -> None:
    served = serve(switches={"duplicate_window_secs": 60, "duplicate_reply": reply})

    document = served.send("hello", "hello", "other").json()

    assert (document["queued_count"], [(entry["index"], entry["code"]) for entry in document["errors"]]) == expected
    assert served.simulator.accepted("hello") == 1


def test_a_repeat_is_no_repeat_to_another_number_from_another_list_or_without_the_switch(serve: Serve) -> None:
    suppressing, plain = serve(switches={"duplicate_window_secs": 60}), serve()
    for served in (suppressing, plain):
        served.send("hello")
        served.send("hello", to="+15550000002")
        served.send("hello", list_number="+18005550002")
        served.send("hello")

    assert (suppressing.simulator.accepted("hello"), plain.simulator.accepted("hello")) == (3, 4)


@pytest.mark.parametrize(
    "faults",
    [Faults(status_override=503), Faults(error_rate={500: 1}), Faults(poison=(Poison(text="3"),))],
    ids=["override", "rate", "poison"],
)
def test_a_part_of_a_batch_may_be_taken_before_a_5xx(serve: Serve, faults: Faults) -> None:
    served = serve(switches={"partial_queueing": 0.5}, faults=faults)

    answer = served.send("0", "1", "2", "3")

    assert answer.status_code >= 500
    assert [served.simulator.accepted(body) for body in "0123"] == [1, 1, 0, 0]


def test_no_part_of_a_batch_is_taken_before_a_4xx_nor_from_a_client_without_a_key(serve: Serve) -> None:
    refused = serve(switches={"partial_queueing": 1}, faults=Faults(status_override=429))
    stranger = serve(switches={"partial_queueing": 1}, faults=Faults(status_override=500), api_keys=["trk_other"])

    statuses = [served.send("hello").status_code for served in (refused, stranger)]

    assert statuses == [429, 500]
    assert [served.simulator.ledger().accepted for served in (refused, stranger)] == [0, 0]


def test_the_limit_of_the_body_may_be_lower_by_fault(served: Served) -> None:
    served.simulator.set_faults(Faults(body_limit_bytes=200))

    assert [served.send("x" * size).status_code for size in (10, 200)] == [200, 413]
    assert served.simulator.ledger().accepted == 1
