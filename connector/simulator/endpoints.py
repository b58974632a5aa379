"""The endpoints of the API and the kinds of record they take: names only, as the reference has them."""

from dataclasses import dataclass
from typing import Final

MAX_RECORDS: Final = 1_000
MAX_CONTACT_BYTES: Final = 4_000


@dataclass(frozen=True, slots=True)
class Operation:
    """A kind of record.

    `array` is the field that holds the records of a bulk request, `good` the count of those that went well, `echo`
    the field of a record that an entry of `errors` repeats (None: entries have nothing but the index).
    """

    name: str
    array: str
    good: str
    echo: str | None

    @property
    def history(self) -> bool:
        """Whether this is history: at most 100 errors are named, and repeats may be skipped."""
        return self.name.startswith("history_")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A path below the base path, with the operation it belongs to."""

    path: str
    operation: Operation
    bulk: bool


SEND: Final = Operation("send", array="messages", good="queued_count", echo="to")
CONTACTS: Final = Operation("contacts", array="contacts", good="success_count", echo="phone_number")
REVENUE: Final = Operation("revenue", array="records", good="success_count", echo=None)
HISTORY_IMPORT: Final = Operation("history_import", array="records", good="success_count", echo="id")
HISTORY_SENDS: Final = Operation("history_sends", array="records", good="success_count", echo="id")
HISTORY_CLICKS: Final = Operation("history_clicks", array="records", good="success_count", echo=None)
HISTORY_REVENUE: Final = Operation("history_revenue", array="records", good="success_count", echo=None)

LISTS_PATH: Final = "/lists"
ENDPOINTS: Final = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint("/send", SEND, bulk=False),
        Endpoint("/send/bulk", SEND, bulk=True),
        Endpoint("/contacts", CONTACTS, bulk=False),
        Endpoint("/contacts/bulk", CONTACTS, bulk=True),
        Endpoint("/revenue", REVENUE, bulk=False),
        Endpoint("/revenue/bulk", REVENUE, bulk=True),
        Endpoint("/history/import", HISTORY_IMPORT, bulk=True),
        Endpoint("/history/sends", HISTORY_SENDS, bulk=True),
        Endpoint("/history/clicks", HISTORY_CLICKS, bulk=True),
        Endpoint("/history/revenue", HISTORY_REVENUE, bulk=True),
    )
}
