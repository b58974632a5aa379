"""How far a redrive has come in a partition, and how this is stored in the metadata of a commit.

Below the committed offset everything is dealt with; above it there are ranges that are dealt with as well, between
records that were left and will be looked at again. The metadata also has the identity of the selection, since another
selection under the same name would skip what this one left.
"""

import re
from dataclasses import dataclass, field

from connector.core.progress import MAX_METADATA, ForeignMetadataError, Progress, decode, encode
from connector.core.ranges import RangeSet

_METADATA = re.compile(r"([^~]*)~([0-9a-f]{16})")
_ROOM = MAX_METADATA - 17


@dataclass(frozen=True, slots=True)
class Place:
    """Progress in one partition: `selection` is the one that it belongs to, empty before there is any."""

    base: int = 0
    settled: RangeSet = field(default_factory=RangeSet)
    selection: str = ""

    @property
    def done(self) -> tuple[int, RangeSet]:
        """The offset below which everything is dealt with, and the ranges above it."""
        return self.base, self.settled


def read_place(offset: int | None, metadata: str) -> Place:
    """Return what was committed; raises `ForeignMetadataError` if somebody else committed."""
    if offset is None:
        return Place()
    match = _METADATA.fullmatch(metadata)
    if match is None:
        raise ForeignMetadataError("what is committed was not written by a redrive")
    progress = decode(offset, match[1])
    return Place(offset, progress.settled, match[2])


def place_at(before: Place, at: int, leave: RangeSet, selection: str) -> tuple[int, str]:
    """Return offset and metadata for when all below `at` is dealt with, except what is left.

    Records that the metadata has no room for are forgotten, the oldest first: they are not looked at again under this
    name.
    """
    settled = before.settled.copy()
    settled.add(before.base, at)
    for start, stop in leave:
        settled.discard(start, stop)
    settled.update(before.settled)  # by another run under this name, since this one was planned
    base = settled.advance(before.base)
    while True:
        metadata = encode(Progress(base, settled=settled))
        if len(metadata) <= _ROOM or not len(settled):
            return base, f"{metadata}~{selection}"
        ranges = list(settled)
        base = settled.advance(ranges[len(ranges) // 8][0])
