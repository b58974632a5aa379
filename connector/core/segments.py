"""How many segments a text takes, which is what the platform bills, by the rules of GSM 03.38 and 03.40.

A text whose characters are all in the GSM 7-bit alphabet has 160 units in a single segment, and 153 in each of several,
where seven units go to the header that joins them; eight characters and the euro sign take two units. Any other
character turns the whole text into UCS-2, with 70 and 67 units of two bytes, where characters beyond the basic plane
take two. Neither an escape sequence nor a surrogate pair is split over two segments.

The text is counted as it is posted: what the platform adds or replaces comes on top.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

GSM_BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM_EXTENDED = "\f^{}\\[~]|€"
"""Each is an escape and a character: two units."""

GSM_SINGLE, GSM_JOINED = 160, 153
UCS2_SINGLE, UCS2_JOINED = 70, 67

_GSM = re.compile(f"[{re.escape(GSM_BASIC + GSM_EXTENDED)}]*+")
_TWO_UNITS_GSM = re.compile(f"[{re.escape(GSM_EXTENDED)}]")
_TWO_UNITS_UCS2 = re.compile("[\U00010000-\U0010ffff]")
_BASIC_ASCII = bytes(byte for byte in range(128) if chr(byte) in GSM_BASIC)

_FEWEST = UCS2_JOINED // 2
"""Characters that always fit into a segment: 33 surrogate pairs."""


@dataclass(frozen=True, slots=True)
class Segments:
    """The encoding of a text, its length in units of that, and its segments."""

    encoding: Literal["GSM-7", "UCS-2"]
    units: int
    count: int


def segments_of(text: str) -> Segments:
    """Count the units and segments of a text; an empty text takes one segment."""
    if _is_basic_ascii(text):
        return Segments("GSM-7", len(text), _count(len(text), GSM_SINGLE, GSM_JOINED))
    if _GSM.fullmatch(text) is not None:
        return _measure(text, "GSM-7", _TWO_UNITS_GSM, GSM_SINGLE, GSM_JOINED)
    return _measure(text, "UCS-2", _TWO_UNITS_UCS2, UCS2_SINGLE, UCS2_JOINED)


def truncated(text: str, count: int, end: str = "...") -> str:
    """Return the text if it fits into `count` segments, otherwise its longest beginning that does, plus `end`."""
    if fits(text, count):
        return text
    low, high = 0, len(text)  # a longer beginning never takes fewer segments
    while low < high:
        middle = (low + high + 1) // 2
        if fits(text[:middle].rstrip() + end, count):
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + end if fits(end, count) else ""


def fits(text: str, count: int) -> bool:
    """Return whether a text takes at most `count` segments."""
    return len(text) <= _FEWEST * count or segments_of(text).count <= count


def too_long(texts: Sequence[str], count: int) -> list[int]:
    """Return the indices of the texts that take more than `count` segments; fast if there are none."""
    longest = max(map(len, texts), default=0)
    if longest <= _FEWEST * count:
        return []
    limit = GSM_SINGLE if count == 1 else GSM_JOINED * count
    if longest <= limit and _is_basic_ascii("".join(texts)):
        return []
    return [index for index, text in enumerate(texts) if not fits(text, count)]


def _is_basic_ascii(text: str) -> bool:
    return text.isascii() and not text.encode("ascii").translate(None, _BASIC_ASCII)


def _count(units: int, single: int, joined: int) -> int:
    return 1 if units <= single else -(-units // joined)


def _measure(
    text: str, encoding: Literal["GSM-7", "UCS-2"], two_units: re.Pattern[str], single: int, joined: int
) -> Segments:
    double = two_units.findall(text)
    units = len(text) + len(double)
    if not double or units <= single:
        return Segments(encoding, units, _count(units, single, joined))
    count, start = 0, 0
    for wide, match in enumerate(two_units.finditer(text)):
        at = match.start() + wide  # its position if nothing was split
        # Skip whole segments that end before it; a segment must not end between its two units.
        passed = (at - start) // joined
        count += passed
        start += passed * joined
        if at - start == joined - 1:
            count += 1
            start = at
    return Segments(encoding, units, count - (start - units) // joined)  # the rest is rounded up
