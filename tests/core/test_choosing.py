"""Laws of what goes into a tick: nothing is lost or changes its turn on the way, and no bound is passed."""

from collections import deque
from dataclasses import dataclass, field, replace
from itertools import count

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from connector.core.batching import Batch
from connector.core.choosing import Chooser, take_results
from connector.core.chunks import Chunk, Partition
from connector.core.metadata_room import MetadataRoom
from connector.core.results import OUTCOME_BYTES, Finished
from connector.core.sizing import SizeLimit
from connector.core.starting import StartQueue
from connector.core.verdicts import QUEUED, Verdict, Verdicts
from tests.core.making import A, B, Position, batch, chunk, positions

DEAD = Verdict("dead_letter", "invalid_phone")
NOBODY: frozenset[Partition] = frozenset()


def room(*, full: set[Partition] | None = None, oldest: Position = (A, -1)) -> MetadataRoom:
    """Return what is known of metadata without room, where the record that a committed offset waits for is `oldest`."""
    made = MetadataRoom(lambda piece: (piece.partition, piece.offsets[0]) == oldest)
    for partition in full or ():
        made.note(partition)
    return made


@dataclass
class Choosing:
    """A queue of batches, and what is under way."""

    room: MetadataRoom = field(default_factory=room)
    queue: StartQueue = field(default_factory=StartQueue)
    size: SizeLimit = field(default_factory=SizeLimit)
    active: dict[int, Batch] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chooser = Chooser(self.queue, self.room, self.size, count(1))

    def queued(self) -> list[Batch]:
        return [*self.queue.ready, *(one for _, one in self.queue.retries())]

    def start(self, *, slots: int, max_records: int = 1_000, trial: bool = False) -> list[tuple[int, Batch]]:
        """Choose, check that nothing was lost or counted wrongly, and have what was chosen under way."""
        before = self.queued()
        choice = self.chooser.choose(
            self.active,
            records=sum(one.count for one in self.active.values()),
            max_records=max_records,
            slots=slots,
            now=1.0,
            trial=trial,
        )
        after = [*self.queued(), *(one for _, one in choice.start)]
        assert where(after) == where(before)
        assert choice.added_bytes == sum(one.bytes for one in after) - sum(one.bytes for one in before)
        self.active |= dict(choice.start)
        return choice.start


def where(batches: list[Batch]) -> list[Position]:
    return sorted(position for one in batches for position in positions(one.chunks))


@st.composite
def choosing(draw: st.DrawFn) -> Choosing:
    """Draw a queue of new batches, failed ones and suspects, in two partitions that may be full."""
    made = Choosing(room(full=draw(st.sets(st.sampled_from([A, B]))), oldest=(A, draw(st.integers(0, 40)))))
    for partition in draw(st.sets(st.sampled_from([A, B]))) & made.room.full:
        made.room.note(partition, stuck=draw(st.booleans()))
    if draw(st.booleans()):
        made.size.answered(draw(st.integers(1, 3)), now=0.0)
        made.size.lost(1_000, began=-1.0, due=0.0, now=0.0)
    at = 0
    for kind in draw(st.lists(st.sampled_from(["ready", "ready", "failed", "suspect"]), max_size=7)):
        sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=2))
        pieces = []
        for size in sizes:
            pieces.append(chunk(draw(st.sampled_from([A, B])), range(at, at + size)))
            at += size
        one = batch(*pieces, batch_id=f"{at}", envelope=10, family=100 + at)
        if kind == "ready":
            made.queue.ready.append(one)
        else:
            one.sent_ms, one.suspect = 1, kind == "suspect"
            made.queue.again(one, at=0.0)
    return made


@given(choosing(), st.integers(0, 5), st.integers(1, 12), st.booleans())
def test_no_bound_is_passed_and_what_does_not_start_stays_queued(
    made: Choosing, slots: int, max_records: int, trial: bool
) -> None:
    begun: list[tuple[int, Batch]] = []
    for _ in range(3):
        free = max(slots - len(made.active), 0)
        limit, is_larger = made.size.limit, any(one.count > (made.size.limit or 99) for one in made.active.values())
        started = made.start(slots=free, max_records=max_records, trial=trial)
        begun += started

        assert len(started) <= free
        assert sum(one.count for one in made.active.values()) <= max_records or len(made.active) == 1
        assert sum(one.suspect for one in made.active.values()) <= max(slots // 2, 1)
        assert not trial or all(one.count == 1 for _, one in started)
        if limit is not None:
            larger = [one for _, one in started if one.count > limit]
            assert len(larger) <= (not is_larger)
            assert all(one.count <= 2 * limit and not one.was_posted for one in larger)
    serials = [serial for serial, _ in begun]
    assert sorted(set(serials)) == serials
    event(f"{len(begun)} started")


@given(choosing(), st.integers(1, 5))
def test_of_a_full_partition_only_the_oldest_starts_and_what_was_posted_and_one_witness(
    made: Choosing, slots: int
) -> None:
    """A witness is a single record, and a family of its own, since it tells of no other."""
    full, no_retries = made.room.full, made.room.full_for_retries
    started = made.start(slots=slots)

    witnesses = []
    for serial, one in started:
        crowded = [piece for piece in one.chunks if piece.partition in full]
        if any(made.room._is_oldest(piece) for piece in crowded):
            continue
        assert not any(piece.partition in no_retries for piece in crowded)
        if crowded and not one.was_posted:
            witnesses.append((serial, one))
    assert len(witnesses) <= 1
    for serial, one in witnesses:
        assert (one.count, one.family) == (1, -serial)


def test_of_a_batch_that_is_too_large_the_part_starts_that_has_the_oldest_record_without_which_none_may() -> None:
    """Of any other part nothing would fit: it would be taken back, and chosen again in the next tick."""
    made = Choosing(room(full={A, B}, oldest=(A, 2)))
    made.size.answered(1, now=0.0)
    made.size.lost(1_000, began=-1.0, due=0.0, now=0.0)
    made.queue.ready.append(batch(chunk(B, range(2)), chunk(A, range(2, 5))))

    [(_, begun)] = made.start(slots=1)

    assert positions(begun.chunks) == [(A, 2), (A, 3)]
    assert [positions(one.chunks) for one in made.queued()] == [[(B, 0), (B, 1), (A, 4)]]


def test_there_is_no_other_witness_while_one_is_under_way() -> None:
    made = Choosing(room(full={A}))
    made.queue.ready.extend(batch(chunk(A, range(at, at + 3))) for at in (0, 10))
    begun = [[one.count for _, one in made.start(slots=3)] for _ in range(2)]
    made.active.clear()
    begun.append([one.count for _, one in made.start(slots=3)])

    assert begun == [[1], [], [1]]


def test_a_batch_without_room_that_was_taken_leaves_the_turn_to_its_kind() -> None:
    """And waits at the front, where it does not count as one that may start."""
    made = Choosing(room(full={A}))
    made.room.note(A)
    made.queue.ready.extend([batch(chunk(A, [0]), batch_id="crowded"), batch(chunk(B, [0]), batch_id="free")])
    for at in (5, 6):
        made.queue.again(replace(batch(chunk(B, [at]), batch_id="failed"), sent_ms=1), at=0.0)

    begun = [one.id for _ in range(2) for _, one in made.start(slots=1)]

    assert begun == ["failed", "free"]
    assert [one.id for one in made.queue.ready] == ["crowded"]
    assert made.queue.startable == 0


def test_what_was_posted_before_starts_in_a_full_partition_as_it_is() -> None:
    """It is listed anyway, and is no witness: its failures are its former batch's."""
    made = Choosing(room(full={A}))
    made.queue.again(replace(batch(chunk(A, range(3)), family=7), sent_ms=1), at=0.0)

    assert [(one.count, one.family) for _, one in made.start(slots=1)] == [(3, 7)]


@pytest.mark.parametrize(("max_records", "counts"), [(1, [3]), (4, [3]), (5, [3, 2]), (6, [3, 2, 1]), (7, [3, 2, 1])])
def test_as_many_records_start_as_may_be_in_flight_and_one_batch_always(max_records: int, counts: list[int]) -> None:
    made = Choosing()
    made.queue.ready.extend(batch(chunk(A, range(10 * count, 11 * count))) for count in (3, 2, 1))

    assert [one.count for _, one in made.start(slots=9, max_records=max_records)] == counts


def limited(made: Choosing) -> Choosing:
    """Have requests of two records answered, and larger ones lost."""
    made.size.answered(2, now=0.0)
    made.size.lost(1_000, began=-1.0, due=0.0, now=0.0)
    return made


@pytest.mark.parametrize(
    ("sent_ms", "trial", "expected"),
    [
        (0, False, [("b.t1", 4, -1), ("b.t2", 2, -2), ("b.t3", 2, -3), ("b", 1, 7)]),
        (1, False, [("b.t1", 2, 7), ("b.t2", 2, 7), ("b.t3", 2, 7), ("b.t4", 2, 7), ("b", 1, 7)]),
        (0, True, [("b.t1", 1, 7), ("b.t2", 1, 7)]),
    ],
    ids=["new", "posted", "trial"],
)
def test_parts_of_a_new_batch_are_families_of_their_own_and_the_rest_keeps_its_id(
    sent_ms: int, trial: bool, expected: list[tuple[str, int, int]]
) -> None:
    """What was posted together, or is one record to try the platform with, may share a fault with the rest."""
    made = limited(Choosing())
    one = replace(batch(chunk(A, range(9)), batch_id="b", family=7), sent_ms=sent_ms)
    made.queue.put_back([one])

    begun = made.start(slots=2 if trial else 9, trial=trial)

    assert [(one.id, one.count, one.family) for _, one in begun] == expected


def test_no_other_batch_tries_for_more_while_one_is_under_way() -> None:
    made = limited(Choosing())
    made.queue.ready.extend(batch(chunk(A, range(at, at + 4))) for at in (0, 10))
    counts = [[one.count for _, one in made.start(slots=1)] for _ in range(2)]
    made.active.clear()
    made.queue.ready.append(batch(chunk(A, range(20, 24))))
    counts.append([one.count for _, one in made.start(slots=2)])

    assert counts == [[4], [2], [2, 4]]


def test_suspects_may_be_half_of_the_requests_and_one_always_may() -> None:
    made = Choosing()
    none_waits = made.chooser.room_for_suspects({}, 8)
    made.queue.again(replace(batch(chunk(A, [0])), suspect=True), at=0.0)
    under_way = {at: replace(batch(chunk(A, [at])), suspect=at < 2) for at in range(4)}

    assert none_waits == 0
    assert [made.chooser.room_for_suspects(under_way, slots) for slots in (0, 1, 4)] == [0, 0, 2]
    assert [made.chooser.room_for_suspects({}, slots) for slots in (0, 1, 3, 4)] == [1, 1, 1, 2]
    assert [one.suspect for _, one in made.start(slots=1)] == [True]


# ------------------------------------------------------------------ results

ITEMS = st.lists(st.tuples(st.sampled_from([A, B]), st.integers(1, 4), st.sampled_from([QUEUED, DEAD])), max_size=8)


@given(ITEMS, st.integers(1, 10), st.integers(0, 15_000), st.sampled_from([NOBODY, {A}]), st.integers(0, 20))
@example(items=2 * [(B, 2, QUEUED)], max_records=4, max_bytes=4 * OUTCOME_BYTES, stuck=NOBODY, oldest=0)
@example(items=2 * [(B, 2, QUEUED)], max_records=4, max_bytes=4 * OUTCOME_BYTES - 1, stuck=NOBODY, oldest=0)
@example(items=2 * [(B, 2, QUEUED)], max_records=3, max_bytes=4 * OUTCOME_BYTES, stuck=NOBODY, oldest=0)
@example(items=[*2 * [(A, 1, QUEUED)], (B, 1, DEAD)], max_records=9, max_bytes=9_000, stuck={A}, oldest=9)
def test_results_are_taken_in_order_within_the_limits_and_stuck_ones_wait_in_theirs(
    items: list[tuple[Partition, int, Verdict]], max_records: int, max_bytes: int, stuck: set[Partition], oldest: int
) -> None:
    pieces: list[Chunk] = []
    for partition, size, _ in items:
        at = sum(map(len, pieces))
        pieces.append(chunk(partition, range(at, at + size)))
    results = [Finished((p,), Verdicts(verdict)) for p, (_, _, verdict) in zip(pieces, items, strict=True)]
    there = room(oldest=(A, oldest))
    for partition in stuck:
        there.note(partition, stuck=True)
    finished = deque(results)

    settle = take_results(finished, there, max_records=max_records, max_bytes=max_bytes)

    may = [item for item in results if not (item.chunks[0].partition in stuck and item.chunks[0].offsets[0] != oldest)]
    assert settle == may[: len(settle)]
    assert list(finished) == [item for item in results if item not in settle]

    def fits(some: list[Finished]) -> bool:
        size = sum(item.written_bytes for item in some)
        return sum(item.count for item in some) <= max_records and size <= max_bytes

    assert len(settle) == min(len(may), 1) or fits(settle)
    assert len(settle) == len(may) or (settle and not fits(may[: len(settle) + 1]))
