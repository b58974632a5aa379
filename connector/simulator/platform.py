"""The platform without transport faults: what it checks, accepts and answers. No sockets, clock or randomness.

A request is checked in this order: key (401), account (403), size of the body (413), content type and JSON (400), the
array's presence (400) and length (413), then record by record. Faults that are conditions of the account or of records
(suspended, no billing, poison, codes for records with a text) apply here; those of the transport do not.

Where the reference is silent: malformed JSON is 400 `invalid_json`, a missing content type 400 without a code, an
unknown path 404 `not_found`, a wrong method 405 `method_not_allowed`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec

from connector.core.mapped import UNDECODABLE
from connector.simulator.account import Account
from connector.simulator.answers import Answer, Tally, bulk_document, lists_document, missing, refusal, single_document
from connector.simulator.endpoints import (
    CONTACTS,
    ENDPOINTS,
    HISTORY_CLICKS,
    HISTORY_IMPORT,
    HISTORY_SENDS,
    LISTS_PATH,
    MAX_CONTACT_BYTES,
    MAX_RECORDS,
    SEND,
    Endpoint,
    Operation,
)
from connector.simulator.faults import HEALTHY, Faults
from connector.simulator.http import Request
from connector.simulator.identity import IDENTITIES, Record, extractor, searched_text, whole
from connector.simulator.ledger import Ledger
from connector.simulator.rules import Rules, history_kind, text_of
from connector.simulator.settings import SimulatorSettings

_NOTHING: Final[Record] = {}


_RAW: Final = {
    array: msgspec.json.Decoder(msgspec.defstruct("Raw", [(array, list[msgspec.Raw])]))
    for array in {endpoint.operation.array for endpoint in ENDPOINTS.values()}
}
"""Finds the unparsed records of a bulk request, by the field that contains them."""


class Platform:
    """The rules by which a request changes the account, and the answers."""

    def __init__(self, settings: SimulatorSettings, ledger: Ledger) -> None:
        self._switches = settings.switches
        self._keys = frozenset(settings.api_keys)
        self._fast = settings.fast
        self._ledger = ledger
        self._account = Account(settings.seed, settings.lists)
        self._identify = {
            operation: extractor(definition)
            for operation, definition in {**IDENTITIES, SEND.name: settings.identify}.items()
        }
        self._rules = Rules(settings.switches, settings.lists)
        self._times_failed: dict[tuple[str, int], int] = {}

    def answer(self, request: Request, path: str, faults: Faults, *, now: float, hide_one: bool = False) -> Answer:
        """Process a request to `path` (without the base path) and return the platform's answer.

        `now` is a monotonic time in seconds; `hide_one` rejects the first good record of a bulk request without naming
        it.
        """
        refused = self._refuse_request(request, path, faults)
        if refused is not None:
            return refused
        if path == LISTS_PATH:
            return Answer(200, lists_document(self._account.lists(), request.query))
        endpoint = ENDPOINTS[path]
        if self._fast and endpoint.bulk:
            return self._count_bulk(request, endpoint)
        try:
            document = msgspec.json.decode(request.body)
        except UNDECODABLE:
            return refusal(400, "invalid_json", "Request body is not valid JSON")
        if endpoint.bulk:
            return self._take_bulk(request, endpoint, document, faults, now=now, hide_one=hide_one)
        return self._take_single(request, endpoint, _as_record(document), faults, now=now)

    def take_part(self, request: Request, path: str | None, *, now: float) -> None:
        """Accept the first records of a bulk request that is answered with a failure, if the switch says so.

        A request that would be rejected as a whole changes nothing.
        """
        share, endpoint = self._switches.partial_queueing, ENDPOINTS.get(path or "")
        if share == 0 or endpoint is None or not endpoint.bulk:
            return
        if self._refuse_request(request, endpoint.path, HEALTHY) is not None:
            return
        try:
            document = msgspec.json.decode(request.body)
        except UNDECODABLE:
            return
        records = _as_record(document).get(endpoint.operation.array)
        if isinstance(records, list) and len(records) <= MAX_RECORDS:
            part = {**document, endpoint.operation.array: records[: int(len(records) * share)]}
            self._take_bulk(request, endpoint, part, HEALTHY, now=now, hide_one=False)

    def _refuse_request(self, request: Request, path: str, faults: Faults) -> Answer | None:
        """Return the answer to a request that fails before its body is examined."""
        if path != LISTS_PATH and path not in ENDPOINTS:
            return refusal(404, "not_found", "Not found")
        if request.method != ("GET" if path == LISTS_PATH else "POST"):
            return refusal(405, "method_not_allowed", "Method not allowed")
        detailed = self._switches.key_codes == "detailed"
        if not request.api_key:
            return refusal(401, "missing_api_key" if detailed else "unauthorized", "API key required")
        if (self._keys and request.api_key not in self._keys) or request.api_key in faults.revoked_keys:
            return refusal(401, "invalid_api_key" if detailed else "unauthorized", "Invalid API key")
        if faults.account_suspended:
            return refusal(403, None, "Account is suspended")
        limit = self._switches.max_body_bytes
        if request.body_bytes > min(limit, faults.body_limit_bytes or limit):
            return refusal(413, None, "Payload Too Large")
        if path == LISTS_PATH:
            return None
        media_type = (request.content_type or "").partition(";")[0].strip().lower()
        return None if media_type == "application/json" else refusal(400, None, "Content-Type must be application/json")

    def _take_bulk(
        self, request: Request, endpoint: Endpoint, document: object, faults: Faults, *, now: float, hide_one: bool
    ) -> Answer:
        operation = endpoint.operation
        envelope = _as_record(document)
        raw_records = envelope.get(operation.array)
        if not isinstance(raw_records, list):
            return missing(operation.array)
        refused = self._refuse_length(operation.array, len(raw_records))
        if refused is not None:
            return refused
        records = [_as_record(record) for record in raw_records]
        oversized = _oversized_contacts(request.body) if operation is CONTACTS else frozenset()
        refused = self._refuse_batch(operation, records, oversized, faults)
        if refused is not None:
            return refused

        takes_default = operation is SEND and self._switches.list_number != "message"
        default_list = envelope.get("list_number") if takes_default else None
        tally, errors = Tally(), list[dict[str, object]]()
        for index, record in enumerate(records):
            code: str | None = "payload_too_large"
            if index not in oversized:
                code = self._judge(operation, record, default_list, faults)
            if code is None and hide_one and not tally.unnamed:
                tally.unnamed = 1
                self._ledger.refuse(operation.name, "save_error")
                continue
            if code is None:
                code = self._accept(operation, record, default_list, tally, now=now)
            if code is not None:
                self._ledger.refuse(operation.name, code)
                tally.invalid_phones += code == "invalid_phone"
                errors.append(self._entry(operation, index, record, code, faults))
        self._ledger.accept(operation.name, tally.accepted)
        self._ledger.handled(endpoint.path, len(records))
        return Answer(
            self._bulk_status(tally, len(records)),
            bulk_document(operation, tally, errors, self._switches, errors_cap=faults.errors_cap),
            records=len(records),
            first_echo=records[0].get(operation.echo or "") if records else None,
        )

    def _count_bulk(self, request: Request, endpoint: Endpoint) -> Answer:
        """Accept every record of the array without examining it, as a fast simulator does.

        The whole body is parsed as JSON, so that a client's broken body is not counted.
        """
        operation = endpoint.operation
        try:
            count = len(_raw_array(operation.array, request.body))
        except msgspec.ValidationError:
            return missing(operation.array)
        except UNDECODABLE:
            return refusal(400, "invalid_json", "Request body is not valid JSON")
        refused = self._refuse_length(operation.array, count)
        if refused is not None:
            return refused
        self._ledger.accept_unseen(operation.name, endpoint.path, count)
        document = bulk_document(operation, Tally(good=count), [], self._switches, errors_cap=None)
        return Answer(self._switches.success_status, document, records=count)

    def _refuse_length(self, array: str, length: int) -> Answer | None:
        if length == 0:
            return missing(array)
        if length > MAX_RECORDS:
            return refusal(413, f"too_many_{array}", f"At most {MAX_RECORDS} {array} in a request")
        return None

    def _take_single(
        self, request: Request, endpoint: Endpoint, record: Record, faults: Faults, *, now: float
    ) -> Answer:
        operation = endpoint.operation
        oversized = frozenset({0}) if operation is CONTACTS and request.body_bytes > MAX_CONTACT_BYTES else frozenset()
        refused = self._refuse_batch(operation, [record], oversized, faults, alone=True)
        if refused is not None:
            return refused
        tally = Tally()
        code = self._judge(operation, record, None, faults) or self._accept(operation, record, None, tally, now=now)
        self._ledger.accept(operation.name, tally.accepted)
        self._ledger.handled(endpoint.path, 1)
        if code is not None:
            self._ledger.refuse(operation.name, code)
            return refusal(400, code, _error_text(operation, code, faults))
        document = single_document(operation, record, tally, self._account.issue_message_id())
        return Answer(self._switches.success_status, document)

    def _refuse_batch(
        self,
        operation: Operation,
        records: Sequence[Record],
        oversized: frozenset[int],
        faults: Faults,
        *,
        alone: bool = False,
    ) -> Answer | None:
        """Return the answer to a request that fails as a whole because of one of its records."""
        asks_validation = operation is CONTACTS and any(record.get("use_validation") is True for record in records)
        if asks_validation and faults.billing_code is not None:
            return refusal(402, faults.billing_code, "Validation needs valid billing")
        if oversized and (alone or self._switches.oversized_contact == "request"):
            return refusal(413, "payload_too_large", text_of("payload_too_large", operation.name))
        for poison in faults.poison:
            if any(poison.text in searched_text(operation.name, record) for record in records):
                answer = refusal(poison.status, "internal_error", "Internal server error")
                return replace(answer, form=poison.body)
        return None

    def _judge(self, operation: Operation, record: Record, default_list: object, faults: Faults) -> str | None:
        """Return the code of a record that fails, by the platform's rules or by faults."""
        if operation is SEND:
            code = self._rules.send(record, default_list)
        else:
            code = self._rules.checks[operation.name](record)
        if code is not None or not faults.record_codes:
            return code
        text = searched_text(operation.name, record)
        for rule in faults.record_codes:
            if rule.text not in text:
                continue
            if rule.times is None:
                return rule.code
            # Only the body of a message was searched; and it passed the checks, so its recipient is a text.
            recipient = record["to"] if operation is SEND else None
            key = (rule.text, hash((operation.name, recipient, text)))
            failed = self._times_failed.get(key, 0)
            if failed < rule.times:
                self._times_failed[key] = failed + 1
                return rule.code
        return None

    def _accept(
        self, operation: Operation, record: Record, default_list: object, tally: Tally, *, now: float
    ) -> str | None:
        """Accept a record that passed the checks, unless it is a repeat; return a code if the repeat fails for it."""
        kind = history_kind(record) if operation is HISTORY_IMPORT else operation.name
        if kind == SEND.name:
            if self._is_repeated_message(record, default_list, now=now):
                if self._switches.duplicate_reply == "error":
                    return "duplicate_message"
                self._ledger.skip(operation.name)
                tally.good += 1
                return None
        elif kind == CONTACTS.name:
            self._accept_contact(record, tally)
        elif kind in (HISTORY_SENDS.name, HISTORY_CLICKS.name):
            is_send = kind == HISTORY_SENDS.name
            add = self._account.add_history_send if is_send else self._account.add_history_click
            if not add(str(record["id" if is_send else "message_id"])):
                self._ledger.skip(operation.name)
                tally.skipped += 1
                return None
        else:
            tally.revenue += float(record["revenue"])  # type: ignore[arg-type]  # the checks saw a number
        tally.good += 1
        tally.accepted.append(self._identify.get(operation.name, whole)(record))
        return None

    def _is_repeated_message(self, message: Record, default_list: object, *, now: float) -> bool:
        list_number = str(self._rules.list_of(message, default_list))
        self._account.note_list(list_number)
        window_secs = self._switches.duplicate_window_secs
        if window_secs is None:
            return False
        return self._account.is_repeated_message(
            str(message["to"]), list_number, str(message["body"]), window_secs=window_secs, now=now
        )

    def _accept_contact(self, contact: Record, tally: Tally) -> None:
        list_number = str(contact["list_number"])
        self._account.note_list(list_number)
        is_new_contact, is_new_membership = self._account.add_contact(str(contact["phone_number"]), list_number)
        tally.new_contacts += is_new_contact
        tally.new_memberships += is_new_membership
        enrols = is_new_membership or contact.get("skip_journey_if_exists") is False
        tally.journeys += contact.get("use_journeys") is True and enrols

    def _entry(self, operation: Operation, index: int, record: Record, code: str, faults: Faults) -> dict[str, object]:
        """Return the entry of `errors` for a record that failed."""
        entry: dict[str, object] = {"index": index + self._switches.index_base}
        if operation.echo is not None:
            entry[operation.echo] = record.get(operation.echo)
        return {**entry, "code": code, "error": _error_text(operation, code, faults)}

    def _bulk_status(self, tally: Tally, records: int) -> int:
        all_failed = records > 0 and tally.good + tally.skipped == 0
        return (self._switches.all_failed_status if all_failed else None) or self._switches.success_status


def _error_text(operation: Operation, code: str, faults: Faults) -> str:
    told = next((rule.error for rule in faults.record_codes if rule.code == code), None)
    return told or text_of(code, operation.name)


def _as_record(document: object) -> Record:
    """Return the object; anything else becomes a record without fields."""
    return document if isinstance(document, dict) else _NOTHING


def _oversized_contacts(body: bytes) -> frozenset[int]:
    """Return the indices of contacts above the size limit, by their bytes as sent."""
    if len(body) <= MAX_CONTACT_BYTES:
        return frozenset()
    contacts = _raw_array(CONTACTS.array, body)
    return frozenset(index for index, raw in enumerate(contacts) if memoryview(raw).nbytes > MAX_CONTACT_BYTES)


def _raw_array(array: str, body: bytes) -> list[msgspec.Raw]:
    """Return the records of the array, unparsed.

    Raises `msgspec.ValidationError` without such an array, another of `UNDECODABLE` when the body is not JSON.
    """
    found: list[msgspec.Raw] = getattr(_RAW[array].decode(body), array)
    return found
