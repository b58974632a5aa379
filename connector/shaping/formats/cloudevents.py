"""CloudEvents 1.0, in both modes of the Kafka binding.

*Structured*: the value is a JSON document with attributes and data, if the header `content-type` says so or is absent
and no other header says what it is. *Binary*: the attributes are headers `ce_*`, and the value is the data, in the
format of `content-type`. The event is the data; the attributes accompany it.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import date
from typing import Any, Final

from connector.core.chunks import Chunk, Headers
from connector.core.verdicts import SKIPPED
from connector.shaping.decoded import Decoded
from connector.shaping.formats.framed import FramedDecoder
from connector.shaping.json_values import json_from
from connector.shaping.refusing import UndecodableError, undecodable

_PREFIX: Final = "ce_"
_STRUCTURED: Final = "application/cloudevents"
_REQUIRED: Final = ("specversion", "id", "source", "type")
_NAME: Final = re.compile(r"[a-z0-9]+")
_TOKEN: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105  (of a media type)
_MEDIA_TYPE: Final = re.compile(rf"({_TOKEN}/{_TOKEN})\s*(?:;.*)?", re.DOTALL)
_CLOCK: Final = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME: Final = re.compile(
    rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})[Tt]{_CLOCK}:(?:[0-5][0-9]|60)(?:\.[0-9]+)?(?:[Zz]|[+-]{_CLOCK})"
)
"""Of RFC 3339: it has leap seconds, which Python has not."""


class CloudEventsDecoder:
    """Decodes CloudEvents; `framed` decodes data in binary mode whose content type is neither JSON nor text."""

    def __init__(self, framed: FramedDecoder | None = None) -> None:
        self._framed = framed

    def decode(self, chunk: Chunk) -> Decoded:
        """Decode all records of a chunk; raises `FormatAwayError` if a schema of the data is unavailable."""
        count = len(chunk)
        attributes: list[Mapping[str, Any] | None] = [None] * count
        decoded = Decoded([None] * count, attributes=attributes)
        framed: list[int] = []
        for index, value in enumerate(chunk.values):
            if value is None:
                decoded.bad[index] = SKIPPED
                continue
            try:
                headers = None if chunk.headers is None else chunk.headers[index]
                attributes[index], decoded.values[index], is_framed = self._event(value, headers)
            except UndecodableError as error:
                decoded.bad[index] = undecodable(error)
            else:
                if is_framed:
                    framed.append(index)
        if framed:
            self._decode_framed(chunk, framed, decoded)
        return decoded

    def _decode_framed(self, chunk: Chunk, indices: list[int], decoded: Decoded) -> None:
        assert self._framed is not None, "nothing is framed where no format says how"
        assert chunk.headers is not None, "framed data comes in binary mode, which is one of headers"
        headers = [chunk.headers[index] for index in indices]
        inner = self._framed.decode_values([chunk.values[index] for index in indices], headers)
        for at, index in enumerate(indices):
            decoded.values[index] = inner.values[at]
            if at in inner.bad:
                decoded.bad[index] = inner.bad[at]

    def _event(self, value: bytes, headers: Headers | None) -> tuple[dict[str, Any], Any, bool]:
        """Return attributes, data, and whether the data is framed and must still be decoded."""
        named = {name.lower(): data for name, data in headers or () if data is not None}
        content_type = _text("content-type", named["content-type"]) if "content-type" in named else None
        if content_type is not None and content_type.lower().startswith(_STRUCTURED):
            kind = _media_type(content_type)
            if kind != f"{_STRUCTURED}+json":
                text = f"a structured CloudEvent comes as {_STRUCTURED}+json; this is {kind or 'something else'}"
                raise UndecodableError("content_type_unknown", text)
        elif f"{_PREFIX}specversion" in named:
            return self._binary(value, named, content_type)
        attributes, data = _structured(value)
        return attributes, data, False

    def _binary(
        self, value: bytes, named: Mapping[str, bytes], content_type: str | None
    ) -> tuple[dict[str, Any], Any, bool]:
        attributes: dict[str, Any] = {
            name.removeprefix(_PREFIX): _text(name, data) for name, data in named.items() if name.startswith(_PREFIX)
        }
        if content_type is not None:
            attributes["datacontenttype"] = content_type
        _check(attributes)
        kind = None if content_type is None else _media_type(content_type)
        if kind is not None and (_is_json(kind) or kind.startswith("text/")):
            return attributes, _data(value, kind), False
        if self._framed is not None:
            return attributes, None, True
        if kind is None:
            return attributes, json_from(value), False
        text = f"the data is {kind}; with `format.data` the stream would decode what is framed"
        raise UndecodableError("content_type_unknown", text)


def _structured(value: bytes) -> tuple[dict[str, Any], Any]:
    """Return attributes and data of a whole event in JSON."""
    event = json_from(value)
    if not isinstance(event, dict):
        raise UndecodableError("not_a_cloudevent", "the value is JSON, but no object")
    has_data, data = "data" in event, event.pop("data", None)
    encoded = event.pop("data_base64", None)
    attributes = {name: said for name, said in event.items() if said is not None}
    _check(attributes)
    if encoded is None:
        return attributes, {} if data is None else data
    if has_data:
        raise UndecodableError("not_a_cloudevent", "it has both `data` and `data_base64`")
    try:
        raw = b64decode(encoded, validate=True)
    except (TypeError, ValueError):
        raise UndecodableError("not_a_cloudevent", "`data_base64` is no base64") from None
    content_type = attributes.get("datacontenttype")
    return attributes, _data(raw, None if content_type is None else _media_type(content_type))


def _data(raw: bytes, kind: str | None) -> Any:
    """Return data according to its content type, JSON without one; bytes of unknown type in base64."""
    if kind is None or _is_json(kind):
        return json_from(raw)
    if kind.startswith("text/"):
        return _text("the data", raw)
    return b64encode(raw).decode()


def _check(attributes: Mapping[str, Any]) -> None:
    """Raise `UndecodableError` for attributes that no CloudEvent may have."""
    for name in _REQUIRED:
        if name not in attributes:
            raise UndecodableError("not_a_cloudevent", f"the attribute `{name}` is missing")
    if attributes["specversion"] != "1.0":
        raise UndecodableError("not_a_cloudevent", "`specversion` is not 1.0")
    for name, said in attributes.items():
        if not _NAME.fullmatch(name):
            raise UndecodableError("not_a_cloudevent", "an attribute's name has other than small letters and digits")
        if name in _TEXTS and not (isinstance(said, str) and said):
            raise UndecodableError("not_a_cloudevent", f"the attribute `{name}` is no text, or empty")
        if not isinstance(said, str | bool | int):
            raise UndecodableError("not_a_cloudevent", f"the attribute `{name}` is no text, whole number or boolean")
    if "time" in attributes and not _is_time(attributes["time"]):
        raise UndecodableError("not_a_cloudevent", "`time` is no time of RFC 3339")
    if "datacontenttype" in attributes and _media_type(attributes["datacontenttype"]) is None:
        raise UndecodableError("not_a_cloudevent", "`datacontenttype` is no media type")


_TEXTS: Final = frozenset({*_REQUIRED, "datacontenttype", "dataschema", "subject", "time"})


def _is_time(text: str) -> bool:
    found = _TIME.fullmatch(text)
    if found is None:
        return False
    try:
        date.fromisoformat(found[1])
    except ValueError:
        return False
    return True


def _media_type(text: str) -> str | None:
    """Return a media type in lower case, without parameters; None if it is not one."""
    found = _MEDIA_TYPE.fullmatch(text)
    return None if found is None else found[1].lower()


def _is_json(kind: str) -> bool:
    return kind in {"application/json", "text/json"} or kind.endswith("+json")


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UndecodableError("not_utf8", f"`{name}`: byte {error.start} is not UTF-8") from None
