"""Every fault, as a client meets it, and what the ledger says about it."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime

import httpx
import pytest
import uvloop

from connector.simulator import Chance, Faults, Outage, Poison, RecordCode
from tests.kit.patience import PATIENCE_SECS
from tests.simulator.conftest import Serve, Served

LOOPS = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
NEXT = Chance(next=1)
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@LOOPS
@pytest.mark.parametrize("close_with", ["fin", "rst"])
def test_a_lost_reply_is_accepted_and_then_the_connection_is_closed(
    serve: Serve, loop_factory: LoopFactory, close_with: str
) -> None:
    served = serve(
        faults=Faults.model_validate({"lose_reply": NEXT, "close_with": close_with}), loop_factory=loop_factory
    )

    with pytest.raises(httpx.RemoteProtocolError if close_with == "fin" else httpx.ReadError):
        served.send("lost")

    assert served.simulator.accepted("lost") == 1
    assert served.simulator.ledger().unanswered == {"lose_reply": 1}
    assert served.simulator.ledger().in_flight == 0
    assert served.send("next").status_code == 200


def test_a_dropped_request_is_not_accepted(serve: Serve) -> None:
    served = serve(faults=Faults(drop_request=NEXT))

    with pytest.raises(httpx.RemoteProtocolError):
        served.send("dropped")

    assert served.simulator.accepted("dropped") == 0
    assert served.simulator.ledger().unanswered == {"drop_request": 1}


@pytest.mark.parametrize("taken", [False, True])
def test_a_stalled_request_is_never_answered_and_taken_if_so_wanted(serve: Serve, taken: bool) -> None:
    served = serve(faults=Faults(stall=NEXT, stall_takes_records=taken))

    with pytest.raises(httpx.ReadTimeout):
        served.client.post(
            "/send/bulk",
            json={"list_number": "+18005551234", "messages": [{"to": "+15550000001", "body": "x"}]},
            timeout=httpx.Timeout(PATIENCE_SECS, read=0.2),
        )

    assert served.simulator.accepted("x") == taken
    assert served.send("next").status_code == 200


def test_where_large_requests_are_stalled_small_ones_are_answered(serve: Serve) -> None:
    served = serve(faults=Faults(stall_above_bytes=1_000))

    with pytest.raises(httpx.ReadTimeout):
        served.client.post(
            "/send/bulk",
            json={"list_number": "+18005551234", "messages": [{"to": "+15550000001", "body": "x" * 1_000}]},
            timeout=httpx.Timeout(PATIENCE_SECS, read=0.2),
        )

    assert served.send("small").status_code == 200
    assert served.simulator.ledger().unanswered == {"stall": 1}


@LOOPS
def test_a_cut_body_ends_before_its_length(serve: Serve, loop_factory: LoopFactory) -> None:
    served = serve(faults=Faults(cut_body=NEXT), loop_factory=loop_factory)

    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        served.send("cut")

    assert served.simulator.accepted("cut") == 1
    assert served.simulator.ledger().unanswered == {"cut_body": 1}


def test_a_slow_body_comes_whole_but_takes_its_time(serve: Serve) -> None:
    served = serve(faults=Faults(slow_body=NEXT, slow_body_secs=0.3))

    started = time.monotonic()
    slow, slow_secs = served.send("slow").json(), time.monotonic() - started

    assert slow == {"queued_count": 1, "error_count": 0, "errors": []}
    assert slow_secs >= 0.25
    assert served.send("next").status_code == 200
    assert served.simulator.ledger().connections == 1


def test_broken_json_empty_bodies_and_pages_come_with_the_status_of_success(serve: Serve) -> None:
    served = serve(faults=Faults(broken_json=NEXT, empty_body=NEXT, html_body=NEXT))

    broken, empty, page = (served.send(body) for body in ("a", "b", "c"))

    assert [answer.status_code for answer in (broken, empty, page)] == [200, 200, 200]
    with pytest.raises(json.JSONDecodeError):
        broken.json()
    assert empty.content == b""
    assert page.headers["content-type"].startswith("text/html")
    assert page.text.startswith("<html>")
    assert [served.simulator.accepted(body) for body in "abc"] == [1, 1, 1]


def test_wrong_counts_add_up_to_one_record_more(serve: Serve) -> None:
    reply = serve(faults=Faults(wrong_counts=NEXT)).send("a", "").json()

    assert (reply["queued_count"], reply["error_count"], len(reply["errors"])) == (2, 1, 1)


def test_lying_entries_keep_the_counts_right_and_only_their_own_field_wrong(serve: Serve) -> None:
    served = serve(faults=Faults(repeated_index=NEXT, out_of_range_index=NEXT, wrong_to=NEXT))

    repeated, out_of_range, wrong_to = (served.send("a", "b", "c").json() for _ in range(3))

    assert [(reply["queued_count"], reply["error_count"]) for reply in (repeated, out_of_range, wrong_to)] == [
        (1, 2),
        (2, 1),
        (2, 1),
    ]
    named = [
        [(entry["index"], entry["to"]) for entry in reply["errors"]] for reply in (repeated, out_of_range, wrong_to)
    ]
    assert named == [
        [(0, "+15550000001"), (0, "+15550000001")],
        [(3, "+15550000001")],
        [(0, "+15005550000")],
    ]
    assert served.simulator.accepted("a") == 3


def test_an_unnamed_error_is_counted_really_refused_and_not_named(serve: Serve) -> None:
    served = serve(faults=Faults(unnamed_error=NEXT))

    reply = served.send("", "a", "b").json()

    assert (reply["queued_count"], reply["error_count"]) == (1, 2)
    assert [entry["code"] for entry in reply["errors"]] == ["missing_body"]
    assert [served.simulator.accepted(body) for body in "ab"] == [0, 1]


def test_a_huge_reply_is_still_json(serve: Serve) -> None:
    answer = serve(faults=Faults(huge_reply_bytes=3_000_000)).send("a")

    assert len(answer.content) == 3_000_000
    assert answer.json()["queued_count"] == 1


@pytest.mark.parametrize("status", [301, 307, 401, 402, 403, 404, 409, 413, 422, 429, 500, 502, 503, 504, 599])
def test_every_request_may_be_answered_with_one_status(serve: Serve, status: int) -> None:
    served = serve(faults=Faults(status_override=status))

    sent, listed = served.send("a"), served.client.get("/lists")

    assert (sent.status_code, listed.status_code) == (status, status)
    assert sent.json()["error"]
    assert ("location" in sent.headers) == (status < 400)
    assert served.simulator.ledger().accepted == 0


def test_a_failure_may_have_a_page_or_nothing_for_a_body(serve: Serve) -> None:
    page, nothing = (
        serve(faults=Faults.model_validate({"status_override": 502, "failure_body": form})).send("a")
        for form in ("html", "empty")
    )

    assert (page.status_code, page.text) == (502, "<html><body><h1>502 Bad Gateway</h1></body></html>\n")
    assert (nothing.status_code, nothing.content) == (502, b"")


def test_retry_after_is_sent_with_429_and_503_as_seconds_or_as_a_date(serve: Serve) -> None:
    def answer(status: int, form: str) -> httpx.Response:
        faults = {"status_override": status, "retry_after_secs": 30, "retry_after_form": form}
        return serve(faults=Faults.model_validate(faults)).send("a")

    assert [answer(status, "seconds").headers.get("retry-after") for status in (429, 503, 500)] == ["30", "30", None]
    date = parsedate_to_datetime(answer(503, "date").headers["retry-after"])
    assert 25 <= date.timestamp() - time.time() <= 31


def test_errors_at_a_rate_come_from_the_seed(serve: Serve) -> None:
    faults = Faults(error_rate={503: 0.3, 429: 0.2})

    rows = []
    for seed in (1, 1, 2):
        served = serve(faults=faults, seed=seed)
        rows.append([served.send(str(number)).status_code for number in range(100)])
        ledger = served.simulator.ledger()
        assert ledger.accepted == rows[-1].count(200)

    assert rows[0] == rows[1] != rows[2]
    assert 15 <= rows[0].count(503) <= 45
    assert 8 <= rows[0].count(429) <= 35


def test_a_chance_strikes_the_next_ones_and_then_at_its_rate(serve: Serve) -> None:
    served = serve(faults=Faults(empty_body=Chance(next=3)))

    assert [served.send("a").content == b"" for _ in range(5)] == [True, True, True, False, False]


def test_chances_leave_lists_and_single_sends_alone_when_they_are_about_batches(serve: Serve) -> None:
    served = serve(faults=Faults(lose_reply=NEXT, wrong_counts=NEXT))

    listed = served.client.get("/lists").status_code
    with pytest.raises(httpx.RemoteProtocolError):
        served.send("lost")
    single = served.client.post("/send", json={"to": "+15550000001", "list_number": "+18005551234", "body": "x"})

    assert (listed, single.json()["success"]) == (200, True)
    assert served.send("a").json()["queued_count"] == 2, "the lie has waited for a batch"


def test_faults_may_touch_one_endpoint_only(serve: Serve) -> None:
    served = serve(faults=Faults(status_override=503, only_paths=("/send/bulk",)))

    assert (served.send("a").status_code, served.client.get("/lists").status_code) == (503, 200)


def test_poison_fails_each_request_that_carries_it_and_no_other(serve: Serve) -> None:
    served = serve(faults=Faults(poison=(Poison(text="bad"), Poison(text="worse", status=400))))

    answers = [served.send(*bodies).status_code for bodies in (["a", "bad one"], ["bad one"], ["a"], ["worse"])]

    assert answers == [500, 500, 200, 400]
    assert served.simulator.ledger().accepted == 1


def test_poison_may_be_refused_with_a_page_as_by_a_firewall(serve: Serve) -> None:
    served = serve(faults=Faults(poison=(Poison(text="bad", status=403, body="html"),)))

    answer = served.send("bad")

    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (403, "text/html")
    assert served.send("a").json()["queued_count"] == 1


def test_records_may_fail_with_a_code_permanently_or_the_first_times_each(serve: Serve) -> None:
    rules = (RecordCode(text="never", code="not_sendable"), RecordCode(text="later", code="provider_error", times=2))
    served = serve(faults=Faults(record_codes=rules))

    replies = [served.send("never", "later 1", "later 2", "fine").json() for _ in range(3)]

    assert [[(entry["index"], entry["code"]) for entry in reply["errors"]] for reply in replies] == [
        [(0, "not_sendable"), (1, "provider_error"), (2, "provider_error")],
        [(0, "not_sendable"), (1, "provider_error"), (2, "provider_error")],
        [(0, "not_sendable")],
    ]
    assert [served.simulator.accepted(body) for body in ("never", "later 1", "fine")] == [0, 1, 3]


def test_other_records_are_searched_as_json(serve: Serve) -> None:
    served = serve(faults=Faults(poison=(Poison(text='"plan":"größe"'),)))
    contact = {"phone_number": "+15550000001", "list_number": "+18005551234", "custom_fields": {"plan": "größe"}}

    answer = served.client.post(
        "/contacts/bulk", content=json.dumps({"contacts": [contact]}), headers={"Content-Type": "application/json"}
    )

    assert answer.status_code == 500


def test_a_reply_comes_no_sooner_than_the_least_latency(serve: Serve) -> None:
    served = serve(faults=Faults(latency_ms=(50, 80)))
    served.send("warm")

    took = []
    for _ in range(5):
        started = time.monotonic()
        served.send("a")
        took.append(time.monotonic() - started)

    assert min(took) >= 0.049
    assert served.simulator.ledger().in_flight_max == 1


def test_a_request_under_way_is_in_flight_and_a_client_that_leaves_ends_it(serve: Serve) -> None:
    served = serve(faults=Faults(latency_ms=(60_000, 60_000)))

    with pytest.raises(httpx.ReadTimeout):
        served.client.post("/send/bulk", json={"messages": [{}]}, timeout=httpx.Timeout(PATIENCE_SECS, read=0.1))

    def in_flight() -> tuple[int, int]:
        ledger = served.simulator.ledger()
        return ledger.in_flight, ledger.in_flight_max

    deadline = time.monotonic() + PATIENCE_SECS
    while in_flight() != (0, 1):
        assert time.monotonic() < deadline, in_flight()
        time.sleep(0.01)


@LOOPS
def test_a_refusing_outage_closes_the_port_and_the_connections_and_ends_on_the_same_port(
    serve: Serve, loop_factory: LoopFactory
) -> None:
    served = serve(loop_factory=loop_factory)
    served.send("before")

    for _ in range(3):
        served.simulator.set_faults(Faults(outage=Outage(how="refuse")))
        for _ in range(3):
            with pytest.raises(httpx.ConnectError):
                served.send("during")
        served.simulator.set_faults(Faults())
        assert served.send("after").status_code == 200

    assert [served.simulator.accepted(body) for body in ("before", "during", "after")] == [1, 0, 3]


def test_an_outage_ends_by_itself_when_it_has_an_end(serve: Serve) -> None:
    served = serve(faults=Faults(outage=Outage(how="refuse", secs=0.3)))

    statuses: list[int | None] = []
    deadline = time.monotonic() + PATIENCE_SECS
    while statuses[-1:] != [200] and time.monotonic() < deadline:
        try:
            statuses.append(served.send("a").status_code)
        except httpx.ConnectError:
            statuses.append(None)
            time.sleep(0.05)

    assert statuses == [*[None] * (len(statuses) - 1), 200]


def test_a_closing_outage_leaves_the_control_api_in_reach(served: Served) -> None:
    def put(faults: dict[str, object]) -> int:
        return served.control("PUT", "/faults", json=faults).status_code

    assert put({"outage": {"how": "close"}}) == 200
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)):
        served.send("during")
    assert put({}) == 200
    assert served.send("after").status_code == 200
    assert served.simulator.ledger().unanswered == {"outage": 1}


def test_idle_connections_are_closed_early_when_told_so(serve: Serve) -> None:
    served = serve(faults=Faults(close_idle_after_secs=0.05))
    deadline = time.monotonic() + PATIENCE_SECS
    while served.simulator.ledger().connections < 2:
        assert time.monotonic() < deadline
        with suppress(httpx.RemoteProtocolError, httpx.ReadError):  # it is being closed just then
            served.send("a")
        time.sleep(0.1)


def test_a_suspended_account_is_403_without_a_code(serve: Serve) -> None:
    answer = serve(faults=Faults(account_suspended=True)).send("a")

    assert (answer.status_code, answer.json()) == (403, {"error": "Account is suspended"})


def test_a_code_for_some_attempts_strikes_records_whatever_fields_they_have(serve: Serve) -> None:
    """Also one that has the name of a message's recipient, and what no recipient is."""
    served = serve(faults=Faults(record_codes=(RecordCode(text="vip", code="provider_error", times=1),)))
    contact = {"phone_number": "+15550000001", "list_number": "+18005551234", "to": ["vip"]}

    failed = [served.client.post("/contacts/bulk", json={"contacts": [contact]}).json()["error_count"] for _ in "12"]

    assert failed == [1, 0]
