"""What is settled and what is in flight in a partition, and how this is stored in the commit metadata.

Offsets below `base` (the committed offset) are settled. Above it there are settled ranges, in-flight ranges and records
that were not started. Kafka stores up to 4,096 characters of metadata with a committed offset, so no other store is
needed, and progress is committed in the same transaction as the results.

The encoding is one character of version, one of kind, and base64 of a checksum and the payload. The checksum covers the
offset and the payload: metadata that was truncated, or copied to another offset by a tool that mirrors groups between
clusters, would declare records settled or in flight that never were. The kind is whichever is shorter:

- `r`, runs: varints of the partition count at the group's birth and of the tick's mark, then for each run its distance
  from the end of the previous run (the first: from `base`), and its length times two, plus one if it is in flight;
- `b`, bitmaps: the same two, the number of offsets covered, then two deflated bitmaps, settled and in flight. They
  begin at the last multiple of 8 that is not above `base`, so that an advancing base only cuts bytes off.
"""

import re
import zlib
from base64 import b64decode, b64encode
from dataclasses import dataclass, field

from connector.core.ranges import RangeSet

VERSION = "1"
MAX_METADATA = 4_000
"""Characters; Kafka's default `offset.metadata.max.bytes` is 4,096."""

_MAX_SPAN = 1 << 24
"""Offsets that a bitmap may cover (2 MiB): a hole of any width must not be turned into bits, or read from them."""

_MAX_RUNS = 1 << 18
"""Runs that a bitmap may hold, about 25 MB when decoded: three thousand bytes can inflate to a million runs."""

_CHECK_BYTES = 3

_ONES = re.compile("1+")


class ForeignMetadataError(ValueError):
    """The metadata of a committed offset was not written by this connector for this offset, or by a newer version."""


@dataclass(slots=True)
class Progress:
    """A partition's progress: `base`, and above it disjoint sets of settled and in-flight offsets.

    `birth` is the partition count of the topic when the group first committed to it: a partition below it without a
    commit is new to the group, one at or above it was added to the topic later. `mark` identifies the tick, so that a
    worker that lost its producer can read back whether its last commit happened.
    """

    base: int
    birth: int = 0
    mark: int = 0
    settled: RangeSet = field(default_factory=RangeSet)
    in_flight: RangeSet = field(default_factory=RangeSet)


def encode(progress: Progress) -> str:
    """Return the metadata to commit with the offset `progress.base`. Its length is not limited here."""
    head = _varint(progress.birth) + _varint(progress.mark)
    marked = [(start, stop, 0) for start, stop in progress.settled]
    marked += [(start, stop, 1) for start, stop in progress.in_flight]
    marked.sort()
    payload = bytearray(head)
    at = progress.base
    for start, stop, flag in marked:
        payload += _varint(start - at)
        payload += _varint((stop - start) * 2 + flag)
        at = stop
    kind = "r"
    origin = _origin(progress.base)
    span = at - origin
    # Deflated bitmaps only pay for many short runs.
    if 64 < len(marked) <= _MAX_RUNS and span <= _MAX_SPAN:
        bitmaps = _bitmap(progress.settled, origin, span) + _bitmap(progress.in_flight, origin, span)
        packed = head + _varint(span) + zlib.compress(bitmaps, 9)
        if len(packed) < len(payload):
            kind, payload = "b", bytearray(packed)
    return VERSION + kind + b64encode(_check(progress.base, payload) + payload).decode().rstrip("=")


def decode(base: int, metadata: str | None) -> Progress:
    """Return the progress that was committed with offset `base`.

    Empty metadata is a plain commit, such as tools make that set offsets: everything from `base` on is unread. Raises
    `ForeignMetadataError` for metadata that is not ours, of a newer version, truncated, or written for another offset.
    """
    if not metadata:
        return Progress(base)
    version, kind, text = metadata[:1], metadata[1:2], metadata[2:]
    if version != VERSION or kind not in ("r", "b"):
        raise ForeignMetadataError(f"metadata {metadata[:12]!r} is not of version {VERSION}")
    try:
        payload = _checked(base, b64decode(text + "=" * (-len(text) % 4), validate=True))
        return _decode_runs(base, payload) if kind == "r" else _decode_bitmaps(base, payload)
    except (ValueError, IndexError, zlib.error) as error:
        raise ForeignMetadataError(f"metadata {metadata[:12]!r} cannot be read: {error}") from error


def _check(base: int, payload: bytes | bytearray) -> bytes:
    return zlib.crc32(_varint(base) + payload).to_bytes(4, "big")[:_CHECK_BYTES]


def _checked(base: int, packed: bytes) -> bytes:
    payload = packed[_CHECK_BYTES:]
    if packed[:_CHECK_BYTES] != _check(base, payload):
        raise ValueError("it is not whole, or was committed with another offset")
    return payload


def _decode_runs(base: int, payload: bytes) -> Progress:
    birth, at = _read_varint(payload, 0)
    mark, at = _read_varint(payload, at)
    progress = Progress(base, birth, mark)
    offset = base
    while at < len(payload):
        gap, at = _read_varint(payload, at)
        packed, at = _read_varint(payload, at)
        start, stop = offset + gap, offset + gap + (packed >> 1)
        (progress.in_flight if packed & 1 else progress.settled).add(start, stop)
        offset = stop
    return progress


def _decode_bitmaps(base: int, payload: bytes) -> Progress:
    birth, at = _read_varint(payload, 0)
    mark, at = _read_varint(payload, at)
    span, at = _read_varint(payload, at)
    if span > _MAX_SPAN:
        raise ValueError(f"a bitmap of {span} offsets")
    size = (span + 7) // 8
    bitmaps = zlib.decompressobj().decompress(payload[at:], 2 * size + 1)
    if len(bitmaps) != 2 * size:
        raise ValueError("the bitmaps are damaged")
    if int.from_bytes(bitmaps[:size], "little") & int.from_bytes(bitmaps[size:], "little"):
        raise ValueError("offsets are settled and in flight at once")
    settled, in_flight = (_unmap(bitmap, _origin(base)) for bitmap in (bitmaps[:size], bitmaps[size:]))
    if any(start < base for ranges in (settled, in_flight) for start, _ in ranges):
        raise ValueError("offsets below the committed one")
    return Progress(base, birth, mark, settled, in_flight)


def _origin(base: int) -> int:
    """Return the offset of a bitmap's first bit."""
    return base - base % 8


def _bitmap(ranges: RangeSet, origin: int, span: int) -> bytes:
    """Return one bit per offset, in time linear in the span; shifting an integer run by run would not be."""
    parts = []
    at = origin
    for start, stop in ranges:
        parts.append("0" * (start - at))
        parts.append("1" * (stop - start))
        at = stop
    bits = int("".join(parts)[::-1] or "0", 2)
    return bits.to_bytes((span + 7) // 8, "little")


def _unmap(bitmap: bytes, origin: int) -> RangeSet:
    bits = f"{int.from_bytes(bitmap, 'little'):b}"[::-1]
    ranges = RangeSet()
    for count, ones in enumerate(_ONES.finditer(bits)):
        if count > _MAX_RUNS:
            raise ValueError("a bitmap of too many runs")
        ranges.add(origin + ones.start(), origin + ones.end())
    return ranges


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(payload: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = payload[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
