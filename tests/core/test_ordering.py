"""Ordering by key: one record of each key at a time, the others behind it, and no state that is kept too long."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from connector.core.chunks import Chunk, Partition
from connector.core.ordering import ROW_BYTES, KeyQueues, LaneChunk
from connector.core.results import Finished
from connector.core.verdicts import QUEUED, Verdicts
from tests.core.making import A, B, Position, chunk, chunks, positions, rows

BATCH: Final = "t-1"


def keyed(keys: str, *, start: int = 0, partition: Partition = A, epoch: int = 1) -> Chunk:
    """Return a chunk with a key for each letter; `-` is none."""
    made = chunk(partition, range(start, start + len(keys)), epoch=epoch)
    made.keys = [None if key == "-" else key.encode() for key in keys]
    return made


def done(*chunks: Chunk, batch_id: str = BATCH) -> Finished:
    return Finished(chunks, Verdicts(QUEUED), batch_id)


def admitted(key_queues: KeyQueues, *pieces: Chunk, now: float = 0.0) -> list[int]:
    """Return the offsets of what may go on at once."""
    lanes: list[LaneChunk] = [(str(lane), piece) for lane, piece in enumerate(pieces)]
    return sorted(offset for _, piece in key_queues.admit(lanes, now=now) for offset in piece.offsets)


def test_a_chunk_of_new_keys_passes_unchanged() -> None:
    key_queues, piece = KeyQueues(), keyed("abc-d-")

    ((lane, gone),) = key_queues.admit([("list", piece)], now=0)

    assert lane == "list"
    assert gone is piece
    assert (key_queues.waiting_bytes, key_queues.waiting_records) == (0, 0)


def test_the_first_record_of_each_key_passes_and_those_without_a_key_never_wait() -> None:
    key_queues = KeyQueues()

    assert admitted(key_queues, keyed("aab-ba-")) == [0, 2, 3, 6]
    assert admitted(key_queues, keyed("ac-", start=7)) == [8, 9]
    assert key_queues.waiting_records == 4


def test_a_chunk_without_keys_passes_unchanged() -> None:
    key_queues, lanes = KeyQueues(), [("left", chunk(A, range(3))), ("right", chunk(A, range(3, 5)))]

    assert key_queues.admit(lanes, now=0) == lanes
    assert key_queues.admit([], now=0) == []


def test_offsets_ascend_in_what_is_released_together_in_any_order_of_keys() -> None:
    key_queues, first = KeyQueues(), keyed("abcdefgh")
    admitted(key_queues, first)
    assert admitted(key_queues, keyed("hdbfgaec", start=8)) == []

    (turn,) = key_queues.settled([done(first)])

    assert list(turn.chunk.offsets) == list(range(8, 16))


def test_a_key_is_free_when_the_result_of_its_record_is_committed_and_not_by_anything_else() -> None:
    key_queues, other = KeyQueues(), keyed("aa", partition=B)
    first = keyed("aaa")
    assert admitted(key_queues, first) == [0]

    assert key_queues.settled([done(keyed("a"), batch_id="")]) == [], (
        "a record that was never posted was in nobody's way"
    )
    assert key_queues.settled([done(keyed("a", epoch=2))]) == [], "nor was one of another assignment"
    assert key_queues.settled([done(other)]) == [], "or partition"
    (turn,) = key_queues.settled([done(first.slice(0, 1))])

    assert positions([turn.chunk]) == [(A, 1)]
    assert admitted(key_queues, keyed("a", start=3)) == [], "the next one has the key now"


def test_records_that_wait_behind_several_lanes_wait_in_offset_order() -> None:
    whole = keyed("aaaa")
    key_queues = KeyQueues()

    assert admitted(key_queues, whole.pick([1, 3]), whole.pick([0, 2])) == [0]

    order = []
    for offset in range(3):
        (turn,) = key_queues.settled([done(whole.slice(offset, offset + 1))])
        order += [(turn.lane, *turn.chunk.offsets)]
    assert order == [("0", 1), ("1", 2), ("0", 3)]


def test_a_record_is_released_with_all_its_columns() -> None:
    first, second = keyed("aab"), keyed("ab-", start=3)
    for piece in (first, second):
        piece.headers = [None, [("h", b"v")], None]
        piece.timestamps = [1, 2, 3]
        piece.lists = ["+1", "+2", "+3"]
        piece.oldest_ms = 7
    second.own_list = second.resent = True
    second.wire = [b"w3", b"w4", b"w5"]
    key_queues = KeyQueues()
    key_queues.admit([("x", first)], now=1)
    key_queues.admit([("x", second)], now=2)

    one, other = sorted(key_queues.settled([done(first)]), key=lambda turn: turn.since)

    assert (one.lane, one.since, other.since) == ("x", 1, 2)
    assert list(rows([one.chunk])) == list(rows([first.slice(1, 2)]))
    assert one.chunk.wire is one.chunk.values
    assert list(rows([other.chunk])) == list(rows([second.slice(1, 2)]))
    assert (one.chunk.lists, one.chunk.oldest_ms) == (["+2"], 7)


@given(chunks())
def test_records_come_out_unchanged_for_every_set_of_columns(drawn: Chunk) -> None:
    whole = replace(drawn, keys=[b"k"] * len(drawn), wire=drawn.wire or [b"w"] * len(drawn))
    key_queues = KeyQueues()

    out = [piece for _, piece in key_queues.admit([("x", whole)], now=0)]
    for _ in range(len(whole) - 1):
        out += [turn.chunk for turn in key_queues.settled([done(out[-1])])]

    assert list(rows(out)) == list(rows([whole]))
    for piece in out:
        assert (piece.timestamps is None, piece.lists is None) == (whole.timestamps is None, whole.lists is None)


def test_records_without_keys_release_no_other() -> None:
    key_queues = KeyQueues()
    admitted(key_queues, keyed("aa"))

    assert key_queues.settled([done(chunk(A, [5]))]) == []


def test_records_that_wait_under_a_continuing_assignment_are_kept() -> None:
    key_queues = KeyQueues()
    admitted(key_queues, keyed("aa", epoch=3))

    key_queues.keep(lambda piece: piece.epoch == 3)

    assert key_queues.waiting_records == 1


def test_what_waits_is_counted_and_forgotten_with_its_partition() -> None:
    key_queues = KeyQueues()
    key_queues.admit([(None, keyed("aaa"))], now=0)
    key_queues.admit([(None, keyed("bb", partition=B))], now=0)
    assert key_queues.waiting_bytes == 3 * ROW_BYTES + len(b"alpha@1alpha@2beta@1aab")

    key_queues.keep(lambda piece: piece.partition != A)
    assert key_queues.waiting_records == 1
    assert admitted(key_queues, keyed("b", partition=B, epoch=2)) == [0], "a new assignment begins anew"

    assert (key_queues.waiting_bytes, key_queues.waiting_records) == (0, 0)


def test_what_an_event_was_made_of_and_its_headers_are_counted_as_it_waits() -> None:
    """A text of a hundred bytes may be made of a value of a million."""
    first, second = keyed("aa"), keyed("aa", start=2)
    first.values, first.wire = [b"x" * 1_000_000] * 2, [b"short"] * 2
    second.headers, second.header_bytes = [[("h", b"v")], None], 5_000
    key_queues = KeyQueues()
    key_queues.admit([(None, first), (None, second)], now=0)
    counted = key_queues.waiting_bytes
    turns = [turn for piece in (first, second) for turn in key_queues.settled([done(piece)])]
    turns += key_queues.settled([done(turns[0].chunk)])

    assert 1_010_000 + 3 * ROW_BYTES < counted < 1_011_500
    assert (len(turns), key_queues.waiting_bytes) == (3, 0)


@given(st.lists(st.text("ab", min_size=1, max_size=6), max_size=6), st.integers(0, 6))
def test_a_released_partition_frees_its_share_of_the_budget(reads: list[str], ended: int) -> None:
    """Whatever came and went before; otherwise the budget would be used up by what no longer exists."""
    key_queues, start = KeyQueues(), 0
    on_the_way: list[Chunk] = []
    for keys in reads:
        on_the_way += [piece for _, piece in key_queues.admit([(None, keyed(keys, start=start))], now=0)]
        start += len(keys)
    for _ in range(ended):
        on_the_way += [turn.chunk for piece in on_the_way[:1] for turn in key_queues.settled([done(piece)])]
        del on_the_way[:1]

    key_queues.keep(lambda _piece: False)

    assert (key_queues.waiting_bytes, key_queues.waiting_records) == (0, 0)


@given(st.lists(st.one_of(st.text("aAbBcC-", min_size=1, max_size=8), st.integers(0, 50)), max_size=30))
def test_each_key_keeps_its_order_in_any_order_of_events(steps: list[str | int]) -> None:
    """Text: that many records are read. A number: one of the admitted records has its result committed."""
    key_queues = KeyQueues()
    key_of: dict[int, str] = {}
    on_the_way: list[int] = []
    ended: defaultdict[str, list[int]] = defaultdict(list)
    out: list[Position] = []

    def started(chunks: Iterable[Chunk]) -> None:
        for piece in chunks:
            out.extend(positions([piece]))
            on_the_way.extend(piece.offsets)
        keys = [key for offset in on_the_way if (key := key_of[offset]) != "-"]
        assert len(keys) == len(set(keys)), "two of a key at once"

    def end(choice: int) -> None:
        offset = on_the_way.pop(choice % len(on_the_way))
        ended[key_of[offset]].append(offset)
        ending = chunk(A, [offset])
        ending.keys = [None if key_of[offset] == "-" else key_of[offset].encode()]
        started(turn.chunk for turn in key_queues.settled([done(ending)]))

    for step in steps:
        if isinstance(step, int):
            if on_the_way:
                end(step)
            continue
        start = len(key_of)
        key_of.update(enumerate(step.lower(), start))
        whole = keyed(step.lower(), start=start)
        lower = [index for index, letter in enumerate(step) if letter.islower()]
        upper = [index for index, letter in enumerate(step) if not letter.islower()]
        lanes: list[LaneChunk] = [(str(bool(part)), whole.pick(part)) for part in (upper, lower) if part]
        started(piece for _, piece in key_queues.admit(lanes, now=0))
    for _ in range(len(key_of)):
        if on_the_way:
            end(0)

    assert sorted(out) == [(A, offset) for offset in key_of], "nothing is lost, nothing comes twice"
    assert all(offsets == sorted(offsets) for key, offsets in ended.items() if key != "-")
    assert (key_queues.waiting_bytes, key_queues.waiting_records) == (0, 0)
    assert not key_queues._states or key_queues._states[A].busy == set()
