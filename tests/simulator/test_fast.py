"""The fast simulator: it counts records without examining them."""

import pytest
from pydantic import ValidationError

from connector.simulator import Chance, Faults, SimulatorSettings
from tests.simulator.conftest import Serve

ARRAYS = {
    "/send/bulk": ("messages", "queued_count"),
    "/contacts/bulk": ("contacts", "success_count"),
    "/revenue/bulk": ("records", "success_count"),
    "/history/sends": ("records", "success_count"),
}


@pytest.mark.parametrize("path", ARRAYS)
def test_it_counts_the_records_whatever_is_in_them(serve: Serve, path: str) -> None:
    served = serve(fast=True)
    array, good = ARRAYS[path]

    reply = served.client.post(path, json={"list_number": "x", array: [{}, {array: [1, 2]}, 3, "],[", None]}).json()

    assert (reply[good], reply["error_count"], reply["errors"]) == (5, 0, [])
    totals = served.simulator.ledger()
    assert (totals.accepted, totals.distinct, totals.records_by_endpoint) == (5, None, {path: 5})


def test_it_still_wants_json_an_array_and_a_thousand_records_at_most(serve: Serve) -> None:
    served = serve(fast=True)
    headers = {"Content-Type": "application/json"}
    deep = b'{"messages": [' + b"[" * 5_000 + b"]" * 5_000 + b"]}"
    bodies = [b'{"messages": [{}', deep, b'{"messages": 7}', b"{}", b'{"messages": []}', b"[]"]

    codes = [served.client.post("/send/bulk", content=body, headers=headers).json()["code"] for body in bodies]
    too_many = served.client.post("/send/bulk", json={"messages": [1] * 1_001})

    assert codes == ["invalid_json", "invalid_json", *["missing_messages"] * 4]
    assert (too_many.status_code, too_many.json()["code"]) == (413, "too_many_messages")
    assert served.simulator.ledger().accepted == 0


def test_it_has_latency_and_the_faults_that_look_at_no_record(serve: Serve) -> None:
    served = serve(fast=True, faults=Faults(latency_ms=(1, 1), wrong_counts=Chance(next=1)))

    assert [served.send("a").json()["queued_count"] for _ in range(2)] == [2, 1]


def test_faults_that_look_at_records_are_refused(serve: Serve) -> None:
    served = serve(fast=True)

    answer = served.control("PUT", "/faults", json={"poison": [{"text": "x"}], "unnamed_error": 1})

    assert answer.status_code == 400
    assert "poison, unnamed_error" in answer.json()["error"]
    with pytest.raises(ValueError, match="record_codes"):
        served.simulator.set_faults(Faults(record_codes=()))
    with pytest.raises(ValidationError, match="billing_code"):
        SimulatorSettings(fast=True, faults=Faults(billing_code="suspended"))
