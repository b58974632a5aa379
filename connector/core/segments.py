"""How many segments a text takes: what the platform bills, by the rules of GSM 03.38 and 03.40.

A text whose characters are all in the GSM 7-bit alphabet has 160 units alone and 153 in each of several segments,
where seven go to the header that joins them; eight characters and the euro take two units. Any other character turns
the whole text into UCS-2 with 70 and 67 units of two bytes, where what lies beyond the basic plane takes two. Neither
an escape nor such a pair is split over two segments.

Counted is the text as it is posted: what the platform adds to it or replaces in it comes on top.
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
"""Characters that fit a segment, whatever they are: 33 pairs."""


@dataclass(frozen=True, slots=True)
class Segments:
    """What a text amounts to: its encoding, its units in that, and its segments."""

    encoding: Literal["GSM-7", "UCS-2"]
    units: int
    count: int


def segments_of(text: str) -> Segments:
    """Count the units and segments of a text; an empty one takes a segment, too."""
    if _is_basic_ascii(text):
        return Segments("GSM-7", len(text), _count(len(text), GSM_SINGLE, GSM_JOINED))
    if _GSM.fullmatch(text) is not None:
        return _measure(text, "GSM-7", _TWO_UNITS_GSM, GSM_SINGLE, GSM_JOINED)
    return _measure(text, "UCS-2", _TWO_UNITS_UCS2, UCS2_SINGLE, UCS2_JOINED)


def truncated(text: str, count: int, end: str = "...") -> str:
    """Return the text when it fits `count` segments, else the longest beginning of it that does with `end` behind."""
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
    """Tell whether a text takes at most `count` segments."""
    return len(text) <= _FEWEST * count or segments_of(text).count <= count


def too_long(texts: Sequence[str], count: int) -> list[int]:
    """Return the indices of the texts that take more than `count` segments; quick when there are none."""
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
    count, start = 1, 0
    for wide, match in enumerate(two_units.finditer(text)):
        at = match.start() + wide  # where it would stand if nothing was split
        # Whole segments that end before it; the last of its units must not begin the next.
        passed = (at - start) // joined
        count += passed
        start += passed * joined
        if at - start == joined - 1:
            count += 1
            start = at
    return Segments(encoding, units, count + max(-(-(units - start) // joined) - 1, 0))
