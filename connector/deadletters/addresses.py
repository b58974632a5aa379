"""The recipient of a dead letter: its list and its phone number, from its event.

A dead letter contains the record as it was read. That is the event, unless its stream has a format, a mapping or a
transform: then the event is shaped again with the present settings, since field names in the value may not be the
platform's. If no event can be shaped, list and number are unknown, which is not the same as absent, so this is counted
and reported.
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
    """Return a value as JSON, None if it is not JSON."""
    try:
        return None if value is None else _decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class Address:
    """The list and the number of an event, each None if absent."""

    list_number: str | None
    number: str | None = field(default=None, repr=False)
    no_event: str = ""
    """Why no event can be shaped now: the reason that the record would be a dead letter for, `filtered`,
    `schema_registry` or `value_omitted`. List and number are unknown then."""
    names_list: bool = False
    """Whether the record itself names its list; otherwise the present settings do, and they may have named another one
    when it was posted."""


class AddressBook:
    """Finds addresses, and counts by cause the dead letters without an event; for one thread.

    `settings` has the streams, and the list of those whose events name none; without it every value is an event. Must
    be closed, because it may query the schema registry.
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
        """Return the address of a dead letter."""
        event, no_event = self._event(letter)
        if no_event:
            self.no_event[no_event] += 1
            self._without = letter.partition, letter.offset
            return Address(None, None, no_event)
        fields = event if isinstance(event, dict) else {}
        list_number = fields.get("list_number")
        stream = self._streams.get(letter.stream or "")
        names_list = isinstance(list_number, str)
        if not names_list:
            list_number = None if stream is None else stream.list_number
        number = next((fields[name] for name in _NUMBER_FIELDS if isinstance(fields.get(name), str)), None)
        is_event = stream is not None and self._shaper(stream.name) is None
        return Address(list_number, number, names_list=names_list and is_event)

    def just_missed(self, letter: Letter) -> bool:
        """Return whether this is the last dead letter for which no event could be shaped."""
        return self._without == (letter.partition, letter.offset)

    def _event(self, letter: Letter) -> tuple[Any, str]:
        """Return an event, or why there is none."""
        if letter.value_omitted:
            return None, "value_omitted"
        shaper = self._shaper(letter.stream or "")
        if shaper is None:
            return json_of(letter.value), ""
        if self._registry_is_away:
            return None, "schema_registry"  # waited for once, not again for each dead letter
        try:
            shaped = shaper.shape(read_again(letter, letter.value, self._streams[letter.stream or ""].redrive_topic))
        except FormatAwayError as error:
            # The stream's own transform may fail for this record only, the registry fails for all.
            self._registry_is_away = error.reason != "transform_failed"
            return None, error.reason
        verdict = shaped.bad.get(0)
        return (json_of(shaped.events[0]), "") if verdict is None else (None, verdict.reason or verdict.status)

    def _shaper(self, name: str) -> Shaper | None:
        """Return the shaper of a stream, None if values are events or the stream is unknown."""
        if name not in self._shapers:
            stream = self._streams.get(name)
            if self._settings is not None and self._registry is None and stream is not None:
                self._registry = registry_of(self._settings, Secrets(self._settings))
            registry = self._registry
            self._shapers[name] = (
                None if stream is None else shaper_of(stream, lambda variant: decoder_for(variant.format, registry))
            )
        return self._shapers[name]
