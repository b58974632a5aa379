"""What the platform checks in a record: one method per kind, from the tables of the API's reference.

A method returns the code of the first error, or None. A field that is absent, null or empty is missing; a field of the
wrong type is invalid if the reference has such a code, otherwise missing.
"""

import re
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from connector.simulator.endpoints import (
    CONTACTS,
    HISTORY_CLICKS,
    HISTORY_IMPORT,
    HISTORY_REVENUE,
    HISTORY_SENDS,
    REVENUE,
    SEND,
)
from connector.simulator.identity import Record
from connector.simulator.settings import SendingList, Switches

TEXTS: Final[Mapping[str, str]] = {
    "contact_not_found": "Contact not found",
    "duplicate_message": "Identical message sent to this recipient recently",
    "invalid_attribution_type": "attribution_type must be sale, click or send",
    "invalid_list_number": "Invalid list phone number format",
    "invalid_phone": "Invalid recipient phone number format",
    "invalid_revenue": "revenue must be a number that is not negative",
    "invalid_timestamp": "Invalid timestamp format",
    "list_not_found": "List not found",
    "message_not_found": "Message not found",
    "not_sendable": "VOIP numbers not allowed",
    "payload_too_large": "Contact exceeds 4,000 bytes",
    "save_error": "Record could not be saved",
    "webhook_not_configured": "Webhook is not configured for this list",
}
VOIP_SUFFIX: Final = "9999999"
"""Numbers that end like this are VOIP, and get no texts."""

ATTRIBUTIONS: Final = frozenset({"sale", "click", "send"})

_is_e164 = re.compile(r"\+[1-9][0-9]{1,14}").fullmatch


def text_of(code: str, operation: str) -> str:
    """Return the text that goes with a code."""
    if code == "not_sendable" and operation == CONTACTS.name:
        return "Phone number failed carrier validation"
    return TEXTS.get(code) or f"{code.removeprefix('missing_')} is required"


class Rules:
    """The checks for one account: its lists, and how open questions are interpreted."""

    def __init__(self, switches: Switches, lists: tuple[SendingList, ...] | None) -> None:
        self._lists = None if lists is None else {entry.phone_number: entry for entry in lists}
        self._own_number = switches.list_number != "top_level"
        self.checks: Final[Mapping[str, Callable[[Record], str | None]]] = {
            SEND.name: self.send,
            CONTACTS.name: self.contact,
            REVENUE.name: self.revenue,
            HISTORY_IMPORT.name: self.history_import,
            HISTORY_SENDS.name: self.history_send,
            HISTORY_CLICKS.name: self.history_click,
            HISTORY_REVENUE.name: self.history_revenue,
        }

    def send(self, message: Record, default_list: object = None) -> str | None:
        """Check a message; `default_list` is the number given once for all messages of a request, if it counts."""
        to = message.get("to")
        if not to:
            return "missing_to"
        number = self.list_of(message, default_list)
        if not number:
            return "missing_list_number"
        body = message.get("body")
        if not body or not isinstance(body, str):
            return "missing_body"
        if not isinstance(to, str) or not _is_e164(to):
            return "invalid_phone"
        return self._list_problem(number) or ("not_sendable" if to.endswith(VOIP_SUFFIX) else None)

    def list_of(self, message: Record, default_list: object) -> object:
        """Return the number of the list that a message is sent from."""
        return (message.get("list_number") if self._own_number else None) or default_list

    def contact(self, contact: Record) -> str | None:
        """Check a contact, but for its size."""
        number = contact.get("phone_number")
        if not number:
            return "missing_phone_number"
        list_number = contact.get("list_number")
        if not list_number:
            return "missing_list_number"
        if not isinstance(number, str) or not _is_e164(number):
            return "invalid_phone"
        problem = self._list_problem(list_number)
        if problem is not None and problem != "webhook_not_configured":  # contacts do not send
            return problem
        return "not_sendable" if number.endswith(VOIP_SUFFIX) else None

    def revenue(self, record: Record) -> str | None:
        """Check a conversion."""
        missing = _first_missing(record, "message_id", "revenue", "attribution_type")
        if missing is not None:
            return missing
        if not _is_amount(record["revenue"]):
            return "invalid_revenue"
        attribution = record["attribution_type"]
        if not isinstance(attribution, str) or attribution not in ATTRIBUTIONS:
            return "invalid_attribution_type"
        return _message_problem(record["message_id"])

    def history_send(self, record: Record) -> str | None:
        """Check a message that another platform sent."""
        problem = _first_missing(record, "id", "to_number", "timestamp") or _when_and_whom(record, "to_number")
        if problem is not None:
            return problem
        list_number = record.get("list_number")
        return "list_not_found" if list_number and self._find(list_number) is None else None

    def history_click(self, record: Record) -> str | None:
        """Check a click that another platform counted."""
        missing = _first_missing(record, "message_id", "offer_id", "phone_number", "timestamp")
        return missing or _when_and_whom(record, "phone_number") or _message_problem(record["message_id"])

    def history_revenue(self, record: Record) -> str | None:
        """Check a conversion that another platform counted; its attribution may be any word."""
        missing = _first_missing(record, "message_id", "offer_id", "revenue")
        if missing is not None:
            return missing
        if not _is_amount(record["revenue"]):
            return "invalid_revenue"
        if record.get("timestamp") is not None and not _is_time(record["timestamp"]):
            return "invalid_timestamp"
        return _message_problem(record["message_id"])

    def history_import(self, record: Record) -> str | None:
        """Check a record of the endpoint without a reference page, as the typed record that it resembles."""
        return self.checks[history_kind(record)](record)

    def _find(self, number: object) -> SendingList | None:
        """Return the list with that number, if the account has it and it is not deleted."""
        if not isinstance(number, str) or not _is_e164(number):
            return None
        if self._lists is None:
            return _ANY_LIST
        found = self._lists.get(number)
        return None if found is None or found.status == "deleted" else found

    def _list_problem(self, number: object) -> str | None:
        found = self._find(number)
        if found is not None:
            return None if found.webhook_verified else "webhook_not_configured"
        return "list_not_found" if isinstance(number, str) and _is_e164(number) else "invalid_list_number"


_ANY_LIST: Final = SendingList(phone_number="+18005551234")


def history_kind(record: Record) -> str:
    """Return the operation of the typed endpoint that a history record resembles."""
    if "to_number" in record:
        return HISTORY_SENDS.name
    if "revenue" in record:
        return HISTORY_REVENUE.name
    return HISTORY_CLICKS.name if "offer_id" in record else HISTORY_SENDS.name


def _first_missing(record: Record, *names: str) -> str | None:
    return next((f"missing_{name}" for name in names if record.get(name) in (None, "")), None)


def _when_and_whom(record: Record, number_field: str) -> str | None:
    number = record[number_field]
    if not isinstance(number, str) or not _is_e164(number):
        return "invalid_phone"
    return None if _is_time(record["timestamp"]) else "invalid_timestamp"


def _message_problem(message_id: object) -> str | None:
    """Return the problem of the id of a message; any text may be one."""
    return None if isinstance(message_id, str) else "message_not_found"


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


def _is_time(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True
