"""The simulator's own API."""

import msgspec
import pytest

from connector.simulator import Chance, Faults
from connector.simulator.ledger import Entry, LedgerTotals
from tests.simulator.conftest import Serve, Served


def test_the_ledger_is_shown_as_sums_or_for_one_identity(served: Served) -> None:
    served.send("a&b=c", "a&b=c", "")

    sums = msgspec.json.decode(served.control("GET", "/ledger").content, type=LedgerTotals, strict=False)
    one = served.control("GET", "/ledger", params={"identity": "a&b=c"}).json()
    other_kind = served.control("GET", "/ledger", params={"identity": "a&b=c", "operation": "contacts"}).json()

    assert (sums.accepted, sums.accepted_twice, sums.record_codes) == (2, 1, {"missing_body": 1})
    assert sums.requests == 1, "the control API does not count itself"
    assert one == {"identity": "a&b=c", "accepted": 2}
    assert other_kind["accepted"] == 0


def test_all_records_are_listed_a_line_each_however_many_there_are(served: Served) -> None:
    for start in range(0, 5_000, 1_000):
        served.send(*(f"line\n{number}" for number in range(start, start + 1_000)))
    served.client.post("/contacts", json={"phone_number": "+15550000001", "list_number": "+18005551234"})

    answer = served.control("GET", "/ledger/records")
    contacts = served.control("GET", "/ledger/records", params={"operation": "contacts"})

    entries = [msgspec.json.decode(line, type=Entry) for line in answer.content.splitlines()]
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert len(entries) == 5_001
    assert {entry.accepted for entry in entries} == {1}
    assert {entry.identity for entry in entries if entry.operation == "send"} == {
        f"line\n{number}" for number in range(5_000)
    }
    assert len(contacts.content.splitlines()) == 1


def test_put_replaces_all_faults_and_patch_those_it_names(served: Served) -> None:
    put = served.control("PUT", "/faults", json={"latency_ms": 5, "error_rate": {"503": 0.5}})
    patched = served.control("PATCH", "/faults", json={"status_override": 429, "latency_ms": None})
    shown = served.control("GET", "/faults").json()

    assert put.json()["latency_ms"] == [5.0, 5.0]
    assert patched.json() == shown
    assert (shown["latency_ms"], shown["error_rate"], shown["status_override"]) == ([0.0, 0.0], {"503": 0.5}, 429)
    assert served.control("PUT", "/faults", json={}).json() == Faults().model_dump(mode="json")


def test_a_patch_leaves_what_is_left_of_other_chances(serve: Serve) -> None:
    served = serve(faults=Faults(empty_body=Chance(next=2)))

    served.send("a")
    served.control("PATCH", "/faults", json={"retry_after_secs": 1})
    after_patch = [served.send("a").content == b"" for _ in range(2)]
    served.control("PUT", "/faults", json={"empty_body": {"next": 2}})
    after_put = [served.send("a").content == b"" for _ in range(3)]

    assert (after_patch, after_put) == ([True, False], [True, True, False])


@pytest.mark.parametrize(
    ("document", "places"),
    [
        ({"latencyms": 1}, ["latencyms"]),
        (
            {"lose_reply": {"rate": 2}, "poison": [{"status": 200}]},
            ["lose_reply.rate", "poison[0].status", "poison[0].text"],
        ),
        ({"lose_reply": {"next": -1}}, ["lose_reply.next"]),
        ({"error_rate": {"200": 0.5}}, ['error_rate["200"]']),
        ({"error_rate": {"503": 0.6, "500": 0.6}}, [""]),
        ({"latency_ms": [80, 20]}, [""]),
        ({"outage": {"how": "refuse"}}, ["outage.secs"]),
        ({"only_paths": ["send"]}, [""]),
        ([], [""]),
        (7, [""]),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_bad_faults_are_refused_with_every_place_and_change_nothing(
    served: Served, method: str, document: object, places: list[str]
) -> None:
    before = served.control("GET", "/faults").json()

    answer = served.control(method, "/faults", json=document)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_faults")
    problems = answer.json()["problems"]
    assert sorted(problem["place"] for problem in problems) == sorted(places)
    assert all(problem["problem"] for problem in problems)
    assert served.control("GET", "/faults").json() == before


@pytest.mark.parametrize("content", [b"latency_ms: 5", b"[" * 5_000 + b"]" * 5_000], ids=["yaml", "deep"])
def test_faults_must_be_json(served: Served, content: bytes) -> None:
    answer = served.control("PUT", "/faults", content=content)

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json")


def test_reset_restores_the_initial_state(serve: Serve) -> None:
    served = serve(faults=Faults(error_rate={500: 0.5}), seed=5)

    def row() -> list[int]:
        return [served.send("a").status_code for _ in range(30)]

    first = row()
    served.control("PUT", "/faults", json={"status_override": 403})
    answer = served.control("POST", "/reset")

    assert answer.status_code == 200
    assert served.simulator.ledger().requests == 0
    assert row() == first
    assert served.simulator.accepted("a") == first.count(200)


def test_reset_forgets_what_the_platform_knew(served: Served) -> None:
    contact = {"phone_number": "+15550000001", "list_number": "+18005551234"}

    def is_new() -> bool:
        return bool(served.client.post("/contacts", json=contact).json()["is_new_contact"])

    before = [is_new(), is_new()]
    served.control("POST", "/reset")

    assert [*before, is_new()] == [True, False, True]


def test_health_tells_the_faults_in_force(serve: Serve) -> None:
    served = serve(script=[{"at_secs": 0, "faults": {"status_override": 503}}], script_from="start")

    answer = served.control("GET", "/health")

    assert answer.json() == {"status": "ok", "faults_in_force": {"status_override": 503}}


def test_the_control_api_tells_unknown_paths_from_wrong_methods(served: Served) -> None:
    asked = [("GET", "/nothing"), ("GET", ""), ("DELETE", "/faults"), ("GET", "/reset")]

    assert [served.control(method, path).status_code for method, path in asked] == [404, 404, 405, 405]
