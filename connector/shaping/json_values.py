"""JSON values: the format of streams that set none, and part of other formats.

msgspec's decoder accepts integers of any size, rejects NaN and invalid UTF-8, and of repeated keys uses the last, as
the platform would.
"""

from typing import Any

import msgspec
import orjson

from connector.core.chunks import Chunk
from connector.core.mapped import UNDECODABLE, mapped
from connector.core.verdicts import SKIPPED, Verdict
from connector.shaping.decoded import Decoded
from connector.shaping.refusing import UndecodableError, undecodable

_decode = msgspec.json.Decoder().decode


class JsonDecoder:
    """Decodes each value as JSON of any type."""

    def decode(self, chunk: Chunk) -> Decoded:
        """Decode all records; a value that is not JSON is a dead letter, a null value a tombstone."""
        bad: dict[int, Verdict] = {}

        def null(index: int, error: Exception) -> None:
            value = chunk.values[index]
            bad[index] = SKIPPED if value is None else undecodable(_no_json(value, error))

        return Decoded(mapped(_decode, chunk.values, UNDECODABLE, null), bad)


def json_from(value: bytes) -> Any:
    """Return a JSON value; raises `UndecodableError` for anything else."""
    try:
        return _decode(value)
    except UNDECODABLE as error:
        raise _no_json(value, error) from None


def _no_json(value: bytes, error: Exception) -> UndecodableError:
    """Return why a value is not JSON, based on msgspec's error."""
    try:
        value.decode()
    except UnicodeDecodeError as wrong:
        return UndecodableError("not_utf8", f"byte {wrong.start} is not UTF-8")
    text = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    if not value.strip():
        text = "the value is empty"
    elif "truncated" in text:  # msgspec also reports this for half a surrogate pair
        try:
            orjson.loads(value)
        except orjson.JSONDecodeError as told:
            text = str(told)
    return UndecodableError("not_json", text)
