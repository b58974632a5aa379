"""Shapes the records of one stream: decode and encode, a chunk at a time.

A stream whose events have the API's shape has no shaper, and its records are spliced into requests as they came.
"""

from collections.abc import Callable

import msgspec

from connector.config.streams import StreamSettings
from connector.core.chunks import Chunk
from connector.core.verdicts import Verdict
from connector.shaping.decoded import Decoder
from connector.shaping.shaped import Shaped

DecoderOf = Callable[[StreamSettings], Decoder | None]
"""Returns the decoder of a stream's format, None for JSON."""


class Shaper:
    """Makes events of the records of one stream; for one thread."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def shape(self, chunk: Chunk) -> Shaped:
        """Make the events of a chunk; raises `FormatAwayError` when that can't be done now, for any record."""
        decoded = self._decoder.decode(chunk)
        bad = dict(decoded.bad)
        if not bad:
            try:
                return Shaped(list(map(_encode, decoded.values)), bad)
            except (TypeError, ValueError, RecursionError):
                pass  # one is no JSON: all are looked at one by one
        events: list[bytes | None] = [None] * len(chunk)
        for index, value in enumerate(decoded.values):
            if index not in bad:
                try:
                    events[index] = _encode(value)
                except (TypeError, ValueError, RecursionError) as error:
                    bad[index] = Verdict("dead_letter", "not_decodable", None, str(error)[:500])
        return Shaped(events, bad)


_encode = msgspec.json.Encoder().encode
"""Knows whole numbers of any size, and makes bytes that take no more memory than they are long: each of orjson's keeps
4 KB for as long as it lives."""


def shaper_of(settings: StreamSettings, decoder_of: DecoderOf = lambda _settings: None) -> Shaper | None:
    """Return the shaper of a stream, None where its values are events as they are."""
    decoder = decoder_of(settings)
    return None if decoder is None else Shaper(decoder)
