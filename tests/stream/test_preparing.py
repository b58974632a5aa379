"""What becomes of records that cannot be shaped now; without threads, one step at a time."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.breaker import Hold
from connector.core.chunks import Chunk, Partition, weight
from connector.core.progress import Progress
from connector.core.verdicts import FILTERED
from connector.shaping.decoded import FormatAwayError
from connector.shaping.shaped import Shaped
from connector.stream import preparing as module
from connector.stream.beginning import BeginOptions
from connector.stream.preparing import Preparer
from connector.stream.reader import Reader, ReadOptions
from tests.kit.sending import PARTITION, Bench
from tests.stream.making import ids

OTHER = Partition(PARTITION.topic, 1)


class Shaping:
    """A reader, a clock, and shaping that works for at most `limit` records at a time."""

    def __init__(self) -> None:
        self.bench = Bench(batch_records=1_000)
        self.state = self.bench.state
        self.state.flow.assign(OTHER, 1, Progress(0))
        self.limit = 10_000
        self.reason = "schema_registry"
        self.calls: list[int] = []
        self.offsets: list[int] = []
        self.filtered: tuple[int, ...] = ()
        """Sevenths of the records that are filtered out."""
        self.takes = 0.0
        """Seconds that shaping a chunk takes."""
        self.probes = 0
        self.at = 100.0
        self.told: list[Hold] = []
        self.state.on_hold = self.told.append
        begin = BeginOptions((PARTITION.topic,), "group", "earliest", "hold", "dead_letter", 1.0)
        options = ReadOptions(begin, 10**7, 1.0, 6.0)
        self.preparer = Preparer(
            self.state, self.bench.operation, name="bench", shape=self._shape, before_probe=self._probe
        )
        self.reader = Reader(self.state, self.preparer, options, name="bench", fail=lambda _error: None, ask_ids=ids())

    def read(self, start: int, count: int, partition: Partition = PARTITION, *, body: bytes = b"x") -> None:
        value = b'{"to":"+15550000001","body":"%s"}' % body
        self.reader._take(Chunk(partition, 1, range(start, start + count), [value] * count), self.at)

    def turn(self, secs: float = 0.0) -> None:
        self.at += secs
        self.preparer.take_kept()

    @property
    def admitted(self) -> list[int]:
        """Offsets of one partition in the order in which they were batched."""
        batches = self.state.batcher.drain()
        return [offset for b in batches for c in b.chunks if c.partition == PARTITION for offset in c.offsets]

    @property
    def results(self) -> list[int]:
        """Offsets of the records that got their verdict when they were shaped."""
        return [offset for item in self.state.flow.finished for c in item.chunks for offset in c.offsets]

    def hold(self) -> str | None:
        return None if self.state.shaping_hold is None else self.state.shaping_hold.reason

    def _probe(self) -> None:
        self.probes += 1

    def _shape(self, chunk: Chunk) -> Shaped:
        self.calls.append(len(chunk))
        self.offsets += chunk.offsets
        self.at += self.takes
        if len(chunk) > self.limit:
            raise FormatAwayError(self.reason, "away")
        event = b'{"to":"+15550000001","body":"shaped"}'
        bad = {at: FILTERED for at, offset in enumerate(chunk.offsets) if offset % 7 in self.filtered}
        return Shaped([None if at in bad else event for at in range(len(chunk))], bad)


@pytest.fixture
def shaping(monkeypatch: pytest.MonkeyPatch) -> Shaping:
    made = Shaping()
    monkeypatch.setattr(module, "now", lambda: made.at)
    return made


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 4), st.sampled_from([0.0, 0.0, 0.4, 2.0]), st.integers(0, 90)),
        max_size=12,
    )
)
def test_each_record_is_batched_or_settled_once_and_in_order_however_shaping_fails_meanwhile(
    steps: list[tuple[int, int, float, int]],
) -> None:
    """Read some records, shape so many at most, each call takes so long, and so much time passes until the next."""
    shaping = Shaping()
    shaping.filtered = (3, 4)
    read, batched = 0, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "now", lambda: shaping.at)
        for count, shaping.limit, shaping.takes, secs in [*steps, *[(0, 10_000, 0.0, 90)] * 4]:
            shaping.preparer.begin_turn()
            if count:
                shaping.read(read, count)
            read += count
            shaping.turn(secs)
            batched += shaping.admitted

            kept = shaping.preparer._kept
            assert shaping.state.unshaped_bytes == sum(map(weight, kept))
            assert shaping.preparer.has_kept or shaping.hold() is None
            assert shaping.state.may_read == (shaping.hold() is None)
            waiting = [offset for piece in kept for offset in piece.offsets]
            assert sorted(batched + shaping.results) + waiting == list(range(read))

    assert batched == [offset for offset in range(read) if offset % 7 not in shaping.filtered]
    assert shaping.hold() is None


def test_what_cannot_be_shaped_holds_the_stream_and_all_behind_it_waits_in_order(shaping: Shaping) -> None:
    shaping.limit = 0
    shaping.read(0, 10)
    shaping.read(10, 10)
    assert (shaping.hold(), shaping.calls, shaping.state.may_read) == ("schema_registry", [10], False)
    assert shaping.state.held_bytes > 0

    shaping.limit = 10_000
    shaping.turn(4.9)
    assert shaping.hold() is not None
    shaping.turn(0.2)

    assert (shaping.hold(), shaping.state.may_read, shaping.state.unshaped_bytes) == (None, True, 0)
    assert shaping.admitted == list(range(20))
    assert shaping.probes == 1


def test_large_records_are_shaped_a_few_at_a_time_and_in_order(shaping: Shaping) -> None:
    """As a Python object, a value may take thirty times its bytes: too much for everything that is fetched at once."""
    shaping.read(0, 10, body=b"x" * (module.DECODED_BYTES // 4))
    shaping.read(10, 2, body=b"x" * (2 * module.DECODED_BYTES))
    shaping.read(12, 1_000)

    assert shaping.calls == [2, 3, 2, 3, 1, 1, 1_000]
    assert shaping.offsets == list(range(1_012))


def test_pauses_between_tries_double_up_to_the_longest_and_restart_with_the_next_hold(shaping: Shaping) -> None:
    shaping.limit = 0
    shaping.read(0, 1)
    tries = []
    for _ in range(3_000):
        before = len(shaping.calls)
        shaping.turn(0.1)
        tries += [shaping.at] if len(shaping.calls) > before else []
    gaps = [round(right - left) for left, right in pairwise(tries)]

    assert gaps == [10, 20, 40, 60, 60, 60]

    shaping.limit = 10
    shaping.turn(60.0)
    shaping.limit = 0
    shaping.read(1, 1)
    before = len(shaping.calls)
    shaping.turn(5.1)
    assert len(shaping.calls) == before + 1


def test_what_goes_on_is_tried_at_once_and_pauses_grow_again_when_nothing_more_does(shaping: Shaping) -> None:
    """A registry that goes away in the middle of a hold is not asked at each turn for as long as it is away."""
    shaping.limit = 0
    shaping.read(0, 1)
    shaping.read(1, 10)
    shaping.limit = 1
    shaping.turn(5.0)
    assert shaping.admitted == [0]

    shaping.limit = 0
    pauses = []
    for _ in range(5):
        before = shaping.at
        while not shaping.preparer.is_due:
            shaping.at += 1.0
        pauses.append(shaping.at - before)
        shaping.turn()

    assert pauses == [0.0, 5.0, 10.0, 20.0, 40.0]


def test_the_operator_may_trigger_a_retry_at_once(shaping: Shaping) -> None:
    shaping.limit = 0
    shaping.read(0, 10)
    shaping.limit = 10_000

    shaping.preparer.try_at_once()
    shaping.turn()

    assert shaping.hold() is None


def test_a_chunk_that_is_too_much_at_once_ends_in_pieces(shaping: Shaping) -> None:
    """For instance if it names more schemas than can be fetched while a thread may wait."""
    shaping.limit = 1
    shaping.read(0, 100)
    for _ in range(200):
        shaping.turn(60.0)

    assert (shaping.hold(), shaping.admitted) == (None, list(range(100)))


def test_what_takes_long_is_left_for_the_next_turn_so_that_the_consumer_is_polled(shaping: Shaping) -> None:
    """For instance if each of many chunks names a schema that the registry returns slowly: that is no hold."""
    shaping.takes = 0.7
    shaping.preparer.begin_turn()
    for start in range(0, 50, 10):
        shaping.read(start, 10)
    assert (len(shaping.calls), shaping.hold(), shaping.reader.has_room) == (2, None, False)

    shaping.turn()
    assert len(shaping.calls) == 4
    shaping.turn()

    assert (shaping.hold(), shaping.reader.has_room, shaping.state.unshaped_bytes) == (None, True, 0)
    assert (shaping.admitted, shaping.probes) == (list(range(50)), 0)


def test_what_was_kept_of_a_partition_that_is_gone_is_dropped_and_the_rest_continues(shaping: Shaping) -> None:
    shaping.limit = 0
    shaping.read(0, 10, OTHER)
    shaping.read(0, 10)
    shaping.reader._forget([OTHER])
    assert shaping.hold() is not None

    shaping.limit = 10_000
    shaping.turn(60.0)

    assert (shaping.hold(), shaping.admitted) == (None, list(range(10)))


def test_the_hold_ends_when_nothing_is_left_to_prepare(shaping: Shaping) -> None:
    shaping.limit = 0
    shaping.read(0, 10)

    shaping.reader._forget([PARTITION])

    assert (shaping.hold(), shaping.state.may_read, shaping.state.unshaped_bytes) == (None, True, 0)
    assert shaping.state.flow.partitions.keys() == {OTHER}


def test_another_reason_is_reported_as_another_hold(shaping: Shaping) -> None:
    shaping.limit = 0
    shaping.read(0, 10)
    shaping.turn(60.0)
    shaping.reason = "transform_failed"
    shaping.turn(60.0)

    assert [hold.reason for hold in shaping.told] == ["schema_registry", "transform_failed"]
    assert shaping.state.shaping_hold is shaping.told[-1]
