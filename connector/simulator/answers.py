"""The platform's replies and errors, correct or distorted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, assert_never
from urllib.parse import parse_qs

from connector.simulator.account import record_id
from connector.simulator.endpoints import (
    CONTACTS,
    HISTORY_CLICKS,
    HISTORY_IMPORT,
    HISTORY_REVENUE,
    HISTORY_SENDS,
    REVENUE,
    SEND,
    Operation,
)
from connector.simulator.faults import BodyForm
from connector.simulator.identity import Record
from connector.simulator.settings import SendingList, Switches

Lie = Literal["wrong_counts", "repeated_index", "out_of_range_index", "wrong_to"]
"""Replies that contradict what happened."""

_OTHER_ECHO: Final = {"to": "+15005550000", "phone_number": "+15005550000", "id": "of-another-record"}
_CODE: Final = {"code": "internal_error", "error": "Internal server error"}
_PER_PAGE: Final = 50
_PER_PAGE_MAX: Final = 100
_DIGITS_MAX: Final = 9


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a document; for a bulk request that was processed also the number of records.

    `first_echo` is what an entry of `errors` for the first of them would repeat.
    """

    status: int
    document: dict[str, Any] = field(repr=False)
    records: int | None = None
    first_echo: object = field(default=None, repr=False)
    form: BodyForm = "json"


@dataclass(slots=True)
class Tally:
    """What became of the records of one request, while they are processed."""

    good: int = 0
    skipped: int = 0
    unnamed: int = 0
    revenue: float = 0.0
    new_contacts: int = 0
    new_memberships: int = 0
    journeys: int = 0
    invalid_phones: int = 0
    accepted: list[str | None] = field(default_factory=list, repr=False)
    """The identities of accepted records, for the ledger."""


def refusal(status: int, code: str | None, text: str) -> Answer:
    """Return the answer to a request, or a single record, that failed."""
    return Answer(status, {"error": text} if code is None else {"error": text, "code": code})


def missing(array: str) -> Answer:
    """Return the answer to a bulk request without its array."""
    return refusal(400, f"missing_{array}", f"{array} array is required")


def bulk_document(
    operation: Operation, tally: Tally, errors: list[dict[str, object]], switches: Switches, *, errors_cap: int | None
) -> dict[str, Any]:
    """Return the reply to a bulk request; `errors_cap` is a fault's, in addition to those of the switches."""
    caps = (errors_cap, switches.history_errors_cap if operation.history else switches.errors_cap)
    cap = min((cap for cap in caps if cap is not None), default=None)
    good = tally.good + (tally.skipped if switches.skipped_counts_as_success else 0)
    document: dict[str, Any] = {operation.good: good, "error_count": len(errors) + tally.unnamed}
    if operation is CONTACTS:
        document["contacts_created"] = tally.new_contacts
        document["list_contacts_created"] = tally.new_memberships
        document["journeys_enrolled"] = tally.journeys
    if operation in (HISTORY_IMPORT, HISTORY_SENDS, HISTORY_CLICKS):
        document["duplicates_skipped"] = tally.skipped
    if operation in (HISTORY_IMPORT, HISTORY_SENDS):
        document["invalid_phones"] = tally.invalid_phones
    if operation in (REVENUE, HISTORY_REVENUE):
        document["total_revenue"] = round(tally.revenue, 6)
    document["errors"] = errors[:cap]
    return document


def lied(lie: Lie, operation: Operation, answer: Answer, *, index_base: int) -> Answer:
    """Return the distorted answer to a bulk request.

    Except for `wrong_counts`, the counts still add up to the records of the request (if it has two or more), so that
    only the entries of `errors` show the distortion.
    """
    records = answer.records or 0
    document: dict[str, Any] = dict(answer.document)
    echo = {} if operation.echo is None else {operation.echo: answer.first_echo}
    entry = {"index": index_base, **echo, **_CODE}
    match lie:
        case "wrong_counts":
            document[operation.good] += 1
        case "repeated_index":
            document |= _failed(operation, records, [entry, entry])
        case "out_of_range_index":
            document |= _failed(operation, records, [{**entry, "index": index_base + records}])
        case "wrong_to":
            other = {} if operation.echo is None else {operation.echo: _OTHER_ECHO[operation.echo]}
            document |= _failed(operation, records, [{**entry, **other}])
        case _:
            assert_never(lie)
    return replace(answer, document=document)


def _failed(operation: Operation, records: int, errors: list[dict[str, object]]) -> dict[str, object]:
    return {operation.good: max(0, records - len(errors)), "error_count": len(errors), "errors": errors}


def single_document(operation: Operation, record: Record, tally: Tally, new_id: str) -> dict[str, Any]:
    """Return the reply to a single accepted record; `new_id` is that of a message or conversion."""
    if operation is SEND:
        return {"success": True, "message_id": new_id, "status": "queued"}
    if operation is CONTACTS:
        number, list_number = str(record["phone_number"]), str(record["list_number"])
        document = {
            "success": True,
            "contact_id": record_id(number),
            "list_contact_id": record_id(number, list_number),
            "is_new_contact": tally.new_contacts == 1,
            "is_new_list_contact": tally.new_memberships == 1,
            "journeys_enrolled": tally.journeys,
        }
        return {**document, "validation": {"is_valid": True}} if record.get("use_validation") is True else document
    return {
        "success": True,
        "revenue_id": record_id(new_id),
        "message_id": record["message_id"],
        "revenue": record["revenue"],
    }


def lists_document(lists: Sequence[SendingList], query: str) -> dict[str, Any]:
    """Return the page of lists that a query asks for; deleted ones only if it asks for them."""
    asked = parse_qs(query)
    status = asked.get("status", [None])[0]
    shown = [
        _list_document(number, entry)
        for number, entry in enumerate(lists, start=1)
        if (entry.status == status if status else entry.status != "deleted")
    ]
    page = _positive(asked, "page", default=1)
    per_page = min(_positive(asked, "per_page", default=_PER_PAGE), _PER_PAGE_MAX)
    pagination = {
        "page": page,
        "per_page": per_page,
        "total": len(shown),
        "total_pages": -(-len(shown) // per_page),
    }
    return {"lists": shown[(page - 1) * per_page :][:per_page], "pagination": pagination}


def _positive(asked: Mapping[str, Sequence[str]], name: str, *, default: int) -> int:
    text = asked.get(name, [""])[0]
    return max(int(text), 1) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else default


def _list_document(number: int, entry: SendingList) -> dict[str, object]:
    return {
        "id": number,
        "phone_number": entry.phone_number,
        "brand_name": "Simulator",
        "list_name": f"List {number}",
        "list_type": "toll_free",
        "status": entry.status,
        "contact_count": 0,
        "created_at": "2024-01-01T00:00:00Z",
    }
