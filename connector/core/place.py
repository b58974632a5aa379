"""Where the record is that the committed offset of a partition waits for: the answer to "why does it not advance"."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from connector.core.batching import Batch
from connector.core.chunks import Chunk
from connector.core.partition import PartitionState
from connector.core.results import Finished

PlaceName = Literal["unread", "ready", "no_room", "waiting", "posted", "answered", "elsewhere"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the record at the committed offset is; `elsewhere` is an open batch or a running tick."""

    name: PlaceName
    batch_id: str = ""
    attempts: int = 0
    until: float = 0.0
    """When a batch that waits may be retried."""


def place_of_oldest(
    state: PartitionState,
    *,
    answered: Iterable[Finished],
    posted: Iterable[Batch],
    waiting: Iterable[tuple[float, Batch]],
    ready: Iterable[Batch],
    has_room: bool,
) -> Place:
    """Return where the first unsettled record of a partition is; searches everything that is given."""
    if state.base >= state.next_read:
        return Place("unread")

    def holds(chunks: Iterable[Chunk]) -> bool:
        return any(_holds(chunk, state) for chunk in chunks)

    for item in answered:
        if holds(item.chunks):
            return Place("answered", item.batch_id, item.attempts)
    for batch in posted:
        if holds(batch.chunks):
            return Place("posted", batch.id, batch.attempts)
    for at, batch in waiting:
        if holds(batch.chunks):
            return Place("waiting", batch.id, batch.attempts, at)
    for batch in ready:
        if holds(batch.chunks):
            return Place("ready" if has_room else "no_room", batch.id, batch.attempts)
    return Place("elsewhere")


def _holds(chunk: Chunk, state: PartitionState) -> bool:
    if (chunk.partition, chunk.epoch) != (state.partition, state.epoch):
        return False
    at = bisect_left(chunk.offsets, state.base)
    return at < len(chunk) and chunk.offsets[at] == state.base
