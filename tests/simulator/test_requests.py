"""What fails a request as a whole, and in which order the platform looks."""

from typing import Any

import httpx
import pytest

from connector.simulator import Faults
from tests.kit.local import NO_TLS
from tests.simulator.conftest import Serve, Served

LIST = "+18005551234"
ARRAYS = {
    "/send/bulk": "messages",
    "/contacts/bulk": "contacts",
    "/revenue/bulk": "records",
    "/history/import": "records",
    "/history/sends": "records",
    "/history/clicks": "records",
    "/history/revenue": "records",
}
POSTS = [*ARRAYS, "/send", "/contacts", "/revenue"]


def error(response: httpx.Response) -> tuple[int, str | None]:
    document = response.json()
    assert document["error"], "the text is always there"
    assert "success" not in document
    return response.status_code, document.get("code")


@pytest.mark.parametrize("path", [*POSTS, "/lists"])
def test_every_endpoint_needs_a_key_that_the_account_has(serve: Serve, path: str) -> None:
    served = serve(api_keys=["trk_known"])
    method = "GET" if path == "/lists" else "POST"

    answers = [
        error(httpx.request(method, f"{served.simulator.url}{path}", headers=headers, trust_env=False, verify=NO_TLS))
        for headers in ({}, {"X-Api-Key": "trk_other"}, {"Authorization": "Bearer trk_known"})
    ]

    assert answers == [(401, "missing_api_key"), (401, "invalid_api_key"), (401, "missing_api_key")]


def test_any_key_will_do_when_none_is_set(served: Served) -> None:
    assert served.send("hello").status_code == 200


@pytest.mark.parametrize(("path", "array"), ARRAYS.items())
def test_an_array_must_be_there_be_an_array_and_not_be_empty(served: Served, path: str, array: str) -> None:
    documents: list[Any] = [{}, {array: []}, {array: {}}, {array: None}, [], 1, [None]]

    answers = {error(served.client.post(path, json=document)) for document in documents}

    assert answers == {(400, f"missing_{array}")}


@pytest.mark.parametrize(("path", "array"), ARRAYS.items())
def test_an_array_has_a_thousand_records_at_most(served: Served, path: str, array: str) -> None:
    def post(records: int) -> httpx.Response:
        return served.client.post(path, json={array: [{}] * records})

    assert post(1000).status_code == 200
    assert error(post(1001)) == (413, f"too_many_{array}")


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"messages": [}', b"\xff\xfe", b'{"messages": [{}]} x', b'["\xc3"]', b"[" * 5_000 + b"]" * 5_000],
    ids=lambda body: repr(body[:20]),
)
def test_a_body_must_be_json(served: Served, path: str, body: bytes) -> None:
    answer = served.client.post(path, content=body, headers={"Content-Type": "application/json"})

    assert error(answer) == (400, "invalid_json")


def test_a_content_type_must_be_json(served: Served) -> None:
    body = b'{"messages": [{"to": "+15550000001", "list_number": "+18005551234", "body": "hello"}]}'

    assert error(served.client.post("/send/bulk", content=body)) == (400, None)


def test_a_content_type_may_name_its_charset(served: Served) -> None:
    answer = served.client.post(
        "/send", content=b'{"to": "+15550000001"}', headers={"Content-Type": "Application/JSON; charset=utf-8"}
    )

    assert error(answer) == (400, "missing_list_number")


def test_a_body_above_the_limit_is_read_whole_and_refused_without_a_code(serve: Serve) -> None:
    served = serve(switches={"max_body_bytes": 200_000})
    fitting = b'{"messages": [{}]}'.ljust(200_000)
    headers = {"Content-Type": "application/json"}

    answers = [served.client.post("/send/bulk", content=body, headers=headers) for body in (fitting, fitting + b" ")]

    assert answers[0].status_code == 200
    assert error(answers[1]) == (413, None)
    assert served.simulator.ledger().request_bytes == 400_001
    assert served.simulator.ledger().connections == 1, "the connection outlives the 413"


def test_the_documented_limit_is_five_million_bytes(served: Served) -> None:
    headers = {"Content-Type": "application/json"}

    answers = [
        served.client.post("/send/bulk", content=b'{"messages": [{}]}'.ljust(size), headers=headers).status_code
        for size in (5_000_000, 5_000_001)
    ]

    assert answers == [200, 413]


def test_the_key_goes_before_the_account_the_account_before_the_size_the_size_before_json(serve: Serve) -> None:
    served = serve(api_keys=["trk_known"], switches={"max_body_bytes": 10})
    headers = {"X-Api-Key": "trk_known", "Content-Type": "application/json"}
    long, short = b"{" * 11, b"{"

    def post(body: bytes, headers: dict[str, str]) -> tuple[int, str | None]:
        return error(
            httpx.post(
                f"{served.simulator.url}/send/bulk", content=body, headers=headers, trust_env=False, verify=NO_TLS
            )
        )

    served.simulator.set_faults(Faults(account_suspended=True))
    by_key, by_account = post(long, {}), post(long, headers)
    served.simulator.set_faults(Faults())

    assert [by_key, by_account] == [(401, "missing_api_key"), (403, None)]
    assert [post(long, headers), post(short, headers)] == [(413, None), (400, "invalid_json")]


def test_unknown_paths_and_wrong_methods_are_distinguished(served: Served) -> None:
    asked = [("POST", "/nothing"), ("GET", "/send/bulk"), ("POST", "/lists"), ("GET", "/../x")]

    answers = [error(served.client.request(method, path)) for method, path in asked]

    assert answers == [
        (404, "not_found"),
        (405, "method_not_allowed"),
        (405, "method_not_allowed"),
        (404, "not_found"),
    ]
    assert served.simulator.ledger().requests_by_endpoint == {"other": 2, "/send/bulk": 1, "/lists": 1}


def test_lists_are_those_of_the_account_and_deleted_ones_are_shown_on_request(serve: Serve) -> None:
    served = serve(lists=[LIST, {"phone_number": "+18005550002", "status": "deleted"}])

    shown, deleted, second_page = (
        served.client.get("/lists", params=query).json()
        for query in ({}, {"status": "deleted"}, {"page": "2", "per_page": "1"})
    )

    assert [entry["phone_number"] for entry in shown["lists"]] == [LIST]
    assert [(entry["id"], entry["phone_number"]) for entry in deleted["lists"]] == [(2, "+18005550002")]
    assert second_page == {"lists": [], "pagination": {"page": 2, "per_page": 1, "total": 1, "total_pages": 1}}


def test_without_a_set_of_lists_those_that_were_used_are_shown(served: Served) -> None:
    before = served.client.get("/lists").json()["lists"]
    served.send("hello")
    after = served.client.get("/lists").json()["lists"]

    assert before == []
    assert [entry["phone_number"] for entry in after] == [LIST]
