"""The endpoints of the platform: where records go, what an event of each is, and how the reply names what it says.

An event's type holds what the API is documented to take, and no more: it is what events are decoded with.
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
"""What is kept with a contact."""


class Event(msgspec.Struct, gc=False):
    """An event as the API takes it; fields that no document names pass, unless the stream refuses them."""


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


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One kind of record of the API: paths under the base URL, the array's name, and what to check."""

    event: type[Event]
    bulk_path: str
    single_path: str | None
    array: str
    accepted_count: str
    """The reply's field that counts what was taken."""
    echo: str | None
    """The record's field that an entry of `errors` repeats."""
    phones: tuple[str, ...]
    texts: tuple[str, ...] = ()
    """Required strings that must not be empty (`Text`)."""
    numbers: tuple[str, ...] = ()
    """Required numbers that must be at least 0 (`Amount`)."""
    takes_list: bool = False
    max_record_bytes: int | None = None
    repeats_skipped: bool = False
    """The platform skips a record that it has already; posting it again is harmless."""


ENDPOINTS: dict[str, Endpoint] = {
    "send": Endpoint(
        SendEvent, "send/bulk", "send", "messages", "queued_count", "to", ("to",), ("body",), takes_list=True
    ),
    "contacts": Endpoint(
        ContactEvent,
        "contacts/bulk",
        "contacts",
        "contacts",
        "success_count",
        "phone_number",
        ("phone_number",),
        takes_list=True,
        max_record_bytes=MAX_CONTACT_BYTES,
        repeats_skipped=True,
    ),
    "revenue": Endpoint(
        RevenueEvent,
        "revenue/bulk",
        "revenue",
        "records",
        "success_count",
        None,
        (),
        ("message_id",),
        ("revenue",),
    ),
    "history.sends": Endpoint(
        HistorySendEvent,
        "history/sends",
        None,
        "records",
        "success_count",
        "id",
        ("to_number",),
        ("timestamp",),
        takes_list=True,
        repeats_skipped=True,
    ),
    "history.clicks": Endpoint(
        HistoryClickEvent,
        "history/clicks",
        None,
        "records",
        "success_count",
        None,
        ("phone_number",),
        ("message_id", "timestamp"),
        repeats_skipped=True,
    ),
    "history.revenue": Endpoint(
        HistoryRevenueEvent,
        "history/revenue",
        None,
        "records",
        "success_count",
        None,
        (),
        ("message_id",),
        ("revenue",),
    ),
}

IMPORT_PATH = "history/import"
"""The one history endpoint that the limits page names; the reference pages have a typed one for each kind."""
