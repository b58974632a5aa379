"""Laws of cutting records into requests: none is lost, none is in two, and no request exceeds a limit."""

from collections import defaultdict
from dataclasses import dataclass, field, replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.batching import BATCH_BYTES, CHUNK_BYTES, RECORD_BYTES, Batch, Batcher, BatchLimits, wire_size
from connector.core.chunks import Chunk, Partition, locate, source_bytes
from connector.trackly.operations import Operation, Rules
from tests.core.making import A, B, C, batch, chunk, positions, rising, rows

LISTS = ("+18005550001", "+18005550002", "+18005550003")


@dataclass
class Poured:
    """What went into a batcher, and the batches that came out."""

    batcher: Batcher
    went_in: dict[str | None, list[tuple[Partition, int]]] = field(default_factory=lambda: defaultdict(list))
    came_out: list[Batch] = field(default_factory=list)


@st.composite
def poured(draw: st.DrawFn, *, drain: bool = True) -> Poured:
    """Draw limits, lanes, partitions, sizes and times, and pour it all through a batcher."""
    limits = BatchLimits(
        max_records=draw(st.integers(1, 7)),
        max_bytes=draw(st.integers(30, 90)),
        window_secs=draw(st.sampled_from([0.0, 1.0, 5.0])),
        envelope_bytes=draw(st.integers(0, 20)),
    )
    largest = limits.max_bytes - limits.envelope_bytes
    run = Poured(Batcher(limits, "p"))
    now, ends = 0.0, {A: 0, B: 0, C: 0}
    for _ in range(draw(st.integers(1, 12))):
        lane, partition = draw(st.sampled_from([None, "x", "y"])), draw(st.sampled_from([A, B, C]))
        sizes = draw(st.lists(st.integers(0, largest), min_size=1, max_size=10))
        offsets = range(ends[partition], ends[partition] + len(sizes))
        ends[partition] = offsets.stop
        now += draw(st.sampled_from([0.0, 0.5, 2.0]))
        run.went_in[lane] += [(partition, offset) for offset in offsets]
        run.came_out += run.batcher.add(lane, chunk(partition, offsets, sizes=sizes), now=now)
        if draw(st.booleans()):
            run.came_out += run.batcher.due(now=now)
    if drain:
        run.came_out += run.batcher.drain()
    return run


@given(poured())
def test_nothing_is_lost_or_duplicated_and_order_is_kept(run: Poured) -> None:
    came_out: defaultdict[str | None, list[tuple[Partition, int]]] = defaultdict(list)
    for made in run.came_out:
        came_out[made.lane] += positions(made.chunks)

    assert came_out == run.went_in
    assert (run.batcher.open_records, run.batcher.open_bytes) == (0, 0)


@given(poured())
def test_no_batch_passes_a_limit(run: Poured) -> None:
    limits = run.batcher.limits
    for made in run.came_out:
        assert 1 <= made.count <= limits.max_records
        assert made.size <= limits.max_bytes


@given(poured())
def test_a_batch_knows_its_count_and_its_bytes(run: Poured) -> None:
    for made in run.came_out:
        assert made.count == len(positions(made.chunks))
        assert made.size == wire_size(made.chunks, run.batcher.limits.envelope_bytes)


@given(poured())
def test_a_batch_that_closed_by_a_limit_had_no_room_for_the_next_record(run: Poured) -> None:
    """Requests are as full as possible, because each has a fixed cost."""
    limits = run.batcher.limits
    by_lane = defaultdict(list)
    for made in run.came_out:
        by_lane[made.lane].append(made)
    for made_of_lane in by_lane.values():
        for made, after in zip(made_of_lane, [*made_of_lane[1:], None], strict=True):
            if made.closed_by == "count":
                assert made.count == limits.max_records
            elif made.closed_by == "bytes":
                assert after is not None
                first = (after.chunks[0].wire or [])[0]
                assert made.size + 1 + len(first) > limits.max_bytes


@given(poured())
def test_ids_and_families_are_never_given_twice(run: Poured) -> None:
    ids = [made.id for made in run.came_out] + [run.batcher.next_id()[0]]

    assert len(set(ids)) == len(ids)
    assert len({made.family for made in run.came_out}) == len(run.came_out)


@given(poured(drain=False))
def test_what_is_open_is_counted(run: Poured) -> None:
    gone = len(positions(piece for made in run.came_out for piece in made.chunks))
    left = run.batcher.drain()

    assert run.batcher.open_records == 0
    assert sum(made.count for made in left) + gone == sum(map(len, run.went_in.values()))


@given(poured(drain=False))
def test_keeping_drops_whole_partitions_and_counts_what_is_left(run: Poured) -> None:
    before = [position for lane in run.went_in.values() for position in lane]
    gone = set(positions(piece for made in run.came_out for piece in made.chunks))

    run.batcher.keep(lambda piece: piece.partition != B)

    wanted = [position for position in before if position not in gone and position[0] != B]
    counted = (run.batcher.open_records, run.batcher.open_bytes)
    left = run.batcher.drain()
    assert sorted(positions(piece for made in left for piece in made.chunks)) == sorted(wanted)
    assert counted == (len(wanted), sum(wire_size(made.chunks, 1) for made in left))
    assert run.batcher.next_deadline() is None


def test_what_events_were_made_of_and_their_headers_are_counted_while_a_batch_is_open() -> None:
    batcher = Batcher(BatchLimits(10, 1_000, 1.0, 0), "p")
    made = replace(chunk(A, range(2)), values=[b"x" * 100_000] * 2)
    batcher.add(None, made, now=0.0)
    batcher.add(None, replace(chunk(B), headers=[[("h", b"v" * 100_000)]], header_bytes=-1), now=0.0)
    counted = batcher.open_bytes
    batcher.keep(lambda piece: piece.partition != B)
    kept = batcher.open_bytes
    batcher.drain()

    assert 300_000 < counted < 301_000
    assert 200_000 < kept < 201_000
    assert batcher.open_bytes == 0


# ------------------------------------------------------------------ the real body


@given(
    st.lists(st.tuples(st.sampled_from(LISTS), st.integers(0, 60)), min_size=1, max_size=40),
    st.booleans(),
    st.integers(400, 600),
)
def test_the_real_body_never_passes_the_byte_limit(
    texts: list[tuple[str, int]], top_level: bool, max_bytes: int
) -> None:
    operation = Operation("send", Rules(top_level_list=top_level, max_body_bytes=max_bytes))
    batcher = Batcher(BatchLimits(1_000, max_bytes, 1.0, operation.envelope_bytes), "b")
    values: list[bytes | None] = [
        msgspec.json.encode({"to": f"+1415555{at:04}", "list_number": number, "body": "t" * (length + 1)})
        for at, (number, length) in enumerate(texts)
    ]

    made: list[Batch] = []
    for lane, ready in operation.prepare(Chunk(A, 1, range(len(values)), values), now_ms=0).lanes:
        made += batcher.add(lane, ready, now=0.0)
    made += batcher.drain()

    sent = []
    for one in made:
        body = b"".join(operation.body(one))
        assert len(body) <= one.size <= max_bytes
        assert top_level or len(body) == one.size
        request = msgspec.json.decode(body)
        sent += [(message["to"], message.get("list_number", one.lane)) for message in request["messages"]]
    assert sorted(sent) == sorted((f"+1415555{at:04}", number) for at, (number, _) in enumerate(texts))


@given(st.lists(st.integers(100, 3_000), min_size=1, max_size=30), st.integers(4_000, 9_000), st.booleans())
def test_small_and_large_records_make_the_same_bodies(sizes: list[int], max_bytes: int, again: bool) -> None:
    """Small records are joined when they arrive, large ones when they are posted, and both again on a retry."""
    operation = Operation("send", Rules(max_body_bytes=max_bytes))
    batcher = Batcher(BatchLimits(1_000, max_bytes, 1.0, operation.envelope_bytes), "b")

    made = batcher.add(None, chunk(offsets=range(len(sizes)), sizes=sizes), now=0.0) + batcher.drain()

    for one in made:
        wire = [record for piece in one.chunks for record in piece.wire or ()]
        for _ in range(1 + again):
            body = b"".join(operation.body(one))
            assert body == b'{"messages":[' + b",".join(wire) + b"]}"
            assert len(body) == one.size <= max_bytes
    assert sum(one.count for one in made) == len(sizes)


# ------------------------------------------------------------------ windows and limits, one by one


def test_a_batch_closes_when_its_first_record_has_waited_for_the_window() -> None:
    batcher = Batcher(BatchLimits(10, 1_000, 5.0, 2), "b")
    batcher.add(None, chunk(offsets=[0]), now=100.0)
    batcher.add(None, chunk(offsets=[1]), now=104.9)

    assert batcher.next_deadline() == 105.0
    assert batcher.due(now=104.9) == []
    (made,) = batcher.due(now=105.0)
    assert (made.closed_by, made.count) == ("window", 2)
    assert batcher.next_deadline() is None
    assert batcher.due(now=200.0) == []


def test_the_oldest_batches_past_their_window_close_and_others_keep_filling() -> None:
    batcher = Batcher(BatchLimits(10, 1_000, 5.0, 2), "b")
    batcher.add("late", chunk(offsets=[0]), now=3.0)
    batcher.add("later", chunk(offsets=[1]), now=4.0)
    batcher.add("first", chunk(offsets=[2]), now=1.0)

    assert batcher.due(now=20.0, at_most=0) == []
    assert [made.lane for made in batcher.due(now=20.0, at_most=2)] == ["first", "late"]
    batcher.add("later", chunk(offsets=[5]), now=20.0)
    (made,) = batcher.due(now=20.0, at_most=2)

    assert (made.lane, made.count, made.closed_by) == ("later", 2, "window")


def test_each_lane_has_its_own_window() -> None:
    batcher = Batcher(BatchLimits(10, 1_000, 5.0, 2), "b")
    batcher.add("x", chunk(offsets=[0]), now=1.0)
    batcher.add("y", chunk(offsets=[1]), now=3.0)

    assert batcher.next_deadline() == 6.0
    assert [made.lane for made in batcher.due(now=7.0)] == ["x"]
    assert batcher.next_deadline() == 8.0


def test_the_first_record_always_fits() -> None:
    """It was checked before; a limit that was lowered since must not keep it here forever."""
    batcher = Batcher(BatchLimits(10, 1_000, 5.0, 2), "b")
    batcher.byte_limit.limit = 20

    closed = batcher.add(None, chunk(offsets=[0, 1], sizes=[500, 500]), now=0.0)

    assert [made.count for made in closed + batcher.drain()] == [1, 1]


def test_a_lowered_limit_applies_to_later_records() -> None:
    batcher = Batcher(BatchLimits(10, 1_000, 5.0, 2), "b")
    batcher.add(None, chunk(offsets=[0, 1], sizes=[100, 100]), now=0.0)

    batcher.byte_limit.limit = 150

    closed = batcher.add(None, chunk(offsets=[2, 3, 4], sizes=[70, 70, 70]), now=0.0)
    assert [(made.count, made.closed_by) for made in closed] == [(2, "bytes"), (2, "bytes")]
    assert batcher.open_records == 1


def test_a_batch_that_is_just_full_closes_at_once() -> None:
    batcher = Batcher(BatchLimits(3, 1_000, 5.0, 2), "b")

    (made,) = batcher.add(None, chunk(offsets=range(3)), now=0.0)

    assert (made.closed_by, made.count, batcher.open_records) == ("count", 3, 0)


# ------------------------------------------------------------------ cutting a batch


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Draw a batch of several chunks, some of one partition."""
    parts = draw(st.lists(st.tuples(st.sampled_from([A, B, C]), rising(max_size=8)), min_size=1, max_size=4))
    return batch(
        *[chunk(where, [300 * at + offset for offset in offsets]) for at, (where, offsets) in enumerate(parts)]
    )


@given(batches(), st.sets(st.integers(0, 31)))
def test_a_split_parts_the_records_and_keeps_their_order(whole: Batch, wanted: set[int]) -> None:
    indices = sorted(index for index in wanted if index < whole.count)

    chosen, others = whole.split(indices)

    every = list(rows(whole.chunks))
    assert list(rows(chosen)) == [every[index] for index in indices]
    assert list(rows(others)) == [row for index, row in enumerate(every) if index not in wanted]
    assert all(len(piece) for piece in chosen + others)


@given(batches(), st.sets(st.integers(0, 31)), st.sets(st.integers(0, 31)))
def test_a_record_that_was_split_off_knows_its_index_in_the_request(
    whole: Batch, wanted: set[int], again: set[int]
) -> None:
    index_of = {row: index for index, row in enumerate(rows(whole.chunks))}

    chosen, others = whole.split(sorted(index for index in wanted if index < whole.count))
    parts = [*chosen, *others]
    if chosen:
        twice, rest = batch(*chosen).split(sorted(index for index in again if index < sum(map(len, chosen))))
        parts += [*twice, *rest]

    for piece in parts:
        assert piece.indices is not None
        assert list(piece.indices) == [index_of[row] for row in rows([piece])]


@given(batches(), st.integers(1, 9))
def test_parts_are_as_large_as_each_other_and_none_is_empty(whole: Batch, number: int) -> None:
    parts = whole.parts(number)

    assert [row for part in parts for row in rows(part)] == list(rows(whole.chunks))
    counts = [sum(map(len, part)) for part in parts]
    assert len(counts) == min(number, whole.count)
    assert max(counts) - min(counts) <= 1
    assert all(len(piece) for part in parts for piece in part)


@given(batches())
def test_a_record_is_located_by_its_index(whole: Batch) -> None:
    found = []
    for index in range(whole.count):
        piece, at = locate(whole.chunks, index)
        found.append((piece.partition, piece.offsets[at]))

    assert found == positions(whole.chunks)
    with pytest.raises(IndexError):
        locate(whole.chunks, whole.count)


def test_bytes_of_no_records_are_those_of_the_envelope() -> None:
    assert wire_size([], 7) == 7


@given(batches(), st.sets(st.sampled_from([A, B, C])))
def test_only_chunks_that_are_wanted_stay_and_a_batch_of_nothing_but_those_is_itself(
    whole: Batch, wanted: set[Partition]
) -> None:
    """What is counted out for a batch has to be what was counted in."""
    enveloped = replace(whole, size=whole.size + 9)

    left = enveloped.only(lambda piece: piece.partition in wanted)

    there = [piece for piece in whole.chunks if piece.partition in wanted]
    if len(there) == len(whole.chunks):
        assert left is enveloped
    elif not there:
        assert left is None
    else:
        assert left is not None
        assert list(rows(left.chunks)) == list(rows(there))
        assert (left.id, left.family, left.count) == (whole.id, whole.family, sum(map(len, there)))
        assert left.size == wire_size(there, 9)
        assert left.bytes == batch(*there, envelope=9).bytes


@given(batches(), st.dictionaries(st.sampled_from([A, B]), st.none() | st.integers(0, 1_200)))
def test_a_batch_that_is_cut_is_two_with_the_records_below_the_cuts_and_all_others(
    whole: Batch, cuts: dict[Partition, int | None]
) -> None:
    whole.attempts, whole.sent_ms = 3, 5

    first, rest = whole.cut(cuts)

    def is_below(position: tuple[Partition, int]) -> bool:
        cut = cuts.get(position[0])
        return cut is None or position[1] < cut

    every = positions(whole.chunks)
    assert positions(first.chunks if first else ()) == [each for each in every if is_below(each)]
    assert positions(rest.chunks if rest else ()) == [each for each in every if not is_below(each)]
    if first is None or rest is None:
        assert (first or rest) is whole
    else:
        assert (first.id, rest.id) == ("t-1.0", "t-1.1")
        for part in (first, rest):
            assert (part.attempts, part.sent_ms, part.family) == (3, 5, whole.family)
            assert (part.count, part.size) == (sum(map(len, part.chunks)), wire_size(part.chunks, 0))
            assert part.bytes == batch(*part.chunks).bytes
            assert all(piece.indices is None for piece in part.chunks), "it is a request of its own"


def test_bytes_of_a_batch_are_its_records_what_they_were_made_of_and_its_objects() -> None:
    piece = chunk(A, range(3))
    made = replace(piece, values=[b"x" * 100] * 3)

    one, mapped, two = batch(piece, envelope=7), batch(made), batch(piece, chunk(B, [0]))

    assert one.bytes == one.size + 3 * RECORD_BYTES + CHUNK_BYTES + BATCH_BYTES
    assert mapped.bytes - batch(piece).bytes == source_bytes(made) > 300
    assert two.bytes == two.size + 4 * RECORD_BYTES + 2 * CHUNK_BYTES + BATCH_BYTES
