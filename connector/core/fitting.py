"""What a tick commits for each partition: everything, or as much as fits into the metadata, and where it is cut.

The metadata of a committed offset has limited room. What does not fit is left out of a tick in an order that never ends
in a standstill: results go before records that start, because they make room, and of both the oldest go first.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from connector.core.chunks import Partition
from connector.core.metadata_room import ROOM_FOR_THE_OLDEST, ROOM_TO_SETTLE, MetadataRoom
from connector.core.partition import PartitionState
from connector.core.progress import Progress, encode
from connector.core.ranges import Range


@dataclass(frozen=True, slots=True)
class PlannedCommit:
    """What a tick would commit for a partition, and the offsets below which it takes results and batches.

    None in place of a cut: all of them.
    """

    progress: Progress
    metadata: str
    settle_cut: int | None = None
    start_cut: int | None = None
    stuck: bool = False
    """There is no room for results either, except for those of the record at the committed offset."""

    def fits(self, characters: int, share: float) -> bool:
        """Return whether the metadata fits into this share of so many characters."""
        return len(self.metadata) <= int(characters * share)


NOTHING_PLANNED: Final = PlannedCommit(Progress(0), "", 0, 0)


def plan_commits(
    states: Iterable[PartitionState],
    settled: Mapping[Partition, list[Range]],
    started: Mapping[Partition, list[Range]],
    *,
    mark: int,
    room: MetadataRoom,
    characters: int,
    changed: Collection[Partition],
    written: Collection[Partition] = (),
) -> tuple[dict[Partition, PlannedCommit], dict[Partition, PlannedCommit]]:
    """Return what to commit for each partition, in `characters` each, and the cuts for those where not all fits.

    For partitions in `written`, results and progress are fixed already: there all batches start, or none. Those that
    have `changed` are committed even if no result and no batch of them fits.
    """
    fits: dict[Partition, PlannedCommit] = {}
    cuts: dict[Partition, PlannedCommit] = {}
    for state in states:
        partition = state.partition
        if partition in written and partition in room.full_for_retries:
            cuts[partition] = NOTHING_PLANNED  # its results alone fill the metadata
            continue
        done, begun = settled.get(partition, []), started.get(partition, [])
        state.reach(max([state.committed.in_flight.stop, *(stop for _, stop in (*done, *begun))]))
        planned = plan_commit(state, done, begun, mark=mark)
        if not planned.fits(characters, room.room_to_start(partition) if begun else ROOM_TO_SETTLE):
            if partition in written:
                planned = NOTHING_PLANNED
            else:
                planned = plan_what_fits(
                    state, done, begun, mark=mark, characters=characters, changed=partition in changed
                )
            cuts[partition] = planned
            room.note(partition, stuck=planned.stuck)
        if planned.metadata:
            fits[partition] = planned
    return fits, cuts


def plan_commit(
    state: PartitionState, settled: Sequence[Range], started: Sequence[Range], *, mark: int, cut: int | None = None
) -> PlannedCommit:
    """Return the progress as it will be after the tick; from `cut` on, as it is committed now."""
    after = state.settled.copy()
    after.update(settled)
    in_flight = state.in_flight()
    in_flight.update(started)
    for start, stop in settled:
        in_flight.discard(start, stop)
    if cut is not None:
        for now, before in ((after, state.committed.settled), (in_flight, state.committed.in_flight)):
            now.discard(cut, max(now.stop, cut))
            now.update((max(start, cut), stop) for start, stop in before)  # below the cut, these are no ranges
    base = after.advance(state.base)
    progress = Progress(base, state.birth, mark, after, in_flight)
    return PlannedCommit(progress, encode(progress), cut, cut)


def plan_what_fits(
    state: PartitionState,
    settled: Sequence[Range],
    started: Sequence[Range],
    *,
    mark: int,
    characters: int,
    changed: bool,
) -> PlannedCommit:
    """Return the progress with as much of a tick as fits into so many `characters`, the oldest first.

    Results go before records that start, because they make room. If no result fits, the batch at the committed offset
    starts, or as much of it as fits: once it is settled, the offset advances. Listing what is no longer in flight is
    safe; results that are left out stay queued. If neither is possible, the result is what has `changed` otherwise, or
    nothing.
    """

    def largest(
        cuts: list[int], share: float, plan_at: Callable[[int], PlannedCommit], *, least: bool
    ) -> PlannedCommit:
        return _largest(cuts, plan_at, lambda planned: planned.fits(characters, share), least=least)

    planned = plan_commit(state, settled, [], mark=mark)
    if settled:
        if not planned.fits(characters, ROOM_TO_SETTLE):
            planned = largest(
                sorted(stop for _, stop in settled),
                ROOM_TO_SETTLE,
                lambda cut: plan_commit(state, _clip(settled, cut), [], mark=mark, cut=cut),
                least=min(settled)[0] == state.base,  # results at the committed offset only shorten the metadata
            )
        if planned.metadata:
            return replace(planned, start_cut=0)
    begun, stuck = sorted(started), bool(settled)
    if begun and begun[0][0] == state.base:
        planned = largest(
            [state.base + 1, *(stop for _, stop in begun)],
            ROOM_FOR_THE_OLDEST,
            lambda cut: plan_commit(state, [], _clip(begun, cut), mark=mark, cut=cut),
            least=True,
        )
        return replace(planned, settle_cut=0, stuck=stuck)
    if changed and planned.fits(characters, ROOM_TO_SETTLE):
        return replace(planned, settle_cut=0, start_cut=0, stuck=stuck)
    return replace(NOTHING_PLANNED, stuck=stuck)


def _largest(
    cuts: list[int], plan_at: Callable[[int], PlannedCommit], fits: Callable[[PlannedCommit], bool], *, least: bool
) -> PlannedCommit:
    """Return `plan_at` of the largest of the ascending `cuts` that fits, by bisection.

    If none fits: nothing, or with `least` that of the first cut all the same.
    """
    best, low, high = plan_at(cuts[0]) if least else NOTHING_PLANNED, 0, len(cuts)
    while low < high:
        middle = (low + high) // 2
        planned = plan_at(cuts[middle])
        if fits(planned):
            best, low = planned, middle + 1
        else:
            high = middle
    return best


def _clip(ranges: Iterable[Range], cut: int) -> list[Range]:
    """Return the part of the ranges that lies below `cut`."""
    return [(start, min(stop, cut)) for start, stop in ranges if start < cut]
