"""The platform's endpoints: paths, the type of an event, and the field names of replies.

An event's type has the documented fields and no others; events are decoded with it.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

MAX_CONTACT_BYTES = 4_000
"""One contact object; the API answers 413 `payload_too_large` above it."""

Text = Annotated[str, Meta(min_length=1)]
"""A required string that must not be empty."""

Amount = Annotated[float, Meta(ge=0)]

CustomFields = dict[str, str | int | float | bool]
"""Custom fields that are stored with a contact."""


class Event(msgspec.Struct, gc=False):
    """An event as the API accepts it; undocumented fields pass, unless the stream rejects them."""


class ContactData(Event):
    """Values for the macros in a text."""

    first_name: str | UnsetType = UNSET
    last_name: str | UnsetType = UNSET
    custom_fields: dict[str, Any] | UnsetType = UNSET
    timezone: str | UnsetType = UNSET


class SendEvent(Event):
    """A text to one recipient: `POST /v2/send` and `/v2/send/bulk`."""

    to: str
    body: Text
    list_number: str | UnsetType = UNSET
    wrap_links: bool | UnsetType = UNSET
    contact_data: ContactData | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET


class ContactEvent(Event):
    """A contact to create or update on one list: `POST /v2/contacts` and `/v2/contacts/bulk`."""

    phone_number: str
    list_number: str | UnsetType = UNSET
    use_journeys: bool | UnsetType = UNSET
    skip_journey_if_exists: bool | UnsetType = UNSET
    signup_date: str | UnsetType = UNSET
    ip_address: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    custom_fields: CustomFields | UnsetType = UNSET
    use_validation: bool | UnsetType = UNSET


class RevenueEvent(Event):
    """Revenue of one message: `POST /v2/revenue` and `/v2/revenue/bulk`."""

    message_id: Text
    revenue: Amount
    attribution_type: Literal["sale", "click", "send"]
    offer_id: str | int | UnsetType = UNSET
    timestamp: str | UnsetType = UNSET


class HistorySendEvent(Event):
    """A past send: `POST /v2/history/sends`."""

    id: str | int
    to_number: str
    timestamp: Text
    list_number: str | UnsetType = UNSET
    list_id: int | UnsetType = UNSET
    message: str | UnsetType = UNSET
    send_type: str | UnsetType = UNSET
    delivered: bool | UnsetType = UNSET
    length: int | UnsetType = UNSET


class HistoryClickEvent(Event):
    """A past click: `POST /v2/history/clicks`."""

    message_id: Text
    offer_id: str | int
    phone_number: str
    timestamp: Text
    send_timestamp: str | UnsetType = UNSET


class HistoryRevenueEvent(Event):
    """Past revenue: `POST /v2/history/revenue`."""

    message_id: Text
    offer_id: str | int
    revenue: Amount
    payout: float | UnsetType = UNSET
    attribution_type: str | UnsetType = UNSET
    timestamp: str | UnsetType = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One kind of record of the API: paths under the base URL, the array's name, and what to check."""

    event: type[Event]
    bulk_path: str
    single_path: str | None = None
    array: str = "records"
    accepted_count: str = "success_count"
    """The reply's field with the number of accepted records."""
    echo: str | None = None
    """The record's field that an entry of `errors` repeats."""
    phones: tuple[str, ...] = ()
    takes_list: bool = False
    max_record_bytes: int | None = None
    repeats_skipped: bool = False
    """The platform skips a record that it already has; posting it again is harmless."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Names of required strings that must not be empty."""
        return self._of_type(Text)

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of required numbers that must be at least 0."""
        return self._of_type(Amount)

    def _of_type(self, kind: Any) -> tuple[str, ...]:
        return tuple(found.encode_name for found in msgspec.structs.fields(self.event) if found.type == kind)


ENDPOINTS: dict[str, Endpoint] = {
    "send": Endpoint(
        event=SendEvent,
        bulk_path="send/bulk",
        single_path="send",
        array="messages",
        accepted_count="queued_count",
        echo="to",
        phones=("to",),
        takes_list=True,
    ),
    "contacts": Endpoint(
        event=ContactEvent,
        bulk_path="contacts/bulk",
        single_path="contacts",
        array="contacts",
        echo="phone_number",
        phones=("phone_number",),
        takes_list=True,
        max_record_bytes=MAX_CONTACT_BYTES,
        repeats_skipped=True,
    ),
    "revenue": Endpoint(event=RevenueEvent, bulk_path="revenue/bulk", single_path="revenue"),
    "history.sends": Endpoint(
        event=HistorySendEvent,
        bulk_path="history/sends",
        echo="id",
        phones=("to_number",),
        takes_list=True,
        repeats_skipped=True,
    ),
    "history.clicks": Endpoint(
        event=HistoryClickEvent, bulk_path="history/clicks", phones=("phone_number",), repeats_skipped=True
    ),
    "history.revenue": Endpoint(event=HistoryRevenueEvent, bulk_path="history/revenue"),
}

IMPORT_PATH = "history/import"
"""The one history endpoint on the limits page; the reference pages have a typed one for each kind."""
