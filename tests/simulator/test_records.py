"""What is checked in each record, and what is said about the ones that went well."""

from typing import Any

import pytest

from connector.simulator import Faults
from tests.simulator.conftest import Serve, Served

LIST = "+18005551234"
MESSAGE = {"to": "+15550000001", "list_number": LIST, "body": "hello"}
CONTACT = {"phone_number": "+15550000001", "list_number": LIST}
REVENUE = {"message_id": "aB12cD34", "revenue": 1.5, "attribution_type": "sale"}
SEND = {"id": "old-1", "to_number": "+15550000001", "timestamp": "2024-05-01T10:00:00Z"}
CLICK = {
    "message_id": "old-1",
    "offer_id": "o",
    "phone_number": "+15550000001",
    "timestamp": "2024-05-01T10:00:00+00:00",
}
HISTORY_REVENUE = {"message_id": "old-1", "offer_id": "o", "revenue": 2}

Record = dict[str, Any]
BROKEN: list[tuple[str, Record, Record, str]] = [
    *[("/send/bulk", MESSAGE, {name: value}, f"missing_{name}") for name in MESSAGE for value in (None, "")],
    ("/send/bulk", MESSAGE, {"body": 7}, "missing_body"),
    *[
        ("/send/bulk", MESSAGE, {"to": to}, "invalid_phone")
        for to in (
            "15550000001",
            "+05550000001",
            "+1",
            "+1555000000123456",
            "+1 5550000001",
            "+1555000000\u0661",
            7,
            "+15550000001\n",
        )
    ],
    ("/send/bulk", MESSAGE, {"list_number": "8005551234"}, "invalid_list_number"),
    ("/send/bulk", MESSAGE, {"list_number": ["+18005551234"]}, "invalid_list_number"),
    ("/send/bulk", MESSAGE, {"list_number": "+18005550002"}, "list_not_found"),
    ("/send/bulk", MESSAGE, {"list_number": "+18005550003"}, "list_not_found"),
    ("/send/bulk", MESSAGE, {"list_number": "+18005550004"}, "webhook_not_configured"),
    ("/send/bulk", MESSAGE, {"to": "+15559999999"}, "not_sendable"),
    *[("/contacts/bulk", CONTACT, {name: None}, f"missing_{name}") for name in CONTACT],
    ("/contacts/bulk", CONTACT, {"phone_number": "+1x"}, "invalid_phone"),
    ("/contacts/bulk", CONTACT, {"list_number": "+1x"}, "invalid_list_number"),
    ("/contacts/bulk", CONTACT, {"list_number": "+18005550002"}, "list_not_found"),
    ("/contacts/bulk", CONTACT, {"phone_number": "+15559999999"}, "not_sendable"),
    *[("/revenue/bulk", REVENUE, {name: None}, f"missing_{name}") for name in REVENUE],
    *[("/revenue/bulk", REVENUE, {"revenue": value}, "invalid_revenue") for value in (-0.01, "1", True)],
    ("/revenue/bulk", REVENUE, {"attribution_type": "gift"}, "invalid_attribution_type"),
    ("/revenue/bulk", REVENUE, {"attribution_type": ["sale"]}, "invalid_attribution_type"),
    ("/revenue/bulk", REVENUE, {"message_id": 12345678}, "message_not_found"),
    *[("/history/sends", SEND, {name: None}, f"missing_{name}") for name in SEND],
    ("/history/sends", SEND, {"to_number": "+1x"}, "invalid_phone"),
    ("/history/sends", SEND, {"timestamp": "yesterday"}, "invalid_timestamp"),
    ("/history/sends", SEND, {"timestamp": 1714557600}, "invalid_timestamp"),
    ("/history/sends", SEND, {"list_number": "+18005550002"}, "list_not_found"),
    *[("/history/clicks", CLICK, {name: None}, f"missing_{name}") for name in CLICK],
    ("/history/clicks", CLICK, {"phone_number": "+1x"}, "invalid_phone"),
    ("/history/clicks", CLICK, {"timestamp": "later"}, "invalid_timestamp"),
    *[("/history/revenue", HISTORY_REVENUE, {name: None}, f"missing_{name}") for name in HISTORY_REVENUE],
    ("/history/revenue", HISTORY_REVENUE, {"timestamp": "later"}, "invalid_timestamp"),
    ("/history/import", SEND, {"id": None}, "missing_id"),
    ("/history/import", CLICK, {"message_id": None}, "missing_message_id"),
    ("/history/import", HISTORY_REVENUE, {"revenue": -1}, "invalid_revenue"),
    ("/history/import", {}, {}, "missing_id"),
]
ARRAY = {"/send/bulk": "messages", "/contacts/bulk": "contacts"}
ECHO = {
    "/send/bulk": "to",
    "/contacts/bulk": "phone_number",
    "/history/sends": "id",
    "/history/import": "id",
}
LISTS = [
    LIST,
    {"phone_number": "+18005550003", "status": "deleted"},
    {"phone_number": "+18005550004", "webhook_verified": False},
]


@pytest.fixture
def account(serve: Serve) -> Served:
    return serve(lists=LISTS)


@pytest.mark.parametrize(("path", "good", "change", "code"), BROKEN)
def test_a_record_fails_alone_with_its_index_code_and_text(
    account: Served, path: str, good: Record, change: Record, code: str
) -> None:
    broken = {**good, **change}
    document = {ARRAY.get(path, "records"): [good, broken] if good else [broken]}

    reply = account.client.post(path, json=document).json()

    [entry] = reply["errors"]
    assert (entry["index"], entry["code"], reply["error_count"]) == (1 if good else 0, code, 1)
    assert entry["error"]
    echo = {ECHO[path]: broken.get(ECHO[path])} if path in ECHO else {}
    assert entry == {"index": entry["index"], **echo, "code": code, "error": entry["error"]}
    assert reply.get("queued_count", reply.get("success_count")) == (1 if good else 0)
    assert account.simulator.ledger().record_codes == {code: 1}


@pytest.mark.parametrize("record", [None, 7, "x", [MESSAGE]])
def test_a_record_that_is_no_object_lacks_its_first_field(served: Served, record: object) -> None:
    reply = served.client.post("/send/bulk", json={"messages": [record, MESSAGE]}).json()

    assert reply["queued_count"] == 1
    assert [(entry["index"], entry["code"], entry["to"]) for entry in reply["errors"]] == [(0, "missing_to", None)]


def test_bulk_sends_answer_with_counts_and_no_ids(served: Served) -> None:
    assert served.send("a", "b").json() == {"queued_count": 2, "error_count": 0, "errors": []}


def test_a_single_send_answers_with_an_id_of_8_letters_that_is_never_given_twice(served: Served) -> None:
    replies = [served.client.post("/send", json=MESSAGE).json() for _ in range(50)]

    assert all(set(reply) == {"success", "message_id", "status"} for reply in replies)
    assert {(reply["success"], reply["status"]) for reply in replies} == {(True, "queued")}
    ids = {reply["message_id"] for reply in replies}
    assert len(ids) == 50
    assert all(len(message_id) == 8 and message_id.isalnum() for message_id in ids)


@pytest.mark.parametrize(
    ("path", "good", "change", "code"),
    [(path.removesuffix("/bulk"), *rest) for path, *rest in BROKEN if path.endswith("/bulk")],
)
def test_a_single_record_fails_with_400_and_its_code(
    account: Served, path: str, good: Record, change: Record, code: str
) -> None:
    answer = account.client.post(path, json={**good, **change})

    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert set(answer.json()) == {"error", "code"}


def test_contacts_tell_new_numbers_from_new_memberships_and_from_updates(served: Served) -> None:
    other_list = {**CONTACT, "list_number": "+18005550002", "use_journeys": True}
    contacts = [CONTACT, CONTACT, other_list, other_list]

    reply = served.client.post("/contacts/bulk", json={"contacts": contacts}).json()

    assert reply == {
        "success_count": 4,
        "error_count": 0,
        "contacts_created": 1,
        "list_contacts_created": 2,
        "journeys_enrolled": 1,
        "errors": [],
    }


def test_a_single_contact_keeps_its_ids_when_it_is_sent_again(served: Served) -> None:
    first, again = (served.client.post("/contacts", json={**CONTACT, "use_validation": True}).json() for _ in range(2))

    assert (first["is_new_contact"], first["is_new_list_contact"]) == (True, True)
    assert (again["is_new_contact"], again["is_new_list_contact"]) == (False, False)
    assert (len(first["contact_id"]), len(first["list_contact_id"])) == (24, 24)
    assert [first[name] for name in ("contact_id", "list_contact_id")] == [
        again[name] for name in ("contact_id", "list_contact_id")
    ]
    assert "validation" in first
    assert "validation" not in served.client.post("/contacts", json=CONTACT).json()


def contact_of(size: int) -> bytes:
    """Return a contact that has so many bytes, most of them those of letters with two bytes each."""
    start = b'{"phone_number":"+15550000001","list_number":"+18005551234","custom_fields":{"x":"'
    padding = size - len(start) - len(b'"}}')
    return start + "é".encode() * (padding // 2) + b"x" * (padding % 2) + b'"}}'


@pytest.mark.parametrize("oversized", ["record", "request"])
def test_a_contact_has_4000_bytes_as_it_was_sent_at_most(serve: Serve, oversized: str) -> None:
    served = serve(switches={"oversized_contact": oversized})
    headers = {"Content-Type": "application/json"}
    body = b'{"contacts":[%b, %b]}' % (contact_of(4000), contact_of(4001))

    answer = served.client.post("/contacts/bulk", content=body, headers=headers)

    if oversized == "request":
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
        assert served.simulator.ledger().accepted == 0
    else:
        assert answer.json()["success_count"] == 1
        assert [(entry["index"], entry["code"]) for entry in answer.json()["errors"]] == [(1, "payload_too_large")]


def test_a_single_contact_above_4000_bytes_is_413(served: Served) -> None:
    headers = {"Content-Type": "application/json"}

    fitting, oversized = (
        served.client.post("/contacts", content=contact_of(size), headers=headers) for size in (4000, 4001)
    )

    assert fitting.status_code == 200
    assert (oversized.status_code, oversized.json()["code"]) == (413, "payload_too_large")


def test_contacts_that_ask_for_validation_need_billing_the_whole_batch_of_them(serve: Serve) -> None:
    served = serve(faults=Faults(billing_code="no_payment_method"))

    def post(*contacts: Record) -> tuple[int, str | None]:
        answer = served.client.post("/contacts/bulk", json={"contacts": contacts})
        return answer.status_code, answer.json().get("code")

    assert post(CONTACT) == (200, None)
    assert post(CONTACT, {**CONTACT, "use_validation": True}) == (402, "no_payment_method")
    assert served.simulator.ledger().accepted == 1


def test_revenue_is_summed_and_counted_each_time_it_is_sent(served: Served) -> None:
    replies = [
        served.client.post("/revenue/bulk", json={"records": [REVENUE, {**REVENUE, "revenue": 0}], "imported": True})
        for _ in range(2)
    ]

    assert [reply.json() for reply in replies] == [
        {"success_count": 2, "error_count": 0, "total_revenue": 1.5, "errors": []}
    ] * 2
    assert served.simulator.ledger().accepted_twice == 2


def test_a_single_revenue_repeats_what_it_was_given(served: Served) -> None:
    reply = served.client.post("/revenue", json=REVENUE).json()

    assert len(reply.pop("revenue_id")) == 24
    assert reply == {"success": True, "message_id": "aB12cD34", "revenue": 1.5}


@pytest.mark.parametrize(("path", "record"), [("/history/sends", SEND), ("/history/clicks", CLICK)])
@pytest.mark.parametrize("counted", [False, True])
def test_history_skips_sends_by_id_and_clicks_by_message(
    serve: Serve, path: str, record: Record, counted: bool
) -> None:
    served = serve(switches={"skipped_counts_as_success": counted})
    records = {"records": [record, record]}

    first, again = (served.client.post(path, json=records).json() for _ in range(2))

    assert [reply["duplicates_skipped"] for reply in (first, again)] == [1, 2]
    assert [reply["success_count"] for reply in (first, again)] == ([2, 2] if counted else [1, 0])
    assert (served.simulator.ledger().accepted, served.simulator.ledger().duplicates) == (1, 3)


def test_history_revenue_is_never_skipped(served: Served) -> None:
    reply = served.client.post("/history/revenue", json={"records": [HISTORY_REVENUE] * 2}).json()

    assert reply == {"success_count": 2, "error_count": 0, "total_revenue": 4, "errors": []}


def test_history_sends_count_invalid_phones_among_the_errors(served: Served) -> None:
    records = [{**SEND, "to_number": "+1x"}, {**SEND, "id": None}]

    reply = served.client.post("/history/sends", json={"records": records}).json()

    assert (reply["invalid_phones"], reply["error_count"]) == (1, 2)


def test_history_import_takes_a_record_as_the_kind_that_it_looks_like(served: Served) -> None:
    records = [SEND, CLICK, HISTORY_REVENUE, SEND, CLICK, HISTORY_REVENUE]

    reply = served.client.post("/history/import", json={"records": records}).json()

    assert (reply["success_count"], reply["duplicates_skipped"], reply["error_count"]) == (4, 2, 0)


def test_history_names_100_errors_and_counts_all(served: Served) -> None:
    reply = served.client.post("/history/sends", json={"records": [{}] * 250}).json()

    assert (reply["error_count"], len(reply["errors"])) == (250, 100)
    assert reply["errors"][-1]["index"] == 99
