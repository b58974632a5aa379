"""JSON values: the format of a stream that names none.

msgspec's decoder keeps whole numbers of any size as they are, refuses NaN and what is no UTF-8, and of keys that stand
twice takes the last, as the platform would.
"""

import msgspec

from connector.core.chunks import Chunk
from connector.core.mapped import UNDECODABLE, mapped
from connector.core.verdicts import SKIPPED, Verdict
from connector.shaping.decoded import Decoded

_decode = msgspec.json.Decoder().decode


class JsonDecoder:
    """Decodes each value as JSON of any kind."""

    def decode(self, chunk: Chunk) -> Decoded:
        """Decode all records; what is no JSON is a dead letter, a null value a tombstone."""
        bad: dict[int, Verdict] = {}

        def null(index: int, error: Exception) -> None:
            bad[index] = _diagnosed(chunk.values[index], error)

        return Decoded(mapped(_decode, chunk.values, UNDECODABLE, null), bad)


def _diagnosed(value: bytes | None, error: Exception) -> Verdict:
    if value is None:
        return SKIPPED
    try:
        value.decode()
    except UnicodeDecodeError as wrong:
        return Verdict("dead_letter", "not_utf8", None, f"byte {wrong.start} is not UTF-8")
    text = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return Verdict("dead_letter", "not_json", None, text[:500])
