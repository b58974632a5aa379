"""The ledger: what was accepted how often, by record."""

import sys

from connector.simulator.ledger import EXAMPLES, Entry, Ledger
from tests.simulator.conftest import Serve, Served


def test_a_record_is_counted_by_the_text_of_its_message(served: Served) -> None:
    served.send("a", "b", "a")
    served.client.post("/send", json={"to": "+15550000002", "list_number": "+18005551234", "body": "b"})

    totals = served.simulator.ledger()
    assert [served.simulator.accepted(body) for body in ("a", "b", "c")] == [2, 2, 0]
    assert (totals.accepted, totals.distinct, totals.accepted_twice) == (4, 2, 2)
    assert totals.accepted_twice_examples == ("a", "b")


def test_an_identity_may_be_made_of_several_paths_or_of_the_whole_record(serve: Serve) -> None:
    served = serve(identify="to+contact_data.custom_fields.event_id")
    whole = serve(identify="*")

    served.send("text", contact_data={"custom_fields": {"event_id": 7}})
    whole.send("text")

    assert served.simulator.accepted("+15550000001|7") == 1
    assert whole.simulator.accepted('{"body":"text","list_number":"+18005551234","to":"+15550000001"}') == 1


def test_a_record_that_lacks_its_identity_is_accepted_and_counted_apart(serve: Serve) -> None:
    served = serve(identify="metadata.id")

    served.send("a", "b", metadata={"other": 1})
    served.send("c", metadata="text")

    totals = served.simulator.ledger()
    assert (totals.accepted, totals.distinct, totals.unidentified) == (3, 0, 3)


def test_kinds_of_records_do_not_mix(served: Served) -> None:
    contact = {"phone_number": "+15550000001", "list_number": "+18005551234"}
    served.send("+18005551234|+15550000001")
    served.client.post("/contacts/bulk", json={"contacts": [contact, {}]})

    identity = "+18005551234|+15550000001"
    simulator = served.simulator
    assert simulator.accepted(identity) == 2
    assert [simulator.accepted(identity, kind) for kind in ("send", "contacts", "revenue")] == [1, 1, 0]
    assert simulator.ledger().accepted_twice == 0
    assert {name: (page.accepted, page.refused) for name, page in simulator.ledger().by_operation.items()} == {
        "send": (1, 0),
        "contacts": (1, 1),
    }


def test_examples_of_repeats_are_few() -> None:
    ledger = Ledger()
    for number in range(3 * EXAMPLES):
        for _ in range(3):
            ledger.accept("send", [str(number)])

    assert ledger.totals().accepted_twice == 3 * EXAMPLES
    assert ledger.totals().accepted_twice_examples == tuple(map(str, range(EXAMPLES)))


def test_entries_may_be_read_while_the_ledger_grows() -> None:
    ledger = Ledger()
    ledger.accept("send", ["a"])
    entries = ledger.entries()
    first = next(entries)
    ledger.accept("send", ["b"])
    ledger.accept("contacts", ["c"])

    assert [first, *entries] == [Entry("send", "a", 1)]


def test_entries_come_in_the_order_of_their_first_acceptance(served: Served) -> None:
    """By which tests of the order of keys judge."""
    served.send("c", "a")
    served.send("b", "c")

    assert [entry.identity for entry in served.simulator.entries("send")] == ["c", "a", "b"]


def test_counters_tell_requests_endpoints_statuses_codes_and_bytes(serve: Serve) -> None:
    served = serve(api_keys=["trk_other"])
    served.send("a")
    totals = served.simulator.ledger()

    assert (totals.requests, totals.requests_by_endpoint) == (1, {"/send/bulk": 1})
    assert totals.replies_by_status == {401: 1}
    assert totals.records_by_endpoint == {}
    assert (totals.in_flight, totals.in_flight_max, totals.connections) == (0, 1, 1)
    assert totals.request_bytes == len('{"messages":[{"to":"+15550000001","list_number":"+18005551234","body":"a"}]}')
    assert totals.reply_bytes == len('{"error":"Invalid API key","code":"invalid_api_key"}')


def test_the_ledger_costs_some_200_bytes_for_a_record() -> None:
    ledger = Ledger()
    identities = [f"Reference 2024-{number:08d}" for number in range(50_000)]
    ledger.accept("send", identities)

    counts = ledger._page("send").counts
    size = sys.getsizeof(counts) + sum(map(sys.getsizeof, counts))
    assert size / len(identities) < 200
