"""Shapes the records of one stream, a chunk at a time: decode, transform, map, encode, by the settings for its topic.

A stream whose events have the API's shape has no shaper, and its records go into requests as they were read. Records
that are sent again come through the redrive topic, and are shaped like those of the topic they came from first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from connector.config.streams import StreamSettings
from connector.core.chunks import Chunk
from connector.core.mapped import UNDECODABLE, mapped
from connector.core.records import origin_of
from connector.core.verdicts import FILTERED, Verdict
from connector.hooks import Failed, Records, Skip, Transform, load_transform, raised
from connector.mapping.columns import Columns
from connector.mapping.making import Failures
from connector.mapping.mapping import CompiledMapping, compile_mapping
from connector.mapping.projection import Projection, projection_of
from connector.shaping.decoded import Decoder, FormatAwayError
from connector.shaping.json_values import JsonDecoder
from connector.shaping.refusing import refused
from connector.shaping.shaped import Shaped

DecoderOf = Callable[[StreamSettings], Decoder | None]
"""Returns the decoder of a stream's format, None for JSON; the settings are those in effect for a topic."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How the records of a topic are shaped."""

    decoder: Decoder
    is_json: bool
    mapping: CompiledMapping | None
    transform: Transform | None
    projection: Projection | None = None
    """Decodes what the mapping uses, if most records need nothing else."""
    max_segments: int | None = None
    """Maximum number of segments of a text."""

    @property
    def is_splice(self) -> bool:
        """Whether values are events as they are."""
        mapping = self.mapping
        plain = mapping is None or (mapping.keeps_values and mapping.when is None)
        return self.is_json and self.transform is None and plain


class Shaper:
    """Turns the records of one stream into events; for one thread."""

    def __init__(self, settings: StreamSettings, decoder_of: DecoderOf = lambda _settings: None) -> None:
        self._settings = settings
        self._variants = [_plan(variant, decoder_of) for variant in settings.variants()]
        self._plans: dict[str, Plan] = {}

    @property
    def needs_timestamps(self) -> bool:
        """Whether anything uses the timestamp of a record."""
        return any(
            plan.transform is not None or (plan.mapping is not None and "timestamp" in plan.mapping.roots)
            for plan in self._variants
        )

    def plan_for(self, topic: str) -> Plan:
        """Return how the records of a topic are shaped."""
        plan = self._plans.get(topic)
        if plan is None:
            plan = self._plans[topic] = self._variants[self._settings.variant_for(topic)]
        return plan

    def shape(self, chunk: Chunk) -> Shaped:
        """Shape the records of a chunk; raises `FormatAwayError` if that is impossible now, whatever the record.

        Records are shaped by the topic they came from first, which the headers of redriven ones name.
        """
        topic = chunk.partition.topic
        if topic != self._settings.redrive_topic:
            return shape_by(self.plan_for(topic), chunk, topic)
        topics = [_first_topic(chunk, index) for index in range(len(chunk))]
        distinct = list(dict.fromkeys(topics))
        if len(distinct) == 1:
            return shape_by(self.plan_for(distinct[0]), chunk, distinct[0])
        whole = Shaped([None] * len(chunk))
        for name in distinct:
            indices = [index for index, topic in enumerate(topics) if topic == name]
            part = shape_by(self.plan_for(name), chunk.pick(indices), name)
            whole.put(indices, part)
            if part.max_segments is not None:
                whole.limits.update(dict.fromkeys(indices, part.max_segments))
        return whole


def _plan(settings: StreamSettings, decoder_of: DecoderOf) -> Plan:
    decoder, mapping = decoder_of(settings), settings.mapping
    compiled = max_segments = None
    if mapping is not None:
        compiled = compile_mapping(fields=mapping.fields, when=mapping.when, list_number=mapping.list_number)
        max_segments = mapping.max_segments
    transform = None if settings.transform is None else load_transform(settings.transform)
    projection = None
    if decoder is None and transform is None and compiled is not None and compiled.fields is not None:
        projection = projection_of(compiled.fields)
    return Plan(decoder or JsonDecoder(), decoder is None, compiled, transform, projection, max_segments)


def shaper_of(settings: StreamSettings, decoder_of: DecoderOf = lambda _settings: None) -> Shaper | None:
    """Return the shaper of a stream, None if the values of all its topics are events as they are."""
    variants = settings.variants()
    if all(v.mapping is None and v.transform is None and decoder_of(v) is None for v in variants):
        return None
    return Shaper(settings, decoder_of)


def shape_by(plan: Plan, chunk: Chunk, topic: str) -> Shaped:
    """Shape a chunk whose records are all of one topic; raises `FormatAwayError`."""
    if plan.is_splice:
        return Shaped.unchanged(chunk, max_segments=plan.max_segments)
    if plan.projection is not None:
        return _projected(plan, plan.projection, chunk, topic)
    return _decoded(plan, chunk, topic)


def _projected(plan: Plan, projection: Projection, chunk: Chunk, topic: str) -> Shaped:
    """Build events from the fields that the mapping uses; if they are not enough, from the whole record."""
    assert plan.mapping is not None
    found, odd = projection.decode(chunk.values)
    columns = Columns(chunk, found, topic=topic, projection=projection)
    odd |= plan.mapping.unprintable(columns)
    if not odd:
        return _mapped(plan, chunk, columns, list(range(len(chunk))), {})
    plain, rest = [index for index in range(len(chunk)) if index not in odd], sorted(odd)
    whole = Shaped([None] * len(chunk), max_segments=plan.max_segments)
    whole.put(plain, _mapped(plan, chunk.pick(plain), columns.pick(plain), list(range(len(plain))), {}))
    whole.put(rest, _decoded(plan, chunk.pick(rest), topic))
    return whole


def _decoded(plan: Plan, chunk: Chunk, topic: str) -> Shaped:
    decoded = plan.decoder.decode(chunk)
    bad = dict(decoded.bad)
    live = [index for index in range(len(chunk)) if index not in bad] if bad else list(range(len(chunk)))
    columns = Columns(chunk, decoded.values, topic=topic, attributes=decoded.attributes)
    if bad:
        columns = columns.pick(live)
    if plan.transform is not None and live:
        columns, live = _transformed(plan.transform, columns, live, bad)
    return _mapped(plan, chunk, columns, live, bad)


def _mapped(plan: Plan, chunk: Chunk, columns: Columns, live: list[int], bad: dict[int, Verdict]) -> Shaped:
    """Map and encode the records at `live`, which `columns` holds; all others have their verdict in `bad`."""
    failures = Failures()
    mapping = plan.mapping
    passing = None if mapping is None else mapping.passing(columns, failures)
    if passing is not None:
        inside = set(passing)
        for index, at in enumerate(live):
            if index not in inside:
                bad[at] = refused("mapping_failed", failures[index]) if index in failures else FILTERED
        columns, live, failures = columns.pick(passing), [live[i] for i in passing], Failures()
    if mapping is not None and mapping.keeps_values and plan.is_json and plan.transform is None:
        values = chunk.values if not bad else [None if i in bad else value for i, value in enumerate(chunk.values)]
        return Shaped(values, bad, max_segments=plan.max_segments)
    events, fields = (columns.values, {}) if mapping is None else mapping.events(columns, failures)
    encoded = _encoded(events, failures)
    if plan.transform is not None:
        fields = {}  # they may hold values that can be encoded but are not JSON's
        _note_no_json(encoded, failures)
    reason = "not_decodable" if mapping is None and plan.transform is None else "mapping_failed"
    for index, text in failures.items():
        bad[live[index]] = refused(reason, text)
    if failures:
        fields = {}
    placed = _placed(encoded, live, len(chunk), bad)
    return Shaped(placed, bad, fields, max_segments=plan.max_segments)


def _first_topic(chunk: Chunk, index: int) -> str:
    origin = origin_of(dict(chunk.header_list(index)))
    return chunk.partition.topic if origin is None else origin[0].topic


def _transformed(
    transform: Transform, columns: Columns, live: list[int], bad: dict[int, Verdict]
) -> tuple[Columns, list[int]]:
    """Call the stream's transform; raises `FormatAwayError` if it fails as a whole."""
    records = Records(
        columns.topic,
        columns.values,
        columns.follow(("key",)),
        columns.follow(("headers",)),
        columns.follow(("timestamp",)),
        columns.follow(("attributes",)),
    )
    name = f"{getattr(transform, '__module__', '')}:{getattr(transform, '__qualname__', transform)}"
    try:
        made = list(transform(records))
    except (Exception, SystemExit) as error:
        raise FormatAwayError("transform_failed", f"{name} {raised(error)}") from error
    if len(made) != len(records):
        text = f"{name} returned {len(made)} values for {len(records)} records"
        raise FormatAwayError("transform_failed", text)
    kept = []
    for index, value in enumerate(made):
        if isinstance(value, Failed):
            bad[live[index]] = refused("transform_failed", value.text)
        elif isinstance(value, Skip):
            bad[live[index]] = FILTERED
        else:
            kept.append(index)
    columns = columns.with_values(made)
    if len(kept) == len(made):
        return columns, live
    return columns.pick(kept), [live[index] for index in kept]


def _encoded(events: Sequence[Any], failures: Failures) -> list[bytes | None]:
    """Return events as JSON."""

    def null(index: int, error: Exception) -> None:
        failures.setdefault(index, f"{_NO_JSON}: {error}")

    return mapped(_encode, events, (TypeError, ValueError, RecursionError), null)


def _note_no_json(encoded: Sequence[bytes | None], failures: Failures) -> None:
    """Note events that msgspec encoded and that are no JSON: from raw bytes, or before 0.23 from a decimal NaN."""

    def note(index: int, error: Exception) -> None:
        if encoded[index] is not None:
            failures.setdefault(index, f"{_NO_JSON}: {error}")

    mapped(_decode, encoded, UNDECODABLE, note)


def _placed(events: list[bytes | None], live: list[int], count: int, bad: dict[int, Verdict]) -> list[bytes | None]:
    """Return a list of the chunk's length with each event at the index of its record; all others are in `bad`."""
    if not bad:
        return events
    placed: list[bytes | None] = [None] * count
    for at, event in zip(live, events, strict=True):
        if at not in bad:
            placed[at] = event
    return placed


def _plain(value: Any) -> Any:
    """Refuse types that no decoder returns, but a transform may."""
    raise TypeError(f"it holds a {type(value).__name__}")


_NO_JSON: Final = "the event is no JSON"
_decode = msgspec.json.Decoder().decode
_encode: Callable[[Any], bytes] = msgspec.json.Encoder(enc_hook=_plain, decimal_format="number").encode
"""Measured: a tenth of orjson's time for small objects, and it encodes integers of any size."""
