"""Generated send events from a seed: most good, a few bad in ten different ways, each with its expected result.

Every event contains a reference of its own, as its key and in its text. The simulator's ledger identifies a send by its
text, so it distinguishes all events, and a text that was accepted twice shows its event.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import orjson

QUEUED: Final = "queued"
SKIPPED: Final = "skipped"
LIST_NUMBER: Final = "+18005551234"
"""The list of good events: the stream's default, which they do not name."""
UNKNOWN_LIST: Final = "+18005550000"
"""A list that the account must not have."""
NOT_SENDABLE: Final = "+15559999999"
"""A VOIP number, by the simulator's convention: seven nines at the end."""

_FIRST_NAMES: Final = ("Ada", "Grace", "Edsger", "Barbara", "Tony", "Frances", "Zoë", "Ken")


class Event(NamedTuple):
    """A record to produce, and its expected result: `queued`, `skipped`, or the reason of its dead letter."""

    key: bytes
    value: bytes | None
    expected: str


def _json(**fields: object) -> bytes:
    return orjson.dumps(fields)


BAD: Final[Mapping[str, Callable[[str, str], bytes]]] = {
    # found by the connector, before posting
    "not_json": lambda to, body: _json(to=to, body=body)[:-1],  # the closing brace is missing
    "not_an_object": lambda to, body: orjson.dumps([to, body]),
    "not_utf8": lambda to, body: _json(to=to, body=body).replace(b"Your", b"Yo\xfcr"),  # a letter in Latin-1
    "wrong_type": lambda to, body: _json(to=to, body={"text": body}),
    "missing_to": lambda _to, body: _json(body=body),
    "missing_body": lambda to, _body: _json(to=to),
    "invalid_phone": lambda to, body: _json(to=to.removeprefix("+"), body=body),
    "invalid_list_number": lambda to, body: _json(to=to, body=body, list_number=LIST_NUMBER.removeprefix("+")),
    # found by the platform, which lists them in its reply
    "not_sendable": lambda _to, body: _json(to=NOT_SENDABLE, body=body),
    "list_not_found": lambda to, body: _json(to=to, body=body, list_number=UNKNOWN_LIST),
}
"""Functions that make bad events from a number and a text, by the reason of their dead letter."""


@dataclass(frozen=True, slots=True)
class Events:
    """Events 0 to `count` - 1 of a seed; each iteration yields the same ones, byte for byte.

    `bad_share` of them are bad, equally often in each of the ten ways if possible; `tombstones` of them have a null
    value. Plain events have about 105 bytes; one in ten also contains `contact_data`.
    """

    count: int
    seed: int = 0
    bad_share: float = 0.01
    tombstones: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self._bad_count + self.tombstones <= self.count:
            raise ValueError(f"of {self.count} events not {self._bad_count} can be bad and {self.tombstones} null")

    def __iter__(self) -> Iterator[Event]:
        chance = random.Random(self.seed)  # noqa: S311 - reproducible, not secret
        special = self._special(chance)
        draw = chance.random
        for index in range(self.count):
            reference = f"{self.seed:x}-{index:08d}"
            to = f"+1555{int(draw() * 9_000_000):07d}"  # no real number, and none of the VOIP ones
            body = f"Your order {reference} has been shipped and will be with you tomorrow."
            expected = special.get(index, QUEUED)
            value: bytes | None
            if expected in BAD:
                value = BAD[expected](to, body)
            elif expected == SKIPPED:
                value = None
            elif draw() < 0.1:
                name = chance.choice(_FIRST_NAMES)
                value = _json(to=to, body=body, contact_data={"first_name": name, "custom_fields": {"nr": index}})
            else:
                value = _json(to=to, body=body)
            yield Event(reference.encode(), value, expected)

    def totals(self) -> dict[str, int]:
        """Return the expected number of events by result: `queued`, `skipped` (if any), and every reason."""
        special = Counter(self._kinds())
        return {QUEUED: self.count - special.total()} | dict(special)

    @property
    def _bad_count(self) -> int:
        return round(self.count * self.bad_share)

    def _kinds(self) -> list[str]:
        reasons = list(BAD)
        return [reasons[number % len(reasons)] for number in range(self._bad_count)] + [SKIPPED] * self.tombstones

    def _special(self, chance: random.Random) -> dict[int, str]:
        """Return the events that are not queued, and their expected results."""
        kinds = self._kinds()
        return dict(zip(chance.sample(range(self.count), k=len(kinds)), kinds, strict=True))


def reference_of(body: str) -> bytes:
    """Return the key of the event with this text."""
    return body.split(" ", 3)[2].encode()
