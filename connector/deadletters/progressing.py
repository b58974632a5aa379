"""How far a redrive has come in a partition, and how that is said in the metadata of a commit.

Below the committed offset all is dealt with; above it stand ranges that are dealt with as well, between records that
were left and are to be looked at again. Behind that stands which selection the redrive was begun with, since another
selection under the same name would pass over what this one left.
"""

import re
from dataclasses import dataclass, field

from connector.core.progress import MAX_METADATA, ForeignMetadataError, Progress, RangeSet, decode, encode

_METADATA = re.compile(r"([^~]*)~([0-9a-f]{16})")
_ROOM = MAX_METADATA - 17


@dataclass(frozen=True, slots=True)
class Place:
    """Progress in one partition: `selection` is the one it was made under, empty before there is any."""

    base: int = 0
    settled: RangeSet = field(default_factory=RangeSet)
    selection: str = ""

    @property
    def done(self) -> tuple[int, RangeSet]:
        """Below which offset, and which above it, all is dealt with."""
        return self.base, self.settled


def read_place(offset: int | None, metadata: str) -> Place:
    """Return what was committed; raises `ForeignMetadataError` where somebody else did."""
    if offset is None:
        return Place()
    match = _METADATA.fullmatch(metadata)
    if match is None:
        raise ForeignMetadataError("what is committed was not written by a redrive")
    progress = decode(offset, match[1])
    return Place(offset, progress.settled, match[2])


def place_at(before: Place, at: int, leave: RangeSet, selection: str) -> tuple[int, str]:
    """Return offset and metadata once all below `at` is dealt with, but for what is left.

    What no metadata has room for is forgotten from the oldest on: it is not looked at again under this name.
    """
    settled = before.settled.copy()
    settled.add(before.base, at)
    for start, stop in leave:
        settled.discard(start, stop)
    settled.update(before.settled)  # by another run under this name, since this one looked at what to leave
    base = settled.advance(before.base)
    while True:
        metadata = encode(Progress(base, settled=settled))
        if len(metadata) <= _ROOM or not len(settled):
            return base, f"{metadata}~{selection}"
        ranges = list(settled)
        base = settled.advance(ranges[len(ranges) // 8][0])
