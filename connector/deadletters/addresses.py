"""To whom a dead letter goes: its list and its phone number, as they stand in its event.

A dead letter holds the record as it was read. That is the event, unless its stream has a format, a mapping or a
function: then the event is made anew, as the stream would by the settings of now, and what the value says by the names
of the platform's fields means nothing. Where no event can be made, list and number are unknown; which says less than
none, so it is counted and told.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, Self

import msgspec

from connector.config.secrets import Secrets
from connector.config.settings import Settings
from connector.deadletters.letters import Letter, Position, read_again
from connector.shaping.decoded import FormatAwayError
from connector.shaping.formats import SchemaRegistry, decoder_for, registry_of
from connector.shaping.shaper import Shaper, shaper_of

_NUMBER_FIELDS: Final = ("to", "phone_number", "to_number")
_decode = msgspec.json.Decoder().decode


def json_of(value: bytes | None) -> Any:
    """Return a value as JSON, None where it is none."""
    try:
        return None if value is None else _decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class Address:
    """The list and the number of an event, None where it has none."""

    list_number: str | None
    number: str | None = field(default=None, repr=False)
    no_event: str = ""
    """Why no event can be made now: the reason of the dead letter that the record would be, `filtered`,
    `schema_registry`, `value_omitted`. Neither list nor number are known then."""


class AddressBook:
    """Finds out addresses, and counts the dead letters of which no event can be made by why; for one thread.

    `settings` knows the streams, and the list of one whose events name none; without it every value is an event. To be
    closed, as the schema registry may be asked.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.no_event: Counter[str] = Counter()
        self._without: Position | None = None
        self._streams = {} if settings is None else settings.streams_by_name
        self._settings = settings
        self._registry: SchemaRegistry | None = None
        self._shapers: dict[str, Shaper | None] = {}
        self._registry_is_away = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._registry is not None:
            self._registry.close()

    def of(self, letter: Letter) -> Address:
        """Return where a dead letter goes."""
        event, no_event = self._event(letter)
        if no_event:
            self.no_event[no_event] += 1
            self._without = letter.partition, letter.offset
            return Address(None, None, no_event)
        fields = event if isinstance(event, dict) else {}
        list_number = fields.get("list_number")
        if not isinstance(list_number, str):
            stream = self._streams.get(letter.stream or "")
            list_number = None if stream is None else stream.list_number
        number = next((fields[name] for name in _NUMBER_FIELDS if isinstance(fields.get(name), str)), None)
        return Address(list_number, number)

    def just_missed(self, letter: Letter) -> bool:
        """Tell whether this is the last dead letter of which no event could be made."""
        return self._without == (letter.partition, letter.offset)

    def _event(self, letter: Letter) -> tuple[Any, str]:
        """Return an event, or why there is none."""
        shaper = self._shaper(letter.stream or "")
        if shaper is None:
            return json_of(letter.value), ""
        if letter.value_omitted:
            return None, "value_omitted"
        if self._registry_is_away:
            return None, "schema_registry"  # it was waited for once: not again for each dead letter
        try:
            shaped = shaper.shape(read_again(letter, letter.value, self._streams[letter.stream or ""].redrive_topic))
        except FormatAwayError as error:
            # The stream's own function may fail for this one alone, the registry fails all.
            self._registry_is_away = error.reason != "transform_failed"
            return None, error.reason
        verdict = shaped.bad.get(0)
        return (json_of(shaped.events[0]), "") if verdict is None else (None, verdict.reason or verdict.status)

    def _shaper(self, name: str) -> Shaper | None:
        """Return what shapes the records of a stream, None where values are events, or it is not known."""
        if name not in self._shapers:
            stream = self._streams.get(name)
            if self._settings is not None and self._registry is None and stream is not None:
                self._registry = registry_of(self._settings, Secrets(self._settings))
            registry = self._registry
            self._shapers[name] = (
                None if stream is None else shaper_of(stream, lambda variant: decoder_for(variant.format, registry))
            )
        return self._shapers[name]
