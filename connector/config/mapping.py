"""How the events of a stream are made from records, for all topics and for some.

A field's form is free, so the models accept it as it is; it is compiled when the settings are checked (`checks`), by
the package that runs it.
"""

import re
import warnings
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, WithJsonSchema

from connector.config.formats import Format
from connector.config.model import Model, Topic

_FIELD: Final = {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}, {"type": "object"}]}

Fields = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "additionalProperties": _FIELD}, mode="validation"),
]
"""Names of the event's fields, and how each is computed."""

ListNumber = Annotated[
    Any, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "null"}]}, mode="validation")
]


def topic_pattern(value: str) -> str:
    """Return a pattern of topics that both Kafka's client and Python accept."""
    if not value.startswith("^"):
        raise ValueError("must start with ^")
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a valid regular expression: {error.msg}") from error
    return value


# Syntax with the same meaning for all: a set ends at its first bracket, and a backslash in one only precedes a dot.
_READ_ALIKE: Final = re.compile(
    r"(?:"
    r"[^\\\[({*+?}]"
    r"|\\[.^$*+?()\[\]{}|_/wW-]"
    r"|\[\^?(?:[^\[\]\\]|(?<!-)\\\.)+\]"
    r"|\((?!\?)"
    r"|(?:[*+?]|\{[0-9]{1,3}(?:,[0-9]{0,3})?\})(?![*+?{])"
    r")*"
)


def subscribed_pattern(value: str) -> str:
    r"""Return a pattern of topics with the same meaning for Kafka's client, brokers and Python, which checks matches.

    Other patterns would silently differ: librdkafka uses POSIX expressions, where `\d` is the letter d.
    """
    if not _READ_ALIKE.fullmatch(value):
        with warnings.catch_warnings(action="ignore"):  # of what others read as a class
            topic_pattern(value)
        raise ValueError(
            "must mean the same to Kafka's client as here: write [0-9] for \\d, ( ) for (?: ), and leave out "
            "look-aheads, lazy repeats, classes such as [:alpha:], and backslashes in brackets except before a dot"
        )
    return value


TopicPattern = Annotated[str, AfterValidator(topic_pattern)]
# Python warns about some of what others read as a class, so this check comes first.
SubscribedPattern = Annotated[str, AfterValidator(subscribed_pattern), AfterValidator(topic_pattern)]

FUNCTION: Final = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
Transform = Annotated[str, Field(pattern=FUNCTION)]


class MappingSettings(Model):
    """How an event is made from a record; without it the record's value is the event."""

    when: str | None = None
    """JMESPath; a record for which it is not true (null, false, empty) is skipped: its outcome is `skipped`, with the
    reason `filtered`."""
    fields: Fields = Field(default_factory=dict)
    """The event's fields. Each is a JMESPath expression over `value`, `key`, `headers`, `topic`, `timestamp` and
    `attributes`, a number, true or false, or one of `{template: text}`, `{const: anything}`, `{from: expression,
    default: anything}` and a group of further fields. Results that are null are left out."""
    list_number: ListNumber = None
    """Chooses the list: like a field, or `{table: {name: number}, by: expression, default: number}`."""
    max_segments: Annotated[int, Field(ge=1, le=255)] | None = None
    """Maximum segments of a text, for `operation: send`; a longer text becomes a dead letter `too_many_segments`."""

    def over(self, base: "MappingSettings | None") -> "MappingSettings":
        """Return this mapping laid over another, field by field; null removes a field."""
        if base is None:
            return self.model_copy(update={"fields": _present(self.fields)})
        changed = {name: getattr(self, name) for name in self.model_fields_set}
        return base.model_copy(update={**changed, "fields": _present({**base.fields, **self.fields})})


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: spec for name, spec in fields.items() if spec is not None}


class OverrideSettings(Model):
    """Different settings for some of a stream's topics; the first entry that matches a topic applies."""

    topics: list[Topic] = Field(default_factory=list)
    """Topics that it applies to."""
    pattern: TopicPattern | None = None
    """Regular expression, starting with `^`, for the names of topics that it applies to."""
    format: Format | None = None
    """In place of the stream's."""
    mapping: MappingSettings | None = None
    """Laid over the stream's mapping, field by field; a field that is null is taken away, and a mapping that is null is
    none."""
    transform: Transform | None = None
    """Instead of the stream's; null for none."""

    def names(self, topic: str) -> bool:
        """Return whether the override applies to a topic."""
        return topic in self.topics or (self.pattern is not None and re.search(self.pattern, topic) is not None)
